//! The synchronous heart of the journal: one batch after the other into the active segment, a new segment when that is full.
//!
//! Nothing here waits or spawns; the writer thread drives it, and so do the crash tests. Rules that the rest relies on:
//! - One batch is unsynced at most. What `commit` returned `Ok` for is on disk; what it refused is not in the journal.
//! - After a failed `fdatasync` nothing more is written to that segment: its pages cannot be trusted. The next commit begins a
//!   new segment in a new epoch at the offset after the last durable event.
//! - A new segment's file gets its name durably before its first byte is written, so that a name never lies about what is in it:
//!   either the head is there, or the file counts as unused.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{debug, warn};

use super::damage::Told;
use super::error::{OpenError, Refused};
use super::format::{BATCH_BYTES, BatchHead, HEAD_BYTES, Head, snapshot_crc};
use super::segment::{Segment, Table};
use super::state::State;
use super::{Committed, Epoch, Offset, Options};
use crate::storage::{Storage, StorageFile};

/// Spare segments that events may not use: the head-room in which cursors still move and restarts still work on a full disk.
pub const RESERVE: usize = 2;
/// A sealed segment's index and summary lie in the last bytes of its file; so many of them.
pub(super) fn footer_bytes(segment_bytes: u64) -> u64 {
    (8 << 10).min(segment_bytes / 8)
}
/// Between two entries of the active segment's sparse index.
const INDEX_EVERY: u64 = 64 << 10;

/// What readers and `/status` see: only what is durable.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) state: State,
    pub(super) table: Table,
    /// Of the active segment: some offsets and the positions of the batches that begin with them.
    pub(super) index: Vec<(Offset, u64)>,
    /// Of the active segment: where its first batch begins.
    pub(super) start: u64,
    /// What damage has been logged.
    pub(super) told: Told,
}

/// One group commit, being gathered.
#[derive(Debug)]
pub struct Batch {
    /// Room for the header, then the records that came with events.
    pub(super) bytes: Vec<u8>,
    pub(super) events: u32,
    /// Control records that stand on their own.
    pub(super) control: Vec<u8>,
}

impl Default for Batch {
    fn default() -> Self {
        Self { bytes: vec![0; BATCH_BYTES], events: 0, control: Vec::new() }
    }
}

impl Batch {
    /// Whether there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == BATCH_BYTES && self.control.is_empty()
    }

    /// Bytes gathered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - BATCH_BYTES + self.control.len()
    }

    /// Forgets the events and what came with them.
    pub(super) fn forget_events(&mut self) {
        self.bytes.truncate(BATCH_BYTES);
        self.events = 0;
    }

    /// Forgets everything; memory beyond `keep` bytes is given back.
    pub(super) fn clear(&mut self, keep: usize) {
        self.bytes.truncate(BATCH_BYTES);
        self.bytes.shrink_to(keep + BATCH_BYTES);
        self.control.clear();
        self.control.shrink_to(keep);
        self.events = 0;
    }
}

/// For what a segment is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Events,
    Control,
}

/// See the module.
#[derive(Debug)]
pub struct Log {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) dir: String,
    pub(super) options: Options,
    pub(super) view: Arc<Mutex<View>>,
    pub(super) epoch: Epoch,
    active: Option<Arc<dyn StorageFile>>,
    /// Bytes of the active segment's file: it is filled to its own size whatever the options say by now.
    active_bytes: u64,
    pub(super) seq: u64,
    /// Where the next batch goes in the active segment.
    pub(super) position: u64,
    /// The active segment was begun from the reserve: no events until there is room again.
    pub(super) control_only: bool,
    /// The last events were refused because the disk is full, and there is no room for more yet.
    pub(super) starved: bool,
    /// The active segment cannot be written to any more.
    poisoned: bool,
    /// Names of files that may be overwritten, oldest first.
    pub(super) spares: VecDeque<String>,
    pub(super) next_spare: u64,
    /// A segment was freed and the folder has not been synced since.
    pub(super) freed: bool,
    /// Freed segments that could not be removed.
    pub(super) lingering: Vec<String>,
    elapsed_base: u64,
    /// A segment that was sealed and has no footer yet.
    unsealed: Option<u64>,
}

pub(super) fn lock(view: &Mutex<View>) -> MutexGuard<'_, View> {
    // A panic while the lock was held cannot leave the view half changed in a way that matters more than going on.
    view.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    /// Opens the journal in `dir` of `storage`, recovering it if need be; see `recovery.rs`.
    ///
    /// # Errors
    /// See [`OpenError`]. Damage is never an error: it is quarantined and logged.
    pub fn open(storage: Arc<dyn Storage>, dir: &str, options: Options) -> Result<Self, OpenError> {
        let options = options.checked();
        let found = super::recovery::recover(&storage, dir, &options)?;
        let now = options.clock.elapsed_ms();
        let mut log = Self {
            epoch: draw(dir)?,
            active: None,
            active_bytes: 0,
            starved: false,
            seq: found.last_seq,
            position: 0,
            control_only: false,
            poisoned: false,
            next_spare: found.next_spare,
            freed: false,
            lingering: Vec::new(),
            unsealed: None,
            spares: found.spares,
            elapsed_base: found.state.elapsed_ms.saturating_sub(now),
            view: Arc::new(Mutex::new(View {
                state: found.state,
                table: found.table,
                told: found.told,
                ..View::default()
            })),
            storage,
            dir: dir.to_owned(),
            options,
        };
        log.roll(Need::Control).map_err(|refused| OpenError::NoRoom {
            dir: dir.to_owned(),
            needed: log.options.segment_bytes,
            free: log.storage.free_bytes().unwrap_or(0),
            refused,
        })?;
        log.give_back_tail(found.last_used.0, found.last_used.1);
        Ok(log)
    }

    pub(super) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.dir)
    }

    /// The journal's own elapsed time: what it has run, over all its starts.
    pub(super) fn now_ms(&self) -> u64 {
        self.elapsed_base.saturating_add(self.options.clock.elapsed_ms())
    }

    /// The last position at which events may end in the active segment; beyond it lies the control records' head-room.
    fn event_limit(&self) -> u64 {
        self.control_limit() - (self.active_bytes / 16).min(64 << 10)
    }

    fn control_limit(&self) -> u64 {
        self.active_bytes - footer_bytes(self.active_bytes)
    }

    /// Whether events find no room on the disk, as far as is known without trying.
    pub(super) fn lacks_room(&self) -> bool {
        self.starved || self.control_only
    }

    /// Other limits from now on. Where the segments' size changes, spares of the old one go, and the reserve is made anew.
    pub(super) fn set_options(&mut self, options: Options) {
        let options = options.checked();
        let resized = options.segment_bytes != self.options.segment_bytes;
        self.options = options;
        if !resized {
            return;
        }
        for name in std::mem::take(&mut self.spares) {
            self.freed = true;
            // One that stays under a spare's name is removed by the next start, for its size; under a segment's name it must go
            // before an older segment does.
            if self.storage.remove(&self.path(&name)).is_err() && Segment::parse(&name).is_some() {
                self.lingering.push(name);
            }
        }
        if let Err(error) = self.refill_reserve() {
            warn!(dir = %self.dir, %error, "no room for head-room in segments of the new size: events are refused until there is");
            self.control_only = true;
        }
    }

    /// Makes a batch durable, whole, or refuses it, whole. The batch is left as it was if refused.
    ///
    /// # Errors
    /// See [`Refused`]; nothing of the batch is then in the journal.
    pub fn commit(&mut self, batch: &mut Batch) -> Result<Committed, Refused> {
        let outcome = self.try_commit(batch);
        if batch.events > 0 {
            self.starved = matches!(outcome, Err(Refused::DiskFull));
        }
        outcome
    }

    fn try_commit(&mut self, batch: &mut Batch) -> Result<Committed, Refused> {
        let need = if batch.events > 0 { Need::Events } else { Need::Control };
        let len = (batch.bytes.len() + batch.control.len()) as u64;
        if need == Need::Events && self.control_only {
            self.refill_reserve()?;
        }
        let fits = |log: &Self| {
            let limit = if need == Need::Events { log.event_limit() } else { log.control_limit() };
            log.active.is_some() && !log.poisoned && log.position + len <= limit
        };
        if !fits(self) {
            self.roll(need)?;
            if !fits(self) {
                return Err(Refused::TooLarge {
                    size: usize::try_from(len).unwrap_or(usize::MAX),
                    limit: usize::try_from(self.event_limit().saturating_sub(self.position)).unwrap_or(usize::MAX),
                });
            }
        }
        self.write(batch, len)
    }

    fn write(&mut self, batch: &mut Batch, len: u64) -> Result<Committed, Refused> {
        let Some(active) = self.active.clone() else { return Err(Refused::Closed) };
        let first = lock(&self.view).state.next;
        let events_len = batch.bytes.len() - BATCH_BYTES;
        let header = BatchHead {
            len: u32::try_from(len).map_err(|_| Refused::TooLarge { size: usize::MAX, limit: u32::MAX as usize })?,
            events_len: u32::try_from(events_len).unwrap_or(u32::MAX),
            events: batch.events,
            first,
            epoch: self.epoch,
            elapsed_ms: self.now_ms(),
        };
        batch.bytes.extend_from_slice(&batch.control);
        header.seal(&mut batch.bytes, self.seq, self.position);
        let written = active.write_all_at(&batch.bytes, self.position);
        if let Err(e) = written {
            // What part of it reached the file is no valid batch, and the next one is written over it.
            batch.bytes.truncate(BATCH_BYTES + events_len);
            return Err(Refused::from_io("writing a segment", &e));
        }
        if let Err(e) = active.sync_data() {
            // durable before: nothing of this batch may be acknowledged. Its pages may be on disk or not, and the kernel now
            // calls them clean, so a second fdatasync would prove nothing. Only a new segment in a new epoch is safe.
            self.poisoned = true;
            batch.bytes.truncate(BATCH_BYTES + events_len);
            warn!(dir = %self.dir, error = %e, "fdatasync failed: going on in a new segment and epoch");
            return Err(Refused::from_io("fdatasync of a segment", &e));
        }
        let mut view = lock(&self.view);
        view.state.apply_batch(&batch.bytes[BATCH_BYTES..], events_len, batch.events, self.epoch, header.elapsed_ms);
        if batch.events > 0 && view.index.last().is_none_or(|(_, at)| self.position >= at + INDEX_EVERY) {
            view.index.push((first, self.position));
        }
        self.position += len;
        drop(view);
        batch.bytes.truncate(BATCH_BYTES + events_len);
        Ok(Committed { epoch: self.epoch, first })
    }

    /// Begins a new segment: gets a file, names it, writes head and snapshot, makes both durable.
    pub(super) fn roll(&mut self, need: Need) -> Result<(), Refused> {
        let spare = self.take_file(need)?;
        if self.poisoned {
            self.epoch = Epoch::draw().map_err(|e| Refused::Disk(format!("no random numbers for a new epoch: {e}")))?;
        }
        match self.begin(&spare) {
            Ok(()) => {
                self.poisoned = false;
                self.drop_empty_predecessor();
                let roomy =
                    self.may_grow() && self.storage.free_bytes().is_ok_and(|free| free >= 2 * self.options.segment_bytes);
                self.control_only = need == Need::Control && self.spares.len() < RESERVE && !roomy;
                Ok(())
            }
            Err(e) => Err(Refused::from_io("beginning a segment", &e)),
        }
    }

    fn begin(&mut self, spare: &str) -> io::Result<()> {
        let mut state = lock(&self.view).state.clone();
        let elapsed_ms = self.now_ms();
        state.elapsed_ms = state.elapsed_ms.max(elapsed_ms);
        let segment =
            Segment { seq: self.seq + 1, first: state.next, len: self.options.segment_bytes, begun_ms: Some(elapsed_ms) };
        state.enter_epoch(self.epoch);
        if lock(&self.view).table.is_empty() {
            state.first_seq = segment.seq;
            state.first = segment.first;
        }
        let name = segment.name();
        let renamed = self.storage.rename(&self.path(spare), &self.path(&name));
        // Whichever name the file has after a failure, it may be overwritten again.
        self.spares.push_front(if renamed.is_ok() { name.clone() } else { spare.to_owned() });
        renamed?;
        // durable before: only now may the file's content change. A power cut before leaves an old file under the old name, or
        // under the new one with a head that does not fit it, which recovery takes for unused.
        self.storage.sync_dir(&self.dir)?;
        self.freed = false;
        let file = self.storage.open(&self.path(&name), false)?;
        let snapshot = state.encode();
        let head = Head {
            seq: segment.seq,
            epoch: self.epoch,
            first: segment.first,
            elapsed_ms,
            snapshot_len: u32::try_from(snapshot.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
            snapshot_crc: snapshot_crc(self.epoch, segment.seq, segment.first, &snapshot),
        };
        let mut bytes = head.encode().to_vec();
        debug_assert_eq!(bytes.len(), HEAD_BYTES);
        bytes.extend_from_slice(&snapshot);
        // From here a head may be on disk that recovery would begin with: nothing may go to the old segment any more.
        self.poisoned = true;
        file.write_all_at(&bytes, 0)?;
        file.sync_data()?;
        self.spares.pop_front();
        let mut view = lock(&self.view);
        view.state = state;
        view.index.clear();
        view.start = bytes.len() as u64;
        self.unsealed = view.table.back().map(|s| s.seq);
        view.table.push_back(segment);
        self.position = view.start;
        self.seq += 1;
        self.active = Some(file);
        self.active_bytes = self.options.segment_bytes;
        debug!(dir = %self.dir, seq = self.seq, first = %view.state.next, "began a segment");
        Ok(())
    }

    /// A segment that had no events when the next was begun holds nothing that the next one's snapshot does not.
    fn drop_empty_predecessor(&mut self) {
        let mut view = lock(&self.view);
        let Some(at) = view.table.len().checked_sub(2) else { return };
        let (Some(before), Some(last)) = (view.table.get(at), view.table.back()) else { return };
        if before.first != last.first {
            return;
        }
        let Some(segment) = view.table.remove(at) else { return };
        if at == 0 {
            let (seq, first) = view.table.front().map_or((0, Offset(0)), |s| (s.seq, s.first));
            view.state.trim(seq, first);
        }
        drop(view);
        self.release(&segment);
    }

    /// Cuts the unused tail off the segment before the active one, at a start.
    fn give_back_tail(&mut self, seq: u64, used: u64) {
        let mut view = lock(&self.view);
        let Some(segment) = view.table.iter_mut().rev().find(|s| s.seq == seq) else { return };
        let cut = (used + 16 * 1024).next_multiple_of(4096);
        if used == 0 || cut + (64 << 10) > segment.len {
            return;
        }
        let name = segment.name();
        // What is cut lies behind the next segment's first offset: recovery and readers ignore it, before and after.
        let done = self.storage.open(&self.path(&name), false).and_then(|file| file.set_len(cut));
        if done.is_ok() {
            segment.len = cut;
        }
    }

    /// What a segment sealed since the last call needs to get its footer; runs anywhere, beside the log.
    pub(super) fn take_unsealed(&mut self) -> Option<impl FnOnce() + Send + 'static> {
        let seq = self.unsealed.take()?;
        let (segment, until) = {
            let view = lock(&self.view);
            let at = view.table.iter().rposition(|s| s.seq == seq)?;
            (view.table.get(at)?.clone(), view.table.get(at + 1)?.first)
        };
        let (storage, dir, digest) = (Arc::clone(&self.storage), self.dir.clone(), self.options.digest);
        Some(move || {
            let start = super::reader::first_batch(&storage, &dir, &segment);
            if let Err(e) = start.and_then(|start| super::summary::seal(&storage, &dir, &segment, start, until, digest)) {
                debug!(dir, file = segment.name(), error = %e, "a segment gets no footer");
            }
        })
    }
}

fn draw(dir: &str) -> Result<Epoch, OpenError> {
    Epoch::draw().map_err(|e| OpenError::Random(e, dir.to_owned()))
}
