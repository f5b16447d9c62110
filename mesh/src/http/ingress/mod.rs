//! CloudEvents ingress: `POST /{namespace}/{broker}`, `POST /` for `default/default`, and `POST /channels/{namespace}/{name}`, `/sequences/…`,
//! `/parallels/…`.
//!
//! Binary, structured and batched mode. An event is answered 202 when it is durable, a batch when all of it is (it is one
//! append); otherwise nothing of it is kept and the answer says why: 400 with the attribute, 404, 405, 413, 415, 507 for a full
//! broker or disk, 503 for more than the disk can take. Whatever arrives on other connections or streams while the disk syncs
//! shares the next sync. Duplicates are events like any other (D7), unless the Broker has
//! de-duplication switched on. `OPTIONS` answers the webhook handshake (D2).

use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use tokio::time::Instant;

use super::metrics::{Counter, Histogram, LATENCY_US, Metrics};
use super::{Request, Response, respond};
use crate::broker::{Broker, Brokers, Deduplication};
use crate::clock::Clock;
use crate::event::http::{Decoded, decode};
use crate::event::ttl::count_down;
use crate::event::{ErrorKind, Event, EventError, Limits as EventLimits, Value, encode_event};
use crate::journal::{Committed, Journal, Refused};
use crate::manifest::{Kind, flow};
use crate::names::{BrokerName, NameError, RESERVED_NAMESPACES};
use crate::observe::{Role, Span, Spans, TRACE_PARENT, TraceContext};

/// The attribute that says when the event came (D10). It is kept in the record, so what a sender claims is dropped.
const ARRIVAL: &str = "knativearrivaltime";

/// The attribute that says from which agent an event came.
const AGENT: &str = "godwitagent";

pub(in crate::http) const ALLOWED: HeaderValue = HeaderValue::from_static("POST, OPTIONS");
const ANY: HeaderValue = HeaderValue::from_static("*");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// When a sender should try again after 503.
const RETRY_AFTER_S: u32 = 1;

/// Takes events from HTTP into brokers.
#[derive(Debug)]
pub struct Ingress {
    brokers: Brokers,
    clock: Clock,
    default_name: BrokerName,
    limits: EventLimits,
    spans: Spans,
    /// What senders may not claim.
    dropped: &'static [&'static str],
    accepted: Counter,
    refused: Counter,
    acknowledged: Histogram,
}

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
enum Target<'a> {
    /// `/`.
    Default,
    /// `/{namespace}/{broker}`.
    Broker(&'a str, &'a str),
    /// `/channels/{namespace}/{name}`.
    Channel(&'a str, &'a str),
    /// `/sequences/{namespace}/{name}`, `/parallels/{namespace}/{name}`: the Channel in front of it.
    Flow(Kind, &'a str, &'a str),
    /// One of the API's own words: nothing of ours.
    Reserved,
    /// No path of a broker.
    Malformed,
}

impl Target<'_> {
    fn of(path: &str) -> Target<'_> {
        if path == "/" {
            return Target::Default;
        }
        let mut segments = path.strip_prefix('/').unwrap_or(path).split('/');
        let (first, second, third) = (segments.next().unwrap_or_default(), segments.next(), segments.next());
        if let (Some(namespace), Some(name), None) = (second, third, segments.next())
            && !namespace.is_empty()
            && !name.is_empty()
        {
            match first {
                "channels" => return Target::Channel(namespace, name),
                "sequences" => return Target::Flow(Kind::Sequence, namespace, name),
                "parallels" => return Target::Flow(Kind::Parallel, namespace, name),
                _ => {}
            }
        }
        match (second, third) {
            _ if RESERVED_NAMESPACES.contains(&first) => Target::Reserved,
            (Some(second), None) if !first.is_empty() && !second.is_empty() => Target::Broker(first, second),
            _ => Target::Malformed,
        }
    }
}

impl Ingress {
    /// An ingress into these brokers.
    #[must_use]
    pub fn new(brokers: Brokers, clock: Clock, metrics: &Metrics) -> Self {
        Self {
            brokers,
            clock,
            default_name: BrokerName::default(),
            limits: EventLimits::default(),
            spans: Spans::default(),
            dropped: &[ARRIVAL],
            accepted: metrics.counter("godwit_http_ingress_events", "Events taken by HTTP, durable.", &[]),
            refused: metrics.counter("godwit_http_ingress_refused", "HTTP ingress requests that were refused.", &[]),
            acknowledged: metrics.histogram(
                "godwit_http_ingress_seconds",
                "From an event read by HTTP to its acknowledgement.",
                &[],
                LATENCY_US,
            ),
        }
    }

    /// At a gateway: which agent an event came from is said by the sync alone, so what a sender claims is dropped.
    #[must_use]
    pub fn naming_no_agent(mut self) -> Self {
        self.dropped = &[ARRIVAL, AGENT];
        self
    }

    /// With traces of what comes in.
    #[must_use]
    pub fn traced(mut self, spans: Spans) -> Self {
        self.spans = spans;
        self
    }

    /// A span for each event, which the event continues from now on.
    fn trace(&self, broker: &Broker, headers: &HeaderMap, events: &mut [Event]) -> Vec<Span> {
        if !self.spans.is_on() {
            return Vec::new();
        }
        let came = headers.get(TRACE_PARENT).and_then(|value| TraceContext::parse(value.to_str().ok()?));
        let begin = |event: &mut Event| {
            let own = event.get(TRACE_PARENT).and_then(|value| TraceContext::parse(&value.to_text()));
            let name = format!("broker:{}.{}", broker.name().name(), broker.name().namespace());
            let mut span = self.spans.begin(name, Role::Server, own.or(came))?;
            span.note("cloudevents.event_id", event.id());
            span.note("cloudevents.event_type", event.ty());
            event.set(TRACE_PARENT, Value::String(span.context().to_text())).ok()?;
            Some(span)
        };
        events.iter_mut().filter_map(begin).collect()
    }

    /// Answers any request that is for the ingress.
    pub(super) async fn answer(&self, mut request: Request) -> Response {
        let answer = self.take(&mut request).await;
        self.finished(answer)
    }

    fn finished(&self, answer: Result<Response, Box<Response>>) -> Response {
        let mut response = answer.unwrap_or_else(|refused| {
            self.refused.add(1);
            *refused
        });
        response.headers_mut().insert(ALLOW, ALLOWED); // D1: on every answer
        response
    }

    async fn take(&self, request: &mut Request) -> Result<Response, Box<Response>> {
        let broker = match (&request.head.method, Target::of(request.path())) {
            (_, Target::Reserved) => return Err(super::router::nothing(request.path()).into()),
            (&Method::OPTIONS, Target::Default | Target::Broker(..) | Target::Channel(..) | Target::Flow(..)) => {
                return Ok(handshake());
            }
            (&Method::POST, Target::Default) => self.find(&self.default_name)?,
            (&Method::POST, Target::Broker(namespace, name)) => self.named(BrokerName::new(namespace, name))?,
            (&Method::POST, Target::Channel(namespace, name)) => self.named(BrokerName::channel(namespace, name))?,
            (&Method::POST, Target::Flow(kind, namespace, name)) => {
                let front = flow::front(kind, namespace, name);
                let front = front.map_err(|why| respond::problem(StatusCode::BAD_REQUEST, why))?;
                self.find_as(&front, format_args!("{} {namespace}/{name}", kind.resource().name))?
            }
            (&Method::POST, Target::Malformed) => {
                let why = "events are posted to /{namespace}/{broker}, or to / for default/default";
                return Err(respond::problem(StatusCode::BAD_REQUEST, why).into());
            }
            (_, Target::Malformed) => return Err(super::router::nothing(request.path()).into()),
            (method, _) => return Err(respond::not_allowed(method, ALLOWED).into()),
        };
        // Kept as it is, compressed data would reach subscribers without the word that says so.
        let coding = request.head.headers.get(CONTENT_ENCODING);
        if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            let why = "the body has a Content-Encoding: send it without, or name what it is in the Content-Type";
            return Err(respond::problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, why).into());
        }
        let (event_bytes, batch_bytes) = (request.limits().event_bytes, request.limits().batch_bytes);
        let limit = if is_batch(&request.head.headers) { batch_bytes } else { event_bytes };
        let body = request.bytes(limit).await.map_err(|why| why.response())?;
        let arrived = Instant::now();
        let mut decoded = decode(&request.head.headers, body, &self.limits).map_err(|why| invalid(None, &why))?;
        let events = match &mut decoded {
            Decoded::One(event) => std::slice::from_mut(event),
            Decoded::Batch(events) => events.as_mut_slice(),
        };
        let batch = events.len() != 1;
        for (n, event) in events.iter_mut().enumerate() {
            admit(event, event_bytes, batch.then_some(n))?;
            for name in self.dropped {
                event.remove(name);
            }
        }
        let mut spans = self.trace(&broker, &request.head.headers, events);
        if !events.is_empty() {
            let stored = match broker.deduplication() {
                None => {
                    let (headers, busy_wait) = (&request.head.headers, request.limits().busy_wait);
                    let stored = store(broker.journal(), events, headers, self.clock.wall_ms(), busy_wait).await;
                    stored.map(|_| events.len())
                }
                Some(known) => self.store_new(&known, &broker, events, request).await?,
            };
            if let Err(why) = &stored {
                spans.iter_mut().for_each(|span| span.failed(&why.to_string()));
            }
            self.accepted.add(stored.map_err(refused)? as u64);
        }
        self.acknowledged.observe(arrived.elapsed());
        Ok(respond::empty(StatusCode::ACCEPTED))
    }

    fn named(&self, name: Result<BrokerName, NameError>) -> Result<Arc<Broker>, Box<Response>> {
        self.find(&name.map_err(|why| respond::problem(StatusCode::BAD_REQUEST, why))?)
    }

    fn find(&self, name: &BrokerName) -> Result<Arc<Broker>, Box<Response>> {
        self.find_as(name, format_args!("{} {name}", name.what()))
    }

    fn find_as(&self, name: &BrokerName, shown: std::fmt::Arguments<'_>) -> Result<Arc<Broker>, Box<Response>> {
        let found = self.brokers.get(name).filter(|broker| !broker.settings().closed);
        let none = || respond::problem(StatusCode::NOT_FOUND, format_args!("there is no {shown} here")).into();
        found.ok_or_else(none)
    }

    /// Stores those of the events that the Broker has not had yet, and answers how many: a duplicate is success (D7), and is
    /// acknowledged because the first of its name is durable.
    async fn store_new(
        &self,
        known: &Arc<Deduplication>,
        broker: &Broker,
        events: &[Event],
        request: &Request,
    ) -> Result<Result<usize, Refused>, Box<Response>> {
        let claim = known.claim(broker, &self.clock, events);
        let claim = claim.await.map_err(|why| respond::unavailable(RETRY_AFTER_S, why))?;
        let wanted = events.iter().zip(&claim.wanted).filter(|(_, wanted)| **wanted);
        let new: Vec<Event> = wanted.map(|(event, _)| event.clone()).collect();
        let (journal, headers, clock) = (broker.journal().clone(), request.head.headers.clone(), self.clock.clone());
        let busy_wait = request.limits().busy_wait;
        // Its own task: a sender that goes away now comes again with the same event, and what became of this one must be known.
        let storing = tokio::spawn(async move {
            if !new.is_empty() {
                store(&journal, &new, &headers, clock.wall_ms(), busy_wait).await?;
            }
            claim.stored(&clock);
            Ok(new.len())
        });
        Ok(storing.await.unwrap_or(Err(Refused::Closed)))
    }
}

/// Appends the events as one and waits until they are durable. Where too much is waiting for the disk already, waits for room
/// first, for as long as the limits allow.
async fn store(
    journal: &Journal,
    events: &[Event],
    headers: &HeaderMap,
    arrival: Option<u64>,
    busy_wait: Duration,
) -> Result<Committed, Refused> {
    let mut patience: Option<Instant> = None;
    loop {
        let queued = journal.append(|append| {
            for event in events {
                append.event(|out| encode_event(out, event, arrival, passed_through(headers)));
            }
        });
        match queued {
            Ok(receipt) => return receipt.await,
            Err(Refused::Busy) => {
                let until = *patience.get_or_insert_with(|| Instant::now() + busy_wait);
                tokio::time::timeout_at(until, journal.room()).await.map_err(|_| Refused::Busy)?;
                // The room may be too little for a large batch: until the writer has taken what waits, and no longer than
                // the limit even where smaller appends slip in again and again.
                tokio::task::yield_now().await;
                if Instant::now() >= until {
                    return Err(Refused::Busy);
                }
            }
            Err(why) => return Err(why),
        }
    }
}

/// The webhook handshake: anybody may send, as fast as they like (D2).
fn handshake() -> Response {
    let mut response = respond::empty(StatusCode::OK);
    response.headers_mut().insert(ALLOWED_ORIGIN, ANY);
    response.headers_mut().insert(ALLOWED_RATE, ANY);
    response
}

fn is_batch(headers: &HeaderMap) -> bool {
    const BATCH: &[u8] = b"application/cloudevents-batch";
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    value.get(..BATCH.len()).is_some_and(|start| start.eq_ignore_ascii_case(BATCH))
}

/// Checks and changes what an ingress must: size, time to live.
fn admit(event: &mut Event, event_bytes: usize, place: Option<usize>) -> Result<(), Box<Response>> {
    let size = event.data().map_or(0, bytes::Bytes::len);
    if size > event_bytes {
        let why = format!("the data has {size} bytes, {event_bytes} are the most for one event");
        return Err(respond::problem(StatusCode::PAYLOAD_TOO_LARGE, at(place, &why)).into());
    }
    count_down(event).map_err(|why| respond::problem(StatusCode::BAD_REQUEST, at(place, &why.to_string())))?;
    Ok(())
}

fn at(place: Option<usize>, why: &str) -> String {
    place.map_or_else(|| why.to_owned(), |n| format!("event {n} of the batch: {why}; nothing of the batch was taken"))
}

/// The headers that go along with the event to its subscribers (D17).
fn passed_through(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).filter(|(name, _)| goes_along(name))
}

/// Whether a header, by its name in lower case, goes along.
fn goes_along(name: &str) -> bool {
    matches!(name, "x-request-id" | "retry-after") || name.starts_with("knative-") || name.starts_with("x-b3-")
}

fn invalid(place: Option<usize>, why: &EventError) -> Box<Response> {
    let status = match why.kind() {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::UnsupportedFormat => StatusCode::UNSUPPORTED_MEDIA_TYPE,
    };
    respond::problem(status, at(place, &why.to_string())).into()
}

fn refused(why: Refused) -> Box<Response> {
    match why {
        Refused::Full | Refused::DiskFull => respond::problem(StatusCode::INSUFFICIENT_STORAGE, why),
        Refused::TooLarge { .. } => respond::problem(StatusCode::PAYLOAD_TOO_LARGE, why),
        Refused::Busy | Refused::Disk(_) | Refused::Closed => respond::unavailable(RETRY_AFTER_S, why),
    }
    .into()
}

mod quick;
#[cfg(test)]
mod tests;

pub(in crate::http) use quick::{ACCEPTED, Begun};
