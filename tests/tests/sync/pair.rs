//! An agent and a gateway in this process, each with a folder.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use godwit_agent::uplink::{Apply, Uplink, UplinkSettings};
use godwit_gateway::sync::{AgentSync, SyncSettings};
use godwit_mesh::broker::{BrokerDefaults, Brokers};
use godwit_mesh::event::{MqttPublish, StoredEvent, encode_publish};
use godwit_mesh::http::{Door, Limits, Router, Server, ServerMetrics, metrics::Metrics};
use godwit_mesh::journal::{Item, Offset, Options};
use godwit_mesh::manifest::Manifests;
use godwit_mesh::names::{AgentId, BrokerName};
use godwit_mesh::storage::Disk;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) fn agent_id() -> AgentId {
    AgentId::new("board-1").expect("a name")
}

pub(crate) fn options() -> Options {
    Options { segment_bytes: 1 << 20, max_bytes: 64 << 20, ..Options::default() }
}

async fn brokers(dir: &Path, agent: Option<AgentId>, options: Options) -> Brokers {
    let storage = Arc::new(Disk::new(dir).expect("a folder"));
    Brokers::open(storage, agent, BrokerDefaults { options, ..BrokerDefaults::default() }).await.expect("opens")
}

/// A gateway.
pub(crate) struct Gateway {
    pub(crate) brokers: Brokers,
    pub(crate) sync: AgentSync,
    pub(crate) addr: SocketAddr,
    pub(crate) objects: watch::Sender<Option<Manifests>>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Gateway {
    pub(crate) async fn start(dir: &Path) -> Self {
        Self::with(dir, options(), SyncSettings::default()).await
    }

    pub(crate) async fn with(dir: &Path, options: Options, settings: SyncSettings) -> Self {
        Self::made(dir, options, settings, Door::default()).await
    }

    pub(crate) async fn behind(dir: &Path, door: Door) -> Self {
        Self::made(dir, options(), SyncSettings::default(), door).await
    }

    async fn made(dir: &Path, options: Options, settings: SyncSettings, door: Door) -> Self {
        let brokers = brokers(dir, None, options).await;
        let (objects, watch) = watch::channel(None);
        let sync = AgentSync::new(brokers.clone(), settings, watch);
        let router = sync.routes(Router::new());
        let server =
            Server::bind("127.0.0.1:0".parse().expect("an address"), None, Limits::default()).await.expect("a port");
        let (addr, stop) = (server.local_addr(), CancellationToken::new());
        let metrics = ServerMetrics::register(&Metrics::new());
        let serving = tokio::spawn(server.serve(router, door, metrics, stop.clone()));
        Self { brokers, sync, addr, objects, stop, serving }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.sync.close().await;
        self.serving.await.expect("ends");
        self.brokers.close().await;
    }

    /// What is stored in a Broker: offset at the agent and payload, in order.
    pub(crate) async fn stored_in(&self, broker: &str) -> Vec<(u64, String)> {
        let Some(broker) = self.brokers.get(&broker.parse().expect("a name")) else { return Vec::new() };
        let nobody = AgentId::new("nobody").expect("a name");
        let (mut stored, mut reader) = (Vec::new(), broker.journal().reader(Offset(0)));
        loop {
            let items = reader.try_next(1 << 20).await.expect("reads");
            if items.is_empty() {
                return stored;
            }
            for item in items {
                let Item::Event { epoch, offset, body } = item else { panic!("{item:?}") };
                let event = StoredEvent::new(body, epoch, offset, &nobody).expect("an event");
                let origin = event.origin().expect("an origin");
                assert_eq!(origin.agent, "board-1");
                let payload = String::from_utf8(event.data().expect("data").to_vec()).expect("text");
                stored.push((origin.offset.0, payload));
            }
        }
    }

    pub(crate) async fn stored(&self) -> Vec<(u64, String)> {
        self.stored_in("default/default").await
    }

    pub(crate) async fn payloads(&self) -> Vec<String> {
        self.stored().await.into_iter().map(|(_, payload)| payload).collect()
    }

    /// The agent's entry of `/status`.
    pub(crate) fn agent(&self) -> serde_json::Value {
        self.sync.status().as_array().and_then(|agents| agents.first().cloned()).unwrap_or_default()
    }
}

/// An agent.
pub(crate) struct Agent {
    pub(crate) brokers: Brokers,
    pub(crate) uplink: Uplink,
    /// Sets that came down and were taken.
    pub(crate) applied: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Agent {
    pub(crate) async fn start(dir: &Path, gateway: SocketAddr) -> Self {
        Self::with(dir, settings(gateway)).await
    }

    pub(crate) async fn with(dir: &Path, settings: UplinkSettings) -> Self {
        Self::keeping(dir, settings, options()).await
    }

    pub(crate) async fn keeping(dir: &Path, settings: UplinkSettings, options: Options) -> Self {
        let brokers = brokers(dir, Some(agent_id()), options).await;
        let applied = Arc::new(Mutex::new(Vec::new()));
        let apply: Apply = Arc::new({
            let applied = applied.clone();
            move |objects| {
                let taken = Manifests::from_json("the gateway", objects.set.as_bytes()).map_err(|e| e.to_string());
                let taken = taken.map(|_| applied.lock().expect("not poisoned").push(objects.set));
                Box::pin(std::future::ready(taken))
            }
        });
        let storage = Arc::new(Disk::new(dir).expect("a folder"));
        let ready = Arc::new(|| Ok(()));
        let uplink = Uplink::open(agent_id(), brokers.clone(), storage, settings, apply, ready).await.expect("opens");
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let (uplink, stop) = (uplink.clone(), stop.clone());
            async move { uplink.run(stop).await }
        });
        Self { brokers, uplink, applied, stop, running }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.running.await.expect("ends");
        self.brokers.close().await;
    }

    /// As a kill would: without goodbye.
    pub(crate) async fn kill(self) {
        self.running.abort();
        let _ = self.running.await;
        drop(self.uplink);
        self.brokers.close().await;
    }

    pub(crate) async fn publish_to(&self, broker: &str, range: std::ops::Range<u32>, text: impl Fn(u32) -> String) {
        let broker = self.brokers.ensure(&broker.parse::<BrokerName>().expect("a name")).await.expect("a broker");
        for n in range {
            let payload = text(n);
            let publish = MqttPublish {
                client_id: "c",
                topic: "t/1",
                qos: 1,
                packet_id: 7,
                payload: payload.as_bytes(),
                ..MqttPublish::default()
            };
            loop {
                let appended = broker
                    .journal()
                    .append(|append| append.event(|out| encode_publish(out, &publish, Some(1_800_000_000_000))));
                match appended {
                    Ok(receipt) => {
                        if n % 64 == 63 {
                            receipt.await.expect("durable");
                        }
                        break;
                    }
                    Err(_) => broker.journal().room().await,
                }
            }
        }
        broker.journal().append(|_| ()).expect("open").await.expect("durable");
    }

    pub(crate) async fn publish(&self, range: std::ops::Range<u32>) {
        self.publish_to("default/default", range, text).await;
    }

    /// The uplink's cursor and account.
    pub(crate) fn consumer(&self) -> godwit_mesh::journal::ConsumerStatus {
        let broker = self.brokers.get(&BrokerName::default()).expect("there");
        broker.journal().consumers().into_iter().find(|c| c.name == "uplink").expect("registered")
    }
}

pub(crate) fn settings(gateway: SocketAddr) -> UplinkSettings {
    UplinkSettings {
        url: Some(format!("http://{gateway}")),
        heartbeat: Duration::from_millis(400),
        backoff_max: Duration::from_millis(300),
        ..UplinkSettings::default()
    }
}

pub(crate) fn text(n: u32) -> String {
    format!("{{\"n\":{n},\"v\":{}.{:03}}}", n / 7, n % 1000)
}

pub(crate) fn texts(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(text).collect()
}

/// Waits until `look` says yes, and else tells what it saw last.
pub(crate) async fn eventually<T: std::fmt::Debug>(what: &str, mut look: impl AsyncFnMut() -> (bool, T)) -> T {
    let start = std::time::Instant::now();
    loop {
        let (yes, seen) = look().await;
        if yes {
            return seen;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{what}: not within 30 s; last seen: {seen:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the gateway has exactly these payloads in this order.
pub(crate) async fn arrives(gateway: &Gateway, expected: &[String]) {
    let count = eventually("events at the gateway", async || {
        let n = gateway.payloads().await.len();
        (n >= expected.len(), n)
    })
    .await;
    assert_eq!(count, expected.len());
    assert!(gateway.payloads().await == expected, "other events than were sent, or in another order");
}
