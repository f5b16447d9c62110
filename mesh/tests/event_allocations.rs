//! The hot path of events allocates nothing: a plain publish is written into a buffer that has room, and attributes are read
//! from the stored form, by filters too. Counted by an allocator, hence a program of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use bytes::Bytes;
use godwit_mesh::event::{Event, MqttPublish, StoredEvent, encode_event, encode_publish, properties, with_origin};
use godwit_mesh::filter::cesql::Expression;
use godwit_mesh::journal::{Epoch, Offset};
use godwit_mesh::names::AgentId;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting for each thread.
struct Counting;

// SAFETY: everything is handed to the system's allocator unchanged; the counter is a plain thread-local number.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

const NAMES: [&str; 11] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "expirytime",
    "knativearrivaltime",
    "godwitagent",
    "n",
];

/// One body of each kind, the last with an origin.
fn bodies() -> Vec<Vec<u8>> {
    let event = Event::builder()
        .id("1")
        .source("/s")
        .ty("t")
        .attribute("n", 7)
        .data("application/json", "{}")
        .build()
        .expect("valid");
    let mut user = Vec::new();
    for (name, value) in [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "t"), ("n", "7")] {
        properties::push_user(&mut user, name, value);
    }
    let structured = br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","n":7,"data":{}}"#;
    let plain = MqttPublish {
        client_id: "a b",
        topic: "t/\u{1}",
        v5: true,
        properties: &[2, 0, 0, 0, 9],
        payload: b"1",
        ..Default::default()
    };
    let arrival = Some(1_767_225_600_250);
    let mut bodies = vec![Vec::new(); 5];
    encode_event(&mut bodies[0], &event, arrival, std::iter::empty());
    encode_publish(&mut bodies[1], &plain, arrival);
    encode_publish(&mut bodies[2], &MqttPublish { properties: &user, ..plain }, arrival);
    encode_publish(&mut bodies[3], &MqttPublish { v5: false, payload: structured, ..plain }, arrival);
    let wrapped = bodies[1].clone();
    with_origin(&mut bodies[4], &wrapped, "boat-9", Epoch(1), Offset(2));
    bodies
}

#[test]
fn reading_attributes_allocates_nothing_once_the_buffer_has_grown() {
    let agent = AgentId::new("boat-7").expect("valid");
    let mut scratch = String::with_capacity(256);
    for body in bodies() {
        let body = Bytes::from(body);
        // Sharing a buffer that was made from a vector allocates its counter, once.
        let shared = body.clone();
        let count = allocations(|| {
            let stored = StoredEvent::new(shared, Epoch(7), Offset(7), &agent).expect("readable");
            for name in NAMES {
                black_box(stored.attribute(name, &mut scratch));
                black_box(stored.attribute_text(name, &mut scratch));
            }
            black_box((stored.data(), stored.mqtt(), stored.arrival_ms()));
        });
        assert_eq!(count, 0);
    }
}

#[test]
fn expressions_allocate_nothing_once_the_buffer_has_grown() {
    let expressions = [
        "type = 'a' AND subject LIKE 'x%'",
        "n + 1 < 100 AND source != id AND n IN (1, 2, 7)",
        "EXISTS time OR missing = 1",
        "LENGTH(CONCAT_WS('/', UPPER(type), n, TRIM(source))) > SUBSTRING('123', 2)",
        "type / 2 = 1",
    ];
    let expressions = expressions.map(|text| Expression::parse(text).expect(text));
    let mut scratch = String::with_capacity(1024);
    for body in bodies() {
        let stored = StoredEvent::new(body.into(), Epoch(7), Offset(7), None).expect("readable");
        for expression in &expressions {
            let count = allocations(|| {
                let _ = black_box(expression.test(&stored, &mut scratch));
            });
            assert_eq!(count, 0, "{expression}");
        }
    }
}

#[test]
fn storing_a_plain_publish_allocates_nothing() {
    const TIMES: u32 = 100;
    let json = format!("{{\"values\":[{}1.10],\"unit\":\"°C\"}}", "12.345, ".repeat(28));
    let readings = "{\"device\":\"pump-3\",\"time\":\"2026-01-01T00:00:00.250Z\",\"flow\":12.345,\"state\":\"running\",\"note\":\"x\"}";
    let readings = readings.replace("\"x\"", &format!("\"{}\"", "all is well with this pump ".repeat(6)));
    let opaque = [0xa5_u8; 256];
    let mut user = Vec::new();
    for (name, value) in [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "t")] {
        properties::push_user(&mut user, name, value);
    }
    let plain = MqttPublish { client_id: "pump-3", topic: "plant/pump/3", qos: 1, packet_id: 7, ..Default::default() };
    let cases = [
        ("256 B, JSON of numbers", MqttPublish { payload: json.as_bytes(), ..plain }),
        ("256 B, JSON of readings", MqttPublish { payload: readings.as_bytes(), ..plain }),
        ("256 B, opaque", MqttPublish { payload: &opaque, ..plain }),
        ("256 B, event in binary mode", MqttPublish { payload: &opaque, v5: true, properties: &user, ..plain }),
    ];
    let mut out = Vec::with_capacity(1 << 12);
    for (name, publish) in cases {
        let count = allocations(|| {
            for _ in 0..TIMES {
                out.clear();
                encode_publish(&mut out, black_box(&publish), Some(1_767_225_600_250));
                black_box(&out);
            }
        });
        assert_eq!(count, 0, "{name}");
    }
}
