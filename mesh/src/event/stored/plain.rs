//! Events in binary mode over HTTP that can be stored just as their headers have them: most of them.
//!
//! Decoding such an event only to encode it again would cost a copy of each of its texts. What needs more than that (an escape, an
//! attribute that a broker changes or drops, a header that goes along, anything that is not valid) is not plain, and is left to
//! [`crate::event::http::decode`], which alone says what is wrong. For a plain event both ways store the same bytes.

use httparse::Header;

use super::attributes::put_text;
use super::layout::{DATA, EVENT, Fixed};
use super::wire::put_section;
use crate::event::Limits;
use crate::event::media::{Mode, begins};
use crate::event::percent::needs_encoding;
use crate::event::rules::is_attribute_name;
use crate::event::ttl::TTL;
use crate::event::value::check_text;

/// A plain event, in place.
#[derive(Debug)]
pub(crate) struct PlainEvent<'a> {
    id: &'a str,
    source: &'a str,
    ty: &'a str,
    content_type: Option<&'a str>,
    headers: &'a [Header<'a>],
    data: &'a [u8],
}

impl<'a> PlainEvent<'a> {
    /// Looks whether headers and body are a plain event. `dropped` are the attributes that do not stay as a sender gave them;
    /// `goes_along` tells which headers, by their name in lower case, are kept with an event.
    pub(crate) fn read(
        headers: &'a [Header<'a>],
        data: &'a [u8],
        limits: &Limits,
        dropped: &[&str],
        goes_along: impl Fn(&str) -> bool,
    ) -> Option<Self> {
        let (mut id, mut source, mut ty, mut version, mut content_type) = (None, None, None, None, None);
        let mut attributes = 0;
        for (at, header) in headers.iter().enumerate() {
            let name = header.name;
            if let Some(attribute) = name.strip_prefix("ce-") {
                let text = std::str::from_utf8(header.value).ok().filter(|text| !needs_encoding(text))?;
                let changes = matches!(attribute, "datacontenttype" | TTL) || dropped.contains(&attribute);
                let twice = headers.get(..at)?.iter().any(|other| other.name == name);
                if changes || twice || !is_attribute_name(attribute) || check_text(attribute, text).is_err() {
                    return None;
                }
                attributes += 1;
                match attribute {
                    "id" => id = Some(text),
                    "source" => source = Some(text),
                    "type" => ty = Some(text),
                    "specversion" => version = Some(text),
                    _ => {}
                }
            } else if name.eq_ignore_ascii_case("content-type") {
                let text = std::str::from_utf8(header.value).ok()?.trim();
                if content_type.is_some()
                    || Mode::of(Some(text)) != Mode::Binary
                    || check_text("datacontenttype", text).is_err()
                {
                    return None;
                }
                attributes += 1;
                content_type = Some(text);
            } else {
                let along = match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                    true => goes_along(&name.to_ascii_lowercase()),
                    false => goes_along(name),
                };
                if along || begins(name, "ce-") || name.eq_ignore_ascii_case("content-encoding") {
                    return None;
                }
            }
        }
        if version? != "1.0" || attributes > limits.max_attributes {
            return None;
        }
        Some(Self { id: id?, source: source?, ty: ty?, content_type, headers, data })
    }

    /// Appends the stored form; `arrival_ms` as for [`super::encode_event`].
    pub(crate) fn encode(&self, out: &mut Vec<u8>, arrival_ms: Option<u64>) {
        let has_data = if self.data.is_empty() { 0 } else { DATA };
        Fixed { head: EVENT | has_data, arrival_ms, packet_id: 0 }.put(out);
        put_section(out, |out| {
            let first = [("id", self.id), ("source", self.source), ("type", self.ty)];
            let content_type = self.content_type.map(|text| ("datacontenttype", text));
            for (name, text) in first.into_iter().chain(content_type) {
                put_text(out, name, text);
            }
            let others = self.headers.iter().filter_map(|header| Some((header.name.strip_prefix("ce-")?, header.value)));
            for (name, value) in others.filter(|(name, _)| !matches!(*name, "id" | "source" | "type" | "specversion")) {
                put_text(out, name, std::str::from_utf8(value).unwrap_or_default());
            }
        });
        out.extend_from_slice(self.data);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::header::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;
    use crate::event::arbitrary::event;
    use crate::event::encode_event;
    use crate::event::http::{Decoded, binary, decode};

    const ARRIVAL: Option<u64> = Some(1_767_225_600_250);

    fn plain(headers: &[(&str, &str)], data: &[u8]) -> Option<Vec<u8>> {
        let headers: Vec<Header<'_>> =
            headers.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
        let event = PlainEvent::read(&headers, data, &Limits::default(), &["knativearrivaltime"], |name| {
            name.starts_with("knative-")
        })?;
        let mut out = Vec::new();
        event.encode(&mut out, ARRIVAL);
        Some(out)
    }

    /// As the ordinary way stores it.
    fn decoded(headers: &HeaderMap, data: &[u8]) -> Vec<u8> {
        let event = decode(headers, Bytes::copy_from_slice(data), &Limits::default()).expect("valid");
        let Decoded::One(event) = event else { panic!("one event") };
        let mut out = Vec::new();
        encode_event(&mut out, &event, ARRIVAL, std::iter::empty());
        out
    }

    const USUAL: [(&str, &str); 8] = [
        ("host", "localhost"),
        ("ce-specversion", "1.0"),
        ("ce-time", "2026-01-01T00:00:00Z"),
        ("ce-id", "1"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("ce-mine", "x-1"),
        ("Content-Type", "application/json; charset=utf-8"),
    ];

    #[test]
    fn a_usual_event_is_plain_and_stored_as_the_ordinary_way_stores_it() {
        let map: HeaderMap = USUAL
            .iter()
            .map(|(name, value)| (HeaderName::try_from(*name).expect("a name"), HeaderValue::from_static(value)))
            .collect();
        for data in [&b"{}"[..], b""] {
            assert_eq!(plain(&USUAL, data), Some(decoded(&map, data)));
        }
    }

    #[test]
    fn what_needs_more_than_copying_or_is_wrong_is_not_plain() {
        let others = [
            ("ce-mine", "again"),
            ("ce-id", "2"),
            ("ce-x", "a%20b"),
            ("ce-x", "a b"),
            ("ce-x", "\"q\""),
            ("CE-X", "y"),
            ("ce-X", "y"),
            ("ce-a-b", "y"),
            ("ce-data", "y"),
            ("ce-subject", ""),
            ("ce-dataschema", "none"),
            ("ce-datacontenttype", "a/b"),
            ("ce-knativebrokerttl", "7"),
            ("ce-knativearrivaltime", "2026-01-01T00:00:00Z"),
            ("content-type", "a/b"),
            ("content-encoding", "gzip"),
            ("knative-x", "y"),
            ("Knative-X", "y"),
        ];
        for (name, value) in others {
            assert_eq!(plain(&[&USUAL[..], &[(name, value)]].concat(), b"{}"), None, "{name}: {value}");
        }
        for at in [1, 3, 4, 5] {
            let mut less = USUAL.to_vec();
            less.remove(at);
            assert_eq!(plain(&less, b"{}"), None, "{at}");
        }
        let with = |at: usize, header| {
            let mut headers = USUAL;
            headers[at] = header;
            plain(&headers, b"{}")
        };
        assert_eq!(with(1, ("ce-specversion", "0.3")), None);
        assert_eq!(with(7, ("content-type", "application/cloudevents+json")), None);
        assert_eq!(with(7, ("content-type", "")), None);
    }

    proptest! {
        #[test]
        fn both_ways_store_the_same_bytes(event in event()) {
            let (map, data) = binary(&event);
            let headers: Vec<(&str, &str)> =
                map.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect();
            if let Some(stored) = plain(&headers, &data).filter(|_| headers.len() == map.len()) {
                prop_assert_eq!(stored, decoded(&map, &data));
            }
        }
    }
}
