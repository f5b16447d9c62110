//! One agent as the gateway knows it: who is connected under its id, and where its brokers stand.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use godwit_mesh::broker::Brokers;
use godwit_mesh::journal::Offset;
use godwit_mesh::names::{AgentId, BrokerName};
use godwit_mesh::sync::frame::{GoOn, Goodbye, Hello, Report, Standing};
use godwit_mesh::sync::limits::{HEARTBEAT_MS, MAX_BROKERS};
use godwit_mesh::sync::when;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::agents::SyncSettings;
use super::lane::{Known, Lane, LaneHandle};
use super::outbox::Outbox;
use super::position::Seen;

/// An agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) id: AgentId,
    /// The labels of its last hello.
    pub(super) labels: watch::Sender<Option<BTreeMap<String, String>>>,
    /// Held while a hello is answered: hellos of one agent are taken one after the other.
    turn: tokio::sync::Mutex<()>,
    known: Mutex<BTreeMap<BrokerName, Arc<Known>>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connection: Option<Arc<Connection>>,
    connections: u64,
    /// When the link last came or went, by the wall clock.
    since: Option<u64>,
    up: bool,
    heard: Option<Instant>,
    heartbeat: Duration,
    /// The newest epoch of each broker of who was let in last: who does not have it in its lineage is somebody else.
    newest: BTreeMap<String, u64>,
    software: String,
    version: u32,
    report: Option<Report>,
    forks_refused: u64,
    last_error: Option<String>,
}

/// The connection that may store events of an agent.
#[derive(Debug)]
pub(super) struct Connection {
    number: u64,
    pub(super) stop: CancellationToken,
    pub(super) lanes: TaskTracker,
    outbox: Arc<Outbox>,
    pub(super) heartbeat: Duration,
}

/// How long the other side may be silent: two heartbeats may be lost or late, and it is still noticed within three.
pub(super) fn patience(heartbeat: Duration) -> Duration {
    heartbeat * 5 / 2
}

impl State {
    /// Whether something was heard lately from who was let in last, and no end of it.
    fn lives(&self) -> bool {
        self.up && self.heard.is_some_and(|heard| heard.elapsed() < patience(self.heartbeat))
    }

    /// Whether the link is up: connected, or by finite requests that have not gone silent.
    fn shown_up(&self) -> bool {
        self.up && (self.connection.is_some() || self.lives())
    }
}

/// A broker's newest epoch.
fn newest(standing: &Standing) -> Option<(String, u64)> {
    standing.lineage.last().map(|(epoch, _)| (standing.name.clone(), *epoch))
}

impl Agent {
    pub(super) fn new(id: AgentId) -> Self {
        Self {
            id,
            labels: watch::Sender::new(None),
            turn: tokio::sync::Mutex::default(),
            known: Mutex::default(),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of one of its brokers; read from the journal's facts when first asked for.
    pub(super) fn known(&self, broker: &godwit_mesh::broker::Broker) -> Arc<Known> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let load = || Known { seen: Mutex::new(Seen::load(broker.journal(), &self.id)), ..Known::default() };
        known.entry(broker.name().clone()).or_insert_with(|| Arc::new(load())).clone()
    }

    /// Whether it was never let in and has no events here.
    pub(super) fn is_unproven(&self) -> bool {
        self.state().connections == 0 && self.known.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Notes a sign of life, of a connection that was let in.
    pub(super) fn heard(&self) {
        self.state().heard = Some(Instant::now());
    }

    /// Notes what the agent says of its objects.
    pub(super) fn report(&self, report: Report) {
        self.state().report = Some(report);
    }

    /// Notes what went wrong, for status.
    pub(super) fn error(&self, why: &str) {
        self.state().last_error = Some(why.to_owned());
    }

    /// Answers a hello: takes over from an older connection, or refuses a fork. The welcome's brokers come with their lanes.
    pub(super) async fn admit(
        &self,
        hello: &Hello,
        brokers: &Brokers,
        settings: &SyncSettings,
        outbox: &Arc<Outbox>,
        stop: CancellationToken,
    ) -> Result<(Arc<Connection>, Vec<GoOn>, HashMap<u32, LaneHandle>), Goodbye> {
        let _turn = self.turn.lock().await;
        let other_lives = self.state().lives();
        if other_lives && self.forks(hello, brokers) {
            let message =
                format!("another agent is connected as {} and has gone another way; give one of them its own id", self.id);
            tracing::warn!(agent = %self.id, "a connection that forks the lineage is refused");
            let mut state = self.state();
            state.forks_refused += 1;
            state.last_error = Some(message.clone());
            return Err(Goodbye { code: Goodbye::FORK, message });
        }
        let other = self.state().connection.clone();
        if let Some(other) = other {
            other.outbox.goodbye(Goodbye::TAKEN_OVER, "a newer connection of this agent took over");
            other.stop.cancel();
            // Its appends are over before we look at the positions.
            other.lanes.close();
            other.lanes.wait().await;
        }
        let number = {
            let mut state = self.state();
            state.connections += 1;
            state.connections
        };
        let heartbeat = Duration::from_millis(hello.heartbeat_ms.clamp(*HEARTBEAT_MS.start(), *HEARTBEAT_MS.end()));
        let lanes = TaskTracker::new();
        let connection = Arc::new(Connection { number, stop, lanes, outbox: outbox.clone(), heartbeat });
        let mut handles = HashMap::new();
        let go_on = self.offer(&hello.brokers, brokers, settings, &connection, &mut handles).await;
        self.labels.send_if_modified(|labels| {
            let new = Some(hello.labels.clone());
            let changed = *labels != new;
            *labels = new;
            changed
        });
        let mut state = self.state();
        if !state.shown_up() {
            state.since = settings.clock.wall_ms();
        }
        state.up = true;
        state.connection = Some(connection.clone());
        state.heard = Some(Instant::now());
        state.heartbeat = heartbeat;
        state.newest = hello.brokers.iter().filter_map(newest).collect();
        state.software.clone_from(&hello.software);
        state.version = hello.version;
        drop(state);
        Ok((connection, go_on, handles))
    }

    /// Whether a hello shows a way that is not the one we have, or not that of who was let in last: two that were copied from
    /// one have parted when both have been opened, though nothing has come from them yet.
    fn forks(&self, hello: &Hello, brokers: &Brokers) -> bool {
        let state = self.state();
        let parted = hello.brokers.iter().any(|standing| {
            let newest = state.newest.get(&standing.name);
            newest.is_some_and(|newest| standing.lineage.iter().all(|(epoch, _)| epoch != newest))
        });
        drop(state);
        parted
            || hello.brokers.iter().any(|standing| {
                let broker = standing.name.parse().ok().and_then(|name: BrokerName| brokers.get(&name));
                broker.is_some_and(|broker| self.known(&broker).seen().common(standing).forked)
            })
    }

    /// Opens lanes for brokers that an agent offers.
    pub(super) async fn offer(
        &self,
        offered: &[Standing],
        brokers: &Brokers,
        settings: &SyncSettings,
        connection: &Arc<Connection>,
        handles: &mut HashMap<u32, LaneHandle>,
    ) -> Vec<GoOn> {
        let mut answers = Vec::new();
        for standing in offered {
            let refused = |why: String| GoOn { index: standing.index, refused: why, ..GoOn::default() };
            if handles.contains_key(&standing.index) || handles.len() >= MAX_BROKERS {
                answers.push(refused("its number is taken, or there are too many".to_owned()));
                continue;
            }
            let broker = match standing.name.parse::<BrokerName>() {
                Ok(name) => brokers.ensure(&name).await.map_err(|e| e.to_string()),
                Err(e) => Err(e.to_string()),
            };
            let broker = match broker {
                Ok(broker) => broker,
                Err(why) => {
                    tracing::warn!(agent = %self.id, broker = standing.name, "the broker is not taken: {why}");
                    answers.push(refused(why));
                    continue;
                }
            };
            let known = self.known(&broker);
            let (next, refusals) = {
                let mut seen = known.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.heard(standing);
                let next = seen.common(standing).next;
                (next, seen.unheard(standing, next))
            };
            known.agent_next.store(standing.next, Ordering::Relaxed);
            if standing.cursor > next.0 {
                let behind = standing.cursor - next.0;
                known.set_back.fetch_add(behind, Ordering::Relaxed);
                tracing::warn!(agent = %self.id, broker = %broker.name(), behind, "the agent was told of events that are not here: this gateway was set back, or is another");
            }
            let lane = Lane {
                agent: self.id.clone(),
                index: standing.index,
                broker,
                known,
                next,
                outbox: connection.outbox.clone(),
                credit: settings.credit,
                stop: connection.stop.clone(),
            };
            let (handle, task) = lane.start();
            self.state().newest.extend(newest(standing));
            connection.lanes.spawn(task);
            handles.insert(standing.index, handle);
            answers.push(GoOn {
                index: standing.index,
                next: next.0,
                credit: settings.credit as u64,
                refused: String::new(),
                refusals,
            });
        }
        answers
    }

    /// Notes that a connection has ended; `finite` ones end all the time.
    pub(super) fn ended(&self, connection: &Connection, finite: bool, wall_ms: Option<u64>) {
        let mut state = self.state();
        if state.connection.as_ref().is_some_and(|now| now.number == connection.number) {
            state.connection = None;
            if !finite {
                state.up = false;
                state.since = wall_ms;
            }
        }
    }

    /// The agent as `/status` shows it.
    pub(super) fn status(&self) -> Value {
        let state = self.state();
        let up = state.shown_up();
        let mut shown = Map::new();
        shown.insert("id".to_owned(), self.id.as_str().into());
        shown.insert(
            "link".to_owned(),
            json!({ "state": if up { "up" } else { "down" }, "since": when::text(state.since) }),
        );
        shown.insert("software".to_owned(), state.software.as_str().into());
        shown.insert("version".to_owned(), state.version.into());
        shown.insert("labels".to_owned(), json!(*self.labels.borrow()));
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let brokers = known.iter().map(|(name, known)| broker_status(name, known)).collect();
        shown.insert("brokers".to_owned(), Value::Array(brokers));
        let objects = state.report.as_ref().map(|report| {
            json!({
                "revision": format!("{:016x}", report.revision),
                "ready": report.ready,
                "refused": (report.refused != 0).then(|| format!("{:016x}", report.refused)),
                "error": (!report.error.is_empty()).then_some(&report.error),
            })
        });
        shown.insert("objects".to_owned(), objects.unwrap_or_default());
        shown.insert("forks_refused".to_owned(), state.forks_refused.into());
        shown.insert("last_error".to_owned(), json!(state.last_error));
        Value::Object(shown)
    }
}

fn broker_status(name: &BrokerName, known: &Known) -> Value {
    let current = known.seen().current();
    let position = current.map_or(Offset(0), |span| span.end);
    let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
    json!({
        "namespace": name.namespace(),
        "name": name.name(),
        "epoch": current.map(|span| span.epoch.to_string()),
        "position": position.0,
        "lag": read(&known.agent_next).saturating_sub(position.0),
        "skipped": *known.skipped.lock().unwrap_or_else(PoisonError::into_inner),
        "refused": read(&known.refused),
        "set_back": read(&known.set_back),
    })
}
