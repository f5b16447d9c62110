//! An MQTT publish as the listener hands it over, and whether it is an event already.

use super::wire::{Fields, put_bytes};
use super::{StoredError, wire};
use crate::event::limits::Limits;
use crate::event::media::Mode;
use crate::event::properties::{self, Property};
use crate::event::rules::{check_string, is_attribute_name};
use crate::event::value::check_text;

/// An MQTT publish with all that a subscriber must get unaltered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MqttPublish<'a> {
    /// Who published.
    pub client_id: &'a str,
    /// The topic, a topic alias resolved.
    pub topic: &'a str,
    /// 0, 1 or 2.
    pub qos: u8,
    /// The flag as it was received.
    pub retain: bool,
    /// The packet id; 0 where there is none.
    pub packet_id: u16,
    /// MQTT 5 rather than 3.1.1.
    pub v5: bool,
    /// The raw MQTT 5 properties in order, without the length in front of them; those that belong to the connection only
    /// (topic alias) left out. Of no meaning without `v5`.
    pub properties: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> MqttPublish<'a> {
    /// Appends what all publishes have in common, payload and packet id aside.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.push((self.qos & 3) | u8::from(self.retain) << 2 | u8::from(self.v5) << 3);
        put_bytes(out, self.client_id.as_bytes());
        put_bytes(out, self.topic.as_bytes());
        if self.v5 {
            put_bytes(out, self.properties);
        }
    }

    /// Reads what [`MqttPublish::put`] wrote.
    pub(super) fn take(fields: &mut Fields<'a>, packet_id: u16) -> Result<Self, StoredError> {
        let flags = fields.u8()?;
        if flags & !0x0f != 0 {
            return Err(StoredError::Head(flags));
        }
        let v5 = flags & 8 != 0;
        Ok(Self {
            client_id: wire::text(fields.bytes()?)?,
            topic: wire::text(fields.bytes()?)?,
            qos: flags & 3,
            retain: flags & 4 != 0,
            packet_id,
            v5,
            properties: if v5 { fields.bytes()? } else { &[] },
            payload: &[],
        })
    }
}

/// What a publish may be, by what is cheap to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// No event.
    Plain,
    /// An event in binary mode, checked.
    Binary,
    /// Perhaps an event in JSON: it must be parsed.
    Json,
    /// Perhaps an event in CBOR: it must be parsed.
    Cbor,
}

pub(super) fn look(publish: &MqttPublish<'_>) -> Look {
    if !publish.v5 {
        return if looks_like_json_event(publish.payload) { Look::Json } else { Look::Plain };
    }
    match Mode::of(properties::content_type(publish.properties)) {
        Mode::StructuredJson => Look::Json,
        Mode::StructuredCbor => Look::Cbor,
        Mode::Binary if is_binary_event(publish.properties) => Look::Binary,
        _ => Look::Plain,
    }
}

fn looks_like_json_event(payload: &[u8]) -> bool {
    payload.trim_ascii_start().first() == Some(&b'{') && memchr::memmem::find(payload, b"\"specversion\"").is_some()
}

/// Whether the user properties are a valid event in binary mode. Judges as [`crate::event::mqtt::decode`] does, and allocates
/// nothing.
fn is_binary_event(raw: &[u8]) -> bool {
    let limit = Limits::default().max_attributes;
    let has_type = properties::content_type(raw).is_some_and(|text| !text.is_empty());
    if properties::content_type(raw).is_some_and(|text| check_string(text).is_err()) {
        return false;
    }
    let mut walk = properties::walk(raw);
    let (mut required, mut count) = (0, 0);
    while let Some(property) = walk.next() {
        let Property::User(name, value) = property else { continue };
        if !is_attribute_name(name) || (name == "datacontenttype" && has_type) {
            continue;
        }
        count += 1;
        let twice = walk.clone().any(|later| matches!(later, Property::User(other, _) if other == name));
        if count > limit || twice {
            return false;
        }
        let holds = match name {
            "specversion" => value == crate::event::model::SPECVERSION,
            _ => check_text(name, value).is_ok(),
        };
        if !holds {
            return false;
        }
        required += u8::from(matches!(name, "id" | "source" | "type" | "specversion"));
    }
    required == 4
}
