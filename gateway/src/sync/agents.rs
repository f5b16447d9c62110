//! All agents, and the public face of the sync.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use godwit_mesh::broker::Brokers;
use godwit_mesh::clock::Clock;
use godwit_mesh::door::passed_on_by;
use godwit_mesh::http::{Request, Response, Router, respond, through_a_proxy};
use godwit_mesh::manifest::Manifests;
use godwit_mesh::names::AgentId;
use godwit_mesh::sync::limits::{DEFAULT_WINDOW_LOG, MAX_FRAME_BYTES};
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::agent::Agent;
use super::{down, position, up};

/// What the sync needs to know.
#[derive(Debug, Clone)]
pub struct SyncSettings {
    /// Most agents known at a time.
    pub max_agents: usize,
    /// Bytes of bodies that each broker of an agent may have unanswered: what the gateway keeps while its disk is full.
    pub credit: usize,
    /// Largest frame after decompression, in bytes. An agent's largest event must fit.
    pub max_frame_bytes: usize,
    /// Largest window, as a power of two, that is decompressed with.
    pub window_log: u32,
    /// Name and version of this program, for people.
    pub software: String,
    /// Time for `since` in status.
    pub clock: Clock,
}

impl Default for SyncSettings {
    fn default() -> Self {
        Self {
            max_agents: 4096,
            credit: 1 << 20,
            max_frame_bytes: MAX_FRAME_BYTES,
            window_log: DEFAULT_WINDOW_LOG,
            software: concat!("godwit-gateway ", env!("CARGO_PKG_VERSION")).to_owned(),
            clock: Clock::system(),
        }
    }
}

/// The gateway's end of the sync. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AgentSync(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) brokers: Brokers,
    pub(super) settings: SyncSettings,
    /// All objects of the gateway, once there are any to go by; those for agents go down.
    pub(super) objects: watch::Receiver<Option<Manifests>>,
    agents: Mutex<BTreeMap<AgentId, Arc<Agent>>>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl AgentSync {
    /// The sync of agents into these Brokers. `objects` are all that the gateway has: those with `godwit.dev/agents` go down to
    /// the agents that they select, again whenever they change; while they are not known (`None`) nothing does, and the agents keep
    /// what they have. Agents of earlier days are known by their positions.
    #[must_use]
    pub fn new(brokers: Brokers, settings: SyncSettings, objects: watch::Receiver<Option<Manifests>>) -> Self {
        let mut agents: BTreeMap<AgentId, Arc<Agent>> = BTreeMap::new();
        for broker in brokers.list() {
            for id in position::agents(broker.journal()) {
                agents.entry(id.clone()).or_insert_with(|| Arc::new(Agent::new(id))).known(&broker);
            }
        }
        Self(Arc::new(Inner {
            brokers,
            settings,
            objects,
            agents: Mutex::new(agents),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// Adds the agents' endpoints to a router.
    #[must_use]
    pub fn routes(&self, router: Router) -> Router {
        let (up, down) = (self.0.clone(), self.0.clone());
        router
            .route(Method::POST, "/sync/v1/agents/{agent}/up", move |request| {
                let inner = up.clone();
                async move {
                    match inner.agent_of(&request) {
                        Ok(agent) => up::answer(inner, agent, request),
                        Err(response) => response,
                    }
                }
            })
            .route(Method::GET, "/sync/v1/agents/{agent}/down", move |request| {
                let inner = down.clone();
                async move {
                    match inner.agent_of(&request) {
                        Ok(agent) => down::answer(&inner, &agent, &request),
                        Err(response) => response,
                    }
                }
            })
    }

    /// The agents as `/status` shows them: an array, by id.
    #[must_use]
    pub fn status(&self) -> Value {
        let agents: Vec<_> = self.0.lock().values().cloned().collect();
        agents.iter().map(|agent| agent.status()).collect()
    }

    /// Ends all connections, once what has arrived is stored.
    pub async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<AgentId, Arc<Agent>>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agent that a request speaks for, if it may.
    #[allow(clippy::result_large_err)] // The answer itself, made once a request.
    fn agent_of(&self, request: &Request) -> Result<Arc<Agent>, Response> {
        // An agent is no browser: what a page has asked for is marked so by every one of them.
        if ["origin", "sec-fetch-site", "sec-fetch-mode"].iter().any(|name| request.head.headers.contains_key(*name)) {
            return Err(respond::problem(StatusCode::FORBIDDEN, "this is for agents, not for pages in a browser"));
        }
        let name = request.param("agent").unwrap_or_default();
        let id = AgentId::new(&name).map_err(|e| respond::problem(StatusCode::BAD_REQUEST, e))?;
        match &request.identity {
            Some(identity) if identity.name() == id.as_str() => {}
            Some(identity) => {
                let why = format!("the token is {}'s, not that of agent {id}", identity.name());
                return Err(respond::problem(StatusCode::FORBIDDEN, why));
            }
            None if request.peer_addr().ip().to_canonical().is_loopback() => {
                // Its own peer is loopback; whom it speaks for may be anywhere.
                if let Some(header) = passed_on_by(&request.head.headers) {
                    return Err(respond::problem(StatusCode::FORBIDDEN, through_a_proxy(header)));
                }
            }
            None => {
                let why = "without credentials only agents on this machine are served: set auth.credentials";
                return Err(respond::problem(StatusCode::FORBIDDEN, why));
            }
        }
        let mut agents = self.lock();
        if let Some(agent) = agents.get(&id) {
            return Ok(agent.clone());
        }
        if agents.len() >= self.settings.max_agents {
            // Whoever only ever asked makes room: nothing is known of it that could be lost.
            let idle = agents.iter().find(|(_, agent)| Arc::strong_count(agent) == 1 && agent.is_unproven());
            if let Some(idle) = idle.map(|(id, _)| id.clone()) {
                agents.remove(&idle);
            }
        }
        if agents.len() >= self.settings.max_agents {
            return Err(respond::unavailable(60, format_args!("{} agents are known, which is the limit", agents.len())));
        }
        let agent = Arc::new(Agent::new(id.clone()));
        agents.insert(id, agent.clone());
        Ok(agent)
    }
}
