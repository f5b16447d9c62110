//! The journal as the rest of the program sees it.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::watch;

use super::commit::{Pending, Receipt, Shared, Writer};
use super::consumer::Consumer;
use super::error::{OpenError, Refused};
use super::format::{Kind, put_bytes, put_record};
use super::log::{Log, View, lock};
use super::reader::{Core, Reader};
use super::{ConsumerStatus, Epoch, Lineage, Offset, Options, Start};
use crate::storage::Storage;

/// The writer needs little: it calls the file system and checks sums.
const WRITER_STACK: usize = 128 << 10;

/// A journal. Cheap to clone. The last clone's end closes it; [`Journal::close`] waits until all is written.
#[derive(Clone)]
pub struct Journal(Arc<Inner>);

/// A handle that does not keep a journal open.
#[derive(Clone)]
pub struct WeakJournal(Weak<Inner>);

impl WeakJournal {
    /// The journal, if it is open.
    #[must_use]
    pub fn upgrade(&self) -> Option<Journal> {
        self.0.upgrade().map(Journal)
    }
}

struct Inner {
    pub(super) shared: Arc<Shared>,
    view: Arc<Mutex<View>>,
    storage: Arc<dyn Storage>,
    dir: String,
    limits: Mutex<Limits>,
}

/// What an append is held against.
#[derive(Debug, Clone, Copy)]
struct Limits {
    max_append: usize,
    max_pending: usize,
    max_facts: usize,
}

impl Limits {
    fn of(options: &Options) -> Self {
        let max_append = options.max_append();
        Self { max_append, max_pending: options.max_pending_bytes, max_facts: max_append / 2 }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("dir", &self.0.dir).field("next", &self.next_offset()).finish()
    }
}

/// What one append writes: all of it becomes durable, or nothing does.
#[derive(Debug)]
pub struct Append<'a> {
    pending: &'a mut Pending,
    events: u32,
    facts: usize,
    /// Records without an event, until it is known whether one comes with them.
    loose: Vec<u8>,
}

impl Append<'_> {
    /// Adds one event; `encode` appends its stored form to the buffer it is given, and must leave what is there alone.
    pub fn event(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        put_record(&mut self.pending.batch.bytes, Kind::Event, encode);
        self.events += 1;
    }

    /// Adds one event and, with it, the fact `key` = `value`.
    pub fn event_with_fact(&mut self, key: &[u8], value: &[u8], encode: impl FnOnce(&mut Vec<u8>)) {
        put_record(&mut self.pending.batch.bytes, Kind::EventWithFact, |out| {
            put_bytes(out, key);
            put_bytes(out, value);
            encode(out);
        });
        self.events += 1;
        self.facts += key.len() + value.len();
    }

    /// Sets a fact: a small durable value that rides with the events.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        put_record(&mut self.loose, Kind::Put, |out| {
            put_bytes(out, key);
            put_bytes(out, value);
        });
        self.facts += key.len() + value.len();
    }

    /// Removes a fact. One that does not exist is no error.
    pub fn delete(&mut self, key: &[u8]) {
        put_record(&mut self.loose, Kind::Delete, |out| put_bytes(out, key));
    }
}

/// Takes back what an append has written so far unless it is kept.
struct Undo<'a> {
    append: Append<'a>,
    from: usize,
    kept: bool,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.append.pending.batch.bytes.truncate(self.from);
        }
    }
}

impl Journal {
    /// Opens the journal in the folder `dir` of `storage`, recovering it if need be, and starts its writer thread. Blocks.
    ///
    /// # Errors
    /// See [`OpenError`]. Damage is no error: it is quarantined, counted and logged.
    pub fn open(storage: Arc<dyn Storage>, dir: &str, options: Options) -> Result<Self, OpenError> {
        let log = Log::open(Arc::clone(&storage), dir, options)?;
        let limits = Mutex::new(Limits::of(&log.options));
        let view = Arc::clone(&log.view);
        let next_consumer = lock(&view).state.consumers.keys().last().map_or(1, |id| id + 1);
        let shared = Arc::new(Shared::new(&log, next_consumer));
        let writer = Writer::new(log, Arc::clone(&shared));
        std::thread::Builder::new()
            .name("journal".to_owned())
            .stack_size(WRITER_STACK)
            .spawn(move || writer.run())
            .map_err(|source| OpenError::Io {
                dir: dir.to_owned(),
                what: "starting the writer thread".to_owned(),
                source,
            })?;
        Ok(Self(Arc::new(Inner { shared, view, storage, dir: dir.to_owned(), limits })))
    }

    /// Queues one append. Never blocks and never waits for the disk: await the receipt before acknowledging anything. `write` runs
    /// at once, under the journal's lock: keep it short.
    ///
    /// # Errors
    /// `Busy` when too much is waiting for the disk already (await [`Journal::room`]); `TooLarge`; `Closed`.
    pub fn append(&self, write: impl FnOnce(&mut Append<'_>)) -> Result<Receipt, Refused> {
        self.append_after(None, write)
    }

    /// The same for a producer that has several appends under way and tries refused ones again: where `before` was refused, or
    /// will be for want of room, so is this one, so that it cannot overtake.
    ///
    /// # Errors
    /// As [`Journal::append`]; and as `before` was.
    pub fn append_after(&self, before: Option<&Receipt>, write: impl FnOnce(&mut Append<'_>)) -> Result<Receipt, Refused> {
        let shared = &self.0.shared;
        let limits = *self.0.limits.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut pending = shared.lock();
        if pending.closing {
            return Err(Refused::Closed);
        }
        // Under the lock: the writer refuses under it too, and with a commit all that gathered meanwhile.
        if let Some(Err(refused)) = before.and_then(Receipt::outcome) {
            return Err(refused);
        }
        let waiting = pending.batch.len();
        if waiting >= limits.max_pending {
            return Err(Refused::Busy);
        }
        let from = pending.batch.bytes.len();
        let append = Append { pending: &mut pending, events: 0, facts: 0, loose: Vec::new() };
        let mut undo = Undo { append, from, kept: false };
        write(&mut undo.append);
        let size = undo.append.pending.batch.bytes.len() - from + undo.append.loose.len();
        let (events, facts) = (undo.append.events, undo.append.facts);
        if size > limits.max_append {
            return Err(Refused::TooLarge { size, limit: limits.max_append });
        }
        if facts > 0 && shared.fact_bytes.load(Ordering::Relaxed) + waiting + facts > limits.max_facts {
            return Err(Refused::TooLarge { size: facts, limit: limits.max_facts });
        }
        if waiting > 0 && waiting + size > limits.max_append {
            // Both fit into a segment, but not together: the other goes first.
            return Err(Refused::Busy);
        }
        undo.kept = true;
        let loose = std::mem::take(&mut undo.append.loose);
        drop(undo);
        let index = pending.batch.events;
        pending.batch.events += events;
        // Facts that come with events are decided with them; others are control records of their own.
        let target = if events > 0 { &mut pending.batch.bytes } else { &mut pending.batch.control };
        target.extend_from_slice(&loose);
        let receipt = pending.receipt(events > 0, index);
        if events > 0 {
            shared.hand_over(pending);
        } else {
            // An append of nothing is a flush: somebody waits for what is there.
            pending.flush |= loose.is_empty();
            shared.wake(pending);
        }
        Ok(receipt)
    }

    /// Whether this and the other are handles of one journal.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A handle that does not keep the journal open.
    #[must_use]
    pub fn downgrade(&self) -> WeakJournal {
        WeakJournal(Arc::downgrade(&self.0))
    }

    /// Whether there is no other handle of this journal.
    #[must_use]
    pub fn is_only_handle(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Resolves when an append that was refused as `Busy` is worth another try.
    pub async fn room(&self) {
        let limits = *self.0.limits.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        loop {
            let room = self.0.shared.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            {
                let pending = self.0.shared.lock();
                if pending.closing || pending.batch.len() < limits.max_pending / 2 {
                    return;
                }
            }
            room.await;
        }
    }

    /// The first offset that is not durable yet; all below it, from [`Journal::first_offset`] on, can be read.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        *self.0.shared.durable.borrow()
    }

    /// The oldest offset kept.
    #[must_use]
    pub fn first_offset(&self) -> Offset {
        lock(&self.0.view).state.first
    }

    /// Follows [`Journal::next_offset`]: changes after each commit that had events.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Offset> {
        self.0.shared.durable.subscribe()
    }

    /// Changes whenever a cursor was moved by hand, or back: whoever works at one looks where it is then.
    #[must_use]
    pub fn watch_moved(&self) -> watch::Receiver<u64> {
        self.0.shared.moved.subscribe()
    }

    /// The epochs of this journal, as far back as they are kept (1,024).
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        lock(&self.0.view).state.lineage.clone()
    }

    /// The current epoch. It changes at a start, and after a failed `fdatasync`.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.0.shared.epoch.load(Ordering::Relaxed))
    }

    /// Bytes of all segment files, spares included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.shared.bytes.load(Ordering::Relaxed)
    }

    /// Whether the disk is full, so that events are refused: the bytes of the segment that they wait for.
    #[must_use]
    pub fn lacks_room(&self) -> Option<u64> {
        Some(self.0.shared.lacking.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// Most bytes of one append: half a segment.
    #[must_use]
    pub fn max_append(&self) -> usize {
        self.0.limits.lock().unwrap_or_else(std::sync::PoisonError::into_inner).max_append
    }

    /// A durable fact.
    #[must_use]
    pub fn fact(&self, key: &[u8]) -> Option<Vec<u8>> {
        lock(&self.0.view).state.facts.get(key).map(|value| value.to_vec())
    }

    /// All durable facts whose key begins with `prefix`, in the order of their keys.
    #[must_use]
    pub fn facts(&self, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        lock(&self.0.view).state.facts(prefix)
    }

    /// Finds the consumer `name`, or registers it with the next commit. `holds` says whether events wait for it under
    /// [`super::Policy::Reject`]; it may change from one start to the next.
    pub fn consumer(&self, name: &str, start: Start, holds: bool) -> Consumer {
        Consumer::find(&self.0.shared, &self.0.view, name, start, holds)
    }

    /// Forgets a consumer and its ledger.
    pub fn remove_consumer(&self, name: &str) {
        Consumer::remove(&self.0.shared, &self.0.view, name);
    }

    /// All consumers with their ledger, by name.
    #[must_use]
    pub fn consumers(&self) -> Vec<ConsumerStatus> {
        lock(&self.0.view).state.statuses()
    }

    /// The oldest offset kept, the next to come, and all consumers with their ledger, as of one commit.
    #[must_use]
    pub fn ledger(&self) -> (Offset, Offset, Vec<ConsumerStatus>) {
        let view = lock(&self.0.view);
        (view.state.first, view.state.next, view.state.statuses())
    }

    /// A reader from `from` on. What is no longer kept it reports as a skip.
    #[must_use]
    pub fn reader(&self, from: Offset) -> Reader {
        let core = Core::new(Arc::clone(&self.0.storage), self.0.dir.clone(), Arc::clone(&self.0.view));
        Reader::new(core, from, self.0.shared.durable.subscribe())
    }

    /// Changes the limits while the journal is open. The segment size holds for segments made from now on.
    pub fn set_options(&self, options: Options) {
        let options = options.checked();
        *self.0.limits.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Limits::of(&options);
        self.0.shared.set_options(options);
    }

    /// Commits what is waiting and ends the writer. Appends from now on are refused as `Closed`.
    pub async fn close(&self) {
        self.0.shared.close();
        loop {
            let ended = self.0.shared.closed.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.0.shared.lock().closed {
                return;
            }
            ended.await;
        }
    }
}
