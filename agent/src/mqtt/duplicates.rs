//! Publishes that are events and that their Broker has had already, where it has de-duplication switched on.
//!
//! Asked at the append, for all of its publishes at once: one whose `source` and `id` are known is acknowledged with the others and not
//! stored. Known is only what is durable; while another of its name is on its way nothing further of this connection is looked at.
//! A publish that is no event has no name and is always stored. Live subscribers are given duplicates like all else: they read
//! from no Broker.

use std::sync::Arc;
use std::time::Duration;

use godwit_mesh::broker::{Broker, Claim, Deduplication, Name};
use godwit_mesh::clock::Clock;
use godwit_mesh::event::{MqttPublish, StoredEvent, encode_publish};
use godwit_mesh::journal::{Epoch, Offset};
use tracing::warn;

/// Pause before a journal that could not be read is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Why it cannot be said yet which publishes are to be stored.
#[derive(Debug)]
pub(super) struct Undecided {
    broker: Arc<Broker>,
    known: Arc<Deduplication>,
    names: Vec<Option<Name>>,
}

/// What is to be stored of the publishes whose `names` are asked for; `None` where all is, because nobody asks for less.
///
/// # Errors
/// Where that cannot be said yet.
pub(super) fn claim(
    broker: &Arc<Broker>,
    clock: &Clock,
    names: impl FnOnce(&dyn Fn(&MqttPublish<'_>) -> Option<Name>) -> Vec<Option<Name>>,
) -> Result<Option<Box<Claim>>, Undecided> {
    let Some(known) = broker.deduplication() else { return Ok(None) };
    let names = names(&|publish| name(&known, publish));
    match known.claim_now(clock, &names) {
        Some(claim) => Ok(Some(Box::new(claim))),
        None => Err(Undecided { broker: Arc::clone(broker), known, names }),
    }
}

/// A publish is an event where it would be stored as one.
fn name(known: &Deduplication, publish: &MqttPublish<'_>) -> Option<Name> {
    let mut body = Vec::new();
    encode_publish(&mut body, publish, None);
    known.name_of(&StoredEvent::new(body.into(), Epoch(0), Offset(0), None).ok()?)
}

impl Undecided {
    /// Resolves when it is worth asking again.
    pub(super) async fn over(self, clock: Clock) {
        if let Err(error) = self.known.until_decided(&self.broker, &clock, &self.names).await {
            warn!(broker = %self.broker.name(), %error, "duplicates cannot be told: publishes wait");
            tokio::time::sleep(PAUSE).await;
        }
    }
}
