//! A registered consumer: its durable cursor.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::commit::{Receipt, Shared};
use super::error::Refused;
use super::format::{Kind, put_record, put_varint};
use super::log::{View, lock};
use super::state::{ConsumerState, Move, put_consumer};
use super::{Done, Offset, Start};

/// A consumer of a journal. Clones share the cursor.
#[derive(Debug, Clone)]
pub struct Consumer {
    id: u32,
    name: Arc<str>,
    /// Where the consumer is; the durable cursor follows within 100 ms.
    cursor: Arc<AtomicU64>,
    shared: Arc<Shared>,
    view: Arc<Mutex<View>>,
}

impl Consumer {
    pub(super) fn find(shared: &Arc<Shared>, view: &Arc<Mutex<View>>, name: &str, start: Start, holds: bool) -> Self {
        // The order of the locks is pending, then view, as everywhere.
        let mut pending = shared.lock();
        let known = {
            let view = lock(view);
            view.state.consumers.iter().find(|(_, c)| c.name == name).map(|(id, c)| (*id, c.clone()))
        };
        let known = known.or_else(|| pending.registered.get(name).cloned());
        let (id, cursor) = match known {
            Some((id, consumer)) => {
                if consumer.holds != holds {
                    put_consumer(&mut pending.batch.control, id, name, consumer.since, holds);
                }
                (id, consumer.cursor)
            }
            None => {
                let (first, next) = {
                    let view = lock(view);
                    (view.state.first, view.state.next)
                };
                let since = match start {
                    Start::Earliest => first,
                    Start::Next => next,
                    Start::At(offset) => offset.clamp(first, next),
                };
                let id = pending.next_consumer;
                pending.next_consumer += 1;
                put_consumer(&mut pending.batch.control, id, name, since, holds);
                let done = Done::default();
                let fresh = ConsumerState { name: name.to_owned(), since, cursor: since, holds, done };
                pending.registered.insert(name.to_owned(), (id, fresh));
                (id, since)
            }
        };
        let cursor = pending.cursors.entry(id).or_insert_with(|| Arc::new(AtomicU64::new(cursor.0))).clone();
        shared.wake(pending);
        Self { id, name: name.into(), cursor, shared: Arc::clone(shared), view: Arc::clone(view) }
    }

    pub(super) fn remove(shared: &Arc<Shared>, view: &Arc<Mutex<View>>, name: &str) {
        let mut pending = shared.lock();
        let durable = { lock(view).state.consumers.iter().find(|(_, c)| c.name == name).map(|(id, _)| *id) };
        let fresh = pending.registered.remove(name).map(|(id, _)| id);
        let Some(id) = durable.or(fresh) else { return };
        pending.moves.remove(&id);
        pending.cursors.remove(&id);
        put_record(&mut pending.batch.control, Kind::ConsumerGone, |out| put_varint(out, u64::from(id)));
        shared.wake(pending);
    }

    /// The consumer's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next offset that this consumer has not finished, moves included that are not durable yet. Where retention was faster,
    /// the oldest offset kept.
    #[must_use]
    pub fn cursor(&self) -> Offset {
        let pending = self.shared.lock();
        if !pending.seeks.contains(&self.id) {
            let durable = { lock(&self.view).state.consumers.get(&self.id).map_or(0, |c| c.cursor.0) };
            self.cursor.fetch_max(durable, Ordering::AcqRel);
        }
        Offset(self.cursor.load(Ordering::Acquire))
    }

    /// Moves the cursor to `to`. `done` accounts for every event from the cursor to there. Durable within 100 ms, or sooner with
    /// any other commit; see [`Consumer::flushed`].
    ///
    /// False, and nothing has changed, when the account does not fit: the cursor was moved by hand meanwhile. Go on at
    /// [`Consumer::cursor`] then.
    pub fn advance(&self, to: Offset, done: &Done) -> bool {
        let mut pending = self.shared.lock();
        let from = Offset(self.cursor.load(Ordering::Acquire));
        if to < from || done.total() != to.since(from) {
            return false;
        }
        if to > from {
            self.cursor.store(to.0, Ordering::Release);
            let first = pending.moves.is_empty();
            pending.step(self.id, Move { from, to, done: done.clone() });
            if first {
                // It sets its alarm; later moves go with this one.
                self.shared.wake(pending);
            }
        }
        true
    }

    /// Moves the cursor by hand. Forward, what is passed counts as dropped (`skipped`); backward, the ledger begins anew there.
    pub fn seek(&self, to: Offset) {
        let mut pending = self.shared.lock();
        let to = {
            let view = lock(&self.view);
            to.clamp(view.state.first, view.state.next)
        };
        pending.write_moves();
        self.cursor.store(to.0, Ordering::Release);
        pending.seeks.insert(self.id);
        put_record(&mut pending.batch.control, Kind::Seek, |out| {
            put_varint(out, u64::from(self.id));
            put_varint(out, to.0);
        });
        self.shared.wake(pending);
    }

    /// Resolves when all moves made before are durable.
    ///
    /// # Errors
    /// `Closed` when the journal ended before they were.
    pub async fn flushed(&self) -> Result<(), Refused> {
        let receipt: Receipt = {
            let mut pending = self.shared.lock();
            if pending.closed {
                return Err(Refused::Closed);
            }
            pending.flush = true;
            let receipt = pending.receipt(false, 0);
            self.shared.wake(pending);
            receipt
        };
        receipt.await.map(|_| ())
    }
}
