//! A process's Brokers and Triggers in a temporary folder, which can be ended and started again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use url::Url;

use crate::broker::{Broker, BrokerDefaults, Brokers};
use crate::clock::Clock;
use crate::delivery::{ApplyError, DeadLetter, DeliverySettings, LocalListener, Owner, Services, Triggers};
use crate::door::ClientTls;
use crate::event::{Event, StoredEvent, encode_event};
use crate::journal::{ConsumerStatus, Item, Journal, Offset, Options};
use crate::manifest::{Manifests, parse_str};
use crate::names::{AgentId, BrokerName};
use crate::observe::Spans;
use crate::storage::{Disk, Storage};

/// What deliveries in tests go by.
pub(crate) fn settings() -> DeliverySettings {
    DeliverySettings {
        tls: ClientTls::new(None),
        address: Url::parse("http://127.0.0.1:8080").expect("a URL"),
        services: Services::default(),
        max_event_bytes: 64 << 10,
        clock: Clock::system(),
        tokens: BTreeMap::new(),
        listener: LocalListener::none(),
        spans: Spans::default(),
    }
}

pub(super) struct World {
    pub(super) brokers: Brokers,
    pub(super) triggers: Triggers,
}

impl World {
    pub(super) async fn open(dir: &Path) -> Self {
        Self::on(Arc::new(Disk::new(dir).expect("a folder")), Clock::system()).await
    }

    /// The same on any disk, with any clock.
    pub(super) async fn on(disk: Arc<dyn Storage>, clock: Clock) -> Self {
        Self::with(disk, DeliverySettings { clock, ..settings() }).await
    }

    /// With files of tokens by host, and a place for an MQTT listener.
    pub(super) async fn open_with(dir: &Path, tokens: BTreeMap<String, PathBuf>, listener: LocalListener) -> Self {
        let disk = Arc::new(Disk::new(dir).expect("a folder"));
        Self::with(disk, DeliverySettings { tokens, listener, ..settings() }).await
    }

    /// With traces.
    pub(super) async fn traced(dir: &Path, spans: Spans) -> Self {
        Self::with(Arc::new(Disk::new(dir).expect("a folder")), DeliverySettings { spans, ..settings() }).await
    }

    async fn with(disk: Arc<dyn Storage>, settings: DeliverySettings) -> Self {
        let options = Options { segment_bytes: 256 << 10, max_bytes: 16 << 20, ..Options::default() };
        let agent = AgentId::new("test").expect("valid");
        let defaults = BrokerDefaults { options, max_brokers: 8 };
        let brokers = Brokers::open(disk, Some(agent), defaults).await.expect("opened");
        let triggers = Triggers::new(brokers.clone(), settings);
        Self { brokers, triggers }
    }

    pub(super) async fn close(self) {
        self.triggers.close().await;
        self.brokers.close().await;
    }

    /// Applies these manifests as the files' set.
    pub(super) async fn apply(&self, yaml: &str) -> Result<(), ApplyError> {
        self.triggers.apply(Owner::Files, set(yaml), 1).await
    }

    pub(super) fn broker(&self, name: &str) -> Arc<Broker> {
        self.brokers.get(&name.parse::<BrokerName>().expect("a name")).expect("there")
    }

    /// Appends one event to `default/default`.
    pub(super) async fn publish(&self, event: &Event) {
        publish(self.broker("default").journal(), event, &[]).await;
    }

    pub(super) fn status(&self, trigger: &str) -> Value {
        let all = self.triggers.status();
        all.as_array().into_iter().flatten().find(|t| t["name"] == trigger).cloned().unwrap_or_default()
    }

    pub(super) fn ledger(&self, trigger: &str) -> Option<ConsumerStatus> {
        let prefix = format!("trigger/default/{trigger}/");
        self.broker("default").journal().consumers().into_iter().find(|c| c.name.starts_with(&prefix))
    }

    /// Waits until a Trigger on `default/default` has settled this many events.
    pub(super) async fn settled(&self, trigger: &str, events: u64) -> ConsumerStatus {
        eventually(&format!("{trigger} settles {events}"), || {
            self.ledger(trigger).filter(|l| l.done.total() >= events).ok_or_else(|| format!("{:?}", self.status(trigger)))
        })
        .await
    }

    /// The dead letters of `default/default`.
    pub(super) async fn dead_letters(&self) -> Vec<DeadLetter> {
        let broker = self.broker("default");
        let Some(journal) = broker.existing_dead_letters().await.expect("readable") else { return Vec::new() };
        bodies(journal).await.into_iter().map(|(_, body)| DeadLetter::decode(&body).expect("a dead letter")).collect()
    }

    /// The events in a Broker.
    pub(super) async fn events(&self, broker: &str) -> Vec<Event> {
        let all = bodies(self.broker(broker).journal()).await;
        all.into_iter().map(|(stored, _)| stored.expect("an event").to_event().expect("valid")).collect()
    }
}

async fn bodies(journal: &Journal) -> Vec<(Option<StoredEvent>, bytes::Bytes)> {
    let mut reader = journal.reader(Offset(0));
    let mut all = Vec::new();
    loop {
        let items = reader.try_next(1 << 20).await.expect("readable");
        if items.is_empty() {
            return all;
        }
        for item in items {
            if let Item::Event { epoch, offset, body } = item {
                all.push((StoredEvent::new(body.clone(), epoch, offset, None).ok(), body));
            }
        }
    }
}

pub(super) async fn publish(journal: &Journal, event: &Event, headers: &[(&str, &[u8])]) {
    let receipt = journal.append(|a| a.event(|out| encode_event(out, event, None, headers.iter().copied())));
    receipt.expect("taken").await.expect("durable");
}

pub(super) fn event(id: &str, ty: &str) -> Event {
    Event::builder().id(id).source("/test").ty(ty).data("application/json", r#"{"n":1.10}"#).build().expect("valid")
}

pub(super) fn set(yaml: &str) -> Manifests {
    Manifests::new(parse_str("test.yaml", yaml).expect("valid manifests")).expect("a set")
}

/// A Trigger on `default/default`; `rest` is more of its spec, indented by two.
pub(super) fn trigger(name: &str, uri: &str, rest: &str) -> String {
    format!(
        "apiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata:\n  name: {name}\nspec:\n  broker: default\n  \
         subscriber:\n    uri: {uri}\n{rest}\n---\n"
    )
}

/// The same with annotations of ours: `name: value` each.
pub(super) fn annotated(name: &str, uri: &str, annotations: &[(&str, &str)], rest: &str) -> String {
    let lines: String = annotations.iter().map(|(key, value)| format!("    godwit.dev/{key}: \"{value}\"\n")).collect();
    let metadata = format!("  name: {name}\n  annotations:\n{lines}spec:");
    trigger(name, uri, rest).replace(&format!("  name: {name}\nspec:"), &metadata)
}

/// Waits until `probe` has a value; fails with what it saw last.
pub(super) async fn eventually<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    // An emulated processor takes its time.
    let until = Instant::now() + Duration::from_secs(90);
    loop {
        match probe() {
            Ok(value) => return value,
            Err(saw) if Instant::now() > until => panic!("{what}: not within 90 s; last seen: {saw}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
