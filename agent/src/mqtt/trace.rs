//! Spans of publishes on their way into a Broker, where traces are exported: from the append until it is known what became of it.
//!
//! A publish is stored as it came, so a span does not go on with it: what the event goes on with is what the publish brought, and the
//! span is another child of that. A publish that brings no `traceparent` has a trace of its own.

use godwit_mesh::event::{MqttPublish, StoredEvent};
use godwit_mesh::journal::{Epoch, Offset};
use godwit_mesh::observe::{Role, Span, Spans, TRACE_PARENT, TraceContext};

use super::routes::Route;

/// Begins a publish's span; none where nobody wants it, or it goes into no Broker.
pub(super) fn begin(spans: &Spans, route: &Route, publish: &MqttPublish<'_>) -> Option<Span> {
    if !spans.is_on() {
        return None;
    }
    let broker = route.broker.as_ref()?.name();
    // As the Broker has it: so the attributes are found in every mode.
    let mut body = Vec::new();
    route.encode(&mut body, publish, None);
    let event = StoredEvent::new(body.into(), Epoch(0), Offset(0), None).ok()?;
    let mut scratch = String::new();
    let parent = event.attribute_text(TRACE_PARENT, &mut scratch).and_then(TraceContext::parse);
    if parent.is_some_and(|parent| !parent.is_sampled()) {
        return None;
    }
    let mut span = spans.begin(format!("broker:{}.{}", broker.name(), broker.namespace()), Role::Server, parent)?;
    span.note("messaging.destination.name", publish.topic);
    span.note("messaging.client.id", publish.client_id);
    // Of what a publish is made into, the id is not known before it is stored.
    if event.came_as_event() {
        span.note("cloudevents.event_id", event.attribute_text("id", &mut scratch).unwrap_or_default());
    }
    span.note("cloudevents.event_type", event.attribute_text("type", &mut scratch).unwrap_or_default());
    Some(span)
}
