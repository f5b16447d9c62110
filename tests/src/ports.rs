//! Free ports that stay free: below the range from which the system takes ports for outgoing connections, so that none is taken
//! while a killed process is about to come back to it.

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port on which nothing listens, given once in this process.
///
/// # Panics
/// When none can be found.
pub fn free() -> u16 {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_with(HashSet::new);
    for _ in 0..1000 {
        let mut bytes = [0; 2];
        getrandom::fill(&mut bytes).expect("the system has random bytes");
        let port = 12_000 + u16::from_le_bytes(bytes) % 20_000;
        if !given.contains(&port) && TcpListener::bind(("0.0.0.0", port)).is_ok() {
            given.insert(port);
            return port;
        }
    }
    panic!("no free port in a thousand tries");
}
