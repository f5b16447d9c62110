//! Manifests in YAML.
#![no_main]

use godwit_mesh::manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = manifest::parse_str("fuzz.yaml", text);
    }
});
