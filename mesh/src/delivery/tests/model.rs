//! Any set of Triggers, any events: what arrives is what a model says.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::sink::{Say, Sink};
use super::world::{World, annotated, publish, set};
use crate::event::{Event, StoredEvent, encode_event};
use crate::journal::{Epoch, Offset};

/// Filters as they are written, over few types, sources and subjects, so that events match at times.
const FILTERS: [&str; 12] = [
    "",
    "  filter:\n    attributes: {type: a}",
    "  filter:\n    attributes: {type: b, source: /s1}",
    "  filter:\n    attributes: {source: /s2}",
    "  filter:\n    attributes: {subject: ''}",
    "  filters:\n  - exact: {type: a}\n  - prefix: {subject: x}",
    "  filters:\n  - any:\n    - exact: {type: a}\n    - exact: {type: c}",
    "  filters:\n  - any:\n    - exact: {type: a}\n    - suffix: {source: '1'}",
    "  filters:\n  - not:\n      exact: {type: a}",
    "  filters:\n  - cesql: \"type = 'b' AND subject LIKE 'x%'\"",
    "  filters:\n  - cesql: \"subject LIKE 'y%' OR type IN ('a', 'c')\"",
    "  filters:\n  - all:\n    - exact: {source: /s1}\n    - not: {cesql: \"type = 'c'\"}",
];

#[derive(Debug, Clone)]
struct Given {
    filter: usize,
    mode: usize,
}

fn given() -> impl Strategy<Value = Given> {
    (0..FILTERS.len(), 0..3_usize).prop_map(|(filter, mode)| Given { filter, mode })
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let one = (prop_oneof!["a", "b", "c", "d"], "/s[1-3]", prop::option::of("[xy][0-9]"));
    prop::collection::vec(one, 1..60).prop_map(|all| {
        let build = |(n, (ty, source, subject)): (usize, (String, String, Option<String>))| {
            let event = Event::builder().id(n.to_string()).source(source).ty(ty);
            match subject {
                Some(subject) => event.subject(subject).build(),
                None => event.build(),
            }
            .expect("valid")
        };
        all.into_iter().enumerate().map(build).collect()
    })
}

/// The ids that came on each path, in the order in which they came.
fn arrived(sink: &Sink) -> BTreeMap<String, Vec<String>> {
    let mut arrived: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for got in sink.got() {
        let ids = arrived.entry(got.path.clone()).or_default();
        match got.header("ce-id") {
            "" => {
                let batch: serde_json::Value = serde_json::from_slice(&got.body).expect("JSON");
                let all = batch.as_array().cloned().unwrap_or_else(|| vec![batch]);
                ids.extend(all.iter().map(|event| event["id"].as_str().expect("an id").to_owned()));
            }
            id => ids.push(id.to_owned()),
        }
    }
    arrived
}

async fn check(triggers: Vec<Given>, events: Vec<Event>, after: usize) {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
    let world = World::open(dir.path()).await;
    let yaml: String = triggers
        .iter()
        .enumerate()
        .map(|(n, given)| {
            let mode = [("start", "earliest"), ("parallelism", "4"), ("batch", "3")][given.mode];
            annotated(
                &format!("t{n}"),
                &format!("{}/t{n}", sink.url),
                &[("start", "earliest"), mode],
                FILTERS[given.filter],
            )
        })
        .collect::<String>()
        .replace(
            "    godwit.dev/start: \"earliest\"\n    godwit.dev/start: \"earliest\"\n",
            "    godwit.dev/start: \"earliest\"\n",
        );
    let filters: Vec<_> =
        set(&yaml).triggers().map(|trigger| (trigger.name.name.clone(), trigger.filter.clone())).collect();
    // Some are there before the Triggers, and some come after.
    let after = after.min(events.len());
    let journal = world.broker("default").journal().clone();
    for event in &events[..after] {
        publish(&journal, event, &[]).await;
    }
    world.apply(&yaml).await.expect("applied");
    for event in &events[after..] {
        publish(&journal, event, &[]).await;
    }
    for (name, _) in &filters {
        world.settled(name, events.len() as u64).await;
    }
    let arrived = arrived(&sink);
    for (n, given) in triggers.iter().enumerate() {
        let name = format!("t{n}");
        let filter = &filters.iter().find(|(other, _)| *other == name).expect("there").1;
        let wanted = |event: &&Event| {
            let mut body = Vec::new();
            encode_event(&mut body, event, None, std::iter::empty());
            let stored = StoredEvent::new(body.into(), Epoch(1), Offset(0), None).expect("stored");
            filter.judge(&stored, &mut String::new()).wanted
        };
        let expected: Vec<String> = events.iter().filter(wanted).map(|event| event.id().to_owned()).collect();
        let mut got = arrived.get(&format!("/in/{name}")).cloned().unwrap_or_default();
        let ledger = world.ledger(&name).expect("registered");
        assert_eq!(ledger.done.delivered, expected.len() as u64, "{given:?}");
        assert_eq!(ledger.done.filtered, (events.len() - expected.len()) as u64, "{given:?}");
        if given.mode == 1 {
            got.sort_by_key(|id| id.parse::<usize>().expect("a number"));
        }
        assert_eq!(got, expected, "{name} {given:?}");
    }
    world.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.min(24), max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn d26_each_trigger_gets_each_event_that_it_wants_once(
        triggers in prop::collection::vec(given(), 1..8),
        events in events(),
        after in 0..60_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(check(triggers, events, after));
    }
}
