//! MQTT packets: bytes to values and back.
//!
//! PUBLISH and the fixed header have parsers of our own that borrow and do not allocate, because they are the hot path and
//! because a PUBLISH must be kept with its properties in order. Everything else goes through rumqttd's codecs behind
//! [`control`], which checks first what those codecs take on trust.
//! `docs/decisions/0003-mqtt-codecs.md` says why.

pub(super) mod connect;
pub(super) mod control;
pub(super) mod frame;
pub(super) mod properties;
pub(super) mod publish;
pub(super) mod reason;
#[cfg(any(test, fuzzing))]
pub(super) mod stream;
pub(super) mod topic;
pub(super) mod wire;

/// The protocol version of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V4,
    /// MQTT 5.0, protocol level 5.
    V5,
}

impl Version {
    /// The version as people write it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "3.1.1",
            Self::V5 => "5.0",
        }
    }
}

/// A breach of the protocol, or of a limit, that ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{text} (0x{reason:02x})")]
pub(super) struct Fault {
    /// The MQTT 5 reason code; goes into DISCONNECT where the peer speaks 5.0.
    pub(super) reason: u8,
    /// What was wrong, for the peer's log and for ours.
    pub(super) text: &'static str,
}

impl Fault {
    /// A fault with a reason code of its own.
    pub(super) const fn new(reason: u8, text: &'static str) -> Self {
        Self { reason, text }
    }

    /// The bytes do not make a packet (0x81).
    pub(super) const fn malformed(text: &'static str) -> Self {
        Self::new(reason::MALFORMED_PACKET, text)
    }

    /// The packet is whole but must not come, or not now (0x82).
    pub(super) const fn protocol(text: &'static str) -> Self {
        Self::new(reason::PROTOCOL_ERROR, text)
    }
}
