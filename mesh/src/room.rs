//! Room for what is large and comes in pieces, an HTTP body or an MQTT packet: what all peers of a listener may hold at once.
//!
//! What is small needs no leave. What is larger takes room for all of itself once more than the small part is here, and keeps it
//! until it has been dealt with, so that memory stays bounded whatever the number of peers, and whoever has room can always finish.
//!
//! Peers that send slowly on purpose must not keep the others out. To stand in line a peer has to have sent something, and while
//! others wait, whoever has room must be on course to be done within two seconds; who is not gives it up, after a tenth of a second
//! if nothing comes at all. So the line moves: with all of the room in the hands of a crowd that stalls, whoever waits behind `n`
//! bytes of theirs has room after `n / room` turns of 0.1 to 0.2 s.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How long something may take to come once it has room and others wait for it.
const STAY: Duration = Duration::from_secs(2);

/// How long nothing may come meanwhile: what a peer that waited has sent ahead is here at once.
const GRACE: Duration = Duration::from_millis(100);

/// How often who has room looks whether it must give it up.
pub const LOOK: Duration = Duration::from_millis(100);

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
    bytes: usize,
    arrived: AtomicUsize,
}

impl Held {
    fn new(permit: OwnedSemaphorePermit, bytes: usize) -> Self {
        Self { _permit: permit, since: Instant::now(), bytes, arrived: AtomicUsize::new(0) }
    }

    /// Notes that so many bytes of what it is for have come.
    pub fn arrived(&self, bytes: usize) {
        self.arrived.fetch_add(bytes, Ordering::Relaxed);
    }
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
        Some(Held::new(permit, bytes))
    }

    /// Waits for room, in the order of those who ask. `None` once `patience` is at its end.
    pub async fn take(&self, bytes: usize, patience: Duration) -> Option<Held> {
        if let Some(held) = self.try_take(bytes) {
            return Some(held);
        }
        let _waiting = Waiting::begin(&self.waiting);
        let permit = self.free.clone().acquire_many_owned(self.at_most(bytes));
        let permit = tokio::time::timeout(patience, permit).await.ok()?.ok()?;
        Some(Held::new(permit, bytes))
    }

    /// Something larger than the whole room gets all of it.
    fn at_most(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.most)
    }

    /// Whether who has this room, and is not done, must give it up.
    #[must_use]
    pub fn is_over(&self, held: &Held) -> bool {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return false;
        }
        // Of all its bytes, the part that should be here by now.
        let late = held.since.elapsed().saturating_sub(GRACE).as_millis();
        let arrived = held.arrived.load(Ordering::Relaxed);
        arrived as u128 * STAY.as_millis() < held.bytes as u128 * late
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
    async fn who_has_room_may_keep_it_until_others_wait() {
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
    async fn while_others_wait_one_must_be_on_course_to_be_done_in_time() {
        let room = Room::new(100);
        let held = room.try_take(100).expect("room");
        let mut waiting = std::pin::pin!(room.take(30, STAY * 10));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        tokio::time::advance(GRACE).await;
        assert!(!room.is_over(&held), "what it sent ahead may be on its way to us");
        held.arrived(50);
        tokio::time::advance(STAY / 2).await;
        assert!(!room.is_over(&held), "half of the bytes in half of the time");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(room.is_over(&held));
        held.arrived(49);
        tokio::time::advance(STAY / 2).await;
        assert!(room.is_over(&held), "at the end only all of it will do");
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_that_stalls_and_comes_back_for_ever_does_not_keep_an_honest_one_out() {
        const CROWD: u32 = 1000;
        let room = Arc::new(Room::new(8 << 20));
        for _ in 0..CROWD {
            let room = room.clone();
            tokio::spawn(async move {
                while let Some(held) = room.take(1 << 20, Duration::MAX).await {
                    held.arrived(16 << 10);
                    while !room.is_over(&held) {
                        tokio::time::sleep(LOOK).await;
                    }
                }
            });
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        let begun = Instant::now();
        let held = room.take(1 << 20, Duration::MAX).await.expect("its turn comes");
        assert!(begun.elapsed() <= CROWD / 8 * (GRACE + LOOK) + LOOK, "{:?}", begun.elapsed());
        held.arrived(1 << 20);
        assert!(!room.is_over(&held));
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
