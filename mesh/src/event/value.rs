//! The value of a context attribute: one of the seven types of CloudEvents 1.0, section "Type system".

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::error::ValueError;
use super::rules;

/// The value of a context attribute.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number of 32 bits with a sign.
    Integer(i32),
    /// Text without control characters and noncharacters.
    String(String),
    /// Any bytes.
    Binary(Bytes),
    /// An absolute URI.
    Uri(String),
    /// A URI reference.
    UriRef(String),
    /// An RFC 3339 timestamp, the text kept as it was given.
    Timestamp(String),
}

impl Value {
    /// The canonical string form, as header values and filters see it: `true`, `-7`, base64 for Binary.
    #[must_use]
    pub fn to_text(&self) -> Cow<'_, str> {
        match self {
            Self::Boolean(true) => Cow::Borrowed("true"),
            Self::Boolean(false) => Cow::Borrowed("false"),
            Self::Integer(n) => Cow::Owned(n.to_string()),
            Self::Binary(bytes) => Cow::Owned(STANDARD.encode(bytes)),
            Self::String(text) | Self::Uri(text) | Self::UriRef(text) | Self::Timestamp(text) => Cow::Borrowed(text),
        }
    }

    /// The text of a String, Uri, UriRef or Timestamp.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) | Self::Uri(text) | Self::UriRef(text) | Self::Timestamp(text) => Some(text),
            Self::Boolean(_) | Self::Integer(_) | Self::Binary(_) => None,
        }
    }

    /// Checks the value by the rules of its type.
    ///
    /// # Errors
    /// See [`ValueError`].
    pub fn check(&self) -> Result<(), ValueError> {
        match self {
            Self::Boolean(_) | Self::Integer(_) | Self::Binary(_) => Ok(()),
            Self::String(text) | Self::UriRef(text) => rules::check_string(text),
            Self::Uri(text) => rules::check_uri(text),
            Self::Timestamp(text) => rules::check_timestamp(text),
        }
    }

    fn into_text(self, expected: &'static str) -> Result<String, ValueError> {
        match self {
            Self::String(text) | Self::Uri(text) | Self::UriRef(text) | Self::Timestamp(text) => Ok(text),
            Self::Boolean(_) | Self::Integer(_) | Self::Binary(_) => Err(ValueError::Type { expected }),
        }
    }

    /// Gives a value the type that the specification gives the attribute, and checks it. Extensions keep theirs.
    pub(crate) fn typed(self, name: &str) -> Result<Self, ValueError> {
        let value = match name {
            "id" | "type" | "subject" | "datacontenttype" => Self::String(self.into_text("String")?),
            "source" => Self::UriRef(self.into_text("URI reference")?),
            "dataschema" => Self::Uri(self.into_text("URI")?),
            "time" => Self::Timestamp(self.into_text("Timestamp")?),
            _ => self,
        };
        check_core(name, value.as_str().unwrap_or("-"))?;
        value.check()?;
        Ok(value)
    }
}

/// What the specification demands of its own attributes beyond their type: none is empty.
fn check_core(name: &str, text: &str) -> Result<(), ValueError> {
    let core = matches!(name, "id" | "source" | "type" | "subject" | "time" | "datacontenttype" | "dataschema");
    if core && text.is_empty() { Err(ValueError::Empty) } else { Ok(()) }
}

/// Checks the text of an attribute that arrived as text, by the type that its name has, without keeping it.
pub(crate) fn check_text(name: &str, text: &str) -> Result<(), ValueError> {
    check_core(name, text)?;
    match name {
        "time" => rules::check_timestamp(text),
        "dataschema" => rules::check_uri(text),
        _ => rules::check_string(text),
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::Integer(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::String(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::String(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_canonical_text() {
        assert_eq!(Value::from(true).to_text(), "true");
        assert_eq!(Value::from(i32::MIN).to_text(), "-2147483648");
        assert_eq!(Value::Binary(Bytes::from_static(b"\0\xff")).to_text(), "AP8=");
        assert_eq!(Value::from("x").to_text(), "x");
    }

    #[test]
    fn core_attributes_have_the_type_of_the_specification() {
        let time = Value::from("2018-04-05T17:31:00Z").typed("time").expect("valid");
        assert!(matches!(time, Value::Timestamp(_)));
        assert_eq!(Value::from(7).typed("subject"), Err(ValueError::Type { expected: "String" }));
        assert_eq!(Value::from("").typed("subject"), Err(ValueError::Empty));
        assert_eq!(Value::from("x").typed("dataschema"), Err(ValueError::Uri));
        assert_eq!(Value::from("").typed("myext"), Ok(Value::from("")));
    }
}
