//! Events at random, for the properties of all codecs.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::model::Event;
use super::rules::is_forbidden;
use super::value::Value;

/// Any text that a String may hold, not empty and without white space at its ends (which headers would lose).
pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[!-~]{1,12}", "[!-~]([ -~€é😀]{0,12})[!-~]", any::<String>()].prop_map(|text| {
        let text: String = text.chars().filter(|c| !is_forbidden(*c)).collect();
        if text.is_empty() { "x".to_owned() } else { text }
    })
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Boolean),
        any::<i32>().prop_map(Value::Integer),
        text().prop_map(Value::String),
        vec(any::<u8>(), 0..16).prop_map(|bytes| Value::Binary(bytes.into())),
        "(https?|urn):[a-z/.]{0,12}".prop_map(Value::Uri),
        "/[a-z/.%]{0,12}".prop_map(Value::UriRef),
        Just(Value::Timestamp("2018-04-05T17:31:00.250+02:00".to_owned())),
    ]
}

/// JSON as people and machines write it, no white space around it.
pub(crate) fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("1.10".to_owned()),
        Just("12345678901234567890".to_owned()),
        Just("1e400".to_owned()),
        Just("\"\\u00e9\\/ \"".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).expect("text")),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(|all| format!("[{}]", all.join(" , "))),
            vec(inner, 0..3).prop_map(|all| {
                let members: Vec<_> = all.iter().rev().map(|value| format!("\"b\" : {value}")).collect();
                format!("{{{}}}", members.join(",\n"))
            }),
        ]
    })
}

fn data() -> impl Strategy<Value = Option<(Option<&'static str>, Bytes)>> {
    let types = prop::sample::select(vec![
        Some("application/json"),
        Some("application/vnd.x+json; charset=utf-8"),
        Some("text/plain"),
        Some("text/plain; charset=utf-16"),
        Some("application/octet-stream"),
        Some("application/cbor"),
        None,
    ]);
    let bytes = prop_oneof![
        json().prop_map(Bytes::from),
        "\\PC{1,32}".prop_map(Bytes::from),
        vec(any::<u8>(), 1..64).prop_map(Bytes::from),
    ]
    // JSON with white space around it comes back from JSON without it, as the format has it.
    .prop_filter("white space around it", |bytes| bytes.trim_ascii().len() == bytes.len() && !bytes.is_empty());
    prop::option::of((types, bytes))
}

/// Any valid event.
pub(crate) fn event() -> impl Strategy<Value = Event> {
    let optional = (
        prop::option::of(text()),
        prop::option::of(Just("1985-04-12T23:20:50.52Z")),
        prop::option::of("urn:[a-z]{1,8}"),
        vec(("[a-z][a-z0-9]{0,6}x", value()), 0..4),
    );
    (text(), text(), text(), optional, data()).prop_map(|(id, source, ty, (subject, time, schema, more), data)| {
        let mut builder = Event::builder().id(id).source(source).ty(ty);
        if let Some(subject) = subject {
            builder = builder.subject(subject);
        }
        if let Some(time) = time {
            builder = builder.time(time);
        }
        if let Some(schema) = schema {
            builder = builder.attribute("dataschema", schema);
        }
        for (name, value) in more {
            builder = builder.attribute(&name, value);
        }
        match data {
            Some((Some(content_type), data)) => builder = builder.data(content_type, data),
            Some((None, data)) => builder = builder.untyped_data(data),
            None => {}
        }
        builder.build().expect("made of valid parts")
    })
}

/// The event as a format without types gives it back: extensions are Strings.
pub(crate) fn as_text(event: &Event) -> Event {
    let mut builder = Event::builder();
    for (name, value) in event.attributes() {
        builder = builder.attribute(name, value.to_text().into_owned());
    }
    let mut again = builder.build().expect("still valid");
    again.set_data(event.data().cloned());
    again
}

/// Equal but for the order of attributes, which no codec need keep.
pub(crate) fn same(a: &Event, b: &Event) -> bool {
    let sorted = |event: &Event| {
        let mut all: Vec<_> = event.attributes().map(|(name, value)| (name.to_owned(), value.clone())).collect();
        all.sort_by(|x, y| x.0.cmp(&y.0));
        all
    };
    a.data() == b.data() && sorted(a) == sorted(b)
}
