//! One attempt to hand one event to one destination, replies included.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::Full;
use tokio::time::Instant;
use url::Url;

use super::dead_letter::mark;
use super::local_mqtt;
use super::outcome::{Cause, Failure};
use super::plan::{Plan, Targets};
use super::policy::Policy;
use super::sender::{Answer, Letter, around, headers_of, passes};
use super::store::{As, NotStored, store};
use super::target::{Target, broker_url, shown};
use super::times::Answered;
use super::triggers::Context;
use crate::broker::Broker;
use crate::event::{self, Event, Limits, StoredEvent, Value, ttl};
use crate::manifest::{Format, Topic};
use crate::names::BrokerName;
use crate::observe::{Role, Span, TRACE_PARENT, TraceContext};

/// The attribute that says from which agent an event came.
const AGENT: &str = "godwitagent";

/// One event, ready to be sent.
#[derive(Clone)]
pub(crate) struct Outgoing {
    event: Content,
    headers: HeaderMap,
    ttl: i32,
}

/// An event as it is, or as it is stored: made only where something is to be done with it.
#[derive(Clone)]
enum Content {
    Made(Event),
    Stored(StoredEvent),
}

/// A request to a subscriber that is made already.
pub(crate) type Prepared = Request<Full<Bytes>>;

impl Outgoing {
    /// Takes the event out of its stored form; subscribers do not see its TTL (D18).
    pub(crate) fn new(stored: &StoredEvent) -> Result<Self, event::StoredError> {
        let mut event = stored.to_event()?;
        let ttl = ttl::take(&mut event);
        Ok(Self { event: Content::Made(event), headers: headers_of(stored), ttl })
    }

    /// The same with the request to a subscriber, where its bytes are all that is needed for that.
    pub(crate) fn prepare(
        context: &Context,
        plan: &Plan,
        target: &Target,
        stored: StoredEvent,
    ) -> Result<(Self, Option<Prepared>), event::StoredError> {
        let in_place = match (target, plan.policy.format) {
            // A trace goes on in what is sent.
            _ if context.settings.spans.is_on() => None,
            (Target::Http(url), None) => event::http::deliver_stored(&stored, false).map(|form| (url, form)),
            (Target::Http(url), Some(Format::Binary)) => event::http::deliver_stored(&stored, true).map(|form| (url, form)),
            _ => None,
        };
        let Some((url, (head, data, ttl))) = in_place else { return Self::new(&stored).map(|outgoing| (outgoing, None)) };
        let headers = headers_of(&stored);
        let request = around(url, (head, data), &headers, &plan.name.namespace, true).ok();
        Ok((Self { event: Content::Stored(stored), headers, ttl }, request))
    }

    /// The event, without its TTL.
    fn event(&self) -> Result<Cow<'_, Event>, Failure> {
        match &self.event {
            Content::Made(event) => Ok(Cow::Borrowed(event)),
            Content::Stored(stored) => {
                let unreadable = |e: event::StoredError| {
                    let why = e.to_string();
                    Failure::new(Cause::Status(400), "", why.clone(), why.into_bytes())
                };
                let mut event = stored.to_event().map_err(unreadable)?;
                event.remove(ttl::TTL);
                Ok(Cow::Owned(event))
            }
        }
    }
}

/// Sends the event to the subscriber. When this returns, a reply is durable in the Trigger's own Broker (D19), or where the
/// Subscription sends its replies has taken it (D22).
pub(crate) async fn to_subscriber(
    context: &Context,
    plan: &Plan,
    broker: &Broker,
    targets: &Targets,
    outgoing: &Outgoing,
    prepared: Option<Prepared>,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let outcome = match begin(context, plan, &targets.subscriber, outgoing) {
        None => dispatch(context, plan, broker, targets, outgoing, prepared).await,
        Some((mut span, outgoing)) => {
            let outcome = dispatch(context, plan, broker, targets, &outgoing, None).await;
            if let Err(failure) = &outcome {
                span.note("http.response.status_code", failure.code().to_string());
                span.failed(&failure.message);
            }
            outcome
        }
    };
    context.times.dispatched(&plan.broker, &outcome, begun.elapsed());
    outcome.map(|_| ())
}

/// The attempt's span, where there are traces, and the event that continues it (D17).
fn begin(context: &Context, plan: &Plan, target: &Target, outgoing: &Outgoing) -> Option<(Span, Outgoing)> {
    let settings = &context.settings;
    if !settings.spans.is_on() {
        return None;
    }
    let mut event = outgoing.event().ok()?.into_owned();
    let parent = event.get(TRACE_PARENT).and_then(|value| TraceContext::parse(&value.to_text()));
    let name = format!("trigger:{}.{}", plan.name.name, plan.name.namespace);
    let mut span = settings.spans.begin(name, Role::Client, parent)?;
    span.note("url.full", target.shown(&settings.address));
    span.note("cloudevents.event_id", event.id());
    span.note("cloudevents.event_type", event.ty());
    let mut headers = outgoing.headers.clone();
    let text = span.context().to_text();
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(TRACE_PARENT, value);
    }
    event.set(TRACE_PARENT, Value::String(text)).ok()?;
    Some((span, Outgoing { event: Content::Made(event), headers, ttl: outgoing.ttl }))
}

async fn dispatch(
    context: &Context,
    plan: &Plan,
    broker: &Broker,
    targets: &Targets,
    outgoing: &Outgoing,
    prepared: Option<Prepared>,
) -> Result<Answered, Failure> {
    let url = match &targets.subscriber {
        Target::Broker(name) => {
            let stored = Box::pin(to_broker(context, name, outgoing.event()?.into_owned(), As::Event, outgoing)).await;
            return stored.map(|()| Some(StatusCode::ACCEPTED.as_u16()));
        }
        Target::Mqtt(topic) => {
            let event = outgoing.event()?.into_owned();
            return Box::pin(to_mqtt(context, plan, topic, event, outgoing.ttl)).await.map(|()| None);
        }
        Target::Http(url) => url,
    };
    let answer = match prepared {
        Some(request) => context.sender.send(url, plan.policy.timeout, true, request).await?,
        None => {
            let letter = Letter {
                url,
                event: &*outgoing.event()?,
                batch: None,
                headers: &outgoing.headers,
                format: plan.policy.format,
                timeout: plan.policy.timeout,
                namespace: &plan.name.namespace,
                reply: true,
            };
            context.sender.post(&letter).await?
        }
    };
    let answered = Some(answer.status.as_u16());
    let (reply, headers) = match reply(answer, outgoing, url) {
        Ok(Some(reply)) => reply,
        Ok(None) => return Ok(answered),
        Err(failure) if plan.wants_events() => return Err(failure),
        // A Subscription's subscriber may answer what it likes.
        Err(_) => return Ok(answered),
    };
    if !plan.wants_events() {
        if let Some(target) = &targets.reply {
            let around = Outgoing { event: Content::Made(reply.clone()), headers, ttl: outgoing.ttl };
            Box::pin(to_target(context, plan, target, reply, As::Event, &around)).await?;
        }
        return Ok(answered);
    }
    // durable before: the caller moves the cursor past the event only after its reply is stored.
    Box::pin(store(broker, reply, As::Event, outgoing.ttl, &headers, &context.settings.clock))
        .await
        .map_err(|e| not_stored(&e, &shown(&broker_url(&context.settings.address, &plan.broker))))?;
    Ok(answered)
}

/// Sends events together. The answer is for all of them, whatever it holds: nothing in it is a reply.
pub(crate) async fn batch_to_subscriber(
    context: &Context,
    plan: &Plan,
    target: &Target,
    outgoing: impl Iterator<Item = &Outgoing>,
) -> Result<(), Failure> {
    let events = outgoing.map(|outgoing| outgoing.event().map(Cow::into_owned)).collect::<Result<Vec<Event>, _>>()?;
    let (Target::Http(url), [first, ..]) = (target, &*events) else {
        return Err(Failure::no_response(&target.shown(&context.settings.address), "only HTTP takes batches"));
    };
    let letter = Letter {
        url,
        event: first,
        batch: Some(&events),
        headers: &HeaderMap::new(),
        format: plan.policy.format,
        timeout: plan.policy.timeout,
        namespace: &plan.name.namespace,
        reply: false,
    };
    let begun = Instant::now();
    let outcome = context.sender.post(&letter).await.map(|answer| Some(answer.status.as_u16()));
    context.times.dispatched(&plan.broker, &outcome, begun.elapsed());
    outcome.map(|_| ())
}

/// Sends the event, marked with what went wrong, to the dead letter sink (D23).
pub(crate) async fn to_dead_letter_sink(
    context: &Context,
    plan: &Plan,
    target: &Target,
    outgoing: &Outgoing,
    failure: &Failure,
) -> Result<(), Failure> {
    let mut event = outgoing.event()?.into_owned();
    mark(&mut event, failure)
        .map_err(|e| Failure::new(Cause::Status(400), &failure.destination, e.to_string(), Vec::new()))?;
    to_target(context, plan, target, event, As::DeadLetter, outgoing).await
}

/// Sends `event`, with what else is known of `outgoing`, to where no reply is asked of.
async fn to_target(
    context: &Context,
    plan: &Plan,
    target: &Target,
    event: Event,
    what: As,
    outgoing: &Outgoing,
) -> Result<(), Failure> {
    match target {
        Target::Broker(name) => to_broker(context, name, event, what, outgoing).await,
        Target::Mqtt(topic) => to_mqtt(context, plan, topic, event, outgoing.ttl).await,
        Target::Http(url) => {
            let letter = Letter {
                url,
                event: &event,
                batch: None,
                headers: &outgoing.headers,
                format: plan.policy.format,
                timeout: plan.policy.timeout,
                namespace: &plan.name.namespace,
                reply: false,
            };
            context.sender.post(&letter).await.map(|_| ())
        }
    }
}

/// Publishes on this process's own MQTT listener.
async fn to_mqtt(context: &Context, plan: &Plan, topic: &Topic, event: Event, ttl: i32) -> Result<(), Failure> {
    let Policy { format, timeout, .. } = plan.policy;
    local_mqtt::publish(topic, &context.settings.listener, event, ttl, format, timeout).await
}

/// Appends to another Broker of this process.
async fn to_broker(
    context: &Context,
    name: &BrokerName,
    event: Event,
    what: As,
    outgoing: &Outgoing,
) -> Result<(), Failure> {
    let destination = shown(&broker_url(&context.settings.address, name));
    let Some(broker) = context.brokers.get(name) else {
        return Err(Failure::new(
            Cause::Status(404),
            &destination,
            format!("{} {name} does not exist", name.what()),
            Vec::new(),
        ));
    };
    store(&broker, event, what, outgoing.ttl, &outgoing.headers, &context.settings.clock)
        .await
        .map_err(|e| not_stored(&e, &destination))
}

fn not_stored(error: &NotStored, destination: &str) -> Failure {
    let (cause, why) = match error {
        NotStored::TtlUsedUp => {
            (Cause::TtlUsedUp, "knativebrokerttl is used up: brokers and replies go round in a circle".to_owned())
        }
        NotStored::Refused(refused @ crate::journal::Refused::TooLarge { .. }) => (Cause::Status(413), refused.to_string()),
        NotStored::Refused(refused) => (Cause::NotStored, refused.to_string()),
    };
    let detail = format!("dispatch error: {why}").into_bytes();
    Failure::new(cause, destination, format!("{destination} did not store the event: {why}"), detail)
}

/// The reply in a 2xx answer, with the headers that pass on to it. Only 200 has one (D19, D20); a body that is no event is a
/// failure (D21).
fn reply(answer: Answer, outgoing: &Outgoing, url: &Url) -> Result<Option<(Event, HeaderMap)>, Failure> {
    let start = answer.body.slice(..answer.body.len().min(super::outcome::MAX_DETAIL_BYTES));
    let decoded = event::http::decode_reply(&answer.headers, answer.body, &Limits::default());
    let bad = |why: String| {
        let destination = shown(url);
        let message = format!("{destination} answered {} with a body that is no event: {why}", answer.status);
        Failure::new(Cause::BadReply, &destination, message, start.to_vec())
    };
    let Some(mut event) = decoded.map_err(|e| bad(e.to_string()))? else { return Ok(None) };
    if answer.status != StatusCode::OK {
        return Ok(None);
    }
    // The event's own TTL goes on (D18), whatever the reply says.
    ttl::take(&mut event);
    // A reply may say which agent brought it about; another is not the subscriber's to name.
    if event.get(AGENT).is_some() && event.get(AGENT) != outgoing.event()?.get(AGENT) {
        event.remove(AGENT);
    }
    let mut headers: HeaderMap =
        answer.headers.iter().filter(|(n, _)| passes(n.as_str())).map(|(n, v)| (n.clone(), v.clone())).collect();
    for (name, value) in &outgoing.headers {
        if !headers.contains_key(name) {
            headers.insert(name, value.clone());
        }
    }
    Ok(Some((event, headers)))
}
