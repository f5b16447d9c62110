//! The Triggers of this process, in sets that are applied as a whole (`apply`), and how they stand.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use super::apply::ApplyError;
use super::feed::Feed;
use super::live::Live;
use super::local_mqtt::LocalListener;
use super::pages::Pages;
use super::plan::{NO_LISTENER, Plan};
use super::room::Room;
use super::sender::Sender;
use super::services::Services;
use super::target::{Target, broker_url, shown};
use super::times::Times;
use crate::broker::{Broker, Brokers};
use crate::clock::Clock;
use crate::door::ClientTls;
use crate::http::metrics::Metrics;
use crate::journal::ConsumerStatus;
use crate::manifest::{Destination, Kind, Manifests, ObjectKey, ObjectName};
use crate::names::BrokerName;
use crate::observe::Spans;
use crate::source::Board;

/// Who brought a set. Applying one never touches what another owner brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// The manifests' folder.
    Files,
    /// The gateway, at an agent.
    Gateway,
    /// Those who change objects over HTTP, one at a time.
    Api,
}

impl Owner {
    /// The owner's name as shown and kept.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Gateway => "gateway",
            Self::Api => "api",
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
    /// Whom to trust among subscribers with `https`.
    pub tls: ClientTls,
    /// The address under which this process's own Brokers are reached, for `status` and for URIs relative to them.
    pub address: Url,
    /// Where Services are.
    pub services: Services,
    /// Largest answer taken as a reply, in bytes.
    pub max_event_bytes: usize,
    /// Time for arrival stamps and `Retry-After` dates.
    pub clock: Clock,
    /// Files with bearer tokens, by `host` or `host:port` of the subscriber.
    pub tokens: BTreeMap<String, PathBuf>,
    /// Where `mqtt:` subscribers are.
    pub listener: LocalListener,
    /// Traces of what filters say, and of deliveries.
    pub spans: Spans,
}

/// What every task needs.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) brokers: Brokers,
    pub(crate) sender: Sender,
    pub(crate) settings: DeliverySettings,
    pub(crate) times: Times,
    /// Room for events on their way.
    pub(crate) room: Room,
    pages: Arc<Pages>,
    /// The feeds of Brokers that Triggers run on.
    feeds: Mutex<BTreeMap<BrokerName, Weak<Feed>>>,
}

impl Context {
    fn new(brokers: Brokers, settings: DeliverySettings) -> Self {
        let sender = Sender::new(&settings);
        let (room, pages, feeds) = (Room::default(), Arc::default(), Mutex::default());
        Self { brokers, sender, settings, times: Times::default(), room, pages, feeds }
    }

    /// The Broker's feed; it runs as long as anybody has it.
    pub(crate) fn feed(&self, broker: &Broker) -> Arc<Feed> {
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = feeds.get(broker.name()).and_then(Weak::upgrade) {
            return feed;
        }
        let (agent, pages, spans) = (self.brokers.agent().cloned(), self.pages.clone(), self.settings.spans.clone());
        let feed = Arc::new(Feed::start(broker.journal().clone(), agent, pages, spans));
        feeds.insert(broker.name().clone(), Arc::downgrade(&feed));
        feed
    }
}

/// The Triggers of this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Triggers(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) context: Arc<Context>,
    /// One set at a time.
    pub(super) applying: tokio::sync::Mutex<()>,
    pub(super) table: Mutex<Table>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    /// Counts what may have changed how a Trigger stands.
    pub(super) changes: Arc<watch::Sender<u64>>,
    /// How the sources stand that the sets have beside Triggers; whoever runs them tells.
    pub(super) sources: Board,
}

/// How one Trigger stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its uid: one made anew under the same name has another.
    pub uid: String,
    /// Why it does not run, if it does not: one word, and a sentence.
    pub not_ready: Option<(&'static str, String)>,
    /// Where its events go, once that is known.
    pub subscriber_uri: Option<String>,
    /// Where events go that cannot be delivered, once that is known.
    pub dead_letter_sink_uri: Option<String>,
    /// Where a Subscription's replies go, once that is known.
    pub reply_uri: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) sets: BTreeMap<Owner, (u64, Manifests)>,
    /// Whose set is known to be an older one.
    pub(super) older: BTreeSet<Owner>,
    pub(super) entries: BTreeMap<ObjectKey, Entry>,
}

/// One Trigger that is applied.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) plan: Arc<Plan>,
    pub(super) live: Arc<Live>,
    pub(super) stop: CancellationToken,
    pub(super) task: JoinHandle<()>,
}

impl Triggers {
    /// No Triggers yet, on these Brokers. Call within a runtime.
    #[must_use]
    pub fn new(brokers: Brokers, settings: DeliverySettings) -> Self {
        let changes: Arc<watch::Sender<u64>> = Arc::default();
        let this = Self(Arc::new(Inner {
            context: Arc::new(Context::new(brokers, settings)),
            applying: tokio::sync::Mutex::default(),
            table: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            sources: Board::new(changes.clone()),
            changes,
        }));
        let inner = Arc::downgrade(&this.0);
        this.0.context.brokers.on_made(Box::new(move |broker| {
            if let Some(inner) = inner.upgrade() {
                inner.greet(broker);
            }
        }));
        this
    }

    /// Makes `set` what `owner` brings: all of it, or nothing. Call it once for each owner at every start, with an empty set
    /// if there is none, and for the gateway's before the files': Triggers that an owner no longer brings are forgotten, with
    /// their cursors. When this returns without an error, every event appended from now on reaches the Triggers in the set.
    ///
    /// All objects are applied; which of them are for this process is the caller's affair ([`Manifests::for_here`]).
    ///
    /// # Errors
    /// Why nothing was applied.
    pub async fn apply(&self, owner: Owner, set: Manifests, revision: u64) -> Result<(), ApplyError> {
        self.0.apply(owner, set, revision, true).await
    }

    /// As [`Triggers::apply`], but what `set` does not have keeps its uid and cursor, stopped, until the next `apply`: for a set
    /// that is known to be an older one.
    ///
    /// # Errors
    /// Why nothing was applied.
    pub async fn apply_older(&self, owner: Owner, set: Manifests, revision: u64) -> Result<(), ApplyError> {
        self.0.apply(owner, set, revision, false).await
    }

    /// Whether [`Triggers::apply`] would take this set now; nothing is changed.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, owner: Owner, set: &Manifests) -> Result<(), ApplyError> {
        self.0.check(owner, set)
    }

    /// Changes whenever a set was applied or a Trigger became ready or ceased to be.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// How a Trigger or Subscription stands; `None` if there is none such here.
    #[must_use]
    pub fn standing(&self, of: &ObjectKey) -> Option<Standing> {
        self.0.table().entries.get(of).map(|entry| entry.live.standing())
    }

    /// Adds how long deliveries take to `/metrics`.
    pub fn register(&self, metrics: &Metrics) {
        self.0.context.times.register(metrics);
    }

    /// The Brokers that Triggers run on.
    #[must_use]
    pub fn brokers(&self) -> &Brokers {
        &self.0.context.brokers
    }

    /// The URL that a destination leads to, written in an object of `namespace`, as `status` shows it.
    ///
    /// # Errors
    /// One word and a sentence, as in a condition.
    pub fn resolve(&self, destination: &Destination, namespace: &str) -> Result<String, (&'static str, String)> {
        const REASON: &str = "DeadLetterSinkNotResolved";
        let settings = &self.0.context.settings;
        let target = Target::resolve(destination, namespace, settings).map_err(|e| (REASON, e.0))?;
        match &target {
            Target::Broker(name) if self.0.context.brokers.get(name).is_none() => {
                Err((REASON, format!("{} {name} does not exist", name.what())))
            }
            Target::Mqtt(_) if settings.listener.is_none() => Err((REASON, NO_LISTENER.to_owned())),
            Target::Broker(_) | Target::Mqtt(_) | Target::Http(_) => Ok(target.shown(&settings.address)),
        }
    }

    /// What the task of a Trigger or Subscription goes by; `None` if there is none such here.
    pub(super) fn running(&self, of: &ObjectKey) -> Option<(Arc<Context>, Arc<Plan>)> {
        self.0.table().entries.get(of).map(|entry| (self.0.context.clone(), entry.plan.clone()))
    }

    /// The URL of one of this process's Brokers.
    #[must_use]
    pub fn broker_url(&self, name: &BrokerName) -> String {
        shown(&broker_url(&self.0.context.settings.address, name))
    }

    /// The URL of a Sequence or a Parallel of this process.
    #[must_use]
    pub fn flow_url(&self, kind: Kind, name: &ObjectName) -> String {
        let mut url = self.0.context.settings.address.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/{}/{name}", kind.resource().plural));
        shown(&url)
    }

    /// The clock that deliveries go by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.context.settings.clock
    }

    /// The revision and the set that `owner` brought last.
    #[must_use]
    pub fn applied(&self, owner: Owner) -> Option<(u64, Manifests)> {
        self.0.table().sets.get(&owner).cloned()
    }

    /// Whether what `owner` brought last is all that it has now: what is not in it may be forgotten.
    pub(crate) fn is_complete(&self, owner: Owner) -> bool {
        let table = self.0.table();
        table.sets.contains_key(&owner) && !table.older.contains(&owner)
    }

    /// How the sources stand that the sets have beside Triggers.
    #[must_use]
    pub fn sources(&self) -> &Board {
        &self.0.sources
    }

    /// What sends, and to whom.
    pub(crate) fn context(&self) -> &Context {
        &self.0.context
    }

    /// All Triggers as `/status` shows them, by namespace and name.
    #[must_use]
    pub fn status(&self) -> Value {
        let context = &self.0.context;
        let shown: Vec<_> = self.0.table().entries.values().map(|entry| (entry.live.clone(), entry.plan.clone())).collect();
        let mut ledgers: BTreeMap<BrokerName, Vec<ConsumerStatus>> = BTreeMap::new();
        let shown = shown.iter().map(|(live, plan)| {
            let ledger = ledgers.entry(plan.broker.clone()).or_insert_with(|| {
                context.brokers.get(&plan.broker).map(|broker| broker.journal().consumers()).unwrap_or_default()
            });
            live.status(plan, ledger, &context.settings.clock)
        });
        Value::Array(shown.collect())
    }

    /// How many filter errors each Trigger had since its task was first started in this process.
    #[must_use]
    pub fn filter_errors(&self) -> Vec<(ObjectName, u64)> {
        let table = self.0.table();
        let triggers = table.entries.iter().filter(|(key, _)| key.kind == Kind::Trigger);
        triggers.map(|(key, entry)| (key.name.clone(), entry.live.filter_errors())).collect()
    }

    /// Whether every Trigger that `owner` brought is ready.
    ///
    /// # Errors
    /// Which are not, and why.
    pub fn ready(&self, owner: Owner) -> Result<(), String> {
        let table = self.0.table();
        let ours = table.entries.values().filter(|entry| entry.live.owner == owner);
        let mut reasons: Vec<String> = ours.filter_map(|entry| entry.live.not_ready()).collect();
        reasons.extend(self.0.sources.not_ready(owner));
        if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) }
    }

    /// Stops all Triggers: what is being sent has 5 s to finish, then cursors are made durable.
    pub async fn close(&self) {
        self.0.stop.cancel();
        let _applying = self.0.applying.lock().await;
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl Inner {
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
