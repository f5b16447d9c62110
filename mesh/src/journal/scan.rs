//! Walking through the batches of one segment file, over damage too. Recovery and readers both do.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::Offset;
use super::format::{BATCH_BYTES, BatchHead};
use crate::storage::StorageFile;

/// Bytes read at once: few at first, as a reader that has caught up wants one small batch, then more. A longer batch is read whole.
const WINDOW: (usize, usize) = (8 << 10, 128 << 10);

/// A walk through one segment.
#[derive(Debug)]
pub(super) struct Scan {
    file: Arc<dyn StorageFile>,
    seq: u64,
    /// Where the next batch begins.
    position: u64,
    /// The window: bytes of the file from `window_at` on.
    window: Bytes,
    window_at: u64,
    read_ahead: usize,
}

/// A valid batch: its header, where it lies, and its records.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) head: BatchHead,
    pub(super) position: u64,
    pub(super) records: Bytes,
}

impl Scan {
    pub(super) fn new(file: Arc<dyn StorageFile>, seq: u64, position: u64) -> Self {
        Self { file, seq, position, window: Bytes::new(), window_at: 0, read_ahead: WINDOW.0 }
    }

    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Goes to another position; what was read before is read again, as it may have been written since.
    pub(super) fn seek(&mut self, position: u64) {
        self.position = position;
        self.window = Bytes::new();
        self.read_ahead = WINDOW.0;
    }

    /// Goes back to a batch that was just read; what was read is kept.
    pub(super) fn rewind(&mut self, position: u64) {
        self.position = position;
    }

    /// The batch at the position, if it is whole and valid there; then the position is behind it. `None`: the end, or damage.
    ///
    /// # Errors
    /// Whatever the file system answers.
    pub(super) fn next(&mut self) -> io::Result<Option<Found>> {
        let found = self.at(self.position)?;
        if let Some(found) = &found {
            self.position += u64::from(found.head.len);
        }
        Ok(found)
    }

    /// Looks beyond damage: the next valid batch after the position that begins at `expected` or later. The position is then
    /// behind it; at the end of the file it stays.
    ///
    /// # Errors
    /// Whatever the file system answers.
    pub(super) fn resync(&mut self, expected: Offset) -> io::Result<Option<Found>> {
        let mut at = self.position + 1;
        loop {
            self.fill(at, BATCH_BYTES)?;
            let from = usize::try_from(at - self.window_at).unwrap_or(usize::MAX);
            let Some(hit) = BatchHead::find(&self.window, from) else {
                // A magic number may lie across the border of two windows: keep its first three bytes.
                let read_to = self.window_at + self.window.len() as u64;
                if self.window.len() < from + BATCH_BYTES {
                    return Ok(None);
                }
                at = read_to.saturating_sub(3).max(at + 1);
                self.window = Bytes::new();
                continue;
            };
            at = self.window_at + hit as u64;
            self.fill(at, BATCH_BYTES)?;
            let from = usize::try_from(at - self.window_at).unwrap_or(usize::MAX);
            let plausible = self.window.get(from..).and_then(BatchHead::peek).is_some_and(|head| head.first >= expected);
            if plausible && let Some(found) = self.at(at)? {
                self.position = at + u64::from(found.head.len);
                return Ok(Some(found));
            }
            at += 1;
        }
    }

    /// The header at the position, whether or not a whole batch follows.
    ///
    /// # Errors
    /// Whatever the file system answers.
    pub(super) fn peek(&mut self) -> io::Result<Option<BatchHead>> {
        self.fill(self.position, BATCH_BYTES)?;
        Ok(self.window.get(self.index(self.position)..).and_then(BatchHead::peek))
    }

    fn at(&mut self, position: u64) -> io::Result<Option<Found>> {
        self.fill(position, BATCH_BYTES)?;
        let Some(head) = self.window.get(self.index(position)..).and_then(BatchHead::peek) else { return Ok(None) };
        if position + u64::from(head.len) > self.file.len()? {
            return Ok(None);
        }
        self.fill(position, head.len as usize)?;
        let from = self.index(position);
        let Some(bytes) = self.window.get(from..) else { return Ok(None) };
        let Some(head) = BatchHead::check(bytes, self.seq, position) else { return Ok(None) };
        let records = self.window.slice(from + BATCH_BYTES..from + head.len as usize);
        Ok(Some(Found { head, position, records }))
    }

    fn index(&self, position: u64) -> usize {
        usize::try_from(position - self.window_at).unwrap_or(usize::MAX)
    }

    /// Makes the window hold `want` bytes from `position` on, or all there are.
    fn fill(&mut self, position: u64, want: usize) -> io::Result<()> {
        let held = self.window_at..self.window_at + self.window.len() as u64;
        if held.contains(&position) && position + want as u64 <= held.end {
            return Ok(());
        }
        let mut bytes = vec![0; want.max(self.read_ahead)];
        self.read_ahead = (self.read_ahead * 4).min(WINDOW.1);
        let mut filled = 0;
        while filled < bytes.len() {
            match self.file.read_at(&mut bytes[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        bytes.truncate(filled);
        self.window = bytes.into();
        self.window_at = position;
        Ok(())
    }
}
