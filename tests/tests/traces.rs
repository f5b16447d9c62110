//! Promise: a trace goes on through the agent, and its spans reach a collector by OTLP; a collector that is away costs no event.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use godwit_tests::lab;
use godwit_tests::manifests::Trigger;
use godwit_tests::node::{DEFAULT_BROKER, Node};
use godwit_tests::sink::Sink;
use godwit_tests::wait::{self, Seen};
use godwit_tests::{http, lab::Lab, mqtt};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn agent(lab: &Lab, to: &str, collector: &str) -> Result<Node> {
    let yaml = Trigger { name: "t", to, ..Trigger::default() }.yaml();
    let path = lab.write("manifests/triggers.yaml", &yaml)?;
    let mut agent = Node::agent(lab, "board")?;
    agent.set("agent.manifests", &path.parent().context("a folder")?.display().to_string());
    agent.set("tracing.otlp-endpoint", collector);
    agent.start()?;
    Ok(agent)
}

/// The spans by their name, once there are as many.
fn exported(collector: &Sink, least: usize) -> Result<BTreeMap<String, Value>> {
    wait::until("the spans are exported", LIMIT, || {
        let bodies = collector.deliveries();
        let mut spans = BTreeMap::new();
        for body in &bodies {
            let json: Value = serde_json::from_slice(&body.body).unwrap_or_default();
            for span in json["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().into_iter().flatten() {
                spans.insert(span["name"].as_str().unwrap_or_default().to_owned(), span.clone());
            }
        }
        if spans.len() >= least && bodies.iter().all(|body| body.path == "/v1/traces") {
            Seen::Yes(spans)
        } else {
            Seen::NotYet(format!("{spans:?}"))
        }
    })
}

#[test]
fn a_trace_goes_on_to_the_subscriber_and_its_spans_to_the_collector() -> Result<()> {
    lab::run(|lab| {
        let (sink, collector) = (Sink::start()?, Sink::start()?);
        let agent = agent(lab, &sink.url(), &collector.url())?;
        let parent = format!("00-{TRACE}-{PARENT}-01");
        let headers = [
            ("ce-specversion", "1.0"),
            ("ce-id", "1"),
            ("ce-source", "/s"),
            ("ce-type", "t"),
            ("traceparent", parent.as_str()),
        ];
        ensure!(http::request(agent.http(), "POST", "/", &headers, b"x")?.status == 202, "stored");
        let delivered = sink.wait(1, LIMIT)?;
        let came = delivered.first().context("one")?.header("ce-traceparent").to_owned();
        ensure!(came.starts_with(&format!("00-{TRACE}-")) && !came.contains(PARENT), "{came}");
        let spans = exported(&collector, 3)?;
        let (ingress, dispatch) = (&spans["broker:default.default"], &spans["trigger:t.default"]);
        ensure!(ingress["traceId"] == TRACE && dispatch["traceId"] == TRACE, "{spans:?}");
        ensure!(ingress["parentSpanId"] == PARENT && dispatch["parentSpanId"] == ingress["spanId"], "{spans:?}");
        let filter = &spans["filter:t.default"];
        ensure!(filter["traceId"] == TRACE && filter["parentSpanId"] == ingress["spanId"], "{spans:?}");
        ensure!(
            came.contains(dispatch["spanId"].as_str().unwrap_or("none")),
            "the subscriber continues the attempt: {came}"
        );
        Ok(())
    })
}

#[test]
fn what_comes_by_mqtt_is_part_of_the_trace_that_it_brings() -> Result<()> {
    lab::run(|lab| {
        let (sink, collector) = (Sink::start()?, Sink::start()?);
        let agent = agent(lab, &sink.url(), &collector.url())?;
        let event =
            format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","traceparent":"00-{TRACE}-{PARENT}-01"}}"#);
        let mut out = Vec::new();
        mqtt::connect(&mut out, "device", true, 0, None);
        mqtt::publish(&mut out, "t", 1, 1, false, event.as_bytes());
        let mut device = TcpStream::connect(agent.mqtt())?;
        device.set_read_timeout(Some(LIMIT))?;
        device.write_all(&out)?;
        // CONNACK and PUBACK.
        device.read_exact(&mut [0; 8])?;
        sink.wait(1, LIMIT)?;
        let spans = exported(&collector, 3)?;
        for name in ["broker:default.default", "filter:t.default", "trigger:t.default"] {
            let span = &spans[name];
            ensure!(span["traceId"] == TRACE && span["parentSpanId"] == PARENT, "{name}: {spans:?}");
        }
        Ok(())
    })
}

#[test]
fn a_collector_that_is_away_costs_spans_and_no_event() -> Result<()> {
    lab::run(|lab| {
        let sink = Sink::start()?;
        let agent = agent(lab, &sink.url(), "http://127.0.0.1:1")?;
        for n in 0..20 {
            ensure!(agent.post(DEFAULT_BROKER, &n.to_string(), "text/plain", b"x")?.status == 202, "stored");
        }
        sink.wait(20, LIMIT)?;
        wait::until("dropped spans are counted", LIMIT, || {
            let metrics = agent.get("/metrics").map(|answer| answer.text()).unwrap_or_default();
            match metrics.lines().find(|line| line.starts_with("godwit_spans_dropped_total ")) {
                Some(line) if !line.ends_with(" 0") => Seen::Yes(()),
                other => Seen::NotYet(format!("{other:?}")),
            }
        })
    })
}
