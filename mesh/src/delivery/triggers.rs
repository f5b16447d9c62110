//! The Triggers of this process, in sets that are applied as a whole.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use thiserror::Error;
use url::Url;

use crate::broker::{BrokerError, Brokers};
use crate::clock::Clock;
use crate::journal::Refused;
use crate::manifest::{Manifests, ObjectName};
use crate::names::BrokerName;

/// Who brought a set. Applying one never touches what another owner brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// The manifests' folder.
    Files,
    /// The gateway, at an agent.
    Gateway,
}

impl Owner {
    /// The owner's name as shown and kept.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Gateway => "gateway",
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What deliveries need to know of the process.
#[derive(Debug, Clone)]
pub struct DeliverySettings {
    /// How to trust and be trusted by subscribers with `https`.
    pub tls: Arc<rustls::ClientConfig>,
    /// The address under which this process's own Brokers are reached, for `status` and for URIs relative to them.
    pub address: Url,
    /// Largest event taken as a reply, in bytes.
    pub max_event_bytes: usize,
    /// Time for arrival stamps and `Retry-After` dates.
    pub clock: Clock,
}

/// Why a set was not applied. Nothing of it runs; what ran before goes on.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// Another owner brought an object of this name.
    #[error("{object}: metadata.name: held by {holder}; delete it there or choose another name")]
    Held {
        /// Kind, namespace and name.
        object: String,
        /// Who holds it.
        holder: Owner,
    },
    /// A Trigger cannot move to another Broker (D27).
    #[error(
        "Trigger {trigger}: spec.broker: cannot change from {from} to {to}; delete the Trigger first, or choose another name"
    )]
    BrokerChanged {
        /// The Trigger.
        trigger: ObjectName,
        /// Its Broker.
        from: BrokerName,
        /// The Broker in the new set.
        to: BrokerName,
    },
    /// A Broker could not be made.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The Triggers' ids could not be kept.
    #[error("keeping the ids of Triggers in {broker}: {source}")]
    Keep {
        /// The Broker whose journal refused.
        broker: BrokerName,
        /// Why.
        source: Refused,
    },
    /// The process is stopping.
    #[error("delivery is stopping")]
    Stopping,
}

/// The Triggers of this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Triggers(Arc<Inner>);

#[derive(Debug)]
#[allow(dead_code)]
struct Inner {
    brokers: Brokers,
    settings: DeliverySettings,
}

#[allow(clippy::todo, clippy::unused_async)]
impl Triggers {
    /// No Triggers yet, on these Brokers.
    #[must_use]
    pub fn new(brokers: Brokers, settings: DeliverySettings) -> Self {
        Self(Arc::new(Inner { brokers, settings }))
    }

    /// Makes `set` what `owner` brings: all of it, or nothing. Call it once for each owner at every start, with an empty set
    /// if there is none: Triggers that the owner no longer brings are forgotten, with their cursors. When this returns
    /// without an error, every event appended from now on will reach the Triggers that are ready.
    ///
    /// # Errors
    /// Why nothing was applied.
    pub async fn apply(&self, _owner: Owner, _set: Manifests, _revision: u64) -> Result<(), ApplyError> {
        todo!()
    }

    /// The revision and objects that `owner` brought last.
    #[must_use]
    pub fn applied(&self, _owner: Owner) -> Option<(u64, Manifests)> {
        todo!()
    }

    /// All Triggers as `/status` shows them.
    #[must_use]
    pub fn status(&self) -> Value {
        todo!()
    }

    /// Whether every Trigger that `owner` brought is ready, and else which is not and why.
    #[must_use]
    pub fn ready(&self, _owner: Owner) -> Result<(), String> {
        todo!()
    }

    /// Stops all Triggers: what is being sent has 5 s to finish, then cursors are made durable.
    pub async fn close(&self) {
        todo!()
    }
}
