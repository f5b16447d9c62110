//! HTTP messages: lines `name: value`, an empty line, the body. What is read can be delivered and read again.
#![no_main]

use bytes::Bytes;
use godwit_mesh::event::Limits;
use godwit_mesh::event::http::{self as binding, Decoded};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut headers = HeaderMap::new();
    let mut rest = input;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { break };
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let body = Bytes::copy_from_slice(rest);
    let _ = binding::decode_reply(&headers, body.clone(), &Limits::default());
    if let Ok(Decoded::One(event)) = binding::decode(&headers, body, &Limits::default()) {
        let (headers, body) = binding::deliver(&event);
        let Ok(Decoded::One(again)) = binding::decode(&headers, body, &Limits::default()) else {
            panic!("what was valid stays so")
        };
        assert_eq!((again.id(), again.source(), again.ty()), (event.id(), event.source(), event.ty()));
    }
});
