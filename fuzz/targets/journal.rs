//! A journal whose segment was changed behind its back: recovery never fails and never panics, and what it serves it can read.
//! The input is a row of changes, four bytes each: place (u16), what to do, a byte.
#![no_main]

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use godwit_mesh::journal::{Journal, Log, OpenError, Options};
use godwit_mesh::storage::Disk;
use libfuzzer_sys::fuzz_target;

/// A folder of this process, in memory where the system has such a place.
fn root(name: &str) -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
    parent.join(format!("godwit-fuzz-{}-{name}", std::process::id()))
}

fn disk(name: &str) -> Arc<Disk> {
    Arc::new(Disk::new(&root(name)).expect("a folder can be made"))
}

fn options() -> Options {
    Options { segment_bytes: 16 << 10, max_bytes: 64 << 10, ..Options::default() }
}

/// Wakes the thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}

/// The name and content of a sound segment with a few batches.
fn sound() -> &'static (String, Vec<u8>) {
    static SOUND: OnceLock<(String, Vec<u8>)> = OnceLock::new();
    SOUND.get_or_init(|| {
        let journal = Journal::open(disk("sound"), "journal", options()).expect("a new journal opens");
        for n in 0..8_u8 {
            let receipt = journal.append(|append| {
                append.event(|out| out.extend_from_slice(&[n; 40]));
                append.event_with_fact(b"q1", &[n], |out| out.extend_from_slice(&[n; 9]));
                append.put(b"p1", &[n; 4]);
            });
            wait(receipt.expect("there is room")).expect("durable");
        }
        let entries = std::fs::read_dir(root("sound").join("journal")).expect("readable");
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let name = names.filter(|name| name.starts_with("seg-")).max().expect("a segment");
        let bytes = std::fs::read(root("sound").join("journal").join(&name)).expect("readable");
        (name, bytes)
    })
}

fuzz_target!(|input: &[u8]| {
    let (name, bytes) = sound();
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
    let folder = root("run").join("journal");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    std::fs::write(folder.join(name), &bytes).expect("writable");
    // Twice: what the first recovery left must do for the next.
    for _ in 0..2 {
        match Log::open(disk("run"), "journal", options()) {
            // A journal of a later version is left alone, not recovered.
            Ok(_) | Err(OpenError::Version { .. }) => {}
            Err(error) => panic!("damage is never an error: {error}"),
        }
    }
});
