//! The MQTT protocol binding (CloudEvents 1.0.2) on plain types: binary and structured mode of MQTT 5, structured mode of
//! MQTT 3.1.1, where the format is JSON and nothing says so.
//!
//! In binary mode every attribute is a user property of its own name; user properties whose names no attribute could have are
//! not the event's affair. `datacontenttype` is the content type; as a user property it is understood and not sent.

use bytes::Bytes;

use super::error::EventError;
use super::limits::Limits;
use super::media::{self, Mode};
use super::model::Event;
use super::rules::is_attribute_name;
use super::value::Value;
use super::{cbor, json};

/// An event as an MQTT 5 message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The property Content Type.
    pub content_type: Option<String>,
    /// The user properties in order.
    pub user_properties: Vec<(String, String)>,
    /// The payload.
    pub payload: Bytes,
}

/// Reads an MQTT 5 message.
///
/// # Errors
/// [`EventError::NotAnEvent`] where the message is structured neither by its content type nor by the four required user
/// properties; else what is wrong with the event.
pub fn decode<'a>(
    content_type: Option<&str>,
    user_properties: impl Iterator<Item = (&'a str, &'a str)>,
    payload: Bytes,
    limits: &Limits,
) -> Result<Event, EventError> {
    match Mode::of(content_type) {
        Mode::StructuredJson => json::decode(&payload, limits),
        Mode::StructuredCbor => cbor::decode(&payload, limits),
        Mode::BatchJson | Mode::Unknown => {
            Err(EventError::UnsupportedFormat { content_type: super::error::shortened(content_type.unwrap_or_default()) })
        }
        Mode::Binary => {
            let mut attributes: Vec<(Box<str>, Value)> = Vec::with_capacity(8);
            if let Some(content_type) = content_type.filter(|text| !text.is_empty()) {
                attributes.push(("datacontenttype".into(), Value::from(content_type)));
            }
            let mut versions = 0;
            for (name, value) in user_properties {
                if !is_attribute_name(name) || (name == "datacontenttype" && content_type.is_some()) {
                    continue;
                }
                versions += u8::from(name == "specversion");
                attributes.push((name.into(), Value::from(value)));
                if attributes.len() > limits.max_attributes + 2 {
                    return Err(EventError::TooMany { what: "attributes in one event", limit: limits.max_attributes });
                }
            }
            let there = |name: &str| attributes.iter().any(|(other, _)| **other == *name);
            if !["specversion", "id", "source", "type"].into_iter().all(there) {
                return Err(EventError::NotAnEvent);
            }
            if versions > 1 {
                return Err(EventError::duplicate("specversion"));
            }
            Event::from_attributes(attributes, Some(payload).filter(|payload| !payload.is_empty()))
        }
    }
}

/// Reads an MQTT 3.1.1 message, which is an event in JSON or none.
///
/// # Errors
/// When it is none.
pub fn decode_v311(payload: &Bytes, limits: &Limits) -> Result<Event, EventError> {
    json::decode(payload, limits)
}

/// The event in binary mode of MQTT 5.
#[must_use]
pub fn binary(event: &Event) -> Message {
    let mut user_properties = vec![("specversion".to_owned(), "1.0".to_owned())];
    user_properties.extend(
        event
            .attributes()
            .filter(|(name, _)| *name != "datacontenttype")
            .map(|(name, value)| (name.to_owned(), value.to_text().into_owned())),
    );
    Message {
        content_type: event.datacontenttype().map(str::to_owned),
        user_properties,
        payload: event.data().cloned().unwrap_or_default(),
    }
}

/// The event in structured mode of MQTT 5, JSON format.
#[must_use]
pub fn structured(event: &Event) -> Message {
    Message {
        content_type: Some(format!("{}; charset=utf-8", media::STRUCTURED_JSON)),
        user_properties: Vec::new(),
        payload: structured_v311(event),
    }
}

/// The event as payload of an MQTT 3.1.1 message.
#[must_use]
pub fn structured_v311(event: &Event) -> Bytes {
    json::encode(event).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::arbitrary::{as_text, event, same};

    fn read(message: &Message) -> Result<Event, EventError> {
        let user = message.user_properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        decode(message.content_type.as_deref(), user, message.payload.clone(), &Limits::default())
    }

    #[test]
    fn a_message_without_the_required_properties_is_no_event() {
        let user = [("id", "1"), ("source", "/s"), ("type", "t")];
        let read = decode(None, user.into_iter(), Bytes::new(), &Limits::default());
        assert_eq!(read, Err(EventError::NotAnEvent));
    }

    #[test]
    fn datacontenttype_is_understood_as_user_property_and_others_names_are_left_alone() {
        let user = [
            ("id", "1"),
            ("source", "/s"),
            ("type", "t"),
            ("specversion", "1.0"),
            ("datacontenttype", "text/x"),
            ("X-Y", ""),
        ];
        let event = decode(None, user.into_iter(), Bytes::from_static(b"p"), &Limits::default()).expect("an event");
        assert_eq!((event.datacontenttype(), event.attributes().count()), (Some("text/x"), 4));
        let event = decode(Some("a/b"), user.into_iter(), Bytes::new(), &Limits::default()).expect("an event");
        assert_eq!((event.datacontenttype(), event.data()), (Some("a/b"), None));
    }

    #[test]
    fn a_property_twice_is_refused() {
        let user = [("id", "1"), ("source", "/s"), ("type", "t"), ("specversion", "1.0"), ("id", "2")];
        let read = decode(None, user.into_iter(), Bytes::new(), &Limits::default());
        assert_eq!(read, Err(EventError::duplicate("id")));
    }

    proptest! {
        #[test]
        fn events_survive_binary_mode_with_attributes_as_text(event in event()) {
            let again = read(&binary(&event)).expect("an event");
            prop_assert!(same(&again, &as_text(&event)), "{again:?}");
        }

        #[test]
        fn events_survive_structured_mode(event in event()) {
            let again = read(&structured(&event)).expect("an event");
            prop_assert_eq!(again.data(), event.data());
            prop_assert_eq!(decode_v311(&structured_v311(&event), &Limits::default()), Ok(again));
        }

        #[test]
        fn any_message_gives_an_event_or_an_error(
            kind in prop::option::of("(application/cloudevents(\\+json|\\+cbor|)|a/b)"),
            payload in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let _ = decode(kind.as_deref(), std::iter::empty(), payload.into(), &Limits::default());
        }
    }
}
