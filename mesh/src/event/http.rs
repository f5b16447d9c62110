//! The HTTP protocol binding (CloudEvents 1.0.2): binary, structured and batched mode, both ways.
//!
//! Header values are percent-decoded once and percent-encoded where they must be. Since common SDKs do neither,
//! [`deliver`] chooses structured mode for an event whose attributes would need it. Names of headers are compared as HTTP does,
//! whatever their case; an attribute that is sent twice is refused.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::error::{EventError, ValueError};
use super::limits::Limits;
use super::media::Mode;
use super::model::Event;
use super::stored::{AttributeRef, StoredEvent};
use super::value::Value;
use super::{cbor, check_attribute_name, json, percent, ttl};

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
    let mut headers = HeaderMap::with_capacity(16);
    headers.insert("ce-specversion", HeaderValue::from_static("1.0"));
    for (name, value) in event.attributes() {
        if name == "datacontenttype" {
            let value = HeaderValue::from_bytes(value.to_text().as_bytes())
                .expect("a String of CloudEvents holds no control characters");
            headers.insert(CONTENT_TYPE, value);
        } else {
            let header = header(name).expect("an attribute name is a token");
            let value = HeaderValue::try_from(percent::encode(&value.to_text()).as_ref())
                .expect("percent-encoding leaves visible ASCII only");
            headers.insert(header, value);
        }
    }
    (headers, event.data().cloned().unwrap_or_default())
}

/// The header of an attribute. Those that most events have are not made anew each time.
fn header(name: &str) -> Option<HeaderName> {
    const ID: HeaderName = HeaderName::from_static("ce-id");
    const SOURCE: HeaderName = HeaderName::from_static("ce-source");
    const TYPE: HeaderName = HeaderName::from_static("ce-type");
    const SUBJECT: HeaderName = HeaderName::from_static("ce-subject");
    const TIME: HeaderName = HeaderName::from_static("ce-time");
    const ARRIVAL: HeaderName = HeaderName::from_static("ce-knativearrivaltime");
    const AGENT: HeaderName = HeaderName::from_static("ce-godwitagent");
    Some(match name {
        "id" => ID,
        "source" => SOURCE,
        "type" => TYPE,
        "subject" => SUBJECT,
        "time" => TIME,
        "knativearrivaltime" => ARRIVAL,
        "godwitagent" => AGENT,
        _ => return HeaderName::try_from(format!("ce-{name}")).ok(),
    })
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
        // A content type has spaces and quotes of its own.
        ("datacontenttype", value) => is_content_type(&value.to_text()),
        (_, value) => !percent::needs_encoding(&value.to_text()),
    };
    if event.attributes().all(survives) { binary(event) } else { structured(event) }
}

/// What [`deliver`] makes of the event, from its stored form and without making the event, and the time to live that it has; `None`
/// where it takes more than writing attributes down. With `binary` as [`binary`] does.
pub(crate) fn deliver_stored(stored: &StoredEvent, binary: bool) -> Option<(HeaderMap, Bytes, i32)> {
    let mut headers = HeaderMap::with_capacity(16);
    headers.insert("ce-specversion", HeaderValue::from_static("1.0"));
    let (mut left, mut needed, mut plain) = (ttl::MAX_TTL, 0, true);
    let mut made = String::new();
    let visited = stored.each_attribute(|name, value| {
        if let (ttl::TTL, AttributeRef::Integer(ttl)) = (name, value) {
            left = ttl;
            return;
        }
        let text = value.as_str().unwrap_or_else(|| {
            made.clear();
            let _ = write!(made, "{value}"); // writing to a String cannot fail
            &made
        });
        needed += u8::from(matches!(name, "id" | "source" | "type") && !text.is_empty());
        let value = match name {
            ttl::TTL => None,
            "datacontenttype" => Some(text).filter(|_| is_content_type(text)).and_then(|text| shared(stored, text)),
            _ if !percent::needs_encoding(text) => shared(stored, text),
            _ if binary => HeaderValue::try_from(percent::encode(text).as_ref()).ok(),
            _ => None,
        };
        // What is in a record was checked when it came; what an agent sends up is as it says.
        let header = match name {
            "datacontenttype" => Some(CONTENT_TYPE),
            _ => header(name).filter(|_| check_attribute_name(name).is_ok()),
        };
        plain &= match (header, value) {
            (Some(header), Some(value)) => headers.insert(header, value).is_none(),
            _ => false,
        };
    });
    if !matches!(visited, Ok(true)) || !plain || needed != 3 {
        return None;
    }
    Some((headers, stored.data().unwrap_or_default(), left))
}

/// A header value that shares the event's bytes where it stands there.
fn shared(stored: &StoredEvent, text: &str) -> Option<HeaderValue> {
    let body = stored.body();
    if body.as_ptr_range().contains(&text.as_ptr()) {
        HeaderValue::from_maybe_shared(body.slice_ref(text.as_bytes())).ok()
    } else {
        HeaderValue::from_str(text).ok()
    }
}

/// Whether a content type can go as the header: what would change the mode, or not be read as text, cannot.
fn is_content_type(text: &str) -> bool {
    Mode::of(Some(text)) == Mode::Binary && text.is_ascii() && text.trim() == text
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::arbitrary::{as_text, event, same};

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).expect("valid"));
        }
        headers
    }

    fn read(more: &[(&'static str, &str)], body: &'static str) -> Result<Event, EventError> {
        let required = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
        match decode(&headers(&[&required, more].concat()), Bytes::from_static(body.as_bytes()), &Limits::default())? {
            Decoded::One(event) => Ok(event),
            Decoded::Batch(_) => panic!("not a batch"),
        }
    }

    #[test]
    fn binary_mode_reads_percent_encoded_quoted_and_raw_values() {
        for value in ["Euro%20%E2%82%AC", "\"Euro €\"", "Euro €", "Euro%20€"] {
            assert_eq!(read(&[("ce-x", value)], "").expect("valid").get("x"), Some(&Value::from("Euro €")), "{value}");
        }
        assert_eq!(read(&[("ce-x", "%C0%A0")], ""), Err(EventError::value("x", ValueError::Utf8)));
        assert_eq!(read(&[("ce-x", "50%")], "").expect("valid").get("x"), Some(&Value::from("50%")));
        assert_eq!(read(&[("ce-x", "%00")], ""), Err(EventError::value("x", ValueError::Character { code: 0 })));
    }

    #[test]
    fn what_is_wrong_is_said_by_name() {
        assert_eq!(read(&[("ce-id", "2")], ""), Err(EventError::duplicate("id")));
        assert_eq!(read(&[("ce-a-b", "2")], ""), Err(EventError::name("a-b")));
        assert_eq!(read(&[("ce-data", "2")], ""), Err(EventError::name("data")));
        assert_eq!(
            read(&[("ce-datacontenttype", "a/b"), ("content-type", "a/c")], ""),
            Err(EventError::duplicate("datacontenttype"))
        );
        assert!(read(&[("ce-datacontenttype", "a/b"), ("content-type", "a/b")], "").is_ok());
        let decoded = |list: &[(&'static str, &str)]| decode(&headers(list), Bytes::from_static(b"{}"), &Limits::default());
        assert_eq!(decoded(&[("content-type", "application/json")]), Err(EventError::NotAnEvent));
        assert_eq!(decoded(&[("ce-id", "1")]), Err(EventError::Missing { attribute: "specversion" }));
        assert_eq!(decoded(&[("ce-specversion", "0.3"), ("ce-id", "1")]), Err(EventError::version("0.3")));
        assert_eq!(decoded(&[("ce-specversion", "1.0"), ("ce-id", "")]), Err(EventError::value("id", ValueError::Empty)));
        let unknown = decoded(&[("content-type", "application/cloudevents+avro")]).expect_err("refused");
        assert_eq!(unknown.kind(), crate::event::ErrorKind::UnsupportedFormat);
    }

    #[test]
    fn a_batch_is_read_whole_or_not_at_all() {
        let batch = headers(&[("content-type", "application/cloudevents-batch+json")]);
        let good = "[{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\",\"data\":1.10}]";
        let decoded = decode(&batch, Bytes::from_static(good.as_bytes()), &Limits::default());
        assert!(matches!(decoded, Ok(Decoded::Batch(events)) if events.len() == 1));
        assert_eq!(decode(&batch, Bytes::from_static(b"[]"), &Limits::default()), Ok(Decoded::Batch(Vec::new())));
        assert!(decode(&batch, Bytes::from_static(b"[{}]"), &Limits::default()).is_err());
    }

    #[test]
    fn a_reply_is_an_event_nothing_or_malformed() {
        let reply = |list: &[(&'static str, &str)], body: &'static str| {
            decode_reply(&headers(list), Bytes::from_static(body.as_bytes()), &Limits::default())
        };
        let event = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
        assert_eq!(reply(&[("content-type", "text/plain")], ""), Ok(None));
        assert!(matches!(reply(&event, ""), Ok(Some(_))));
        assert_eq!(reply(&[], "thanks"), Err(EventError::NotAnEvent));
        assert!(reply(&[("content-type", "application/cloudevents+json")], "").is_err());
        assert!(reply(&[("content-type", "application/cloudevents-batch+json")], "[]").is_err());
    }

    #[test]
    fn delivery_is_structured_only_where_a_header_would_need_escapes() {
        let plain =
            Event::builder().id("1").source("/s").ty("t").data("text/plain; charset=utf-8", "x").build().expect("valid");
        assert!(deliver(&plain).0.contains_key("ce-id"));
        for subject in ["a b", "50%", "é", "\"q\""] {
            let mut event = plain.clone();
            event.set("subject", Value::from(subject)).expect("valid");
            let (headers, _) = deliver(&event);
            assert_eq!(headers[CONTENT_TYPE], "application/cloudevents+json; charset=utf-8", "{subject}");
            assert!(!headers.contains_key("ce-id"));
        }
        let mut nested = plain;
        nested.set("datacontenttype", Value::from("application/cloudevents+json")).expect("valid");
        assert!(!deliver(&nested).0.contains_key("ce-id"));
    }

    proptest! {
        #[test]
        fn events_survive_binary_mode_with_attributes_as_text(event in event()) {
            let (headers, body) = binary(&event);
            prop_assert!(!headers.contains_key("ce-datacontenttype"));
            let Ok(Decoded::One(again)) = decode(&headers, body, &Limits::default()) else { panic!("an event") };
            prop_assert!(same(&again, &as_text(&event)), "{again:?}");
        }

        #[test]
        fn events_survive_delivery(event in event()) {
            let (headers, body) = deliver(&event);
            let again = decode_reply(&headers, body, &Limits::default()).expect("valid").expect("an event");
            prop_assert!(same(&as_text(&again), &as_text(&event)), "{again:?}");
        }

        #[test]
        fn events_survive_structured_and_batched_mode(events in prop::collection::vec(event(), 1..3)) {
            let (headers, body) = batch(&events);
            let Ok(Decoded::Batch(again)) = decode(&headers, body, &Limits::default()) else { panic!("a batch") };
            let (headers, body) = structured(&events[0]);
            prop_assert_eq!(decode(&headers, body, &Limits::default()), Ok(Decoded::One(again[0].clone())));
            prop_assert!(same(&as_text(&again[0]), &as_text(&events[0])));
        }
    }
}
