//! A stream from a peer: chunks, decompression, frames; and a frame alone.
#![no_main]

use godwit_mesh::sync::{Chunks, Decoder, Frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(frame) = Frame::from_agent(input) {
        assert!(Frame::from_agent(&frame.to_vec()).is_ok(), "what was valid stays so");
    }
    if let Ok(frame) = Frame::from_gateway(input) {
        assert!(Frame::from_gateway(&frame.to_vec()).is_ok(), "what was valid stays so");
    }
    let mut chunks = Chunks::new(1 << 16);
    let mut decoder = Decoder::new(16, 1 << 16);
    for piece in input.chunks(7) {
        chunks.push(piece);
        while let Ok(Some((kind, bytes))) = chunks.next() {
            let Ok(Some(frame)) = decoder.open(kind, &bytes) else { return };
            let _ = (Frame::from_agent(&frame), Frame::from_gateway(&frame));
        }
    }
});
