//! All packets but PUBLISH, through rumqttd's codecs.
//!
//! Those codecs take some things on trust: they panic on packet types that only a server sends, let a property run past the
//! end of its section, ignore reserved bits, and want a property length in a DISCONNECT where the standard lets it be left
//! out. So each packet is checked here first. Should a codec panic all the same, that ends one connection, or the program where panics
//! are not caught (profile `device`); the property test below and a fuzz target look for one.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::BytesMut;
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::v5::V5;
use rumqttd::protocol::{
    ConnAck, ConnAckProperties, ConnectReturnCode, Disconnect, DisconnectProperties, DisconnectReasonCode, Packet,
    PingResp, Protocol, PubAck, PubAckReason, PubComp, PubCompReason, PubRec, PubRecReason, PubRel, PubRelReason, SubAck,
    SubscribeReasonCode, UnsubAck, UnsubAckReason,
};

use super::frame::{Frame, kind};
use super::properties::{self, IN_ACK, IN_DISCONNECT, IN_SUBSCRIBE, IN_UNSUBSCRIBE};
use super::wire::Wire;
use super::{Fault, Version, reason};

/// Decodes a packet that a client may send after CONNECT, other than PUBLISH.
///
/// # Errors
/// A fault that ends the connection.
pub(in crate::mqtt) fn decode(frame: &Frame<'_>, version: Version) -> Result<Packet, Fault> {
    check(frame, version)?;
    let mut stream = BytesMut::with_capacity(frame.whole.len() + 1);
    stream.extend_from_slice(frame.whole);
    if frame.kind() == kind::DISCONNECT && frame.body.len() == 1 {
        // A reason without properties: the codec wants their length, so give it one (of 0).
        stream.clear();
        stream.extend_from_slice(&[frame.first, 2]);
        stream.extend_from_slice(frame.body);
        stream.extend_from_slice(&[0]);
    }
    run(&mut stream, version)
}

/// Runs the codec over one whole, checked packet.
pub(super) fn run(stream: &mut BytesMut, version: Version) -> Result<Packet, Fault> {
    let max = stream.len();
    catch_unwind(AssertUnwindSafe(|| match version {
        Version::V4 => V4.read_mut(stream, max),
        Version::V5 => V5.read_mut(stream, max),
    }))
    .map_err(|_| Fault::new(reason::UNSPECIFIED, "the codec gave up on a packet"))?
    .map_err(|_| Fault::malformed("the packet is malformed"))
}

fn check(frame: &Frame<'_>, version: Version) -> Result<(), Fault> {
    let flags = match frame.kind() {
        kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => 2,
        kind::PUBACK | kind::PUBREC | kind::PUBCOMP | kind::PINGREQ | kind::DISCONNECT => 0,
        kind::CONNECT => return Err(Fault::protocol("a second CONNECT")),
        _ => return Err(Fault::protocol("a packet that a client must not send")),
    };
    if frame.flags() != flags {
        return Err(Fault::malformed("reserved flags of the fixed header"));
    }
    let mut wire = Wire::new(frame.body);
    match frame.kind() {
        kind::PINGREQ => {}
        kind::DISCONNECT => return check_disconnect(wire, version),
        kind::SUBSCRIBE | kind::UNSUBSCRIBE => {
            packet_id(&mut wire)?;
            let subscribe = frame.kind() == kind::SUBSCRIBE;
            if version == Version::V5 {
                properties::check(&mut wire, if subscribe { IN_SUBSCRIBE } else { IN_UNSUBSCRIBE })?;
            }
            return check_filters(wire, subscribe, version);
        }
        _ => {
            packet_id(&mut wire)?;
            if version == Version::V5 && !wire.is_empty() {
                wire.u8()?;
                if !wire.is_empty() {
                    properties::check(&mut wire, IN_ACK)?;
                }
            }
        }
    }
    if wire.is_empty() { Ok(()) } else { Err(Fault::malformed("the packet is longer than its contents")) }
}

fn check_disconnect(mut wire: Wire<'_>, version: Version) -> Result<(), Fault> {
    if version == Version::V5 && !wire.is_empty() {
        wire.u8()?;
        if !wire.is_empty() {
            properties::check(&mut wire, IN_DISCONNECT)?;
        }
    }
    if wire.is_empty() { Ok(()) } else { Err(Fault::malformed("the packet is longer than its contents")) }
}

fn packet_id(wire: &mut Wire<'_>) -> Result<(), Fault> {
    if wire.u16()? == 0 { Err(Fault::protocol("packet identifier 0")) } else { Ok(()) }
}

fn check_filters(mut wire: Wire<'_>, with_options: bool, version: Version) -> Result<(), Fault> {
    if wire.is_empty() {
        return Err(Fault::protocol("no topic filter"));
    }
    while !wire.is_empty() {
        let filter = wire.text()?;
        if with_options {
            let options = wire.u8()?;
            let reserved = if version == Version::V5 { 0xc0 } else { 0xfc };
            if options & reserved != 0 || options & 3 == 3 || options & 0x30 == 0x30 {
                return Err(Fault::protocol("subscription options"));
            }
            if options & 4 != 0 && filter.starts_with("$share/") {
                return Err(Fault::protocol("No Local on a shared subscription"));
            }
        }
    }
    Ok(())
}

/// Appends `packet`. The codec's own faults in writing are kept away by the callers below: each hands over what it can write.
fn encode(out: &mut Vec<u8>, version: Version, packet: Packet) {
    let mut bytes = BytesMut::new();
    let written = match version {
        Version::V4 => V4.write(packet, &mut bytes),
        Version::V5 => V5.write(packet, &mut bytes),
    };
    debug_assert!(written.is_ok(), "a packet of ours can be written");
    out.extend_from_slice(&bytes);
}

/// CONNACK. `code` must be one that the version has.
pub(in crate::mqtt) fn connack(
    out: &mut Vec<u8>,
    version: Version,
    session_present: bool,
    code: ConnectReturnCode,
    properties: Option<ConnAckProperties>,
) {
    let properties = if version == Version::V5 { properties } else { None };
    encode(out, version, Packet::ConnAck(ConnAck { session_present, code }, properties));
}

/// PINGRESP.
pub(in crate::mqtt) fn pingresp(out: &mut Vec<u8>, version: Version) {
    encode(out, version, Packet::PingResp(PingResp));
}

/// SUBACK. 3.1.1 knows one code of failure only.
pub(in crate::mqtt) fn suback(out: &mut Vec<u8>, version: Version, pkid: u16, mut codes: Vec<SubscribeReasonCode>) {
    if version == Version::V4 {
        for code in &mut codes {
            if !matches!(code, SubscribeReasonCode::Success(_)) {
                *code = SubscribeReasonCode::Failure;
            }
        }
    }
    encode(out, version, Packet::SubAck(SubAck { pkid, return_codes: codes }, None));
}

/// UNSUBACK.
pub(in crate::mqtt) fn unsuback(out: &mut Vec<u8>, version: Version, pkid: u16, reasons: Vec<UnsubAckReason>) {
    encode(out, version, Packet::UnsubAck(UnsubAck { pkid, reasons }, None));
}

/// PUBREL for a publish of ours.
pub(in crate::mqtt) fn pubrel(out: &mut Vec<u8>, version: Version, pkid: u16, known: bool) {
    let reason =
        if known || version == Version::V4 { PubRelReason::Success } else { PubRelReason::PacketIdentifierNotFound };
    encode(out, version, Packet::PubRel(PubRel { pkid, reason }, None));
}

/// PUBCOMP.
pub(in crate::mqtt) fn pubcomp(out: &mut Vec<u8>, version: Version, pkid: u16, known: bool) {
    let reason =
        if known || version == Version::V4 { PubCompReason::Success } else { PubCompReason::PacketIdentifierNotFound };
    encode(out, version, Packet::PubComp(PubComp { pkid, reason }, None));
}

/// PUBACK; a reason other than success is for 5.0 only.
pub(in crate::mqtt) fn puback(out: &mut Vec<u8>, version: Version, pkid: u16, reason: PubAckReason) {
    encode(out, version, Packet::PubAck(PubAck { pkid, reason }, None));
}

/// PUBREC; a reason other than success is for 5.0 only.
pub(in crate::mqtt) fn pubrec(out: &mut Vec<u8>, version: Version, pkid: u16, reason: PubRecReason) {
    encode(out, version, Packet::PubRec(PubRec { pkid, reason }, None));
}

/// DISCONNECT from us: 5.0 only, 3.1.1 has none from a server. Always with a reason string: the codec writes a wrong length
/// without properties.
pub(in crate::mqtt) fn disconnect(out: &mut Vec<u8>, fault: &Fault) {
    let properties = DisconnectProperties {
        session_expiry_interval: None,
        reason_string: Some(fault.text.to_owned()),
        user_properties: Vec::new(),
        server_reference: None,
    };
    let reason_code = match fault.reason {
        reason::MALFORMED_PACKET => DisconnectReasonCode::MalformedPacket,
        reason::PROTOCOL_ERROR => DisconnectReasonCode::ProtocolError,
        reason::IMPLEMENTATION => DisconnectReasonCode::ImplementationSpecificError,
        reason::NOT_AUTHORIZED => DisconnectReasonCode::NotAuthorized,
        reason::SERVER_BUSY => DisconnectReasonCode::ServerBusy,
        reason::SHUTTING_DOWN => DisconnectReasonCode::ServerShuttingDown,
        reason::KEEP_ALIVE_TIMEOUT => DisconnectReasonCode::KeepAliveTimeout,
        reason::TAKEN_OVER => DisconnectReasonCode::SessionTakenOver,
        reason::TOPIC_NAME_INVALID => DisconnectReasonCode::TopicNameInvalid,
        reason::RECEIVE_MAXIMUM_EXCEEDED => DisconnectReasonCode::ReceiveMaximumExceeded,
        reason::TOPIC_ALIAS_INVALID => DisconnectReasonCode::TopicAliasInvalid,
        reason::PACKET_TOO_LARGE => DisconnectReasonCode::PacketTooLarge,
        reason::QUOTA_EXCEEDED => DisconnectReasonCode::QuotaExceeded,
        reason::ADMINISTRATIVE => DisconnectReasonCode::AdministrativeAction,
        _ => DisconnectReasonCode::UnspecifiedError,
    };
    encode(out, Version::V5, Packet::Disconnect(Disconnect { reason_code }, Some(properties)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode_bytes(bytes: &[u8], version: Version) -> Result<Packet, Fault> {
        decode(&Frame::next(bytes, 1 << 20).expect("framed").expect("whole"), version)
    }

    #[test]
    fn packets_that_only_a_server_sends_do_not_reach_the_codec() {
        for first in [0x00, 0x10, 0x20, 0x90, 0xb0, 0xd0, 0xf0] {
            for version in [Version::V4, Version::V5] {
                assert!(decode_bytes(&[first, 2, 0, 1], version).is_err(), "{first:#x}");
            }
        }
    }

    #[test]
    fn a_disconnect_with_a_reason_and_nothing_else_is_taken() {
        let Ok(Packet::Disconnect(disconnect, None)) = decode_bytes(&[0xe0, 1, 4], Version::V5) else { panic!() };
        assert_eq!(disconnect.reason_code, DisconnectReasonCode::DisconnectWithWillMessage);
        assert!(decode_bytes(&[0xe0, 1, 4], Version::V4).is_err());
    }

    #[test]
    fn what_the_codec_would_let_pass_is_refused_before() {
        let v4: [&[u8]; 6] = [
            b"\x80\x06\x00\x01\x00\x01a\x00",    // flags of SUBSCRIBE
            b"\x82\x06\x00\x00\x00\x01a\x00",    // packet id 0
            b"\x82\x06\x00\x01\x00\x01a\x04",    // reserved option bits
            b"\x82\x06\x00\x01\x00\x01\x00\x00", // U+0000
            b"\x82\x02\x00\x01",                 // no filter
            b"\xc0\x01\x00",                     // PINGREQ with a body
        ];
        for bytes in v4 {
            assert!(decode_bytes(bytes, Version::V4).is_err(), "{bytes:?}");
        }
        let past_its_section: &[u8] = b"\x82\x0c\x00\x01\x01\x26\x00\x01a\x00\x01b\x00\x00";
        assert!(decode_bytes(past_its_section, Version::V5).is_err());
    }

    #[test]
    fn every_disconnect_of_ours_has_the_length_it_says() {
        for code in 0x80..=0xa2 {
            let mut out = Vec::new();
            disconnect(&mut out, &Fault::new(code, "why"));
            let frame = Frame::next(&out, 1000).expect("framed").expect("whole");
            assert_eq!(frame.whole.len(), out.len());
            assert!(decode_bytes(&out, Version::V5).is_ok());
        }
    }

    proptest! {
        #[test]
        fn any_packet_is_decoded_or_refused_without_a_panic(
            first: u8, body in proptest::collection::vec(any::<u8>(), 0..80), v5: bool,
        ) {
            let mut bytes = vec![first];
            super::super::wire::put_varint(&mut bytes, body.len());
            bytes.extend_from_slice(&body);
            let version = if v5 { Version::V5 } else { Version::V4 };
            if let Err(fault) = decode_bytes(&bytes, version) {
                prop_assert_ne!(fault.reason, reason::UNSPECIFIED, "the codec panicked");
            }
        }
    }
}
