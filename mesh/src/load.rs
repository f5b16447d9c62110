//! What this process has done, told by who does it and waited for by who clears up behind it.
//!
//! A timer that looks whether there is work would wake an idle board for ever. So each commit says how much it wrote, and whoever
//! waits ([`crate::process`], to give memory back when a load ends) sleeps until that has become much.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// What counts as much, in bytes: some thousand events.
const MUCH_BYTES: usize = 4 << 20;

/// Wraps around.
static DONE_BYTES: AtomicUsize = AtomicUsize::new(0);
static MUCH: Notify = Notify::const_new();

/// So many bytes of events have been committed.
pub(crate) fn committed(bytes: usize) {
    let before = DONE_BYTES.fetch_add(bytes, Ordering::Relaxed);
    if before / MUCH_BYTES != before.wrapping_add(bytes) / MUCH_BYTES {
        MUCH.notify_one();
    }
}

/// Bytes committed so far; only differences mean anything, and they wrap around.
pub(crate) fn done_bytes() -> usize {
    DONE_BYTES.load(Ordering::Relaxed)
}

/// Waits until much has been committed since it was last waited for. For one waiter.
pub(crate) async fn much() {
    MUCH.notified().await;
}
