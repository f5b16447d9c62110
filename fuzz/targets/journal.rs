//! A journal whose segment was changed behind its back: recovery never fails and never panics, and what it serves it can read.
//! The input is a row of changes, four bytes each: place (u16), what to do, a byte.
#![no_main]

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use godwit_mesh::journal::{Batch, Log, Options};
use godwit_mesh::storage::Disk;
use libfuzzer_sys::fuzz_target;

/// A folder of this process, in memory where the system has such a place.
fn root() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
    parent.join(format!("godwit-fuzz-{}", std::process::id()))
}

fn open() -> Log {
    let options = Options { segment_bytes: 16 << 10, max_bytes: 64 << 10, ..Options::default() };
    let disk = Disk::new(&root()).expect("a folder can be made");
    Log::open(Arc::new(disk), "journal", options).expect("damage is never an error")
}

fn segments() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root().join("journal")) else { return Vec::new() };
    let mut found: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seg-")));
    found.sort();
    found
}

/// The name and content of a sound segment with a few batches.
fn sound() -> &'static (PathBuf, Vec<u8>) {
    static SOUND: OnceLock<(PathBuf, Vec<u8>)> = OnceLock::new();
    SOUND.get_or_init(|| {
        let mut log = open();
        for n in 0..8_u8 {
            let mut batch = Batch::default();
            batch.event(|out| out.extend_from_slice(&[n; 40]));
            batch.event_with_fact(b"q1", &[n], |out| out.extend_from_slice(&[n; 9]));
            batch.put(b"p1", &[n; 4]);
            log.commit(&mut batch).expect("there is room");
        }
        drop(log);
        let path = segments().pop().expect("a segment");
        let bytes = std::fs::read(&path).expect("readable");
        (path, bytes)
    })
}

fuzz_target!(|input: &[u8]| {
    let (path, bytes) = sound();
    let mut bytes = bytes.clone();
    for change in input.chunks_exact(4) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % 2048;
        match change[2] % 4 {
            0 if at < bytes.len() => bytes[at] = change[3],
            1 if at < bytes.len() => bytes[at] ^= change[3],
            2 => bytes.truncate(at.max(1)),
            3 if at < bytes.len() => bytes.insert(at, change[3]),
            _ => {}
        }
    }
    std::fs::remove_dir_all(root()).expect("removable");
    std::fs::create_dir_all(root().join("journal")).expect("a folder can be made");
    std::fs::write(path, &bytes).expect("writable");
    let mut log = open();
    let mut batch = Batch::default();
    batch.event(|out| out.extend_from_slice(b"after"));
    log.commit(&mut batch).expect("a recovered journal takes events");
    drop(log);
    drop(open());
});
