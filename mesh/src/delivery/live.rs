//! What a Trigger's task tells those who ask: readiness, last error, retries.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;
use url::Url;

use super::outcome::Failure;
use super::plan::{NotReady, Plan, Targets};
use super::triggers::{Owner, Standing};
use crate::broker::Brokers;
use crate::clock::Clock;
use crate::manifest::ObjectName;

/// One Trigger as others see it.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) name: ObjectName,
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
    last_error: Option<LastError>,
    retry: Option<Retry>,
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
    pub(crate) fn new(name: ObjectName, owner: Owner, uid: String, changes: Arc<watch::Sender<u64>>) -> Self {
        let not_yet = NotReady { reason: "Starting", message: "not started yet".to_owned(), waits_for_broker: false };
        let state =
            State { ready: Err(not_yet), subscriber_uri: None, dead_letter_sink_uri: None, last_error: None, retry: None };
        Self { name, owner, uid, faults: AtomicU64::new(0), state: Mutex::new(state), changes }
    }

    /// The name of the Trigger's consumer.
    pub(crate) fn consumer(&self) -> String {
        consumer_name(&self.name, &self.uid)
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

    /// Notes when the next attempt comes.
    pub(crate) fn waits(&self, offset: u64, failed: u32, next_ms: u64) {
        self.lock().retry = Some(Retry { offset, failed, next_ms });
    }

    /// Notes that no attempt is due.
    pub(crate) fn settled(&self) {
        self.lock().retry = None;
    }

    /// Why the Trigger is not ready, if it is not.
    pub(crate) fn not_ready(&self) -> Option<String> {
        self.lock().ready.as_ref().err().map(|why| format!("Trigger {}: {}: {}", self.name, why.reason, why.message))
    }

    /// The Trigger as `/status` shows it.
    pub(crate) fn status(&self, plan: &Plan, brokers: &Brokers, clock: &Clock) -> Value {
        let consumer = self.consumer();
        let ledger = brokers
            .get(&plan.broker)
            .and_then(|broker| broker.journal().consumers().into_iter().find(|status| status.name == consumer));
        let state = self.lock();
        let why = state.ready.as_ref().err();
        json!({
            "namespace": self.name.namespace,
            "name": self.name.name,
            "uid": self.uid,
            "owner": self.owner.name(),
            "broker": plan.broker.name(),
            "ready": state.ready.is_ok(),
            "reason": why.map(|w| w.reason),
            "message": why.map(|w| w.message.as_str()),
            "subscriberUri": state.subscriber_uri,
            "deadLetterSinkUri": state.dead_letter_sink_uri,
            "consumer": consumer,
            "cursor": ledger.as_ref().map(|l| l.cursor.0),
            "pending": ledger.as_ref().map_or(0, |l| l.pending),
            "filter_errors": self.filter_errors(),
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

/// The name of a Trigger's consumer.
pub(crate) fn consumer_name(trigger: &ObjectName, uid: &str) -> String {
    format!("trigger/{trigger}/{uid}")
}
