//! Spans of what filters say of events.

use serde_json::Value;

use super::sink::{Say, Sink};
use super::world::{World, annotated, event};
use crate::event::{self, Event};
use crate::observe::Spans;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// An event that is part of a trace.
fn traced(id: &str, ty: &str, sampled: bool) -> Event {
    let mut event = event(id, ty);
    let text = format!("00-{TRACE}-{PARENT}-0{}", u8::from(sampled));
    event.set("traceparent", event::Value::String(text)).expect("an attribute");
    event
}

/// What the filters' spans among these say: the Trigger, the event, and whether it was wanted.
fn told(spans: &[Value]) -> Vec<[String; 3]> {
    let of = |span: &Value, key: &str| {
        let all = span["attributes"].as_array().cloned().unwrap_or_default();
        let found = all.iter().find(|attribute| attribute["key"] == key).cloned().unwrap_or_default();
        found["value"]["stringValue"].as_str().unwrap_or_default().to_owned()
    };
    let filters = spans.iter().filter(|span| span["name"].as_str().is_some_and(|name| name.starts_with("filter:")));
    let mut told: Vec<_> = filters
        .map(|span| {
            assert_eq!((&span["traceId"], &span["parentSpanId"]), (&TRACE.into(), &PARENT.into()), "{span}");
            assert_eq!(span["kind"], 1, "{span}");
            ["godwit.trigger", "cloudevents.event_id", "godwit.wanted"].map(|key| of(span, key))
        })
        .collect();
    told.sort();
    told
}

#[tokio::test]
async fn a_filter_that_judges_an_event_of_a_sampled_trace_has_a_span_in_it_at_the_feed_and_behind_it() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
    let (spans, mut ended) = Spans::caught();
    let world = World::traced(dir.path(), spans).await;
    world.publish(&traced("1", "a", true)).await;
    let start = [("start", "earliest")];
    // A filter that the index could tell from would not even be asked.
    let all = annotated("all", &sink.url, &start, "");
    let some = annotated("some", &sink.url, &start, "  filters:\n  - prefix:\n      type: b");
    world.apply(&format!("{all}{some}")).await.expect("applied");
    world.settled("all", 1).await;
    world.publish(&event("2", "b")).await;
    world.publish(&traced("3", "b", false)).await;
    world.publish(&traced("4", "b", true)).await;
    world.publish(&traced("5", "a", true)).await;
    world.settled("all", 5).await;
    world.settled("some", 5).await;
    world.close().await;
    let said = told(&ended());
    let line = |trigger, id, wanted| [trigger, id, wanted].map(str::to_owned);
    let wanted = [
        line("default/all", "1", "true"),
        line("default/all", "4", "true"),
        line("default/all", "5", "true"),
        line("default/some", "1", "false"),
        line("default/some", "4", "true"),
        line("default/some", "5", "false"),
    ];
    assert_eq!(said, wanted);
}
