//! De-duplication by `source` and `id` (D7), where a Broker has it switched on (`godwit.dev/deduplication-window`).
//!
//! The journal is the durable truth: at the first event after a start, or after the window was changed, the table is made from the
//! journal's tail, as far back as the window and [`MOST`] events. An event is known once it is durable, and only then is another of its name
//! acknowledged without being stored; who comes while the first is on its way waits for what becomes of it.
//!
//! The table holds a keyed 64-bit hash for each event, the last [`MOST`] of them (1.6 MB): beyond that the oldest are forgotten before
//! their time, and counted.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OnceCell};

use crate::clock::Clock;
use crate::event::{Event, StoredEvent};
use crate::journal::{Item, Journal, Offset, ReadError};
use crate::names::AgentId;

/// Most events remembered.
pub(crate) const MOST: usize = 32 << 10;

/// Bytes of the journal read at once while the table is made.
const PIECE_BYTES: usize = 64 << 10;

/// The events that a Broker has had in its window.
#[derive(Debug)]
pub(crate) struct Deduplication {
    window_ms: i64,
    hasher: RandomState,
    table: Mutex<Table>,
    made: OnceCell<()>,
    /// Something that was on its way is durable now, or refused.
    changed: Notify,
    /// Duplicates that were acknowledged and not stored, since the start.
    found: AtomicU64,
    /// Events forgotten before their time, since the start.
    forgotten: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    /// Whether the event is durable, else on its way.
    known: HashMap<u64, bool>,
    /// Durable ones in the order in which they came, with their time.
    order: VecDeque<(u64, i64)>,
}

/// Events that are about to be stored; those that were not stored after all are forgotten when this goes.
#[derive(Debug)]
pub(crate) struct Claim {
    deduplication: Arc<Deduplication>,
    fresh: Vec<u64>,
    /// For each event, whether it is to be stored.
    pub(crate) wanted: Vec<bool>,
    kept: bool,
}

impl Deduplication {
    pub(super) fn new(window_ms: u64) -> Self {
        Self {
            window_ms: i64::try_from(window_ms).unwrap_or(i64::MAX),
            hasher: RandomState::new(),
            table: Mutex::default(),
            made: OnceCell::new(),
            changed: Notify::new(),
            found: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
        }
    }

    pub(super) fn window_ms(&self) -> u64 {
        u64::try_from(self.window_ms).unwrap_or(0)
    }

    /// Duplicates that were acknowledged and not stored, and events forgotten before their time, since it was switched on.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.found.load(Ordering::Relaxed), self.forgotten.load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hash(&self, source: &str, id: &str) -> u64 {
        self.hasher.hash_one((source, id))
    }

    /// Says which of the events are to be stored, once that can be said.
    ///
    /// # Errors
    /// When the journal's tail cannot be read.
    pub(crate) async fn claim(
        self: &Arc<Self>,
        journal: &Journal,
        agent: Option<&AgentId>,
        clock: &Clock,
        events: &[Event],
    ) -> Result<Claim, ReadError> {
        self.made.get_or_try_init(|| self.make(journal, agent, clock)).await?;
        let hashes: Vec<u64> = events.iter().map(|event| self.hash(event.source(), event.id())).collect();
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(claim) = self.try_claim(&hashes, now(clock)) {
                return Ok(claim);
            }
            changed.await;
        }
    }

    /// All at once or nothing: nobody holds some and waits for others.
    fn try_claim(self: &Arc<Self>, hashes: &[u64], now_ms: i64) -> Option<Claim> {
        let mut table = self.lock();
        table.forget_before(now_ms.saturating_sub(self.window_ms));
        if hashes.iter().any(|hash| table.known.get(hash) == Some(&false)) {
            return None;
        }
        let mut fresh = Vec::new();
        let wanted: Vec<bool> = hashes
            .iter()
            .map(|hash| {
                let first = !table.known.contains_key(hash);
                if first {
                    table.known.insert(*hash, false);
                    fresh.push(*hash);
                }
                first
            })
            .collect();
        Some(Claim { deduplication: Arc::clone(self), fresh, wanted, kept: false })
    }

    /// Makes the table from the journal's tail.
    async fn make(&self, journal: &Journal, agent: Option<&AgentId>, clock: &Clock) -> Result<(), ReadError> {
        let until = journal.next_offset();
        let from = Offset(until.0.saturating_sub(MOST as u64)).max(journal.first_offset());
        let mut reader = journal.reader(from);
        let (now, wall) = (now(clock), clock.wall_ms());
        let mut scratch = String::new();
        while reader.position() < until {
            let items = reader.try_next(PIECE_BYTES).await?;
            if items.is_empty() {
                break;
            }
            let mut table = self.lock();
            for item in items {
                let Item::Event { epoch, offset, body } = item else { continue };
                let Ok(stored) = StoredEvent::new(body, epoch, offset, agent) else { continue };
                // Where one of the two times is not known it may have come just now.
                let age = wall.zip(stored.arrival_ms()).map_or(0, |(wall, came)| wall.saturating_sub(came));
                let came = now.saturating_sub(i64::try_from(age).unwrap_or(i64::MAX));
                if now.saturating_sub(came) > self.window_ms {
                    continue;
                }
                let Some(source) = stored.attribute_text("source", &mut scratch).map(str::to_owned) else { continue };
                let Some(id) = stored.attribute_text("id", &mut scratch) else { continue };
                table.remember(self.hash(&source, id), came);
            }
        }
        Ok(())
    }
}

impl Table {
    fn remember(&mut self, hash: u64, at_ms: i64) {
        self.known.insert(hash, true);
        self.order.push_back((hash, at_ms));
    }

    fn forget_before(&mut self, ms: i64) {
        while self.order.front().is_some_and(|(_, at)| *at < ms) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((hash, _)) = self.order.pop_front() {
            self.known.remove(&hash);
        }
    }
}

impl Claim {
    /// The events are durable: from now on others of their names are duplicates.
    pub(crate) fn stored(mut self, clock: &Clock) {
        let now = now(clock);
        {
            let mut table = self.deduplication.lock();
            for hash in &self.fresh {
                table.remember(*hash, now);
                if table.order.len() > MOST {
                    table.forget_oldest();
                    self.deduplication.forgotten.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        let duplicates = (self.wanted.len() - self.fresh.len()) as u64;
        self.deduplication.found.fetch_add(duplicates, Ordering::Relaxed);
        self.kept = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.kept {
            let mut table = self.deduplication.lock();
            for hash in &self.fresh {
                table.known.remove(hash);
            }
        }
        self.deduplication.changed.notify_waiters();
    }
}

/// The elapsed time; what came before the start has less.
fn now(clock: &Clock) -> i64 {
    i64::try_from(clock.elapsed_ms()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(all: &Arc<Deduplication>, ids: &[u64], now: i64) -> Option<Claim> {
        all.try_claim(ids, now)
    }

    #[test]
    fn what_is_durable_is_known_for_the_window_and_what_was_refused_is_not() {
        let clock = Clock::manual(0);
        let all = Arc::new(Deduplication::new(1000));
        let first = claim(&all, &[1, 2, 1], 0).expect("free");
        assert_eq!(first.wanted, [true, true, false], "once in a batch");
        assert!(claim(&all, &[2], 0).is_none(), "on its way: wait");
        drop(first);
        let again = claim(&all, &[1, 2], 0).expect("the first was refused");
        assert_eq!(again.wanted, [true, true]);
        again.stored(&clock);
        assert_eq!(claim(&all, &[1, 3], 1000).expect("known").wanted, [false, true]);
        assert_eq!(claim(&all, &[1], 1001).expect("the window is over").wanted, [true]);
    }

    #[test]
    fn the_oldest_are_forgotten_and_counted() {
        let clock = Clock::manual(0);
        let all = Arc::new(Deduplication::new(u64::MAX));
        let ids: Vec<u64> = (0..MOST as u64 + 10).collect();
        claim(&all, &ids, 0).expect("free").stored(&clock);
        assert_eq!(all.forgotten.load(Ordering::Relaxed), 10);
        assert_eq!(claim(&all, &[9, 10], 0).expect("free").wanted, [true, false]);
        assert!(all.lock().known.len() <= MOST + 1);
    }
}
