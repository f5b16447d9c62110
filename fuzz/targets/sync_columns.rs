//! Bodies of events in columns: never more memory than allowed, never a panic.
#![no_main]

use godwit_mesh::sync::columns;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [count, rest @ ..] = input else { return };
    let mut arrival = 0;
    if let Ok(bodies) = columns::decode(rest, usize::from(*count), &mut arrival, 2048) {
        assert!(bodies.total_bytes() <= 2048, "the limit holds");
    }
});
