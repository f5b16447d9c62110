//! Frames: `[kind u8][CBOR map with integer keys]`.
//!
//! The keys are the positions of the fields below, so a field may be added at the end and none may be moved or removed. A
//! receiver ignores keys and kinds that it does not know; a field that has its default is not sent. `vectors/` keeps frames
//! of version 1 as they were first written, and a test reads them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::SyncError;
use super::limits::{MAX_BROKERS, MAX_LINEAGE, MAX_SKIPS};

/// One frame, opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Agent: who I am and where my brokers stand. The first frame of every request.
    Hello(Hello),
    /// Agent: brokers that have come since the hello.
    Offer(Offer),
    /// Agent: events of one broker.
    Events(Events<'a>),
    /// Agent: what became of the objects sent down.
    Report(Report),
    /// Gateway: where the agent goes on. The first frame of every answer.
    Welcome(Welcome),
    /// Gateway: what is stored by now, refused, and may be sent.
    Answer(Answer),
    /// Gateway: this connection is not served, and why. The last frame.
    Goodbye(Goodbye),
    /// Gateway: the objects that the agent shall run.
    Objects(Objects),
    /// Something of a later version.
    Unknown(u8),
}

/// The agent's first frame.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// The newest version of the protocol that the agent speaks.
    pub version: u32,
    /// The oldest one.
    pub oldest_version: u32,
    /// How often, at least, either side shall give a sign of life, in ms.
    pub heartbeat_ms: u64,
    /// The window that the agent would compress with.
    pub window_log: u32,
    /// The agent's brokers.
    pub brokers: Vec<Standing>,
    /// The agent's labels, by which objects choose it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The agent's software, for people.
    pub software: String,
    /// Whether this request ends with its events: the answer then ends too, once they are stored.
    #[serde(skip_serializing_if = "is_default")]
    pub finite: bool,
}

/// Where one broker of the agent stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// The number by which this connection names the broker.
    pub index: u32,
    /// The broker's name, `namespace/name`.
    pub name: String,
    /// Its newest epochs in order, each with its first offset; at most [`MAX_LINEAGE`].
    pub lineage: Vec<(u64, u64)>,
    /// The oldest offset that the agent still has.
    pub first: u64,
    /// The next offset that it will give to an event.
    pub next: u64,
    /// The position that the agent last heard of.
    pub cursor: u64,
}

/// Brokers that have come since the hello.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Offer {
    /// The brokers, with numbers not used before.
    pub brokers: Vec<Standing>,
}

/// Events of one broker in a range of offsets without a gap. [`super::BatchWriter`] and [`super::BatchReader`] fill and open it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Events<'a> {
    /// The broker's number.
    pub broker: u32,
    /// How many events; 1 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// The events' bodies, see [`super::columns`].
    #[serde(borrow, with = "byte_string")]
    pub columns: &'a [u8],
    /// The epoch of all of them; absent: that of the broker's last frame on this stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The first offset; absent: it goes on where the broker's last frame ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Arrival (in the units of the stored form) that the first difference is taken from; absent: the last one of the broker's
    /// last frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrival: Option<u64>,
    /// Offsets that have no event here: (events since the last skip, how many, reason).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skips: Vec<(u32, u64, u8)>,
    /// Whether the answer shall come as soon as this is stored.
    #[serde(skip_serializing_if = "is_default")]
    pub urgent: bool,
}

/// What became of the objects sent down.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The revision that the agent runs; 0 for none.
    pub revision: u64,
    /// Whether all of its objects are ready.
    pub ready: bool,
    /// The revision that it refused, with the reason; 0 and empty for none.
    pub refused: u64,
    /// Why it was refused, or what is not ready.
    pub error: String,
}

/// The gateway's first frame.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Welcome {
    /// The version that both shall speak.
    pub version: u32,
    /// The heartbeat that holds for both, in ms.
    pub heartbeat_ms: u64,
    /// The largest window that the gateway will decompress with.
    pub window_log: u32,
    /// The largest frame that the gateway will open, in bytes.
    pub max_frame_bytes: u64,
    /// Where each offered broker goes on.
    pub brokers: Vec<GoOn>,
    /// The gateway's software, for people.
    pub software: String,
}

/// Where a broker goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GoOn {
    /// The broker's number.
    pub index: u32,
    /// The last common point: the offset that comes next.
    pub next: u64,
    /// Bytes of bodies that may be unanswered; 0: send nothing of this broker for now.
    pub credit: u64,
    /// Why this broker is not taken; empty if it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub refused: String,
    /// Events before `next` that were refused for good and that the agent, by its cursor, may not have heard of: offset, reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<(u64, String)>,
}

/// What is stored by now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// Per broker: number and the next offset that the gateway does not have yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub positions: Vec<(u32, u64)>,
    /// Events refused for good: broker, offset, reason. Sent before the position that covers them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<(u32, u64, String)>,
    /// New credit: broker, bytes. 0: the broker cannot store now; what is on its way is kept, more would not be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub credit: Vec<(u32, u64)>,
    /// Where offered brokers go on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub brokers: Vec<GoOn>,
}

/// Why a connection is not served.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Goodbye {
    /// One of the constants below.
    pub code: u32,
    /// For people.
    pub message: String,
}

impl Goodbye {
    /// The agent's bytes broke the protocol.
    pub const MALFORMED: u32 = 1;
    /// No version in common.
    pub const VERSION: u32 = 2;
    /// Another agent of this id is connected and has gone another way.
    pub const FORK: u32 = 3;
    /// A newer connection of this agent took over.
    pub const TAKEN_OVER: u32 = 4;
    /// The gateway stops, or cannot store.
    pub const UNAVAILABLE: u32 = 5;
    /// The credential that the connection came with is no longer in force.
    pub const REVOKED: u32 = 6;
}

/// The objects that an agent shall run: all of them, in place of those before.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Objects {
    /// Names this set; equal sets have equal revisions. Never 0.
    pub revision: u64,
    /// The objects as a JSON array, each as its author wrote it.
    pub set: String,
}

impl Objects {
    /// The frame for a set in its JSON form.
    #[must_use]
    pub fn new(set: String) -> Self {
        let digest = sha2::Sha256::digest(set.as_bytes());
        let revision = digest.iter().take(8).fold(0, |n, &b| n << 8 | u64::from(b));
        Self { revision: revision.max(1), set }
    }
}

impl<'a> Frame<'a> {
    const fn code(&self) -> u8 {
        match self {
            Self::Hello(_) => 1,
            Self::Offer(_) => 2,
            Self::Events(_) => 3,
            Self::Report(_) => 4,
            Self::Welcome(_) => 16,
            Self::Answer(_) => 17,
            Self::Goodbye(_) => 18,
            Self::Objects(_) => 19,
            // 20 is kept for events sent down.
            Self::Unknown(code) => *code,
        }
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.code());
        match self {
            Self::Hello(body) => cbor(out, body),
            Self::Offer(body) => cbor(out, body),
            Self::Events(body) => cbor(out, body),
            Self::Report(body) => cbor(out, body),
            Self::Welcome(body) => cbor(out, body),
            Self::Answer(body) => cbor(out, body),
            Self::Goodbye(body) => cbor(out, body),
            Self::Objects(body) => cbor(out, body),
            Self::Unknown(_) => {}
        }
    }

    /// The frame as bytes of its own.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// Opens a frame that an agent sent; one of a gateway's is unknown.
    ///
    /// # Errors
    /// When it is not a frame, or holds more brokers, epochs or skips than allowed.
    pub fn from_agent(bytes: &'a [u8]) -> Result<Self, SyncError> {
        let frame = match split(bytes)? {
            (1, body) => Self::Hello(parse("hello", body)?),
            (2, body) => Self::Offer(parse("offer", body)?),
            (3, body) => Self::Events(parse("events", body)?),
            (4, body) => Self::Report(parse("report", body)?),
            (code, _) => Self::Unknown(code),
        };
        match &frame {
            Self::Hello(Hello { brokers, .. }) | Self::Offer(Offer { brokers }) => {
                SyncError::check("number of brokers", brokers.len(), MAX_BROKERS)?;
                for broker in brokers {
                    SyncError::check("lineage", broker.lineage.len(), MAX_LINEAGE)?;
                }
            }
            Self::Events(events) => SyncError::check("number of skips", events.skips.len(), MAX_SKIPS)?,
            _ => {}
        }
        Ok(frame)
    }

    /// Opens a frame that a gateway sent; one of an agent's is unknown.
    ///
    /// # Errors
    /// When it is not a frame.
    pub fn from_gateway(bytes: &'a [u8]) -> Result<Self, SyncError> {
        Ok(match split(bytes)? {
            (16, body) => Self::Welcome(parse("welcome", body)?),
            (17, body) => Self::Answer(parse("answer", body)?),
            (18, body) => Self::Goodbye(parse("goodbye", body)?),
            (19, body) => Self::Objects(parse("objects", body)?),
            (code, _) => Self::Unknown(code),
        })
    }
}

fn split(bytes: &[u8]) -> Result<(u8, &[u8]), SyncError> {
    let (&code, body) = bytes.split_first().ok_or_else(|| SyncError::malformed("frame", "it is empty"))?;
    Ok((code, body))
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn cbor<T: Serialize>(out: &mut Vec<u8>, body: &T) {
    let mut writer = serde_cbor::ser::IoWrite::new(out);
    let mut serializer = serde_cbor::Serializer::new(&mut writer).packed_format();
    body.serialize(&mut serializer).expect("a frame's types always have a CBOR form, and writing to memory does not fail");
}

fn parse<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, SyncError> {
    serde_cbor::from_slice(bytes).map_err(|e| SyncError::malformed(what, e.to_string()))
}

/// A slice as a CBOR byte string, borrowed from the frame when read.
mod byte_string {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'de [u8], D::Error> {
        Deserialize::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = Frame::from_agent(&bytes);
            let _ = Frame::from_gateway(&bytes);
        }

        #[test]
        fn events_come_back(broker: u32, count: Option<u32>, columns: Vec<u8>, epoch: Option<u64>, from: Option<u64>, arrival: Option<u64>,
            skips in proptest::collection::vec(any::<(u32, u64, u8)>(), 0..4), urgent: bool) {
            let frame = Frame::Events(Events { broker, count, columns: &columns, epoch, from, arrival, skips, urgent });
            let bytes = frame.to_vec();
            prop_assert_eq!(Frame::from_agent(&bytes).expect("valid"), frame);
        }

        #[test]
        fn an_answer_comes_back(positions: Vec<(u32, u64)>, refused: Vec<(u32, u64, String)>, credit: Vec<(u32, u64)>) {
            let frame = Frame::Answer(Answer { positions, refused, credit, brokers: Vec::new() });
            let bytes = frame.to_vec();
            prop_assert_eq!(Frame::from_gateway(&bytes).expect("valid"), frame);
        }
    }

    #[test]
    fn what_a_later_version_adds_is_ignored() {
        // {0: [[1, 2]], 200: "new"}
        let bytes = [17, 0xa2, 0x00, 0x81, 0x82, 0x01, 0x02, 0x18, 200, 0x63, b'n', b'e', b'w'];
        let expected = Answer { positions: vec![(1, 2)], ..Answer::default() };
        assert_eq!(Frame::from_gateway(&bytes).expect("valid"), Frame::Answer(expected));
        assert_eq!(Frame::from_gateway(&[99, 1, 2, 3]).expect("valid"), Frame::Unknown(99));
    }

    #[test]
    fn what_the_other_side_sends_is_unknown() -> Result<(), SyncError> {
        for (name, _, frame) in super::super::vectors::frames() {
            let bytes = frame.to_vec();
            let agents = matches!(frame, Frame::Hello(_) | Frame::Offer(_) | Frame::Events(_) | Frame::Report(_));
            let (here, there) = (Frame::from_agent(&bytes)?, Frame::from_gateway(&bytes)?);
            let (ours, other) = if agents { (here, there) } else { (there, here) };
            assert_eq!((ours, other), (frame, Frame::Unknown(bytes[0])), "{name}");
        }
        Ok(())
    }

    #[test]
    fn an_answer_of_one_position_takes_few_bytes() {
        let frame = Frame::Answer(Answer { positions: vec![(0, 100_000)], ..Answer::default() });
        assert!(frame.to_vec().len() <= 12);
    }
}
