//! One attempt to hand one event to one destination, replies included.

use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::Instant;
use url::Url;

use super::dead_letter::mark;
use super::local_mqtt::Topic;
use super::outcome::{Cause, Failure};
use super::plan::{Plan, Targets};
use super::policy::Policy;
use super::sender::{Answer, Letter, headers_of, passes};
use super::store::{NotStored, store};
use super::target::{Target, broker_url, shown};
use super::triggers::Context;
use crate::broker::Broker;
use crate::event::{self, Event, Limits, StoredEvent, Value, ttl};
use crate::names::BrokerName;
use crate::observe::{Role, Span, TRACE_PARENT, TraceContext};

/// The attribute that says from which agent an event came.
const AGENT: &str = "godwitagent";

/// One event, ready to be sent.
#[derive(Clone)]
pub(crate) struct Outgoing {
    event: Event,
    headers: HeaderMap,
    ttl: i32,
}

impl Outgoing {
    /// Takes the event out of its stored form; subscribers do not see its TTL (D18).
    pub(crate) fn new(stored: &StoredEvent) -> Result<Self, event::StoredError> {
        let mut event = stored.to_event()?;
        let ttl = ttl::take(&mut event);
        Ok(Self { event, headers: headers_of(stored), ttl })
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
) -> Result<(), Failure> {
    let begun = Instant::now();
    let outcome = match begin(context, plan, &targets.subscriber, outgoing) {
        None => dispatch(context, plan, broker, targets, outgoing).await,
        Some((mut span, outgoing)) => {
            let outcome = dispatch(context, plan, broker, targets, &outgoing).await;
            if let Err(failure) = &outcome {
                span.note("http.response.status_code", failure.code().to_string());
                span.failed(&failure.message);
            }
            outcome
        }
    };
    context.times.observe(&plan.broker, &outcome, begun.elapsed());
    outcome
}

/// The attempt's span, where there are traces, and the event that continues it (D17).
fn begin(context: &Context, plan: &Plan, target: &Target, outgoing: &Outgoing) -> Option<(Span, Outgoing)> {
    let settings = &context.settings;
    if !settings.spans.is_on() {
        return None;
    }
    let parent = outgoing.event.get(TRACE_PARENT).and_then(|value| TraceContext::parse(&value.to_text()));
    let name = format!("trigger:{}.{}", plan.name.name, plan.name.namespace);
    let mut span = settings.spans.begin(name, Role::Client, parent)?;
    span.note("url.full", target.shown(&settings.address));
    span.note("cloudevents.event_id", outgoing.event.id());
    span.note("cloudevents.event_type", outgoing.event.ty());
    let mut continued = outgoing.clone();
    let text = span.context().to_text();
    if let Ok(value) = HeaderValue::from_str(&text) {
        continued.headers.insert(TRACE_PARENT, value);
    }
    continued.event.set(TRACE_PARENT, Value::String(text)).ok()?;
    Some((span, continued))
}

async fn dispatch(
    context: &Context,
    plan: &Plan,
    broker: &Broker,
    targets: &Targets,
    outgoing: &Outgoing,
) -> Result<(), Failure> {
    let url = match &targets.subscriber {
        Target::Broker(name) => return Box::pin(to_broker(context, name, outgoing.event.clone(), outgoing)).await,
        Target::Mqtt(topic) => {
            return Box::pin(to_mqtt(context, plan, topic, outgoing.event.clone(), outgoing.ttl)).await;
        }
        Target::Http(url) => url,
    };
    let letter = Letter {
        url,
        event: &outgoing.event,
        batch: None,
        headers: &outgoing.headers,
        format: plan.policy.format,
        timeout: plan.policy.timeout,
        namespace: &plan.name.namespace,
        reply: true,
    };
    let answer = context.sender.send(&letter).await?;
    let (reply, headers) = match reply(answer, outgoing, url) {
        Ok(Some(reply)) => reply,
        Ok(None) => return Ok(()),
        Err(failure) if plan.wants_events() => return Err(failure),
        // A Subscription's subscriber may answer what it likes.
        Err(_) => return Ok(()),
    };
    if !plan.wants_events() {
        let reply = Outgoing { event: reply, headers, ttl: outgoing.ttl };
        return match &targets.reply {
            Some(target) => Box::pin(to_target(context, plan, target, reply.event.clone(), &reply)).await,
            None => Ok(()),
        };
    }
    // durable before: the caller moves the cursor past the event only after its reply is stored.
    Box::pin(store(broker.journal(), reply, outgoing.ttl, &headers, &context.settings.clock))
        .await
        .map(|_| ())
        .map_err(|e| not_stored(&e, &shown(&broker_url(&context.settings.address, &plan.broker))))
}

/// Sends events together. The answer is for all of them, whatever it holds: nothing in it is a reply.
pub(crate) async fn batch_to_subscriber(
    context: &Context,
    plan: &Plan,
    target: &Target,
    outgoing: impl Iterator<Item = &Outgoing>,
) -> Result<(), Failure> {
    let events: Vec<Event> = outgoing.map(|outgoing| outgoing.event.clone()).collect();
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
    context.sender.send(&letter).await.map(|_| ())
}

/// Sends the event, marked with what went wrong, to the dead letter sink (D23).
pub(crate) async fn to_dead_letter_sink(
    context: &Context,
    plan: &Plan,
    target: &Target,
    outgoing: &Outgoing,
    failure: &Failure,
) -> Result<(), Failure> {
    let mut event = outgoing.event.clone();
    mark(&mut event, failure)
        .map_err(|e| Failure::new(Cause::Status(400), &failure.destination, e.to_string(), Vec::new()))?;
    to_target(context, plan, target, event, outgoing).await
}

/// Sends `event`, with what else is known of `outgoing`, to where no reply is asked of.
async fn to_target(
    context: &Context,
    plan: &Plan,
    target: &Target,
    event: Event,
    outgoing: &Outgoing,
) -> Result<(), Failure> {
    match target {
        Target::Broker(name) => to_broker(context, name, event, outgoing).await,
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
            context.sender.send(&letter).await.map(|_| ())
        }
    }
}

/// Publishes on this process's own MQTT listener.
async fn to_mqtt(context: &Context, plan: &Plan, topic: &Topic, event: Event, ttl: i32) -> Result<(), Failure> {
    let Policy { format, timeout, .. } = plan.policy;
    topic.publish(&context.settings.listener, event, ttl, format, timeout).await
}

/// Appends to another Broker of this process.
async fn to_broker(context: &Context, name: &BrokerName, event: Event, outgoing: &Outgoing) -> Result<(), Failure> {
    let destination = shown(&broker_url(&context.settings.address, name));
    let Some(broker) = context.brokers.get(name) else {
        return Err(Failure::new(
            Cause::Status(404),
            &destination,
            format!("{} {name} does not exist", name.what()),
            Vec::new(),
        ));
    };
    store(broker.journal(), event, outgoing.ttl, &outgoing.headers, &context.settings.clock)
        .await
        .map(|_| ())
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
    if event.get(AGENT) != outgoing.event.get(AGENT) {
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
