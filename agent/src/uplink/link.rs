//! The state of the way to the gateway, as people see it.

use std::sync::{Mutex, PoisonError};

use godwit_mesh::clock::Clock;
use godwit_mesh::sync::when;
use serde_json::{Value, json};
use tokio::sync::watch;

/// Whether there is a way to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// The gateway answers.
    Up,
    /// It does not, or there is none.
    Down,
    /// It is not asked, by hand.
    Held,
}

impl LinkState {
    /// The state's name in `/status` and `/metrics`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Held => "held",
        }
    }
}

/// The state and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    /// The state.
    pub state: LinkState,
    /// Since when by the wall clock, in ms since 1970; none where no clock was valid then.
    pub since_ms: Option<u64>,
    /// Since when by this process's own clock, in ms since its start.
    pub since_elapsed_ms: u64,
    /// Where the gateway is, if one is configured.
    pub gateway: Option<String>,
    /// `stream`, or `finite` behind a proxy that buffers; empty while down.
    pub mode: &'static str,
    /// The last failure.
    pub error: Option<String>,
}

/// Keeps the link's state.
#[derive(Debug)]
pub(super) struct Link {
    clock: Clock,
    status: watch::Sender<LinkStatus>,
    /// Counted for `/metrics`.
    counts: Mutex<Counts>,
}

/// What has happened on the link since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) connections: u64,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    pub(super) set_back: u64,
}

impl Link {
    pub(super) fn new(clock: Clock, gateway: Option<String>, held: bool) -> Self {
        let status = LinkStatus {
            state: if held { LinkState::Held } else { LinkState::Down },
            since_ms: clock.wall_ms(),
            since_elapsed_ms: clock.elapsed_ms(),
            gateway,
            mode: "",
            error: None,
        };
        Self { clock, status: watch::Sender::new(status), counts: Mutex::default() }
    }

    pub(super) fn set(&self, state: LinkState, mode: &'static str) {
        self.status.send_if_modified(|status| {
            if status.state != state {
                status.state = state;
                status.since_ms = self.clock.wall_ms();
                status.since_elapsed_ms = self.clock.elapsed_ms();
            } else if status.mode == mode {
                return false;
            }
            status.mode = mode;
            true
        });
    }

    pub(super) fn failed(&self, error: &str) {
        self.status.send_modify(|status| status.error = Some(error.to_owned()));
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn watch(&self) -> watch::Receiver<LinkStatus> {
        self.status.subscribe()
    }

    pub(super) fn status(&self) -> Value {
        let status = self.status.borrow();
        let counts = *self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        json!({
            "state": status.state.name(),
            "since": when::text(status.since_ms),
            "since_s": self.clock.elapsed_ms().saturating_sub(status.since_elapsed_ms) / 1000,
            "gateway": status.gateway,
            "mode": status.mode,
            "error": status.error,
            "connections": counts.connections,
            "sent_bytes": counts.sent_bytes,
            "received_bytes": counts.received_bytes,
            "set_back": counts.set_back,
        })
    }
}
