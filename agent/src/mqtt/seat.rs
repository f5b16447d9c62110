//! Who has which session: a connection claims it, waits for the one before to let go, and leaves it to end or to wait.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use godwit_mesh::door::Identity;
use godwit_mesh::journal::{Journal, Receipt, Refused};
use tracing::warn;

use super::fanout::Queue;
use super::hub::Hub;
use super::packet::Version;
use super::qos2::{self, Handshakes};
use super::session::{Link, Order, Session};
use super::will::KeptWill;

/// After a connection of this length nothing of a remnant will be asked for any more (see `qos2`).
const REMNANT_MS: u64 = 60_000;

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
        let Some(journal) = self.hub.routes.now().journals().next() else { return Ok(None) };
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
