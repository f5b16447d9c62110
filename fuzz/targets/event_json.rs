//! JSON events and batches: what is read is written and read again the same, the data byte for byte.
#![no_main]

use bytes::Bytes;
use godwit_mesh::event::{Limits, json};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let body = Bytes::copy_from_slice(input);
    let limits = Limits { max_attributes: 16, max_batch: 8 };
    if let Ok(event) = json::decode(&body, &limits) {
        let again = json::decode(&json::encode(&event).into(), &Limits::default()).expect("what was valid stays so");
        assert_eq!((again.id(), again.source(), again.ty()), (event.id(), event.source(), event.ty()));
        assert_eq!(again.data(), event.data());
    }
    if let Ok(events) = json::decode_batch(&body, &limits) {
        let again = json::decode_batch(&json::encode_batch(&events).into(), &Limits::default());
        assert_eq!(again.map(|again| again.len()), Ok(events.len()));
    }
});
