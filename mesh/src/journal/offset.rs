//! Where an event stands: offset, epoch, lineage.

use std::fmt;

/// The place of an event in its broker: dense, from 0, given at append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset `n` further on.
    #[must_use]
    pub const fn plus(self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }

    /// How many offsets lie from `earlier` up to this one; 0 if it is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A random id drawn at every start of a journal. An event's name for ever is (agent, broker, epoch, offset).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Draws a new epoch, never 0.
    ///
    /// # Errors
    /// When the system has no random numbers to give.
    pub fn draw() -> Result<Self, getrandom::Error> {
        loop {
            let n = getrandom::u64()?;
            if n != 0 {
                return Ok(Self(n));
            }
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The epochs of a journal in order, each with its first offset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lineage(pub Vec<(Epoch, Offset)>);

impl Lineage {
    /// The epoch in which the event at `offset` was appended, if the lineage reaches so far back.
    #[must_use]
    pub fn epoch_at(&self, offset: Offset) -> Option<Epoch> {
        self.0.iter().rev().find(|(_, first)| *first <= offset).map(|(epoch, _)| *epoch)
    }
}
