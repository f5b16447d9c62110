//! Bytes per event of a trace, in batches of several sizes: `GODWIT_TRACE=trace.ndjson cargo test -p godwit-mesh --lib
//! sync::measure -- --ignored --nocapture` (one JSON object a line: `t_ms`, `topic`, `payload`).

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{BatchReader, BatchWriter, Chunks, Decoder, Effort, Encoder, Frame};
use crate::event::{MqttPublish, encode_publish};
use crate::journal::{Epoch, Item, Lineage, Offset};

#[derive(Deserialize)]
struct Line<'a> {
    t_ms: u64,
    topic: &'a str,
    #[serde(borrow)]
    payload: &'a RawValue,
}

fn items(text: &str) -> Vec<Item> {
    let lines = text.lines().zip(0u16..).map(|(line, n)| (serde_json::from_str::<Line<'_>>(line).expect("a line"), n));
    lines
        .map(|(line, n)| {
            let payload = line.payload.get().as_bytes();
            let packet_id = n % 60_000 + 1;
            let publish =
                MqttPublish { client_id: "drone", topic: line.topic, qos: 1, packet_id, payload, ..MqttPublish::default() };
            let mut body = Vec::new();
            encode_publish(&mut body, &publish, Some(1_800_000_000_000 + line.t_ms));
            Item::Event { epoch: Epoch(7), offset: Offset(u64::from(n)), body: Bytes::from(body) }
        })
        .collect()
}

#[test]
#[ignore = "prints figures of a trace named by GODWIT_TRACE"]
fn bytes_per_event() {
    let text = std::fs::read_to_string(std::env::var("GODWIT_TRACE").expect("GODWIT_TRACE")).expect("readable");
    let items = items(&text);
    for effort in [Effort::Most, Effort::Middle, Effort::Least] {
        for size in [1, 3, 32, 300, 600] {
            let (mut writer, mut encoder, mut wire) = (BatchWriter::new(0), Encoder::new(16), Vec::new());
            let start = std::time::Instant::now();
            for batch in items.chunks(size) {
                let mut frame = Vec::new();
                writer.frame(batch, &Lineage::default(), false, &mut frame).expect("items");
                encoder.put(&mut wire, &frame, effort).expect("compresses");
            }
            let sent = start.elapsed();
            let (mut reader, mut decoder, mut chunks) =
                (BatchReader::new(), Decoder::new(16, 8 << 20), Chunks::new(8 << 20));
            chunks.push(&wire);
            let mut opened = 0;
            while let Some((kind, chunk)) = chunks.next().expect("chunks") {
                let frame = decoder.open(kind, &chunk).expect("opens").expect("a frame");
                let Frame::Events(events) = Frame::from_agent(&frame).expect("a frame") else { panic!("events") };
                opened += reader.open(&events, 8 << 20).expect("opens").events().count();
            }
            assert_eq!(opened, items.len());
            println!(
                "{effort:?}, {size} a batch: {:.1} B an event; {sent:?} to send, {:?} to open",
                wire.len() as f64 / items.len() as f64,
                start.elapsed() - sent
            );
        }
    }
}
