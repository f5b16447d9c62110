//! Frames of version 1 as they were first written: what is in `vectors/` must be read for ever, and written the same while the
//! version is 1. A change that breaks this test breaks agents in the field.

use std::collections::BTreeMap;

use super::frame::{Answer, Events, Frame, GoOn, Goodbye, Hello, Objects, Offer, Report, Standing, Welcome};

pub(super) fn frames() -> Vec<(&'static str, &'static str, Frame<'static>)> {
    let standing = || Standing {
        index: 0,
        name: "default/default".to_owned(),
        lineage: vec![(0x1122_3344_5566_7788, 0), (0xffee_ddcc_bbaa_9988, 4_711)],
        first: 100,
        next: 5_000,
        cursor: 4_900,
    };
    let hello = Hello {
        version: 1,
        oldest_version: 1,
        heartbeat_ms: 30_000,
        window_log: 16,
        brokers: vec![standing()],
        labels: BTreeMap::from([("site".to_owned(), "north".to_owned())]),
        software: "godwit-agent 0.1.0".to_owned(),
        finite: true,
    };
    let first = Events {
        broker: 0,
        count: Some(2),
        columns: &[1, 2, 3],
        epoch: Some(0xffee_ddcc_bbaa_9988),
        from: Some(4_900),
        arrival: Some(0),
        skips: vec![(1, 3, 1)],
        urgent: true,
    };
    let welcome = Welcome {
        version: 1,
        heartbeat_ms: 30_000,
        window_log: 17,
        max_frame_bytes: 8 << 20,
        brokers: vec![GoOn { index: 0, next: 4_900, credit: 1 << 20, ..GoOn::default() }],
        software: "godwit-gateway 0.1.0".to_owned(),
    };
    let answer = Answer {
        positions: vec![(0, 4_905)],
        refused: vec![(0, 4_901, "no type".to_owned())],
        credit: vec![(0, 0)],
        brokers: vec![GoOn { index: 1, next: 0, credit: 0, refused: "too many brokers".to_owned(), ..GoOn::default() }],
    };
    vec![
        ("hello", include_str!("vectors/hello.hex"), Frame::Hello(hello)),
        ("offer", include_str!("vectors/offer.hex"), Frame::Offer(Offer { brokers: vec![standing()] })),
        ("events-first", include_str!("vectors/events-first.hex"), Frame::Events(first)),
        (
            "events-next",
            include_str!("vectors/events-next.hex"),
            Frame::Events(Events { columns: &[9, 8, 7], ..Events::default() }),
        ),
        (
            "report",
            include_str!("vectors/report.hex"),
            Frame::Report(Report { revision: 7, ready: true, refused: 8, error: "t: no broker".to_owned() }),
        ),
        ("welcome", include_str!("vectors/welcome.hex"), Frame::Welcome(welcome)),
        ("answer", include_str!("vectors/answer.hex"), Frame::Answer(answer)),
        (
            "goodbye",
            include_str!("vectors/goodbye.hex"),
            Frame::Goodbye(Goodbye { code: Goodbye::FORK, message: "another".to_owned() }),
        ),
        ("objects", include_str!("vectors/objects.hex"), Frame::Objects(Objects { revision: 7, set: "[]".to_owned() })),
    ]
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("two hex digits"))
        .collect()
}

#[test]
fn frames_of_version_1_are_read_and_written_as_ever() {
    for (name, hex, frame) in frames() {
        let written: String = frame.to_vec().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex.trim(), written, "{name}");
        let bytes = bytes(hex);
        let read = [Frame::from_agent(&bytes), Frame::from_gateway(&bytes)];
        assert!(read.into_iter().flatten().any(|read| read == frame), "{name}");
    }
}

/// Bodies in columns, and the bodies.
#[test]
fn columns_of_version_1_are_read_as_ever() {
    let bodies: [&[u8]; 3] =
        [b"M\x01\x02\x03\x04\x05\x06a/b|{\"v\":1.50}", b"M\x02\x02\x03\x04\x05\x06a/c|{\"v\":1.25}", b"x"];
    let columns = bytes(include_str!("vectors/columns.hex"));
    let opened = super::columns::decode(&columns, bodies.len(), &mut 0, 1000).expect("opens");
    for (i, body) in bodies.iter().enumerate() {
        assert_eq!(opened.get(i).expect("there"), *body);
    }
    let mut written = Vec::new();
    super::columns::encode(bodies.iter().map(|body| body.split_at(body.len().min(11))), &mut 0, &mut written);
    assert_eq!(written, columns);
}

/// Two frames of one context as chunks, whatever a later zstd would make of them.
#[test]
fn a_compressed_stream_of_version_1_is_read_as_ever() {
    let mut chunks = super::Chunks::new(1000);
    chunks.push(&bytes(include_str!("vectors/stream.hex")));
    let mut decoder = super::Decoder::new(15, 1000);
    let mut frames = Vec::new();
    while let Some((kind, chunk)) = chunks.next().expect("chunks") {
        frames.extend(decoder.open(kind, &chunk).expect("opens"));
    }
    assert_eq!(frames, [&b"first frame, first frame"[..], b"second frame, first frame"]);
}
