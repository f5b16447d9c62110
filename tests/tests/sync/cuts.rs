//! The link fails in all its ways; nothing is lost, nothing doubled, the order kept.

use std::sync::atomic::Ordering;
use std::time::Duration;

use godwit_gateway::sync::SyncSettings;
use godwit_mesh::journal::Policy;

use crate::pair::{Agent, Gateway, arrives, eventually, options, settings, text, texts};
use crate::relay::Relay;

async fn setup() -> (tempfile::TempDir, Gateway, Relay, Agent) {
    let dir = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::start(&dir.path().join("gateway")).await;
    let relay = Relay::to(gateway.addr).await;
    let agent = Agent::start(&dir.path().join("agent"), relay.addr).await;
    (dir, gateway, relay, agent)
}

#[tokio::test]
async fn events_arrive_in_order_and_the_account_is_settled() {
    let (_dir, gateway, _relay, agent) = setup().await;
    agent.publish(0..5000).await;
    arrives(&gateway, &texts(0..5000)).await;
    let consumer = eventually("the account", async || {
        let consumer = agent.consumer();
        (consumer.pending == 0, consumer)
    })
    .await;
    assert_eq!((consumer.done.delivered, consumer.done.total()), (5000, 5000));
    assert_eq!(agent.uplink.status()["state"], "up");
    assert_eq!(gateway.agent()["link"]["state"], "up");
    let start = std::time::Instant::now();
    agent.stop().await;
    assert!(start.elapsed() < Duration::from_secs(1), "stopping took {:?}", start.elapsed());
    eventually("the gateway notices", async || (gateway.agent()["link"]["state"] == "down", gateway.agent())).await;
    gateway.stop().await;
}

#[tokio::test]
async fn one_event_does_not_wait_for_company() {
    let (_dir, gateway, _relay, agent) = setup().await;
    agent.publish(0..1).await;
    arrives(&gateway, &texts(0..1)).await;
    let mut worst = Duration::ZERO;
    for n in 1..20 {
        let start = std::time::Instant::now();
        agent.publish(n..n + 1).await;
        let broker = gateway.brokers.get(&"default/default".parse().expect("a name")).expect("there");
        broker.journal().watch().wait_for(|next| next.0 > u64::from(n)).await.expect("open");
        worst = worst.max(start.elapsed());
    }
    assert!(worst < Duration::from_millis(150), "{worst:?}");
}

#[tokio::test]
async fn a_link_that_is_cut_again_and_again_loses_and_doubles_nothing() {
    let (_dir, gateway, relay, agent) = setup().await;
    for n in 0..20 {
        agent.publish(n * 500..(n + 1) * 500).await;
        // Anywhere: mid-frame, mid-hello, between commit and answer.
        let at = relay.rules.up.load(Ordering::Relaxed) + u64::from(n * 397 % 2900) + 1;
        relay.rules.cut_after.store(at, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(u64::from(n * 13 % 60))).await;
        relay.cut();
    }
    relay.rules.cut_after.store(0, Ordering::Relaxed);
    arrives(&gateway, &texts(0..10_000)).await;
    eventually("the account", async || (agent.consumer().done.delivered == 10_000, agent.consumer())).await;
}

#[tokio::test]
async fn a_cut_after_the_commit_and_before_the_answer_doubles_nothing() {
    let (_dir, gateway, relay, agent) = setup().await;
    agent.publish(0..10).await;
    arrives(&gateway, &texts(0..10)).await;
    eventually("the account", async || (agent.consumer().pending == 0, agent.consumer())).await;
    relay.rules.swallow.store(true, Ordering::Relaxed);
    agent.publish(10..40).await;
    arrives(&gateway, &texts(0..40)).await;
    assert_eq!(agent.consumer().done.delivered, 10, "no answer came");
    relay.cut();
    relay.rules.swallow.store(false, Ordering::Relaxed);
    eventually("the account", async || (agent.consumer().done.delivered == 40, agent.consumer())).await;
    agent.publish(40..50).await;
    arrives(&gateway, &texts(0..50)).await;
}

#[tokio::test]
async fn a_peer_that_is_silently_gone_is_noticed_within_three_heartbeats() {
    let (_dir, gateway, relay, agent) = setup().await;
    agent.publish(0..10).await;
    arrives(&gateway, &texts(0..10)).await;
    relay.rules.dead.store(true, Ordering::Relaxed);
    let start = std::time::Instant::now();
    let mut link = agent.uplink.watch();
    link.wait_for(|link| link.state == godwit_agent::uplink::LinkState::Down).await.expect("open");
    assert!(start.elapsed() < Duration::from_millis(1200 + 100), "{:?}", start.elapsed());
    eventually("the gateway notices too", async || (gateway.agent()["link"]["state"] == "down", gateway.agent())).await;
    relay.cut();
    relay.rules.dead.store(false, Ordering::Relaxed);
    agent.publish(10..20).await;
    arrives(&gateway, &texts(0..20)).await;
}

#[tokio::test]
async fn a_slow_link_with_a_long_way_carries_what_it_can() {
    let (_dir, gateway, relay, agent) = setup().await;
    eventually("the link", async || (agent.uplink.status()["state"] == "up", agent.uplink.status())).await;
    relay.rules.rate.store(4000, Ordering::Relaxed);
    relay.rules.delay_ms.store(20, Ordering::Relaxed);
    agent.publish(0..500).await;
    arrives(&gateway, &texts(0..500)).await;
    assert_eq!(agent.uplink.status()["connections"], 1, "the link held");
}

#[tokio::test]
async fn several_brokers_share_the_link() {
    let (_dir, gateway, _relay, agent) = setup().await;
    agent.publish(0..3000).await;
    agent.publish_to("site/alarms", 0..5, text).await;
    arrives(&gateway, &texts(0..3000)).await;
    let alarms = eventually("alarms", async || {
        let alarms = gateway.stored_in("site/alarms").await;
        (alarms.len() == 5, alarms)
    })
    .await;
    assert_eq!(alarms.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_broker_that_is_no_longer_to_go_up_stops_at_once() {
    let (_dir, gateway, _relay, agent) = setup().await;
    agent.publish_to("site/private", 0..5, text).await;
    eventually("events at the gateway", async || {
        let stored = gateway.stored_in("site/private").await;
        (stored.len() == 5, stored)
    })
    .await;
    let broker = agent.brokers.get(&"site/private".parse().expect("a name")).expect("there");
    broker.set(godwit_mesh::broker::BrokerSettings { uplink: false, ..Default::default() });
    agent.publish_to("site/private", 5..10, text).await;
    agent.publish(0..100).await;
    arrives(&gateway, &texts(0..100)).await;
    assert_eq!(gateway.stored_in("site/private").await.len(), 5);
}

#[tokio::test]
async fn a_held_link_stays_held_over_a_restart_and_goes_on_when_resumed() {
    let dir = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::start(&dir.path().join("gateway")).await;
    let agent = Agent::start(&dir.path().join("agent"), gateway.addr).await;
    agent.publish(0..10).await;
    arrives(&gateway, &texts(0..10)).await;
    agent.uplink.hold().await.expect("kept");
    eventually("held", async || (agent.uplink.status()["state"] == "held", agent.uplink.status())).await;
    agent.publish(10..20).await;
    agent.stop().await;
    let agent = Agent::start(&dir.path().join("agent"), gateway.addr).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(gateway.payloads().await.len(), 10);
    agent.uplink.resume().await.expect("kept");
    arrives(&gateway, &texts(0..20)).await;
}

#[tokio::test]
async fn a_full_gateway_stops_one_broker_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let full = godwit_mesh::journal::Options {
        segment_bytes: 64 << 10,
        max_bytes: 256 << 10,
        policy: Policy::Reject,
        ..options()
    };
    let gateway =
        Gateway::with(&dir.path().join("gateway"), full, SyncSettings { credit: 32 << 10, ..SyncSettings::default() })
            .await;
    let broker = gateway.brokers.get(&"default/default".parse().expect("a name")).expect("there");
    let slow = broker.journal().consumer("slow", godwit_mesh::journal::Start::Earliest, true);
    let agent = Agent::with(&dir.path().join("agent"), settings(gateway.addr)).await;
    let long = |n: u32| format!("{n:05}{}", "x".repeat(200 + (n % 7) as usize));
    agent.publish_to("default/default", 0..3000, long).await;
    // It fills up, and stays so.
    let mut last = 0;
    eventually("the gateway is full", async || {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let now = broker.journal().next_offset().0;
        let full = now == last && now > 0;
        last = now;
        (full, now)
    })
    .await;
    assert!(last < 3000, "{last} of 3000 fit");
    assert_eq!(agent.uplink.status()["state"], "up");
    // The consumer goes on, and so does everything.
    let mut seen = Vec::new();
    let mut reader = broker.journal().reader(godwit_mesh::journal::Offset(0));
    while seen.len() < 3000 {
        let items =
            tokio::time::timeout(Duration::from_secs(20), reader.next(64 << 10)).await.expect("goes on").expect("reads");
        for item in items {
            let godwit_mesh::journal::Item::Event { body, offset, epoch } = item else { panic!("{item:?}") };
            let nobody = crate::pair::agent_id();
            let event = godwit_mesh::event::StoredEvent::new(body, epoch, offset, &nobody).expect("an event");
            seen.push(String::from_utf8(event.data().expect("data").to_vec()).expect("text"));
        }
        let to = reader.position();
        let done = godwit_mesh::journal::Done { delivered: to.since(slow.cursor()), ..Default::default() };
        assert!(slow.advance(to, &done));
    }
    assert!(seen == (0..3000).map(long).collect::<Vec<_>>());
}
