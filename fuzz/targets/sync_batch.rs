//! Frames of events one after the other, each a byte of length and as many bytes: what a reader keeps from one to the next.
#![no_main]

use godwit_mesh::sync::{BatchReader, Frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let (mut reader, mut rest) = (BatchReader::new(), input);
    while let [length, after @ ..] = rest {
        let (frame, next) = after.split_at(usize::from(*length).min(after.len()));
        rest = next;
        let Ok(Frame::Events(events)) = Frame::from_agent(frame) else { continue };
        let Ok(batch) = reader.open(&events, 2048) else { return };
        assert!(batch.from <= batch.to && batch.bodies.total_bytes() <= 2048, "{batch:?}");
        for (offset, _) in batch.events() {
            assert!(batch.from <= offset && offset < batch.to, "{batch:?}");
        }
    }
});
