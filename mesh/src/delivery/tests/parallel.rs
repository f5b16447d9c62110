//! Several events under way, batches, keys, expiry, and Triggers that fall behind.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::sink::{Say, Sink};
use super::world::{World, annotated, event, eventually, publish, trigger};
use crate::clock::Clock;
use crate::event::{Event, Value};
use crate::storage::SimDisk;

const PARALLEL: &[(&str, &str)] = &[("parallelism", "8"), ("start", "earliest")];

fn numbered(n: usize) -> Event {
    event(&n.to_string(), "a")
}

#[tokio::test]
async fn as_many_events_are_outstanding_as_the_annotation_says_and_no_more() {
    // The first ones are held for as long as even a slow machine needs to send them all.
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let sink = Sink::deciding(move |_| {
        let first = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 8;
        Say::status(202).after(Duration::from_millis(if first { 1500 } else { 20 }))
    })
    .await;
    let dir = tempfile::tempdir().expect("folder");
    let world = World::open(dir.path()).await;
    world.apply(&annotated("t", &sink.url, PARALLEL, "")).await.expect("applied");
    for n in 0..100 {
        world.publish(&numbered(n)).await;
    }
    assert_eq!(world.settled("t", 100).await.done.delivered, 100);
    assert_eq!(sink.most_at_a_time(), 8);
    let mut ids: Vec<usize> = sink.ids().iter().map(|id| id.parse().expect("a number")).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..100).collect::<Vec<_>>(), "each once");
    world.close().await;
}

#[tokio::test]
async fn others_go_on_around_an_event_that_waits_as_far_as_the_window_reaches() {
    let sink = Sink::deciding(|got| Say::status(if got.header("ce-id") == "3" { 503 } else { 202 })).await;
    let dir = tempfile::tempdir().expect("folder");
    let world = World::open(dir.path()).await;
    let slow = "  delivery:\n    retry: 9\n    backoffPolicy: linear\n    backoffDelay: PT10M";
    world.apply(&annotated("t", &sink.url, PARALLEL, slow)).await.expect("applied");
    for n in 0..100 {
        world.publish(&numbered(n)).await;
    }
    // The one that waits is the first of 32.
    eventually("what the window holds is delivered", || {
        let got = sink.ids();
        if got.len() == 3 + 32 { Ok(()) } else { Err(got.len().to_string()) }
    })
    .await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    let ledger = world.settled("t", 3).await;
    assert_eq!(
        (ledger.cursor.0, ledger.done.delivered, ledger.pending),
        (3, 3, 97),
        "the ledger counts what the cursor has passed"
    );
    assert_eq!(sink.ids().len(), 35);
    assert_eq!(world.status("t")["retry"]["offset"], 3);
    world.close().await;

    // What was finished beyond the cursor is not done again after a restart.
    let world = World::open(dir.path()).await;
    let fine = Sink::start(&[Say::status(202)]).await;
    world.apply(&annotated("t", &fine.url, PARALLEL, "")).await.expect("applied");
    assert_eq!(world.settled("t", 100).await.done.delivered, 100);
    let got = fine.ids();
    assert_eq!((got.len(), got.iter().filter(|id| *id == "3").count()), (100 - 34, 1));
    world.close().await;
}

#[tokio::test]
async fn events_with_one_partitionkey_are_never_outstanding_together() {
    let under_way: Arc<Mutex<HashMap<String, Vec<usize>>>> = Arc::default();
    let seen = under_way.clone();
    let sink = Sink::deciding(move |got| {
        let n: usize = got.header("ce-id").parse().expect("a number");
        seen.lock().expect("fine").entry(got.header("ce-partitionkey").to_owned()).or_default().push(n);
        Say::status(202).after(Duration::from_millis(1 + (n as u64 * 7) % 11))
    })
    .await;
    let dir = tempfile::tempdir().expect("folder");
    let world = World::open(dir.path()).await;
    world.apply(&annotated("t", &sink.url, PARALLEL, "")).await.expect("applied");
    for n in 0..120 {
        let mut event = numbered(n);
        if n % 4 != 3 {
            event.set("partitionkey", Value::String(format!("k{}", n % 4))).expect("valid");
        }
        world.publish(&event).await;
    }
    assert_eq!(world.settled("t", 120).await.done.delivered, 120);
    let seen = std::mem::take(&mut *under_way.lock().expect("fine"));
    for key in ["k0", "k1", "k2"] {
        assert!(seen[key].is_sorted(), "{key}: {:?}", seen[key]);
        assert_eq!(seen[key].len(), 30);
    }
    assert!(sink.most_at_a_time() > 3, "those without a key are free");
    world.close().await;
}

/// What a subscriber was sent: the event and how much had happened on the disk by then.
type Story = Arc<Mutex<Vec<(usize, usize)>>>;

async fn scrambling(disk: &SimDisk, story: &Story) -> Sink {
    let (disk, story) = (disk.clone(), story.clone());
    let failed: Mutex<BTreeMap<usize, u32>> = Mutex::default();
    Sink::deciding(move |got| {
        let n: usize = got.header("ce-id").parse().expect("a number");
        story.lock().expect("fine").push((n, disk.effects()));
        let first = {
            let mut failed = failed.lock().expect("fine");
            let count = failed.entry(n).or_default();
            *count += 1;
            *count == 1
        };
        let status = match n % 10 {
            7 => 400,
            4 if first => 503,
            _ => 202,
        };
        Say::status(status).after(Duration::from_millis((n as u64 * 13) % 29))
    })
    .await
}

const EVENTS: usize = 60;
const RETRIES: &str = "  delivery:\n    retry: 5\n    backoffPolicy: linear\n    backoffDelay: PT0.12S";

#[tokio::test]
async fn d16_a_crash_at_any_moment_loses_nothing_and_doubles_no_dead_letter() {
    let (disk, story) = (SimDisk::new(), Story::default());
    let sink = scrambling(&disk, &story).await;
    let world = World::on(Arc::new(disk.clone()), Clock::system()).await;
    world.apply(&annotated("t", &sink.url, PARALLEL, RETRIES)).await.expect("applied");
    for n in 0..EVENTS {
        world.publish(&numbered(n)).await;
    }
    let ledger = world.settled("t", EVENTS as u64).await;
    assert_eq!((ledger.done.delivered, ledger.done.dead_lettered), (54, 6));
    let all = disk.effects();
    world.close().await;
    let story = story.lock().expect("fine").clone();

    let mut repeats = 0;
    for point in (0..30).map(|i| all - 1 - i * all * 9 / 300) {
        for cut in [disk.at(point).power_cut_losing_all(), disk.at(point).power_cut(point as u64)] {
            let again = Story::default();
            let sink = scrambling(&cut, &again).await;
            let world = World::on(Arc::new(cut.clone()), Clock::system()).await;
            let before = world.ledger("t").map_or(0, |ledger| ledger.cursor.0);
            world.apply(&annotated("t", &sink.url, PARALLEL, RETRIES)).await.expect("applied");
            let events = world.broker("default").journal().next_offset().0;
            if events > 0 {
                let ledger = world.settled("t", events).await;
                assert_eq!(ledger.done.total(), events, "{point}");
                let refused = (0..events).filter(|n| n % 10 == 7).count() as u64;
                assert_eq!(ledger.done.dead_lettered, refused, "{point}: {ledger:?}");
            }
            let mut dead: Vec<u64> = world.dead_letters().await.iter().map(|letter| letter.head.offset).collect();
            dead.sort_unstable();
            let expected: Vec<u64> = (0..events).filter(|n| n % 10 == 7).collect();
            assert_eq!(dead, expected, "{point}: each refused event is a dead letter once");
            let again = again.lock().expect("fine").clone();
            for n in (0..usize::try_from(events).expect("few")).filter(|n| n % 10 != 7) {
                let earlier = story.iter().any(|(other, when)| *other == n && *when <= point);
                let later = again.iter().filter(|(other, _)| *other == n).count();
                assert!(earlier || later > 0, "{point}: event {n} is lost; the cursor stood at {before}");
                assert!(later <= 2, "{point}: event {n} came {later} times after the crash");
                repeats += usize::from(earlier && later > 0 && n % 10 != 4);
            }
            world.close().await;
        }
    }
    assert!(repeats > 0, "no crash came between a delivery and its note");
}

#[tokio::test]
async fn an_operator_moves_a_parallel_trigger_back_and_everything_comes_again() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
    let world = World::open(dir.path()).await;
    world.apply(&annotated("t", &sink.url, PARALLEL, "")).await.expect("applied");
    for n in 0..20 {
        world.publish(&numbered(n)).await;
    }
    let name = world.settled("t", 20).await.name;
    let journal = world.broker("default").journal().clone();
    journal.consumer(&name, crate::journal::Start::Next, false).seek(crate::journal::Offset(5));
    eventually("they come again", || if sink.ids().len() == 35 { Ok(()) } else { Err(sink.ids().len().to_string()) }).await;
    // The ledger is of what is durable.
    eventually("the ledger begins anew", || match world.ledger("t") {
        Some(ledger) if (ledger.since.0, ledger.done.delivered) == (5, 15) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    world.close().await;
}

#[tokio::test]
async fn a_batch_takes_what_is_there_and_one_bad_event_does_not_take_the_rest() {
    let dir = tempfile::tempdir().expect("folder");
    let sink = Sink::deciding(|got| {
        let text = String::from_utf8_lossy(&got.body);
        let bad = got.header("ce-id") == "13" || text.contains("\"id\":\"13\"");
        Say::status(if bad { 422 } else { 200 }).body("never a reply").after(Duration::from_millis(5))
    })
    .await;
    let world = World::open(dir.path()).await;
    for n in 0..50 {
        world.publish(&numbered(n)).await;
    }
    // Alone each answer must be a reply or empty, in a batch it is for all.
    let batch = [("batch", "10"), ("start", "earliest")];
    world.apply(&annotated("t", &sink.url, &batch, "")).await.expect("applied");
    let ledger = world.settled("t", 50).await;
    let got = sink.got();
    let batches = got.iter().filter(|got| got.header("content-type").starts_with("application/cloudevents-batch+json"));
    assert_eq!(batches.count(), 5);
    let alone: Vec<&str> = got.iter().map(|got| got.header("ce-id")).filter(|id| !id.is_empty()).collect();
    assert_eq!(alone, (10..20).map(|n| n.to_string()).collect::<Vec<_>>(), "those of the batch that was refused");
    let first: serde_json::Value = serde_json::from_slice(&got[0].body).expect("JSON");
    assert_eq!(first.as_array().map(Vec::len), Some(10));
    assert_eq!(got[0].header("prefer"), "", "no reply is asked for");
    // Nine that answer 200 with a body that is no event, and the one that is refused (d21).
    assert_eq!((ledger.done.delivered, ledger.done.dead_lettered), (40, 10));
    world.close().await;
}

#[tokio::test]
async fn a_batch_that_fails_is_tried_again_as_it_was_and_then_each_is_a_dead_letter() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(500)]).await);
    let grave = Sink::start(&[Say::status(202)]).await;
    let world = World::open(dir.path()).await;
    for n in 0..5 {
        world.publish(&numbered(n)).await;
    }
    let delivery = format!("  delivery:\n    retry: 2\n    deadLetterSink:\n      uri: {}", grave.url);
    world.apply(&annotated("t", &sink.url, &[("batch", "10"), ("start", "earliest")], &delivery)).await.expect("applied");
    assert_eq!(world.settled("t", 5).await.done.dead_lettered, 5);
    let bodies: Vec<_> = sink.got().into_iter().map(|got| got.body).collect();
    assert_eq!(bodies.len(), 3);
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(grave.ids(), ["0", "1", "2", "3", "4"], "in order, each by itself");
    world.close().await;
}

#[tokio::test]
async fn an_event_past_its_expirytime_is_dropped_and_counted_where_the_clock_is_valid() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
    let disk = || Arc::new(crate::storage::Disk::new(dir.path()).expect("a folder"));
    let clock = Clock::manual(0);
    let world = World::on(disk(), clock.clone()).await;
    world.apply(&trigger("t", &sink.url, "")).await.expect("applied");
    let with = |id: &str, expiry: &str| {
        let mut event = event(id, "a");
        event.set("expirytime", Value::Timestamp(expiry.to_owned())).expect("valid");
        event
    };
    world.publish(&with("0", "2026-02-01T00:00:00Z")).await;
    assert_eq!(world.settled("t", 1).await.done.delivered, 1, "no valid clock, nothing has expired");
    clock.set_wall(1_785_542_400_000); // 2026-08-01T00:00:00Z
    for (id, expiry) in
        [("1", "2026-08-01T02:00:00+02:00"), ("2", "2026-08-01T00:00:00.001Z"), ("3", "2026-07-31T23:59:59Z")]
    {
        world.publish(&with(id, expiry)).await;
    }
    let ledger = world.settled("t", 4).await;
    assert_eq!(sink.ids(), ["0", "2"], "at the instant or after it");
    assert_eq!(ledger.done.dropped, [(crate::journal::DropReason::Expired, 2)].into());
    world.close().await;
}

#[tokio::test]
async fn a_silent_subscriber_is_asked_one_event_at_a_time() {
    let dir = tempfile::tempdir().expect("folder");
    let world = World::open(dir.path()).await;
    let delivery = "  delivery:\n    retry: 1000000\n    backoffPolicy: linear\n    backoffDelay: PT10M";
    world.apply(&annotated("t", "http://127.0.0.1:1/in", PARALLEL, delivery)).await.expect("applied");
    for n in 0..100 {
        world.publish(&numbered(n)).await;
    }
    let status = eventually("the circuit opens", || {
        let status = world.status("t");
        if status["circuit"] == "open" { Ok(status) } else { Err(status.to_string()) }
    })
    .await;
    // Those that were under way when the fifth had no answer, and no more: four had made room for others by then.
    assert!(status["unanswered"].as_u64().is_some_and(|n| (5..=12).contains(&n)), "{status}");
    assert!(status["retry"]["next_in_ms"].as_u64().is_some_and(|ms| ms > 500_000), "{status}");
    assert_eq!(status["oldest"]["offset"], 0);
    world.close().await;
}

#[tokio::test]
async fn a_trigger_that_falls_behind_leaves_the_feed_delays_nobody_and_misses_nothing() {
    let dir = tempfile::tempdir().expect("folder");
    let open = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let gate = open.clone();
    let slow =
        Sink::deciding(move |_| Say::status(if gate.load(std::sync::atomic::Ordering::Relaxed) { 202 } else { 503 })).await;
    let quick = Sink::start(&[Say::status(202)]).await;
    let world = World::open(dir.path()).await;
    let often = "  delivery:\n    retry: 1000000\n    backoffPolicy: linear\n    backoffDelay: PT1S\n";
    let capped = [("backoff-max", "PT0.2S")];
    world
        .apply(&[annotated("slow", &slow.url, &capped, often), trigger("quick", &quick.url, "")].concat())
        .await
        .expect("applied");
    let journal = world.broker("default").journal().clone();
    // More than a queue of the feed holds and may be caught up with there, and than the pages hold.
    for first in (0..1900).step_by(100) {
        let some = (first..first + 100).map(async |n| {
            let mut event = numbered(n);
            event.set_data(Some(vec![b'x'; 1000].into()));
            publish(&journal, &event, &[]).await;
        });
        futures_util::future::join_all(some).await;
    }
    assert_eq!(world.settled("quick", 1900).await.done.delivered, 1900);
    assert_eq!(world.ledger("slow").expect("registered").done.total(), 0);
    open.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(world.settled("slow", 1900).await.done.delivered, 1900);
    let got: Vec<String> = slow.ids();
    let mut once = got.clone();
    once.dedup();
    assert_eq!(once, (0..1900).map(|n| n.to_string()).collect::<Vec<_>>(), "in order");
    // It is back at the feed.
    world.publish(&event("last", "a")).await;
    assert_eq!(world.settled("slow", 1901).await.done.delivered, 1901);
    world.close().await;
}

#[tokio::test]
async fn what_nobody_wants_is_accounted_for_in_time_and_at_a_stop() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
    let world = World::open(dir.path()).await;
    let wants = |ty: &str| format!("  filter:\n    attributes:\n      type: {ty}");
    let set: Vec<String> =
        (0..40).map(|n| trigger(&format!("t{n}"), "http://127.0.0.1:1/in", &wants(&format!("none{n}")))).collect();
    world.apply(&(set.concat() + &trigger("all", &sink.url, ""))).await.expect("applied");
    for n in 0..30 {
        world.publish(&numbered(n)).await;
    }
    assert_eq!(world.settled("t7", 30).await.done.filtered, 30, "without an event of its own");
    world.publish(&numbered(30)).await;
    world.settled("all", 31).await;
    world.close().await;
    let world = World::open(dir.path()).await;
    for n in 0..40 {
        let ledger = world.ledger(&format!("t{n}")).expect("registered");
        assert_eq!(
            (ledger.done.filtered, ledger.pending),
            (31, 0),
            "t{n}: an orderly stop leaves nothing to look at again"
        );
    }
    world.close().await;
}

#[tokio::test]
async fn expired_events_do_not_hold_up_what_comes_behind_them() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
    let world = World::open(dir.path()).await;
    let mut past = event("past", "a");
    past.set("expirytime", Value::Timestamp("2001-01-01T00:00:00Z".to_owned())).expect("valid");
    for _ in 0..100 {
        world.publish(&past).await;
    }
    world.publish(&event("live", "a")).await;
    world.apply(&annotated("t", &sink.url, &[("start", "earliest")], "")).await.expect("applied");
    let begun = std::time::Instant::now();
    let ledger = world.settled("t", 101).await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!((ledger.done.delivered, ledger.done.dropped.values().sum::<u64>()), (1, 100));
    world.close().await;
}
