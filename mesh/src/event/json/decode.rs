//! Reads events in JSON.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::error::{EventError, ValueError};
use crate::event::limits::Limits;
use crate::event::media;
use crate::event::model::Event;
use crate::event::value::Value;

/// Reads one event. Its payload, where it is JSON, shares `body`.
///
/// # Errors
/// When the bytes are no JSON object, or not a valid event.
pub fn decode(body: &Bytes, limits: &Limits) -> Result<Event, EventError> {
    let located = locate(body, limits)?;
    let data = match located.data {
        Data::None => None,
        Data::Raw(text) => Some(body.slice_ref(text.as_bytes())),
        Data::Escaped(text) => Some(unescape(text)?.into_bytes().into()),
        Data::Base64(text) => Some(unbase64(text)?.into()),
    };
    Event::from_attributes(located.attributes, data)
}

/// Reads a batch: an array of events, which may be empty. One that is not valid spoils all.
///
/// # Errors
/// When the bytes are no JSON array, it is longer than `limits` allow, or any event is not valid.
pub fn decode_batch(body: &Bytes, limits: &Limits) -> Result<Vec<Event>, EventError> {
    let elements = parse(body, Elements { limit: limits.max_batch })?;
    if elements.len() > limits.max_batch {
        return Err(EventError::TooMany { what: "events in one batch", limit: limits.max_batch });
    }
    let one = |(index, element): (usize, &RawValue)| {
        decode(&body.slice_ref(element.get().as_bytes()), limits)
            .map_err(|why| EventError::InBatch { index, why: Box::new(why) })
    };
    elements.into_iter().enumerate().map(one).collect()
}

/// An event whose attributes are read and whose data is known by its place.
pub(crate) struct Located<'a> {
    pub(crate) attributes: Vec<(Box<str>, Value)>,
    pub(crate) data: Data<'a>,
}

/// Where the data of an event in JSON stands.
#[derive(Clone, Copy)]
pub(crate) enum Data<'a> {
    /// There is none.
    None,
    /// These very bytes are the payload.
    Raw(&'a str),
    /// A JSON string, quotes included, whose content is the payload.
    Escaped(&'a str),
    /// A JSON string, quotes included, of base64.
    Base64(&'a str),
}

/// Reads the attributes and finds the data.
pub(crate) fn locate<'a>(body: &'a [u8], limits: &Limits) -> Result<Located<'a>, EventError> {
    // `data`, `data_base64` and `specversion` are no attributes that count.
    let most = limits.max_attributes + 3;
    let members = parse(body, Members { limit: most })?;
    if members.len() > most {
        return Err(EventError::TooMany { what: "attributes in one event", limit: limits.max_attributes });
    }
    let (mut data, mut base64, mut version) = (None, None, false);
    let mut attributes: Vec<(Box<str>, Value)> = Vec::with_capacity(members.len());
    for (name, raw) in members {
        match &*name {
            "data" if data.replace(raw.get()).is_some() => return Err(EventError::duplicate(&name)),
            "data_base64" if base64.replace(raw.get()).is_some() => return Err(EventError::duplicate(&name)),
            "data" | "data_base64" => {}
            "specversion" if std::mem::replace(&mut version, true) => return Err(EventError::duplicate(&name)),
            _ => {
                if let Some(value) = attribute(&name, raw)? {
                    attributes.push((name.into_owned().into_boxed_str(), value));
                }
            }
        }
    }
    if !attributes.iter().any(|(name, _)| **name == *"specversion") {
        return Err(EventError::Missing { attribute: "specversion" });
    }
    let base64 = base64.filter(|text| *text != "null");
    let data = match (data, base64) {
        (Some("null") | None, Some(text)) if text.starts_with('"') => Data::Base64(text),
        (Some("null") | None, Some(_)) => {
            return Err(EventError::Data { member: "data_base64", why: "must be a string".to_owned() });
        }
        (Some(_), Some(_)) => return Err(EventError::TwoData),
        (None, None) => Data::None,
        (Some(text), None) => {
            let content_type = attributes.iter().find(|(name, _)| **name == *"datacontenttype").map(|(_, value)| value);
            match content_type.and_then(Value::as_str) {
                None => {
                    attributes.push(("datacontenttype".into(), Value::from(media::JSON)));
                    Data::Raw(text)
                }
                Some(content_type) if !media::is_json(content_type) && text.starts_with('"') => Data::Escaped(text),
                Some(_) => Data::Raw(text),
            }
        }
    };
    Ok(Located { attributes, data })
}

/// The value of an attribute; `null` is as if it were not there.
fn attribute(name: &str, raw: &RawValue) -> Result<Option<Value>, EventError> {
    let text = raw.get();
    let wrong = |why| EventError::value(name, why);
    match text.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b't') => Ok(Some(Value::Boolean(true))),
        Some(b'f') => Ok(Some(Value::Boolean(false))),
        Some(b'"') => Ok(Some(Value::String(unescape(text)?))),
        Some(b'-' | b'0'..=b'9') => text.parse().map(|n| Some(Value::Integer(n))).map_err(|_| wrong(ValueError::Integer)),
        _ => Err(wrong(ValueError::Type { expected: "string, whole number or boolean" })),
    }
}

/// What a JSON string stands for.
pub(crate) fn unescape(text: &str) -> Result<String, EventError> {
    serde_json::from_str(text).map_err(malformed)
}

/// The bytes that a JSON string of base64 stands for.
pub(crate) fn unbase64(text: &str) -> Result<Vec<u8>, EventError> {
    let decoded = match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(plain) if !plain.contains('\\') => STANDARD.decode(plain),
        _ => STANDARD.decode(unescape(text)?),
    };
    decoded.map_err(|why| EventError::Data { member: "data_base64", why: format!("is not base64: {why}") })
}

#[allow(clippy::needless_pass_by_value)] // the shape that map_err wants
fn malformed(error: serde_json::Error) -> EventError {
    EventError::Malformed { format: "JSON", why: error.to_string() }
}

fn parse<'a, S: DeserializeSeed<'a>>(body: &'a [u8], seed: S) -> Result<S::Value, EventError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| EventError::Malformed { format: "JSON", why: format!("invalid UTF-8: {error}") })?;
    let mut parser = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut parser).map_err(malformed)?;
    parser.end().map_err(malformed)?;
    Ok(value)
}

/// The members of an object in order, values untouched; at most one more than the limit is kept.
struct Members {
    limit: usize,
}

/// A name that is only copied where it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for Members {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a CloudEvent as a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::with_capacity(8);
        while let Some(Name(name)) = map.next_key()? {
            let value = map.next_value()?;
            if members.len() <= self.limit {
                members.push((name, value));
            }
        }
        Ok(members)
    }
}

/// The elements of an array, untouched; at most one more than the limit is kept.
struct Elements {
    limit: usize,
}

impl<'de> DeserializeSeed<'de> for Elements {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a batch of CloudEvents as a JSON array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while elements.len() <= self.limit {
            match sequence.next_element()? {
                Some(element) => elements.push(element),
                None => return Ok(elements),
            }
        }
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(elements)
    }
}
