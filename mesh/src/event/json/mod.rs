//! The JSON event format (CloudEvents JSON format 1.0.2), one event and batches.
//!
//! The payload is never parsed into numbers and back: JSON `data` is the very bytes that stood in the message (`1.10`, integers
//! of 20 digits and the order of keys survive), and is written again as it is. Data without JSON is a string where its type is
//! text, else base64. A name that occurs twice in one event is refused, since two readers could see two events.
//! Where `data` has no `datacontenttype` it is JSON, and the attribute is set so (section 3.1).

mod decode;
mod encode;

pub use decode::{decode, decode_batch};
pub use encode::{encode, encode_batch};

pub(crate) use decode::{Data, Located, locate, unbase64, unescape};

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::event::arbitrary::{event, json, same};
    use crate::event::{Event, EventError, Limits, Value};

    fn read(text: &str) -> Result<Event, EventError> {
        decode(&Bytes::copy_from_slice(text.as_bytes()), &Limits::default())
    }

    fn with(members: &str) -> Result<Event, EventError> {
        read(&format!("{{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\"{members}}}"))
    }

    fn data(members: &str) -> Option<Bytes> {
        with(members).expect("valid").data().cloned()
    }

    #[test]
    fn json_data_keeps_its_very_bytes() {
        let text = "{ \"z\": 1.10, \"a\": 12345678901234567890, \"a\": 1e5,\n \"e\": \"\\u00e9\" }";
        let event = with(&format!(",\"data\": {text} ")).expect("valid");
        assert_eq!(event.data().map(|data| &data[..]), Some(text.as_bytes()));
        assert_eq!(event.datacontenttype(), Some("application/json"));
        let written = encode(&event);
        assert!(String::from_utf8(written).expect("text").contains(text));
    }

    #[test]
    fn data_that_is_no_json_is_a_string_or_base64() {
        assert_eq!(
            data(",\"datacontenttype\":\"text/plain\",\"data\":\"a\\u00e9\\n\"").as_deref(),
            Some("aé\n".as_bytes())
        );
        assert_eq!(data(",\"datacontenttype\":\"text/xml\",\"data\":{\"a\":1}").as_deref(), Some(&b"{\"a\":1}"[..]));
        assert_eq!(data(",\"data_base64\":\"AP8=\"").as_deref(), Some(&b"\0\xff"[..]));
        assert_eq!(data(",\"data_base64\":\"\"").as_deref(), Some(&b""[..]));
        assert_eq!(data(",\"data\":null").as_deref(), Some(&b"null"[..]));
        assert_eq!(data(",\"data_base64\":null"), None);
        assert_eq!(with(",\"data_base64\":\"AP8=\"").expect("valid").datacontenttype(), None);
        assert_eq!(with(",\"data\":1,\"data_base64\":\"AP8=\""), Err(EventError::TwoData));
        for wrong in ["7", "\"?\"", "\"AP8\""] {
            let refused = with(&format!(",\"data_base64\":{wrong}"));
            assert!(matches!(refused, Err(EventError::Data { .. })), "{refused:?}");
        }
    }

    #[test]
    fn attributes_have_json_types_and_null_is_absence() {
        let event =
            with(",\"n\":-7,\"b\":false,\"s\":\"\",\"subject\":null,\"time\":\"2018-04-05T17:31:00Z\"").expect("valid");
        assert_eq!(event.get("n"), Some(&Value::Integer(-7)));
        assert_eq!(event.get("b"), Some(&Value::Boolean(false)));
        assert_eq!(event.get("s"), Some(&Value::from("")));
        assert_eq!((event.subject(), event.time()), (None, Some("2018-04-05T17:31:00Z")));
    }

    #[test]
    fn what_is_wrong_is_said_by_name() {
        for (members, message) in [
            (",\"n\":2147483648", "attribute \"n\" must be a whole number from -2147483648 to 2147483647"),
            (",\"n\":1.0", "attribute \"n\" must be a whole number from -2147483648 to 2147483647"),
            (",\"n\":[]", "attribute \"n\" must be a string, whole number or boolean"),
            (",\"time\":7", "attribute \"time\" must be a Timestamp"),
            (",\"s\":\"a\\u0000\"", "attribute \"s\" must not hold the character U+0000"),
            (",\"n\":1,\"n\":2", "attribute \"n\" is there more than once"),
            (",\"\\u006e\":1,\"n\":2", "attribute \"n\" is there more than once"),
            (",\"specversion\":\"1.0\"", "attribute \"specversion\" is there more than once"),
            (",\"data\":1,\"data\":2", "attribute \"data\" is there more than once"),
            (
                ",\"aB\":1",
                "\"aB\" is not an attribute name: lower-case letters a-z and digits only, not \"data\", at most 255 of them",
            ),
        ] {
            assert_eq!(with(members).expect_err("refused").to_string(), message);
        }
        assert_eq!(read("{}"), Err(EventError::Missing { attribute: "specversion" }));
        assert_eq!(read("{\"specversion\":\"0.3\"}"), Err(EventError::version("0.3")));
        for text in ["", "[]", "7", "{\"specversion\":\"1.0\"", "{} x", "{\"id\":\"\\ud800\"}"] {
            assert!(matches!(read(text), Err(EventError::Malformed { .. })), "{text}");
        }
    }

    #[test]
    fn limits_hold_for_attributes_and_batches() {
        let limits = Limits { max_attributes: 3, max_batch: 2 };
        let one = Bytes::from_static(
            b"{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\",\"a\":1,\"b\":2,\"c\":3}",
        );
        assert!(matches!(decode(&one, &limits), Err(EventError::TooMany { .. })));
        assert!(matches!(decode_batch(&Bytes::from_static(b"[1,2,3]"), &limits), Err(EventError::TooMany { .. })));
        assert_eq!(decode_batch(&Bytes::from_static(b" [ ] "), &limits), Ok(Vec::new()));
    }

    #[test]
    fn deep_nesting_in_data_is_no_danger() {
        let nested = ["[".repeat(100_000), "]".repeat(100_000)].concat();
        assert_eq!(data(&format!(",\"data\":{nested}")).map(|data| data.len()), Some(200_000));
    }

    /// JSON has fewer types: what it writes as text comes back as String.
    fn as_json_types(event: &Event) -> Event {
        let mut builder = Event::builder();
        for (name, value) in event.attributes() {
            builder = match value {
                Value::Boolean(_) | Value::Integer(_) => builder.attribute(name, value.clone()),
                _ => builder.attribute(name, value.to_text().into_owned()),
            };
        }
        let mut again = builder.build().expect("still valid");
        again.set_data(event.data().cloned());
        again
    }

    proptest! {
        #[test]
        fn events_survive(event in event()) {
            let written = Bytes::from(encode(&event));
            prop_assert!(crate::event::jsontext::is_json(&written));
            let again = decode(&written, &Limits::default()).expect("an event");
            prop_assert!(same(&again, &as_json_types(&event)), "{:?}", written);
        }

        #[test]
        fn batches_survive(events in prop::collection::vec(event(), 0..4)) {
            let again = decode_batch(&encode_batch(&events).into(), &Limits::default()).expect("events");
            prop_assert_eq!(again.len(), events.len());
            for (again, event) in again.iter().zip(&events) {
                prop_assert!(same(again, &as_json_types(event)));
            }
        }

        #[test]
        fn json_data_survives_byte_for_byte(text in json()) {
            let payload = data(&format!(",\"data\":\t{text}\n")).expect("data");
            prop_assert_eq!(&payload[..], text.as_bytes());
        }

        #[test]
        fn any_text_gives_an_event_or_an_error(text in "[\\[\\]{}:,\"\\\\a-e0-9 datspecvrion_64.]{0,64}") {
            let _ = read(&text);
            let _ = with(&format!(",{text}"));
            let _ = decode_batch(&text.into_bytes().into(), &Limits::default());
        }
    }
}
