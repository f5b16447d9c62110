//! Tests of the stored form.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::event::arbitrary::{event, same};
use crate::event::{Event, Limits, Value, cbor, http, json, mqtt, properties, ttl};
use crate::journal::{Epoch, Offset};
use crate::names::AgentId;

const ARRIVAL: u64 = 1_767_225_600_250;

fn agent() -> AgentId {
    AgentId::new("boat-7").expect("valid")
}

fn read(body: Vec<u8>) -> StoredEvent {
    StoredEvent::new(body.into(), Epoch(0xabc), Offset(41), &agent()).expect("readable")
}

fn stored(event: &Event, arrival_ms: Option<u64>) -> Vec<u8> {
    let mut out = Vec::new();
    encode_event(&mut out, event, arrival_ms, std::iter::empty());
    out
}

fn published(publish: &MqttPublish<'_>, arrival_ms: Option<u64>) -> Vec<u8> {
    let mut out = Vec::new();
    encode_publish(&mut out, publish, arrival_ms);
    out
}

fn plain() -> MqttPublish<'static> {
    MqttPublish {
        client_id: "pump 3",
        topic: "plant/pump/3",
        qos: 1,
        packet_id: 9,
        payload: b"{\"v\":1.10}",
        ..MqttPublish::default()
    }
}

fn text(stored: &StoredEvent, name: &str) -> Option<String> {
    let mut scratch = String::new();
    stored.attribute_text(name, &mut scratch).map(str::to_owned)
}

#[test]
fn a_plain_publish_becomes_the_event_that_the_design_says() {
    let stored = read(published(&plain(), Some(ARRIVAL)));
    let event = stored.to_event().expect("valid");
    assert_eq!(event.id(), "0000000000000abc-41");
    assert_eq!(event.source(), "/agents/boat-7/mqtt/pump%203");
    assert_eq!(event.ty(), "dev.godwit.mqtt.publish");
    assert_eq!(event.subject(), Some("plant/pump/3"));
    assert_eq!(event.time(), Some("2026-01-01T00:00:00.250Z"));
    assert_eq!(event.datacontenttype(), Some("application/json"));
    assert_eq!(event.data().map(|data| &data[..]), Some(&b"{\"v\":1.10}"[..]));
    assert_eq!(stored.mqtt(), Some(plain()));
}

#[test]
fn a_mapped_publish_has_what_its_mapping_says_and_all_that_a_subscriber_must_get() {
    let mut out = Vec::new();
    let publish = MqttPublish { v5: true, properties: &[0x26, 0, 1, b'k', 0, 1, b'v'], retain: true, ..plain() };
    encode_mapped(&mut out, &publish, Some(ARRIVAL), &[("type", "com.example.pump"), ("source", "/site/1"), ("site", "x")]);
    let stored = read(out);
    assert_eq!(stored.mqtt(), Some(publish));
    assert_eq!((text(&stored, "type"), text(&stored, "site")), (Some("com.example.pump".to_owned()), Some("x".to_owned())));
    assert!(!stored.source_is_derived());
    let event = stored.to_event().expect("valid");
    assert_eq!((event.id(), event.source(), event.ty()), ("0000000000000abc-41", "/site/1", "com.example.pump"));
    assert_eq!((event.subject(), event.time()), (Some("plant/pump/3"), Some("2026-01-01T00:00:00.250Z")));
    assert_eq!(event.get("site"), Some(&Value::from("x")));
    assert_eq!(event.datacontenttype(), Some("application/json"));
    for (name, value) in event.attributes() {
        assert_eq!(text(&stored, name), Some(value.to_text().into_owned()), "{name}");
    }
    // Taken apart for the way up and together again, with an origin in front.
    let body = stored.body().clone();
    let mut again = Vec::new();
    join(&mut again, &split(&body).expect("whole"));
    assert_eq!(again, body);
    let mut above = Vec::new();
    with_origin(&mut above, &body, "boat-7", Epoch(0xabc), Offset(41));
    let above = StoredEvent::new(above.into(), Epoch(1), Offset(2), None).expect("readable").to_event().expect("valid");
    assert_eq!((above.id(), above.source()), ("0000000000000abc-41", "/site/1"));
    // What already is an event stays as it is.
    let json = br#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;
    let mut out = Vec::new();
    encode_mapped(&mut out, &MqttPublish { payload: json, ..plain() }, None, &[("type", "com.example.pump")]);
    assert_eq!(read(out).to_event().expect("valid").ty(), "t");
}

#[test]
fn without_a_clock_an_event_has_no_time_rather_than_a_wrong_one() {
    let mut publish = MqttPublish { v5: true, ..plain() };
    publish.properties = &[0x02, 0, 0, 0, 60];
    let event = read(published(&publish, None)).to_event().expect("valid");
    assert_eq!((event.time(), event.get("expirytime"), event.get("knativearrivaltime")), (None, None, None));
    let event = read(published(&publish, Some(ARRIVAL))).to_event().expect("valid");
    assert_eq!(event.get("expirytime"), Some(&Value::Timestamp("2026-01-01T00:01:00.250Z".to_owned())));
}

#[test]
fn the_content_type_of_a_plain_publish_is_the_property_or_found_out() {
    let kind = |properties: &[u8], payload: &[u8]| {
        let publish = MqttPublish { v5: true, properties, payload, ..plain() };
        read(published(&publish, None)).to_event().expect("valid").datacontenttype().map(str::to_owned)
    };
    let mut typed = Vec::new();
    properties::push_content_type(&mut typed, "text/csv");
    let mut odd = Vec::new();
    properties::push_content_type(&mut odd, "text\u{1}");
    assert_eq!(kind(&typed, b"{}").as_deref(), Some("text/csv"));
    assert_eq!(kind(&odd, b"{}").as_deref(), Some("application/json"));
    assert_eq!(kind(&[], b"23.5").as_deref(), Some("application/json"));
    assert_eq!(kind(&[0x01, 1], b"hello").as_deref(), Some("text/plain"));
    assert_eq!(kind(&[0x01, 1], b"1").as_deref(), Some("application/json"));
    assert_eq!(kind(&[0x01, 0], b"hello").as_deref(), Some("application/octet-stream"));
    assert_eq!(kind(&[], b""), None);
}

#[test]
fn a_publish_without_payload_has_no_data() {
    let stored = read(published(&MqttPublish { payload: b"", ..plain() }, None));
    assert_eq!((stored.data(), stored.to_event().expect("valid").data()), (None, None));
}

#[test]
fn characters_that_no_string_may_hold_are_escaped_in_the_subject_only() {
    let publish = MqttPublish { topic: "a\u{1}b/\u{fffe}€", ..plain() };
    let stored = read(published(&publish, None));
    assert_eq!(text(&stored, "subject").as_deref(), Some("a%01b/%EF%BF%BE€"));
    assert_eq!(stored.mqtt().map(|publish| publish.topic), Some("a\u{1}b/\u{fffe}€"));
    stored.to_event().expect("valid");
}

fn event_properties(more: &[(&str, &str)]) -> Vec<u8> {
    let mut raw = vec![0x01, 1];
    for (name, value) in [("specversion", "1.0"), ("id", "7"), ("source", "/s"), ("type", "t")].iter().chain(more) {
        properties::push_user(&mut raw, name, value);
    }
    properties::push_content_type(&mut raw, "text/plain");
    raw
}

#[test]
fn an_event_in_binary_mode_is_taken_as_it_is() {
    let raw = event_properties(&[("ext", "€"), ("time", "2018-04-05T17:31:00Z"), ("X-Other", "left alone")]);
    let publish = MqttPublish { v5: true, properties: &raw, ..plain() };
    let stored = read(published(&publish, None));
    let event = stored.to_event().expect("valid");
    assert_eq!((event.id(), event.source(), event.ty()), ("7", "/s", "t"));
    assert_eq!((event.datacontenttype(), event.time()), (Some("text/plain"), Some("2018-04-05T17:31:00Z")));
    assert_eq!(event.get("ext"), Some(&Value::from("€")));
    assert_eq!(stored.mqtt(), Some(publish));
    let mut scratch = String::new();
    assert_eq!(stored.attribute("source", &mut scratch), Some(AttributeRef::UriRef("/s")));
}

#[test]
fn a_malformed_event_is_wrapped_like_any_other_payload() {
    for more in [("time", "yesterday"), ("id", "twice"), ("ext", "\u{7f}"), ("dataschema", "relative"), ("subject", "")] {
        let raw = event_properties(&[more]);
        let stored = read(published(&MqttPublish { v5: true, properties: &raw, ..plain() }, None));
        assert_eq!(text(&stored, "type").as_deref(), Some(WRAPPED_TYPE), "{more:?}");
    }
    let broken: [&[u8]; 3] = [
        b"{\"specversion\":\"1.0\",\"id\":\"1\"}",
        b"{\"specversion\":\"0.3\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\"}",
        b"{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\",\"data_base64\":\"?\"}",
    ];
    for payload in broken {
        let stored = read(published(&MqttPublish { payload, ..plain() }, None));
        assert_eq!(text(&stored, "type").as_deref(), Some(WRAPPED_TYPE));
        assert_eq!(stored.data().as_deref(), Some(payload));
    }
}

#[test]
fn a_structured_event_keeps_its_payload_once() {
    let payload = format!(
        "{{\"specversion\":\"1.0\",\"id\":\"some-id-1\",\"source\":\"/a/source\",\"type\":\"a.type\",\"n\":7,\"data\":[1.10,{}]}}",
        "12345678901234567890,".repeat(99).trim_end_matches(',')
    );
    let publish = MqttPublish { payload: payload.as_bytes(), ..plain() };
    let body = published(&publish, None);
    assert!(body.len() < payload.len() + 80, "{} over {}", body.len(), payload.len());
    let stored = read(body);
    assert_eq!(text(&stored, "id").as_deref(), Some("some-id-1"));
    assert_eq!(text(&stored, "n").as_deref(), Some("7"));
    assert_eq!(text(&stored, "datacontenttype").as_deref(), Some("application/json"));
    let data = stored.data().expect("data");
    assert!(stored.body().as_ptr_range().contains(&data.as_ptr()), "shared, not copied");
    assert_eq!(stored.to_event().ok(), json::decode(&payload.into(), &Limits::default()).ok());
}

#[test]
fn a_gateway_names_the_event_by_its_origin() {
    let mut body = Vec::new();
    with_origin(&mut body, &published(&plain(), Some(ARRIVAL)), "boat-9", Epoch(5), Offset(3));
    let stored = StoredEvent::new(body.into(), Epoch(1), Offset(1), None).expect("readable");
    assert_eq!(stored.origin(), Some(Origin { agent: "boat-9", epoch: Epoch(5), offset: Offset(3) }));
    assert_eq!(text(&stored, "id").as_deref(), Some("0000000000000005-3"));
    assert_eq!(text(&stored, "source").as_deref(), Some("/agents/boat-9/mqtt/pump%203"));
    assert_eq!(text(&stored, "godwitagent").as_deref(), Some("boat-9"));
    assert_eq!(stored.to_event().expect("valid").get("godwitagent"), Some(&Value::from("boat-9")));
}

#[test]
fn the_gateway_sets_the_agent_whatever_the_event_said() {
    let event = Event::builder().id("1").source("/s").ty("t").attribute("godwitagent", "another").build().expect("valid");
    let mut body = Vec::new();
    with_origin(&mut body, &stored(&event, None), "boat-9", Epoch(5), Offset(3));
    let stored = StoredEvent::new(body.into(), Epoch(1), Offset(1), None).expect("readable");
    assert_eq!(text(&stored, "godwitagent").as_deref(), Some("boat-9"));
    assert_eq!(stored.to_event().expect("valid").get("godwitagent"), Some(&Value::from("boat-9")));
}

#[test]
fn an_origin_has_no_second_one() {
    let (mut once, mut twice) = (Vec::new(), Vec::new());
    with_origin(&mut once, &published(&plain(), None), "a", Epoch(1), Offset(1));
    with_origin(&mut twice, &once, "b", Epoch(2), Offset(2));
    assert_eq!(StoredEvent::new(twice.into(), Epoch(1), Offset(1), None).err(), Some(StoredError::Head(7)));
    assert!(split(&once).is_err());
}

#[test]
fn pass_through_headers_come_back() {
    let event = Event::builder().id("1").source("/s").ty("t").build().expect("valid");
    let headers: [(&str, &[u8]); 2] = [("x-request-id", b"7"), ("knative-x", b"\xff")];
    let mut body = Vec::new();
    encode_event(&mut body, &event, Some(ARRIVAL), headers.into_iter());
    let stored = read(body);
    assert_eq!(stored.headers().collect::<Vec<_>>(), headers);
    assert_eq!(text(&stored, "knativearrivaltime").as_deref(), Some("2026-01-01T00:00:00.250Z"));
}

#[test]
fn a_body_of_a_later_version_is_refused_by_its_head() {
    for head in [0x80, 0x05, 0x06, 0x10] {
        let body = Bytes::from(vec![head, 0]);
        assert_eq!(StoredEvent::new(body, Epoch(1), Offset(1), None).err(), Some(StoredError::Head(head)));
    }
}

#[test]
fn a_body_has_one_form_only_so_that_it_can_be_taken_apart_and_put_together() {
    let zero = [0x11, 0, 0, 0, 1, b'c', 1, b't'];
    assert_eq!(split(&zero), Err(StoredError::Malformed("packet id 0 is none")));
}

#[test]
fn the_first_version_is_read_for_ever() {
    let publish: Vec<u8> = [&[0x39, 0x7a, 0x4d, 0x42, 0x77, 0x9b, 0x01, 9, 0, 1, 1][..], b"c\x03a/b{}"].concat();
    let same = MqttPublish { client_id: "c", topic: "a/b", payload: b"{}", ..plain() };
    assert_eq!(published(&same, Some(0x019b_7742_4d7a)), publish);
    let event: Vec<u8> =
        [&[0x20, 17, 1, 1][..], b"7\x22\x02/s", &[3, 1], b"t", &[0xa0, 1], b"n", &[5, 0, 0, 0], b"xyz"].concat();
    let same = Event::builder().id("7").source("/s").ty("t").attribute("n", 5).untyped_data("xyz").build().expect("valid");
    assert_eq!(stored(&same, None), event);
    assert_eq!(read(event).to_event(), Ok(same));
}

/// Uses everything that reads a body.
fn read_all(body: &[u8]) {
    let Ok(stored) = StoredEvent::new(Bytes::copy_from_slice(body), Epoch(1), Offset(1), &agent()) else { return };
    let mut scratch = String::new();
    for name in ["id", "source", "type", "subject", "time", "datacontenttype", "expirytime", "ext", "knativearrivaltime"] {
        let _ = stored.attribute_text(name, &mut scratch);
        let _ = stored.attribute(name, &mut scratch);
    }
    let _ = (stored.to_event(), stored.data(), stored.mqtt(), stored.origin(), stored.headers().count());
    if let Ok(parts) = split(body) {
        let mut again = Vec::new();
        join(&mut again, &parts);
        assert_eq!(again, body);
    }
}

fn publish_of(event: &Event, mode: u8) -> (Vec<u8>, Bytes, bool) {
    let message = match mode {
        0 => mqtt::binary(event),
        1 => mqtt::structured(event),
        2 => return (Vec::new(), mqtt::structured_v311(event), false),
        _ => {
            let mut raw = Vec::new();
            properties::push_content_type(&mut raw, "application/cloudevents+cbor");
            return (raw, cbor::encode(event).into(), true);
        }
    };
    let mut raw = Vec::new();
    if let Some(content_type) = &message.content_type {
        properties::push_content_type(&mut raw, content_type);
    }
    for (name, value) in &message.user_properties {
        properties::push_user(&mut raw, name, value);
    }
    (raw, message.payload, true)
}

proptest! {
    #[test]
    fn every_event_comes_back_and_its_attributes_are_found(event in event(), arrival in prop::option::of(0..1_u64 << 43)) {
        let stored = read(stored(&event, arrival));
        let mut again = stored.to_event().expect("valid");
        let mut scratch = String::new();
        for (name, value) in again.attributes() {
            let found = stored.attribute(name, &mut scratch).map(|value| value.to_value());
            prop_assert_eq!(found.as_ref(), Some(value));
            prop_assert_eq!(stored.attribute_text(name, &mut scratch), Some(&*value.to_text()));
        }
        prop_assert_eq!(stored.attribute("absent", &mut scratch), None);
        prop_assert_eq!(again.remove("knativearrivaltime").is_some(), arrival.is_some());
        prop_assert_eq!(&again, &event);
        prop_assert_eq!(stored.data(), event.data().cloned());
        prop_assert_eq!(stored.arrival_ms(), arrival);
    }

    #[test]
    fn every_event_published_by_mqtt_comes_back_as_its_codec_reads_it(event in event(), mode in 0..4_u8) {
        let (raw, payload, v5) = publish_of(&event, mode);
        let user = || properties::user(&raw);
        let expected = if v5 {
            mqtt::decode(properties::content_type(&raw), user(), payload.clone(), &Limits::default())
        } else {
            mqtt::decode_v311(&payload, &Limits::default())
        };
        let publish = MqttPublish { v5, properties: &raw, payload: &payload, ..plain() };
        let stored = read(published(&publish, None));
        let again = stored.to_event().expect("valid");
        prop_assert!(same(&again, &expected.expect("valid")), "{again:?}");
        prop_assert_eq!(stored.mqtt(), Some(publish));
        let mut scratch = String::new();
        for (name, value) in again.attributes() {
            prop_assert_eq!(stored.attribute_text(name, &mut scratch), Some(&*value.to_text()));
        }
    }

    #[test]
    fn every_publish_is_stored_and_taken_apart_and_put_together(
        client_id in any::<String>(), topic in any::<String>(), flags in any::<(bool, bool, u16)>(), qos in 0..3_u8,
        properties in vec(any::<u8>(), 0..32), payload in vec(any::<u8>(), 0..64), arrival in prop::option::of(0..1_u64 << 48),
    ) {
        let (retain, v5, packet_id) = flags;
        let properties = if v5 { &properties[..] } else { &[] };
        let publish =
            MqttPublish { client_id: &client_id, topic: &topic, qos, retain, packet_id, v5, properties, payload: &payload };
        let body = published(&publish, arrival);
        let stored = read(body.clone());
        prop_assert_eq!(stored.mqtt(), Some(publish));
        prop_assert!(stored.to_event().is_ok());
        let parts = split(&body).expect("readable");
        prop_assert_eq!((parts.arrival_ms, parts.packet_id, parts.payload), (arrival, packet_id, &payload[..]));
        read_all(&body);
        let mut without = Vec::new();
        join(&mut without, &Split { packet_id: 0, ..parts });
        let again = read(without);
        prop_assert_eq!(again.mqtt(), Some(MqttPublish { packet_id: 0, ..publish }));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..96)) {
        read_all(&bytes);
    }

    #[test]
    fn a_damaged_body_is_read_or_refused(event in event(), mode in 0..5_u8, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut body = if mode == 4 { stored(&event, Some(ARRIVAL)) } else {
            let (raw, payload, v5) = publish_of(&event, mode);
            published(&MqttPublish { v5, properties: &raw, payload: &payload, ..plain() }, Some(ARRIVAL))
        };
        let at = at.index(body.len());
        if cut { body.truncate(at) } else { body[at] = byte }
        read_all(&body);
    }
}

/// A request made from the stored form is the one made from the event, time to live apart.
fn assert_sent_alike(stored: &StoredEvent) {
    let mut event = stored.to_event().expect("valid");
    let ttl = ttl::take(&mut event);
    for (binary, (headers, data)) in [(false, http::deliver(&event)), (true, http::binary(&event))] {
        let structured = !headers.contains_key("ce-id");
        match http::deliver_stored(stored, binary) {
            Some(found) => assert_eq!(found, (headers, data, ttl), "{event:?}"),
            // What cannot be written down as it stands is made an event first.
            None => assert!(structured || stored.mqtt().is_some() || event.get("datacontenttype").is_some(), "{event:?}"),
        }
    }
}

#[test]
fn a_wrapped_publish_is_sent_from_its_stored_form() {
    assert_sent_alike(&read(published(&plain(), Some(1_700_000_000_000))));
    let stored = read(published(&MqttPublish { client_id: "pump-3", ..plain() }, Some(1_700_000_000_000)));
    assert_sent_alike(&stored);
    assert!(http::deliver_stored(&stored, false).is_some());
}

#[test]
fn a_record_with_a_name_that_is_none_is_not_sent_and_does_no_harm() {
    let event =
        Event::builder().id("1").source("/s").ty("t").attribute("oddextension", Value::from("x")).build().expect("valid");
    let mut body = stored(&event, None);
    let at = body.windows(12).position(|bytes| bytes == b"oddextension").expect("there");
    body[at + 3] = b' ';
    let stored = read(body);
    assert!(http::deliver_stored(&stored, false).is_none() && stored.to_event().is_err());
}

proptest! {
    #[test]
    fn what_is_sent_from_the_stored_form_is_what_the_event_would_be_sent_as(
        event in event(), left in prop::option::of(1..300_i32), arrival in prop::option::of(0..1_u64 << 43), mode in 0..4_u8,
    ) {
        let mut marked = event.clone();
        if let Some(left) = left {
            marked.set(ttl::TTL, Value::Integer(left)).expect("valid");
        }
        assert_sent_alike(&read(stored(&marked, arrival)));
        let (raw, payload, v5) = publish_of(&event, mode);
        assert_sent_alike(&read(published(&MqttPublish { v5, properties: &raw, payload: &payload, ..plain() }, arrival)));
    }
}
