//! Reading: durable events in order, from files, beside the writer and without it knowing.
//!
//! Bytes are checked as they are read, with the key of the segment they should be in. A segment that was recycled under a slow
//! reader therefore reads as damage, and the table of segments tells the two apart.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use super::damage::Damage;
use super::error::ReadError;
use super::format::{HEAD_BYTES, Head, HeadRead, Kind, take_bytes, take_record};
use super::log::{View, lock};
use super::scan::{Found, Scan};
use super::segment::{self, Segment};
use super::summary::{self, Summary};
use super::{DropReason, Epoch, Offset};
use crate::storage::{Storage, read_exact_at};

/// Most items that one call returns.
const MAX_ITEMS: usize = 2048;
/// How often a place on the disk may fail to be read before its events are given up.
const READ_TRIES: u32 = 3;
const EIO: i32 = 5;

/// One step of a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An event's stored form.
    Event {
        /// The epoch in which it was appended.
        epoch: Epoch,
        /// Its offset.
        offset: Offset,
        /// The bytes that were appended.
        body: Bytes,
    },
    /// Offsets in `[from, to)` that cannot be read any more. A consumer that moves past them counts them as dropped.
    Skip {
        /// The first of them.
        from: Offset,
        /// The first offset after them.
        to: Offset,
        /// Why.
        reason: DropReason,
    },
    /// Offsets in `[from, to)` that the reader's interest ruled out unread.
    Unwanted {
        /// The first of them.
        from: Offset,
        /// The first offset after them.
        to: Offset,
    },
}

/// Whether a segment with this summary can hold anything that the reader's owner wants.
pub type Interest = Box<dyn Fn(&Summary) -> bool + Send>;

/// Reads durable events in order. Made by [`super::Journal::reader`].
#[derive(Debug)]
pub struct Reader {
    core: Arc<Mutex<Core>>,
    position: Offset,
    durable: watch::Receiver<Offset>,
}

impl Reader {
    pub(super) fn new(core: Core, from: Offset, durable: watch::Receiver<Offset>) -> Self {
        Self { core: Arc::new(Mutex::new(core)), position: from, durable }
    }

    /// The same reader, which passes sealed segments unread that `interest` says hold nothing of interest.
    #[must_use]
    pub fn with_interest(self, interest: Interest) -> Self {
        self.core.lock().unwrap_or_else(PoisonError::into_inner).interest = Some(interest);
        self
    }

    /// The next offset this reader will return.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.position
    }

    /// Goes elsewhere.
    pub fn seek(&mut self, to: Offset) {
        self.position = to;
    }

    /// Waits until something durable is at or after the position, then returns items that cover the offsets from there without a
    /// gap: at least one, about `max_bytes` of bodies at most. Files are read off the runtime. Cancel-safe.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn next(&mut self, max_bytes: usize) -> Result<Vec<Item>, ReadError> {
        loop {
            let durable = *self.durable.borrow_and_update();
            if self.position < durable {
                let items = self.try_next(max_bytes).await?;
                if !items.is_empty() {
                    return Ok(items);
                }
            }
            self.durable.changed().await.map_err(|_| ReadError::Closed)?;
        }
    }

    /// The same without waiting: empty when the reader has caught up.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn try_next(&mut self, max_bytes: usize) -> Result<Vec<Item>, ReadError> {
        if self.position >= *self.durable.borrow() {
            return Ok(Vec::new());
        }
        let (core, from) = (Arc::clone(&self.core), self.position);
        let read =
            tokio::task::spawn_blocking(move || core.lock().unwrap_or_else(PoisonError::into_inner).read(from, max_bytes));
        let (items, to) = read.await.map_err(|_| ReadError::Closed)??;
        self.position = to;
        Ok(items)
    }
}

/// The blocking part of a reader.
pub struct Core {
    storage: Arc<dyn Storage>,
    dir: String,
    view: Arc<Mutex<View>>,
    scan: Option<Scan>,
    /// The segment that the scan walks through.
    segment: Segment,
    /// The offset that the batch at the scan's position begins with, or lies in.
    expected: Offset,
    /// The first offset of the segment after the scan's, if there was one when it was opened.
    until: Option<Offset>,
    failures: u32,
    interest: Option<Interest>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("dir", &self.dir).field("expected", &self.expected).finish_non_exhaustive()
    }
}

impl Core {
    pub(super) fn new(storage: Arc<dyn Storage>, dir: String, view: Arc<Mutex<View>>) -> Self {
        let segment = Segment { seq: 0, first: Offset(0), len: 0, begun_ms: None };
        Self { storage, dir, view, scan: None, segment, expected: Offset(0), until: None, failures: 0, interest: None }
    }

    /// Items from `from` on, and the offset that follows them. None when nothing durable is there.
    ///
    /// # Errors
    /// Whatever the file system answers.
    pub fn read(&mut self, from: Offset, max_bytes: usize) -> io::Result<(Vec<Item>, Offset)> {
        let mut out = Out { items: Vec::new(), at: from, bytes: 0, max_bytes };
        let durable = lock(&self.view).state.next;
        let result = self.fill(&mut out, durable);
        if let Some(scan) = &mut self.scan {
            // A reader that waits holds no buffer.
            let position = scan.position();
            scan.seek(position);
        }
        match result {
            Err(e) if out.items.is_empty() => {
                self.scan = None;
                self.failures += 1;
                if self.failures < READ_TRIES || e.raw_os_error() != Some(EIO) {
                    return Err(e);
                }
                self.failures = 0;
                self.give_up_unreadable(&mut out, durable, &e);
            }
            Err(_) => self.scan = None,
            Ok(()) => self.failures = 0,
        }
        Ok((out.finish(), out.at))
    }

    fn fill(&mut self, out: &mut Out, durable: Offset) -> io::Result<()> {
        while out.at < durable && !out.full() {
            let first = lock(&self.view).state.first;
            if out.at < first {
                out.skip(first, DropReason::Retention);
                continue;
            }
            if (self.scan.is_none() || self.expected != out.at)
                && let Some(unwanted) = self.place(out.at)?
            {
                let to = unwanted.min(durable);
                out.items.push(Item::Unwanted { from: out.at, to });
                out.at = to;
                continue;
            }
            if self.until.is_some_and(|until| out.at >= until) {
                // What may follow in this segment was refused, or cut by a recovery.
                self.scan = None;
                continue;
            }
            let end = self.until.unwrap_or(durable).min(durable);
            let Some(scan) = &mut self.scan else { return Ok(()) };
            match scan.next()? {
                Some(found) if found.head.first.plus(u64::from(found.head.events)) <= end => self.take(&found, out),
                None if !self.moved_on(out.at) => self.beyond_damage(out, end)?,
                _ => {
                    if !self.moved_on(out.at) {
                        self.give_up(out, end);
                    }
                    self.scan = None;
                }
            }
        }
        Ok(())
    }

    /// Whether the segments have changed since the scan was placed, so that what it meets says nothing.
    fn moved_on(&self, at: Offset) -> bool {
        let view = lock(&self.view);
        let now = segment::find(&view.table, at).map(|(segment, until)| (segment.seq, until));
        at < view.state.first || now != self.scan.as_ref().map(|scan| (scan.seq(), self.until))
    }

    /// Looks for the next sound batch of the segment; what lies between is quarantined.
    fn beyond_damage(&mut self, out: &mut Out, end: Offset) -> io::Result<()> {
        let Some(scan) = &mut self.scan else { return Ok(()) };
        let at = scan.position();
        match scan.resync(out.at)? {
            Some(found) if found.head.first.plus(u64::from(found.head.events)) <= end => {
                let lost_to = found.head.first.max(out.at);
                self.tell(at, found.position - at, (out.at, lost_to), "a batch between sound ones fails its check");
                self.take(&found, out);
            }
            _ if self.moved_on(out.at) => self.scan = None,
            _ => {
                self.give_up(out, end);
                self.scan = None;
            }
        }
        Ok(())
    }

    /// Nothing more of what should be in the segment can be read.
    fn give_up(&self, out: &mut Out, end: Offset) {
        let at = self.scan.as_ref().map_or(0, Scan::position);
        self.tell(at, self.segment.len.saturating_sub(at), (out.at, end), "no sound batch follows in the segment");
        out.skip(end, DropReason::Quarantined);
    }

    /// The disk does not give the bytes of the segment that holds the next offset.
    fn give_up_unreadable(&self, out: &mut Out, durable: Offset, error: &io::Error) {
        let mut view = lock(&self.view);
        let Some((segment, until)) = segment::find(&view.table, out.at).map(|(s, until)| (s.clone(), until)) else {
            return out.skip(durable, DropReason::Quarantined);
        };
        let (from, to) = (out.at, until.unwrap_or(durable));
        let why = format!("{READ_TRIES} tries to read the segment failed: {error}");
        view.told.tell(&Damage { dir: &self.dir, segment: &segment, at: 0, bytes: segment.len, from, to, why: &why });
        drop(view);
        out.skip(to, DropReason::Quarantined);
    }

    fn tell(&self, at: u64, bytes: u64, (from, to): (Offset, Offset), why: &str) {
        let damage = Damage { dir: &self.dir, segment: &self.segment, at, bytes, from, to, why };
        lock(&self.view).told.tell(&damage);
    }

    fn take(&mut self, found: &Found, out: &mut Out) {
        let head = &found.head;
        let end = head.first.plus(u64::from(head.events));
        if end <= out.at {
            return;
        }
        if head.first > out.at {
            self.tell(found.position, 0, (out.at, head.first), "the next sound batch begins later");
        }
        out.skip(head.first, DropReason::Quarantined);
        let mut records = found.records.get(..head.events_len as usize).unwrap_or_default();
        let mut offset = head.first;
        while offset < end && !out.full() {
            let Some((kind, mut body)) = take_record(&mut records) else { break };
            if !kind.is_some_and(Kind::is_event) {
                continue;
            }
            if kind == Some(Kind::EventWithFact) {
                let _ = take_bytes(&mut body).and_then(|_| take_bytes(&mut body));
            }
            if offset >= out.at {
                out.event(head.epoch, offset, found.records.slice_ref(body));
            }
            offset = offset.plus(1);
        }
        self.expected = out.at;
        if out.at < end
            && let Some(scan) = &mut self.scan
        {
            scan.rewind(found.position);
        }
    }

    /// Opens the segment that holds `at` and goes to the batch that does, or some way before it. Where the segment's summary says
    /// that nobody wants what is in it, answers with the offset behind it instead.
    fn place(&mut self, at: Offset) -> io::Result<Option<Offset>> {
        let (segment, until, known) = {
            let view = lock(&self.view);
            let Some((segment, until)) = segment::find(&view.table, at) else {
                self.scan = None;
                return Ok(None);
            };
            let known = until.is_none().then(|| before(&view.index, at).unwrap_or(view.start));
            (segment.clone(), until, known)
        };
        let file = self.storage.open(&format!("{}/{}", self.dir, segment.name()), false)?;
        let start = if let Some(position) = known {
            position
        } else {
            let footer = summary::read(&*file, &segment);
            let summary = footer.as_ref().and_then(|footer| footer.summary.as_ref());
            if let (Some(interest), Some(summary)) = (&self.interest, summary)
                && !interest(summary)
            {
                self.scan = None;
                return Ok(until);
            }
            match footer.and_then(|footer| before(&footer.index, at)) {
                Some(position) => position,
                None => first_batch(&self.storage, &self.dir, &segment)?,
            }
        };
        self.scan = Some(Scan::new(file, segment.seq, start));
        self.segment = segment;
        self.until = until;
        self.expected = at;
        Ok(None)
    }
}

/// The position of the last indexed batch that begins at or before `at`.
fn before(index: &[(Offset, u64)], at: Offset) -> Option<u64> {
    let i = index.partition_point(|(offset, _)| *offset <= at);
    i.checked_sub(1).and_then(|i| index.get(i)).map(|(_, position)| *position)
}

/// Where the first batch of a segment begins: behind the snapshot, or, with a damaged head, somewhere behind the head.
pub(super) fn first_batch(storage: &Arc<dyn Storage>, dir: &str, segment: &Segment) -> io::Result<u64> {
    let file = storage.open(&format!("{dir}/{}", segment.name()), false)?;
    let mut bytes = [0; HEAD_BYTES];
    Ok(match read_exact_at(&*file, &mut bytes, 0).map(|()| Head::decode(&bytes, segment.seq)) {
        Ok(HeadRead::Valid(head)) => HEAD_BYTES as u64 + u64::from(head.snapshot_len),
        _ => HEAD_BYTES as u64,
    })
}

/// What one call gathers.
struct Out {
    items: Vec<Item>,
    at: Offset,
    bytes: usize,
    max_bytes: usize,
}

impl Out {
    fn full(&self) -> bool {
        self.items.len() >= MAX_ITEMS || (self.bytes >= self.max_bytes && !self.items.is_empty())
    }

    fn event(&mut self, epoch: Epoch, offset: Offset, body: Bytes) {
        self.bytes += body.len();
        self.items.push(Item::Event { epoch, offset, body });
        self.at = offset.plus(1);
    }

    fn skip(&mut self, to: Offset, reason: DropReason) {
        if to > self.at {
            self.items.push(Item::Skip { from: self.at, to, reason });
            self.at = to;
        }
    }

    /// The items. A few small bodies are copied, so that they do not keep the large buffer they lie in alive.
    fn finish(&mut self) -> Vec<Item> {
        let mut items = std::mem::take(&mut self.items);
        if self.bytes < 4096 {
            for item in &mut items {
                if let Item::Event { body, .. } = item {
                    *body = Bytes::copy_from_slice(body);
                }
            }
        }
        items
    }
}
