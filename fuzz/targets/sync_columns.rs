//! Bodies of events in columns: never more memory than allowed, never a panic.
#![no_main]

use godwit_mesh::sync::columns;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [count, rest @ ..] = input else { return };
    let mut arrival = 0;
    let _ = columns::decode(rest, usize::from(*count), &mut arrival, 1 << 16);
});
