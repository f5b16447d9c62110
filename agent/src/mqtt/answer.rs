//! What an acknowledgement, or its refusal, is in bytes.

use godwit_mesh::journal::Refused;
use rumqttd::protocol::{PubAckReason, PubRecReason};

use super::acks::{Ack, AckKind};
use super::packet::frame::kind;
use super::packet::{Fault, Version, control, reason};
use super::qos2::Handshakes;

/// Writes an acknowledgement. Those of success are four bytes in either version; they are the hot path.
pub(super) fn write_ack(out: &mut Vec<u8>, version: Version, ack: Ack) {
    let [high, low] = ack.packet_id.to_be_bytes();
    let code = if version == Version::V4 { reason::SUCCESS } else { ack.reason };
    match (ack.kind, code) {
        (AckKind::Puback, reason::SUCCESS) => out.extend_from_slice(&[kind::PUBACK << 4, 2, high, low]),
        (AckKind::Puback, reason::NO_MATCHING_SUBSCRIBERS) => {
            control::puback(out, version, ack.packet_id, PubAckReason::NoMatchingSubscribers);
        }
        (AckKind::Puback, _) => control::puback(out, version, ack.packet_id, PubAckReason::TopicNameInvalid),
        (AckKind::PubrecAgain, _) | (AckKind::Pubrec, reason::SUCCESS) => {
            out.extend_from_slice(&[kind::PUBREC << 4, 2, high, low]);
        }
        (AckKind::Pubrec, reason::NO_MATCHING_SUBSCRIBERS) => {
            control::pubrec(out, version, ack.packet_id, PubRecReason::NoMatchingSubscribers);
        }
        (AckKind::Pubrec, _) => control::pubrec(out, version, ack.packet_id, PubRecReason::TopicNameInvalid),
        (AckKind::Pubcomp, _) => out.extend_from_slice(&[kind::PUBCOMP << 4, 2, high, low]),
        (AckKind::PubcompUnknown, _) => control::pubcomp(out, version, ack.packet_id, false),
    }
}

/// Tells the client that nothing of this was stored; an error where it can only be told by closing.
pub(super) fn write_refusal(
    out: &mut Vec<u8>,
    version: Version,
    handshakes: &mut Handshakes,
    ack: Ack,
    refused: &Refused,
) -> Result<(), Fault> {
    let quota = matches!(refused, Refused::Full | Refused::DiskFull | Refused::TooLarge { .. });
    match ack.kind {
        AckKind::PubrecAgain | AckKind::PubcompUnknown => write_ack(out, version, ack),
        AckKind::Pubcomp => {
            // The fact is still there: the client will release it again.
            if let Some(open) = handshakes.get_mut(&ack.packet_id) {
                open.releasing = false;
            }
            return Err(Fault::new(reason::UNSPECIFIED, "the disk failed"));
        }
        AckKind::Pubrec => {
            handshakes.remove(&ack.packet_id);
            let code = if quota { PubRecReason::QuotaExceeded } else { PubRecReason::ImplementationSpecificError };
            if version == Version::V5 {
                control::pubrec(out, version, ack.packet_id, code);
            }
        }
        AckKind::Puback if version == Version::V5 => {
            let code = if quota { PubAckReason::QuotaExceeded } else { PubAckReason::ImplementationSpecificError };
            control::puback(out, version, ack.packet_id, code);
        }
        AckKind::Puback => {}
    }
    match (version, refused) {
        (_, Refused::Closed) => Err(Fault::new(reason::SHUTTING_DOWN, "the agent is stopping")),
        (Version::V4, _) => Err(Fault::new(reason::QUOTA_EXCEEDED, "the publish could not be stored")),
        (Version::V5, _) => Ok(()),
    }
}
