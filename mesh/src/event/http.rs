//! The HTTP protocol binding (CloudEvents 1.0.2): binary, structured and batched mode, both ways.
//!
//! Header values are percent-decoded once and percent-encoded where they must be. Since common SDKs do neither,
//! [`deliver`] chooses structured mode for an event whose attributes would need it. Names of headers are compared as HTTP does,
//! whatever their case; an attribute that is sent twice is refused.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::error::{EventError, ValueError};
use super::limits::Limits;
use super::media::Mode;
use super::model::Event;
use super::value::Value;
use super::{cbor, json, percent};

/// What a message held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// One event, in binary or structured mode.
    One(Event),
    /// The events of a batch, perhaps none.
    Batch(Vec<Event>),
}

/// Reads a request or response. The mode is found by the content type.
///
/// # Errors
/// [`EventError::NotAnEvent`] where nothing of an event is there; else what is wrong with the event.
pub fn decode(headers: &HeaderMap, body: Bytes, limits: &Limits) -> Result<Decoded, EventError> {
    let content_type = content_type(headers)?;
    match Mode::of(content_type) {
        Mode::Binary => decode_binary(headers, content_type, body, limits).map(Decoded::One),
        Mode::StructuredJson => json::decode(&body, limits).map(Decoded::One),
        Mode::StructuredCbor => cbor::decode(&body, limits).map(Decoded::One),
        Mode::BatchJson => json::decode_batch(&body, limits).map(Decoded::Batch),
        Mode::Unknown => {
            Err(EventError::UnsupportedFormat { content_type: super::error::shortened(content_type.unwrap_or_default()) })
        }
    }
}

/// Reads the answer of a subscriber: `None` where it holds no event because its body is empty and no attribute is sent.
/// Whether the status allows a reply at all is the caller's affair (D19, D20).
///
/// # Errors
/// When there is something, but not one valid event; a batch is none.
pub fn decode_reply(headers: &HeaderMap, body: Bytes, limits: &Limits) -> Result<Option<Event>, EventError> {
    let structured = !matches!(content_type(headers).map(Mode::of), Ok(Mode::Binary));
    if body.is_empty() && !structured && !has_attributes(headers) {
        return Ok(None);
    }
    match decode(headers, body, limits)? {
        Decoded::One(event) => Ok(Some(event)),
        Decoded::Batch(_) => {
            Err(EventError::Malformed { format: "reply", why: "a reply is one event, not a batch".to_owned() })
        }
    }
}

/// The event in binary mode: attributes in headers, the payload as body.
#[must_use]
pub fn binary(event: &Event) -> (HeaderMap, Bytes) {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert("ce-specversion", HeaderValue::from_static("1.0"));
    for (name, value) in event.attributes() {
        if name == "datacontenttype" {
            let value = HeaderValue::from_bytes(value.to_text().as_bytes())
                .expect("a String of CloudEvents holds no control characters");
            headers.insert(CONTENT_TYPE, value);
        } else {
            let header = HeaderName::try_from(format!("ce-{name}")).expect("an attribute name is a token");
            let value = HeaderValue::try_from(percent::encode(&value.to_text()).as_ref())
                .expect("percent-encoding leaves visible ASCII only");
            headers.insert(header, value);
        }
    }
    (headers, event.data().cloned().unwrap_or_default())
}

/// The event in structured mode, JSON format.
#[must_use]
pub fn structured(event: &Event) -> (HeaderMap, Bytes) {
    (typed("application/cloudevents+json; charset=utf-8"), json::encode(event).into())
}

/// Events in batched mode, JSON format.
#[must_use]
pub fn batch(events: &[Event]) -> (HeaderMap, Bytes) {
    (typed("application/cloudevents-batch+json; charset=utf-8"), json::encode_batch(events).into())
}

/// The event as it is best sent to a receiver about which nothing is known: binary, unless an attribute's value would need
/// percent-encoding, which many receivers do not undo.
#[must_use]
pub fn deliver(event: &Event) -> (HeaderMap, Bytes) {
    let survives = |(name, value): (&str, &Value)| match (name, value) {
        // A content type has spaces and quotes of its own; what would change the mode or not be read as text, cannot go.
        ("datacontenttype", value) => {
            let text = value.to_text();
            Mode::of(Some(&text)) == Mode::Binary && text.is_ascii() && text.trim() == text
        }
        (_, value) => !percent::needs_encoding(&value.to_text()),
    };
    if event.attributes().all(survives) { binary(event) } else { structured(event) }
}

fn typed(content_type: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))])
}

fn content_type(headers: &HeaderMap) -> Result<Option<&str>, EventError> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(EventError::duplicate("datacontenttype"));
    }
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| EventError::value("datacontenttype", ValueError::Utf8))?;
    Ok(Some(text.trim()).filter(|text| !text.is_empty()))
}

fn has_attributes(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("ce-"))
}

fn decode_binary(
    headers: &HeaderMap,
    content_type: Option<&str>,
    body: Bytes,
    limits: &Limits,
) -> Result<Event, EventError> {
    if !has_attributes(headers) {
        return Err(EventError::NotAnEvent);
    }
    if !headers.contains_key("ce-specversion") {
        return Err(EventError::Missing { attribute: "specversion" });
    }
    let mut attributes: Vec<(Box<str>, Value)> = Vec::with_capacity(8);
    if let Some(content_type) = content_type {
        attributes.push(("datacontenttype".into(), Value::from(content_type)));
    }
    for name in headers.keys() {
        let Some(attribute) = name.as_str().strip_prefix("ce-") else { continue };
        let mut values = headers.get_all(name).iter();
        let value = values.next().map(HeaderValue::as_bytes).unwrap_or_default();
        if values.next().is_some() {
            return Err(EventError::duplicate(attribute));
        }
        let text = percent::decode(value).map_err(|why| EventError::value(attribute, why))?;
        if attribute == "datacontenttype" && content_type.is_some_and(|given| given == text) {
            continue; // said twice, but with one voice
        }
        attributes.push((attribute.into(), Value::String(text)));
        if attributes.len() > limits.max_attributes + 1 {
            return Err(EventError::TooMany { what: "attributes in one event", limit: limits.max_attributes });
        }
    }
    Event::from_attributes(attributes, Some(body).filter(|body| !body.is_empty()))
}
