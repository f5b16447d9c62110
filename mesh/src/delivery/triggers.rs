//! The Triggers of this process, in sets that are applied as a whole.
//!
//! Applying has two halves. The first may fail and changes nothing that runs: it checks the set against the others, makes
//! Brokers, and makes the new Triggers' uids and cursors durable. The second cannot fail: it puts the set in the place of the
//! owner's last one and starts, replaces and ends tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde_json::Value;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use super::ahead::Buried;
use super::dead_letter::Mark;
use super::dispatcher::Dispatcher;
use super::feed::Feed;
use super::identity::{self, Identity};
use super::live::{Live, consumer_name};
use super::local_mqtt::LocalListener;
use super::pages::Pages;
use super::plan::{NO_LISTENER, Plan};
use super::retired;
use super::room::Room;
use super::sender::Sender;
use super::services::Services;
use super::store::append;
use super::target::{Target, broker_url, shown};
use super::times::Times;
use crate::broker::{Broker, BrokerError, BrokerSettings, Brokers};
use crate::clock::Clock;
use crate::door::ClientTls;
use crate::http::metrics::Metrics;
use crate::journal::{ConsumerStatus, Refused, Start};
use crate::manifest::{BrokerObject, Destination, Kind, Manifests, ObjectKey, ObjectName, TriggerSpec};
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
    /// Traces of deliveries.
    pub spans: Spans,
}

/// Why a set was not applied. Nothing of it runs; what ran before goes on.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// Another owner brought an object of this name.
    #[error("{object}: metadata.name: the name is held by {holder}; delete it there, or choose another name")]
    Held {
        /// Kind, namespace and name.
        object: String,
        /// Who holds it.
        holder: String,
    },
    /// A Trigger cannot move to another Broker (D27).
    #[error("{trigger}: {field}: cannot change from {from} to {to}; delete the object first, or choose another name")]
    BrokerChanged {
        /// The Trigger, or Subscription.
        trigger: String,
        /// The field that names it.
        field: &'static str,
        /// Its Broker.
        from: String,
        /// The Broker in the new set.
        to: String,
    },
    /// A Broker could not be made.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The Triggers' uids or cursors could not be kept.
    #[error("keeping the Triggers of broker {broker}: {source}")]
    Keep {
        /// The Broker whose journal refused.
        broker: BrokerName,
        /// Why.
        source: Refused,
    },
    /// The system has no random numbers for a uid.
    #[error("no random numbers to be had for a uid: {0}")]
    Random(#[from] getrandom::Error),
    /// The process is stopping.
    #[error("delivery is stopping")]
    Stopping,
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
        let feed = Arc::new(Feed::start(broker.journal().clone(), self.brokers.agent().cloned(), self.pages.clone()));
        feeds.insert(broker.name().clone(), Arc::downgrade(&feed));
        feed
    }
}

/// The Triggers of this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Triggers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    context: Arc<Context>,
    /// One set at a time.
    applying: tokio::sync::Mutex<()>,
    table: Mutex<Table>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Counts what may have changed how a Trigger stands.
    changes: Arc<watch::Sender<u64>>,
    /// How the sources stand that the sets have beside Triggers; whoever runs them tells.
    sources: Board,
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
struct Table {
    sets: BTreeMap<Owner, (u64, Manifests)>,
    /// Whose set is known to be an older one.
    older: BTreeSet<Owner>,
    entries: BTreeMap<ObjectKey, Entry>,
}

/// One Trigger that is applied.
#[derive(Debug)]
struct Entry {
    plan: Arc<Plan>,
    live: Arc<Live>,
    stop: CancellationToken,
    task: JoinHandle<()>,
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
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn apply(&self, owner: Owner, set: Manifests, revision: u64, forget: bool) -> Result<(), ApplyError> {
        let _applying = self.applying.lock().await;
        if self.stop.is_cancelled() {
            return Err(ApplyError::Stopping);
        }
        self.check(owner, &set)?;
        for broker in set.brokers().filter(|b| b.foreign_class.is_none()) {
            self.context.brokers.ensure(&broker.name).await?;
        }
        let (plans, identities) = self.keep(owner, &set).await?;
        if forget {
            self.forget(owner, &set).await;
        }
        self.run(owner, revision, set, forget, plans, &identities);
        self.changes.send_modify(|n| *n += 1);
        Ok(())
    }

    /// Refuses names that others hold, and Triggers that would change their Broker.
    fn check(&self, owner: Owner, set: &Manifests) -> Result<(), ApplyError> {
        let table = self.table();
        for object in set.objects() {
            let holds = |other: &Manifests| other.objects().any(|o| o.kind() == object.kind() && o.name() == object.name());
            let holder = table.sets.iter().find(|(other, (_, brought))| **other != owner && holds(brought));
            if let Some((holder, _)) = holder {
                return Err(ApplyError::Held { object: object.to_string(), holder: holder.to_string() });
            }
        }
        let kept: BTreeMap<ObjectKey, (BrokerName, Identity)> = self
            .context
            .brokers
            .list()
            .iter()
            .flat_map(|b| Identity::all(b.journal()).into_iter().map(|(key, id)| (key, (b.name().clone(), id))))
            .collect();
        for trigger in set.triggers() {
            let key = trigger.key();
            let running = table.entries.get(&key).map(|entry| entry.plan.broker.clone());
            let kept = kept.get(&key);
            if let Some((_, id)) = kept.filter(|(_, id)| id.owner != owner.name()) {
                return Err(ApplyError::Held { object: key.to_string(), holder: id.owner.clone() });
            }
            let from = running.or_else(|| kept.map(|(broker, _)| broker.clone()));
            if let Some(from) = from.filter(|from| *from != trigger.broker) {
                return Err(ApplyError::BrokerChanged {
                    trigger: key.to_string(),
                    field: if trigger.broker.is_channel() { "spec.channel" } else { "spec.broker" },
                    from: from.to_string(),
                    to: trigger.broker.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Makes uids and cursors of the set's Triggers durable, where their Brokers are there.
    async fn keep(&self, owner: Owner, set: &Manifests) -> Result<(Vec<Plan>, BTreeMap<ObjectKey, Identity>), ApplyError> {
        let objects: BTreeMap<&BrokerName, &BrokerObject> = set.brokers().map(|b| (&b.name, b)).collect();
        let others = self.broker_objects(Some(owner));
        let plans: Vec<Plan> = set
            .triggers()
            .map(|t| Plan::new(t, objects.get(&t.broker).copied().or_else(|| others.get(&t.broker))))
            .collect();
        let mut identities = BTreeMap::new();
        let mut brokers: BTreeMap<BrokerName, Arc<Broker>> = BTreeMap::new();
        for plan in &plans {
            let key = plan.key();
            let known = self.table().entries.get(&key).map(|entry| entry.live.uid.clone());
            let broker = self.context.brokers.get(&plan.broker);
            let kept = broker.as_ref().and_then(|b| Identity::find(b.journal(), &key));
            let identity = match (kept, known) {
                (Some(kept), _) => kept,
                (None, Some(uid)) => Identity { uid, owner: owner.name().to_owned() },
                (None, None) => {
                    let drawn = self.draw(owner, set, &key)?;
                    if let Some(broker) = &broker {
                        append(broker.journal(), |append| append.put(&identity::key(&key), &drawn.encode()))
                            .await
                            .map_err(|source| ApplyError::Keep { broker: plan.broker.clone(), source })?;
                    }
                    drawn
                }
            };
            identities.insert(key, identity);
            if let Some(broker) = broker {
                brokers.insert(plan.broker.clone(), broker);
            }
        }
        for plan in &plans {
            let key = plan.key();
            let (Some(broker), Some(identity)) = (brokers.get(&plan.broker), identities.get(&key)) else { continue };
            let name = consumer_name(&key, &identity.uid);
            let _registered = broker.journal().consumer(&name, plan.start(), plan.hold);
        }
        for (name, broker) in brokers {
            // durable before: after this, no event may pass the new Triggers by.
            append(broker.journal(), |_| {}).await.map_err(|source| ApplyError::Keep { broker: name, source })?;
        }
        Ok((plans, identities))
    }

    /// The identity of a new Trigger. Its uid is that of the object where the API has given it one.
    fn draw(&self, owner: Owner, set: &Manifests, key: &ObjectKey) -> Result<Identity, getrandom::Error> {
        let given = set.triggers().find(|t| t.key() == *key).and_then(|t| t.uid.clone()).filter(|_| owner == Owner::Api);
        match given {
            Some(uid) => Ok(Identity { uid, owner: owner.name().to_owned() }),
            None => Identity::draw(owner),
        }
    }

    /// Ends and forgets the Triggers that `owner` brought and `set` does not have.
    async fn forget(&self, owner: Owner, set: &Manifests) {
        let stay: BTreeSet<ObjectKey> = set.triggers().map(TriggerSpec::key).collect();
        let gone: Vec<Entry> = {
            let mut table = self.table();
            let names: Vec<_> = table
                .entries
                .values()
                .filter(|entry| entry.live.owner == owner && !stay.contains(&entry.live.key))
                .map(|entry| entry.live.key.clone())
                .collect();
            names.iter().filter_map(|key| table.entries.remove(key)).collect()
        };
        for entry in gone {
            // Nobody waits for what it was about: it ends where it stands.
            entry.task.abort();
            let _ = entry.task.await;
            if let Some(broker) = self.context.brokers.get(&entry.plan.broker) {
                forget_one(&broker, &entry.live.key, &entry.live.uid).await;
            }
        }
        if owner == Owner::Api {
            // What the API holds is deleted one by one. A set that lacks more than that lost it to a damaged file: those Triggers
            // go on where they stood when they are applied again.
            return;
        }
        for broker in self.context.brokers.list() {
            for (key, identity) in Identity::all(broker.journal()) {
                if identity.owner == owner.name() && !stay.contains(&key) {
                    forget_one(&broker, &key, &identity.uid).await;
                }
            }
        }
    }

    /// Puts the set in place and starts or replaces tasks. Cannot fail.
    fn run(
        &self,
        owner: Owner,
        revision: u64,
        set: Manifests,
        forget: bool,
        plans: Vec<Plan>,
        identities: &BTreeMap<ObjectKey, Identity>,
    ) {
        {
            let mut table = self.table();
            if forget {
                table.older.remove(&owner)
            } else {
                table.older.insert(owner)
            };
            table.sets.insert(owner, (revision, set));
        }
        let objects = self.broker_objects(None);
        for broker in self.context.brokers.list() {
            let none = || BrokerSettings { uplink: !broker.name().is_channel(), ..BrokerSettings::default() };
            broker.set(objects.get(broker.name()).map_or_else(none, BrokerObject::settings));
        }
        self.context.brokers.share();
        let mut table = self.table();
        for plan in plans {
            let Some(identity) = identities.get(&plan.key()) else { continue };
            self.start(&mut table, plan, owner, &identity.uid);
        }
        // What a Broker lends to its Triggers may have changed for other owners' too.
        let lent: Vec<_> = table
            .sets
            .values()
            .flat_map(|(_, set)| set.triggers())
            .filter_map(|trigger| {
                let entry = table.entries.get(&trigger.key())?;
                let plan = Plan::new(trigger, objects.get(&trigger.broker));
                (*entry.plan != plan).then(|| (plan, entry.live.owner, entry.live.uid.clone()))
            })
            .collect();
        for (plan, owner, uid) in lent {
            self.start(&mut table, plan, owner, &uid);
        }
    }

    /// Starts a task, or replaces one whose plan has changed. The new one begins when the old one has ended, at its cursor.
    fn start(&self, table: &mut Table, plan: Plan, owner: Owner, uid: &str) {
        let key = plan.key();
        let old = match table.entries.remove(&key) {
            Some(entry) if *entry.plan == plan && entry.live.uid == uid => {
                table.entries.insert(key, entry);
                return;
            }
            old => old,
        };
        let plan = Arc::new(plan);
        let live = Arc::new(Live::new(key.clone(), owner, uid.to_owned(), self.changes.clone()));
        live.resolved(&plan.resolve(&self.context.brokers, &self.context.settings), &self.context.settings.address);
        let stop = self.stop.child_token();
        let dispatcher = Dispatcher::new(self.context.clone(), plan.clone(), live.clone(), stop.clone());
        let task = self.tasks.spawn(async move {
            if let Some(old) = old {
                old.stop.cancel();
                let _ = old.task.await;
            }
            dispatcher.run().await;
        });
        table.entries.insert(key, Entry { plan, live, stop, task });
    }

    /// Registers the Triggers that waited for a Broker, from its first event on, before anyone can append to it.
    fn greet(&self, broker: &Arc<Broker>) {
        for entry in self.table().entries.values().filter(|entry| entry.plan.broker == *broker.name()) {
            let identity = Identity { uid: entry.live.uid.clone(), owner: entry.live.owner.name().to_owned() };
            let key = identity::key(&entry.live.key);
            // Not awaited: it is durable with, or before, the first event. A refusal means that the disk is gone.
            if let Err(error) = broker.journal().append(|append| append.put(&key, &identity.encode())) {
                tracing::warn!(trigger = %entry.live.key, broker = %broker.name(), %error, "the Trigger's uid is not kept");
            }
            let _registered = broker.journal().consumer(&entry.live.consumer(), Start::Earliest, entry.plan.hold);
        }
    }

    /// The Brokers' objects that are applied, but for one owner's.
    fn broker_objects(&self, but: Option<Owner>) -> BTreeMap<BrokerName, BrokerObject> {
        let table = self.table();
        let sets = table.sets.iter().filter(|(owner, _)| Some(**owner) != but);
        sets.flat_map(|(_, (_, set))| set.brokers()).map(|b| (b.name.clone(), b.clone())).collect()
    }
}

/// Removes a Trigger's cursor, uid and last mark.
async fn forget_one(broker: &Broker, of: &ObjectKey, uid: &str) {
    broker.journal().remove_consumer(&consumer_name(of, uid));
    let key = identity::key(of);
    let gone = retired::key(uid);
    let forgotten = append(broker.journal(), |append| {
        append.delete(&key);
        append.delete(&gone);
    })
    .await;
    if let Err(error) = forgotten {
        tracing::warn!(trigger = %of, broker = %broker.name(), %error, "a removed Trigger's uid stays behind");
    }
    if let Ok(Some(dead_letters)) = broker.existing_dead_letters().await {
        // A mark that stays behind is never looked at again: its uid is gone.
        let _ = append(dead_letters, |append| {
            append.delete(&Mark::key(uid));
            append.delete(&Buried::key(uid));
        })
        .await;
    }
}
