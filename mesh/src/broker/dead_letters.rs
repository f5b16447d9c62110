//! A Broker's dead-letter journal: opened when there is one, made when the first dead letter comes.
//!
//! What it holds is held until somebody replays or drops it: one consumer stands before the first letter that nobody has
//! settled, and keeps what follows under the policy `reject`. When it is full, dead letters are refused and the Trigger's cursor
//! waits; nothing is thrown away.

use std::io;
use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::registry::{Broker, BrokerError, open_journal};
use super::settled;
use crate::journal::{Consumer, Done, Journal, Options, Policy, Start};

/// The consumer that holds dead letters.
const KEEPER: &str = "kept";

/// Dead letters are few, so segments of half the size do, and of this much at most: half of one still takes the largest event
/// that listeners let in by default. Where a larger one comes they grow.
const MOST_SEGMENT_BYTES: u64 = 4 << 20;

/// Share of the Broker's room, and the least in segments.
const SHARE: u64 = 8;
const LEAST_SEGMENTS: u64 = 4;

/// Larger segments are not made: what is more than half of this came in by no listener.
const LARGEST_SEGMENT_BYTES: u64 = 256 << 20;

/// What became of a Broker's dead letters: those that came are those in `done` and those that are pending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// Replayed (`delivered`), and dropped by reason.
    pub done: Done,
    /// Neither.
    pub pending: u64,
    /// Bytes of the journal's segment files.
    pub bytes: u64,
}

impl Broker {
    /// The dead-letter journal, made if there is none yet. Opens it off the runtime.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub async fn dead_letters(&self) -> Result<&Journal, BrokerError> {
        self.dead_letters
            .get_or_try_init(|| async {
                let options = self.dead_letter_options(self.dead_letter_segment());
                let journal = open_journal(self.storage.clone(), self.dead_letters_dir(), options, self.name()).await?;
                Self::keeper(&journal);
                Ok(journal)
            })
            .await
    }

    /// The dead-letter journal if there is one.
    ///
    /// # Errors
    /// When there is one, but it cannot be opened.
    pub async fn existing_dead_letters(&self) -> Result<Option<&Journal>, BrokerError> {
        if self.dead_letters.get().is_none() {
            let (storage, dir) = (self.storage.clone(), self.dead_letters_dir());
            let listed = tokio::task::spawn_blocking(move || storage.list(&dir)).await;
            match listed.unwrap_or_else(|e| Err(io::Error::other(e))) {
                Ok(files) if files.is_empty() => return Ok(None),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(BrokerError::Io { what: self.dead_letters_dir(), source: e }),
            }
        }
        self.dead_letters().await.map(Some)
    }

    /// Makes the dead-letter journal's segments larger after it has refused an append for its size. False when they have their
    /// largest size: then the append fits nowhere. A later start begins with small ones again; what is in larger ones stays.
    pub fn grow_dead_letters(&self, journal: &Journal) -> bool {
        let now = 2 * journal.max_append() as u64;
        if now >= LARGEST_SEGMENT_BYTES {
            return false;
        }
        tracing::info!(broker = %self.name(), segment = 2 * now, "larger segments for a large dead letter");
        journal.set_options(self.dead_letter_options(2 * now));
        true
    }

    /// What became of the dead letters; none where their journal is not open: no dead letter has come since the start, and no
    /// Trigger has looked for any.
    #[must_use]
    pub fn dead_letter_account(&self) -> Option<Account> {
        let journal = self.dead_letters.get()?;
        let keeper = journal.consumers().into_iter().find(|consumer| consumer.name == KEEPER)?;
        let ahead = settled::ahead(journal, keeper.cursor);
        let mut done = keeper.done;
        done.add(&ahead);
        Some(Account { done, pending: keeper.pending.saturating_sub(ahead.total()), bytes: journal.bytes() })
    }

    /// The consumer of a dead-letter journal that holds what is in it.
    pub(crate) fn keeper(dead_letters: &Journal) -> Consumer {
        dead_letters.consumer(KEEPER, Start::Earliest, true)
    }

    /// The right to settle dead letters, for one at a time.
    pub(crate) fn settle_dead_letters(&self) -> Option<OwnedMutexGuard<()>> {
        Arc::clone(&self.settling).try_lock_owned().ok()
    }

    fn dead_letter_segment(&self) -> u64 {
        (self.options.segment_bytes / 2).min(MOST_SEGMENT_BYTES)
    }

    /// Beside what it may have in segments of its first size, it may have the least in larger ones: what is held already must
    /// not be why a large one finds no room.
    fn dead_letter_options(&self, segment_bytes: u64) -> Options {
        let first = self.dead_letter_segment();
        let grown = if segment_bytes > first { segment_bytes * LEAST_SEGMENTS } else { 0 };
        Options {
            segment_bytes,
            max_bytes: (self.options.max_bytes / SHARE).max(first * LEAST_SEGMENTS) + grown,
            max_age_ms: None,
            max_count: None,
            // What is settled is of no use to anybody.
            keep_ms: 0,
            policy: Policy::Reject,
            digest: None,
            ..self.options.clone()
        }
    }

    fn dead_letters_dir(&self) -> String {
        format!("{}/dead-letters", self.dir())
    }
}
