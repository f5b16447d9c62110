//! What a Trigger with several events under way has finished beyond its cursor, as a restart finds it.
//!
//! What was delivered stands beside the cursor in the Broker's journal ([`Window::ahead`]). What was put into the dead-letter journal is
//! durable there before the cursor can say so, and stands there as a fact of its own: `b` and the Trigger's uid.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::dead_letter::Mark;
use super::store::append;
use super::window::{Outcome, Window};
use super::work::Work;
use crate::broker::BrokerError;
use crate::journal::{Epoch, Offset};

/// Most events that are remembered: more than may ever be under way.
const MOST: usize = 4096;

/// Events that went to the dead-letter journal before others that come first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Buried {
    /// Where the Trigger's ledger began then: another beginning is another past.
    pub(crate) since: Offset,
    pub(crate) events: BTreeMap<Offset, Epoch>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    since: u64,
    /// Offset and epoch of each.
    events: Vec<(u64, u64)>,
}

impl Buried {
    pub(crate) fn key(uid: &str) -> Vec<u8> {
        format!("b{uid}").into_bytes()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let events = self.events.iter().map(|(offset, epoch)| (offset.0, epoch.0)).collect();
        let written = Written { since: self.since.0, events };
        serde_json::to_vec(&written).expect("numbers are JSON, and memory takes all writes")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let written: Written = serde_json::from_slice(bytes).ok()?;
        let events = written.events.into_iter().take(MOST).map(|(offset, epoch)| (Offset(offset), Epoch(epoch)));
        Some(Self { since: Offset(written.since), events: events.collect() })
    }
}

impl Work {
    /// Goes past the last dead letter if the process ended after it was durable and before the cursor was; gives what is finished
    /// beyond the cursor.
    ///
    /// # Errors
    /// When the dead letters cannot be read.
    pub(crate) async fn catch_up(&self) -> Result<BTreeMap<Offset, Outcome>, BrokerError> {
        let journal = self.broker.journal();
        let mut ahead = self.consumer.ahead().map(|bytes| Window::read_ahead(&bytes, MOST)).unwrap_or_default();
        let Some(dead_letters) = self.broker.existing_dead_letters().await? else { return Ok(ahead) };
        let Some(status) = journal.consumers().into_iter().find(|c| c.name == self.consumer.name()) else {
            return Ok(ahead);
        };
        let lineage = journal.lineage();
        if let Some(mark) = dead_letters.fact(&Mark::key(&self.live.uid)).and_then(|bytes| Mark::decode(&bytes))
            && let Some((to, done)) =
                mark.catch_up(lineage.epoch_at(mark.offset()), status.since, status.cursor, &status.done)
        {
            self.consumer.advance(to, &done);
        }
        let buried = dead_letters.fact(&Buried::key(&self.live.uid)).and_then(|bytes| Buried::decode(&bytes));
        if let Some(mut buried) = buried.filter(|buried| buried.since == status.since) {
            let cursor = self.consumer.cursor();
            let next = journal.next_offset();
            buried
                .events
                .retain(|offset, epoch| (cursor..next).contains(offset) && lineage.epoch_at(*offset) == Some(*epoch));
            ahead.extend(buried.events.keys().map(|offset| (*offset, Outcome::DeadLettered)));
            *self.buried.lock().await = buried.events;
        }
        Ok(ahead)
    }

    /// The cursor was moved back: what lies behind it is to be done again, dead letters included.
    pub(crate) async fn forget_marks(&self) {
        self.buried.lock().await.clear();
        let Ok(Some(dead_letters)) = self.broker.existing_dead_letters().await else { return };
        let keys = [Mark::key(&self.live.uid), Buried::key(&self.live.uid)];
        if keys.iter().any(|key| dead_letters.fact(key).is_some()) {
            let forgotten = append(dead_letters, |a| keys.iter().for_each(|key| a.delete(key))).await;
            if let Err(error) = forgotten {
                tracing::warn!(trigger = %self.plan.name, %error, "marks of dead letters stay behind");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let buried = Buried { since: Offset(3), events: [(Offset(9), Epoch(u64::MAX)), (Offset(4), Epoch(1))].into() };
        assert_eq!(Buried::decode(&buried.encode()), Some(buried));
        assert_eq!(Buried::decode(b"x"), None);
    }
}
