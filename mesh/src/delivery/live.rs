//! What a Trigger's task tells those who ask: readiness, last error, retries.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;
use url::Url;

use super::outcome::Failure;
use super::plan::{NotReady, Plan, Targets};
use super::triggers::{Owner, Standing};
use crate::clock::Clock;
use crate::journal::ConsumerStatus;
use crate::manifest::{Kind, ObjectKey};

/// One Trigger as others see it.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) key: ObjectKey,
    pub(crate) owner: Owner,
    pub(crate) uid: String,
    /// Filter errors since the task's first start in this process.
    faults: AtomicU64,
    state: Mutex<State>,
    /// Counts changes that others are to look at.
    changes: Arc<watch::Sender<u64>>,
}

#[derive(Debug)]
struct State {
    ready: Result<(), NotReady>,
    subscriber_uri: Option<String>,
    dead_letter_sink_uri: Option<String>,
    reply_uri: Option<String>,
    last_error: Option<LastError>,
    retry: Option<Retry>,
    circuit: &'static str,
    /// Attempts without an answer, one after the other.
    silent: u32,
    /// An event that is under way, and when it was taken in: the oldest one that is known.
    sending: Option<(u64, Option<u64>)>,
    rate: Rate,
}

/// Events of the last minute, in pieces.
#[derive(Debug, Default)]
struct Rate {
    /// The piece that is being counted, by the elapsed time of the clock.
    now: u64,
    pieces: [u32; Rate::PIECES],
}

impl Rate {
    const PIECES: usize = 12;
    const PIECE_MS: u64 = 5000;

    /// Goes to the piece that is now.
    fn turn(&mut self, elapsed_ms: u64) -> usize {
        let now = elapsed_ms / Self::PIECE_MS;
        for piece in (self.now + 1..=now).take(Self::PIECES) {
            if let Some(piece) = self.pieces.get_mut(Self::place(piece)) {
                *piece = 0;
            }
        }
        self.now = self.now.max(now);
        Self::place(self.now)
    }

    fn place(piece: u64) -> usize {
        usize::try_from(piece % Self::PIECES as u64).unwrap_or(0)
    }

    fn count(&mut self, elapsed_ms: u64) {
        let place = self.turn(elapsed_ms);
        if let Some(piece) = self.pieces.get_mut(place) {
            *piece = piece.saturating_add(1);
        }
    }

    /// Events a second, over the last minute.
    fn per_second(&mut self, elapsed_ms: u64) -> f64 {
        self.turn(elapsed_ms);
        let events: u64 = self.pieces.iter().map(|n| u64::from(*n)).sum();
        let seconds = (elapsed_ms.min(Self::PIECES as u64 * Self::PIECE_MS) as f64 / 1000.0).max(1.0);
        (events as f64 / seconds * 100.0).round() / 100.0
    }
}

#[derive(Debug)]
struct LastError {
    message: String,
    code: u16,
    destination: String,
    /// The beginning of what was answered.
    answer: String,
    at_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Retry {
    offset: u64,
    failed: u32,
    /// By the elapsed time of the clock.
    next_ms: u64,
}

impl Live {
    pub(crate) fn new(key: ObjectKey, owner: Owner, uid: String, changes: Arc<watch::Sender<u64>>) -> Self {
        let not_yet = NotReady { reason: "Starting", message: "not started yet".to_owned(), waits_for_broker: false };
        let state = State {
            ready: Err(not_yet),
            subscriber_uri: None,
            dead_letter_sink_uri: None,
            reply_uri: None,
            last_error: None,
            retry: None,
            circuit: "closed",
            silent: 0,
            sending: None,
            rate: Rate::default(),
        };
        Self { key, owner, uid, faults: AtomicU64::new(0), state: Mutex::new(state), changes }
    }

    /// The name of the Trigger's consumer.
    pub(crate) fn consumer(&self) -> String {
        consumer_name(&self.key, &self.uid)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what the Trigger refers to, or why it does not run.
    pub(crate) fn resolved(&self, targets: &Result<Targets, NotReady>, address: &Url) {
        let before = self.standing();
        {
            let mut state = self.lock();
            match targets {
                Ok(targets) => {
                    state.ready = Ok(());
                    state.subscriber_uri = Some(targets.subscriber.shown(address));
                    state.dead_letter_sink_uri = targets.dead_letter_sink.as_ref().map(|t| t.shown(address));
                    state.reply_uri = targets.reply.as_ref().map(|t| t.shown(address));
                }
                Err(why) => state.ready = Err(why.clone()),
            }
        }
        if self.standing() != before {
            self.changes.send_modify(|n| *n += 1);
        }
    }

    /// How the Trigger stands.
    pub(crate) fn standing(&self) -> Standing {
        let state = self.lock();
        Standing {
            uid: self.uid.clone(),
            not_ready: state.ready.as_ref().err().map(|why| (why.reason, why.message.clone())),
            subscriber_uri: state.subscriber_uri.clone(),
            dead_letter_sink_uri: state.dead_letter_sink_uri.clone(),
            reply_uri: state.reply_uri.clone(),
        }
    }

    /// Counts filter errors: expressions that met an error or had a value that is no Boolean.
    pub(crate) fn faults(&self, more: u32) {
        self.faults.fetch_add(more.into(), Ordering::Relaxed);
    }

    /// The filter errors so far.
    pub(crate) fn filter_errors(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Notes a failed attempt.
    pub(crate) fn failed(&self, failure: &Failure, clock: &Clock) {
        self.lock().last_error = Some(LastError {
            message: failure.message.clone(),
            code: failure.code(),
            destination: failure.destination.clone(),
            answer: String::from_utf8_lossy(&failure.detail).into_owned(),
            at_ms: clock.wall_ms(),
        });
    }

    /// Notes of which event the next attempt comes, how many have failed, and when; and how the circuit stands.
    pub(crate) fn waits(&self, next: Option<(u64, u32, u64)>, circuit: &'static str, silent: u32) {
        let mut state = self.lock();
        state.retry = next.map(|(offset, failed, next_ms)| Retry { offset, failed, next_ms });
        (state.circuit, state.silent) = (circuit, silent);
    }

    /// Notes that an event is on its way.
    pub(crate) fn sending(&self, offset: u64, arrival_ms: Option<u64>) {
        let mut state = self.lock();
        if state.sending.is_none_or(|(other, _)| offset <= other) {
            state.sending = Some((offset, arrival_ms));
        }
    }

    /// Notes that an event is settled.
    pub(crate) fn settled(&self, offset: u64, clock: &Clock) {
        let mut state = self.lock();
        if state.sending.is_some_and(|(other, _)| other == offset) {
            state.sending = None;
        }
        state.rate.count(clock.elapsed_ms());
    }

    /// Why the Trigger is not ready, if it is not.
    pub(crate) fn not_ready(&self) -> Option<String> {
        self.lock().ready.as_ref().err().map(|why| format!("{}: {}: {}", self.key, why.reason, why.message))
    }

    /// The Trigger as `/status` shows it.
    pub(crate) fn status(&self, plan: &Plan, ledgers: &[ConsumerStatus], clock: &Clock) -> Value {
        let consumer = self.consumer();
        let found = ledgers.binary_search_by(|status| status.name.as_str().cmp(&consumer)).ok();
        let ledger = found.and_then(|i| ledgers.get(i));
        let mut state = self.lock();
        let rate = state.rate.per_second(clock.elapsed_ms());
        let oldest = state.sending.filter(|(offset, _)| ledger.as_ref().is_some_and(|l| l.cursor.0 <= *offset));
        let why = state.ready.as_ref().err();
        json!({
            "kind": self.key.kind.resource().name,
            "namespace": self.key.name.namespace,
            "name": self.key.name.name,
            "uid": self.uid,
            "owner": self.owner.name(),
            (plan.broker.what()): plan.broker.name(),
            "ready": state.ready.is_ok(),
            "reason": why.map(|w| w.reason),
            "message": why.map(|w| w.message.as_str()),
            "subscriberUri": state.subscriber_uri,
            "deadLetterSinkUri": state.dead_letter_sink_uri,
            "replyUri": state.reply_uri,
            "consumer": consumer,
            "cursor": ledger.as_ref().map(|l| l.cursor.0),
            "pending": ledger.as_ref().map_or(0, |l| l.pending),
            "filter_errors": self.filter_errors(),
            "rate": rate,
            "circuit": state.circuit,
            "unanswered": state.silent,
            "oldest": oldest.map(|(offset, arrival_ms)| json!({"offset": offset, "arrived_at_ms": arrival_ms})),
            "last_error": state.last_error.as_ref().map(|e| json!({
                "message": e.message,
                "code": e.code,
                "destination": e.destination,
                "answer": e.answer,
                "at_ms": e.at_ms,
            })),
            "retry": state.retry.map(|r| json!({
                "offset": r.offset,
                "failed_attempts": r.failed,
                "next_in_ms": r.next_ms.saturating_sub(clock.elapsed_ms()),
            })),
        })
    }
}

/// The name of a Trigger's consumer: `trigger/…`, or `subscription/…` for a Subscription.
pub(crate) fn consumer_name(of: &ObjectKey, uid: &str) -> String {
    let kind = if of.kind == Kind::Subscription { "subscription" } else { "trigger" };
    format!("{kind}/{}/{uid}", of.name)
}
