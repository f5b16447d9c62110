//! What all connections of a listener share: sessions, subscriptions, routes, counters.
//!
//! Locks are taken one at a time, but for a session's state under the table of sessions, and never held over an await.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use godwit_mesh::clock::Clock;
use godwit_mesh::door::{Credentials, Identity};
use godwit_mesh::event::MqttPublish;
use godwit_mesh::journal::Refused;
use godwit_mesh::observe::Spans;
use godwit_mesh::room::Room;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::fanout::{Delivery, Message};
use super::limits::Limits;
use super::newcomers::Newcomers;
use super::packet::connect::Will;
use super::packet::publish::Publish;
use super::qos2;
use super::routes::Routes;
use super::session::{Order, Session};
use super::status::Counters;
use super::subscriptions::{Options, Subscriptions};
use super::table::{Evicted, Table};
use super::trace;
use super::will::{KeptWill, WillRoom};

/// How often a will is tried again when the journal is busy, and how long.
const WILL_TRIES: u32 = 50;
const WILL_PAUSE: Duration = Duration::from_millis(100);

/// Between two looks at deadlines at least; time limits are late by this much at most.
const LOOK_AGAIN_MS: u64 = 500;

/// Sessions that `/status` shows at most: it is made in memory.
const SHOWN_SESSIONS: usize = 1000;

/// The shared state.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) limits: Limits,
    pub(super) clock: Clock,
    pub(super) routes: Routes,
    pub(super) credentials: Option<Credentials>,
    pub(super) counters: Counters,
    /// Traces of what goes into Brokers.
    pub(super) spans: Spans,
    /// For packets that are large and not whole yet.
    pub(super) room: Room,
    pub(super) wills: WillRoom,
    /// Open TCP connections.
    pub(super) open: AtomicUsize,
    pub(super) newcomers: Newcomers,
    sessions: Mutex<Table>,
    subscriptions: Mutex<Subscriptions>,
    subscribed: AtomicUsize,
    /// When deadlines are looked at next, in ms of elapsed time.
    look_at_ms: AtomicU64,
    /// That has become sooner.
    sooner: Notify,
}

/// What [`Hub::sweep`] found.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) wills: Vec<(Arc<Session>, Box<KeptWill>)>,
    pub(super) expired: Vec<Arc<Session>>,
}

impl Hub {
    pub(super) fn new(
        limits: Limits,
        clock: Clock,
        routes: Routes,
        credentials: Option<Credentials>,
        spans: Spans,
    ) -> Self {
        let hub = Self {
            room: Room::new(limits.partial_bytes.max(limits.max_packet_bytes)),
            wills: WillRoom::new(limits.will_bytes),
            limits,
            clock,
            routes,
            credentials,
            counters: Counters::default(),
            spans,
            open: AtomicUsize::new(0),
            newcomers: Newcomers::default(),
            sessions: Mutex::default(),
            subscriptions: Mutex::default(),
            subscribed: AtomicUsize::new(0),
            look_at_ms: AtomicU64::new(u64::MAX),
            sooner: Notify::new(),
        };
        hub.restore();
        hub
    }

    /// Makes the sessions that have hand-shakes open since before the last stop.
    fn restore(&self) {
        let mut sessions = self.sessions();
        for (client_id, known) in qos2::load(self.routes.now().journals()) {
            let session = Session::new(&client_id);
            {
                let mut state = session.lock();
                state.is_remnant = known.noted_in.is_some();
                state.noted_in = known.noted_in;
                state.handshakes = known.handshakes;
                state.expiry_seconds = known.session_expiry_seconds;
                state.away_since_ms = self.clock.elapsed_ms();
                self.look_by(state.due_while_away_ms());
            }
            sessions.insert(session);
        }
    }

    /// Has deadlines looked at by `at_ms` at the latest.
    pub(super) fn look_by(&self, at_ms: u64) {
        // Read first: most deadlines are later than one that is waited for already.
        if at_ms < self.look_at_ms.load(Ordering::Relaxed) && at_ms < self.look_at_ms.fetch_min(at_ms, Ordering::Relaxed) {
            self.sooner.notify_one();
        }
    }

    /// Resolves when deadlines are to be looked at, by [`Hub::sweep`]. Cancel-safe.
    pub(super) async fn time_to_look(&self) {
        loop {
            tokio::select! {
                () = self.clock.sleep_until(self.look_at_ms.load(Ordering::Relaxed)) => return,
                () = self.sooner.notified() => {}
            }
        }
    }

    pub(super) fn sessions(&self) -> MutexGuard<'_, Table> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscriptions(&self) -> MutexGuard<'_, Subscriptions> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subscribe(&self, session: &Arc<Session>, filter: &str, options: Options) -> bool {
        {
            let mut state = session.lock();
            let known = state.filters.iter().any(|held| **held == *filter);
            if !known && state.filters.len() >= self.limits.max_subscriptions {
                return false;
            }
            if !known {
                state.filters.push(filter.into());
            }
        }
        let mut subscriptions = self.subscriptions();
        subscriptions.insert(filter, session, options);
        self.subscribed.store(subscriptions.len(), Ordering::Relaxed);
        true
    }

    pub(super) fn unsubscribe(&self, session: &Arc<Session>, filter: &str) -> bool {
        session.lock().filters.retain(|held| **held != *filter);
        let mut subscriptions = self.subscriptions();
        let removed = subscriptions.remove(filter, session);
        self.subscribed.store(subscriptions.len(), Ordering::Relaxed);
        removed
    }

    pub(super) fn unsubscribe_all(&self, session: &Arc<Session>) {
        let filters = std::mem::take(&mut session.lock().filters);
        if filters.is_empty() {
            return;
        }
        let mut subscriptions = self.subscriptions();
        for filter in &filters {
            subscriptions.remove(filter, session);
        }
        self.subscribed.store(subscriptions.len(), Ordering::Relaxed);
    }

    /// Whether anybody has subscribed to anything.
    #[inline]
    pub(super) fn has_subscribers(&self) -> bool {
        self.subscribed.load(Ordering::Relaxed) > 0
    }

    /// Whether anybody has subscribed to this topic.
    pub(super) fn has_subscriber_of(&self, topic: &str) -> bool {
        self.has_subscribers() && !self.subscriptions().matches(topic, None).is_empty()
    }

    /// Gives messages to their subscribers.
    pub(super) fn dispatch(&self, publisher: &Arc<Session>, messages: Vec<Arc<Message>>) {
        for message in messages {
            self.give(Some(publisher), &message);
        }
    }

    /// Gives a message to its subscribers; `None`: no client has published it.
    pub(super) fn give(&self, publisher: Option<&Arc<Session>>, message: &Arc<Message>) {
        let matches = self.subscriptions().matches(message.topic(), publisher);
        for found in matches {
            let delivery = Delivery {
                qos: found.qos.min(message.qos),
                retain: message.retain && found.retain_as_published,
                subscription_ids: found.identifiers.into(),
                message: Arc::clone(message),
            };
            if !found.session.deliver(delivery, &self.limits) {
                self.counters.dropped_deliveries.add(1);
            }
        }
    }

    /// Publishes a will: as an event, and to live subscribers. Waits for a busy journal for some seconds.
    pub(super) async fn publish_will(&self, session: &Arc<Session>, will: &Will) {
        let table = self.routes.now();
        let route = if will.topic.starts_with('$') { None } else { table.of(&will.topic) };
        if let Some((_, route)) = route {
            let record = MqttPublish {
                client_id: &session.client_id,
                topic: &will.topic,
                qos: will.qos,
                retain: will.retain,
                packet_id: 0,
                v5: !will.properties.is_empty(),
                properties: &will.properties,
                payload: &will.payload,
            };
            let mut span = trace::begin(&self.spans, route, &record);
            let mut stored = Err(Refused::Busy);
            for _ in 0..WILL_TRIES {
                let arrival_ms = self.clock.wall_ms();
                stored = match route.journal.append(|append| append.event(|out| route.encode(out, &record, arrival_ms))) {
                    Ok(receipt) => receipt.await.map(|_| ()),
                    Err(refused) => Err(refused),
                };
                if stored != Err(Refused::Busy) {
                    break;
                }
                tokio::time::sleep(WILL_PAUSE).await;
            }
            if let Err(refused) = stored {
                warn!(client = &*session.client_id, topic = will.topic, %refused, "a will could not be stored");
                self.count_refusal(&refused, 1);
                span.iter_mut().for_each(|span| span.failed(&refused.to_string()));
                return;
            }
            if let Some(mapping) = &route.mapping {
                mapping.stored(1);
            }
        }
        self.counters.wills.add(1);
        let now_ms = self.clock.elapsed_ms();
        let message = Message::from_parts(&will.topic, &will.payload, &will.properties, will.qos, will.retain, now_ms);
        self.dispatch(session, vec![Arc::new(message)]);
    }

    pub(super) fn count_publish(&self, publish: &Publish<'_>) {
        if let Some(counter) = self.counters.publishes.get(usize::from(publish.qos)) {
            counter.add(1);
        }
        let bytes = publish.topic.len() + publish.properties.len() + publish.payload.len();
        self.counters.publish_bytes.add(bytes as u64);
    }

    pub(super) fn count_refusal(&self, refused: &Refused, publishes: usize) {
        let counter = match refused {
            Refused::Full => &self.counters.refused_full,
            Refused::DiskFull => &self.counters.refused_disk_full,
            Refused::TooLarge { .. } => &self.counters.refused_too_large,
            Refused::Busy | Refused::Disk(_) | Refused::Closed => &self.counters.refused_disk,
        };
        counter.add(publishes as u64);
    }

    /// Tells every connection to go.
    pub(super) fn order_all(&self, order: Order) {
        let sessions: Vec<_> = self.sessions().held().cloned().collect();
        for session in sessions {
            session.order(order);
        }
    }

    /// Whether what a client came in with is still in force.
    pub(super) fn in_force(&self, identity: Option<&Identity>) -> bool {
        self.credentials.as_ref().zip(identity).is_none_or(|(credentials, identity)| credentials.in_force(identity))
    }

    /// Tells those connections to go whose clients came in with what is no longer in force.
    pub(super) fn revoke(&self) {
        let sessions: Vec<_> = self.sessions().held().cloned().collect();
        for session in sessions {
            let identity = session.lock().link.as_ref().and_then(|link| link.identity.clone());
            if !self.in_force(identity.as_ref()) {
                info!(
                    client = &*session.client_id,
                    "the client's credentials have changed or gone: its connection is closed"
                );
                session.order(Order::Revoked);
            }
        }
    }

    /// What has to be done as time passes: wakes connections whose deadline has passed, and answers the wills that are due and
    /// the sessions that have expired. Looks again when the next deadline comes, but not sooner than in [`LOOK_AGAIN_MS`].
    pub(super) fn sweep(&self) -> Due {
        let now_ms = self.clock.elapsed_ms();
        let mut due = Due::default();
        // First, so that a deadline which comes up meanwhile is not overlooked.
        self.look_at_ms.store(u64::MAX, Ordering::Relaxed);
        let mut sessions = self.sessions();
        let evicted = sessions.make_room(self.most_sessions(), now_ms);
        let mut next_ms = sessions.expire_bare(now_ms);
        for session in sessions.held() {
            session.wake_if_due(now_ms);
            let mut state = session.lock();
            if state.link.is_some() {
                next_ms = next_ms.min(session.deadline_ms.load(Ordering::Relaxed));
                continue;
            }
            next_ms = next_ms.min(state.due_while_away_ms());
            let expired = state.expires_ms() <= now_ms;
            if state.will.as_ref().is_some_and(|(at, _)| expired || *at <= now_ms) {
                due.wills.extend(state.will.take().map(|(_, will)| (Arc::clone(session), will)));
            }
            if expired {
                due.expired.push(Arc::clone(session));
            }
        }
        drop(sessions);
        self.tell_evicted(evicted);
        if next_ms != u64::MAX {
            self.look_by(next_ms.max(now_ms + LOOK_AGAIN_MS));
        }
        due
    }

    pub(super) fn most_sessions(&self) -> usize {
        self.limits.max_sessions.max(self.limits.max_connections)
    }

    fn tell_evicted(&self, evicted: Evicted) {
        if evicted == Evicted::default() {
            return;
        }
        let [bare, holding] = &self.counters.evicted_sessions;
        bare.add(evicted.bare as u64);
        holding.add(evicted.holding as u64);
        warn!(
            empty = evicted.bare,
            with_subscriptions_or_open_publishes = evicted.holding,
            most = self.most_sessions(),
            "sessions are lost: too many are kept, and those whose clients have been away for longest made room \
             (mqtt.max-sessions)"
        );
    }

    /// The listener as `/status` shows it: of the sessions those of connected clients first, [`SHOWN_SESSIONS`] at most.
    pub(super) fn status(&self) -> Value {
        let now_ms = self.clock.elapsed_ms();
        let (kept, mut sessions) = {
            let table = self.sessions();
            (table.len(), table.held().cloned().collect::<Vec<_>>())
        };
        sessions.sort_by_cached_key(|session| session.lock().link.is_none());
        sessions.truncate(SHOWN_SESSIONS);
        let sessions: Vec<Value> = sessions
            .iter()
            .map(|session| {
                let state = session.lock();
                let mut shown = json!({
                    "client_id": session.client_id,
                    "connected": state.link.is_some(),
                    "subscriptions": state.filters.len(),
                    "queued": state.queue.len(),
                });
                if let (Value::Object(shown), Some(link)) = (&mut shown, &state.link) {
                    shown.insert("version".to_owned(), link.version.name().into());
                    shown.insert("peer".to_owned(), link.peer.to_string().into());
                    shown.insert("connected_seconds".to_owned(), (now_ms.saturating_sub(link.since_ms) / 1000).into());
                }
                shown
            })
            .collect();
        json!({
            "connections": self.open.load(Ordering::Relaxed),
            "subscriptions": self.subscribed.load(Ordering::Relaxed),
            "kept_sessions": kept,
            "counters": self.counters.to_json(),
            "sessions": sessions,
        })
    }
}
