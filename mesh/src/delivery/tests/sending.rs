//! What subscribers get.

use super::sink::{Say, Sink};
use super::world::{World, event, eventually, publish, set, trigger};
use crate::event::Value;

#[tokio::test]
async fn d11_events_are_posted_in_binary_mode_with_prefer_reply_and_the_namespace() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
    let world = World::open(dir.path()).await;
    world.apply(&trigger("t", &sink.url, "")).await.expect("applied");
    world.publish(&event("1", "a")).await;
    let ledger = world.settled("t", 1).await;
    assert_eq!(ledger.done.delivered, 1);
    let got = sink.got();
    let got = got.first().expect("one");
    assert_eq!((got.method.as_str(), got.path.as_str()), ("POST", "/in"));
    assert_eq!(got.header("ce-specversion"), "1.0");
    assert_eq!((got.header("ce-id"), got.header("ce-source"), got.header("ce-type")), ("1", "/test", "a"));
    assert_eq!(got.header("content-type"), "application/json");
    assert_eq!(got.header("prefer"), "reply");
    assert_eq!(got.header("kn-namespace"), "default");
    assert_eq!(&got.body[..], br#"{"n":1.10}"#, "the payload's bytes are never changed");
    world.close().await;
}

#[tokio::test]
async fn d11_the_format_is_the_deliverys_and_else_what_no_receiver_gets_wrong() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
    let world = World::open(dir.path()).await;
    let json = "  delivery:\n    format: json";
    let set = [
        trigger("json", &format!("{}/json", sink.url), json),
        trigger("auto", &format!("{}/auto", sink.url), ""),
        trigger("binary", &format!("{}/binary", sink.url), "  delivery:\n    format: binary"),
    ];
    world.apply(&set.concat()).await.expect("applied");
    let mut spaced = event("1", "a");
    spaced.set("subject", Value::String("ein Raum".to_owned())).expect("valid");
    world.publish(&spaced).await;
    for name in ["json", "auto", "binary"] {
        world.settled(name, 1).await;
    }
    let content_type = |path: &str| {
        let got = sink.got();
        got.iter().find(|g| g.path.ends_with(path)).map(|g| g.header("content-type").to_owned()).expect("sent")
    };
    assert!(content_type("/json").starts_with("application/cloudevents+json"));
    assert!(content_type("/auto").starts_with("application/cloudevents+json"), "a value would need percent-encoding");
    assert_eq!(content_type("/binary"), "application/json");
    world.close().await;
}

#[tokio::test]
async fn d17_known_headers_pass_through_and_d18_the_ttl_does_not() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
    let world = World::open(dir.path()).await;
    world.apply(&trigger("t", &sink.url, "")).await.expect("applied");
    let mut with_ttl = event("1", "a");
    with_ttl.set("knativebrokerttl", Value::Integer(7)).expect("valid");
    let headers: [(&str, &[u8]); 3] = [("x-request-id", b"r-1"), ("knative-x", b"k"), ("cookie", b"secret")];
    publish(world.broker("default").journal(), &with_ttl, &headers).await;
    world.settled("t", 1).await;
    let got = sink.got();
    let got = got.first().expect("one");
    assert_eq!((got.header("x-request-id"), got.header("knative-x")), ("r-1", "k"));
    assert_eq!((got.header("cookie"), got.header("ce-knativebrokerttl")), ("", ""));
    world.close().await;
}

#[tokio::test]
async fn a_filter_error_is_no_match_and_is_counted() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
    let world = World::open(dir.path()).await;
    let filters = "  filters:\n  - any:\n    - cesql: \"floor > 3\"\n    - exact: {id: '2'}";
    world.apply(&trigger("t", &sink.url, filters)).await.expect("applied");
    world.publish(&event("1", "a")).await;
    world.publish(&event("2", "a")).await;
    let ledger = world.settled("t", 2).await;
    assert_eq!((ledger.done.filtered, ledger.done.delivered), (1, 1));
    assert_eq!(sink.ids(), ["2"]);
    assert_eq!(world.status("t")["filter_errors"], 2);
    assert_eq!(world.triggers.filter_errors().iter().map(|(_, errors)| errors).sum::<u64>(), 2);
    world.close().await;
}

#[tokio::test]
async fn d26_each_trigger_that_matches_gets_its_own_delivery_and_the_others_count_as_filtered() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
    let world = World::open(dir.path()).await;
    let wants = |ty: &str| format!("  filter:\n    attributes:\n      type: {ty}");
    let set =
        [trigger("one", &sink.url, ""), trigger("two", &sink.url, &wants("a")), trigger("none", &sink.url, &wants("z"))];
    world.apply(&set.concat()).await.expect("applied");
    world.publish(&event("1", "a")).await;
    world.publish(&event("2", "b")).await;
    let (one, two, none) = (world.settled("one", 2).await, world.settled("two", 2).await, world.settled("none", 2).await);
    assert_eq!((one.done.delivered, one.done.filtered), (2, 0));
    assert_eq!((two.done.delivered, two.done.filtered), (1, 1));
    assert_eq!((none.done.delivered, none.done.filtered), (0, 2));
    let mut ids = sink.ids();
    ids.sort();
    assert_eq!(ids, ["1", "1", "2"]);
    world.close().await;
}

#[tokio::test]
async fn d28_a_broker_as_subscriber_gets_the_event_without_a_detour() {
    let dir = tempfile::tempdir().expect("folder");
    let world = World::open(dir.path()).await;
    let manifests = "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata:\n  name: alarms\n---\n\
        apiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata:\n  name: t\nspec:\n  broker: default\n  subscriber:\n    \
        ref:\n      apiVersion: eventing.knative.dev/v1\n      kind: Broker\n      name: alarms\n";
    world.apply(manifests).await.expect("applied");
    world.publish(&event("1", "a")).await;
    assert_eq!(world.settled("t", 1).await.done.delivered, 1);
    let stored = world.events("alarms").await;
    let copy = stored.first().expect("one");
    assert_eq!((copy.id(), copy.source(), copy.data()), ("1", "/test", event("1", "a").data()));
    assert_eq!(copy.get("knativebrokerttl"), Some(&Value::Integer(254)), "a circle of Brokers ends");
    assert_eq!(world.status("t")["subscriberUri"], "http://127.0.0.1:8080/default/alarms");
    world.close().await;
}

#[tokio::test]
async fn d27_a_trigger_before_its_broker_waits_for_it_and_misses_nothing() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
    let world = World::open(dir.path()).await;
    let early = trigger("t", &sink.url, "").replace("broker: default", "broker: later");
    world.triggers.apply(crate::delivery::Owner::Files, set(&early), 1).await.expect("applied");
    assert_eq!(world.status("t")["reason"], "BrokerDoesNotExist");
    assert!(world.triggers.ready(crate::delivery::Owner::Files).is_err());

    let broker = world.brokers.ensure(&"later".parse().expect("a name")).await.expect("made");
    publish(broker.journal(), &event("1", "a"), &[]).await;
    eventually("the first event arrives", || if sink.ids() == ["1"] { Ok(()) } else { Err(world.status("t").to_string()) })
        .await;
    assert_eq!(world.status("t")["ready"], true);
    world.close().await;
}
