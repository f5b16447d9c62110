//! Asks the filters of Triggers about one event, with a span for each answer where the event is part of a trace that is exported.
//!
//! Such a span is a child of what the event carries. An event without a sampled `traceparent` has none, and where there are no
//! traces nothing but that is asked.

use super::live::Live;
use super::plan::Plan;
use crate::event::StoredEvent;
use crate::observe::{Role, Span, Spans, TRACE_PARENT, TraceContext};

/// An event, and where its trace stands.
pub(crate) struct Judge<'a> {
    event: &'a StoredEvent,
    trace: Option<(&'a Spans, TraceContext)>,
}

impl<'a> Judge<'a> {
    /// For this event. `scratch` is room for what must be derived.
    #[inline]
    pub(crate) fn of(event: &'a StoredEvent, spans: &'a Spans, scratch: &mut String) -> Self {
        let trace = if spans.is_on() {
            let carried = event.attribute_text(TRACE_PARENT, scratch).and_then(TraceContext::parse);
            carried.filter(|carried| carried.is_sampled()).map(|carried| (spans, carried))
        } else {
            None
        };
        Self { event, trace }
    }

    /// Whether a Trigger wants it; what its filter meets is counted.
    #[inline]
    pub(crate) fn is_wanted(&self, plan: &Plan, live: &Live, scratch: &mut String) -> bool {
        let span = self.trace.and_then(|(spans, carried)| begin(spans, carried, plan));
        let verdict = plan.filter.judge(self.event, scratch);
        if verdict.faults > 0 {
            live.faults(verdict.faults);
        }
        if let Some(span) = span {
            self.end(span, verdict.wanted, scratch);
        }
        verdict.wanted
    }

    fn end(&self, mut span: Span, wanted: bool, scratch: &mut String) {
        for (key, name) in [("cloudevents.event_id", "id"), ("cloudevents.event_type", "type")] {
            span.note(key, self.event.attribute_text(name, scratch).unwrap_or_default());
        }
        span.note("godwit.wanted", wanted.to_string());
    }
}

#[cold]
fn begin(spans: &Spans, carried: TraceContext, plan: &Plan) -> Option<Span> {
    let (name, namespace) = (&plan.name.name, &plan.name.namespace);
    let mut span = spans.begin(format!("filter:{name}.{namespace}"), Role::Internal, Some(carried))?;
    span.note("godwit.trigger", format!("{namespace}/{name}"));
    Some(span)
}
