//! How sources stand: conditions, counters, and what else there is to see of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::delivery::Owner;
use crate::http::metrics::Metrics;
use crate::manifest::{Kind, Object, ObjectName};

/// Which source.
type Key = (Kind, ObjectName);

/// How all sources of this process stand. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Board(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    sources: Mutex<BTreeMap<Key, Arc<Live>>>,
    /// EventTypes that were found.
    types: Mutex<Vec<Object>>,
    /// Counts changes that others are to look at.
    changes: Arc<watch::Sender<u64>>,
}

/// Why something of a source is not as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// One word, as in a condition.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
    /// It is not known yet, rather than not so.
    pub unknown: bool,
}

impl Missing {
    /// Something that is not so.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), unknown: false }
    }

    fn starting() -> Self {
        Self { reason: "Starting", message: "not started yet".to_owned(), unknown: true }
    }
}

/// How one source stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The URL that its events go to, or why there is none.
    pub sink: Result<String, Missing>,
    /// Whether it runs, or why not.
    pub deployed: Result<(), Missing>,
    /// `type` and `source` of its events, where they are always the same.
    pub attributes: Option<(String, String)>,
}

impl Standing {
    /// Why it is not ready, if it is not: what is known to be wrong before what is not known yet.
    fn missing(&self) -> Option<&Missing> {
        let parts = [self.sink.as_ref().err(), self.deployed.as_ref().err()];
        parts.into_iter().flatten().min_by_key(|missing| missing.unknown)
    }
}

/// One source as others see it.
#[derive(Debug)]
pub struct Live {
    kind: Kind,
    name: ObjectName,
    owner: Owner,
    events: AtomicU64,
    state: Mutex<State>,
    board: Board,
}

#[derive(Debug)]
struct State {
    standing: Standing,
    lost: BTreeMap<&'static str, u64>,
    last_error: Option<(String, Option<u64>)>,
    more: Map<String, Value>,
}

impl Board {
    /// Nobody stands here yet. `changes` is told of each change.
    pub(crate) fn new(changes: Arc<watch::Sender<u64>>) -> Self {
        Self(Arc::new(Shared { sources: Mutex::default(), types: Mutex::default(), changes }))
    }

    fn sources(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Live>>> {
        self.0.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.0.changes.send_modify(|n| *n += 1);
    }

    /// A new source takes its place. Its counters go on from those of the one before it, if that had its name.
    pub(super) fn add(&self, kind: Kind, name: &ObjectName, owner: Owner) -> Arc<Live> {
        let standing = Standing { sink: Err(Missing::starting()), deployed: Err(Missing::starting()), attributes: None };
        let mut sources = self.sources();
        let key = (kind, name.clone());
        let before = sources.get(&key);
        let live = Arc::new(Live {
            kind,
            name: name.clone(),
            owner,
            events: AtomicU64::new(before.map_or(0, |live| live.events.load(Ordering::Relaxed))),
            state: Mutex::new(State {
                standing,
                lost: before.map(|live| live.state().lost.clone()).unwrap_or_default(),
                last_error: None,
                more: Map::new(),
            }),
            board: self.clone(),
        });
        sources.insert(key, live.clone());
        live
    }

    pub(super) fn remove(&self, kind: Kind, name: &ObjectName) {
        if self.sources().remove(&(kind, name.clone())).is_some() {
            self.tell();
        }
    }

    /// Shows other EventTypes.
    pub(super) fn set_types(&self, types: Vec<Object>) {
        *self.0.types.lock().unwrap_or_else(PoisonError::into_inner) = types;
        self.tell();
    }

    /// The EventTypes that were found in what has passed.
    pub(crate) fn types(&self) -> Vec<Object> {
        self.0.types.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How a source stands; `None` if none of this name runs here.
    #[must_use]
    pub fn standing(&self, kind: Kind, name: &ObjectName) -> Option<Standing> {
        self.sources().get(&(kind, name.clone())).map(|live| live.standing())
    }

    /// What is not ready of what `owner` brought, a line each.
    pub(crate) fn not_ready(&self, owner: Owner) -> Vec<String> {
        let sources = self.sources();
        let ours = sources.values().filter(|live| live.owner == owner);
        ours.filter_map(|live| {
            let standing = live.standing();
            let why = standing.missing()?;
            Some(format!("{} {}: {}: {}", live.kind, live.name, why.reason, why.message))
        })
        .collect()
    }

    /// All sources as `/status` shows them, by kind, namespace and name.
    #[must_use]
    pub fn status(&self) -> Value {
        Value::Array(self.sources().values().map(|live| live.status()).collect())
    }

    /// Adds the sources' counters to `/metrics`.
    pub fn register(&self, metrics: &Metrics) {
        let board = self.clone();
        metrics.collect(move |samples| {
            for live in board.sources().values() {
                let labels = [
                    ("kind", live.kind.resource().name),
                    ("namespace", &*live.name.namespace),
                    ("source", &*live.name.name),
                ];
                let help = "Events that a source has handed over, since the start.";
                samples.counter("godwit_source_events", help, &labels, live.events.load(Ordering::Relaxed));
                for (reason, n) in &live.state().lost {
                    let [kind, namespace, source] = labels;
                    let labels = [kind, namespace, source, ("reason", *reason)];
                    let help = "Events of a source that were given up or never made, since the start.";
                    samples.counter("godwit_source_events_lost", help, &labels, *n);
                }
            }
        });
    }
}

impl Live {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.state().standing.clone()
    }

    fn change(&self, change: impl FnOnce(&mut Standing)) {
        let changed = {
            let mut state = self.state();
            let before = state.standing.clone();
            change(&mut state.standing);
            state.standing != before
        };
        if changed {
            self.board.tell();
        }
    }

    /// Notes where its events go, or why nowhere.
    pub fn sink(&self, sink: Result<String, Missing>) {
        self.change(|standing| standing.sink = sink);
    }

    /// Notes that it runs, or why not.
    pub fn deployed(&self, deployed: Result<(), Missing>) {
        self.change(|standing| standing.deployed = deployed);
    }

    /// Notes what its events always have.
    pub fn attributes(&self, ty: &str, source: &str) {
        self.change(|standing| standing.attributes = Some((ty.to_owned(), source.to_owned())));
    }

    /// Counts events that were handed over.
    pub fn sent(&self, events: u64) {
        self.events.fetch_add(events, Ordering::Relaxed);
    }

    /// Counts events that are lost, by a word for why.
    pub fn lost(&self, reason: &'static str, events: u64) {
        if events > 0 {
            *self.state().lost.entry(reason).or_default() += events;
        }
    }

    /// Notes what went wrong.
    pub fn failed(&self, why: impl Into<String>, clock: &Clock) {
        self.state().last_error = Some((why.into(), clock.wall_ms()));
    }

    /// Notes something to be seen in `/status`.
    pub fn show(&self, name: &str, value: impl Into<Value>) {
        self.state().more.insert(name.to_owned(), value.into());
    }

    /// Events handed over so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Events lost so far for this reason.
    #[must_use]
    pub fn lost_for(&self, reason: &str) -> u64 {
        self.state().lost.get(reason).copied().unwrap_or(0)
    }

    fn status(&self) -> Value {
        let state = self.state();
        let standing = &state.standing;
        let why = standing.missing();
        let mut status = json!({
            "kind": self.kind.resource().name,
            "namespace": self.name.namespace,
            "name": self.name.name,
            "owner": self.owner.name(),
            "ready": why.is_none(),
            "reason": why.map(|w| w.reason),
            "message": why.map(|w| w.message.as_str()),
            "sinkUri": standing.sink.as_ref().ok(),
            "events": self.events.load(Ordering::Relaxed),
            "lost": state.lost,
            "last_error": state.last_error.as_ref().map(|(message, at)| json!({"message": message, "at_ms": at})),
        });
        if let Value::Object(status) = &mut status {
            status.extend(state.more.clone());
        }
        status
    }
}
