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
use crate::journal::{Item, Offset, ReadError};

use super::Broker;

/// Most events remembered.
pub(crate) const MOST: usize = 32 << 10;

/// Bytes of the journal read at once while the table is made.
const PIECE_BYTES: usize = 64 << 10;

/// The events that a Broker has had in its window.
#[derive(Debug)]
pub struct Deduplication {
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

/// An event's `source` and `id`, as they are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name(u64);

/// Events that are about to be stored; those that were not stored after all are forgotten when this goes.
#[derive(Debug)]
pub struct Claim {
    deduplication: Arc<Deduplication>,
    fresh: Vec<u64>,
    /// For each event, whether it is to be stored.
    pub wanted: Vec<bool>,
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

    fn stored_name(&self, stored: &StoredEvent) -> Option<Name> {
        let (mut source, mut id) = (String::new(), String::new());
        Some(Name(self.hash(stored.attribute_text("source", &mut source)?, stored.attribute_text("id", &mut id)?)))
    }

    /// The name of an event in its stored form. A publish that came as no event has none: its `id` is made of where it is stored,
    /// so there is no other of it.
    #[must_use]
    pub fn name_of(&self, stored: &StoredEvent) -> Option<Name> {
        if stored.came_as_event() { self.stored_name(stored) } else { None }
    }

    /// Says which of the events are to be stored, once that can be said.
    ///
    /// # Errors
    /// When the journal's tail cannot be read.
    pub(crate) async fn claim(
        self: &Arc<Self>,
        broker: &Broker,
        clock: &Clock,
        events: &[Event],
    ) -> Result<Claim, ReadError> {
        let names: Vec<Option<Name>> =
            events.iter().map(|event| Some(Name(self.hash(event.source(), event.id())))).collect();
        loop {
            self.until_decided(broker, clock, &names).await?;
            if let Some(claim) = self.claim_now(clock, &names) {
                return Ok(claim);
            }
        }
    }

    /// Says which of the events are to be stored, in the order of their names; one without a name always is. `None` where that
    /// cannot be said yet: [`Deduplication::until_decided`] waits for it.
    #[must_use]
    pub fn claim_now(self: &Arc<Self>, clock: &Clock, names: &[Option<Name>]) -> Option<Claim> {
        if self.made.initialized() { self.try_claim(names, now(clock)) } else { None }
    }

    /// Waits until the table is made and none of these is on its way any more. Another may be first to claim them after that.
    ///
    /// # Errors
    /// When the journal's tail cannot be read.
    pub async fn until_decided(&self, broker: &Broker, clock: &Clock, names: &[Option<Name>]) -> Result<(), ReadError> {
        self.made.get_or_try_init(|| self.make(broker, clock)).await?;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if !self.lock().is_on_its_way(names) {
                return Ok(());
            }
            changed.await;
        }
    }

    /// All at once or nothing: nobody holds some and waits for others.
    fn try_claim(self: &Arc<Self>, names: &[Option<Name>], now_ms: i64) -> Option<Claim> {
        let mut table = self.lock();
        table.forget_before(now_ms.saturating_sub(self.window_ms));
        if table.is_on_its_way(names) {
            return None;
        }
        let mut fresh = Vec::new();
        let wanted: Vec<bool> = names
            .iter()
            .map(|name| {
                let Some(Name(hash)) = name else { return true };
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
    async fn make(&self, broker: &Broker, clock: &Clock) -> Result<(), ReadError> {
        // Who began to make it may have been given up half-way.
        *self.lock() = Table::default();
        let journal = broker.journal();
        let until = journal.next_offset();
        let from = Offset(until.0.saturating_sub(MOST as u64)).max(journal.first_offset());
        let mut reader = journal.reader(from);
        let (now, wall) = (now(clock), clock.wall_ms());
        while reader.position() < until {
            let items = reader.try_next(PIECE_BYTES).await?;
            if items.is_empty() {
                break;
            }
            let mut table = self.lock();
            for item in items {
                let Item::Event { epoch, offset, body } = item else { continue };
                let Ok(stored) = StoredEvent::new(body, epoch, offset, broker.agent()) else { continue };
                // Where one of the two times is not known it may have come just now.
                let age = wall.zip(stored.arrival_ms()).map_or(0, |(wall, came)| wall.saturating_sub(came));
                let came = now.saturating_sub(i64::try_from(age).unwrap_or(i64::MAX));
                if now.saturating_sub(came) > self.window_ms {
                    continue;
                }
                if let Some(Name(hash)) = self.stored_name(&stored) {
                    table.remember(hash, came);
                }
            }
        }
        Ok(())
    }
}

impl Broker {
    /// Which of the events are to be stored, where the Broker de-duplicates; none: all of them.
    ///
    /// # Errors
    /// When the journal's tail cannot be read.
    pub(crate) async fn claim(&self, clock: &Clock, events: &[Event]) -> Result<Option<Claim>, ReadError> {
        match self.deduplication() {
            Some(known) if !events.is_empty() => known.claim(self, clock, events).await.map(Some),
            _ => Ok(None),
        }
    }
}

impl Table {
    fn is_on_its_way(&self, names: &[Option<Name>]) -> bool {
        names.iter().flatten().any(|Name(hash)| self.known.get(hash) == Some(&false))
    }

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
    pub fn stored(mut self, clock: &Clock) {
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
        let duplicates = self.wanted.iter().filter(|wanted| !**wanted).count() as u64;
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
        all.try_claim(&ids.iter().map(|id| Some(Name(*id))).collect::<Vec<_>>(), now)
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
    fn what_has_no_name_is_always_stored_and_never_a_duplicate() {
        let all = Arc::new(Deduplication::new(1000));
        let first = all.try_claim(&[None, Some(Name(1)), None], 0).expect("free");
        assert_eq!(first.wanted, [true, true, true]);
        assert!(all.try_claim(&[None], 0).is_some());
        assert!(all.claim_now(&Clock::manual(0), &[None]).is_none(), "the table is not made");
        first.stored(&Clock::manual(0));
        assert_eq!(all.counts(), (0, 0));
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
