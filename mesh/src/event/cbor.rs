//! The CBOR event format (working draft of CloudEvents; `cloudevents.cddl`).
//!
//! As in JSON the payload is not rebuilt: data that is CBOR itself (by its `datacontenttype`, or with none) is the very bytes of
//! that item. So the map is walked here, item by item, and only what is small is left to `serde_cbor`. A payload that could not
//! be told from an item once it stands in the map (a byte string, or no well-formed item) goes as a byte string.

use bytes::Bytes;
use serde_cbor::Value as Cbor;

use super::error::{EventError, ValueError};
use super::limits::Limits;
use super::media;
use super::model::Event;
use super::rules::has_scheme;
use super::value::Value;

const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;
const TAG_TIMESTAMP: u64 = 0;
const TAG_URI: u64 = 32;
/// Nesting deeper than this is refused.
const MAX_DEPTH: usize = 128;

/// Reads one event. Its payload shares `body` where it is CBOR, or a string of one piece.
///
/// # Errors
/// When the bytes are no CBOR map, or not a valid event.
pub fn decode(body: &Bytes, limits: &Limits) -> Result<Event, EventError> {
    let mut walk = Walk { rest: body };
    let Head { major: MAP, argument: count } = walk.head()? else {
        return Err(malformed("an event is a map"));
    };
    let (mut attributes, mut data, mut version, mut members) = (Vec::with_capacity(8), None, false, 0);
    while count.is_none_or(|count| members < count) {
        if count.is_none() && walk.rest.first() == Some(&0xff) {
            walk.head()?;
            break;
        }
        members += 1;
        let Cbor::Text(name) = parse(walk.item()?)? else { return Err(malformed("the names in an event are texts")) };
        let item = walk.item()?;
        if name == "data" {
            if data.replace(item).is_some() {
                return Err(EventError::duplicate(&name));
            }
            continue;
        }
        if name == "specversion" && std::mem::replace(&mut version, true) {
            return Err(EventError::duplicate(&name));
        }
        if let Some(value) = attribute(&name, item)? {
            attributes.push((name.into_boxed_str(), value));
        }
        if attributes.len() > limits.max_attributes + 1 {
            return Err(EventError::TooMany { what: "attributes in one event", limit: limits.max_attributes });
        }
    }
    if !walk.rest.is_empty() {
        return Err(malformed("there is something behind the event"));
    }
    if !attributes.iter().any(|(name, _)| **name == *"specversion") {
        return Err(EventError::Missing { attribute: "specversion" });
    }
    let content_type = attributes.iter().find(|(name, _)| **name == *"datacontenttype");
    let content_type = content_type.and_then(|(_, value)| value.as_str());
    let data = match data {
        None => None,
        Some([0xf6]) => None,
        Some(item) if item.first().is_some_and(|first| first >> 5 == BYTES) => Some(string(body, item)?),
        Some(item) if content_type.is_none_or(media::is_cbor) => {
            parse(item)?;
            if content_type.is_none() {
                attributes.push(("datacontenttype".into(), Value::from(media::CBOR)));
            }
            Some(body.slice_ref(item))
        }
        Some(item) if item.first().is_some_and(|first| first >> 5 == TEXT) => Some(string(body, item)?),
        Some(_) => {
            return Err(EventError::Data {
                member: "data",
                why: "must be a byte string or a text for its content type".to_owned(),
            });
        }
    };
    Event::from_attributes(attributes, data)
}

/// One event as a CBOR map.
#[must_use]
pub fn encode(event: &Event) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + event.data().map_or(0, Bytes::len));
    let members = 1 + event.attributes().count() + usize::from(event.data().is_some());
    put_head(&mut out, MAP, members as u64);
    put(&mut out, &"specversion");
    put(&mut out, &"1.0");
    for (name, value) in event.attributes() {
        put(&mut out, &name);
        match value {
            Value::Boolean(value) => put(&mut out, value),
            Value::Integer(value) => put(&mut out, value),
            Value::Binary(bytes) => put_bytes(&mut out, bytes),
            Value::String(text) => put(&mut out, text),
            Value::Timestamp(text) => {
                put_head(&mut out, TAG, TAG_TIMESTAMP);
                put(&mut out, text);
            }
            // `source` is a URI reference by its name; a tag would only trouble simple readers.
            Value::UriRef(text) if name == "source" => put(&mut out, text),
            Value::Uri(text) | Value::UriRef(text) => {
                put_head(&mut out, TAG, TAG_URI);
                put(&mut out, text);
            }
        }
    }
    if let Some(data) = event.data() {
        put(&mut out, &"data");
        match event.datacontenttype() {
            Some(content_type) if media::is_cbor(content_type) && stands_for_itself(data) => out.extend_from_slice(data),
            Some(content_type) if !media::is_cbor(content_type) && is_text(content_type) => match std::str::from_utf8(data)
            {
                Ok(text) => put(&mut out, &text),
                Err(_) => put_bytes(&mut out, data),
            },
            _ => put_bytes(&mut out, data),
        }
    }
    out
}

fn is_text(content_type: &str) -> bool {
    media::is_text(content_type) || media::is_json(content_type)
}

/// Whether a payload can stand in the map as an item and be found again: one whole item that is neither a byte string nor null.
fn stands_for_itself(data: &[u8]) -> bool {
    let mut walk = Walk { rest: data };
    let one = walk.item().is_ok() && walk.rest.is_empty();
    one && data != [0xf6] && data.first().is_some_and(|first| first >> 5 != BYTES) && parse(data).is_ok()
}

/// The value of an attribute; null is as if it were not there.
fn attribute(name: &str, item: &[u8]) -> Result<Option<Value>, EventError> {
    let mut walk = Walk { rest: item };
    let tag = match walk.head()? {
        Head { major: TAG, argument } => argument,
        _ => {
            walk.rest = item;
            None
        }
    };
    let wrong = |why| EventError::value(name, why);
    if walk.rest.first().is_some_and(|first| matches!(first >> 5, ARRAY | MAP | TAG)) {
        return Err(wrong(ValueError::Type { expected: "string, bytes, whole number or boolean" }));
    }
    match (tag, parse(walk.rest)?) {
        (None, Cbor::Null) => Ok(None),
        (None, Cbor::Bool(value)) => Ok(Some(Value::Boolean(value))),
        (None, Cbor::Integer(n)) => {
            i32::try_from(n).map(|n| Some(Value::Integer(n))).map_err(|_| wrong(ValueError::Integer))
        }
        (None, Cbor::Bytes(bytes)) => Ok(Some(Value::Binary(bytes.into()))),
        (None, Cbor::Text(text)) => Ok(Some(Value::String(text))),
        (Some(TAG_TIMESTAMP), Cbor::Text(text)) => Ok(Some(Value::Timestamp(text))),
        (Some(TAG_URI), Cbor::Text(text)) if has_scheme(&text) => Ok(Some(Value::Uri(text))),
        (Some(TAG_URI), Cbor::Text(text)) => Ok(Some(Value::UriRef(text))),
        _ => Err(wrong(ValueError::Type { expected: "string, bytes, whole number or boolean" })),
    }
}

/// The content of a string: shared where it is of one piece.
fn string(body: &Bytes, item: &[u8]) -> Result<Bytes, EventError> {
    let mut walk = Walk { rest: item };
    let parsed = parse(item)?;
    if walk.head()?.argument.is_some() {
        return Ok(if walk.rest.is_empty() { Bytes::new() } else { body.slice_ref(walk.rest) });
    }
    match parsed {
        Cbor::Bytes(bytes) => Ok(bytes.into()),
        Cbor::Text(text) => Ok(text.into_bytes().into()),
        _ => Err(malformed("a string was expected")),
    }
}

fn parse(item: &[u8]) -> Result<Cbor, EventError> {
    serde_cbor::from_slice(item).map_err(|error| malformed(&error.to_string()))
}

fn malformed(why: &str) -> EventError {
    EventError::Malformed { format: "CBOR", why: why.to_owned() }
}

/// The head of an item.
struct Head {
    major: u8,
    /// `None` for an item without a stated length.
    argument: Option<u64>,
}

/// Walks over items without building them.
struct Walk<'a> {
    rest: &'a [u8],
}

impl<'a> Walk<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], EventError> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or_else(|| malformed("it ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn head(&mut self) -> Result<Head, EventError> {
        let first = self.take(1)?.first().copied().unwrap_or_default();
        let argument = match first & 0x1f {
            small @ 0..=23 => Some(u64::from(small)),
            size @ 24..=27 => {
                let bytes = self.take(1 << (size - 24))?;
                Some(bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
            }
            31 => None,
            _ => return Err(malformed("a head is reserved")),
        };
        Ok(Head { major: first >> 5, argument })
    }

    /// The bytes of the next item, whole.
    fn item(&mut self) -> Result<&'a [u8], EventError> {
        let start = self.rest;
        self.skip(0)?;
        Ok(start.get(..start.len() - self.rest.len()).unwrap_or_default())
    }

    fn skip(&mut self, depth: usize) -> Result<(), EventError> {
        if depth > MAX_DEPTH {
            return Err(malformed("it is nested too deeply"));
        }
        let head = self.head()?;
        let items = match (head.major, head.argument) {
            (0 | 1, Some(_)) | (SIMPLE, Some(_)) => return Ok(()),
            (BYTES | TEXT, Some(length)) => {
                self.take(usize::try_from(length).map_err(|_| malformed("it ends too early"))?)?;
                return Ok(());
            }
            (TAG, Some(_)) => Some(1),
            (ARRAY, count) => count,
            (MAP, Some(count)) => Some(count.checked_mul(2).ok_or_else(|| malformed("it ends too early"))?),
            (BYTES | TEXT | MAP, None) => None,
            _ => return Err(malformed("an end stands where none can be")),
        };
        match items {
            Some(count) => {
                for _ in 0..count {
                    self.skip(depth + 1)?;
                }
            }
            None => {
                while self.rest.first() != Some(&0xff) {
                    self.skip(depth + 1)?;
                }
                self.take(1)?;
            }
        }
        Ok(())
    }
}

fn put_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let bytes = argument.to_be_bytes();
    let (info, length) = match argument {
        0..=23 => (bytes[7], 0),
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    out.push(major << 5 | info);
    out.extend_from_slice(bytes.get(8 - length..).unwrap_or_default());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_head(out, BYTES, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put<T: serde::Serialize>(out: &mut Vec<u8>, value: &T) {
    serde_cbor::to_writer(out, value).expect("a scalar can be written to memory");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::arbitrary::{event, same};

    fn read(bytes: &[u8]) -> Result<Event, EventError> {
        decode(&Bytes::copy_from_slice(bytes), &Limits::default())
    }

    /// A map of the required attributes and `more` members, given as raw CBOR.
    fn with(more: &[&[u8]]) -> Result<Event, EventError> {
        let mut bytes = Vec::new();
        put_head(&mut bytes, MAP, 4 + more.len() as u64);
        for text in ["specversion", "1.0", "id", "1", "source", "/s", "type", "t"] {
            put(&mut bytes, &text);
        }
        more.iter().for_each(|member| bytes.extend_from_slice(member));
        read(&bytes)
    }

    #[test]
    fn attributes_have_the_types_of_the_schema() {
        let event = with(&[
            b"\x61n\x26",
            b"\x61b\xf5",
            b"\x61y\x42\x00\xff",
            b"\x61u\xd8\x20\x65urn:x",
            b"\x61r\xd8\x20\x62/x",
            b"\x61z\xf6",
        ])
        .expect("valid");
        assert_eq!(event.get("n"), Some(&Value::Integer(-7)));
        assert_eq!(event.get("b"), Some(&Value::Boolean(true)));
        assert_eq!(event.get("y"), Some(&Value::Binary(Bytes::from_static(b"\0\xff"))));
        assert_eq!(event.get("u"), Some(&Value::Uri("urn:x".to_owned())));
        assert_eq!(event.get("r"), Some(&Value::UriRef("/x".to_owned())));
        assert_eq!(event.get("z"), None);
    }

    #[test]
    fn cbor_data_keeps_its_very_bytes() {
        // {"b": 1.5 as half float, "a": [1, 2] without stated length}
        let item = b"\xa2\x61b\xf9\x3e\x00\x61a\x9f\x01\x02\xff";
        let event = with(&[&[b"\x64data", &item[..]].concat()]).expect("valid");
        assert_eq!(
            (event.datacontenttype(), event.data().map(|data| &data[..])),
            (Some("application/cbor"), Some(&item[..]))
        );
        assert_eq!(read(&encode(&event)), Ok(event));
    }

    #[test]
    fn other_data_is_the_content_of_a_string() {
        let content_type: &[u8] = b"\x6fdatacontenttype\x6atext/plain";
        let data = |item: &[u8]| with(&[content_type, &[b"\x64data", item].concat()]).map(|event| event.data().cloned());
        assert_eq!(data(b"\x63abc"), Ok(Some(Bytes::from_static(b"abc"))));
        assert_eq!(data(b"\x7f\x61a\x62bc\xff"), Ok(Some(Bytes::from_static(b"abc"))));
        assert_eq!(data(b"\x43\x00\x01\x02"), Ok(Some(Bytes::from_static(b"\0\x01\x02"))));
        assert_eq!(data(b"\x40"), Ok(Some(Bytes::new())));
        assert_eq!(data(b"\xf6"), Ok(None));
        assert!(matches!(data(b"\xa0"), Err(EventError::Data { .. })));
    }

    #[test]
    fn what_is_wrong_is_said_by_name() {
        assert_eq!(with(&[b"\x61n\x1a\x80\x00\x00\x00"]), Err(EventError::value("n", ValueError::Integer)));
        assert!(matches!(with(&[b"\x61n\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00"]), Err(EventError::Value { .. })));
        assert!(matches!(with(&[b"\x61n\x80"]), Err(EventError::Value { .. })));
        assert_eq!(with(&[b"\x61n\x01", b"\x61n\x02"]), Err(EventError::duplicate("n")));
        assert_eq!(read(b"\xa0"), Err(EventError::Missing { attribute: "specversion" }));
        for bytes in [
            &b""[..],
            b"\x80",
            b"\xa1\x01\x02",
            b"\xbf",
            b"\xa0\x00",
            b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\xa1\x61a\x1c",
        ] {
            assert!(matches!(read(bytes), Err(EventError::Malformed { .. })), "{bytes:?}");
        }
    }

    #[test]
    fn deep_nesting_and_large_lengths_are_refused_without_harm() {
        let deep = [&b"\xa1\x64data"[..], &[0x81; 100_000], b"\x00"].concat();
        assert!(matches!(read(&deep), Err(EventError::Malformed { .. })));
        assert!(matches!(read(b"\xa1\x64data\x9b\x00\x00\xff\xff\xff\xff\xff\xff"), Err(EventError::Malformed { .. })));
    }

    proptest! {
        #[test]
        fn events_survive(event in event()) {
            let again = read(&encode(&event)).expect("an event");
            prop_assert!(same(&again, &event), "{again:?}");
        }

        #[test]
        fn any_bytes_give_an_event_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&bytes);
            let _ = with(&[&bytes]);
        }
    }
}
