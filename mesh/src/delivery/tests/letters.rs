//! Dead letters in people's hands: what a replay sends, what it does when it is cut short, and what is counted.

use std::collections::BTreeSet;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::sink::{Say, Sink};
use super::world::{World, event, eventually, trigger};
use crate::broker::Account;
use crate::delivery::letters::{Letters, Selection, Summary, To, Told};
use crate::event::{Event, Value};
use crate::journal::DropReason;

const ONE_TRY: &str = "  delivery:\n    retry: 0";

/// A world with a Trigger `t` whose sink refuses, and one dead letter for each id.
async fn refused(dir: &std::path::Path, ids: &[&str]) -> (World, Sink) {
    let sink = Sink::start(&[Say::status(400).body("no")]).await;
    let world = World::open(dir).await;
    world.apply(&trigger("t", &sink.url, ONE_TRY)).await.expect("applied");
    for id in ids {
        world.publish(&event(id, if id.len() > 1 { "long" } else { "short" })).await;
    }
    world.settled("t", ids.len() as u64).await;
    (world, sink)
}

async fn letters(world: &World) -> Letters {
    Letters::of(&world.broker("default")).await.expect("opened").expect("there are some")
}

async fn waiting(world: &World, selection: Selection) -> Vec<u64> {
    let mut walk = letters(world).await.walk(selection, crate::journal::Offset(0), world.brokers.agent());
    let mut offsets = Vec::new();
    while let Some(found) = walk.letters().await.expect("readable") {
        offsets.extend(found.into_iter().map(|placed| placed.offset.0));
    }
    offsets
}

async fn replay(world: &World, selection: Selection, to: To) -> (Vec<Told>, Summary) {
    let work = letters(world).await.work().expect("nobody else");
    let (tell, mut told) = mpsc::channel(1);
    let run = work.replay(&world.triggers, selection, to, tell, CancellationToken::new());
    let hear = async {
        let mut heard = Vec::new();
        while let Some(told) = told.recv().await {
            heard.push(told);
        }
        heard
    };
    let ((), mut heard) = tokio::join!(run, hear);
    match heard.pop() {
        Some(Told::End(sum)) => (heard, sum),
        other => panic!("the last word is missing: {other:?}"),
    }
}

fn named(offsets: &[u64]) -> Selection {
    Selection { offsets: offsets.iter().copied().collect(), ..Selection::default() }
}

fn account(world: &World) -> Account {
    world.broker("default").dead_letter_account().expect("open")
}

fn done(world: &World) -> (u64, u64, u64) {
    let account = account(world);
    (account.done.delivered, account.done.dropped.get(&DropReason::ByHand).copied().unwrap_or(0), account.pending)
}

#[tokio::test]
async fn a_replay_sends_the_event_as_it_was_to_the_one_subscriber_and_counts_it() {
    let dir = tempfile::tempdir().expect("folder");
    let (world, sink) = refused(dir.path(), &["1", "2"]).await;
    assert_eq!(done(&world), (0, 0, 2));
    sink.say(&[Say::status(202)]);
    let (told, sum) = replay(&world, Selection::default(), To::Subscriber).await;
    assert_eq!((sum.replayed, sum.failed, sum.stopped), (2, 0, None));
    assert_eq!(told.len(), 2);
    assert_eq!(sink.ids(), ["1", "2", "1", "2"]);
    let got = sink.got();
    let (first, again) = (got.first().expect("sent"), got.get(2).expect("sent again"));
    assert_eq!((first.header("ce-source"), &first.body), (again.header("ce-source"), &again.body));
    assert_eq!(again.header("ce-knativeerrorcode"), "", "as it was, not as a dead letter sink gets it");
    assert_eq!(done(&world), (2, 0, 0));
    assert_eq!(world.settled("t", 2).await.done.dead_lettered, 2, "what the Trigger did stays true");
    let (told, sum) = replay(&world, Selection::default(), To::Subscriber).await;
    assert_eq!((told, sum), (Vec::new(), Summary::default()), "nothing is sent twice");
    world.close().await;
}

#[tokio::test]
async fn d19_a_reply_to_a_replayed_letter_is_stored_like_any_other() {
    let dir = tempfile::tempdir().expect("folder");
    let (world, sink) = refused(dir.path(), &["1"]).await;
    sink.say(&[Say::status(200).event("r", "reply"), Say::status(202)]);
    replay(&world, Selection::default(), To::Subscriber).await;
    let ids: Vec<String> = world.events("default").await.iter().map(|e| e.id().to_owned()).collect();
    assert_eq!(ids, ["1", "r"]);
    world.close().await;
}

#[tokio::test]
async fn what_is_meant_is_chosen_by_offset_trigger_time_and_filter() {
    let dir = tempfile::tempdir().expect("folder");
    let (world, _sink) = refused(dir.path(), &["1", "22", "3"]).await;
    let filter = |exact: &[(&str, &str)], cesql| {
        let exact: Vec<_> = exact.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Selection { filter: Selection::filter(&exact, cesql).expect("valid"), ..Selection::default() }
    };
    assert_eq!(waiting(&world, Selection::default()).await, [0, 1, 2]);
    assert_eq!(waiting(&world, named(&[2, 0])).await, [0, 2]);
    assert_eq!(waiting(&world, filter(&[("type", "short")], None)).await, [0, 2]);
    assert_eq!(waiting(&world, filter(&[("type", "short")], Some("INT(id) > 1"))).await, [2], "all must hold");
    assert_eq!(waiting(&world, filter(&[], Some("LENGTH(id) = 2"))).await, [1]);
    let of = |trigger: &str| Selection { trigger: Some(trigger.to_owned()), ..Selection::default() };
    assert_eq!(waiting(&world, of("default/t")).await.len(), 3);
    assert_eq!(waiting(&world, of("uplink")).await.len(), 0);
    let now = crate::clock::Clock::system().wall_ms().expect("a clock");
    let since = |ms| Selection { since_ms: Some(ms), ..Selection::default() };
    assert_eq!(waiting(&world, since(now - 60_000)).await.len(), 3);
    assert_eq!(waiting(&world, since(now + 60_000)).await.len(), 0);
    assert_eq!(waiting(&world, Selection { until_ms: Some(now - 60_000), ..Selection::default() }).await.len(), 0);
    world.close().await;
}

#[tokio::test]
async fn what_is_dropped_in_the_middle_stays_so_over_a_restart_and_its_place_goes_with_what_is_before_it() {
    let dir = tempfile::tempdir().expect("folder");
    let (world, sink) = refused(dir.path(), &["1", "2", "3", "4"]).await;
    let work = letters(&world).await.work().expect("nobody else");
    assert_eq!(work.drop_letters(named(&[1, 2]), None).await, Ok(2));
    assert_eq!(waiting(&world, Selection::default()).await, [0, 3]);
    assert_eq!(done(&world), (0, 2, 2));
    world.close().await;

    let world = World::open(dir.path()).await;
    world.apply(&trigger("t", &sink.url, ONE_TRY)).await.expect("applied");
    assert_eq!(waiting(&world, Selection::default()).await, [0, 3]);
    assert_eq!(done(&world), (0, 2, 2));
    sink.say(&[Say::status(202)]);
    let (_, sum) = replay(&world, named(&[0]), To::Subscriber).await;
    assert_eq!(sum.replayed, 1);
    let broker = world.broker("default");
    let journal = broker.existing_dead_letters().await.expect("opened").expect("there");
    let keeper = journal.consumers().into_iter().next().expect("one");
    assert_eq!((keeper.cursor.0, keeper.done.delivered), (3, 1), "the cursor is past what was settled before it");
    assert_eq!(done(&world), (1, 2, 1));
    world.close().await;
}

#[tokio::test]
async fn a_subscriber_that_is_away_ends_the_replay_and_one_that_refuses_a_letter_keeps_only_that() {
    let dir = tempfile::tempdir().expect("folder");
    let (world, sink) = refused(dir.path(), &["1", "2", "3"]).await;
    sink.say(&[Say::status(202), Say::status(422), Say::status(503)]);
    let (told, sum) = replay(&world, Selection::default(), To::Subscriber).await;
    assert_eq!((sum.replayed, sum.failed), (1, 2));
    assert!(sum.stopped.is_some_and(|why| why.contains("is away")), "{told:?}");
    assert_eq!(waiting(&world, Selection::default()).await, [1, 2]);
    sink.say(&[Say::status(202)]);
    let (told, sum) = replay(&world, Selection::default(), To::Subscriber).await;
    assert_eq!((sum.replayed, sum.failed, sum.stopped), (2, 0, None));
    assert!(told.iter().all(|told| matches!(told, Told::Replayed { again: false, .. })), "both had answered: {told:?}");
    world.close().await;
}

#[tokio::test]
async fn a_letter_in_flight_when_the_process_ends_is_sent_again_and_it_is_said_so() {
    let dir = tempfile::tempdir().expect("folder");
    let (world, sink) = refused(dir.path(), &["1", "2"]).await;
    sink.say(&[Say::nothing()]);
    {
        let work = letters(&world).await.work().expect("nobody else");
        let (tell, _told) = mpsc::channel(1);
        let run = work.replay(&world.triggers, Selection::default(), To::Subscriber, tell, CancellationToken::new());
        // Given up as by a crash: what the subscriber does with it nobody hears.
        let sent = eventually("the letter is sent", || if sink.got().len() == 3 { Ok(()) } else { Err(String::new()) });
        tokio::select! {
            () = run => panic!("the sink does not answer"),
            () = sent => {}
        }
    }
    world.close().await;

    let world = World::open(dir.path()).await;
    world.apply(&trigger("t", &sink.url, ONE_TRY)).await.expect("applied");
    sink.say(&[Say::status(202)]);
    let (told, sum) = replay(&world, Selection::default(), To::Subscriber).await;
    assert_eq!(sum.replayed, 2);
    let again: Vec<bool> = told.iter().map(|told| matches!(told, Told::Replayed { again: true, .. })).collect();
    assert_eq!(again, [true, false]);
    assert!(letters(&world).await.doubts().is_empty(), "no doubt is left");
    world.close().await;
}

#[tokio::test]
async fn a_replay_into_the_broker_keeps_id_and_source_and_is_done_once_even_when_it_was_cut_short() {
    let dir = tempfile::tempdir().expect("folder");
    let (world, _sink) = refused(dir.path(), &["1", "2"]).await;
    let other = Sink::start(&[Say::status(202)]).await;
    let sets = [trigger("t", &other.url, ONE_TRY), trigger("u", &other.url, "")].concat();
    world.apply(&sets).await.expect("applied");
    let (told, sum) = replay(&world, named(&[1]), To::Broker).await;
    assert_eq!((told.len(), sum.replayed), (1, 1));
    let events: Vec<Event> = world.events("default").await;
    let last = events.last().expect("appended");
    assert_eq!((events.len(), last.id(), last.source()), (3, "2", "/test"));
    assert_eq!(last.get("knativebrokerttl"), Some(&Value::Integer(254)).filter(|_| last.get("knativebrokerttl").is_some()));
    eventually("both Triggers get it", || {
        let ids = other.ids();
        if ids == ["2", "2"] { Ok(()) } else { Err(format!("{ids:?}")) }
    })
    .await;

    // The Broker has the other letter, the dead-letter journal does not know: as a crash between the two appends leaves it.
    let broker = world.broker("default");
    let dead_letters = broker.existing_dead_letters().await.expect("opened").expect("there");
    let epoch = dead_letters.lineage().epoch_at(crate::journal::Offset(0)).expect("known");
    let name = (u128::from(epoch.0) << 64).to_le_bytes();
    let put = broker.journal().append(|append| append.put(b"replayed", &name)).expect("taken");
    put.await.expect("durable");
    let (told, sum) = replay(&world, Selection::default(), To::Broker).await;
    assert_eq!((told.len(), sum.replayed, sum.failed), (1, 1, 0));
    assert_eq!(world.events("default").await.len(), 3, "it is not put there twice");
    assert_eq!(done(&world), (2, 0, 0));
    world.close().await;
}

#[tokio::test]
async fn a_letter_whose_trigger_is_gone_waits_and_can_go_into_the_broker() {
    let dir = tempfile::tempdir().expect("folder");
    let (world, _sink) = refused(dir.path(), &["1"]).await;
    world.apply("").await.expect("applied");
    let (told, sum) = replay(&world, Selection::default(), To::Subscriber).await;
    assert_eq!((sum.replayed, sum.failed), (0, 1));
    assert!(
        matches!(told.first(), Some(Told::Failed { message, .. }) if message.contains("no Trigger default/t")),
        "{told:?}"
    );
    let (_, sum) = replay(&world, Selection::default(), To::Broker).await;
    assert_eq!(sum.replayed, 1);
    world.close().await;
}

#[tokio::test]
async fn one_at_a_time_settles_letters() {
    let dir = tempfile::tempdir().expect("folder");
    let (world, _sink) = refused(dir.path(), &["1"]).await;
    let work = letters(&world).await.work().expect("nobody else");
    assert!(letters(&world).await.work().is_none());
    drop(work);
    assert!(letters(&world).await.work().is_some());
    world.close().await;
}

#[tokio::test]
async fn the_space_of_settled_letters_is_free_again_and_thousands_settled_here_and_there_are_counted_right() {
    let dir = tempfile::tempdir().expect("folder");
    let world = World::open(dir.path()).await;
    let broker = world.broker("default");
    let journal = broker.dead_letters().await.expect("opened");
    let body = {
        let mut out = Vec::new();
        crate::event::encode_event(&mut out, &event("1", "a"), None, std::iter::empty());
        out
    };
    let head = crate::delivery::DeadLetterHead {
        trigger: "default/t".to_owned(),
        uid: String::new(),
        epoch: "0000000000000001".to_owned(),
        offset: 0,
        destination: "http://sink/".to_owned(),
        code: 400,
        message: "x".repeat(300),
        data: String::new(),
        at_ms: None,
    };
    const MANY: u64 = 2000;
    let put_fifty = || {
        crate::delivery::append(journal, |append| {
            for _ in 0..50 {
                append.event(|out| crate::delivery::DeadLetter::encode(out, &head, &body));
            }
        })
    };
    for _ in 0..MANY / 50 {
        put_fifty().await.expect("durable");
    }
    let odd: Vec<u64> = (0..MANY).filter(|n| n % 2 == 1).collect();
    for some in odd.chunks(200) {
        let work = letters(&world).await.work().expect("nobody else");
        assert_eq!(work.drop_letters(named(some), None).await, Ok(some.len() as u64));
    }
    assert_eq!(done(&world), (0, MANY / 2, MANY / 2));
    let even: BTreeSet<u64> = waiting(&world, Selection::default()).await.into_iter().collect();
    assert_eq!(even, (0..MANY).filter(|n| n % 2 == 0).collect());
    let work = letters(&world).await.work().expect("nobody else");
    assert_eq!(work.drop_letters(Selection::default(), None).await, Ok(MANY / 2));
    assert_eq!(done(&world), (0, MANY, 0));
    assert!(journal.facts(b"s").len() <= 1, "of what is past only the block is remembered that the next letter lies in");
    for _ in 0..MANY / 50 {
        put_fifty().await.expect("there is room for as many again");
    }
    assert_eq!(done(&world), (0, MANY, MANY));
    world.close().await;
}
