//! The uplink as a whole: registered from the first event on, connected whenever there is a way.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use godwit_mesh::broker::{Broker, Brokers};
use godwit_mesh::clock::Clock;
use godwit_mesh::door::ClientTls;
use godwit_mesh::journal::{Consumer, Refused, Start};
use godwit_mesh::names::{AgentId, BrokerName};
use godwit_mesh::storage::Storage;
use godwit_mesh::sync::frame::{Objects, Report};
use godwit_mesh::sync::limits::DEFAULT_WINDOW_LOG;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::connect::{LinkError, SharedTarget, Target};
use super::down::{Apply, Down, Ready};
use super::lanes::Told;
use super::letters::Letters;
use super::link::{Link, LinkState, LinkStatus};
use super::{finite, network, session};

/// The uplink's name as a consumer.
pub const CONSUMER: &str = "uplink";

/// The fact that remembers that the link is held.
const HELD: &[u8] = b"lheld";

/// How long a stop may take, requests on their way included.
const GOODBYE_TIME: Duration = Duration::from_secs(3);

/// How long a connection that brought nothing further must have lived for its end not to count as a failed attempt.
const LIVED: Duration = Duration::from_secs(10);

/// What the uplink needs to know.
#[derive(Debug, Clone)]
pub struct UplinkSettings {
    /// URL of the gateway; without one the events wait.
    pub url: Option<String>,
    /// File with the token that proves who we are.
    pub token_file: Option<PathBuf>,
    /// How the gateway proves who it is.
    pub tls: ClientTls,
    /// How often each side gives a sign of life; its silence is noticed within three.
    pub heartbeat: Duration,
    /// Longest wait between two attempts.
    pub backoff_max: Duration,
    /// Window of the compression as a power of two, 15 to 17.
    pub window_log: u32,
    /// Labels by which objects at the gateway choose this agent.
    pub labels: BTreeMap<String, String>,
    /// Name and version of this program, for people.
    pub software: String,
    /// Time for `since` in status.
    pub clock: Clock,
}

impl Default for UplinkSettings {
    fn default() -> Self {
        Self {
            url: None,
            token_file: None,
            tls: ClientTls::new(None),
            heartbeat: Duration::from_secs(30),
            backoff_max: Duration::from_secs(60),
            window_log: DEFAULT_WINDOW_LOG,
            labels: BTreeMap::new(),
            software: concat!("godwit-agent ", env!("CARGO_PKG_VERSION")).to_owned(),
            clock: Clock::system(),
        }
    }
}

/// Why the uplink cannot be.
#[derive(Debug, Error)]
pub enum UplinkError {
    /// The gateway's URL is not one.
    #[error(transparent)]
    Url(#[from] LinkError),
    /// That the link is held, or not, could not be kept.
    #[error("keeping the state of the link: {0}")]
    Keep(#[from] Refused),
}

/// The way to the gateway. Cheap to clone.
#[derive(Clone)]
pub struct Uplink(Arc<Inner>);

struct Inner {
    agent: AgentId,
    brokers: Brokers,
    settings: UplinkSettings,
    target: Option<SharedTarget>,
    link: Arc<Link>,
    hold: watch::Sender<bool>,
    down: Down,
    sets: (mpsc::Sender<Objects>, Mutex<Option<mpsc::Receiver<Objects>>>),
}

impl std::fmt::Debug for Uplink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uplink").field("agent", &self.0.agent).finish_non_exhaustive()
    }
}

/// What a connection works with.
pub(super) struct Core {
    pub(super) agent: AgentId,
    pub(super) brokers: Brokers,
    pub(super) settings: UplinkSettings,
    pub(super) target: SharedTarget,
    pub(super) link: Arc<Link>,
    /// The last positions that this process was told.
    pub(super) told: Told,
    pub(super) report: watch::Receiver<Report>,
    pub(super) sets: mpsc::Sender<Objects>,
    pub(super) stop: CancellationToken,
    hold: watch::Receiver<bool>,
}

impl Core {
    /// What makes dead letters of refused events.
    pub(super) fn letters(&self) -> Letters {
        Letters { gateway: self.target.shown(), clock: self.settings.clock.clone() }
    }

    /// Resolves when the link is held.
    pub(super) async fn held(&self) {
        let mut hold = self.hold.clone();
        if hold.wait_for(|held| *held).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Runs `work` unless the link is held or stopped before it is done.
    pub(super) async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            () = self.held() => None,
            done = work => Some(done),
        }
    }
}

/// Registers the uplink with a Broker: its events wait for the gateway from the first one on.
pub fn register(broker: &Broker) -> Consumer {
    broker.journal().consumer(CONSUMER, Start::Earliest, true)
}

impl Uplink {
    /// Registers with every Broker, and applies the objects that were kept from the gateway: call it before any listener opens.
    /// `apply` takes each set that comes down, `ready` tells how it fares.
    ///
    /// # Errors
    /// When the URL is not one.
    pub async fn open(
        agent: AgentId,
        brokers: Brokers,
        storage: Arc<dyn Storage>,
        settings: UplinkSettings,
        apply: Apply,
        ready: Ready,
    ) -> Result<Self, UplinkError> {
        let target = match &settings.url {
            Some(url) => Some(Arc::new(Target::new(url, settings.tls.clone(), settings.token_file.clone())?)),
            None => None,
        };
        let down = Down::open(storage, apply, ready).await;
        for broker in brokers.list().iter().filter(|broker| broker.settings().uplink) {
            register(broker);
        }
        let default = brokers.get(&BrokerName::default());
        let held = default.is_some_and(|broker| broker.journal().fact(HELD).is_some());
        let link = Arc::new(Link::new(settings.clock.clone(), settings.url.clone(), held));
        // One set waits while one is applied: they are rare, and a newer one replaces both.
        let (sender, sets) = mpsc::channel(1);
        let sets = (sender, Mutex::new(Some(sets)));
        Ok(Self(Arc::new(Inner { agent, brokers, settings, target, link, hold: watch::Sender::new(held), down, sets })))
    }

    /// Keeps the link until `stop` is cancelled. To be called once.
    pub async fn run(&self, stop: CancellationToken) {
        let inner = &self.0;
        let Some(sets) = inner.sets.1.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let late = async {
            stop.cancelled().await;
            tokio::time::sleep(GOODBYE_TIME).await;
        };
        // Ends when the connection has said its goodbye after `stop`, or has had the time to.
        tokio::select! {
            () = inner.connect(stop.clone()) => {}
            () = keep_registered(inner.brokers.clone()) => {}
            () = inner.down.run(sets, inner.settings.heartbeat) => {}
            () = late => {}
        }
    }

    /// The link as `/status` shows it.
    #[must_use]
    pub fn status(&self) -> Value {
        self.0.link.status()
    }

    /// Follows the link's state.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<LinkStatus> {
        self.0.link.watch()
    }

    /// Ends the link and opens none until [`Uplink::resume`], over restarts too.
    ///
    /// # Errors
    /// When it cannot be kept; the link is held all the same.
    pub async fn hold(&self) -> Result<(), UplinkError> {
        self.0.steer(true);
        self.0.keep(true).await
    }

    /// Opens the link again, at once.
    ///
    /// # Errors
    /// When it cannot be kept; the link is opened all the same.
    pub async fn resume(&self) -> Result<(), UplinkError> {
        self.0.steer(false);
        self.0.keep(false).await
    }
}

impl Inner {
    fn steer(&self, held: bool) {
        self.hold.send_replace(held);
        if self.target.is_none() {
            // Nothing connects, so nothing else would show it.
            self.link.set(if held { LinkState::Held } else { LinkState::Down }, "");
        }
    }

    async fn keep(&self, held: bool) -> Result<(), UplinkError> {
        if let Some(broker) = self.brokers.get(&BrokerName::default()) {
            let receipt =
                broker.journal().append(|append| if held { append.put(HELD, b"1") } else { append.delete(HELD) })?;
            receipt.await?;
        }
        Ok(())
    }

    async fn connect(&self, stop: CancellationToken) {
        let Some(target) = self.target.clone() else { return stop.cancelled().await };
        let mut core = Core {
            agent: self.agent.clone(),
            brokers: self.brokers.clone(),
            settings: self.settings.clone(),
            target,
            link: self.link.clone(),
            told: Told::new(),
            report: self.down.report(),
            sets: self.sets.0.clone(),
            stop,
            hold: self.hold.subscribe(),
        };
        let mut backoff = Backoff::new(self.settings.backoff_max);
        let mut buffered = false;
        while !core.stop.is_cancelled() {
            if *core.hold.borrow_and_update() {
                self.link.set(LinkState::Held, "");
                tokio::select! {
                    _ = core.hold.changed() => {}
                    () = core.stop.cancelled() => {}
                }
                continue;
            }
            let (begun, told) = (tokio::time::Instant::now(), core.told.clone());
            let mut welcomed = false;
            let ended = if buffered {
                finite::run(&mut core, &mut welcomed).await
            } else {
                session::run(&mut core, &mut welcomed).await
            };
            // A link that lasts only seconds each time still brings events further: it is worth coming back to at once.
            let useful = begun.elapsed() >= LIVED || core.told != told;
            self.link.set(if *core.hold.borrow() { LinkState::Held } else { LinkState::Down }, "");
            let Err(error) = ended else {
                buffered = false;
                continue;
            };
            self.link.failed(&error.to_string());
            if !buffered && !welcomed && held_back(&error) {
                tracing::info!("{error}; trying finite requests");
                buffered = true;
                continue;
            }
            // Where finite requests work they are kept to; where they do not, a stream is tried again.
            buffered &= welcomed;
            if welcomed && useful {
                backoff.reset();
            }
            let wait = backoff.wait();
            if welcomed {
                tracing::warn!("the link to the gateway is down: {error}");
            } else {
                tracing::info!(wait = ?wait, "no link to the gateway: {error}");
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = network::changed() => backoff.reset(),
                _ = core.hold.changed() => backoff.reset(),
                () = core.stop.cancelled() => {}
            }
        }
    }
}

/// Whether a failure before any welcome looks like a proxy that holds requests back, or knows no HTTP/2.
fn held_back(error: &LinkError) -> bool {
    matches!(error, LinkError::NoWelcome(_) | LinkError::NoHttp2 | LinkError::Http(_) | LinkError::Ended)
}

/// Registers with Brokers as they are made or let go up, and forgets those that are not to.
async fn keep_registered(brokers: Brokers) {
    let mut count = brokers.watch();
    let mut watched: BTreeMap<BrokerName, ()> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        // Channels never go up.
        for broker in brokers.list().into_iter().filter(|broker| !broker.name().is_channel()) {
            if watched.insert(broker.name().clone(), ()).is_none() {
                tasks.spawn(async move {
                    let mut settings = broker.watch_settings();
                    loop {
                        if settings.borrow_and_update().uplink {
                            register(&broker);
                        } else {
                            broker.journal().remove_consumer(CONSUMER);
                        }
                        if settings.changed().await.is_err() {
                            return;
                        }
                    }
                });
            }
        }
        if count.changed().await.is_err() {
            return;
        }
    }
}
