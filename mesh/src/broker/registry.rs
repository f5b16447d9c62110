//! The Brokers of this process.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::deduplication::Deduplication;
use super::digest::digest;
use super::{index, removal, share};
use crate::journal::{Journal, OpenError, Options, Policy};
use crate::names::{AgentId, BrokerName};
use crate::storage::Storage;

/// How often Brokers settle anew how they share the disk.
const SHARING_EVERY: Duration = Duration::from_secs(10);

/// What holds for every Broker.
#[derive(Debug, Clone)]
pub struct BrokerDefaults {
    /// The journals' options. `max_bytes` is for all Brokers together.
    pub options: Options,
    /// Most Brokers: each costs a thread, a few files and four segments on disk.
    pub max_brokers: usize,
}

impl Default for BrokerDefaults {
    /// The journal's own options, and 64 Brokers.
    fn default() -> Self {
        Self { options: Options::default(), max_brokers: 64 }
    }
}

/// What may differ between Brokers and change while they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerSettings {
    /// Whether the Broker's events go up to the gateway.
    pub uplink: bool,
    /// For how long, in ms, an event is known by `source` and `id`, so that another of its name is not stored; none: not at all.
    pub deduplication_ms: Option<u64>,
    /// What is kept, where it is not what holds for all.
    pub retention: Retention,
    /// Whether nothing may be posted to it: a Channel whose object is gone.
    pub closed: bool,
}

/// A Broker's own retention; what is not said is as for all Brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Most bytes of its journal; never less than four segments.
    pub max_bytes: Option<u64>,
    /// Age at which events go, in ms.
    pub max_age_ms: Option<u64>,
    /// Most events.
    pub max_count: Option<u64>,
    /// What happens at the limit.
    pub policy: Option<Policy>,
}

impl Retention {
    fn over(self, options: Options) -> Options {
        Options {
            max_age_ms: self.max_age_ms.or(options.max_age_ms),
            max_count: self.max_count.or(options.max_count),
            policy: self.policy.unwrap_or(options.policy),
            ..options
        }
    }
}

impl Default for BrokerSettings {
    fn default() -> Self {
        Self { uplink: true, deduplication_ms: None, retention: Retention::default(), closed: false }
    }
}

/// Why there is no such Broker.
#[derive(Debug, Error)]
pub enum BrokerError {
    /// Its files could not be read or written.
    #[error("{what}: {source}")]
    Io {
        /// The file or folder.
        what: String,
        /// What the file system said.
        source: io::Error,
    },
    /// Its journal could not be opened.
    #[error("broker {name}: {source}")]
    Open {
        /// The Broker.
        name: BrokerName,
        /// What the journal said.
        source: OpenError,
    },
    /// There are as many Brokers as may be.
    #[error("broker {name} is one more than the {limit} that may be")]
    TooMany {
        /// The Broker that was asked for.
        name: BrokerName,
        /// The limit.
        limit: usize,
    },
    /// The process is stopping.
    #[error("the brokers are closed")]
    Closed,
}

/// One Broker or Channel: a journal with a name.
#[derive(Debug)]
pub struct Broker {
    name: BrokerName,
    /// Whose it is; at a gateway nobody's.
    agent: Option<AgentId>,
    journal: Journal,
    settings: watch::Sender<BrokerSettings>,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) options: Options,
    /// Its part of the disk, and its retention, as they were last settled.
    settled: Mutex<(u64, Retention)>,
    deduplication: Mutex<Option<Arc<Deduplication>>>,
    pub(super) dead_letters: OnceCell<Journal>,
    /// Held by who settles dead letters.
    pub(super) settling: Arc<tokio::sync::Mutex<()>>,
}

impl Broker {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &BrokerName {
        &self.name
    }

    /// Its journal.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Its settings as they are now.
    #[must_use]
    pub fn settings(&self) -> BrokerSettings {
        *self.settings.borrow()
    }

    /// Follows its settings.
    #[must_use]
    pub fn watch_settings(&self) -> watch::Receiver<BrokerSettings> {
        self.settings.subscribe()
    }

    /// Changes its settings; those who follow them are told if anything changed.
    pub fn set(&self, settings: BrokerSettings) {
        {
            let mut deduplication = self.deduplication.lock().unwrap_or_else(PoisonError::into_inner);
            if deduplication.as_ref().map(|known| known.window_ms()) != settings.deduplication_ms {
                *deduplication = settings.deduplication_ms.map(|window| Arc::new(Deduplication::new(window)));
            }
        }
        self.settings.send_if_modified(|now| std::mem::replace(now, settings) != settings);
    }

    /// What is known of the events it has had, where de-duplication is switched on.
    #[must_use]
    pub fn deduplication(&self) -> Option<Arc<Deduplication>> {
        self.deduplication.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn agent(&self) -> Option<&AgentId> {
        self.agent.as_ref()
    }

    /// Whether nobody but the registry has this Broker or one of its journals.
    pub(super) fn is_free(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
            && self.journal.is_only_handle()
            && self.dead_letters.get().is_none_or(Journal::is_only_handle)
    }

    /// Commits what is waiting and closes the journals.
    pub(super) async fn close(&self) {
        if let Some(dead_letters) = self.dead_letters.get() {
            dead_letters.close().await;
        }
        self.journal.close().await;
    }

    pub(super) fn dir(&self) -> String {
        dir(&self.name)
    }
}

pub(super) fn dir(name: &BrokerName) -> String {
    format!("brokers/{name}")
}

/// Called for a Broker that has just been made, before anyone can see it.
pub(crate) type Welcome = Box<dyn Fn(&Arc<Broker>) + Send + Sync>;

/// The Brokers of this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Brokers(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) storage: Arc<dyn Storage>,
    agent: Option<AgentId>,
    defaults: BrokerDefaults,
    brokers: Mutex<BTreeMap<BrokerName, Arc<Broker>>>,
    /// Held while a Broker is being made, so that two who ask for one get the same; and while one is being removed.
    pub(super) making: tokio::sync::Mutex<()>,
    welcome: Mutex<Vec<Welcome>>,
    /// How many Brokers there are, for those who wait for new ones.
    count: watch::Sender<usize>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Brokers").field("agent", &self.agent).field("count", &*self.count.borrow()).finish_non_exhaustive()
    }
}

impl Brokers {
    /// Opens every Broker there is, and `default/default`. Journals are recovered off the runtime. `agent` is whose events
    /// these are: the agent's own id, or none at the gateway, where every event says it itself.
    ///
    /// # Errors
    /// When the index cannot be read, or a Broker cannot be opened.
    pub async fn open(
        storage: Arc<dyn Storage>,
        agent: Option<AgentId>,
        defaults: BrokerDefaults,
    ) -> Result<Self, BrokerError> {
        let listed = {
            let storage = storage.clone();
            tokio::task::spawn_blocking(move || removal::there(&*storage)).await
        };
        let mut names = listed.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(index_error)?;
        if !names.contains(&BrokerName::default()) {
            names.insert(0, BrokerName::default());
        }
        let this = Self(Arc::new(Inner {
            storage,
            agent,
            defaults,
            brokers: Mutex::default(),
            making: tokio::sync::Mutex::default(),
            welcome: Mutex::default(),
            count: watch::Sender::new(0),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }));
        for name in names {
            let broker = this.0.open_broker(&name).await?;
            this.0.lock().insert(name, broker);
        }
        this.0.share();
        this.0.count.send_replace(this.0.lock().len());
        this.0.tasks.spawn(keep_sharing(Arc::downgrade(&this.0), this.0.stop.clone()));
        Ok(this)
    }

    /// The Broker of this name, if there is one.
    #[must_use]
    pub fn get(&self, name: &BrokerName) -> Option<Arc<Broker>> {
        self.0.lock().get(name).cloned()
    }

    /// The Broker with this name, in parts; allocates nothing.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Arc<Broker>> {
        let brokers = self.0.lock();
        let is = |of: &BrokerName| !of.is_channel() && of.name() == name && of.namespace() == namespace;
        brokers.values().find(|broker| is(&broker.name)).cloned()
    }

    /// All Brokers in the order of their names.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Broker>> {
        self.0.lock().values().cloned().collect()
    }

    /// Whose events these are: the agent's own id, or none at the gateway.
    #[must_use]
    pub fn agent(&self) -> Option<&AgentId> {
        self.0.agent.as_ref()
    }

    /// Follows how many Brokers there are.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.0.count.subscribe()
    }

    /// The Broker of this name, made with default settings if there is none. It is durable when this returns.
    ///
    /// # Errors
    /// When it cannot be made, or is one too many.
    pub async fn ensure(&self, name: &BrokerName) -> Result<Arc<Broker>, BrokerError> {
        if let Some(broker) = self.get(name) {
            return Ok(broker);
        }
        let _making = self.0.making.lock().await;
        if let Some(broker) = self.get(name) {
            return Ok(broker);
        }
        if self.0.stop.is_cancelled() {
            return Err(BrokerError::Closed);
        }
        let mut names: Vec<_> = self.0.lock().keys().cloned().collect();
        if names.len() >= self.0.defaults.max_brokers {
            return Err(BrokerError::TooMany { name: name.clone(), limit: self.0.defaults.max_brokers });
        }
        let (storage, removed) = (self.0.storage.clone(), name.clone());
        let cleared = tokio::task::spawn_blocking(move || removal::finish(&*storage, &removed)).await;
        cleared
            .unwrap_or_else(|e| Err(io::Error::other(e)))
            .map_err(|source| BrokerError::Io { what: dir(name), source })?;
        let broker = self.0.open_broker(name).await?;
        names.push(name.clone());
        let storage = self.0.storage.clone();
        let written = tokio::task::spawn_blocking(move || index::write(&*storage, names.iter())).await;
        // durable before: nobody may append to a Broker that the next start would not open.
        written.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(index_error)?;
        for welcome in self.0.welcome.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            welcome(&broker);
        }
        self.0.lock().insert(name.clone(), broker.clone());
        self.0.told();
        Ok(broker)
    }

    /// Settles what each may have, after settings were changed.
    pub(crate) fn share(&self) {
        self.0.share();
    }

    /// Has `welcome` called for every Broker made from now on, before anyone else can see it.
    pub(crate) fn on_made(&self, welcome: Welcome) {
        self.0.welcome.lock().unwrap_or_else(PoisonError::into_inner).push(welcome);
    }

    /// Commits what is waiting and closes every journal. Appends are refused from then on.
    pub async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        let _making = self.0.making.lock().await;
        for broker in self.list() {
            broker.close().await;
        }
    }
}

impl Inner {
    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<BrokerName, Arc<Broker>>> {
        self.brokers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After one came or went: settles what each may have, and tells those who follow how many there are.
    pub(super) fn told(&self) {
        self.share();
        self.count.send_replace(self.lock().len());
    }

    async fn open_broker(&self, name: &BrokerName) -> Result<Arc<Broker>, BrokerError> {
        let options = self.options();
        let journal = open_journal(self.storage.clone(), format!("{}/journal", dir(name)), options.clone(), name).await?;
        Ok(Arc::new(Broker {
            name: name.clone(),
            agent: self.agent.clone(),
            journal,
            settings: watch::Sender::new(BrokerSettings { uplink: !name.is_channel(), ..BrokerSettings::default() }),
            storage: self.storage.clone(),
            settled: Mutex::new((options.max_bytes, Retention::default())),
            deduplication: Mutex::default(),
            options,
            dead_letters: OnceCell::new(),
            settling: Arc::default(),
        }))
    }

    /// The journals' options: the defaults, and what is noted of events.
    fn options(&self) -> Options {
        Options { digest: Some(digest), ..self.defaults.options.clone() }
    }

    /// Gives each Broker its part of the disk.
    fn share(&self) {
        let brokers: Vec<_> = self.lock().values().cloned().collect();
        let options = self.options();
        let retention: Vec<Retention> = brokers.iter().map(|b| b.settings().retention).collect();
        // Those with a limit of their own have that; the others share what is left.
        let least = options.segment_bytes.saturating_mul(4);
        let own: u64 = retention.iter().filter_map(|r| r.max_bytes).fold(0, |sum, b| sum.saturating_add(b.max(least)));
        let sharing = || brokers.iter().zip(&retention).filter(|(_, retention)| retention.max_bytes.is_none());
        let used: Vec<u64> = sharing().map(|(b, _)| b.journal.bytes()).collect();
        let limits = share::limits(options.max_bytes.saturating_sub(own), options.segment_bytes, &used);
        let mut limits = limits.into_iter();
        for (broker, retention) in brokers.iter().zip(&retention) {
            let max_bytes = retention.max_bytes.or_else(|| limits.next()).unwrap_or(least);
            let settled = (max_bytes, *retention);
            let mut last = broker.settled.lock().unwrap_or_else(PoisonError::into_inner);
            if std::mem::replace(&mut *last, settled) != settled {
                broker.journal.set_options(Options { max_bytes, ..retention.over(options.clone()) });
            }
        }
    }
}

fn index_error(source: io::Error) -> BrokerError {
    BrokerError::Io { what: "brokers/index".to_owned(), source }
}

/// Settles the sharing again and again while there is more than one Broker to share, and removes Channels that nobody needs.
async fn keep_sharing(inner: std::sync::Weak<Inner>, stop: CancellationToken) {
    let Some(mut count) = inner.upgrade().map(|i| i.count.subscribe()) else { return };
    let mut unused = removal::Unused::new();
    loop {
        let wait = async {
            if count.wait_for(|n| *n > 1).await.is_ok() {
                tokio::time::sleep(SHARING_EVERY).await;
            }
        };
        tokio::select! {
            () = wait => {}
            () = stop.cancelled() => return,
        }
        match inner.upgrade() {
            Some(inner) => {
                inner.share();
                removal::look(&inner, &mut unused).await;
            }
            None => return,
        }
    }
}

/// Opens a journal off the runtime.
pub(super) async fn open_journal(
    storage: Arc<dyn Storage>,
    dir: String,
    options: Options,
    name: &BrokerName,
) -> Result<Journal, BrokerError> {
    let opened = tokio::task::spawn_blocking(move || Journal::open(storage, &dir, options)).await;
    match opened {
        Ok(journal) => journal.map_err(|source| BrokerError::Open { name: name.clone(), source }),
        Err(e) => Err(BrokerError::Io { what: format!("broker {name}"), source: io::Error::other(e) }),
    }
}
