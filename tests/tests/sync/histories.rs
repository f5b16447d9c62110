//! Disks that were set back, copied or made anew, on either side.

use std::path::Path;
use std::time::Duration;

use crate::pair::{Agent, Gateway, arrives, eventually, text, texts};

fn copy(from: &Path, to: &Path) {
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
    let agent = Agent::start(&dir.path().join("agent"), gateway.addr).await;
    agent.publish(0..10).await;
    arrives(&gateway, &texts(0..10)).await;
    eventually("the account", async || (agent.consumer().pending == 0, agent.consumer())).await;
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
