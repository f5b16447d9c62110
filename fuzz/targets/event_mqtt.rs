//! Publishes: a byte of flags, a byte of length, as many bytes of MQTT 5 properties, the payload. Whatever they are, the stored form
//! is a valid event and gives the publish back unaltered.
#![no_main]

use bytes::Bytes;
use godwit_mesh::event::{MqttPublish, StoredEvent, encode_publish, join, split};
use godwit_mesh::journal::{Epoch, Offset};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [flags, length, rest @ ..] = input else { return };
    let (properties, payload) = rest.split_at(usize::from(*length).min(rest.len()));
    let v5 = flags & 1 != 0;
    let publish = MqttPublish {
        client_id: "a client",
        topic: "a/topic",
        qos: (flags >> 1) % 3,
        retain: flags & 8 != 0,
        packet_id: u16::from(flags & 16),
        v5,
        properties: if v5 { properties } else { &[] },
        payload,
    };
    let mut body = Vec::new();
    encode_publish(&mut body, &publish, (flags & 32 != 0).then_some(1_767_225_600_000));
    let parts = split(&body).expect("what was written can be read");
    let mut again = Vec::new();
    join(&mut again, &parts);
    assert_eq!(again, body);
    let stored = StoredEvent::new(Bytes::from(body), Epoch(1), Offset(1), None).expect("what was written can be read");
    assert_eq!(stored.mqtt(), Some(publish));
    let event = stored.to_event().expect("a publish is a valid event");
    let mut scratch = String::new();
    for (name, value) in event.attributes() {
        assert_eq!(stored.attribute_text(name, &mut scratch), Some(&*value.to_text()), "{name}");
    }
    assert_eq!(stored.data().as_ref(), event.data());
});
