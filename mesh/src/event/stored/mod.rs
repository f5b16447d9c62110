//! The stored form of an event: what the body of a journal record is. It is read far more often than it is written, and by
//! filters, so attributes are found in it without an allocation; and whatever can be derived is not stored.
//!
//! # Format
//! Lengths, offsets and counts are LEB128 (`varint`), numbers little-endian, texts UTF-8.
//!
//! ```text
//! head       u8       bits 0-2 kind: 0 event, 1 wrapped publish, 2 binary publish, 3 structured publish,
//!                     4 mapped publish, 7 origin
//!                     bit 3 arrival follows, bit 4 packet id follows, bits 5-6 of the kind, bit 7 zero (a later format)
//! arrival    u48      milliseconds since 1970, when the broker took it in          if bit 3
//! packet id  u16      of the PUBLISH                                               if bit 4
//! meta                by kind, below
//! payload             the rest: the event's data, or the payload of the publish
//! ```
//!
//! - **event** (bit 5: there is data, bit 6: there are headers): `varint n`, n bytes of attributes; if bit 6 `varint n`, n bytes of
//!   pass-through headers, each `varint` name `varint` value.
//! - **publish**, all kinds: `u8` (bits 0-1 QoS, bit 2 retain, bit 3 MQTT 5), `varint` client id, `varint` topic, and with MQTT 5
//!   `varint` properties, raw and in order.
//!   - **wrapped**, a publish that is no event: `id`, `source`, `type`, `subject`, `time` and `expirytime` are derived. Bits 5-6 say what
//!     `datacontenttype` is: 0 the property, if any; 1 JSON; 2 plain text; 3 octets.
//!   - **mapped**, a wrapped one to which a source mapping has given attributes of its own: `varint n`, n bytes of attributes, which
//!     stand in the place of those derived, and beside them. Versions before it refuse it by its head.
//!   - **binary**, an event in binary mode of MQTT 5: its attributes are the user properties.
//!   - **structured**, an event in structured mode: `varint n`, n bytes of index: where its data is in the payload (`u8` 0 none, 1 as it
//!     is, 2 a JSON string, 3 a JSON string of base64, each `varint` offset `varint` length; 4 here: `varint` bytes), then attributes.
//! - **origin**: `varint` agent id, `u64` epoch, `varint` offset; then the body as that agent had it, which has no origin itself.
//!
//! An attribute is `u8` (bits 0-4 a known name or 0, bits 5-7 the type), for 0 the `varint` name, then its value: text and bytes
//! `varint` and bytes; an integer `i32`; a boolean `u8`; type 7, a text of the type its name has, `varint` offset and `varint` length in
//! the payload.
//!
//! Not stored: `specversion`, which is 1.0; `knativearrivaltime` where there is an arrival; `godwitagent` where there is an origin.

mod attributes;
mod derive;
mod encode;
mod layout;
mod plain;
mod publish;
mod record;
mod wire;

pub use attributes::AttributeRef;
pub use derive::WRAPPED_TYPE;
pub use encode::{encode_event, encode_mapped, encode_publish, with_origin};
pub use layout::{Split, join, split};
pub(crate) use plain::PlainEvent;
pub use publish::MqttPublish;
pub(crate) use record::Found;
pub use record::{Origin, StoredEvent};

use thiserror::Error;

use super::error::EventError;

/// Why bytes are not the stored form of an event.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoredError {
    /// A head that this version does not know.
    #[error("stored event has head 0x{0:02x}, which this version does not know: it was written by a newer one")]
    Head(u8),
    /// The bytes end within a field, or a field is not what it must be.
    #[error("stored event is malformed: {0}")]
    Malformed(&'static str),
    /// The fields are readable and are not a valid event.
    #[error("stored event is not valid: {0}")]
    Event(#[from] EventError),
}

#[cfg(test)]
mod tests;
