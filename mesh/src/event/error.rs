//! Why something is not a valid event: which attribute, and what is wrong with it.

use thiserror::Error;

/// What kind of answer an [`EventError`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Not a valid event (HTTP 400).
    Invalid,
    /// More than a limit allows (HTTP 413).
    TooLarge,
    /// An event format that is not spoken here (HTTP 415).
    UnsupportedFormat,
}

/// Why a message is not a valid CloudEvent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EventError {
    /// A required attribute is absent.
    #[error("attribute \"{attribute}\" is missing")]
    Missing {
        /// Which.
        attribute: &'static str,
    },
    /// A version of CloudEvents other than 1.0.
    #[error("specversion \"{found}\" is not supported: send CloudEvents 1.0")]
    Version {
        /// The version as given.
        found: String,
    },
    /// A name that no attribute may have (CloudEvents 3.1: `a-z` and `0-9`; `data` is not an attribute).
    #[error(
        "\"{name}\" is not an attribute name: lower-case letters a-z and digits only, not \"data\", at most 255 of them"
    )]
    Name {
        /// The name as given, shortened.
        name: String,
    },
    /// An attribute's value breaks the rules of its type.
    #[error("attribute \"{attribute}\" {why}")]
    Value {
        /// Which.
        attribute: String,
        /// What is wrong with it.
        why: ValueError,
    },
    /// The same attribute twice, so that two readers could see two different events.
    #[error("attribute \"{attribute}\" is there more than once")]
    Duplicate {
        /// Which.
        attribute: String,
    },
    /// Both `data` and `data_base64`.
    #[error("\"data\" and \"data_base64\" exclude each other")]
    TwoData,
    /// `data` or `data_base64` is not what the format demands.
    #[error("\"{member}\" {why}")]
    Data {
        /// Which member of the format.
        member: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The message is not in the format that its content type names.
    #[error("not valid {format}: {why}")]
    Malformed {
        /// The format.
        format: &'static str,
        /// What the parser says.
        why: String,
    },
    /// One event of a batch is wrong.
    #[error("event {index} of the batch: {why}")]
    InBatch {
        /// Which, from 0.
        index: usize,
        /// What is wrong with it.
        why: Box<EventError>,
    },
    /// Neither a structured event nor one attribute of a binary one.
    #[error(
        "not a CloudEvent: send headers ce-specversion, ce-id, ce-source and ce-type, or content type application/cloudevents+json"
    )]
    NotAnEvent,
    /// An event format, or a character set of it, that is not spoken here.
    #[error("content type \"{content_type}\" is not supported: send application/cloudevents+json in UTF-8, or binary mode")]
    UnsupportedFormat {
        /// The content type, shortened.
        content_type: String,
    },
    /// More of something than [`crate::event::Limits`] allow.
    #[error("more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

impl EventError {
    /// What kind of answer this asks for.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::TooMany { .. } => ErrorKind::TooLarge,
            Self::UnsupportedFormat { .. } => ErrorKind::UnsupportedFormat,
            Self::InBatch { why, .. } => why.kind(),
            _ => ErrorKind::Invalid,
        }
    }

    pub(crate) fn name(name: &str) -> Self {
        Self::Name { name: shortened(name) }
    }

    pub(crate) fn value(attribute: &str, why: ValueError) -> Self {
        Self::Value { attribute: shortened(attribute), why }
    }

    pub(crate) fn duplicate(attribute: &str) -> Self {
        Self::Duplicate { attribute: shortened(attribute) }
    }

    pub(crate) fn version(found: &str) -> Self {
        Self::Version { found: shortened(found) }
    }
}

/// What is wrong with an attribute's value; reads as the end of a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ValueError {
    /// Nothing in it, where something is demanded.
    #[error("must not be empty")]
    Empty,
    /// A character that no CloudEvents String may have: control characters and noncharacters.
    #[error("must not hold the character U+{code:04X}")]
    Character {
        /// The character.
        code: u32,
    },
    /// The bytes are not UTF-8 (after percent-decoding, where that applies).
    #[error("is not valid UTF-8")]
    Utf8,
    /// Not a whole number of 32 bits with a sign.
    #[error("must be a whole number from -2147483648 to 2147483647")]
    Integer,
    /// Not an RFC 3339 timestamp.
    #[error("must be an RFC 3339 timestamp like 2018-04-05T17:31:00Z")]
    Timestamp,
    /// Not an absolute URI.
    #[error("must be an absolute URI with a scheme")]
    Uri,
    /// Of another type than the attribute has.
    #[error("must be a {expected}")]
    Type {
        /// The type it should have.
        expected: &'static str,
    },
}

/// The first 64 characters, for messages about what a peer sent.
pub(crate) fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(64).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
