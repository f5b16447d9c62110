//! A registered consumer: its durable cursor.
//!
//! A move by hand is noted as a fact (`h` and the consumer's name), in the commit of the move: a consumer whose peer keeps a position
//! of its own, as the gateway does for the uplink, must know after a start that its cursor does not stand where the peer left it.
//!
//! A consumer that finishes events out of order notes what it has finished beyond its cursor as another fact (`a` and the consumer's
//! name), in the commit of its moves: after a crash it need not do that again. What the note says is the consumer's affair; it goes when
//! the cursor is moved back, because what lies behind a cursor is to be done then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::commit::{Pending, Receipt, Shared};
use super::error::Refused;
use super::format::{Kind, put_bytes, put_record, put_varint};
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

/// A move by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ByHand {
    /// Where the cursor had come to by itself; 0 where retention had brought it.
    from: Offset,
    /// Where it was put. The note holds while it is still there.
    to: Offset,
}

impl ByHand {
    fn key(consumer: &str) -> Vec<u8> {
        [b"h", consumer.as_bytes()].concat()
    }

    fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let (from, to) = bytes.split_at_mut(8);
        from.copy_from_slice(&self.from.0.to_le_bytes());
        to.copy_from_slice(&self.to.0.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let ([from, to], []) = bytes.as_chunks::<8>() else { return None };
        Some(Self { from: Offset(u64::from_le_bytes(*from)), to: Offset(u64::from_le_bytes(*to)) })
    }
}

/// The fact that notes what a consumer has finished beyond its cursor.
fn ahead_key(consumer: &str) -> Vec<u8> {
    [b"a", consumer.as_bytes()].concat()
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
        pending.notes.remove(&id);
        pending.cursors.remove(&id);
        let ahead = ahead_key(name);
        // Those that are not durable yet stand before this in the same batch, or in an earlier one.
        put_record(&mut pending.batch.control, Kind::Delete, |out| put_bytes(out, &ahead));
        let key = ByHand::key(name);
        if pending.by_hand.remove(&id).is_some() || lock(view).state.facts.contains_key(key.as_slice()) {
            put_record(&mut pending.batch.control, Kind::Delete, |out| put_bytes(out, &key));
        }
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
        self.place(&pending, &lock(&self.view))
    }

    fn place(&self, pending: &Pending, view: &View) -> Offset {
        if !pending.seeks.contains(&self.id) {
            let durable = view.state.consumers.get(&self.id).map_or(0, |c| c.cursor.0);
            self.cursor.fetch_max(durable, Ordering::AcqRel);
        }
        Offset(self.cursor.load(Ordering::Acquire))
    }

    /// Where the cursor had come to by itself (0 if retention had brought it there), if it was moved by hand since and has not gone
    /// on from there, over restarts too.
    #[must_use]
    pub fn before_hand(&self) -> Option<Offset> {
        let pending = self.shared.lock();
        let view = lock(&self.view);
        let cursor = self.place(&pending, &view);
        let noted = self.noted(&pending, &view)?;
        let stands = cursor == noted.to || (cursor > noted.to && cursor == view.state.first);
        stands.then_some(noted.from)
    }

    fn noted(&self, pending: &Pending, view: &View) -> Option<ByHand> {
        let durable = || ByHand::decode(view.state.facts.get(ByHand::key(&self.name).as_slice())?);
        pending.by_hand.get(&self.id).copied().or_else(durable)
    }

    /// Moves the cursor to `to`. `done` accounts for every event from the cursor to there. Durable within 100 ms, or sooner with
    /// any other commit; see [`Consumer::flushed`].
    ///
    /// False, and nothing has changed, when the account does not fit: the cursor was moved by hand meanwhile. Go on at
    /// [`Consumer::cursor`] then.
    pub fn advance(&self, to: Offset, done: &Done) -> bool {
        self.step(None, to, done, None)
    }

    /// The same for a consumer that finishes events out of order: moves the cursor from `from` to `to`, which may be the same, and
    /// notes in the same commit what is finished beyond. Empty: nothing is.
    ///
    /// False, and nothing has changed, when the cursor is not at `from`, or the account does not fit.
    pub fn advance_noting(&self, from: Offset, to: Offset, done: &Done, ahead: Option<Vec<u8>>) -> bool {
        self.step(Some(from), to, done, ahead)
    }

    /// What was noted last as finished beyond the cursor.
    #[must_use]
    pub fn ahead(&self) -> Option<Vec<u8>> {
        let pending = self.shared.lock();
        if let Some((_, note)) = pending.notes.get(&self.id) {
            return Some(note.clone()).filter(|note| !note.is_empty());
        }
        lock(&self.view).state.facts.get(ahead_key(&self.name).as_slice()).map(|value| value.to_vec())
    }

    fn step(&self, expected: Option<Offset>, to: Offset, done: &Done, ahead: Option<Vec<u8>>) -> bool {
        let mut pending = self.shared.lock();
        let from = Offset(self.cursor.load(Ordering::Acquire));
        if to < from || done.total() != to.since(from) || expected.is_some_and(|expected| expected != from) {
            return false;
        }
        let first = pending.moves_since.is_none();
        if to > from {
            self.cursor.store(to.0, Ordering::Release);
            pending.step(self.id, Move { from, to, done: done.clone() });
        }
        if let Some(ahead) = ahead.filter(|_| pending.cursors.contains_key(&self.id)) {
            pending.note(self.id, ahead_key(&self.name), ahead);
        }
        if first && pending.moves_since.is_some() {
            // It sets its alarm; later moves go with this one.
            self.shared.wake(pending);
        }
        true
    }

    /// Moves the cursor by hand. Forward, what is passed counts as dropped (`skipped`); backward, the ledger begins anew there.
    /// Noted in the same commit: see [`Consumer::before_hand`].
    pub fn seek(&self, to: Offset) {
        self.go(to, true);
    }

    /// Moves the cursor back because what was done is not done any more: the ledger begins anew there.
    pub fn rewind(&self, to: Offset) {
        self.go(to, false);
    }

    fn go(&self, to: Offset, by_hand: bool) {
        let mut pending = self.shared.lock();
        let (to, note, back) = {
            let view = lock(&self.view);
            let now = self.place(&pending, &view);
            let to = to.clamp(view.state.first, view.state.next);
            // Of several moves the first one began where the consumer itself had come to.
            let earlier = self.noted(&pending, &view).filter(|noted| noted.to == now);
            let by_itself = if now > view.state.first { now } else { Offset(0) };
            (to, ByHand { from: earlier.map_or(by_itself, |noted| noted.from), to }, to < now)
        };
        pending.write_moves();
        if back {
            let key = ahead_key(&self.name);
            put_record(&mut pending.batch.control, Kind::Delete, |out| put_bytes(out, &key));
        }
        if by_hand {
            put_record(&mut pending.batch.control, Kind::Put, |out| {
                put_bytes(out, &ByHand::key(&self.name));
                put_bytes(out, &note.encode());
            });
            pending.by_hand.insert(self.id, note);
        }
        self.cursor.store(to.0, Ordering::Release);
        pending.seeks.insert(self.id);
        put_record(&mut pending.batch.control, Kind::Seek, |out| {
            put_varint(out, u64::from(self.id));
            put_varint(out, to.0);
        });
        self.shared.wake(pending);
        self.shared.moved.send_modify(|n| *n += 1);
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
