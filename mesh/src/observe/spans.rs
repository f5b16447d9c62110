//! Traces: what happened to an event, as spans that are exported by OTLP over HTTP in JSON, where an endpoint is configured. Off, nothing
//! is made and nothing costs anything.
//!
//! W3C trace context: a span continues the `traceparent` that it is given, or begins a trace; a parent that is not sampled is continued
//! and not exported. What is exported waits in a queue of [`QUEUE`] spans: where the collector is slow or away, further ones are dropped
//! and counted, and nobody waits. Without a valid wall clock there are no spans.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::ObserveError;
use crate::clock::Clock;
use crate::config;
use crate::door::{ClientTls, bare, connector};
use crate::http::metrics::Metrics;

/// The attribute, and the header, that says where a trace stands.
pub const TRACE_PARENT: &str = "traceparent";

/// Most spans that wait.
pub const QUEUE: usize = 512;
/// Most spans in one request, how long the first of them waits for others, and how long the collector may take.
const BATCH: usize = 128;
const GATHER: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(5);

/// Makes spans, where they are wanted. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Spans(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    queue: mpsc::Sender<Finished>,
    clock: Clock,
    exported: AtomicU64,
    dropped: AtomicU64,
}

/// Where a trace stands: what `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    span: u64,
    sampled: bool,
}

/// What a span's maker is to the one it speaks with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It speaks with nobody.
    Internal = 1,
    /// It answers.
    Server = 2,
    /// It asks.
    Client = 3,
}

/// Something that takes time; it is over when this is dropped.
#[derive(Debug)]
pub struct Span {
    inner: Arc<Inner>,
    begun: Instant,
    record: Finished,
    sampled: bool,
}

#[derive(Debug)]
struct Finished {
    trace: u128,
    span: u64,
    parent: Option<u64>,
    name: String,
    role: Role,
    start_ns: u64,
    took: Duration,
    attributes: Vec<(&'static str, String)>,
    error: Option<String>,
}

/// The endpoint that is configured, if one is.
///
/// # Errors
/// What is wrong with it.
pub fn endpoint(section: &config::Tracing) -> Result<Option<Url>, ObserveError> {
    let Some(text) = &section.otlp_endpoint else { return Ok(None) };
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(Some(url)),
        _ => Err(ObserveError::Endpoint { endpoint: bare(text) }),
    }
}

impl TraceContext {
    /// Reads a `traceparent`; none where it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lower =
            |part: &str, length| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let known = version == "00" && parts.next().is_none();
        if !lower(version, 2) || version == "ff" || !(known || version != "00") {
            return None;
        }
        if !lower(trace, 32) || !lower(span, 16) || !lower(flags, 2) {
            return None;
        }
        let (trace, span) = (u128::from_str_radix(trace, 16).ok()?, u64::from_str_radix(span, 16).ok()?);
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        (trace != 0 && span != 0).then_some(Self { trace, span, sampled })
    }

    /// Whether its spans are exported.
    #[must_use]
    pub const fn is_sampled(self) -> bool {
        self.sampled
    }

    /// As `traceparent` has it.
    #[must_use]
    pub fn to_text(self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

impl Spans {
    /// Exports to this endpoint (`/v1/traces` where it has no path) until `stop`: the task to be run, beside what makes the spans.
    pub fn to(
        endpoint: &Url,
        service: &'static str,
        instance: &str,
        tls: ClientTls,
        clock: Clock,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (inner, taken) = Inner::new(clock);
        let mut endpoint = endpoint.clone();
        if endpoint.path() == "/" {
            endpoint.set_path("/v1/traces");
        }
        let attribute = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
        let resource = json!({
            "attributes": [attribute("service.name", service), attribute("service.instance.id", instance)],
        });
        let task = export(Arc::clone(&inner), taken, endpoint, tls, resource, stop);
        (Self(Some(inner)), task)
    }

    /// Whether spans are made at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a span; none where they are not wanted, or there is no time or no random number to be had.
    pub fn begin(&self, name: String, role: Role, parent: Option<TraceContext>) -> Option<Span> {
        let inner = self.0.as_ref()?;
        let start_ns = inner.clock.wall_ms()?.checked_mul(1_000_000)?;
        let trace = match parent {
            Some(parent) => parent.trace,
            None => u128::from(getrandom::u64().ok()?) << 64 | u128::from(getrandom::u64().ok()?),
        };
        let record = Finished {
            trace,
            span: getrandom::u64().ok()?.max(1),
            parent: parent.map(|parent| parent.span),
            name,
            role,
            start_ns,
            took: Duration::ZERO,
            attributes: Vec::new(),
            error: None,
        };
        let sampled = parent.is_none_or(|parent| parent.sampled);
        Some(Span { inner: Arc::clone(inner), begun: Instant::now(), record, sampled })
    }

    /// Shows in `/metrics` what was exported and what dropped.
    pub fn register(&self, metrics: &Metrics) {
        let Some(inner) = self.0.clone() else { return };
        metrics.collect(move |samples| {
            let (exported, dropped) = (&inner.exported, &inner.dropped);
            samples.counter(
                "godwit_spans_exported",
                "Spans that the collector took.",
                &[],
                exported.load(Ordering::Relaxed),
            );
            let help = "Spans dropped because the collector was slow, away or refused them.";
            samples.counter("godwit_spans_dropped", help, &[], dropped.load(Ordering::Relaxed));
        });
    }
}

impl Inner {
    fn new(clock: Clock) -> (Arc<Self>, mpsc::Receiver<Finished>) {
        let (queue, taken) = mpsc::channel(QUEUE);
        (Arc::new(Self { queue, clock, exported: AtomicU64::new(0), dropped: AtomicU64::new(0) }), taken)
    }
}

impl Span {
    /// What goes on with what this span sends.
    #[must_use]
    pub fn context(&self) -> TraceContext {
        TraceContext { trace: self.record.trace, span: self.record.span, sampled: self.sampled }
    }

    /// Notes something about it.
    pub fn note(&mut self, key: &'static str, value: impl Into<String>) {
        self.record.attributes.push((key, value.into()));
    }

    /// Notes that it failed.
    pub fn failed(&mut self, why: &str) {
        self.record.error = Some(why.to_owned());
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if !self.sampled {
            return;
        }
        let empty = Finished {
            trace: 0,
            span: 0,
            parent: None,
            name: String::new(),
            role: Role::Server,
            start_ns: 0,
            took: Duration::ZERO,
            attributes: Vec::new(),
            error: None,
        };
        let mut record = std::mem::replace(&mut self.record, empty);
        record.took = self.begun.elapsed();
        if self.inner.queue.try_send(record).is_err() {
            self.inner.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Finished {
    fn to_json(&self) -> Value {
        let end_ns = self.start_ns.saturating_add(u64::try_from(self.took.as_nanos()).unwrap_or(u64::MAX));
        let attribute = |(key, value): &(&str, String)| json!({ "key": key, "value": { "stringValue": value } });
        let mut span = json!({
            "traceId": format!("{:032x}", self.trace),
            "spanId": format!("{:016x}", self.span),
            "name": self.name,
            "kind": self.role as u8,
            "startTimeUnixNano": self.start_ns.to_string(),
            "endTimeUnixNano": end_ns.to_string(),
            "attributes": self.attributes.iter().map(attribute).collect::<Vec<_>>(),
        });
        if let Some(parent) = self.parent {
            span["parentSpanId"] = format!("{parent:016x}").into();
        }
        if let Some(why) = &self.error {
            span["status"] = json!({ "code": 2, "message": why });
        }
        span
    }
}

/// Gathers spans and posts them, until it is stopped; what waits then is posted once more.
async fn export(
    inner: Arc<Inner>,
    mut taken: mpsc::Receiver<Finished>,
    endpoint: Url,
    tls: ClientTls,
    resource: Value,
    stop: CancellationToken,
) {
    let secure = (endpoint.scheme() == "https").then(|| tls.config(&[])).transpose();
    let connector = match secure.and_then(|config| connector(HttpConnector::new(), config.as_ref())) {
        Ok(connector) => connector,
        Err(error) => {
            tracing::error!(%error, "traces are not exported");
            return stop.cancelled().await;
        }
    };
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let mut away = false;
    loop {
        let mut batch = Vec::new();
        let stopped = tokio::select! {
            n = taken.recv_many(&mut batch, BATCH) => n == 0,
            () = stop.cancelled() => true,
        };
        if !stopped {
            let _ = stop.run_until_cancelled(tokio::time::sleep(GATHER)).await;
        }
        while batch.len() < BATCH
            && let Ok(span) = taken.try_recv()
        {
            batch.push(span);
        }
        if !batch.is_empty() {
            let spans: Vec<Value> = batch.iter().map(Finished::to_json).collect();
            let scope = json!({ "scope": { "name": "godwit" }, "spans": spans });
            let body = json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": [scope] }] }).to_string();
            let posted = post(&client, &endpoint, body).await;
            let count = if posted.is_ok() { &inner.exported } else { &inner.dropped };
            count.fetch_add(batch.len() as u64, Ordering::Relaxed);
            if let Err(why) = &posted
                && !away
            {
                tracing::warn!(%endpoint, %why, "traces are dropped: the collector does not take them");
            }
            away = posted.is_err();
        }
        if stopped {
            return;
        }
    }
}

type Poster = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

async fn post(client: &Poster, endpoint: &Url, body: String) -> Result<(), String> {
    let request = Request::post(endpoint.as_str()).header("content-type", "application/json");
    let request = request.body(Full::from(body)).map_err(|e| e.to_string())?;
    let answer = tokio::time::timeout(TIMEOUT, client.request(request)).await;
    let answer = answer.map_err(|_| "no answer within 5 s".to_owned())?;
    let status = answer.map_err(|e| {
        let mut why = e.to_string();
        if let Some(source) = std::error::Error::source(&e) {
            let _ = write!(why, ": {source}");
        }
        why
    })?;
    if status.status().is_success() { Ok(()) } else { Err(format!("it answered {}", status.status())) }
}

#[cfg(test)]
impl Spans {
    /// For tests: what takes those that have ended since, as they would be exported.
    pub(crate) fn caught() -> (Self, impl FnMut() -> Vec<Value>) {
        let (inner, mut taken) = Inner::new(Clock::manual(1_800_000_000_000));
        let take = move || std::iter::from_fn(|| taken.try_recv().ok()).map(|span| span.to_json()).collect();
        (Self(Some(inner)), take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_as_the_recommendation_says() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(TraceContext::parse(text).map(TraceContext::to_text).as_deref(), Some(text));
        assert!(
            TraceContext::parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more").is_some(),
            "a later version"
        );
        for wrong in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert_eq!(TraceContext::parse(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn off_there_are_no_spans_and_a_full_queue_drops_and_counts() {
        assert!(Spans::default().begin("x".to_owned(), Role::Server, None).is_none());
        let endpoint = Url::parse("http://127.0.0.1:1/").expect("a URL");
        let clock = Clock::manual(1_800_000_000_000);
        let (spans, _task) = Spans::to(&endpoint, "t", "i", ClientTls::new(None), clock, CancellationToken::new());
        for _ in 0..QUEUE + 3 {
            drop(spans.begin("x".to_owned(), Role::Client, None));
        }
        let quiet = TraceContext { trace: 1, span: 1, sampled: false };
        let unsampled = spans.begin("x".to_owned(), Role::Client, Some(quiet)).expect("on");
        assert!(unsampled.context().to_text().ends_with("-00"), "goes on as it came");
        drop(unsampled);
        let dropped = spans.0.as_ref().map(|inner| inner.dropped.load(Ordering::Relaxed));
        assert_eq!(dropped, Some(3));
    }
}
