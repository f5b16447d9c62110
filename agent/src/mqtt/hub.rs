//! What all connections of a listener share: sessions, subscriptions, routes, counters.
//!
//! Locks are taken one at a time, but for a session's state under the table of sessions, and never held over an await.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use godwit_mesh::clock::Clock;
use godwit_mesh::door::{Credentials, Identity};
use godwit_mesh::event::{MqttPublish, encode_publish};
use godwit_mesh::journal::{Journal, Receipt, Refused};
use godwit_mesh::room::Room;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::fanout::{Delivery, Message, Queue};
use super::limits::Limits;
use super::newcomers::Newcomers;
use super::packet::Version;
use super::packet::connect::Will;
use super::packet::publish::Publish;
use super::qos2::{self, Handshakes};
use super::routes::Routes;
use super::session::{Link, Order, Session};
use super::status::Counters;
use super::subscriptions::{Options, Subscriptions};
use super::table::{Evicted, Table};
use super::will::{KeptWill, WillRoom};

/// How often a will is tried again when the journal is busy, and how long.
const WILL_TRIES: u32 = 50;
const WILL_PAUSE: Duration = Duration::from_millis(100);

/// Between two looks at deadlines at least; time limits are late by this much at most.
const LOOK_AGAIN_MS: u64 = 500;

/// Sessions that `/status` shows at most: it is made in memory.
const SHOWN_SESSIONS: usize = 1000;

/// After a connection of this length nothing of a remnant will be asked for any more (see `qos2`).
const REMNANT_MS: u64 = 60_000;

/// The shared state.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) limits: Limits,
    pub(super) clock: Clock,
    pub(super) routes: Routes,
    pub(super) credentials: Option<Credentials>,
    pub(super) counters: Counters,
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

/// A connection's hold on its session. Letting go of it without [`Seat::leave`] ends the hold too.
#[derive(Debug)]
pub(super) struct Seat {
    hub: Arc<Hub>,
    pub(super) session: Arc<Session>,
    /// The session was here before.
    here_before: bool,
    /// What CONNACK says of that: not so for a remnant.
    pub(super) present: bool,
    /// Where it is noted that the session has subscriptions.
    noted_in: Option<Journal>,
    is_remnant: bool,
    since_ms: u64,
    /// Open hand-shakes, while the connection has them.
    pub(super) handshakes: Handshakes,
    pub(super) expiry_seconds: u32,
    pub(super) will: Option<Box<KeptWill>>,
    left: bool,
}

/// Why a client did not get a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoSeat {
    /// The journal could not forget the session that was to be cleaned.
    Journal,
}

/// What [`Hub::sweep`] found.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) wills: Vec<(Arc<Session>, Box<KeptWill>)>,
    pub(super) expired: Vec<Arc<Session>>,
}

/// Who wants a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim<'a> {
    pub(super) client_id: &'a str,
    pub(super) clean: bool,
    pub(super) expiry_seconds: u32,
    pub(super) version: Version,
    pub(super) peer: SocketAddr,
    pub(super) identity: Option<&'a Identity>,
}

impl Hub {
    pub(super) fn new(limits: Limits, clock: Clock, routes: Routes, credentials: Option<Credentials>) -> Self {
        let hub = Self {
            room: Room::new(limits.partial_bytes.max(limits.max_packet_bytes)),
            wills: WillRoom::new(limits.will_bytes),
            limits,
            clock,
            routes,
            credentials,
            counters: Counters::default(),
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

    fn sessions(&self) -> MutexGuard<'_, Table> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscriptions(&self) -> MutexGuard<'_, Subscriptions> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets the session of a client for a connection; waits for an earlier connection to let go of it. Cancel-safe.
    ///
    /// # Errors
    /// See [`NoSeat`].
    pub(super) async fn claim(self: &Arc<Self>, claim: Claim<'_>) -> Result<Seat, NoSeat> {
        loop {
            let (session, taken) = self.find_or_make(&claim);
            if let Some(seat) = taken {
                return self.enter(seat, &claim).await;
            }
            let mut released = std::pin::pin!(session.released.notified());
            released.as_mut().enable();
            if session.lock().link.is_some() {
                session.order(Order::TakenOver);
                released.await;
            }
        }
    }

    fn find_or_make(self: &Arc<Self>, claim: &Claim<'_>) -> (Arc<Session>, Option<Seat>) {
        let mut sessions = self.sessions();
        let now_ms = self.clock.elapsed_ms();
        let (session, here_before) = sessions.enter(claim.client_id, now_ms);
        if sessions.len() > self.most_sessions() {
            // The sweep sees to it.
            self.look_by(now_ms);
        }
        let mut state = session.lock();
        if state.link.is_some() {
            drop(state);
            return (session, None);
        }
        state.link = Some(Link {
            version: claim.version,
            peer: claim.peer,
            identity: claim.identity.cloned(),
            since_ms: now_ms,
            waker: None,
            order: None,
        });
        let seat = Seat {
            hub: Arc::clone(self),
            session: Arc::clone(&session),
            here_before,
            present: here_before && !state.is_remnant,
            noted_in: state.noted_in.take(),
            is_remnant: state.is_remnant,
            since_ms: now_ms,
            handshakes: std::mem::take(&mut state.handshakes),
            expiry_seconds: state.expiry_seconds,
            will: None,
            left: false,
        };
        drop(state);
        (session, Some(seat))
    }

    /// Begins the connection's time: a clean start forgets what was, durably.
    async fn enter(&self, mut seat: Seat, claim: &Claim<'_>) -> Result<Seat, NoSeat> {
        if seat.is_remnant {
            // Told that there is no session, the client subscribes anew.
            self.unsubscribe_all(&seat.session);
        }
        if claim.clean && seat.here_before {
            self.unsubscribe_all(&seat.session);
            let will = seat.session.lock().will.take();
            if let Some((_, will)) = will {
                // The session that it belongs to ends here.
                self.publish_will(&seat.session, &will.will).await;
            }
            self.forget_durably(&mut seat).await?;
            (seat.present, seat.is_remnant) = (false, false);
        }
        // Back before its delay was over: the will is not sent.
        seat.session.lock().will = None;
        seat.expiry_seconds = claim.expiry_seconds;
        Ok(seat)
    }

    async fn forget_durably(&self, seat: &mut Seat) -> Result<(), NoSeat> {
        let failed = |refused: Refused| {
            warn!(client = &*seat.session.client_id, %refused, "hand-shakes of an ended session stay in the journal");
            NoSeat::Journal
        };
        let client_id = &seat.session.client_id;
        let mut receipts = qos2::forget(client_id, seat.handshakes.iter()).map_err(failed)?;
        if let Some(journal) = &seat.noted_in {
            let key = qos2::note_key(client_id);
            receipts.push(journal.append(|append| append.delete(&key)).map_err(failed)?);
        }
        for receipt in receipts {
            receipt.await.map_err(failed)?;
        }
        seat.handshakes.clear();
        seat.noted_in = None;
        Ok(())
    }

    /// Ends a session that has expired, unless its client has come back in the meantime.
    pub(super) async fn expire(self: &Arc<Self>, session: &Arc<Session>) {
        let claim = Claim {
            client_id: &session.client_id,
            clean: false,
            expiry_seconds: 0,
            version: Version::V4,
            peer: SocketAddr::from(([0, 0, 0, 0], 0)),
            identity: None,
        };
        if let (found, Some(mut seat)) = self.find_or_make(&claim) {
            if Arc::ptr_eq(&found, session) {
                seat.expiry_seconds = 0;
            }
            seat.leave().await;
        }
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

    fn unsubscribe_all(&self, session: &Arc<Session>) {
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
            let mut stored = Err(Refused::Busy);
            for _ in 0..WILL_TRIES {
                let arrival_ms = self.clock.wall_ms();
                let encode = |out: &mut Vec<u8>| match &route.mapping {
                    Some(mapping) => mapping.encode(out, &record, arrival_ms),
                    None => encode_publish(out, &record, arrival_ms),
                };
                stored = match route.journal.append(|append| append.event(encode)) {
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

    fn most_sessions(&self) -> usize {
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

impl Seat {
    /// Lets go of the session: it ends, or waits for the client to come back. The will is sent now, later, or (`None` in
    /// `will`) not at all.
    pub(super) async fn leave(mut self) {
        let will = self.will.take();
        let mut now = None;
        if let Some(will) = will {
            let wait_seconds = will.will.delay_seconds.min(self.expiry_seconds);
            if wait_seconds == 0 {
                now = Some(will);
            } else {
                let due_ms = self.hub.clock.elapsed_ms().saturating_add(u64::from(wait_seconds) * 1000);
                self.session.lock().will = Some((due_ms, will));
            }
        }
        let (hub, session) = (Arc::clone(&self.hub), Arc::clone(&self.session));
        if self.expiry_seconds > 0 && self.is_remnant {
            self.forget_remnant().await;
        }
        if self.expiry_seconds == 0 && (!self.handshakes.is_empty() || self.noted_in.is_some()) {
            // Durable before: the client id is free for a new session, whose hand-shakes may have the same packet ids. What
            // cannot be forgotten is met again after the next start, and expires once more.
            let _ = hub.forget_durably(&mut self).await;
        }
        self.let_go();
        drop(self);
        if let Some(will) = now {
            hub.publish_will(&session, &will.will).await;
        }
    }

    /// Forgets what the client has had the time to ask for and has not.
    async fn forget_remnant(&mut self) {
        if self.hub.clock.elapsed_ms().saturating_sub(self.since_ms) >= REMNANT_MS {
            let left_over = self.handshakes.iter().filter(|(_, open)| open.left_over);
            match qos2::forget(&self.session.client_id, left_over) {
                Ok(receipts) => {
                    for receipt in receipts {
                        if receipt.await.is_err() {
                            return;
                        }
                    }
                    self.handshakes.retain(|_, open| !open.left_over);
                }
                // Another time.
                Err(_) => return,
            }
        }
        self.is_remnant = self.handshakes.values().any(|open| open.left_over);
    }

    /// Has it noted that the session has subscriptions, if that is not so yet and the session outlives the connection.
    ///
    /// # Errors
    /// When the journal refuses.
    pub(super) fn note_subscription(&mut self) -> Result<Option<Receipt>, Refused> {
        if self.expiry_seconds == 0 || self.noted_in.is_some() {
            return Ok(None);
        }
        let Some(journal) = self.hub.routes.now().journals().next().cloned() else { return Ok(None) };
        let key = qos2::note_key(&self.session.client_id);
        let receipt = journal.append(|append| append.put(&key, &qos2::value(self.expiry_seconds)))?;
        self.noted_in = Some(journal);
        Ok(Some(receipt))
    }

    fn let_go(&mut self) {
        self.left = true;
        let ends = self.expiry_seconds == 0;
        if ends {
            self.hub.unsubscribe_all(&self.session);
        }
        {
            let mut sessions = self.hub.sessions();
            let mut state = self.session.lock();
            state.link = None;
            state.queue = Queue::default();
            state.expiry_seconds = self.expiry_seconds;
            state.away_since_ms = self.hub.clock.elapsed_ms();
            state.handshakes = std::mem::take(&mut self.handshakes);
            state.noted_in = self.noted_in.take();
            state.is_remnant = self.is_remnant;
            if ends {
                sessions.remove(&self.session.client_id);
            } else if state.is_bare() {
                sessions.strip(&self.session.client_id, state.away_since_ms, state.expiry_seconds);
                self.hub.look_by(state.due_while_away_ms());
            } else {
                self.hub.look_by(state.due_while_away_ms());
            }
        }
        self.session.deadline_ms.store(u64::MAX, Ordering::Relaxed);
        self.session.released.notify_waiters();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.left {
            self.let_go();
        }
    }
}
