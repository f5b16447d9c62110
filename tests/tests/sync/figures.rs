//! Figures: `cargo test --release -p godwit-tests --test sync figures -- --ignored --nocapture`.

use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::pair::{Agent, Gateway, eventually};
use crate::relay::Relay;

#[tokio::test]
#[ignore = "prints figures"]
async fn drain_of_100_000() {
    let dir = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::start(&dir.path().join("gateway")).await;
    let relay = Relay::to(gateway.addr).await;
    let agent = Agent::start(&dir.path().join("agent"), gateway.addr).await;
    agent.uplink.hold().await.expect("kept");
    let long = |n: u32| format!("{{\"n\":{n:010},\"text\":\"{}\"}}", "x".repeat(225));
    agent.publish_to("default/default", 0..100_000, long).await;
    let broker = gateway.brokers.get(&"default/default".parse().expect("a name")).expect("there");
    let before = broker.journal().next_offset().0;
    agent.uplink.resume().await.expect("kept");
    let start = Instant::now();
    broker.journal().watch().wait_for(|next| next.0 >= 100_000).await.expect("open");
    let took = start.elapsed();
    eventually("answers", async || (agent.consumer().pending == 0, agent.consumer().pending)).await;
    println!(
        "{} events drained in {took:?}: {:.0} a second; {} B an event",
        100_000 - before,
        100_000.0 / took.as_secs_f64(),
        agent.uplink.status()["sent_bytes"].as_u64().unwrap_or(0) / 100_000
    );
    assert_eq!(relay.rules.up.load(Ordering::Relaxed), 0);
}
