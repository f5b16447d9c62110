//! What Triggers deliver: beside a bare hyper client that posts the same to the same sink, and many of them at a time; and what an
//! index over filters saves.

use std::fs;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use godwit_mesh::delivery::Index;
use godwit_mesh::event::Event;
use godwit_mesh::filter::{Dialect, Filter, cesql::tck};
use godwit_tests::lab::Lab;
use godwit_tests::node::{DEFAULT_BROKER, Node};
use godwit_tests::wait::{self, Seen};
use godwit_tests::{http, http_load, load};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::ingress::agent;
use crate::table::{Row, median, median_ratio, thousands};
use crate::{Extent, bare};

const LIMIT: Duration = Duration::from_secs(120);
/// An event's payload in bytes.
const PAYLOAD: usize = 256;

/// One Trigger, in order and with 64 events under way.
pub(crate) fn throughput(extent: Extent) -> Result<Vec<Row>> {
    let lab = Lab::new()?;
    let mut agent = agent(&lab)?;
    agent.set("storage.max-bytes", "1GiB");
    agent.start()?;
    let (_process, sink) = bare::start(&lab)?;
    // Enough for the fastest run there can be.
    fill(&agent, u64::try_from(extent.run.as_millis())? * 60)?;
    let mut rows = Vec::new();
    for (under_way, what) in [(1, "in order"), (64, "64 under way")] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for run in 0..extent.runs {
            ours.push(one_trigger(&agent, sink, under_way, run, extent.run)?);
            theirs.push(bare_client(sink, under_way, extent.run)?);
        }
        rows.push(Row {
            work: format!("one Trigger to a sink that answers 202, {what}, {PAYLOAD} B"),
            ours: thousands(median(&ours)),
            peer: format!("hyper's client {}", thousands(median(&theirs))),
            figure: format!("{:.2} ×", median_ratio(&ours, &theirs)),
            floor: "0.7 ×",
            aim: "",
        });
    }
    Ok(rows)
}

/// Hundreds of Triggers that all want everything: what each delivery costs, and what is read for it: less than an event, as all
/// share what one has read.
pub(crate) fn fan_out(extent: Extent) -> Result<Vec<Row>> {
    let mut costs = Vec::new();
    let mut rows = Vec::new();
    for triggers in [100_u64, 1000] {
        let lab = Lab::new()?;
        let mut agent = agent(&lab)?;
        agent.start()?;
        let (_process, sink) = bare::start(&lab)?;
        for number in 0..triggers {
            create(&agent, &format!("fan-{number}"), sink, &[])?;
        }
        // The first makes the connections.
        fill(&agent, 1)?;
        delivered(&agent, triggers)?;
        // As many deliveries with few Triggers as with many.
        let events = u64::try_from(extent.run.as_millis())? * 5 / triggers + 10;
        let before = (read_bytes(&agent)?, agent.accepted(DEFAULT_BROKER)?);
        let begun = Instant::now();
        fill(&agent, before.1 + events)?;
        let accepted = agent.accepted(DEFAULT_BROKER)?;
        delivered(&agent, accepted * triggers)?;
        let seconds = begun.elapsed().as_secs_f64();
        let stored = agent.broker(DEFAULT_BROKER)?["accepted"].as_u64().context("accepted")? - before.1;
        let read = (read_bytes(&agent)? - before.0) as f64 / stored as f64;
        costs.push(seconds / (stored * triggers) as f64 * 1e6);
        rows.push(Row {
            work: format!("{triggers} Triggers that all want everything, {PAYLOAD} B"),
            ours: format!("{} delivered", thousands((stored * triggers) as f64 / seconds)),
            peer: String::new(),
            figure: format!("{:.0} B read of files for each delivery", read / triggers as f64),
            floor: "100 B",
            aim: "",
        });
    }
    if let [few, many] = &*costs {
        rows.push(Row {
            work: "a delivery with 1000 Triggers beside one with 100".to_owned(),
            ours: format!("{many:.1} µs"),
            peer: format!("{few:.1} µs"),
            figure: format!("{:.2} ×", many / few),
            floor: "1.5 ×",
            aim: "1 ×",
        });
    }
    Ok(rows)
}

/// 10,000 filters of which three want the event.
pub(crate) fn index(extent: Extent) -> Result<Vec<Row>> {
    const FILTERS: u32 = 10_000;
    let event = Event::builder().id("1").source("/sensors/7").ty("type-77").subject("x/7").data("application/json", "{}");
    let event = tck::stored(&event.build()?);
    let mut filters = Vec::new();
    let mut index = Index::default();
    for number in 0..FILTERS {
        let json = match number {
            0 => r#"[{"exact":{"source":"/sensors/7"}}]"#.to_owned(),
            1 => r#"[{"cesql":"type = 'type-77' AND subject LIKE 'x%'"}]"#.to_owned(),
            _ => format!(r#"[{{"exact":{{"type":"type-{number}"}}}},{{"prefix":{{"subject":"x"}}}}]"#),
        };
        let dialects: Vec<Dialect> = serde_json::from_str(&json)?;
        let filter = Filter::dialects(&dialects)?;
        index.add(number, filter.key().as_ref());
        filters.push(filter);
    }
    let mut scratch = String::new();
    let mut found = Vec::new();
    let mut by_index = || {
        found.clear();
        index.candidates(black_box(&event), &mut scratch, |number| found.push(number));
        let wanted = |n: &&u32| {
            filters
                .get(usize::try_from(**n).unwrap_or(usize::MAX))
                .is_some_and(|filter| filter.judge(&event, &mut scratch).wanted)
        };
        found.iter().filter(wanted).count()
    };
    ensure!(by_index() == 3, "three want it");
    let with = best(extent.run / 4, 1000, || {
        black_box(by_index());
    });
    let mut scratch = String::new();
    let without = best(extent.run / 4, 1, || {
        black_box(filters.iter().filter(|filter| filter.judge(black_box(&event), &mut scratch).wanted).count());
    });
    Ok(vec![Row {
        work: format!("finding the 3 of {FILTERS} Triggers that want an event"),
        ours: format!("{:.2} µs", with * 1e6),
        peer: format!("asking each {:.0} µs", without * 1e6),
        figure: format!("{:.0} × less", without / with),
        floor: "100 × less",
        aim: "",
    }])
}

/// Seconds of one call, of the fastest run of so many.
fn best(time: Duration, times: u32, mut call: impl FnMut()) -> f64 {
    let (end, mut best) = (Instant::now() + time, f64::INFINITY);
    while Instant::now() < end {
        let begun = Instant::now();
        for _ in 0..times {
            call();
        }
        best = best.min(begun.elapsed().as_secs_f64() / f64::from(times));
    }
    best
}

/// Posts events until the broker has taken `count`, in batches.
fn fill(agent: &Node, count: u64) -> Result<()> {
    let data: serde_json::Value = serde_json::from_slice(&load::payload("http", 0, PAYLOAD))?;
    let mut accepted = agent.accepted(DEFAULT_BROKER)?;
    while accepted < count {
        let some = (count - accepted).min(100);
        let event = |n: u64| {
            serde_json::json!({"specversion": "1.0", "id": n.to_string(), "source": "/bench", "type": "bench.event",
                "datacontenttype": "application/json", "data": data})
        };
        let batch = serde_json::to_vec(&(accepted..accepted + some).map(event).collect::<Vec<_>>())?;
        let headers = [("content-type", "application/cloudevents-batch+json")];
        let answer = http::request(agent.http(), "POST", "/default/default", &headers, &batch)?;
        ensure!(answer.status == 202, "{} {}", answer.status, answer.text());
        accepted += some;
    }
    Ok(())
}

fn create(agent: &Node, name: &str, sink: SocketAddr, annotations: &[(&str, &str)]) -> Result<()> {
    let annotations: serde_json::Map<_, _> =
        annotations.iter().map(|(key, value)| (format!("godwit.dev/{key}"), (*value).into())).collect();
    let trigger = serde_json::json!({
        "apiVersion": "eventing.knative.dev/v1",
        "kind": "Trigger",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"broker": "default", "subscriber": {"uri": format!("http://{sink}/in")}},
    });
    let headers = [("content-type", "application/json")];
    let answer = http::request(agent.http(), "POST", TRIGGERS, &headers, trigger.to_string().as_bytes())?;
    ensure!(answer.status == 201, "{} {}", answer.status, answer.text());
    Ok(())
}

const TRIGGERS: &str = "/apis/eventing.knative.dev/v1/namespaces/default/triggers";

/// Deliveries a second of a Trigger that begins with the oldest event.
fn one_trigger(agent: &Node, sink: SocketAddr, under_way: usize, run: usize, time: Duration) -> Result<f64> {
    let name = format!("bench-{under_way}-{run}");
    create(agent, &name, sink, &[("start", "earliest"), ("parallelism", &under_way.to_string())])?;
    let consumer = format!("{name}/");
    let delivered = || agent.consumer(DEFAULT_BROKER, &consumer).map(|c| c["delivered"].as_u64().unwrap_or(0)).unwrap_or(0);
    wait::until("it delivers", LIMIT, || if delivered() > 0 { Seen::Yes(()) } else { Seen::NotYet(String::new()) })?;
    std::thread::sleep(time / 5);
    let (before, begun) = (delivered(), Instant::now());
    std::thread::sleep(time);
    let (after, seconds) = (delivered(), begun.elapsed().as_secs_f64());
    let pending = agent.consumer(DEFAULT_BROKER, &consumer)?["pending"].as_u64().unwrap_or(0);
    ensure!(pending > 0, "there were too few events to keep it busy");
    let answer = http::request(agent.http(), "DELETE", &format!("{TRIGGERS}/{name}"), &[], &[])?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    Ok((after - before) as f64 / seconds)
}

/// Waits until all Triggers together have delivered so many.
fn delivered(agent: &Node, count: u64) -> Result<()> {
    wait::until(format!("{count} deliveries"), LIMIT, || {
        let delivered = |consumers: &serde_json::Value| -> u64 {
            consumers.as_array().into_iter().flatten().filter_map(|c| c["delivered"].as_u64()).sum()
        };
        // Status with a thousand Triggers is work too.
        std::thread::sleep(Duration::from_millis(100));
        match agent.broker(DEFAULT_BROKER).map(|broker| delivered(&broker["consumers"])) {
            Ok(n) if n >= count => Seen::Yes(()),
            other => Seen::NotYet(format!("{other:?}")),
        }
    })
}

/// Bytes that the process has read of files, from the page cache or the disk.
fn read_bytes(agent: &Node) -> Result<u64> {
    let io = fs::read_to_string(format!("/proc/{}/io", agent.process().pid()))?;
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: ")).context("no rchar")?;
    Ok(line.trim().parse()?)
}

/// Posts a second of a hyper client with so many requests under way, each on its own connection.
fn bare_client(to: SocketAddr, under_way: usize, time: Duration) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let data = Bytes::from(load::payload("http", 0, PAYLOAD));
    runtime.block_on(http_load::rate(under_way, time, |stop, answers| post(to, data.clone(), stop, answers)))
}

async fn post(to: SocketAddr, data: Bytes, stop: Arc<AtomicBool>, answers: Arc<AtomicU64>) -> Result<()> {
    let stream = tokio::net::TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    while !stop.load(Ordering::Relaxed) {
        // As a Trigger's request to its subscriber.
        let request = Request::post("/in")
            .header("host", to.to_string())
            .header("ce-specversion", "1.0")
            .header("ce-id", "00000000-0000-0000-0000-000000000000")
            .header("ce-source", "/bench")
            .header("ce-type", "bench.event")
            .header("ce-knativearrivaltime", "2026-01-01T00:00:00.000Z")
            .header("content-type", "application/json")
            .header("prefer", "reply")
            .header("kn-namespace", "default")
            .body(Full::new(data.clone()))?;
        sender.ready().await?;
        let answer = sender.send_request(request).await?;
        ensure!(answer.status() == 202, "{}", answer.status());
        answer.into_body().collect().await?;
        answers.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
