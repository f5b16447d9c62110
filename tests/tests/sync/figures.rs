//! Figures, those of a trace (one JSON object a line: `t_ms`, `topic`, `payload`) named by `GODWIT_TRACE`: `cargo test --release -p godwit-tests --test sync figures -- --ignored --nocapture`.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use godwit_agent::uplink::UplinkSettings;
use godwit_mesh::event::{MqttPublish, encode_publish};
use godwit_mesh::names::BrokerName;

use crate::pair::{Agent, Gateway, eventually, settings};
use crate::relay::Relay;

#[tokio::test]
#[ignore = "prints figures"]
async fn drain_of_100_000() {
    let dir = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::start(&dir.path().join("gateway")).await;
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
}

#[derive(serde::Deserialize)]
struct Line<'a> {
    t_ms: u64,
    topic: &'a str,
    #[serde(borrow)]
    payload: &'a serde_json::value::RawValue,
}

#[tokio::test]
#[ignore = "prints figures of a trace named by GODWIT_TRACE"]
async fn bytes_on_the_wire() {
    let text = std::fs::read_to_string(std::env::var("GODWIT_TRACE").expect("GODWIT_TRACE")).expect("readable");
    let lines: Vec<Line<'_>> = text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
    // How much faster than life, and how many events: enough to be a minute at most.
    for (speed, count) in [(1, 300), (10, lines.len()), (0, lines.len())] {
        let dir = tempfile::tempdir().expect("a folder");
        let gateway = Gateway::start(&dir.path().join("gateway")).await;
        let relay = Relay::to(gateway.addr).await;
        let agent = Agent::with(
            &dir.path().join("agent"),
            UplinkSettings { heartbeat: Duration::from_secs(30), ..settings(relay.addr) },
        )
        .await;
        eventually("the link", async || (agent.uplink.status()["state"] == "up", agent.uplink.status())).await;
        if speed == 0 {
            agent.uplink.hold().await.expect("kept");
            eventually("held", async || (agent.uplink.status()["state"] == "held", agent.uplink.status())).await;
        }
        let carried = || relay.rules.up.load(Ordering::Relaxed) + relay.rules.down.load(Ordering::Relaxed);
        let before = carried();
        let broker = agent.brokers.get(&BrokerName::default()).expect("there");
        let start = tokio::time::Instant::now();
        for (n, line) in lines.iter().take(count).enumerate() {
            if let Some(due_ms) = line.t_ms.checked_div(speed) {
                tokio::time::sleep_until(start + Duration::from_millis(due_ms)).await;
            }
            let packet_id = u16::try_from(n % 60_000 + 1).expect("small");
            let payload = line.payload.get().as_bytes();
            let publish =
                MqttPublish { client_id: "drone", topic: line.topic, qos: 1, packet_id, payload, ..MqttPublish::default() };
            let now = broker.journal();
            while now
                .append(|append| append.event(|out| encode_publish(out, &publish, Some(1_800_000_000_000 + line.t_ms))))
                .is_err()
            {
                now.room().await;
            }
        }
        agent.uplink.resume().await.expect("kept");
        eventually("the account", async || (agent.consumer().done.delivered == count as u64, agent.consumer())).await;
        println!(
            "speed {speed} (0: draining), {count} events: {:.1} B an event, both ways",
            (carried() - before) as f64 / count as f64
        );
    }
}
