//! The limits of a journal.

use crate::clock::Clock;

/// What happens when a journal is at its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// The oldest segment makes room; whoever had not read it has its loss counted.
    #[default]
    DropOldest,
    /// New events are refused until those that hold have read the oldest segment.
    Reject,
}

/// Smallest segment in bytes: two of the smallest batches and their head-room.
pub const MIN_SEGMENT_BYTES: u64 = 16 << 10;

/// The limits of a journal.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of one segment file. Files of another size that are there already stay readable and are not recycled.
    pub segment_bytes: u64,
    /// Most bytes of all segment files together; never less than four segments.
    pub max_bytes: u64,
    /// Events older than this, by the journal's own elapsed time, are dropped a segment at a time: an event goes at the latest at twice this age.
    pub max_age_ms: Option<u64>,
    /// More events than this are not kept, to the segment.
    pub max_count: Option<u64>,
    /// How long what all consumers have passed is kept while there is room.
    pub keep_ms: u64,
    /// What happens at the limit.
    pub policy: Policy,
    /// Each commit waits this long for company: fewer writes to flash for later acknowledgements.
    pub commit_delay_ms: u64,
    /// Bytes that may wait for the disk before [`super::Journal::append`] answers `Busy`.
    pub max_pending_bytes: usize,
    /// Where time comes from.
    pub clock: Clock,
    /// Tells a segment's summary what is in an event's stored form. Without it segments have no summary and are always read.
    pub digest: Option<super::Digest>,
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
            digest: None,
        }
    }
}

impl Options {
    /// The same with every limit in its allowed range.
    #[must_use]
    pub(super) fn checked(mut self) -> Self {
        self.segment_bytes = self.segment_bytes.clamp(MIN_SEGMENT_BYTES, 1 << 30) & !4095;
        self.max_bytes = self.max_bytes.max(4 * self.segment_bytes);
        self.max_pending_bytes = self.max_pending_bytes.clamp(1 << 10, self.max_append());
        self
    }

    /// Most bytes of one append, records and their headers included: half a segment.
    #[must_use]
    pub fn max_append(&self) -> usize {
        usize::try_from(self.segment_bytes / 2).unwrap_or(usize::MAX)
    }
}
