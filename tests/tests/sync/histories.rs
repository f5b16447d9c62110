//! Disks that were set back, copied or made anew, on either side.

use std::path::Path;
use std::time::Duration;

use godwit_mesh::journal::{DropReason, Options};

use crate::pair::{Agent, Gateway, arrives, eventually, options, settings, text, texts};

pub(crate) fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

#[tokio::test]
async fn an_agent_killed_and_started_again_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::start(&dir.path().join("gateway")).await;
    for n in 0..5 {
        let agent = Agent::start(&dir.path().join("agent"), gateway.addr).await;
        agent.publish(n * 700..(n + 1) * 700).await;
        agent.kill().await;
    }
    let agent = Agent::start(&dir.path().join("agent"), gateway.addr).await;
    arrives(&gateway, &texts(0..3500)).await;
    eventually("the account", async || (agent.consumer().done.delivered == 3500, agent.consumer())).await;
}

#[tokio::test]
async fn a_gateway_stopped_and_started_again_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::start(&dir.path().join("gateway")).await;
    let agent = Agent::start(&dir.path().join("agent"), gateway.addr).await;
    agent.publish(0..1000).await;
    arrives(&gateway, &texts(0..1000)).await;
    agent.stop().await;
    gateway.stop().await;
    let gateway = Gateway::start(&dir.path().join("gateway")).await;
    assert_eq!(gateway.agent()["brokers"][0]["position"], 1000, "known from the journal");
    let agent = Agent::start(&dir.path().join("agent"), gateway.addr).await;
    agent.publish(1000..1100).await;
    arrives(&gateway, &texts(0..1100)).await;
}

#[tokio::test]
async fn an_agents_disk_set_back_loses_nothing_new_and_doubles_nothing_old() {
    let dir = tempfile::tempdir().expect("a folder");
    let (home, backup) = (dir.path().join("agent"), dir.path().join("backup"));
    let gateway = Gateway::start(&dir.path().join("gateway")).await;
    let agent = Agent::start(&home, gateway.addr).await;
    agent.publish(0..100).await;
    arrives(&gateway, &texts(0..100)).await;
    agent.stop().await;
    copy(&home, &backup);
    let agent = Agent::start(&home, gateway.addr).await;
    agent.publish(100..160).await;
    arrives(&gateway, &texts(0..160)).await;
    agent.stop().await;
    copy(&backup, &home);
    let agent = Agent::start(&home, gateway.addr).await;
    agent.publish(1000..1050).await;
    let expected: Vec<String> = (0..160).chain(1000..1050).map(text).collect();
    arrives(&gateway, &expected).await;
    let offsets: Vec<u64> = gateway.stored().await.iter().skip(160).map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, (100..150).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_clone_is_refused_while_the_other_lives_and_taken_when_it_does_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let (home, clone) = (dir.path().join("agent"), dir.path().join("clone"));
    let gateway = Gateway::start(&dir.path().join("gateway")).await;
    let agent = Agent::start(&home, gateway.addr).await;
    agent.publish(0..50).await;
    arrives(&gateway, &texts(0..50)).await;
    agent.stop().await;
    copy(&home, &clone);
    let first = Agent::start(&home, gateway.addr).await;
    first.publish(50..60).await;
    arrives(&gateway, &texts(0..60)).await;
    let second = Agent::start(&clone, gateway.addr).await;
    second.publish(2000..2010).await;
    eventually("the clone is refused", async || {
        let agent = gateway.agent();
        (agent["forks_refused"].as_u64() > Some(0), agent)
    })
    .await;
    first.publish(60..70).await;
    arrives(&gateway, &texts(0..70)).await;
    assert_eq!(second.uplink.status()["state"], "down");
    first.stop().await;
    let mut expected: Vec<String> = (0..70).chain(2000..2010).map(text).collect();
    arrives(&gateway, &expected).await;
    second.stop().await;
    // The first one again: what it had sent is not sent again.
    let first = Agent::start(&home, gateway.addr).await;
    first.publish(70..75).await;
    expected.extend(texts(70..75));
    arrives(&gateway, &expected).await;
}

#[tokio::test]
async fn a_clone_is_refused_before_either_has_sent_anything() {
    let dir = tempfile::tempdir().expect("a folder");
    let (home, clone) = (dir.path().join("agent"), dir.path().join("clone"));
    let gateway = Gateway::start(&dir.path().join("gateway")).await;
    let agent = Agent::start(&home, gateway.addr).await;
    agent.publish(0..50).await;
    arrives(&gateway, &texts(0..50)).await;
    agent.stop().await;
    copy(&home, &clone);
    let first = Agent::start(&home, gateway.addr).await;
    eventually("the first is there", async || (first.uplink.status()["state"] == "up", first.uplink.status())).await;
    let second = Agent::start(&clone, gateway.addr).await;
    eventually("the clone is refused", async || {
        let agent = gateway.agent();
        (agent["forks_refused"].as_u64() > Some(2), agent)
    })
    .await;
    assert_eq!(first.uplink.status()["connections"], 1, "the first was left alone");
    // The clone goes on asking; that does not keep the first alive in its stead.
    first.stop().await;
    eventually("the clone is taken", async || (second.uplink.status()["state"] == "up", second.uplink.status())).await;
}

#[tokio::test]
async fn a_gateway_set_back_gets_again_what_is_still_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let (home, backup) = (dir.path().join("gateway"), dir.path().join("backup"));
    let gateway = Gateway::start(&home).await;
    let agent = Agent::start(&dir.path().join("agent"), gateway.addr).await;
    agent.publish(0..100).await;
    arrives(&gateway, &texts(0..100)).await;
    agent.stop().await;
    gateway.stop().await;
    copy(&home, &backup);
    let gateway = Gateway::start(&home).await;
    let agent = Agent::start(&dir.path().join("agent"), gateway.addr).await;
    agent.publish(100..200).await;
    arrives(&gateway, &texts(0..200)).await;
    eventually("the account", async || (agent.consumer().done.delivered == 200, agent.consumer())).await;
    agent.stop().await;
    gateway.stop().await;
    copy(&backup, &home);
    let gateway = Gateway::start(&home).await;
    let agent = Agent::start(&dir.path().join("agent"), gateway.addr).await;
    agent.publish(200..250).await;
    arrives(&gateway, &texts(0..250)).await;
    assert_eq!(gateway.agent()["brokers"][0]["set_back"], 100);
    assert_eq!(agent.uplink.status()["set_back"], 100);
}

#[tokio::test]
async fn a_cursor_moved_on_by_hand_is_told_to_the_gateway() {
    let dir = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::start(&dir.path().join("gateway")).await;
    let agent = with_ten_sent(dir.path(), &gateway).await;
    agent.uplink.hold().await.expect("kept");
    tokio::time::sleep(Duration::from_millis(100)).await;
    agent.publish(10..30).await;
    let broker = agent.brokers.get(&"default/default".parse().expect("a name")).expect("there");
    godwit_agent::uplink::register(&broker).seek(godwit_mesh::journal::Offset(20));
    agent.uplink.resume().await.expect("kept");
    let expected: Vec<String> = (0..10).chain(20..30).map(text).collect();
    arrives(&gateway, &expected).await;
    assert_eq!(gateway.agent()["brokers"][0]["skipped"]["skipped"], 10);
    let consumer = eventually("the account", async || (agent.consumer().pending == 0, agent.consumer())).await;
    assert_eq!(consumer.done.delivered, 20);
}

/// An agent whose first ten events are at the gateway, and accounted for.
async fn with_ten_sent(dir: &Path, gateway: &Gateway) -> Agent {
    let agent = Agent::start(&dir.join("agent"), gateway.addr).await;
    agent.publish(0..10).await;
    arrives(gateway, &texts(0..10)).await;
    eventually("the account", async || (agent.consumer().pending == 0, agent.consumer())).await;
    agent
}

/// The uplink's cursor moved by hand while the link is held, and a restart before it connects again.
async fn moved_by_hand(dir: &Path, gateway: &Gateway, moves: &[u64]) -> Agent {
    let agent = with_ten_sent(dir, gateway).await;
    agent.uplink.hold().await.expect("kept");
    eventually("held", async || (agent.uplink.status()["state"] == "held", agent.uplink.status())).await;
    agent.publish(10..30).await;
    for to in moves {
        let broker = agent.brokers.get(&"default/default".parse().expect("a name")).expect("there");
        let uplink = godwit_agent::uplink::register(&broker);
        uplink.seek(godwit_mesh::journal::Offset(*to));
        uplink.flushed().await.expect("durable");
    }
    agent.stop().await;
    let agent = Agent::start(&dir.join("agent"), gateway.addr).await;
    agent.uplink.resume().await.expect("kept");
    eventually("the account", async || (agent.consumer().pending == 0, agent.consumer())).await;
    agent
}

#[tokio::test]
async fn a_cursor_moved_on_by_hand_stays_moved_over_a_restart_before_it_connects() {
    for moves in [&[20][..], &[15, 25, 20], &[5, 20]] {
        let dir = tempfile::tempdir().expect("a folder");
        let gateway = Gateway::start(&dir.path().join("gateway")).await;
        let agent = moved_by_hand(dir.path(), &gateway, moves).await;
        let expected: Vec<String> = (0..10).chain(20..30).map(text).collect();
        arrives(&gateway, &expected).await;
        assert_eq!(gateway.agent()["brokers"][0]["skipped"]["skipped"], 10, "{moves:?}");
        assert_eq!(gateway.agent()["brokers"][0]["set_back"], 0, "{moves:?}");
        assert_eq!(agent.uplink.status()["set_back"], 0, "{moves:?}");
        let consumer = agent.consumer();
        assert_eq!(consumer.cursor.since(consumer.since), consumer.done.total(), "{consumer:?}");
        // What goes on from there is told for what it is: a gateway that is set back behind it gets it again.
        agent.publish(30..40).await;
        let expected: Vec<String> = (0..10).chain(20..40).map(text).collect();
        arrives(&gateway, &expected).await;
        eventually("the account", async || (agent.consumer().pending == 0, agent.consumer())).await;
        agent.stop().await;
        gateway.stop().await;
        let gateway = Gateway::start(&dir.path().join("new")).await;
        let agent = Agent::start(&dir.path().join("agent"), gateway.addr).await;
        arrives(&gateway, &texts(0..40)).await;
        assert_eq!(agent.uplink.status()["set_back"], 40, "{moves:?}");
    }
}

#[tokio::test]
async fn a_cursor_moved_back_by_hand_sends_nothing_twice() {
    let dir = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::start(&dir.path().join("gateway")).await;
    let agent = moved_by_hand(dir.path(), &gateway, &[4]).await;
    arrives(&gateway, &texts(0..30)).await;
    let consumer = agent.consumer();
    assert_eq!((consumer.since.0, consumer.done.delivered, consumer.done.total()), (4, 26, 26), "{consumer:?}");
    assert_eq!(gateway.agent()["brokers"][0]["set_back"], 0);
}

#[tokio::test]
async fn a_cursor_moved_by_hand_while_nothing_is_sent_is_seen_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::start(&dir.path().join("gateway")).await;
    let agent = with_ten_sent(dir.path(), &gateway).await;
    let broker = agent.brokers.get(&"default/default".parse().expect("a name")).expect("there");
    godwit_agent::uplink::register(&broker).seek(godwit_mesh::journal::Offset(4));
    // What the gateway has counts as delivered; nothing is sent twice.
    let caught_up = async || {
        let consumer = agent.consumer();
        (consumer.since.0 == 4 && consumer.done.delivered == 6, consumer)
    };
    eventually("the account", caught_up).await;
    arrives(&gateway, &texts(0..10)).await;
}

#[tokio::test]
async fn what_retention_took_while_the_link_was_down_is_no_set_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::start(&dir.path().join("gateway")).await;
    let little = Options { segment_bytes: 64 << 10, max_bytes: 256 << 10, ..options() };
    let home = dir.path().join("agent");
    let start = || Agent::keeping(&home, settings(gateway.addr), little.clone());
    let settled = async |agent: &Agent, next: u64| {
        let consumer = eventually("the account", async || (agent.consumer().pending == 0, agent.consumer())).await;
        let lost = consumer.done.dropped.get(&DropReason::Retention).copied().unwrap_or(0);
        assert!(lost > 0, "{consumer:?}");
        assert_eq!(consumer.done.delivered + lost, next, "the account goes on from where it began");
        eventually("the gateway's account", async || {
            let broker = gateway.agent()["brokers"][0].clone();
            (broker["position"] == next, broker)
        })
        .await;
        let broker = gateway.agent()["brokers"][0].clone();
        assert_eq!(broker["skipped"], serde_json::json!({ "retention": lost }));
        assert_eq!((&broker["set_back"], &agent.uplink.status()["set_back"]), (&0.into(), &0.into()));
    };
    let agent = start().await;
    agent.publish(0..100).await;
    arrives(&gateway, &texts(0..100)).await;
    agent.uplink.hold().await.expect("kept");
    agent.publish(100..20_000).await;
    agent.uplink.resume().await.expect("kept");
    settled(&agent, 20_000).await;
    agent.uplink.hold().await.expect("kept");
    agent.publish(20_000..40_000).await;
    agent.stop().await;
    let agent = start().await;
    agent.uplink.resume().await.expect("kept");
    settled(&agent, 40_000).await;
}
