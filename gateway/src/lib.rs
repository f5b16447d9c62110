//! Godwit's gateway: where the agents' events arrive and central Triggers run.
//!
//! [`Gateway::start`] wires the parts in the order in which an event meets them: Brokers (journals), Triggers, and in front of
//! them the agents' way in and the HTTP ingress. Manifests are applied before the listener opens, so that an open port means
//! ready; wrong ones do not keep it shut, those from before are run then. [`Gateway::stop`] goes the way of the events too:
//! sources first, then delivery, then the journals.

pub mod config;
mod metrics;
pub mod sync;

use std::net::SocketAddr;
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
use godwit_mesh::objects::{self, Objects};
use godwit_mesh::observe::{self, Spans};
use godwit_mesh::process::{self, Daemon, FileSet, Front};
use godwit_mesh::source::Sources;
use godwit_mesh::state::{DataDir, Lock, State};
use godwit_mesh::storage::{Disk, Storage};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use config::Config;
use sync::{AgentSync, SyncSettings};

/// Bytes that an agent may send ahead: over a satellite (0.6 s there and back) this still lets 1.7 MB/s through, where the listener's
/// own 64 KiB would let 0.1. It is what may come, not what is kept: the credit bounds that.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    brokers: Brokers,
    triggers: Triggers,
    made_here: Sources,
    sync: AgentSync,
    files: Arc<tokio::sync::Mutex<FileSet>>,
    objects: Objects,
    certificate: Option<ServerTls>,
    credentials: Option<Credentials>,
    /// The listener, the watch over the folder and the view of objects; they end when `sources` is cancelled.
    tasks: JoinSet<&'static str>,
    sources: CancellationToken,
    /// Held until everything is closed.
    _lock: Lock,
}

/// Checks a configuration without opening a port or touching the data folder: listener, certificate, credentials, manifests.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(config: &Config) -> anyhow::Result<()> {
    observe::endpoint(&config.tracing)?;
    let credentials = process::credentials(&config.auth)?;
    Front::prepare(&config.http, credentials)?;
    process::services(&config.resolve)?;
    ClientTls::check(config.gateway.ca_file.as_deref()).context("gateway.ca-file")?;
    if let Some(folder) = &config.gateway.manifests {
        Manifests::load_dir(folder).context("gateway.manifests")?;
    }
    Ok(())
}

impl Gateway {
    /// Starts a gateway: when this returns, its listener is open and its Triggers run. Call within a current-thread runtime.
    ///
    /// # Errors
    /// What is wrong with the configuration, the data folder or the listener.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let clock = Clock::system();
        let metrics = Metrics::new();
        let credentials = process::credentials(&config.auth)?;
        let front = Front::prepare(&config.http, credentials.clone())?.windows(STREAM_WINDOW, CONNECTION_WINDOW);

        // What is kept: one owner, the Brokers.
        let dir = &config.gateway.data_dir;
        let lock = DataDir::lock(dir)?;
        let disk = Disk::new(dir).with_context(|| format!("data folder {}", dir.display()))?;
        let storage: Arc<dyn Storage> = Arc::new(disk);
        let kept = State::open(storage.clone(), objects::FILE)?;
        let defaults = process::broker_defaults(&*storage, &config.storage, clock.clone())?;
        let brokers = Brokers::open(storage.clone(), None, defaults).await?;

        // What consumes: the folder's Triggers; the agents get the objects that are for them.
        let sources = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let tls = ClientTls::new(config.gateway.ca_file.as_deref());
        let spans = match observe::endpoint(&config.tracing)? {
            None => Spans::default(),
            Some(url) => {
                let (spans, task) = Spans::to(
                    &url,
                    "godwit-gateway",
                    front.address()?.as_str(),
                    tls.clone(),
                    clock.clone(),
                    sources.clone(),
                );
                tasks.spawn(async move {
                    task.await;
                    "the export of traces"
                });
                spans
            }
        };
        spans.register(&metrics);
        let settings = DeliverySettings {
            tls,
            address: front.address()?,
            services: process::services(&config.resolve)?,
            max_event_bytes: front.limits().event_bytes,
            clock: clock.clone(),
            tokens: config.delivery.tokens.0.clone(),
            listener: LocalListener::none(),
            spans: spans.clone(),
        };
        let triggers = Triggers::new(brokers.clone(), settings);
        if let Err(error) = ClientTls::check(config.gateway.ca_file.as_deref()) {
            // No reason not to take events: whoever needs the file is told again at each attempt.
            tracing::error!("gateway.ca-file: {error}");
        }
        let here = |all: &Manifests| Ok(all.for_here());
        let objects = Objects::open(triggers.clone(), kept, Box::new(here)).await;
        let mut files = FileSet::new(config.gateway.manifests.as_deref(), storage, triggers.clone(), Box::new(here));
        objects.show_files(files.start().await);
        let (told, for_agents) = watch::channel(objects.for_agents());

        // What produces: the sources of the sets; the agents' way in and the ingress, on one listener.
        let made_here = Sources::start(&triggers, [], []).await;
        triggers.sources().register(&metrics);
        let settings = SyncSettings {
            max_agents: config.sync.max_agents,
            credit: config.sync.credit.as_usize(),
            clock: clock.clone(),
            ..SyncSettings::default()
        };
        let sync = AgentSync::new(brokers.clone(), settings, for_agents);
        let bound = front.bind().await?;
        let address = bound.server.local_addr();
        let router = ops(&metrics, &brokers, &triggers, &files, &sync).routes(Router::new());
        let router = sync.routes(cursors::routes(events::routes(router, &brokers), &brokers));
        let router = objects::routes(dead_letters::routes(router, &triggers), &objects);
        let router = router.ingress(Ingress::new(brokers.clone(), clock, &metrics).naming_no_agent().traced(spans));

        let (stop, server_metrics) = (sources.clone(), ServerMetrics::register(&metrics));
        tasks.spawn(async move {
            bound.server.serve(router, bound.door, server_metrics, stop).await;
            "the HTTP listener"
        });
        let files = Arc::new(tokio::sync::Mutex::new(files));
        tasks.spawn(watch_folder(files.clone(), objects.clone(), sources.clone()));
        let (stop, shown) = (sources.clone(), objects.clone());
        tasks.spawn(async move {
            shown.follow(stop).await;
            "the view of objects"
        });
        tasks.spawn(tell_agents(objects.clone(), told, sources.clone()));
        tracing::info!(http = %address, "the gateway is ready");
        Ok(Self {
            address,
            brokers,
            triggers,
            made_here,
            sync,
            files,
            objects,
            certificate: bound.tls,
            credentials,
            tasks,
            sources,
            _lock: lock,
        })
    }

    /// Where it is reached: the port that the system chose where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Daemon for Gateway {
    const NAME: &'static str = "the gateway";

    async fn failed(&mut self) -> String {
        match self.tasks.join_next().await {
            Some(Ok(part)) => format!("{part} has ended by itself"),
            Some(Err(error)) => format!("a part of the gateway has failed: {error}"),
            None => std::future::pending().await,
        }
    }

    async fn reload(&mut self) {
        if let Some(Err(error)) = self.certificate.as_ref().map(ServerTls::reload) {
            tracing::error!("[http] the certificate from before stays in force: {error}");
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
    }

    async fn stop(mut self) {
        // The agents' streams end first: they would hold the listener's drain.
        self.sources.cancel();
        self.sync.close().await;
        while self.tasks.join_next().await.is_some() {}
        self.made_here.close().await;
        self.triggers.close().await;
        self.brokers.close().await;
    }
}

/// Applies the folder again whenever a file in it has changed.
async fn watch_folder(files: Arc<tokio::sync::Mutex<FileSet>>, objects: Objects, stop: CancellationToken) -> &'static str {
    while stop.run_until_cancelled(tokio::time::sleep(process::LOOK_EVERY)).await.is_some() {
        let applied = files.lock().await.look().await;
        objects.show_files(applied);
    }
    "the watch over the manifests"
}

/// Hands the agents' side what folder and API hold, whenever that changes.
async fn tell_agents(objects: Objects, told: watch::Sender<Option<Manifests>>, stop: CancellationToken) -> &'static str {
    let mut changes = objects.changes();
    loop {
        told.send_if_modified(|now| {
            let all = objects.for_agents();
            let changed = *now != all;
            *now = all;
            changed
        });
        match stop.run_until_cancelled(changes.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => break,
        }
    }
    "telling the agents of objects"
}

/// What `/status`, `/readyz` and `/metrics` tell.
fn ops(metrics: &Metrics, brokers: &Brokers, triggers: &Triggers, files: &FileSet, sync: &AgentSync) -> Ops {
    metrics::register(metrics, sync);
    let (files, sync) = (files.status(), sync.clone());
    let (folder, sources) = (files.clone(), triggers.sources().clone());
    Ops::new(metrics.clone())
        .sound("manifests", move || folder.in_force())
        .status(|status| {
            status.insert("version".to_owned(), Value::from(env!("CARGO_PKG_VERSION")));
        })
        .brokers(brokers)
        .triggers(triggers)
        .status(move |status| {
            status.insert("agents".to_owned(), sync.status());
            status.insert("sources".to_owned(), sources.status());
            status.insert("manifests".to_owned(), files.to_json());
        })
}
