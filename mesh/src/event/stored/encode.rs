//! Writes the stored form.

use bytes::Bytes;

use super::attributes::{put, put_in_payload, put_text};
use super::derive::ContentType;
use super::layout::{BINARY, DATA, DETAIL_SHIFT, EVENT, Fixed, HEADERS, MAPPED, ORIGIN, STRUCTURED, WRAPPED};
use super::publish::{Look, MqttPublish, look};
use super::wire::{put_bytes, put_section, put_varint};
use crate::event::json::{Located, locate};
use crate::event::limits::Limits;
use crate::event::model::Event;
use crate::event::value::Value;
use crate::event::{cbor, json};
use crate::journal::{Epoch, Offset};

/// Where an attribute's text is looked for in the payload; beyond it is stored a second time.
const SEARCHED_BYTES: usize = 4096;
/// Shorter texts are stored where they are read: a place would take as much room.
const SHORTEST_FOUND: usize = 4;

pub(super) const NO_DATA: u8 = 0;
pub(super) const DATA_AS_IT_IS: u8 = 1;
pub(super) const DATA_STRING: u8 = 2;
pub(super) const DATA_BASE64: u8 = 3;
pub(super) const DATA_HERE: u8 = 4;

/// Appends the stored form of an event. `arrival_ms`, if the clock is valid, is when the broker took it in: it becomes the
/// attribute `knativearrivaltime` (D10), in place of one that the event may have. `headers` are those to pass through (D17).
pub fn encode_event<'a>(
    out: &mut Vec<u8>,
    event: &Event,
    arrival_ms: Option<u64>,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
) {
    let mut headers = headers.peekable();
    let has_headers = if headers.peek().is_some() { HEADERS } else { 0 };
    let has_data = if event.data().is_some() { DATA } else { 0 };
    Fixed { head: EVENT | has_data | has_headers, arrival_ms, packet_id: 0 }.put(out);
    put_section(out, |out| {
        for (name, value) in event.attributes() {
            if name != "knativearrivaltime" || arrival_ms.is_none() {
                put(out, name, value);
            }
        }
    });
    if has_headers != 0 {
        put_section(out, |out| {
            for (name, value) in headers {
                put_bytes(out, name.as_bytes());
                put_bytes(out, value);
            }
        });
    }
    if let Some(data) = event.data() {
        out.extend_from_slice(data);
    }
}

/// Appends the stored form of an MQTT publish, deciding itself what it is: an event in binary mode (MQTT 5), in structured mode
/// (MQTT 5 by content type, MQTT 3.1.1 in JSON), or, also where such an event is not valid, a plain publish that is wrapped.
/// Allocates nothing but room in `out`, unless the event is a structured one.
pub fn encode_publish(out: &mut Vec<u8>, publish: &MqttPublish<'_>, arrival_ms: Option<u64>) {
    encode(out, publish, arrival_ms, &[]);
}

/// The same, but a plain publish gets `attributes` (name and text) in the place of those that would be derived, and beside them.
/// Each must be a valid text of its name. What already is an event stays as it is.
pub fn encode_mapped(out: &mut Vec<u8>, publish: &MqttPublish<'_>, arrival_ms: Option<u64>, attributes: &[(&str, &str)]) {
    encode(out, publish, arrival_ms, attributes);
}

fn encode(out: &mut Vec<u8>, publish: &MqttPublish<'_>, arrival_ms: Option<u64>, attributes: &[(&str, &str)]) {
    out.reserve(32 + publish.client_id.len() + publish.topic.len() + publish.properties.len() + publish.payload.len());
    let fixed = |head| Fixed { head, arrival_ms, packet_id: publish.packet_id };
    let index = match look(publish) {
        Look::Binary => {
            fixed(BINARY).put(out);
            publish.put(out);
            out.extend_from_slice(publish.payload);
            return;
        }
        Look::Json => json_index(publish.payload),
        Look::Cbor => cbor_index(publish.payload),
        Look::Plain => None,
    };
    if let Some(index) = index {
        fixed(STRUCTURED).put(out);
        publish.put(out);
        put_bytes(out, &index);
    } else {
        let kind = if attributes.is_empty() { WRAPPED } else { MAPPED };
        fixed(kind | ContentType::of(publish).bits() << DETAIL_SHIFT).put(out);
        publish.put(out);
        if kind == MAPPED {
            put_section(out, |out| attributes.iter().for_each(|(name, text)| put_text(out, name, text)));
        }
    }
    out.extend_from_slice(publish.payload);
}

/// Appends an agent's body, untouched, with where it came from: the name that the event has for ever. The body must not have
/// an origin already; [`super::split`] tells.
pub fn with_origin(out: &mut Vec<u8>, body: &[u8], agent: &str, epoch: Epoch, offset: Offset) {
    out.reserve(32 + agent.len() + body.len());
    out.push(ORIGIN);
    put_bytes(out, agent.as_bytes());
    out.extend_from_slice(&epoch.0.to_le_bytes());
    put_varint(out, offset.0);
    out.extend_from_slice(body);
}

/// The index of an event in JSON, or nothing where it is no valid event.
fn json_index(payload: &[u8]) -> Option<Vec<u8>> {
    let Located { attributes, data } = locate(payload, &Limits::default()).ok()?;
    let (kind, text) = match data {
        json::Data::None => (NO_DATA, ""),
        json::Data::Raw(text) => (DATA_AS_IT_IS, text),
        json::Data::Escaped(text) => {
            json::unescape(text).ok()?;
            (DATA_STRING, text)
        }
        json::Data::Base64(text) => {
            json::unbase64(text).ok()?;
            (DATA_BASE64, text)
        }
    };
    let event = Event::from_attributes(attributes, None).ok()?;
    let mut index = Vec::with_capacity(128);
    index.push(kind);
    if kind != NO_DATA {
        put_place(&mut index, place(payload, text.as_bytes())?);
    }
    put_attributes(&mut index, &event, payload);
    Some(index)
}

/// The index of an event in CBOR, or nothing where it is no valid event.
fn cbor_index(payload: &[u8]) -> Option<Vec<u8>> {
    let body = Bytes::copy_from_slice(payload);
    let event = cbor::decode(&body, &Limits::default()).ok()?;
    let mut index = Vec::with_capacity(128);
    match event.data().map(|data| (data, place(&body, data))) {
        None => index.push(NO_DATA),
        Some((_, Some(place))) => {
            index.push(DATA_AS_IT_IS);
            put_place(&mut index, place);
        }
        Some((data, None)) => {
            index.push(DATA_HERE);
            put_bytes(&mut index, data);
        }
    }
    put_attributes(&mut index, &event, payload);
    Some(index)
}

/// The place of `part` within `whole`, if it is a part of it.
fn place(whole: &[u8], part: &[u8]) -> Option<(usize, usize)> {
    let at = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    (whole.get(at..at.checked_add(part.len())?)? == part).then_some((at, part.len()))
}

fn put_place(out: &mut Vec<u8>, (at, length): (usize, usize)) {
    put_varint(out, at as u64);
    put_varint(out, length as u64);
}

fn put_attributes(out: &mut Vec<u8>, event: &Event, payload: &[u8]) {
    let searched = payload.get(..SEARCHED_BYTES).unwrap_or(payload);
    for (name, value) in event.attributes() {
        let text = match (name, value) {
            ("source", Value::UriRef(text)) | ("dataschema", Value::Uri(text)) | ("time", Value::Timestamp(text)) => {
                Some(text)
            }
            (_, Value::String(text)) => Some(text),
            _ => None,
        };
        let found = text
            .filter(|text| text.len() >= SHORTEST_FOUND)
            .and_then(|text| Some((memchr::memmem::find(searched, text.as_bytes())?, text.len())));
        match found {
            Some((at, length)) => put_in_payload(out, name, at, length),
            None => put(out, name, value),
        }
    }
}
