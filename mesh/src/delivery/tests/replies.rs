//! What subscribers answer.

use super::sink::{Say, Sink};
use super::world::{World, event, publish, trigger};
use crate::event::{Event, Value};

async fn after_one(answer: Say) -> (World, Sink, tempfile::TempDir) {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[answer]).await);
    let world = World::open(dir.path()).await;
    let filter = "  filter:\n    attributes:\n      type: question";
    world.apply(&trigger("t", &sink.url, filter)).await.expect("applied");
    let mut question = event("1", "question");
    question.set("knativebrokerttl", Value::Integer(9)).expect("valid");
    publish(world.broker("default").journal(), &question, &[("x-request-id", b"r-1")]).await;
    (world, sink, dir)
}

#[tokio::test]
async fn d19_an_event_in_a_200_is_stored_in_the_same_broker_and_meets_every_trigger() {
    let answer = Say::status(200).event("r1", "answer").header("content-type", "text/plain").body("42");
    let (world, _sink, _dir) = after_one(answer.header("knative-y", "z")).await;
    let ledger = world.settled("t", 2).await;
    assert_eq!((ledger.done.delivered, ledger.done.filtered), (1, 1), "the replying Trigger sees the reply too");
    let events = world.events("default").await;
    let reply = events.get(1).expect("stored");
    assert_eq!((reply.id(), reply.ty(), reply.data().map(|d| &d[..])), ("r1", "answer", Some(&b"42"[..])));
    assert_eq!(reply.get("knativebrokerttl"), Some(&Value::Integer(8)), "d18: the event's own TTL goes on, counted down");
    assert!(reply.get("knativearrivaltime").is_some(), "d10");
    world.close().await;
}

#[tokio::test]
async fn a_reply_may_say_which_agent_brought_it_about_and_no_other() {
    for (claimed, kept) in [("boat-9", Some("boat-9")), ("boat-1", None)] {
        let answer = Say::status(200).event("r1", "answer").header("ce-godwitagent", claimed);
        let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[answer]).await);
        let world = World::open(dir.path()).await;
        let filter = "  filter:\n    attributes:\n      type: question";
        world.apply(&trigger("t", &sink.url, filter)).await.expect("applied");
        let mut question = event("1", "question");
        question.set("godwitagent", Value::from("boat-9")).expect("valid");
        world.publish(&question).await;
        world.settled("t", 2).await;
        let events = world.events("default").await;
        assert_eq!(events[1].get("godwitagent"), kept.map(Value::from).as_ref(), "{claimed}");
        world.close().await;
    }
}

#[tokio::test]
async fn d19_a_structured_reply_is_stored_with_its_data_as_it_was() {
    let body = r#"{"specversion":"1.0","id":"r1","source":"/s","type":"answer","data":{"v":1.10}}"#;
    let answer = Say::status(200).header("content-type", "application/cloudevents+json").body(body);
    let (world, _sink, _dir) = after_one(answer).await;
    world.settled("t", 2).await;
    let events = world.events("default").await;
    assert_eq!(events.get(1).and_then(Event::data).map(|d| &d[..]), Some(&br#"{"v":1.10}"#[..]));
    world.close().await;
}

#[tokio::test]
async fn d20_an_event_in_a_202_is_no_reply() {
    let (world, _sink, _dir) = after_one(Say::status(202).event("r1", "answer")).await;
    assert_eq!(world.settled("t", 1).await.done.delivered, 1);
    assert_eq!(world.events("default").await.len(), 1);
    world.close().await;
}

#[tokio::test]
async fn d21_a_2xx_without_a_body_is_done_and_one_with_a_body_that_is_no_event_is_a_failure() {
    for status in [200, 201, 204] {
        let (world, _sink, _dir) = after_one(Say::status(status)).await;
        assert_eq!(world.settled("t", 1).await.done.delivered, 1, "{status}");
        world.close().await;
    }
    let half = Say::status(200).header("ce-specversion", "1.0").header("ce-id", "x").body("x");
    for answer in [
        Say::status(200).body("OK"),
        Say::status(200).header("content-type", "application/cloudevents+json").body("{}"),
        half,
    ] {
        let (world, sink, _dir) = after_one(answer).await;
        assert_eq!(world.settled("t", 1).await.done.dead_lettered, 1);
        assert_eq!(sink.got().len(), 1, "our choice: at once");
        let dead = world.dead_letters().await;
        assert_eq!(dead.first().map(|d| d.head.code), Some(502));
        world.close().await;
    }
}

#[tokio::test]
async fn d8_a_reply_whose_ttl_is_used_up_is_not_stored_and_its_event_becomes_a_dead_letter() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(200).event("r1", "again")]).await);
    let world = World::open(dir.path()).await;
    world.apply(&trigger("t", &sink.url, "")).await.expect("applied");
    let mut last = event("1", "question");
    last.set("knativebrokerttl", Value::Integer(3)).expect("valid");
    world.publish(&last).await;
    // 3: reply with 2; 2: reply with 1; 1: no more.
    let ledger = world.settled("t", 3).await;
    assert_eq!((ledger.done.delivered, ledger.done.dead_lettered), (2, 1));
    assert_eq!(world.dead_letters().await.first().map(|d| d.head.code), Some(400));
    world.close().await;
}

#[tokio::test]
async fn an_endless_answer_is_cut_off_and_counts_as_no_event() {
    let (world, _sink, _dir) = after_one(Say::status(200).body(&"x".repeat(1 << 20))).await;
    assert_eq!(world.settled("t", 1).await.done.dead_lettered, 1);
    world.close().await;
}
