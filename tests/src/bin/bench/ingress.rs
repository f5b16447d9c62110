//! What the agent takes: acknowledgements by MQTT and HTTP, and the time of one event alone. No gateway is running.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use godwit_tests::http_load;
use godwit_tests::lab::Lab;
use godwit_tests::load::{self, Load, Plan};
use godwit_tests::mosquitto::Mosquitto;
use godwit_tests::mqtt;
use godwit_tests::node::Node;

use crate::table::{Row, median, median_ratio, thousands};
use crate::{Extent, bare};

/// Payload of every ingress figure, in bytes.
const PAYLOAD: usize = 256;
/// Publishes of one client in flight.
const WINDOW: usize = 100;

/// An agent alone, with a limit that it reaches within a run, so that it works as it will for months.
pub(crate) fn agent(lab: &Lab) -> Result<Node> {
    let mut agent = Node::agent(lab, "agent-1")?;
    agent.set("storage.max-bytes", "256MiB");
    Ok(agent)
}

/// Acknowledgements a second of `clients` clients.
pub(crate) fn acknowledgements(to: SocketAddr, clients: usize, run: Duration) -> Result<f64> {
    let mut plan = Plan::new(to);
    (plan.clients, plan.window, plan.size) = (clients, WINDOW, PAYLOAD);
    let load = Load::start(plan);
    std::thread::sleep(run / 5);
    let (before, begun) = (load.acknowledged(), Instant::now());
    std::thread::sleep(run);
    let rate = (load.acknowledged() - before) as f64 / begun.elapsed().as_secs_f64();
    load.finish(Duration::from_secs(10))?;
    Ok(rate)
}

/// QoS 1 with 1, 10 and 100 clients.
pub(crate) fn mqtt(extent: Extent) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (clients, floor, aim) in [(1, "1.0 ×", "2 ×"), (10, "4 ×", "8 ×"), (100, "4 ×", "8 ×")] {
        let lab = Lab::new()?;
        let mut agent = agent(&lab)?;
        agent.start()?;
        let peer = Mosquitto::start(&lab, "mosquitto")?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..extent.runs {
            ours.push(acknowledgements(agent.mqtt(), clients, extent.run)?);
            theirs.push(acknowledgements(peer.address, clients, extent.run)?);
        }
        rows.push(Row {
            work: format!("QoS 1 acknowledgements, durable, {clients} clients with {WINDOW} in flight, {PAYLOAD} B"),
            ours: thousands(median(&ours)),
            peer: format!("mosquitto in RAM {}", thousands(median(&theirs))),
            figure: format!("{:.2} ×", median_ratio(&ours, &theirs)),
            floor,
            aim,
        });
    }
    Ok(rows)
}

/// HTTP over 64 connections.
pub(crate) fn http(extent: Extent) -> Result<Vec<Row>> {
    let lab = Lab::new()?;
    let mut agent = agent(&lab)?;
    agent.start()?;
    let (_process, address) = bare::start(&lab)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..extent.runs {
        ours.push(http_load::run(agent.http(), 64, PAYLOAD, extent.run)?);
        theirs.push(http_load::run(address, 64, PAYLOAD, extent.run)?);
    }
    Ok(vec![Row {
        work: format!("HTTP 202, durable, 64 connections, {PAYLOAD} B"),
        ours: thousands(median(&ours)),
        peer: format!("hyper that only answers {}", thousands(median(&theirs))),
        figure: format!("{:.2} ×", median_ratio(&ours, &theirs)),
        floor: "0.5 ×",
        aim: "0.65 ×",
    }])
}

/// One publish at a time, beside a write and fdatasync of as many bytes in the same folder, and beside a server of the same shape that
/// does nothing else: what the sockets and the turns of two threads take is in both.
pub(crate) fn latency(extent: Extent) -> Result<Vec<Row>> {
    const EVENTS: usize = 300;
    let lab = Lab::new()?;
    let mut agent = agent(&lab)?;
    agent.start()?;
    let (_process, store) = bare::start_store(&lab, PAYLOAD + 44)?;
    let (mut ours, mut bare, mut least) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..=extent.runs {
        ours.push(median(&one_by_one(agent.mqtt(), EVENTS)?));
        bare.push(median(&bare::write_and_sync(lab.path(), PAYLOAD + 44, EVENTS)?));
        least.push(median(&blocks_one_by_one(store, EVENTS)?));
    }
    let (ours, bare, least) = (median(&ours) * 1e6, median(&bare) * 1e6, median(&least) * 1e6);
    let row = |peer: &str, theirs: f64, floor| Row {
        work: format!("one event alone: time to its acknowledgement, {PAYLOAD} B"),
        ours: format!("{ours:.0} µs"),
        peer: format!("{peer} {theirs:.0} µs"),
        figure: format!("{:+.0} µs, {:+.0} %", ours - theirs, (ours / theirs - 1.0) * 100.0),
        floor,
        aim: "",
    };
    Ok(vec![row("write + fdatasync", bare, "+ 30 % or 100 µs"), row("a server that only does both", least, "")])
}

/// The same with blocks for the server that only stores.
fn blocks_one_by_one(to: SocketAddr, count: usize) -> Result<Vec<f64>> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    let (block, mut answer) = ([b'x'; PAYLOAD + 44], [0; bare::ANSWER]);
    (0..count)
        .map(|_| {
            let begun = Instant::now();
            stream.write_all(&block)?;
            stream.read_exact(&mut answer)?;
            Ok(begun.elapsed().as_secs_f64())
        })
        .collect()
}

fn one_by_one(to: SocketAddr, count: usize) -> Result<Vec<f64>> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    let mut out = Vec::new();
    mqtt::connect(&mut out, "alone", true, 30, None);
    stream.write_all(&out)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    anyhow::ensure!(answer[0] == 0x20 && answer[3] == 0, "refused: {answer:?}");
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        out.clear();
        let id = u16::try_from(number + 1).context("few events")?;
        mqtt::publish(&mut out, "load/alone", 1, id, false, &load::payload("alone", number as u64, PAYLOAD));
        let begun = Instant::now();
        stream.write_all(&out)?;
        stream.read_exact(&mut answer)?;
        times.push(begun.elapsed().as_secs_f64());
        anyhow::ensure!(answer[0] == 0x40, "not a PUBACK: {answer:?}");
    }
    Ok(times)
}
