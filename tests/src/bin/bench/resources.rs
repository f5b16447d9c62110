//! What the agent takes of the board: flash, memory, and time to start.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result};
use godwit_tests::disk::{self, Disk};
use godwit_tests::lab::Lab;
use godwit_tests::load::{Load, Plan};
use godwit_tests::mqtt;
use godwit_tests::node::{DEFAULT_BROKER, Node};
use godwit_tests::skip;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Extent;
use crate::ingress::{acknowledgements, agent};
use crate::table::{Row, median, megabytes};

const LIMIT: Duration = Duration::from_secs(120);
/// An event's payload, topic and client id together, in bytes.
const EVENT: usize = 300;

/// Bytes written to the block device at full load, once segments are recycled.
pub(crate) fn flash(extent: Extent) -> Result<Vec<Row>> {
    let lab = Lab::new()?;
    let disk = if skip::is_root() { Some(Disk::ext4(&lab, "disk", 1024)?) } else { None };
    let mut agent = agent(&lab)?;
    // Small, so that the run is over recycled segments.
    agent.set("storage.max-bytes", "96MiB");
    if let Some(disk) = &disk {
        agent.keep_data_at(disk.path());
    }
    agent.start()?;
    let written = |agent: &Node| -> Result<u64> {
        disk::run(&mut std::process::Command::new("sync"))?;
        match &disk {
            Some(disk) => disk.written()?.context("a loop device counts"),
            None => agent.process().written_bytes(),
        }
    };
    let load = |run: Duration| -> Result<()> {
        let mut plan = Plan::new(agent.mqtt());
        let overhead = "load/load-00".len() + "load-00".len();
        (plan.clients, plan.window, plan.size) = (100, 100, EVENT - overhead);
        let load = Load::start(plan);
        std::thread::sleep(run);
        load.finish(LIMIT).map(drop)
    };
    load(extent.run)?;
    let mut factors = Vec::new();
    for _ in 0..extent.runs {
        let before = (written(&agent)?, agent.accepted(DEFAULT_BROKER)?);
        load(extent.run)?;
        let after = (written(&agent)?, agent.accepted(DEFAULT_BROKER)?);
        factors.push((after.0 - before.0) as f64 / (after.1 - before.1) as f64 / EVENT as f64);
    }
    agent.stop()?;
    let by = if disk.is_some() { "a loop device with ext4" } else { "/proc/PID/io" };
    Ok(vec![Row {
        work: format!("bytes written to the block device for each {EVENT} B event at full load ({by})"),
        ours: format!("{:.0} B", median(&factors) * EVENT as f64),
        peer: String::new(),
        figure: format!("{:.2} ×", median(&factors)),
        floor: "1.5 ×",
        aim: "1.1 ×",
    }])
}

/// Memory idle, with a million events queued, after full load; and the time to start with that million.
pub(crate) fn memory_and_start(extent: Extent) -> Result<Vec<Row>> {
    const QUEUED: u64 = 1_000_000;
    let lab = Lab::new()?;
    let mut agent = Node::agent(&lab, "agent-1")?;
    agent.start()?;
    let settled = |agent: &Node| {
        std::thread::sleep(Duration::from_secs(2));
        agent.process().pss_kib()
    };
    let row =
        |work: String, ours: String, floor, aim| Row { work, figure: ours.clone(), ours, peer: String::new(), floor, aim };
    let memory = |what: &str, kib, floor, aim| row(format!("agent memory (PSS), {what}"), megabytes(kib), floor, aim);
    let mut rows = vec![memory("idle", settled(&agent)?, "6 MB", "4 MB")];
    let mut plan = Plan::new(agent.mqtt());
    (plan.clients, plan.count, plan.window) = (10, QUEUED / 10, 100);
    Load::start(plan).wait_count(LIMIT)?;
    rows.push(memory("1 M events queued", settled(&agent)?, "10 MB", "6 MB"));
    acknowledgements(agent.mqtt(), 100, extent.run)?;
    rows.push(memory("after 100 clients at full speed", settled(&agent)?, "10 MB", "6 MB"));
    let queued = agent.accepted(DEFAULT_BROKER)?;
    let mut times = Vec::new();
    for _ in 0..5 {
        agent.kill9()?;
        times.push(agent.start()?.as_secs_f64());
    }
    let work = format!("start to ready after kill -9 with {:.1} M queued, warm", queued as f64 / 1e6);
    rows.push(row(work, format!("{:.3} s", median(&times)), "0.1 s", "0.03 s"));
    rows.push(memory("restarted with them", settled(&agent)?, "10 MB", "6 MB"));
    Ok(rows)
}

/// What 1,000 connected clients that say nothing cost.
pub(crate) fn idle_clients(_: Extent) -> Result<Vec<Row>> {
    const CLIENTS: usize = 1000;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let lab = Lab::new()?;
    let mut agent = agent(&lab)?;
    agent.start()?;
    std::thread::sleep(Duration::from_secs(2));
    let before = agent.process().pss_kib()?;
    let mut clients = Vec::with_capacity(CLIENTS);
    for number in 0..CLIENTS {
        let mut stream = TcpStream::connect(agent.mqtt())?;
        let mut out = Vec::new();
        mqtt::connect(&mut out, &format!("idle-{number}"), true, 0, None);
        stream.write_all(&out)?;
        stream.read_exact(&mut [0; 4])?;
        clients.push(stream);
    }
    std::thread::sleep(Duration::from_secs(2));
    let cost = agent.process().pss_kib()?.saturating_sub(before);
    Ok(vec![Row {
        work: format!("{CLIENTS} connected idle MQTT clients"),
        ours: format!("+ {}", megabytes(cost)),
        peer: String::new(),
        figure: format!("+ {}", megabytes(cost)),
        floor: "+ 8 MB",
        aim: "+ 4 MB",
    }])
}
