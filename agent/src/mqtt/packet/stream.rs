//! All decoders over one stream, as a connection meets it: for the fuzz target `mqtt_packets`, and a test with its seeds.

use super::connect::Connect;
use super::frame::{Frame, kind};
use super::publish::{Outgoing, Publish};
use super::{Fault, Version, control, reason};
use crate::mqtt::limits::Limits;

/// Largest packet here.
const MAX_PACKET_BYTES: usize = 64 << 10;

/// Decodes a stream of packets, whole and in pieces, which must come to the same, and writes each PUBLISH anew. The first byte
/// says how: 1, that it goes on after CONNECT; 2, that it is 5.0 then; the rest, how long the pieces are.
///
/// # Panics
/// When a decoder contradicts itself, or a codec panics.
pub fn decode_stream(input: &[u8]) {
    let Some((&how, stream)) = input.split_first() else { return };
    let version = if how & 2 == 0 { Version::V4 } else { Version::V5 };
    let connected = (how & 1 != 0).then_some(version);
    let whole = decode_in(stream, stream.len().max(1), connected);
    assert_eq!(whole, decode_in(stream, usize::from(how >> 2) + 1, connected), "pieces make a difference");
}

/// What each packet is found to be; the last one may be why no more is read.
fn decode_in(stream: &[u8], piece: usize, mut connected: Option<Version>) -> Vec<String> {
    let mut found = Vec::new();
    let mut here = Vec::new();
    for piece in stream.chunks(piece) {
        here.extend_from_slice(piece);
        let mut at = 0;
        loop {
            let frame = match Frame::next(here.get(at..).unwrap_or_default(), MAX_PACKET_BYTES) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(fault) => {
                    found.push(fault.to_string());
                    return found;
                }
            };
            assert_eq!(Frame::announced(frame.whole), Some(frame.whole.len()));
            let decoded = match connected {
                None => {
                    Connect::read(&frame, &Limits::default()).map_err(|refusal| format!("{refusal:?}")).map(|connect| {
                        connected = Some(connect.version);
                        format!("{connect:?}")
                    })
                }
                Some(version) => decode(&frame, version).map_err(|fault| {
                    assert_ne!(fault.reason, reason::UNSPECIFIED, "the codec panicked");
                    fault.to_string()
                }),
            };
            let ended = decoded.is_err();
            found.push(decoded.unwrap_or_else(|why| why));
            if ended {
                return found;
            }
            at += frame.whole.len();
        }
        here.drain(..at);
    }
    found
}

fn decode(frame: &Frame<'_>, version: Version) -> Result<String, Fault> {
    if frame.kind() != kind::PUBLISH {
        return control::decode(frame, version).map(|packet| format!("{packet:?}"));
    }
    let limits = Limits::default();
    let publish = Publish::read(frame, version, &limits)?;
    let mut scratch = Vec::new();
    assert!(publish.lasting_properties(&mut scratch).len() <= publish.properties.len());
    let outgoing = Outgoing {
        topic: publish.topic,
        qos: publish.qos,
        retain: publish.retain,
        packet_id: publish.packet_id,
        properties: publish.properties,
        subscription_ids: &[],
        payload: publish.payload,
    };
    let mut out = Vec::new();
    outgoing.write(&mut out, version);
    assert_eq!(out.len(), outgoing.len(version));
    let again = Frame::next(&out, usize::MAX)?.expect("what was written is whole");
    let again = Publish::read(&again, version, &limits).expect("what was written can be read");
    // A publish is handed on as a new one.
    let first = |publish: &Publish<'_>| format!("{publish:?}").replace("dup: true", "dup: false");
    assert_eq!(first(&again), first(&publish));
    Ok(format!("{publish:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_of_the_fuzz_target_reach_the_decoders() {
        let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/mqtt_packets");
        let mut packets = 0;
        for seed in std::fs::read_dir(seeds).expect("the seeds") {
            let path = seed.expect("an entry").path();
            let bytes = std::fs::read(&path).expect("readable");
            decode_stream(&bytes);
            let (how, stream) = bytes.split_first().expect("not empty");
            let version = if how & 2 == 0 { Version::V4 } else { Version::V5 };
            let found = decode_in(stream, 5, (how & 1 != 0).then_some(version));
            assert!(found.iter().all(|packet| !packet.contains("(0x")), "{}: {found:?}", path.display());
            packets += found.len();
        }
        assert!(packets > 20, "{packets}");
    }
}
