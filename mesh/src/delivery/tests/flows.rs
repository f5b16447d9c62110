//! Channels with Subscriptions, Sequences and Parallels.

use super::sink::{Say, Sink};
use super::world::{World, event, eventually, publish, set};
use crate::journal::ConsumerStatus;

fn channel(name: &str) -> String {
    format!("apiVersion: messaging.knative.dev/v1\nkind: Channel\nmetadata:\n  name: {name}\n---\n")
}

/// A Subscription to Channel `c`; `rest` is more of its spec, indented by two.
fn subscription(name: &str, rest: &str) -> String {
    format!(
        "apiVersion: messaging.knative.dev/v1\nkind: Subscription\nmetadata:\n  name: {name}\nspec:\n  channel:\n    apiVersion: \
         messaging.knative.dev/v1\n    kind: Channel\n    name: c\n{rest}\n---\n"
    )
}

fn to(field: &str, sink: &Sink) -> String {
    format!("  {field}:\n    uri: {}\n", sink.url)
}

async fn post(world: &World, channel: &str, id: &str) {
    publish(world.broker(&format!("channels/default/{channel}")).journal(), &event(id, "test"), &[]).await;
}

/// Waits until a Subscription has settled this many events.
async fn settled(world: &World, channel: &str, subscription: &str, events: u64) -> ConsumerStatus {
    let prefix = format!("subscription/default/{subscription}/");
    let broker = world.broker(&format!("channels/default/{channel}"));
    eventually(&format!("{subscription} settles {events}"), || {
        let ledger = broker.journal().consumers().into_iter().find(|c| c.name.starts_with(&prefix));
        ledger.filter(|l| l.done.total() >= events).ok_or_else(|| world.status(subscription).to_string())
    })
    .await
}

async fn ids(sink: &Sink, count: usize) -> Vec<String> {
    eventually("the sink gets its events", || {
        let ids = sink.ids();
        if ids.len() >= count { Ok(ids) } else { Err(format!("{ids:?}")) }
    })
    .await
}

#[tokio::test]
async fn d22_a_reply_goes_where_the_subscription_says_and_nowhere_without() {
    let dir = tempfile::tempdir().expect("folder");
    let answering = Sink::start(&[Say::status(200).event("r1", "answer").header("knative-y", "z")]).await;
    let (replies, deaf) = (Sink::start(&[]).await, Sink::start(&[Say::status(200).body("OK")]).await);
    let world = World::open(dir.path()).await;
    let yaml = [
        channel("c"),
        subscription("with", &(to("subscriber", &answering) + &to("reply", &replies))),
        subscription("without", &to("subscriber", &answering)),
        subscription("deaf", &(to("subscriber", &deaf) + &to("reply", &replies))),
        subscription("direct", &to("reply", &replies)),
    ];
    world.apply(&yaml.concat()).await.expect("applied");
    post(&world, "c", "1").await;
    for name in ["with", "without", "deaf", "direct"] {
        let done = settled(&world, "c", name, 1).await.done;
        assert_eq!((done.delivered, done.dead_lettered), (1, 0), "{name}: a body that is no event is no failure here");
    }
    let mut got = ids(&replies, 2).await;
    got.sort();
    assert_eq!(got, ["1", "r1"], "the reply, and the event itself where there is no subscriber");
    let reply = replies.got().into_iter().find(|g| g.header("ce-id") == "r1").expect("came");
    assert_eq!(
        (reply.header("prefer"), reply.header("knative-y")),
        ("", "z"),
        "no reply is asked of a reply's receiver; d17"
    );
    assert_eq!(world.broker("channels/default/c").journal().next_offset().0, 1, "nothing came back into the channel");
    world.close().await;
}

#[tokio::test]
async fn d22_a_reply_that_is_not_taken_fails_the_whole_delivery_and_the_event_itself_becomes_the_dead_letter() {
    let dir = tempfile::tempdir().expect("folder");
    let answering = Sink::start(&[Say::status(200).event("r1", "answer")]).await;
    let (refusing, letters) = (Sink::start(&[Say::status(503)]).await, Sink::start(&[]).await);
    let world = World::open(dir.path()).await;
    let delivery = format!("  delivery:\n    retry: 1\n    deadLetterSink:\n      uri: {}\n", letters.url);
    let spec = to("subscriber", &answering) + &to("reply", &refusing) + &delivery;
    world.apply(&(channel("c") + &subscription("s", &spec))).await.expect("applied");
    post(&world, "c", "1").await;
    assert_eq!(settled(&world, "c", "s", 1).await.done.dead_lettered, 1);
    assert_eq!((answering.got().len(), refusing.got().len()), (2, 2), "both halves are tried again");
    let letter = letters.got().into_iter().next().expect("a dead letter");
    assert_eq!((letter.header("ce-id"), letter.header("ce-knativeerrorcode")), ("1", "503"));
    assert_eq!(letter.header("ce-knativeerrordest"), refusing.url);
    world.close().await;
}

#[tokio::test]
async fn a_channel_s_delivery_is_its_subscriptions_and_both_survive() {
    let dir = tempfile::tempdir().expect("folder");
    let (sink, letters) = (Sink::start(&[Say::status(400)]).await, Sink::start(&[]).await);
    let delivery = format!("spec:\n  delivery:\n    deadLetterSink:\n      uri: {}\n---\n", letters.url);
    let yaml = channel("c").replace("---\n", &delivery) + &subscription("s", &to("subscriber", &sink));
    let world = World::open(dir.path()).await;
    world.apply(&yaml).await.expect("applied");
    post(&world, "c", "1").await;
    settled(&world, "c", "s", 1).await;
    assert!(!world.broker("channels/default/c").settings().uplink, "channels do not go up");
    world.close().await;

    let world = World::open(dir.path()).await;
    world.apply(&yaml).await.expect("applied");
    post(&world, "c", "2").await;
    assert_eq!(settled(&world, "c", "s", 2).await.done.dead_lettered, 2);
    assert_eq!(ids(&letters, 2).await, ["1", "2"]);
    world.close().await;
}

#[tokio::test]
async fn a_sequence_hands_replies_on_and_ends_where_there_is_none() {
    let dir = tempfile::tempdir().expect("folder");
    let first = Sink::start(&[Say::status(200).event("a1", "first"), Say::status(202)]).await;
    let second = Sink::start(&[Say::status(200).event("b1", "second")]).await;
    let end = Sink::start(&[]).await;
    let world = World::open(dir.path()).await;
    let yaml = format!(
        "apiVersion: flows.knative.dev/v1\nkind: Sequence\nmetadata:\n  name: q\nspec:\n  steps:\n  - uri: {}\n  - uri: {}\n  reply:\n    \
         uri: {}\n",
        first.url, second.url, end.url
    );
    world.apply(&yaml).await.expect("applied");
    post(&world, "q-kn-sequence-0", "1").await;
    post(&world, "q-kn-sequence-0", "2").await;
    settled(&world, "q-kn-sequence-0", "q-kn-sequence-0", 2).await;
    settled(&world, "q-kn-sequence-1", "q-kn-sequence-1", 1).await;
    assert_eq!((first.ids(), second.ids()), (vec!["1".to_owned(), "2".to_owned()], vec!["a1".to_owned()]));
    assert_eq!(ids(&end, 1).await, ["b1"]);
    // Its parts go with it.
    world.apply("").await.expect("applied");
    assert_eq!(world.triggers.status().as_array().map(Vec::len), Some(0));
    world.close().await;
}

#[tokio::test]
async fn a_parallel_hands_each_event_to_the_branches_whose_filter_lets_it_pass() {
    let dir = tempfile::tempdir().expect("folder");
    let passes = Sink::start(&[Say::status(200).event("f1", "passed")]).await;
    let stops = Sink::start(&[Say::status(202)]).await;
    let (one, two, three) = (Sink::start(&[]).await, Sink::start(&[]).await, Sink::start(&[]).await);
    let world = World::open(dir.path()).await;
    let yaml = format!(
        "apiVersion: flows.knative.dev/v1\nkind: Parallel\nmetadata:\n  name: p\nspec:\n  branches:\n  - filter: {{uri: '{}'}}\n    \
         subscriber: {{uri: '{}'}}\n  - filter: {{uri: '{}'}}\n    subscriber: {{uri: '{}'}}\n  - subscriber: {{uri: '{}'}}\n",
        passes.url, one.url, stops.url, two.url, three.url
    );
    world.apply(&yaml).await.expect("applied");
    post(&world, "p-kn-parallel", "1").await;
    assert_eq!(ids(&one, 1).await, ["f1"]);
    assert_eq!(ids(&three, 1).await, ["1"], "no filter: all pass");
    settled(&world, "p-kn-parallel", "p-kn-parallel-filter-1", 1).await;
    assert!(two.got().is_empty());
    world.close().await;
}

#[tokio::test]
async fn d27_a_subscription_waits_for_its_channel_and_a_channel_may_not_change() {
    let dir = tempfile::tempdir().expect("folder");
    let sink = Sink::start(&[]).await;
    let world = World::open(dir.path()).await;
    let waiting = subscription("s", &to("subscriber", &sink));
    world.apply(&waiting).await.expect("applied");
    assert_eq!(world.status("s")["reason"], "ChannelReferenceFailed");
    world.apply(&(channel("c") + &waiting)).await.expect("applied");
    post(&world, "c", "1").await;
    settled(&world, "c", "s", 1).await;
    let moved = waiting.replace("name: c\n", "name: d\n");
    let error = world.apply(&(channel("c") + &channel("d") + &moved)).await.expect_err("refused").to_string();
    assert!(error.contains("spec.channel"), "{error}");
    world.close().await;
}

#[test]
fn a_trigger_and_a_subscription_may_have_one_name() {
    let both = super::world::trigger("x", "http://a/", "") + &subscription("x", "  subscriber:\n    uri: http://a/\n");
    assert_eq!(set(&both).triggers().count(), 2);
}
