//! A journal without its thread: the same steps that the writer takes, one at a time and on the caller's thread.
//!
//! For tests that must know at every call of the disk what has been promised so far (crash tests, fuzzing). Everything else uses
//! [`super::Journal`].

use std::io;
use std::sync::Arc;

use super::format::{Kind, put_bytes, put_record};
use super::log::{Batch, Log, lock};
use super::reader::Core;
use super::state::{Move, put_consumer, put_move};
use super::{Committed, ConsumerStatus, Done, Epoch, Item, Lineage, Offset, OpenError, Options, Refused};
use crate::storage::Storage;

/// Bodies read at once, in bytes.
const READ_BYTES: usize = 64 << 10;

/// See the module.
#[derive(Debug)]
pub struct Bare {
    log: Log,
    batch: Batch,
}

impl Bare {
    /// Opens the journal, recovering it if need be.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(storage: Arc<dyn Storage>, dir: &str, options: Options) -> Result<Self, OpenError> {
        Ok(Self { log: Log::open(storage, dir, options)?, batch: Batch::default() })
    }

    /// Adds an event to the batch.
    pub fn event(&mut self, body: &[u8]) {
        put_record(&mut self.batch.bytes, Kind::Event, |out| out.extend_from_slice(body));
        self.batch.events += 1;
    }

    /// Adds an event to the batch and, with it, a fact.
    pub fn event_with_fact(&mut self, key: &[u8], value: &[u8], body: &[u8]) {
        put_record(&mut self.batch.bytes, Kind::EventWithFact, |out| {
            put_bytes(out, key);
            put_bytes(out, value);
            out.extend_from_slice(body);
        });
        self.batch.events += 1;
    }

    /// Sets a fact with the batch.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        put_record(&mut self.batch.control, Kind::Put, |out| {
            put_bytes(out, key);
            put_bytes(out, value);
        });
    }

    /// Removes a fact with the batch.
    pub fn delete(&mut self, key: &[u8]) {
        put_record(&mut self.batch.control, Kind::Delete, |out| put_bytes(out, key));
    }

    /// Registers a consumer with the batch.
    pub fn register(&mut self, id: u32, name: &str, since: Offset, holds: bool) {
        put_consumer(&mut self.batch.control, id, name, since, holds);
    }

    /// Moves a consumer's cursor with the batch.
    pub fn step(&mut self, id: u32, from: Offset, to: Offset, done: &Done) {
        put_move(&mut self.batch.control, id, &Move { from, to, done: done.clone() });
    }

    /// Makes the batch durable, whole, or refuses it, whole. Begins an empty one either way.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn commit(&mut self) -> Result<Committed, Refused> {
        let outcome = self.log.commit(&mut self.batch);
        self.batch = Batch::default();
        outcome
    }

    /// Does what the writer does when it has time: gives the last sealed segment its footer, makes a spare segment if one is
    /// wanted, and looks at the limits.
    ///
    /// # Errors
    /// Whatever the file system answers.
    pub fn idle(&mut self) -> io::Result<()> {
        if let Some(seal) = self.log.take_unsealed() {
            seal();
        }
        if self.log.wants_spare() {
            self.log.make_spare()?;
        }
        self.log.maintain();
        Ok(())
    }

    /// A reader without its thread.
    #[must_use]
    pub fn core(&self) -> Core {
        Core::new(Arc::clone(&self.log.storage), self.log.dir.clone(), Arc::clone(&self.log.view))
    }

    /// All that is kept from [`Bare::first`] on.
    ///
    /// # Errors
    /// Whatever the file system answers.
    pub fn read_all(&self) -> io::Result<Vec<Item>> {
        let mut core = self.core();
        let mut at = self.first();
        let mut all = Vec::new();
        while at < self.next() {
            let (items, to) = core.read(at, READ_BYTES)?;
            if to <= at {
                return Err(io::Error::other(format!("the reader stands still at {at}")));
            }
            all.extend(items);
            at = to;
        }
        Ok(all)
    }

    /// The offset that the next event gets.
    #[must_use]
    pub fn next(&self) -> Offset {
        lock(&self.log.view).state.next
    }

    /// The oldest offset kept.
    #[must_use]
    pub fn first(&self) -> Offset {
        lock(&self.log.view).state.first
    }

    /// The current epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.log.epoch
    }

    /// The epochs of this journal.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        lock(&self.log.view).state.lineage.clone()
    }

    /// All facts, in the order of their keys.
    #[must_use]
    pub fn facts(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        lock(&self.log.view).state.facts(b"")
    }

    /// All consumers with their ledger.
    #[must_use]
    pub fn consumers(&self) -> Vec<ConsumerStatus> {
        lock(&self.log.view).state.statuses()
    }

    /// Bytes of all segment files, spares included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.log.bytes()
    }
}
