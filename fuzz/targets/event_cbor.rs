//! CBOR events: what is read is written and read again the same.
#![no_main]

use bytes::Bytes;
use godwit_mesh::event::{Limits, cbor};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let limits = Limits { max_attributes: 16, max_batch: 8 };
    if let Ok(event) = cbor::decode(&Bytes::copy_from_slice(input), &limits) {
        let again = cbor::decode(&cbor::encode(&event).into(), &Limits::default()).expect("what was valid stays so");
        assert_eq!((again.id(), again.source(), again.ty()), (event.id(), event.source(), event.ty()));
        assert_eq!(again.data(), event.data());
    }
});
