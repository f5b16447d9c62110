//! Whether the network has changed: then an attempt is worth making at once.
//!
//! The kernel's tables of routes and addresses are compared once a second while the link is down; they are a few hundred
//! bytes. Where there are none to read (another kernel, a sandbox) nothing ever changes, and the backoff decides alone.

use std::time::Duration;

const EVERY: Duration = Duration::from_secs(1);

const TABLES: [&str; 2] = ["/proc/net/route", "/proc/net/if_inet6"];

/// Resolves when routes or addresses are no longer what they were at the call.
pub(super) async fn changed() {
    let before = tables();
    loop {
        tokio::time::sleep(EVERY).await;
        if tables() != before {
            return;
        }
    }
}

/// Read on the runtime: the kernel makes these up in memory, no disk is waited for.
fn tables() -> [Vec<u8>; 2] {
    TABLES.map(|table| std::fs::read(table).unwrap_or_default())
}
