//! A Broker's dead-letter journal: opened when there is one, made when the first dead letter comes.
//!
//! What it holds is held until somebody replays or drops it: one consumer stands at its beginning and keeps it under the policy
//! `reject`. When it is full, dead letters are refused and the Trigger's cursor waits; nothing is thrown away.

use std::io;

use super::registry::{Broker, BrokerError, open_journal};
use crate::journal::{Journal, Options, Policy, Start};

/// The consumer that holds dead letters.
const KEEPER: &str = "kept";

/// Dead letters are few, so smaller segments do; half of one still takes the largest event that listeners let in by default.
const SEGMENT_BYTES: u64 = 4 << 20;

/// Share of the Broker's room, and the least.
const SHARE: u64 = 8;
const LEAST_BYTES: u64 = 16 << 20;

impl Broker {
    /// The dead-letter journal, made if there is none yet. Opens it off the runtime.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub async fn dead_letters(&self) -> Result<&Journal, BrokerError> {
        self.dead_letters
            .get_or_try_init(|| async {
                let options = Options {
                    segment_bytes: SEGMENT_BYTES,
                    max_bytes: (self.options.max_bytes / SHARE).max(LEAST_BYTES),
                    max_age_ms: None,
                    max_count: None,
                    policy: Policy::Reject,
                    digest: None,
                    ..self.options.clone()
                };
                let journal = open_journal(self.storage.clone(), self.dead_letters_dir(), options, self.name()).await?;
                journal.consumer(KEEPER, Start::Earliest, true);
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
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(BrokerError::Io { what: self.dead_letters_dir(), source: e }),
            }
        }
        self.dead_letters().await.map(Some)
    }

    fn dead_letters_dir(&self) -> String {
        format!("{}/dead-letters", self.dir())
    }
}
