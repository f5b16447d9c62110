//! What is derived rather than stored: the attributes of a wrapped publish, times. Written into a buffer that is used again,
//! so that nothing is allocated once it has grown.

use std::fmt::Write as _;

use time::OffsetDateTime;

use super::publish::MqttPublish;
use crate::event::media;
use crate::event::properties::{self, Property};
use crate::event::rules::{check_string, is_forbidden};
use crate::journal::{Epoch, Offset};

/// The `type` of an event that a plain publish becomes.
pub const WRAPPED_TYPE: &str = "dev.godwit.mqtt.publish";

/// `id` of a wrapped publish: unique for ever, since no epoch is drawn twice.
pub(super) fn write_id(out: &mut String, epoch: Epoch, offset: Offset) {
    let _ = write!(out, "{epoch}-{offset}"); // writing to a String cannot fail
}

/// `source` of a wrapped publish: the agent and the client, percent-encoded but for RFC 3986's unreserved characters.
pub(super) fn write_source(out: &mut String, agent: Option<&str>, client_id: &str) {
    if let Some(agent) = agent {
        out.push_str("/agents/");
        out.push_str(agent);
    }
    out.push_str("/mqtt/");
    for byte in client_id.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// `subject` of a wrapped publish: the topic, in which what no String may hold is percent-encoded.
pub(super) fn write_subject(out: &mut String, topic: &str) {
    for c in topic.chars() {
        if is_forbidden(c) {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(out, "%{byte:02X}");
            }
        } else {
            out.push(c);
        }
    }
}

/// An instant in RFC 3339, to the millisecond; nothing for one after the year 9999.
pub(super) fn write_time(out: &mut String, ms: u64) -> Option<()> {
    let at = OffsetDateTime::from_unix_timestamp(i64::try_from(ms / 1000).ok()?).ok()?;
    let (date, month, ms) = (at.date(), u8::from(at.month()), ms % 1000);
    write!(out, "{:04}-{month:02}-{:02}T", date.year(), date.day()).ok()?;
    write!(out, "{:02}:{:02}:{:02}.{ms:03}Z", at.hour(), at.minute(), at.second()).ok()
}

/// When a wrapped publish is worth nothing any more.
pub(super) fn expiry_ms(publish: &MqttPublish<'_>, arrival_ms: Option<u64>) -> Option<u64> {
    let seconds = properties::walk(publish.properties).find_map(|property| match property {
        Property::MessageExpiry(seconds) => Some(seconds),
        _ => None,
    })?;
    arrival_ms?.checked_add(u64::from(seconds) * 1000)
}

/// What decides `datacontenttype` of a wrapped publish; kept in two bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentType {
    Property,
    Json,
    Text,
    Octets,
}

impl ContentType {
    /// Decides; looks at the payload only where no property says what it is.
    pub(super) fn of(publish: &MqttPublish<'_>) -> Self {
        if publish.payload.is_empty() || property(publish.properties).is_some() {
            return Self::Property;
        }
        if crate::event::jsontext::is_json(publish.payload) {
            return Self::Json;
        }
        let text = properties::walk(publish.properties).any(|property| property == Property::PayloadFormat(1));
        if text { Self::Text } else { Self::Octets }
    }

    pub(super) fn bits(self) -> u8 {
        match self {
            Self::Property => 0,
            Self::Json => 1,
            Self::Text => 2,
            Self::Octets => 3,
        }
    }

    pub(super) fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Property,
            1 => Self::Json,
            2 => Self::Text,
            _ => Self::Octets,
        }
    }

    pub(super) fn text<'a>(self, publish: &MqttPublish<'a>) -> Option<&'a str> {
        match self {
            Self::Property => property(publish.properties),
            Self::Json => Some(media::JSON),
            Self::Text => Some(media::TEXT),
            Self::Octets => Some(media::OCTETS),
        }
    }
}

/// The property Content Type, where it can be an attribute.
fn property(raw: &[u8]) -> Option<&str> {
    properties::content_type(raw).filter(|text| !text.is_empty() && check_string(text).is_ok())
}
