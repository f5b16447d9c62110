//! The arrays `brokers` and `channels` of `/status`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::registry::{Broker, Brokers};
use crate::journal::{ConsumerStatus, Done};

impl Brokers {
    /// All Brokers as `/status` shows them.
    #[must_use]
    pub fn status(&self) -> Value {
        self.shown(false)
    }

    /// All Channels as `/status` shows them.
    #[must_use]
    pub fn status_of_channels(&self) -> Value {
        self.shown(true)
    }

    fn shown(&self, channels: bool) -> Value {
        let wanted = self.list().into_iter().filter(|broker| broker.name().is_channel() == channels);
        Value::Array(wanted.map(|broker| broker.status()).collect())
    }
}

impl Broker {
    /// The Broker as `/status` shows it. `accepted` counts every event ever appended, also before this start: offsets are
    /// dense from 0. `dead_letters` is there once their journal is open.
    #[must_use]
    pub fn status(&self) -> Value {
        let journal = self.journal();
        // From one look, so that the ledger adds up whatever is being committed.
        let (first, next, consumers) = journal.ledger();
        let dead_letters = self.dead_letter_account().map(|account| {
            json!({
                "pending": account.pending,
                "replayed": account.done.delivered,
                "dropped": dropped(&account.done),
                "bytes": account.bytes,
            })
        });
        let mut status = json!({
            "namespace": self.name().namespace(),
            "name": self.name().name(),
            "first_offset": first.0,
            "next_offset": next.0,
            "bytes": journal.bytes(),
            "accepted": next.0,
            "consumers": consumers.iter().map(consumer).collect::<Vec<_>>(),
        });
        if let Some(deduplication) = self.deduplication() {
            status["deduplicated"] = deduplication.counts().0.into();
        }
        if let Some(dead_letters) = dead_letters {
            status["dead_letters"] = dead_letters;
        }
        status
    }
}

fn dropped(done: &Done) -> BTreeMap<&'static str, u64> {
    done.dropped.iter().map(|(reason, n)| (reason.name(), *n)).collect()
}

fn consumer(status: &ConsumerStatus) -> Value {
    json!({
        "name": status.name,
        "since": status.since.0,
        "delivered": status.done.delivered,
        "filtered": status.done.filtered,
        "dead_lettered": status.done.dead_lettered,
        "dropped": dropped(&status.done),
        "pending": status.pending,
    })
}
