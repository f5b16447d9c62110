//! The credentials file, as `godwit passwd` reads it: every line is taken or named in the error.
#![no_main]

use godwit_mesh::door::CredentialsFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let path = std::env::temp_dir().join(format!("godwit-fuzz-{}-credentials", std::process::id()));
    std::fs::write(&path, input).expect("a file can be written");
    if let Ok(file) = CredentialsFile::open(&path) {
        assert!(file.entries().iter().all(|entry| !entry.user.is_empty()));
    }
});
