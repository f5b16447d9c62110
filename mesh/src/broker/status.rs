//! The arrays `brokers` and `channels` of `/status`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::registry::{Broker, Brokers};
use crate::journal::ConsumerStatus;

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
    /// dense from 0.
    #[must_use]
    pub fn status(&self) -> Value {
        let journal = self.journal();
        // From one look, so that the ledger adds up whatever is being committed.
        let (first, next, consumers) = journal.ledger();
        json!({
            "namespace": self.name().namespace(),
            "name": self.name().name(),
            "first_offset": first.0,
            "next_offset": next.0,
            "bytes": journal.bytes(),
            "accepted": next.0,
            "consumers": consumers.iter().map(consumer).collect::<Vec<_>>(),
        })
    }
}

fn consumer(status: &ConsumerStatus) -> Value {
    let dropped: BTreeMap<&str, u64> = status.done.dropped.iter().map(|(reason, n)| (reason.name(), *n)).collect();
    json!({
        "name": status.name,
        "since": status.since.0,
        "delivered": status.done.delivered,
        "filtered": status.done.filtered,
        "dead_lettered": status.done.dead_lettered,
        "dropped": dropped,
        "pending": status.pending,
    })
}
