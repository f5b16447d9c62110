//! Stored bodies from a damaged disk or a hostile agent: read or refused, never a panic.
#![no_main]

use bytes::Bytes;
use godwit_mesh::event::{StoredEvent, encode_event, join, split, with_origin};
use godwit_mesh::journal::{Epoch, Offset};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(parts) = split(input) {
        let (mut again, mut with) = (Vec::new(), Vec::new());
        join(&mut again, &parts);
        assert_eq!(again, input);
        with_origin(&mut with, input, "agent", Epoch(1), Offset(2));
        let stored = StoredEvent::new(with.into(), Epoch(3), Offset(4), None).expect("what can be split has an origin put to it");
        assert_eq!(stored.origin().map(|origin| origin.agent), Some("agent"));
    }
    let Ok(stored) = StoredEvent::new(Bytes::copy_from_slice(input), Epoch(1), Offset(1), None) else { return };
    let mut scratch = String::new();
    for name in ["id", "source", "type", "subject", "time", "datacontenttype", "expirytime", "godwitagent", "x"] {
        let _ = stored.attribute_text(name, &mut scratch);
    }
    let _ = (stored.mqtt(), stored.data(), stored.headers().count());
    if let Ok(event) = stored.to_event() {
        let mut body = Vec::new();
        encode_event(&mut body, &event, stored.arrival_ms(), stored.headers());
        let again = StoredEvent::new(body.into(), Epoch(1), Offset(1), None).expect("what was written can be read");
        assert_eq!(again.to_event().map(|again| again.data().cloned()), Ok(event.data().cloned()));
    }
});
