//! Consumers, their cursors and their ledger.

use std::collections::BTreeMap;

use super::Offset;

/// Where a new consumer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the oldest event kept.
    Earliest,
    /// At the next event appended.
    Next,
    /// At a given offset, or the oldest kept if that is later.
    At(Offset),
}

/// Why events were dropped. The text is what the ledger, `/status` and `/metrics` show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DropReason {
    /// Room was needed, or the broker's age or count limit was reached, before the consumer had the event.
    Retention = 1,
    /// The record was damaged on disk.
    Quarantined = 2,
    /// The event's `expirytime` had passed.
    Expired = 3,
    /// An operator moved the cursor past the event.
    Skipped = 4,
    /// The gateway refused the event for good.
    Refused = 5,
    /// The receiver had the event already, by `source` and `id`.
    Duplicate = 6,
    /// The event was dropped further up before it came to this broker.
    Upstream = 7,
    /// Somebody dropped it from the dead letters.
    ByHand = 8,
}

impl DropReason {
    /// All reasons, in the order of their codes.
    pub const ALL: [Self; 8] = [
        Self::Retention,
        Self::Quarantined,
        Self::Expired,
        Self::Skipped,
        Self::Refused,
        Self::Duplicate,
        Self::Upstream,
        Self::ByHand,
    ];

    /// The reason's name as shown to people and machines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Quarantined => "quarantined",
            Self::Expired => "expired",
            Self::Skipped => "skipped",
            Self::Refused => "refused",
            Self::Duplicate => "duplicate",
            Self::Upstream => "upstream",
            Self::ByHand => "dropped-by-hand",
        }
    }

    /// The reason with this code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|r| *r as u8 == code)
    }
}

/// What became of the events that a cursor moves past.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Done {
    /// Taken by the subscriber.
    pub delivered: u64,
    /// Not wanted by the filter.
    pub filtered: u64,
    /// Put into the dead letter sink or the dead-letter journal.
    pub dead_lettered: u64,
    /// Dropped, by reason.
    pub dropped: BTreeMap<DropReason, u64>,
}

impl Done {
    /// How many events this accounts for.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.delivered + self.filtered + self.dead_lettered + self.dropped.values().sum::<u64>()
    }

    /// Adds another account to this one.
    pub fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.filtered += other.filtered;
        self.dead_lettered += other.dead_lettered;
        for (reason, n) in &other.dropped {
            *self.dropped.entry(*reason).or_default() += n;
        }
    }
}

/// One consumer as the ledger has it: `next_offset - since = done.total() + pending`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerStatus {
    /// The consumer's name, unique in its journal.
    pub name: String,
    /// The offset at which it began.
    pub since: Offset,
    /// The next offset it has not finished.
    pub cursor: Offset,
    /// What became of the events from `since` to `cursor`.
    pub done: Done,
    /// Events at and after the cursor.
    pub pending: u64,
    /// Whether it holds events back under the policy `reject`.
    pub holds: bool,
}
