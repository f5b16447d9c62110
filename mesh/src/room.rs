//! Room for what is large and comes in pieces, an HTTP body or an MQTT packet: what all peers of a listener may hold at once.
//!
//! What is small needs no leave. What is larger takes room for all of itself before it is read on, and keeps it until it has
//! been dealt with, so that memory stays bounded whatever the number of peers, and whoever has room can always finish. While
//! others wait for room, whoever has had their time and is still not done gives it up: a peer that sends slowly on purpose
//! holds up what is large for seconds, and what is small not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How long something may take to come once it has room and others wait for it.
const STAY: Duration = Duration::from_secs(2);

/// How often who has room looks whether others wait.
pub const LOOK: Duration = Duration::from_millis(500);

/// The room of one listener.
#[derive(Debug)]
pub struct Room {
    free: Arc<Semaphore>,
    most: u32,
    waiting: AtomicUsize,
}

/// Room that somebody has; given back when dropped.
#[derive(Debug)]
pub struct Held {
    _permit: OwnedSemaphorePermit,
    since: Instant,
}

impl Room {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let most = u32::try_from(bytes).unwrap_or(u32::MAX);
        Self { free: Arc::new(Semaphore::new(most as usize)), most, waiting: AtomicUsize::new(0) }
    }

    /// Takes room if there is some.
    #[must_use]
    pub fn try_take(&self, bytes: usize) -> Option<Held> {
        let permit = self.free.clone().try_acquire_many_owned(self.at_most(bytes)).ok()?;
        Some(Held { _permit: permit, since: Instant::now() })
    }

    /// Waits for room, in the order of those who ask. `None` once `patience` is at its end.
    pub async fn take(&self, bytes: usize, patience: Duration) -> Option<Held> {
        if let Some(held) = self.try_take(bytes) {
            return Some(held);
        }
        let _waiting = Waiting::begin(&self.waiting);
        let permit = self.free.clone().acquire_many_owned(self.at_most(bytes));
        let permit = tokio::time::timeout(patience, permit).await.ok()?.ok()?;
        Some(Held { _permit: permit, since: Instant::now() })
    }

    /// Something larger than the whole room gets all of it.
    fn at_most(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.most)
    }

    /// Whether who has this room, and is not done, must give it up.
    #[must_use]
    pub fn is_over(&self, held: &Held) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0 && held.since.elapsed() > STAY
    }
}

/// Somebody who waits for room, until dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_has_room_may_keep_it_until_others_have_waited() {
        let room = Room::new(100);
        let held = room.try_take(80).expect("room");
        assert!(room.try_take(30).is_none());
        tokio::time::advance(STAY * 2).await;
        assert!(!room.is_over(&held), "nobody waits");
        let mut waiting = std::pin::pin!(room.take(30, STAY * 10));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        assert!(room.is_over(&held));
        drop(held);
        assert!(waiting.await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_and_what_is_larger_than_all_room_gets_all_of_it() {
        let room = Room::new(100);
        let all = room.try_take(1000).expect("room");
        assert!(room.take(1, STAY).await.is_none());
        drop(all);
        assert!(room.take(1, STAY).await.is_some());
    }
}
