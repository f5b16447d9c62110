//! Godwit's agent: takes events from devices, keeps them on disk, hands them to local Triggers and carries them to the gateway.
//!
//! [`Agent::start`] wires the parts in the order in which an event meets them: Brokers (journals), Triggers, then the sources
//! in front. Manifests are applied before a listener opens, so that an open port means ready; wrong ones do not keep it shut, those
//! from before are run then. [`Agent::stop`] goes the way of the events too: sources first, then delivery, then the journals.

mod check;
pub mod config;
pub mod doctor;
pub mod flags;
mod identity;
mod link;
pub mod mqtt;
mod sources;
pub mod uplink;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use godwit_mesh::broker::Brokers;
use godwit_mesh::clock::Clock;
use godwit_mesh::delivery::{DeliverySettings, LocalListener, Triggers};
use godwit_mesh::door::{ClientTls, Credentials, ServerTls};
use godwit_mesh::http::metrics::Metrics;
use godwit_mesh::http::ops::Ops;
use godwit_mesh::http::{Router, ServerMetrics, cursors, dead_letters, events, ingress::Ingress};
use godwit_mesh::manifest::Manifests;
use godwit_mesh::names::{AgentId, BrokerName};
use godwit_mesh::objects::{self, Objects};
use godwit_mesh::observe::{self, Spans};
use godwit_mesh::process::{self, Daemon, FileSet, Front};
use godwit_mesh::source::Sources;
use godwit_mesh::state::{DataDir, Lock, State};
use godwit_mesh::storage::{Disk, Storage};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use check::check;
use config::Config;
use uplink::{Uplink, UplinkSettings};

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    id: AgentId,
    addresses: Addresses,
    brokers: Brokers,
    triggers: Triggers,
    made_here: Sources,
    files: Arc<tokio::sync::Mutex<FileSet>>,
    /// Tells who mends `files` that they were read again.
    reloaded: Arc<tokio::sync::Notify>,
    objects: Objects,
    certificates: Vec<(&'static str, ServerTls)>,
    credentials: Option<Credentials>,
    /// The listeners, the watch over a refused folder and the view of objects; they end when `sources` is cancelled.
    listeners: JoinSet<&'static str>,
    sources: CancellationToken,
    /// The uplink's task; it ends when `consumers` is cancelled.
    carrier: JoinSet<()>,
    consumers: CancellationToken,
    /// Held until everything is closed.
    _lock: Lock,
}

/// Where a running agent is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The HTTP listener.
    pub http: SocketAddr,
    /// The MQTT listener, if there is one.
    pub mqtt: Option<SocketAddr>,
}

impl Agent {
    /// Starts an agent: when this returns, its listeners are open and its Triggers run. Call within a current-thread runtime.
    ///
    /// # Errors
    /// What is wrong with the configuration, the data folder or the listeners.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let clock = Clock::system();
        let metrics = Metrics::new();
        check::ports(&config)?;
        let credentials = process::credentials(&config.auth)?;
        let front = Front::prepare(&config.http, credentials.clone())?;
        let mqtt_tls = mqtt_tls(&config, credentials.is_some())?;

        // What is kept: one owner, one id, the Brokers.
        let lock = DataDir::lock(&config.agent.data_dir)?;
        let storage: Arc<dyn Storage> = Arc::new(disk(&config.agent.data_dir)?);
        let kept = State::open(storage.clone(), objects::FILE)?;
        let id = identity::agent_id(config.agent.id.as_deref(), &*storage)?;
        let defaults = process::broker_defaults(&*storage, &config.storage, clock.clone())?;
        let brokers = Brokers::open(storage.clone(), Some(id.clone()), defaults).await?;

        // What consumes: the set that last came down, then the folder's; the uplink.
        let sources = CancellationToken::new();
        let mut listeners = JoinSet::new();
        let tls = ClientTls::new(config.delivery.ca_file.as_deref());
        let spans = match observe::endpoint(&config.tracing)? {
            None => Spans::default(),
            Some(url) => {
                let (spans, task) =
                    Spans::to(&url, "godwit-agent", id.as_str(), tls.clone(), clock.clone(), sources.clone());
                listeners.spawn(async move {
                    task.await;
                    "the export of traces"
                });
                spans
            }
        };
        spans.register(&metrics);
        let listener = if config.mqtt.listen.is_some() { LocalListener::coming() } else { LocalListener::none() };
        let settings = DeliverySettings {
            tls,
            address: front.address()?,
            services: process::services(&config.resolve)?,
            max_event_bytes: front.limits().event_bytes,
            clock: clock.clone(),
            tokens: config.delivery.tokens.0.clone(),
            listener: listener.clone(),
            spans: spans.clone(),
        };
        let triggers = Triggers::new(brokers.clone(), settings);
        for (key, file) in [("gateway.ca-file", &config.gateway.ca_file), ("delivery.ca-file", &config.delivery.ca_file)] {
            // No reason not to take events: whoever needs the file is told again at each attempt.
            if let Err(error) = ClientTls::check(file.as_deref()) {
                tracing::error!("{key}: {error}");
            }
        }
        let (apply, ready) = link::objects(&triggers);
        let settings = uplink_settings(&config, &clock);
        let uplink = Uplink::open(id.clone(), brokers.clone(), storage.clone(), settings, apply, ready).await?;
        let objects = Objects::open(triggers.clone(), kept, chosen_by(&config)).await;
        let folder = config.agent.manifests.as_deref();
        let mut files = FileSet::new(folder, storage, triggers.clone(), chosen_by(&config));
        objects.show_files(files.start().await);

        // What produces: the sources of the sets, then the listeners. Both are bound before either serves.
        let broker = brokers.get(&BrokerName::default()).context("the broker default/default is always there")?;
        let routes = mqtt::Routes::all_to(mqtt::Route::to(broker, None));
        let made_here = sources::start(&triggers, &routes, &config).await;
        triggers.sources().register(&metrics);
        let mqtt = match config.mqtt.listen {
            Some(listen) => {
                Some(mqtt_listener(&config, listen, mqtt_tls.clone(), credentials.clone(), routes, &clock, &spans).await?)
            }
            None => None,
        };
        let bound = front.bind().await?;
        let addresses = Addresses { http: bound.server.local_addr(), mqtt: mqtt.as_ref().map(mqtt::Listener::local_addr) };
        let mqtt_handle = mqtt.as_ref().map(mqtt::Listener::handle);
        if let Some(handle) = &mqtt_handle {
            handle.register(&metrics);
            listener.set(handle.publisher());
        }
        let ops = ops(&id, &metrics, &brokers, &triggers, &files, &uplink, mqtt_handle);
        let router = cursors::routes(events::routes(ops.routes(Router::new()), &brokers), &brokers);
        let router = dead_letters::routes(router, &triggers);
        let router = objects::routes(link::routes(router, &uplink), &objects);
        let router = router.ingress(Ingress::new(brokers.clone(), clock, &metrics).traced(spans));

        if let Some(listener) = mqtt {
            let stop = sources.clone();
            listeners.spawn(async move {
                listener.serve(stop).await;
                "the MQTT listener"
            });
        }
        let (stop, server_metrics) = (sources.clone(), ServerMetrics::register(&metrics));
        listeners.spawn(async move {
            bound.server.serve(router, bound.door, server_metrics, stop).await;
            "the HTTP listener"
        });
        let files = Arc::new(tokio::sync::Mutex::new(files));
        let reloaded = Arc::new(tokio::sync::Notify::new());
        listeners.spawn(mend(files.clone(), objects.clone(), reloaded.clone(), sources.clone()));
        let (stop, shown) = (sources.clone(), objects.clone());
        listeners.spawn(async move {
            shown.follow(stop).await;
            "the view of objects"
        });
        let (consumers, mut carrier) = (CancellationToken::new(), JoinSet::new());
        let (stop, up) = (consumers.clone(), uplink.clone());
        carrier.spawn(async move { up.run(stop).await });
        let mqtt_at = addresses.mqtt.map_or_else(|| "off".to_owned(), |address| address.to_string());
        tracing::info!(agent = %id, http = %addresses.http, mqtt = %mqtt_at, "the agent is ready");
        let certificates = [("mqtt", mqtt_tls), ("http", bound.tls)];
        let certificates = certificates.into_iter().filter_map(|(name, tls)| Some((name, tls?))).collect();
        Ok(Self {
            id,
            addresses,
            brokers,
            triggers,
            made_here,
            files,
            reloaded,
            objects,
            certificates,
            credentials,
            listeners,
            sources,
            carrier,
            consumers,
            _lock: lock,
        })
    }

    /// The agent's id.
    #[must_use]
    pub fn id(&self) -> &AgentId {
        &self.id
    }

    /// Where it is reached: the ports that the system chose where 0 was asked for.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }
}

impl Daemon for Agent {
    const NAME: &'static str = "the agent";

    async fn failed(&mut self) -> String {
        tokio::select! {
            Some(ended) = self.listeners.join_next() => match ended {
                Ok(part) => format!("{part} has ended by itself"),
                Err(error) => format!("a part of the agent has failed: {error}"),
            },
            Some(ended) = self.carrier.join_next() => match ended {
                Ok(()) => "the uplink has ended by itself".to_owned(),
                Err(error) => format!("the uplink has failed: {error}"),
            },
        }
    }

    async fn reload(&mut self) {
        for (section, tls) in &self.certificates {
            if let Err(error) = tls.reload() {
                tracing::error!("[{section}] the certificate from before stays in force: {error}");
            }
        }
        if let Some(credentials) = self.credentials.clone() {
            // Hashing takes its time: off the runtime.
            match tokio::task::spawn_blocking(move || credentials.reload()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!("the credentials from before stay in force: {error}"),
                Err(error) => tracing::error!("the credentials from before stay in force: {error}"),
            }
        }
        let applied = self.files.lock().await.apply_again().await;
        self.objects.show_files(applied);
        self.reloaded.notify_one();
    }

    async fn stop(mut self) {
        // First what posts to the listeners: programs that run here have their last words heard.
        self.made_here.close().await;
        self.sources.cancel();
        while self.listeners.join_next().await.is_some() {}
        self.consumers.cancel();
        while self.carrier.join_next().await.is_some() {}
        self.triggers.close().await;
        self.brokers.close().await;
    }
}

/// While the folder of manifests is refused, looks whether it has been mended. What could be used is read again on SIGHUP only.
async fn mend(
    files: Arc<tokio::sync::Mutex<FileSet>>,
    objects: Objects,
    reloaded: Arc<tokio::sync::Notify>,
    stop: CancellationToken,
) -> &'static str {
    loop {
        // Nothing wakes an agent whose manifests are in order.
        let refused = files.lock().await.refused();
        let waited =
            async { if refused { tokio::time::sleep(process::LOOK_EVERY).await } else { reloaded.notified().await } };
        if stop.run_until_cancelled(waited).await.is_none() {
            break;
        }
        let mut files = files.lock().await;
        if files.refused() {
            objects.show_files(files.look().await);
        }
    }
    "the watch over the manifests"
}

/// The data folder as a file system.
fn disk(dir: &Path) -> anyhow::Result<Disk> {
    Disk::new(dir).with_context(|| format!("data folder {}", dir.display()))
}

/// In an agent's own folder the objects for everybody, and those whose `godwit.dev/agents` chooses this agent.
fn chosen_by(config: &Config) -> process::Choose {
    let labels = config.agent.labels.0.clone();
    Box::new(move |all| {
        let (here, mine) = (all.for_here(), all.for_agent(&labels));
        Manifests::new(here.whole().chain(mine.whole()).cloned())
    })
}

fn uplink_settings(config: &Config, clock: &Clock) -> UplinkSettings {
    UplinkSettings {
        url: config.gateway.url.clone(),
        token_file: config.gateway.token_file.clone(),
        tls: ClientTls::new(config.gateway.ca_file.as_deref()),
        heartbeat: config.gateway.heartbeat,
        backoff_max: config.gateway.backoff_max,
        labels: config.agent.labels.0.clone(),
        clock: clock.clone(),
        ..UplinkSettings::default()
    }
}

fn mqtt_tls(config: &Config, credentials: bool) -> anyhow::Result<Option<ServerTls>> {
    let Some(listen) = config.mqtt.listen else { return Ok(None) };
    let files = (config.mqtt.tls_cert.as_ref(), config.mqtt.tls_key.as_ref());
    Ok(process::listener("mqtt", listen, files, &[], credentials, config.mqtt.insecure)?)
}

async fn mqtt_listener(
    config: &Config,
    listen: SocketAddr,
    tls: Option<ServerTls>,
    credentials: Option<Credentials>,
    routes: mqtt::Routes,
    clock: &Clock,
    spans: &Spans,
) -> anyhow::Result<mqtt::Listener> {
    let limits = mqtt::Limits {
        max_packet_bytes: config.mqtt.max_packet.as_usize(),
        max_connections: config.mqtt.max_connections,
        connect_timeout: config.mqtt.connect_timeout,
        publishes_per_second: config.mqtt.publishes_per_second,
        session_expiry: config.mqtt.session_expiry,
        max_sessions: config.mqtt.max_sessions,
        ..mqtt::Limits::default()
    };
    let (clock, spans) = (clock.clone(), spans.clone());
    let settings = mqtt::Settings { listen, tls, credentials, limits, clock, routes, spans };
    Ok(mqtt::Listener::bind(settings).await?)
}

/// What `/status`, `/readyz` and `/metrics` tell.
fn ops(
    id: &AgentId,
    metrics: &Metrics,
    brokers: &Brokers,
    triggers: &Triggers,
    files: &FileSet,
    uplink: &Uplink,
    mqtt: Option<mqtt::Handle>,
) -> Ops {
    link::register(metrics, uplink);
    let (id, files, uplink) = (id.clone(), files.status(), uplink.clone());
    let (folder, sources) = (files.clone(), triggers.sources().clone());
    Ops::new(metrics.clone())
        .sound("manifests", move || folder.in_force())
        .status(move |status| {
            status.insert("agent".to_owned(), Value::from(id.as_str()));
            status.insert("version".to_owned(), Value::from(env!("CARGO_PKG_VERSION")));
            status.insert("link".to_owned(), uplink.status());
        })
        .brokers(brokers)
        .triggers(triggers)
        .status(move |status| {
            status.insert("sources".to_owned(), sources.status());
            status.insert("manifests".to_owned(), files.to_json());
            if let Some(Value::Object(mut listener)) = mqtt.as_ref().map(mqtt::Handle::status) {
                // The sessions stand by themselves: they outlive connections.
                status.insert("sessions".to_owned(), listener.remove("sessions").unwrap_or_default());
                status.insert("mqtt".to_owned(), Value::Object(listener));
            }
        })
}
