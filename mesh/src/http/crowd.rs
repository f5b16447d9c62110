//! All connections of a listener, and what their unfinished requests hold.
//!
//! A peer that sends half a request and then nothing costs memory for as long as it is waited for, and a place. Neither is
//! taken away while there is enough of both. What is unfinished, the head of a request, a body that is not whole, or over HTTP/2 an
//! answer that the peer does not take, counts with every byte, small or large, HTTP/1.1 or HTTP/2, and with some for what waits for it ([`EACH_BYTES`]); all of it together has its bound.
//! Where one byte more would cross that, and where a newcomer finds all places taken, one connection is closed for it:
//! the one that has been unfinished for longest (or idle, where it is for a place), each [`PACE`] bytes that it sends counting as a
//! millisecond less. So who stalls goes before who sends, and an honest peer, done in a moment, is never the oldest.
//!
//! A connection of HTTP/2 keeps buffers as large as what has come at once, so of those that are idle only so many stay.
//!
//! What has room of its own (`room.rs`) counts there instead, and streams that have no end (an agent's sync) count nowhere.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

use super::Limits;
use super::connection::{Peer, Watch};
use super::metrics::Counter;

/// What the buffers and the task that wait for the rest of a request are counted as; and of a stream of HTTP/2, which has no buffer of
/// its own.
pub(super) const EACH_BYTES: usize = 8 << 10;
pub(super) const EACH_STREAM_BYTES: usize = 4 << 10;

/// Who sends this many bytes in a millisecond does not grow older.
pub(super) const PACE: u64 = 8;

/// The connections of a listener.
#[derive(Debug)]
pub(super) struct Crowd {
    open: Mutex<Vec<Open>>,
    /// Bytes that are held for unfinished requests.
    held: AtomicUsize,
    most: usize,
    most_idle_http2: usize,
    evicted: Counter,
}

/// An open connection.
#[derive(Debug)]
struct Open {
    id: u64,
    peer: Arc<Peer>,
    task: AbortHandle,
}

impl Crowd {
    /// A crowd within these limits.
    pub(super) fn new(limits: &Limits, evicted: Counter) -> Self {
        let (most, most_idle_http2) = (limits.unfinished_bytes, limits.idle_http2);
        Self { open: Mutex::default(), held: AtomicUsize::new(0), most, most_idle_http2, evicted }
    }

    fn open(&self) -> MutexGuard<'_, Vec<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection that `begin` begins, unless there are `most` already and none of them can go.
    pub(super) fn admit(&self, id: u64, peer: Arc<Peer>, most: usize, begin: impl FnOnce() -> AbortHandle) -> bool {
        let mut open = self.open();
        let idle = Watch::idle_http2_since;
        if open.iter().filter(|c| idle(&c.peer.watch).is_some()).count() > self.most_idle_http2
            && let Some(at) = oldest(&open, idle)
        {
            self.evict(&open.swap_remove(at));
        }
        if open.len() >= most {
            let Some(at) = oldest(&open, Watch::unfinished_or_idle_since) else { return false };
            self.evict(&open.swap_remove(at));
        }
        open.push(Open { id, peer, task: begin() });
        true
    }

    /// Takes off a connection that has ended. It is not there any more if it had to go.
    pub(super) fn remove(&self, id: u64) {
        let mut open = self.open();
        if let Some(at) = open.iter().position(|c| c.id == id) {
            let gone = open.swap_remove(at);
            self.forget(&gone.peer);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open().is_empty()
    }

    /// Shows each connection to `look`, and ends those for which it says so.
    pub(super) fn end_where(&self, look: impl Fn(&Peer) -> bool) {
        for connection in self.open().iter().filter(|c| look(&c.peer)) {
            connection.task.abort();
        }
    }

    /// Counts `bytes` more that are held for a peer; others that hold more than their time is worth go if it is too much.
    pub(super) fn hold(&self, peer: &Peer, bytes: usize) {
        if !peer.watch.hold(bytes) {
            return;
        }
        if self.held.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.most {
            return;
        }
        let mut open = self.open();
        while self.held.load(Ordering::Relaxed) > self.most {
            let Some(at) = oldest(&open, Watch::unfinished_since) else { return };
            self.evict(&open.swap_remove(at));
        }
    }

    /// Counts `bytes` fewer.
    pub(super) fn let_go(&self, peer: &Peer, bytes: usize) {
        self.held.fetch_sub(peer.watch.let_go(bytes), Ordering::Relaxed);
    }

    fn forget(&self, peer: &Peer) {
        self.held.fetch_sub(peer.watch.leave(), Ordering::Relaxed);
    }

    fn evict(&self, connection: &Open) {
        tracing::debug!(peer = %connection.peer.addr, "closing an HTTP connection: others need its room");
        self.evicted.add(1);
        self.forget(&connection.peer);
        connection.task.abort();
    }
}

/// Where the connection is of which `since` says the earliest.
fn oldest(open: &[Open], since: impl Fn(&Watch) -> Option<u64>) -> Option<usize> {
    open.iter().enumerate().filter_map(|(at, c)| Some((since(&c.peer.watch)?, at))).min().map(|(_, at)| at)
}

/// What one unfinished request holds, until it is dropped.
#[derive(Debug)]
pub(super) struct Unfinished {
    peer: Arc<Peer>,
    bytes: usize,
}

impl Unfinished {
    /// One that holds nothing yet.
    pub(super) fn new(peer: &Arc<Peer>) -> Self {
        Self { peer: peer.clone(), bytes: 0 }
    }

    /// It holds `bytes` bytes now.
    pub(super) fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes > before {
            self.peer.crowd.hold(&self.peer, bytes - before);
        } else if bytes < before {
            self.peer.crowd.let_go(&self.peer, before - bytes);
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.set(0);
    }
}
