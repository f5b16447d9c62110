//! Attributes in the stored form: one entry each, known names as a number.

use std::fmt;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::StoredError;
use super::wire::{Fields, put_bytes, put_varint, text};
use crate::event::value::Value;

/// Names that take no room; the number is the place from 1. Only ever append: the numbers are on disks.
const KNOWN: [&str; 28] = [
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "traceparent",
    "tracestate",
    "partitionkey",
    "sequence",
    "expirytime",
    "dataref",
    "recordedtime",
    "severitytext",
    "severitynumber",
    "sampledrate",
    "correlationid",
    "causationid",
    "authtype",
    "authid",
    "knativearrivaltime",
    "knativebrokerttl",
    "knativeerrordest",
    "knativeerrorcode",
    "knativeerrordata",
    "godwitagent",
    "replyid",
];

const STRING: u8 = 0;
const URI_REF: u8 = 1;
const URI: u8 = 2;
const TIMESTAMP: u8 = 3;
const BINARY: u8 = 4;
const INTEGER: u8 = 5;
const BOOLEAN: u8 = 6;
const IN_PAYLOAD: u8 = 7;

/// The value of an attribute, in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttributeRef<'a> {
    /// See [`Value::Boolean`].
    Boolean(bool),
    /// See [`Value::Integer`].
    Integer(i32),
    /// See [`Value::String`].
    String(&'a str),
    /// See [`Value::Binary`].
    Binary(&'a [u8]),
    /// See [`Value::Uri`].
    Uri(&'a str),
    /// See [`Value::UriRef`].
    UriRef(&'a str),
    /// See [`Value::Timestamp`].
    Timestamp(&'a str),
}

impl<'a> AttributeRef<'a> {
    /// The text of a String, Uri, UriRef or Timestamp.
    #[must_use]
    pub fn as_str(&self) -> Option<&'a str> {
        match self {
            Self::String(text) | Self::Uri(text) | Self::UriRef(text) | Self::Timestamp(text) => Some(text),
            Self::Boolean(_) | Self::Integer(_) | Self::Binary(_) => None,
        }
    }

    /// The value, owned.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match *self {
            Self::Boolean(value) => Value::Boolean(value),
            Self::Integer(value) => Value::Integer(value),
            Self::String(text) => Value::String(text.to_owned()),
            Self::Binary(bytes) => Value::Binary(Bytes::copy_from_slice(bytes)),
            Self::Uri(text) => Value::Uri(text.to_owned()),
            Self::UriRef(text) => Value::UriRef(text.to_owned()),
            Self::Timestamp(text) => Value::Timestamp(text.to_owned()),
        }
    }

    /// A text with the type that the specification gives the attribute; of extensions nothing is known, so they are Strings.
    pub(super) fn of_name(name: &str, text: &'a str) -> Self {
        match name {
            "source" => Self::UriRef(text),
            "dataschema" => Self::Uri(text),
            "time" => Self::Timestamp(text),
            _ => Self::String(text),
        }
    }
}

impl fmt::Display for AttributeRef<'_> {
    /// The canonical string form, as [`Value::to_text`] gives it; allocates nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Binary(bytes) => Base64Display::new(bytes, &STANDARD).fmt(f),
            Self::String(text) | Self::Uri(text) | Self::UriRef(text) | Self::Timestamp(text) => f.write_str(text),
        }
    }
}

fn code(name: &str) -> Option<u8> {
    let place = KNOWN.iter().position(|known| *known == name)?;
    u8::try_from(place + 1).ok()
}

fn put_head(out: &mut Vec<u8>, name: &str, tag: u8) {
    match code(name) {
        Some(code) => out.push(tag << 5 | code),
        None => {
            out.push(tag << 5);
            put_bytes(out, name.as_bytes());
        }
    }
}

/// Appends one entry.
pub(super) fn put(out: &mut Vec<u8>, name: &str, value: &Value) {
    let (tag, bytes) = match value {
        Value::Boolean(value) => {
            put_head(out, name, BOOLEAN);
            out.push(u8::from(*value));
            return;
        }
        Value::Integer(value) => {
            put_head(out, name, INTEGER);
            out.extend_from_slice(&value.to_le_bytes());
            return;
        }
        Value::String(text) => (STRING, text.as_bytes()),
        Value::Binary(bytes) => (BINARY, &**bytes),
        Value::Uri(text) => (URI, text.as_bytes()),
        Value::UriRef(text) => (URI_REF, text.as_bytes()),
        Value::Timestamp(text) => (TIMESTAMP, text.as_bytes()),
    };
    put_head(out, name, tag);
    put_bytes(out, bytes);
}

/// Appends one entry of a text that has the type of its name.
pub(super) fn put_text(out: &mut Vec<u8>, name: &str, text: &str) {
    let tag = match AttributeRef::of_name(name, text) {
        AttributeRef::UriRef(_) => URI_REF,
        AttributeRef::Uri(_) => URI,
        AttributeRef::Timestamp(_) => TIMESTAMP,
        _ => STRING,
    };
    put_head(out, name, tag);
    put_bytes(out, text.as_bytes());
}

/// Appends one entry whose text stands in the payload.
pub(super) fn put_in_payload(out: &mut Vec<u8>, name: &str, at: usize, length: usize) {
    put_head(out, name, IN_PAYLOAD);
    put_varint(out, at as u64);
    put_varint(out, length as u64);
}

/// Walks over the entries of a section.
pub(super) struct Entries<'a> {
    fields: Fields<'a>,
    payload: &'a [u8],
}

impl<'a> Entries<'a> {
    pub(super) fn new(section: &'a [u8], payload: &'a [u8]) -> Self {
        Self { fields: Fields::new(section), payload }
    }

    /// The value of one attribute. Entries before it are stepped over, their values not looked at; where one cannot be told from
    /// the next the search ends.
    pub(super) fn find(mut self, name: &str) -> Option<AttributeRef<'a>> {
        while let [head, rest @ ..] = self.fields.rest {
            self.fields.rest = rest;
            let found = match head & 0x1f {
                0 => self.fields.bytes().ok()? == name.as_bytes(),
                code => *KNOWN.get(usize::from(code) - 1)? == name,
            };
            if found {
                return self.value(*head, name).ok();
            }
            match head >> 5 {
                INTEGER => self.fields.take(4).ok()?,
                BOOLEAN => self.fields.take(1).ok()?,
                IN_PAYLOAD => {
                    self.fields.length().ok()?;
                    self.fields.length().ok()?;
                    continue;
                }
                _ => self.fields.bytes().ok()?,
            };
        }
        None
    }

    fn entry(&mut self) -> Result<(&'a str, AttributeRef<'a>), StoredError> {
        let head = self.fields.u8()?;
        let name = match head & 0x1f {
            0 => self.fields.text()?,
            code => KNOWN.get(usize::from(code) - 1).copied().ok_or(StoredError::Head(head))?,
        };
        Ok((name, self.value(head, name)?))
    }

    /// The value that follows a head and a name.
    fn value(&mut self, head: u8, name: &str) -> Result<AttributeRef<'a>, StoredError> {
        Ok(match head >> 5 {
            STRING => AttributeRef::String(self.fields.text()?),
            URI_REF => AttributeRef::UriRef(self.fields.text()?),
            URI => AttributeRef::Uri(self.fields.text()?),
            TIMESTAMP => AttributeRef::Timestamp(self.fields.text()?),
            BINARY => AttributeRef::Binary(self.fields.bytes()?),
            INTEGER => AttributeRef::Integer(i32::from_le_bytes(self.fields.array()?)),
            BOOLEAN => AttributeRef::Boolean(self.fields.u8()? != 0),
            _ => {
                let (at, length) = (self.fields.length()?, self.fields.length()?);
                AttributeRef::of_name(name, text(within(self.payload, at, length)?)?)
            }
        })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<(&'a str, AttributeRef<'a>), StoredError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.fields.rest.is_empty() {
            return None;
        }
        let entry = self.entry();
        if entry.is_err() {
            self.fields.rest = &[];
        }
        Some(entry)
    }
}

/// A stretch of the payload.
pub(super) fn within(payload: &[u8], at: usize, length: usize) -> Result<&[u8], StoredError> {
    at.checked_add(length)
        .and_then(|end| payload.get(at..end))
        .ok_or(StoredError::Malformed("a range lies outside of the payload"))
}
