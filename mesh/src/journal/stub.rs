//! The journal's face; bodies follow.
#![allow(missing_docs, clippy::todo, clippy::needless_pass_by_value)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use thiserror::Error;

use super::{ConsumerStatus, Done, Epoch, Lineage, Offset, Start};
use crate::clock::Clock;
use crate::storage::Storage;

/// Where one append went, when it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    pub epoch: Epoch,
    /// Offset of the first event of the append (of the next event, if it had none).
    pub first: Offset,
}

/// Why an append was not, or will not be, durable. Nothing of it is in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    #[error("the broker is at its limit and its policy is reject")]
    Full,
    #[error("no space left on the disk")]
    DiskFull,
    /// Too many bytes are waiting for the disk: wait for `Journal::room`.
    #[error("too much is waiting for the disk")]
    Busy,
    #[error("{size} bytes are more than the {limit} that one append may have")]
    TooLarge { size: usize, limit: usize },
    #[error("the disk failed: {0}")]
    Disk(String),
    #[error("the journal is closed")]
    Closed,
}

#[derive(Debug, Error)]
pub enum OpenError {
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    #[default]
    DropOldest,
    Reject,
}

#[derive(Debug, Clone)]
pub struct Options {
    pub segment_bytes: u64,
    /// Most bytes of segment files; at least four segments.
    pub max_bytes: u64,
    pub max_age_ms: Option<u64>,
    pub max_count: Option<u64>,
    /// How long what all consumers have passed is kept if there is room.
    pub keep_ms: u64,
    pub policy: Policy,
    /// Wait this long for company before each commit.
    pub commit_delay_ms: u64,
    /// Bytes that may wait for the disk before `append` answers `Busy`.
    pub max_pending_bytes: usize,
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 8 << 20,
            max_bytes: 1 << 30,
            max_age_ms: None,
            max_count: None,
            keep_ms: 24 * 3600 * 1000,
            policy: Policy::DropOldest,
            commit_delay_ms: 0,
            max_pending_bytes: 256 << 10,
            clock: Clock::system(),
        }
    }
}

/// A journal. Cheap to clone; the last clone closes it.
#[derive(Debug, Clone)]
pub struct Journal(#[allow(dead_code)] Arc<()>);

/// What one append writes: all of it becomes durable, or nothing.
#[derive(Debug)]
pub struct Append<'a>(#[allow(dead_code)] &'a mut Vec<u8>);

impl Append<'_> {
    /// Adds one event; `encode` appends its stored form to the buffer it is given.
    pub fn event(&mut self, _encode: impl FnOnce(&mut Vec<u8>)) {
        todo!()
    }
    /// Adds one event and, with it, the fact `key` = `value`.
    pub fn event_with_fact(&mut self, _key: &[u8], _value: &[u8], _encode: impl FnOnce(&mut Vec<u8>)) {
        todo!()
    }
    /// Sets a fact: a small durable value that rides with the events (QoS 2 hand-shakes, positions of agents).
    pub fn put(&mut self, _key: &[u8], _value: &[u8]) {
        todo!()
    }
    /// Removes a fact.
    pub fn delete(&mut self, _key: &[u8]) {
        todo!()
    }
}

/// Resolves when an append is durable or has been refused.
#[derive(Debug)]
pub struct Receipt(());

impl Receipt {
    /// The outcome, if it is known already.
    pub fn outcome(&self) -> Option<Result<Committed, Refused>> {
        todo!()
    }
}

impl Future for Receipt {
    type Output = Result<Committed, Refused>;
    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        todo!()
    }
}

impl Journal {
    /// Opens the journal in the folder `dir` of `storage`, recovering it if need be. Blocks: call it off the runtime.
    pub fn open(_storage: Arc<dyn Storage>, _dir: &str, _options: Options) -> Result<Self, OpenError> {
        todo!()
    }
    /// Queues one append. Never blocks. The closure runs at once, under the journal's lock: keep it short.
    pub fn append(&self, _write: impl FnOnce(&mut Append<'_>)) -> Result<Receipt, Refused> {
        todo!()
    }
    /// Resolves when fewer bytes than the limit are waiting for the disk.
    pub async fn room(&self) {
        todo!()
    }
    /// The first offset not yet durable; all below it may be read.
    pub fn next_offset(&self) -> Offset {
        todo!()
    }
    /// The oldest offset kept.
    pub fn first_offset(&self) -> Offset {
        todo!()
    }
    /// Follows `next_offset`: changes after each commit that had events.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<Offset> {
        todo!()
    }
    /// The epochs of this journal, as far back as they matter.
    pub fn lineage(&self) -> Lineage {
        todo!()
    }
    /// The current epoch.
    pub fn epoch(&self) -> Epoch {
        todo!()
    }
    /// Bytes of segment files.
    pub fn bytes(&self) -> u64 {
        todo!()
    }
    /// A fact.
    pub fn fact(&self, _key: &[u8]) -> Option<Vec<u8>> {
        todo!()
    }
    /// All facts whose key begins with `prefix`.
    pub fn facts(&self, _prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        todo!()
    }
    /// Finds the consumer `name` or registers it, durably with the next commit. `holds`: see `Policy::Reject`.
    pub fn consumer(&self, _name: &str, _start: Start, _holds: bool) -> Consumer {
        todo!()
    }
    /// Forgets a consumer.
    pub fn remove_consumer(&self, _name: &str) {
        todo!()
    }
    /// All consumers with their ledger.
    pub fn consumers(&self) -> Vec<ConsumerStatus> {
        todo!()
    }
    /// A reader from `from` on (or the oldest kept, reported as a skip).
    pub fn reader(&self, _from: Offset) -> Reader {
        todo!()
    }
    /// Commits what is waiting and stops the writer. Later appends are refused as `Closed`.
    pub async fn close(&self) {
        todo!()
    }
    /// Changes limits while open.
    pub fn set_options(&self, _options: Options) {
        todo!()
    }
}

/// A registered consumer: a durable cursor.
#[derive(Debug, Clone)]
pub struct Consumer(());

impl Consumer {
    pub fn name(&self) -> &str {
        todo!()
    }
    pub fn cursor(&self) -> Offset {
        todo!()
    }
    /// Moves the cursor to `to`; `done.total()` must be `to - cursor`. Gathered, durable within 100 ms.
    pub fn advance(&self, _to: Offset, _done: &Done) {
        todo!()
    }
    /// Moves the cursor by hand, backwards too. Backwards, `since` moves with it and the ledger begins anew.
    pub fn seek(&self, _to: Offset) {
        todo!()
    }
    /// Resolves when all earlier moves of the cursor are durable.
    pub async fn flushed(&self) -> Result<(), Refused> {
        todo!()
    }
}

/// One step of a reader.
#[derive(Debug, Clone)]
pub enum Item {
    /// An event's stored form.
    Event { epoch: Epoch, offset: Offset, body: Bytes },
    /// Offsets in `[from, to)` that cannot be read any more, and why.
    Skip { from: Offset, to: Offset, reason: super::DropReason },
    /// Offsets in `[from, to)` that the reader's interest ruled out unread.
    Unwanted { from: Offset, to: Offset },
}

#[derive(Debug, Error)]
pub enum ReadError {
    #[error("reading the journal: {0}")]
    Io(#[from] std::io::Error),
    #[error("the journal is closed")]
    Closed,
}

/// Reads durable events in order. Shares nothing with the writer but files.
#[derive(Debug)]
pub struct Reader(());

impl Reader {
    /// The next offset this reader will return.
    pub fn position(&self) -> Offset {
        todo!()
    }
    pub fn seek(&mut self, _to: Offset) {
        todo!()
    }
    /// Waits until something durable is at or after the position, then returns items that cover offsets without a gap: at
    /// least one, up to about `max_bytes` of bodies. Cancel-safe. Reads files off the runtime.
    pub async fn next(&mut self, _max_bytes: usize) -> Result<Vec<Item>, ReadError> {
        todo!()
    }
    /// The same without waiting: empty when the reader has caught up.
    pub async fn try_next(&mut self, _max_bytes: usize) -> Result<Vec<Item>, ReadError> {
        todo!()
    }
}
