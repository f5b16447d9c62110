//! What happens when subscribers do not take an event.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::sink::{Say, Sink};
use super::world::{World, event, eventually, trigger};
use crate::event::{Event, StoredEvent};

fn delivery(text: &str) -> String {
    let lines: Vec<String> = text.split(", ").map(|line| format!("    {line}")).collect();
    format!("  delivery:\n{}", lines.join("\n"))
}

#[tokio::test]
async fn d12_d13_a_retryable_status_is_tried_retry_times_more_and_a_final_one_never() {
    for (status, attempts) in [(500, 3), (503, 3), (404, 3), (408, 3), (409, 3), (429, 3), (400, 1), (410, 1), (302, 1)] {
        let (dir, sink) =
            (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(status).header("location", "/x")]).await);
        let world = World::open(dir.path()).await;
        world.apply(&trigger("t", &sink.url, &delivery("retry: 2"))).await.expect("applied");
        world.publish(&event("1", "a")).await;
        assert_eq!(world.settled("t", 1).await.done.dead_lettered, 1, "{status}");
        assert_eq!(sink.got().len(), attempts, "{status}");
        assert!(sink.got().iter().all(|got| got.path == "/in"), "no redirect is followed");
        world.close().await;
    }
}

#[tokio::test]
async fn d12_a_subscriber_that_recovers_gets_the_event_and_all_that_follow_in_order() {
    let script = [Say::status(503), Say::status(500), Say::status(202)];
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&script).await);
    let world = World::open(dir.path()).await;
    let spec = delivery("retry: 5, backoffPolicy: linear, backoffDelay: PT0.12S");
    world.apply(&trigger("t", &sink.url, &spec)).await.expect("applied");
    let begin = Instant::now();
    for id in ["1", "2", "3"] {
        world.publish(&event(id, "a")).await;
    }
    assert_eq!(world.settled("t", 3).await.done.delivered, 3);
    assert_eq!(sink.ids(), ["1", "1", "1", "2", "3"]);
    assert!(begin.elapsed() >= Duration::from_millis(360), "d14: 120 ms, then 240 ms");
    world.close().await;
}

#[tokio::test]
async fn d12_no_answer_in_time_is_a_failure_after_retries() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::nothing()]).await);
    let world = World::open(dir.path()).await;
    world.apply(&trigger("t", &sink.url, &delivery("retry: 1, timeout: PT0.1S"))).await.expect("applied");
    world.publish(&event("1", "a")).await;
    assert_eq!(world.settled("t", 1).await.done.dead_lettered, 1);
    assert_eq!(sink.got().len(), 2);
    let dead = world.dead_letters().await;
    assert_eq!(dead.first().map(|d| d.head.code), Some(500), "d23");
    world.close().await;
}

#[tokio::test]
async fn d23_the_dead_letter_sink_gets_the_event_with_what_went_wrong() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(422).body("bad unit")]).await);
    let grave = Sink::start(&[Say::status(200).body("thanks")]).await;
    let world = World::open(dir.path()).await;
    let spec = format!("  delivery:\n    deadLetterSink:\n      uri: {}", grave.url);
    let secret = sink.url.replace("http://", "http://user:secret@");
    world.apply(&trigger("t", &secret, &spec)).await.expect("applied");
    world.publish(&event("1", "a")).await;
    assert_eq!(world.settled("t", 1).await.done.dead_lettered, 1);
    let got = grave.got();
    let got = got.first().expect("one");
    assert_eq!((got.header("ce-id"), got.header("ce-type")), ("1", "a"));
    assert_eq!(got.header("ce-knativeerrordest"), sink.url, "without the password");
    assert_eq!(got.header("ce-knativeerrorcode"), "422");
    assert_eq!(STANDARD.decode(got.header("ce-knativeerrordata")).expect("base64"), b"bad unit");
    assert_eq!(got.header("prefer"), "", "d11: no reply is asked of a dead letter sink");
    assert!(sink.got().first().is_some_and(|g| g.header("authorization").starts_with("Basic ")));
    assert!(world.dead_letters().await.is_empty());
    assert_eq!(world.status("t")["deadLetterSinkUri"], grave.url);
    world.close().await;
}

#[tokio::test]
async fn d24_a_dead_letter_sink_that_fails_leaves_the_event_in_the_dead_letter_journal() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(500).body("first")]).await);
    let grave = Sink::start(&[Say::status(503)]).await;
    let world = World::open(dir.path()).await;
    let spec = format!("  delivery:\n    retry: 1\n    deadLetterSink:\n      uri: {}", grave.url);
    world.apply(&trigger("t", &sink.url, &spec)).await.expect("applied");
    world.publish(&event("1", "a")).await;
    assert_eq!(world.settled("t", 1).await.done.dead_lettered, 1);
    assert_eq!((sink.got().len(), grave.got().len()), (2, 2), "the same retries for the sink");
    let dead = world.dead_letters().await;
    let letter = dead.first().expect("one");
    assert_eq!((letter.head.trigger.as_str(), letter.head.code, letter.head.offset), ("default/t", 500, 0));
    assert_eq!(STANDARD.decode(&letter.head.data).expect("base64"), b"first");
    let epoch = letter.head.epoch().expect("an epoch");
    let kept = StoredEvent::new(letter.body.clone(), epoch, crate::journal::Offset(0), None).expect("an event");
    assert_eq!(kept.to_event().expect("valid"), event("1", "a"), "the event is kept as it was");
    world.close().await;
}

#[tokio::test]
async fn d25_a_triggers_delivery_replaces_its_brokers_save_for_the_dead_letter_sink() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(500)]).await);
    let grave = Sink::start(&[Say::status(202)]).await;
    let world = World::open(dir.path()).await;
    let broker = format!(
        "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata:\n  name: default\nspec:\n  delivery:\n    retry: 3\n    \
         deadLetterSink:\n      uri: {}\n---\n",
        grave.url
    );
    let other = Sink::start(&[Say::status(500)]).await;
    let set = [broker, trigger("own", &sink.url, &delivery("retry: 1")), trigger("lent", &other.url, "")];
    world.apply(&set.concat()).await.expect("applied");
    world.publish(&event("1", "a")).await;
    assert_eq!(world.settled("own", 1).await.done.dead_lettered, 1);
    assert_eq!(world.settled("lent", 1).await.done.dead_lettered, 1);
    assert_eq!((sink.got().len(), other.got().len(), grave.got().len()), (2, 4, 2));
    world.close().await;
}

#[tokio::test]
async fn our_choice_without_delivery_waits_for_who_is_away_and_keeps_what_is_refused() {
    let script = [Say::status(503), Say::status(202)];
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&script).await);
    let world = World::open(dir.path()).await;
    world.apply(&trigger("t", &sink.url, "")).await.expect("applied");
    world.publish(&event("1", "a")).await;
    assert_eq!(world.settled("t", 1).await.done.delivered, 1);
    sink.say(&[Say::status(413)]);
    world.publish(&event("2", "a")).await;
    assert_eq!(world.settled("t", 2).await.done.dead_lettered, 1);
    assert_eq!(world.dead_letters().await.len(), 1);
    world.close().await;
}

#[tokio::test]
async fn a_dead_subscriber_delays_no_other_trigger_and_shows_what_is_wrong() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
    let world = World::open(dir.path()).await;
    let set = [trigger("dead", "http://127.0.0.1:1/in", ""), trigger("alive", &sink.url, "")];
    world.apply(&set.concat()).await.expect("applied");
    for id in 0..50 {
        world.publish(&event(&id.to_string(), "a")).await;
    }
    assert_eq!(world.settled("alive", 50).await.done.delivered, 50);
    let status = eventually("the error shows", || {
        let status = world.status("dead");
        if status["retry"].is_null() { Err(status.to_string()) } else { Ok(status) }
    })
    .await;
    assert_eq!((&status["ready"], &status["pending"]), (&true.into(), &50.into()));
    assert_eq!(status["last_error"]["code"], 500);
    assert!(status["last_error"]["message"].as_str().is_some_and(|m| m.contains("refused")), "{status}");
    world.close().await;
}

#[tokio::test]
async fn an_operator_can_move_a_stuck_trigger_past_an_event() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(503), Say::status(202)]).await);
    let world = World::open(dir.path()).await;
    let spec = delivery("retry: 100, backoffPolicy: linear, backoffDelay: PT10M");
    world.apply(&trigger("t", &sink.url, &spec)).await.expect("applied");
    world.publish(&event("1", "a")).await;
    world.publish(&event("2", "a")).await;
    eventually("it is stuck", || if world.status("t")["retry"].is_null() { Err(String::new()) } else { Ok(()) }).await;
    let name = world.ledger("t").expect("registered").name;
    let journal = world.broker("default").journal().clone();
    journal.consumer(&name, crate::journal::Start::Next, false).seek(crate::journal::Offset(1));
    let ledger = world.settled("t", 2).await;
    assert_eq!((ledger.done.delivered, ledger.done.dropped.values().sum::<u64>()), (1, 1));
    assert_eq!(sink.ids(), ["1", "2"]);
    world.close().await;
}

#[tokio::test]
async fn an_event_as_large_as_the_brokers_segments_take_becomes_a_dead_letter_all_the_same() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(422)]).await);
    let world = World::open(dir.path()).await;
    world.apply(&trigger("t", &sink.url, "")).await.expect("applied");
    // Segments have 256 KiB here, half of one takes this; dead letters' begin at 128 KiB.
    let data = vec![b'x'; 120 << 10];
    let large = Event::builder().id("1").source("/test").ty("a").data("text/plain", data.clone()).build().expect("valid");
    world.publish(&large).await;
    let ledger = world.settled("t", 1).await;
    assert_eq!((ledger.done.dead_lettered, ledger.done.total()), (1, 1), "{ledger:?}");
    let dead = world.dead_letters().await;
    assert!(dead.first().is_some_and(|letter| letter.body.len() > data.len()), "{}", dead.len());
    world.close().await;
}

#[tokio::test]
async fn a_full_dead_letter_journal_says_so_and_holds_the_event() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(422)]).await);
    let world = World::open(dir.path()).await;
    world.apply(&trigger("t", &sink.url, "")).await.expect("applied");
    // Dead letters have an eighth of the broker's 16 MiB.
    let data = vec![b'x'; 100 << 10];
    for id in 0..24 {
        let event = Event::builder().id(id.to_string()).source("/test").ty("a").data("text/plain", data.clone());
        world.publish(&event.build().expect("valid")).await;
    }
    eventually("the reason and what to do", || {
        let status = world.status("t").to_string();
        if status.contains("it is full: replay or drop letters") { Ok(()) } else { Err(status) }
    })
    .await;
    let dead = world.dead_letters().await.len() as u64;
    let ledger = world.ledger("t").expect("registered");
    assert!(dead < 24 && ledger.done.total() == dead, "{dead}: {ledger:?}");
    world.close().await;
}

#[tokio::test]
async fn dead_letters_of_one_event_all_go_into_a_broker_that_de_duplicates() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(400)]).await);
    let world = World::open(dir.path()).await;
    let broker = |name: &str| {
        format!(
            "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata:\n  name: {name}\n  annotations:\n    \
             godwit.dev/deduplication-window: PT10M\n---\n"
        )
    };
    let dead = |to: &str| {
        format!(
            "  delivery:\n    retry: 0\n    deadLetterSink:\n      ref: {{apiVersion: eventing.knative.dev/v1, kind: Broker, name: {to}}}"
        )
    };
    let set = [
        broker("default"),
        broker("dlq"),
        trigger("one", &sink.url, &dead("dlq")),
        trigger("two", &sink.url, &dead("dlq")),
    ];
    world.apply(&set.concat()).await.expect("applied");
    world.publish(&event("1", "a")).await;
    for name in ["one", "two"] {
        assert_eq!(world.settled(name, 1).await.done.dead_lettered, 1);
    }
    let letters = world.events("dlq").await;
    assert_eq!(letters.len(), 2, "each Trigger's");
    assert!(letters.iter().all(|letter| letter.id() == "1" && letter.get("knativeerrorcode").is_some()));
    world.close().await;
}
