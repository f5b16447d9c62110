//! For those who run it: `/healthz`, `/readyz`, `/metrics` and `/status`.
//!
//! The parts register what they have to tell; nothing here knows them. `/healthz` says that the process serves, `/readyz` that
//! every part is ready, or which is not and why; a part that works, but not as it should, is named in an answer that is still
//! "ready". Both answer without credentials, and tell nothing else.

use std::sync::Arc;

use http::header::{ACCEPT, CACHE_CONTROL, HeaderValue};
use http::{Method, StatusCode};
use serde_json::{Map, Value};

use super::metrics::{Format, Metrics, Samples};
use super::{Router, respond};
use crate::broker::Brokers;
use crate::delivery::Triggers;

type Tell = Box<dyn Fn(&mut Map<String, Value>) + Send + Sync>;
type Ready = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What the operations endpoints tell.
#[derive(Default)]
pub struct Ops {
    metrics: Metrics,
    status: Vec<Tell>,
    ready: Vec<(&'static str, Ready)>,
    sound: Vec<(&'static str, Ready)>,
}

impl std::fmt::Debug for Ops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ops").field("status", &self.status.len()).field("ready", &self.ready.len()).finish()
    }
}

impl Ops {
    /// Operations endpoints that show these metrics.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, status: Vec::new(), ready: Vec::new(), sound: Vec::new() }
    }

    /// Adds members to `/status`: the function puts them into the object. It must not block.
    #[must_use]
    pub fn status(mut self, tell: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static) -> Self {
        self.status.push(Box::new(tell));
        self
    }

    /// Adds a condition to `/readyz`; the error says what is missing. It must not block.
    #[must_use]
    pub fn ready(mut self, part: &'static str, ready: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.ready.push((part, Box::new(ready)));
        self
    }

    /// Adds a condition whose failure makes the process degraded, not unready: it takes events, and somebody should look. The
    /// error says what is wrong, to everybody. It must not block.
    #[must_use]
    pub fn sound(mut self, part: &'static str, sound: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.sound.push((part, Box::new(sound)));
        self
    }

    /// Shows the Brokers in `/status` and `/metrics`; `/readyz` says which of them find no room on the disk.
    #[must_use]
    pub fn brokers(self, brokers: &Brokers) -> Self {
        let shown = brokers.clone();
        self.metrics.collect(move |samples| tell_brokers(&shown, samples));
        let (shown, asked) = (brokers.clone(), brokers.clone());
        self.status(move |status| {
            status.insert("brokers".to_owned(), shown.status());
            status.insert("channels".to_owned(), shown.status_of_channels());
        })
        .ready("brokers", move || have_room(&asked))
    }

    /// Shows the Triggers in `/status` and `/metrics`.
    #[must_use]
    pub fn triggers(self, triggers: &Triggers) -> Self {
        triggers.register(&self.metrics);
        let shown = triggers.clone();
        self.metrics.collect(move |samples| {
            for (trigger, errors) in shown.filter_errors() {
                let labels = [("namespace", &*trigger.namespace), ("trigger", &*trigger.name)];
                let help = "CESQL filters that met an error or had a value that is no Boolean, since the start.";
                samples.counter("godwit_trigger_filter_errors", help, &labels, errors);
            }
        });
        let shown = triggers.clone();
        self.status(move |status| {
            status.insert("triggers".to_owned(), shown.status());
        })
    }

    /// Adds the endpoints to a router.
    #[must_use]
    pub fn routes(self, router: Router) -> Router {
        let ops = Arc::new(self);
        let (ready, metrics) = (ops.clone(), ops.clone());
        router
            .open(Method::GET, "/healthz", |_| async { respond::text(StatusCode::OK, "ok") })
            .open(Method::GET, "/readyz", move |_| std::future::ready(ready.readiness()))
            .route(Method::GET, "/metrics", move |request| {
                let format = Format::accepted(request.head.headers.get(ACCEPT));
                let text = metrics.metrics.render(format);
                let mut response = respond::typed(StatusCode::OK, format.content_type(), text);
                response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                std::future::ready(response)
            })
            .route(Method::GET, "/status", move |_| {
                let mut status = Map::new();
                for tell in &ops.status {
                    tell(&mut status);
                }
                std::future::ready(respond::json(StatusCode::OK, &status))
            })
    }

    fn readiness(&self) -> super::Response {
        let failed = |parts: &[(&'static str, Ready)]| -> Vec<String> {
            parts.iter().filter_map(|(part, holds)| holds().err().map(|why| format!("{part}: {why}"))).collect()
        };
        let (missing, degraded) = (failed(&self.ready), failed(&self.sound));
        if !missing.is_empty() {
            return respond::problem(StatusCode::SERVICE_UNAVAILABLE, missing.join("\n"));
        }
        let degraded: String = degraded.iter().map(|why| format!("\ndegraded: {why}")).collect();
        respond::text(StatusCode::OK, format_args!("ready{degraded}"))
    }
}

/// Which Brokers refuse events because the disk is full, and what they need.
fn have_room(brokers: &Brokers) -> Result<(), String> {
    let lacking = brokers.list().into_iter().filter_map(|broker| {
        let segment = broker.journal().lacks_room()?;
        Some(format!(
            "{} refuses events: the disk is full, and a segment of {segment} bytes and two more as head-room are needed",
            broker.name()
        ))
    });
    let lacking: Vec<String> = lacking.collect();
    if lacking.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}; free some of the disk, or set storage.max-bytes and storage.segment-bytes to fit it",
        lacking.join("; ")
    ))
}

fn tell_brokers(brokers: &Brokers, samples: &mut Samples) {
    for broker in brokers.list() {
        let journal = broker.journal();
        let (namespace, name) = (broker.name().namespace(), broker.name().name());
        let what = broker.name().what();
        let labels = [("namespace", namespace), (what, name)];
        let (first, next, consumers) = journal.ledger();
        samples.counter("godwit_broker_events_accepted", "Events ever appended, earlier starts included.", &labels, next.0);
        samples.gauge("godwit_broker_events_kept", "Events that can still be read.", &labels, next.since(first));
        samples.gauge("godwit_broker_journal_bytes", "Bytes of the journal's segment files.", &labels, journal.bytes());
        if let Some((found, forgotten)) = broker.deduplication().map(|deduplication| deduplication.counts()) {
            let help = "Events acknowledged and not stored, because one of their source and id was there.";
            samples.counter("godwit_broker_events_deduplicated", help, &labels, found);
            let help = "Events forgotten by de-duplication before the window was over: there were too many.";
            samples.counter("godwit_broker_deduplication_forgotten", help, &labels, forgotten);
        }
        if let Some(account) = broker.dead_letter_account() {
            let help = "Dead letters that are neither replayed nor dropped.";
            samples.gauge("godwit_dead_letters_pending", help, &labels, account.pending);
            let mut tell = |outcome: &str, n: u64| {
                let labels = [("namespace", namespace), (what, name), ("outcome", outcome)];
                samples.counter("godwit_dead_letters_settled", "Dead letters replayed, or dropped by reason.", &labels, n);
            };
            tell("replayed", account.done.delivered);
            for (reason, n) in &account.done.dropped {
                tell(&format!("dropped_{}", reason.name()), *n);
            }
        }
        for consumer in consumers {
            let mut tell = |outcome: &str, n: u64| {
                let labels = [("namespace", namespace), (what, name), ("consumer", &consumer.name), ("outcome", outcome)];
                let help = "What became of the events that a consumer has passed.";
                samples.counter("godwit_consumer_events", help, &labels, n);
            };
            tell("delivered", consumer.done.delivered);
            tell("filtered", consumer.done.filtered);
            tell("dead_lettered", consumer.done.dead_lettered);
            for (reason, n) in &consumer.done.dropped {
                tell(&format!("dropped_{}", reason.name()), *n);
            }
            let labels = [("namespace", namespace), (what, name), ("consumer", &*consumer.name)];
            let help = "Events that a consumer has not finished.";
            samples.gauge("godwit_consumer_pending_events", help, &labels, consumer.pending);
        }
    }
}
