//! Sets: applied as a whole, owned by who brought them.

use super::sink::{Say, Sink};
use super::world::{World, event, eventually, set, trigger};
use crate::delivery::{ApplyError, Owner};

#[tokio::test]
async fn a_changed_filter_keeps_the_cursor_and_a_trigger_made_anew_is_a_new_one() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
    let world = World::open(dir.path()).await;
    world.apply(&trigger("t", &sink.url, "")).await.expect("applied");
    world.publish(&event("1", "a")).await;
    world.settled("t", 1).await;
    let uid = world.status("t")["uid"].clone();

    world.apply(&trigger("t", &sink.url, "  filter:\n    attributes:\n      type: b")).await.expect("applied");
    world.publish(&event("2", "a")).await;
    let ledger = world.settled("t", 2).await;
    assert_eq!((ledger.done.delivered, ledger.done.filtered), (1, 1));
    assert_eq!(world.status("t")["uid"], uid);

    world.apply("").await.expect("an empty set");
    assert!(world.status("t").is_null());
    eventually("its cursor is gone", || if world.ledger("t").is_none() { Ok(()) } else { Err(String::new()) }).await;

    world.apply(&trigger("t", &sink.url, "")).await.expect("applied");
    world.publish(&event("3", "a")).await;
    let ledger = world.settled("t", 1).await;
    assert_ne!(world.status("t")["uid"], uid);
    assert_eq!((ledger.since.0, ledger.done.delivered), (2, 1), "it begins at the next event");
    assert_eq!(sink.ids(), ["1", "3"]);
    world.close().await;
}

#[tokio::test]
async fn a_trigger_with_start_earliest_gets_all_that_is_kept() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
    let world = World::open(dir.path()).await;
    world.publish(&event("1", "a")).await;
    let yaml =
        trigger("t", &sink.url, "").replace("  name: t\n", "  name: t\n  annotations:\n    godwit.dev/start: earliest\n");
    world.apply(&yaml).await.expect("applied");
    assert_eq!(world.settled("t", 1).await.done.delivered, 1);
    world.close().await;
}

#[tokio::test]
async fn a_trigger_that_went_while_the_process_was_away_is_forgotten() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
    let world = World::open(dir.path()).await;
    world.apply(&trigger("t", &sink.url, "")).await.expect("applied");
    world.close().await;
    let world = World::open(dir.path()).await;
    assert!(world.ledger("t").is_some());
    world.apply("").await.expect("applied");
    eventually("its cursor is gone", || if world.ledger("t").is_none() { Ok(()) } else { Err(String::new()) }).await;
    world.close().await;
}

#[tokio::test]
async fn d27_a_trigger_cannot_change_its_broker_and_the_old_set_goes_on() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
    let world = World::open(dir.path()).await;
    world.apply(&trigger("t", &sink.url, "")).await.expect("applied");
    let moved = trigger("t", &sink.url, "").replace("broker: default", "broker: other") + &trigger("new", &sink.url, "");
    let error = world.apply(&moved).await.expect_err("refused");
    assert!(matches!(error, ApplyError::BrokerChanged { .. }), "{error}");
    assert!(world.status("new").is_null(), "all or nothing");
    world.publish(&event("1", "a")).await;
    world.settled("t", 1).await;
    world.close().await;

    let world = World::open(dir.path()).await;
    assert!(matches!(world.apply(&moved).await, Err(ApplyError::BrokerChanged { .. })), "nor while it is away");
    world.close().await;
}

#[tokio::test]
async fn owners_do_not_touch_each_others_objects() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
    let world = World::open(dir.path()).await;
    world.apply(&trigger("mine", &sink.url, "")).await.expect("applied");
    world.triggers.apply(Owner::Gateway, set(&trigger("yours", &sink.url, "")), 7).await.expect("applied");
    let error = world.triggers.apply(Owner::Gateway, set(&trigger("mine", &sink.url, "")), 8).await.expect_err("held");
    assert!(error.to_string().contains("held by files"), "{error}");
    assert_eq!(world.triggers.applied(Owner::Gateway).map(|(revision, set)| (revision, set.len())), Some((7, 1)));
    world.triggers.apply(Owner::Gateway, set(""), 9).await.expect("applied");
    assert!(world.status("yours").is_null());
    assert_eq!(world.status("mine")["ready"], true);
    world.close().await;
}

#[tokio::test]
async fn a_change_of_what_the_broker_lends_reaches_the_triggers_of_all_owners() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(400)]).await);
    let grave = Sink::start(&[Say::status(202)]).await;
    let world = World::open(dir.path()).await;
    world.apply(&trigger("t", &sink.url, "")).await.expect("applied");
    let broker = format!(
        "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata:\n  name: default\n  annotations:\n    \
         godwit.dev/uplink: \"false\"\nspec:\n  delivery:\n    deadLetterSink:\n      uri: {}\n",
        grave.url
    );
    world.triggers.apply(Owner::Gateway, set(&broker), 1).await.expect("applied");
    assert!(!world.broker("default").settings().uplink);
    world.publish(&event("1", "a")).await;
    world.settled("t", 1).await;
    assert_eq!(grave.ids(), ["1"]);
    world.triggers.apply(Owner::Gateway, set(""), 2).await.expect("applied");
    assert!(world.broker("default").settings().uplink);
    world.close().await;
}

#[tokio::test]
async fn what_cannot_be_resolved_is_not_ready_and_says_why() {
    let dir = tempfile::tempdir().expect("folder");
    let world = World::open(dir.path()).await;
    let yaml = "apiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata:\n  name: t\nspec:\n  broker: default\n  \
        subscriber:\n    ref:\n      apiVersion: v1\n      kind: Service\n      name: event-display\n---\n\
        apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata:\n  name: kafka\n  annotations:\n    \
        eventing.knative.dev/broker.class: Kafka\n---\n\
        apiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata:\n  name: k\nspec:\n  broker: kafka\n  subscriber:\n    \
        uri: http://127.0.0.1:1/\n";
    world.apply(yaml).await.expect("applied");
    assert_eq!(world.status("t")["reason"], "SubscriberNotResolved");
    assert_eq!(world.status("k")["reason"], "BrokerClassUnsupported");
    assert!(world.brokers.get(&"kafka".parse().expect("a name")).is_none());
    world.publish(&event("1", "a")).await;
    eventually("the event waits", || world.ledger("t").filter(|l| l.pending == 1).ok_or_else(String::new)).await;
    world.close().await;
}
