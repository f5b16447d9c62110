//! Sessions: what belongs to a client id, with or without a connection.
//!
//! A session has at most one connection. A second one with the same client id takes over: it asks the first to go and waits
//! until that has settled what it had appended, so that hand-shakes never have two owners. Subscriptions and open QoS 2
//! hand-shakes outlive the connection as long as the session's expiry says; of these the hand-shakes outlive the process too.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use godwit_mesh::door::Identity;
use godwit_mesh::journal::Journal;
use tokio::sync::Notify;

use super::fanout::{Delivery, Queue};
use super::limits::Limits;
use super::packet::Version;
use super::qos2::Handshakes;
use super::will::KeptWill;

/// What a connection is told to do by somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Another connection has the client id now.
    TakenOver,
    /// What the client came in with is no longer in force.
    Revoked,
    /// The listener stops.
    Shutdown,
}

/// A client's session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client_id: Box<str>,
    /// When the connection wants to be woken at the latest, in ms of elapsed time; `u64::MAX` for never.
    pub(super) deadline_ms: AtomicU64,
    state: Mutex<State>,
    /// Told when the connection has let go.
    pub(super) released: Notify,
}

/// What is shared between the connection and others.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) link: Option<Link>,
    pub(super) queue: Queue,
    /// Filters subscribed to, for the end of the session.
    pub(super) filters: Vec<Box<str>>,
    /// Held here while there is no connection.
    pub(super) handshakes: Handshakes,
    /// Where it is noted that the session has subscriptions (see `qos2`).
    pub(super) noted_in: Option<Journal>,
    /// The process stopped meanwhile, and the subscriptions are gone: the client is told that there is no session.
    pub(super) is_remnant: bool,
    /// How long the session outlives its connection; 0 ends with it.
    pub(super) expiry_seconds: u32,
    pub(super) away_since_ms: u64,
    /// A will that waits for its delay, and when it is due.
    pub(super) will: Option<(u64, Box<KeptWill>)>,
}

impl State {
    /// When the session ends if its client stays away.
    pub(super) fn expires_ms(&self) -> u64 {
        self.away_since_ms.saturating_add(u64::from(self.expiry_seconds) * 1000)
    }

    /// Whether nothing is left of it but that it is there.
    pub(super) fn is_bare(&self) -> bool {
        self.filters.is_empty() && self.handshakes.is_empty() && self.will.is_none() && self.noted_in.is_none()
    }

    /// When there is something to do for a session without a connection: its will, or its end.
    pub(super) fn due_while_away_ms(&self) -> u64 {
        self.will.as_ref().map_or(u64::MAX, |(at_ms, _)| *at_ms).min(self.expires_ms())
    }
}

/// A session's connection as others see it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) version: Version,
    pub(super) peer: SocketAddr,
    /// Who it is; none where everybody may come in.
    pub(super) identity: Option<Identity>,
    pub(super) since_ms: u64,
    pub(super) waker: Option<Waker>,
    pub(super) order: Option<Order>,
}

impl Session {
    pub(super) fn new(client_id: &str) -> Arc<Self> {
        Arc::new(Self {
            client_id: client_id.into(),
            deadline_ms: AtomicU64::new(u64::MAX),
            state: Mutex::default(),
            released: Notify::new(),
        })
    }

    /// Locks the state. Never held while another lock of the listener is taken, but for the table of sessions above it.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the connection an order and wakes it.
    pub(super) fn order(&self, order: Order) {
        let waker = self.lock().link.as_mut().and_then(|link| {
            link.order = Some(order);
            link.waker.take()
        });
        waker.into_iter().for_each(Waker::wake);
    }

    /// Wakes the connection if its deadline has passed.
    pub(super) fn wake_if_due(&self, now_ms: u64) {
        if self.deadline_ms.load(Ordering::Relaxed) <= now_ms {
            let waker = self.lock().link.as_mut().and_then(|link| link.waker.take());
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// Queues a delivery for the connection; answers whether it was taken. One for a client that is away is not.
    pub(super) fn deliver(&self, delivery: Delivery, limits: &Limits) -> bool {
        let mut state = self.lock();
        let State { link: Some(link), queue, .. } = &mut *state else { return false };
        let taken = queue.push(delivery, limits);
        let waker = link.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        taken
    }

    #[cfg(test)]
    pub(super) fn for_test(client_id: &str) -> Arc<Self> {
        Self::new(client_id)
    }
}
