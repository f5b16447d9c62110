//! Stops, starts and crashes.

use std::time::{Duration, Instant};

use super::sink::{Say, Sink};
use super::world::{World, event, eventually, trigger};
use crate::delivery::dead_letter::{DeadLetter, DeadLetterHead, Mark};
use crate::delivery::outcome::{Cause, Failure};
use crate::journal::{Done, Offset};

#[tokio::test]
async fn a_trigger_goes_on_after_a_restart_where_it_was() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
    let yaml = trigger("t", &sink.url, "");
    let world = World::open(dir.path()).await;
    world.apply(&yaml).await.expect("applied");
    world.publish(&event("1", "a")).await;
    world.settled("t", 1).await;
    let uid = world.status("t")["uid"].clone();
    world.triggers.close().await;
    world.publish(&event("2", "a")).await;
    world.brokers.close().await;

    let world = World::open(dir.path()).await;
    world.apply(&yaml).await.expect("applied");
    assert_eq!(world.settled("t", 2).await.done.delivered, 2);
    assert_eq!(sink.ids(), ["1", "2"], "nothing twice after an orderly stop");
    assert_eq!(world.status("t")["uid"], uid);
    world.close().await;
}

#[tokio::test]
async fn stopping_waits_five_seconds_at_most_and_what_was_not_answered_is_sent_again() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::nothing(), Say::status(202)]).await);
    let yaml = trigger("t", &sink.url, "");
    let world = World::open(dir.path()).await;
    world.apply(&yaml).await.expect("applied");
    world.publish(&event("1", "a")).await;
    eventually("it is being sent", || if sink.got().len() == 1 { Ok(()) } else { Err(String::new()) }).await;
    let begin = Instant::now();
    world.close().await;
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());

    let world = World::open(dir.path()).await;
    world.apply(&yaml).await.expect("applied");
    assert_eq!(world.settled("t", 1).await.done.delivered, 1);
    assert_eq!(sink.ids(), ["1", "1"]);
    world.close().await;
}

#[tokio::test]
async fn d24_a_crash_between_the_dead_letter_and_the_cursor_does_not_double_it() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
    let yaml = trigger("t", &sink.url, "");
    let world = World::open(dir.path()).await;
    world.apply(&yaml).await.expect("applied");
    let uid = world.status("t")["uid"].as_str().expect("a uid").to_owned();
    world.triggers.close().await;
    for id in ["1", "2", "3"] {
        world.publish(&event(id, "a")).await;
    }
    // What a crash leaves: the second event is a dead letter, durably, and the cursor still stands before the first.
    let broker = world.broker("default");
    let done = Done { delivered: 1, dead_lettered: 1, ..Done::default() };
    let mark = Mark::new(broker.journal().epoch(), Offset(1), Offset(0), &done);
    let failure = Failure::new(Cause::Status(400), &sink.url, "no".to_owned(), Vec::new());
    let append = broker.dead_letters().await.expect("opened").append(|append| {
        append.event(|out| DeadLetter::encode(out, &DeadLetterHead::new(&failure), b"the event"));
        append.put(&Mark::key(&uid), &mark.encode());
    });
    append.expect("taken").await.expect("durable");
    world.brokers.close().await;

    let world = World::open(dir.path()).await;
    world.apply(&yaml).await.expect("applied");
    let ledger = world.settled("t", 3).await;
    assert_eq!((ledger.done.delivered, ledger.done.dead_lettered), (2, 1));
    assert_eq!(sink.ids(), ["3"]);
    assert_eq!(world.dead_letters().await.len(), 1);
    world.close().await;
}

#[tokio::test]
async fn the_mark_that_is_written_is_the_one_that_a_restart_understands() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202), Say::status(400)]).await);
    let world = World::open(dir.path()).await;
    world.apply(&trigger("t", &sink.url, "  filter:\n    attributes:\n      type: a")).await.expect("applied");
    for (id, ty) in [("1", "a"), ("2", "b"), ("3", "a")] {
        world.publish(&event(id, ty)).await;
    }
    world.settled("t", 3).await;
    let uid = world.status("t")["uid"].as_str().expect("a uid").to_owned();
    let broker = world.broker("default");
    let fact = broker.dead_letters().await.expect("opened").fact(&Mark::key(&uid)).expect("a mark");
    let mark = Mark::decode(&fact).expect("a mark");
    let next =
        mark.catch_up(Some(broker.journal().epoch()), Offset(0), Offset(1), &Done { delivered: 1, ..Done::default() });
    let missing = Done { filtered: 1, dead_lettered: 1, ..Done::default() };
    assert_eq!(next, Some((Offset(3), missing)));
    world.close().await;
}
