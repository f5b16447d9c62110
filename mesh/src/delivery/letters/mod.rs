//! Dead letters for people: looked at, sent again, dropped.
//!
//! A Broker's dead-letter journal is read like any other. Its one consumer, the keeper, holds what nobody has settled yet; its
//! ledger says what became of the letters: `delivered` are those replayed, `dropped-by-hand` those dropped, and the rest waits.
//! Which letters beyond its cursor are settled, facts say; the cursor follows as soon as nothing waits before them, and then
//! their segments' space is free. Nobody changes anything but the one who has the Broker's [`Work`].
//!
//! Memory does not depend on how many letters there are: they are read piece by piece, in the order in which they came.

mod replay;
mod selection;

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

pub use replay::{Summary, To, Told};
pub(crate) use selection::event_of;
pub use selection::{MAX_NAMED, Selection};

use super::{DeadLetter, append};
use crate::broker::{Broker, BrokerError, Fate, Settled, Settling, passed};
use crate::journal::{Consumer, Done, DropReason, Epoch, Item, Journal, Offset, ReadError, Reader, Refused};
use crate::names::AgentId;

/// How much is read at once.
const PIECE_BYTES: usize = 64 << 10;

/// The fact that names the letters which a replay had sent, or was about to, when it ended without knowing what became of them.
const DOUBTS: &[u8] = b"p";
/// Most of them; each needs a run that was cut short. The oldest go first.
const MOST_DOUBTS: usize = 64;
/// Most stretches of lost letters that one run remembers.
const MOST_LOST: usize = 64;

/// A Broker's dead letters.
#[derive(Debug, Clone)]
pub struct Letters {
    broker: Arc<Broker>,
    journal: Journal,
    keeper: Consumer,
}

/// One dead letter at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its offset in the dead-letter journal, by which people name it.
    pub offset: Offset,
    /// The epoch of the dead-letter journal in which it came.
    pub epoch: Epoch,
    /// The letter; none where this version cannot read it.
    pub letter: Option<DeadLetter>,
}

/// What a walk comes across.
#[derive(Debug)]
enum Found {
    Letter(Placed),
    /// Letters that the disk has lost.
    Lost(Lost),
}

#[derive(Debug, Clone, Copy)]
struct Lost {
    from: Offset,
    to: Offset,
    reason: DropReason,
}

/// A way through the letters that wait and are meant, up to the last one there was when it began.
#[derive(Debug)]
pub struct Walk {
    reader: Reader,
    until: Offset,
    selection: Selection,
    settled: Settled,
    agent: Option<AgentId>,
    scratch: String,
}

/// The right to settle a Broker's letters: one at a time has it.
#[derive(Debug)]
pub struct Work {
    letters: Letters,
    lost: Vec<Lost>,
    _alone: OwnedMutexGuard<()>,
}

impl Letters {
    /// The dead letters of a Broker; none where there never was one.
    ///
    /// # Errors
    /// When their journal cannot be opened.
    pub async fn of(broker: &Arc<Broker>) -> Result<Option<Self>, BrokerError> {
        let Some(journal) = broker.existing_dead_letters().await?.cloned() else { return Ok(None) };
        let keeper = Broker::keeper(&journal);
        Ok(Some(Self { broker: broker.clone(), journal, keeper }))
    }

    /// Goes through the letters that are meant, from `from` on at the earliest.
    #[must_use]
    pub fn walk(&self, selection: Selection, from: Offset, agent: Option<&AgentId>) -> Walk {
        let begin = self.keeper.cursor().max(selection.first()).max(from);
        Walk {
            reader: self.journal.reader(begin),
            until: self.journal.next_offset().min(selection.end()),
            selection,
            settled: Settled::new(self.journal.clone()),
            agent: agent.cloned(),
            scratch: String::new(),
        }
    }

    /// The letters of which nobody knows whether the subscriber has them from a replay that was cut short.
    #[must_use]
    pub fn doubts(&self) -> BTreeSet<(Offset, Epoch)> {
        let bytes = self.journal.fact(DOUBTS).unwrap_or_default();
        let pairs = bytes.as_chunks::<16>().0.iter().map(|pair| u128::from_le_bytes(*pair));
        let halves =
            |pair: u128| (u64::try_from(pair >> 64).unwrap_or(0), u64::try_from(pair & u128::from(u64::MAX)).unwrap_or(0));
        pairs.map(halves).map(|(offset, epoch)| (Offset(offset), Epoch(epoch))).collect()
    }

    /// The right to settle letters; none while somebody else has it.
    #[must_use]
    pub fn work(self) -> Option<Work> {
        let alone = self.broker.settle_dead_letters()?;
        Some(Work { letters: self, lost: Vec::new(), _alone: alone })
    }
}

impl Walk {
    /// The next letters, some; none at the end.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn letters(&mut self) -> Result<Option<Vec<Placed>>, ReadError> {
        let found = self.next().await?;
        Ok(found.map(|found| found.into_iter().filter_map(Found::letter).collect()))
    }

    async fn next(&mut self) -> Result<Option<Vec<Found>>, ReadError> {
        self.settled.look_again();
        loop {
            if self.reader.position() >= self.until {
                return Ok(None);
            }
            let items = self.reader.try_next(PIECE_BYTES).await?;
            if items.is_empty() {
                return Ok(None);
            }
            let found: Vec<Found> = items.into_iter().filter_map(|item| self.look(item)).collect();
            if !found.is_empty() {
                return Ok(Some(found));
            }
        }
    }

    fn look(&mut self, item: Item) -> Option<Found> {
        let (epoch, offset, body) = match item {
            Item::Event { epoch, offset, body } if offset < self.until => (epoch, offset, body),
            Item::Skip { from, to, reason } => return Some(Found::Lost(Lost { from, to, reason })),
            Item::Event { .. } | Item::Unwanted { .. } => return None,
        };
        if self.settled.fate(offset).is_some() {
            return None;
        }
        let letter = DeadLetter::decode(&body);
        let meant = match &letter {
            Some(letter) => self.selection.takes(offset, letter, self.agent.as_ref(), &mut self.scratch),
            // Of one that cannot be read no more is known than its place.
            None => {
                let placed = Selection { offsets: self.selection.offsets.clone(), ..Selection::default() };
                self.selection == placed && (placed.is_all() || placed.offsets.contains(&offset.0))
            }
        };
        meant.then_some(Found::Letter(Placed { offset, epoch, letter }))
    }
}

impl Found {
    fn letter(self) -> Option<Placed> {
        match self {
            Self::Letter(placed) => Some(placed),
            Self::Lost(_) => None,
        }
    }
}

impl Work {
    /// Drops the letters that are meant; returns how many. What was dropped before an error stays so.
    ///
    /// # Errors
    /// Why not all of them were.
    pub async fn drop_letters(mut self, selection: Selection, agent: Option<&AgentId>) -> Result<u64, String> {
        let mut walk = self.letters.walk(selection, Offset(0), agent);
        let mut dropped = 0;
        while let Some(found) = walk.next().await.map_err(|e| e.to_string())? {
            let mut settling = Settling::default();
            let mut now = 0;
            for found in found {
                match found {
                    Found::Lost(lost) => self.note_lost(lost),
                    Found::Letter(placed) => {
                        settling.add(&self.letters.journal, placed.offset, Fate::Dropped);
                        now += 1;
                    }
                }
            }
            self.settle(&settling, None).await.map_err(|e| e.to_string())?;
            dropped += now;
        }
        self.advance().await.map_err(|e| e.to_string())?;
        tracing::info!(broker = %self.letters.broker.name(), letters = dropped, "dead letters were dropped by hand");
        Ok(dropped)
    }

    fn note_lost(&mut self, lost: Lost) {
        if self.lost.len() < MOST_LOST {
            self.lost.push(lost);
        }
    }

    /// Makes durable what is settled, and which letters are in doubt where that is to change.
    async fn settle(&mut self, settling: &Settling, doubts: Option<&BTreeSet<(Offset, Epoch)>>) -> Result<(), Refused> {
        if settling.is_empty() && doubts.is_none() {
            return Ok(());
        }
        let cursor = self.letters.keeper.cursor();
        let doubts: Option<Vec<u8>> = doubts.map(|doubts| {
            let stand = doubts.iter().filter(|(offset, _)| *offset >= cursor);
            let late = stand.clone().count().saturating_sub(MOST_DOUBTS);
            stand
                .skip(late)
                .flat_map(|(offset, epoch)| (u128::from(offset.0) << 64 | u128::from(epoch.0)).to_le_bytes())
                .collect()
        });
        append(&self.letters.journal, |append| {
            settling.put(append);
            match &doubts {
                None => {}
                Some(none) if none.is_empty() => append.delete(DOUBTS),
                Some(some) => append.put(DOUBTS, some),
            }
        })
        .await
        .map(|_| ())
    }

    /// Moves the keeper's cursor past what is settled, so that its space is free.
    async fn advance(&mut self) -> Result<(), Refused> {
        let (journal, keeper) = (&self.letters.journal, &self.letters.keeper);
        let (mut to, next, mut done) = (keeper.cursor(), journal.next_offset(), Done::default());
        let from = to;
        let mut settled = Settled::new(journal.clone());
        while to < next {
            if let Some(lost) = self.lost.iter().find(|lost| lost.from <= to && to < lost.to) {
                *done.dropped.entry(lost.reason).or_default() += lost.to.since(to);
                to = lost.to;
                continue;
            }
            match settled.fate(to) {
                Some(Fate::Replayed) => done.delivered += 1,
                Some(Fate::Dropped) => *done.dropped.entry(DropReason::ByHand).or_default() += 1,
                None => break,
            }
            to = to.plus(1);
        }
        if to == from {
            return Ok(());
        }
        keeper.advance(to, &done);
        // durable before: without their facts, letters behind a cursor that a crash takes back would wait once more.
        keeper.flushed().await?;
        let passed = passed(journal, to);
        if !passed.is_empty() {
            append(journal, |append| passed.iter().for_each(|key| append.delete(key))).await?;
        }
        Ok(())
    }
}
