//! The CloudEvents 1.0 event, its codecs and its stored form.
//!
//! An [`Event`] is what everybody talks about: context attributes with the types of the specification and a payload that is a
//! shared buffer, never parsed nor written anew. The codecs turn it into [`http`] messages, [`json`], [`cbor`] and [`mqtt`]
//! messages and back; [`sdk`] into the type of the `cloudevents-sdk` crate. What a journal keeps is the stored form:
//! [`encode_event`], [`encode_publish`] and [`StoredEvent`]; filters read attributes from it without an allocation.
//!
//! Whatever comes from outside is checked here once; an [`Event`] that exists is valid.

pub mod cbor;
mod error;
mod expiry;
pub mod http;
pub mod json;
mod jsontext;
mod limits;
pub mod media;
mod model;
pub mod mqtt;
mod percent;
pub mod properties;
mod rules;
pub mod sdk;
mod stored;
pub mod ttl;
mod value;

pub use error::{ErrorKind, EventError, ValueError};
pub use expiry::has_expired;
pub use limits::Limits;
pub use model::{Event, EventBuilder};
pub use rules::{check_attribute_name, check_string, check_timestamp};
pub use stored::{
    AttributeRef, MqttPublish, Origin, Split, StoredError, StoredEvent, WRAPPED_TYPE, encode_event, encode_mapped,
    encode_publish, join, split, with_origin,
};
pub(crate) use stored::{Found, PlainEvent};
pub use value::Value;

#[cfg(test)]
mod arbitrary;
