//! Promise: a Trigger delivers what matches, in order, with `source`, `id` and bytes unchanged; replies go back into the broker; what
//! cannot be delivered becomes a dead letter; and objects for agents come down, are kept, and run with no gateway in sight.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use godwit_tests::lab::{self, Lab};
use godwit_tests::load::{self, Load, Plan};
use godwit_tests::manifests::Trigger;
use godwit_tests::mqtt;
use godwit_tests::node::{DEFAULT_BROKER, Node};
use godwit_tests::pair::Pair;
use godwit_tests::sink::{Answer, Delivery, Sink};
use godwit_tests::wait::{self, Seen};
use rustix::process::Signal;

const LIMIT: Duration = Duration::from_secs(20);
const EARLIEST: (&str, &str) = ("godwit.dev/start", "earliest");

/// Gives a node manifests of these Triggers, from its next start on.
fn manifests(lab: &Lab, node: &mut Node, section: &str, triggers: &[Trigger<'_>]) -> Result<()> {
    let text: String = triggers.iter().map(Trigger::yaml).collect();
    let path = lab.write(&format!("manifests-{section}/triggers.yaml"), &text)?;
    let folder = path.parent().context("a folder")?.display().to_string();
    node.set(&format!("{section}.manifests"), &folder);
    Ok(())
}

#[test]
fn from_a_device_to_a_subscriber_in_order_once_with_exact_bytes() -> Result<()> {
    lab::run(|lab| {
        let sink = Sink::start()?;
        let mut pair = Pair::new(lab)?;
        let to = sink.url();
        manifests(lab, &mut pair.gateway, "gateway", &[Trigger { name: "all", to: &to, ..Trigger::default() }])?;
        pair.gateway.start()?;
        pair.agent.start()?;
        let mut plan = Plan::new(pair.agent.mqtt());
        (plan.clients, plan.count) = (4, 250);
        let records = Load::start(plan).wait_count(LIMIT)?;
        let deliveries = sink.wait(1000, LIMIT)?;
        assert_eq!(deliveries.len(), 1000, "each once");
        let stored = pair.gateway.events(DEFAULT_BROKER)?;
        for (entry, delivery) in stored.iter().zip(&deliveries) {
            assert_eq!(delivery.name(), (entry.event.id.clone(), entry.event.source.clone()), "in order");
            assert_eq!(delivery.body.as_ref(), entry.event.data()?, "exact bytes");
            assert_eq!(delivery.header("prefer"), "reply");
            assert_eq!(delivery.header("ce-specversion"), "1.0");
            assert_eq!(delivery.header("ce-type"), "dev.godwit.mqtt.publish");
            let (client, number) = load::read_payload(&delivery.body).context("a payload of ours")?;
            assert_eq!(delivery.header("ce-subject"), format!("load/{client}"));
            assert!(number < 250);
        }
        pair.settled(&records, LIMIT)?;
        wait::until("the cursor is behind the last", LIMIT, || match pair.gateway.consumer(DEFAULT_BROKER, "all") {
            Ok(c) if c["delivered"] == 1000 && c["pending"] == 0 => Seen::Yes(()),
            other => Seen::NotYet(format!("{other:?}")),
        })?;
        Ok(())
    })
}

#[test]
fn a_filter_chooses_and_the_ledger_counts_the_rest() -> Result<()> {
    lab::run(|lab| {
        let sink = Sink::start()?;
        let mut agent = Node::agent(lab, "agent-1")?;
        let to = sink.url();
        let one = Trigger { name: "one", to: &to, filter: &[("subject", "load/load-1")], ..Trigger::default() };
        manifests(lab, &mut agent, "agent", &[one])?;
        agent.start()?;
        let mut plan = Plan::new(agent.mqtt());
        (plan.clients, plan.count) = (4, 50);
        Load::start(plan).wait_count(LIMIT)?;
        let deliveries = sink.wait(50, LIMIT)?;
        assert!(deliveries.iter().all(|delivery| delivery.header("ce-subject") == "load/load-1"));
        wait::until("the ledger adds up", LIMIT, || match agent.consumer(DEFAULT_BROKER, "one") {
            Ok(c) if c["delivered"] == 50 && c["filtered"] == 150 && c["pending"] == 0 => Seen::Yes(()),
            other => Seen::NotYet(format!("{other:?}")),
        })
    })
}

#[test]
fn a_gateway_killed_while_it_delivers_repeats_little_and_misses_nothing() -> Result<()> {
    lab::run(|lab| {
        let sink = Sink::start()?;
        let mut gateway = Node::gateway(lab)?;
        let to = sink.url();
        let all = Trigger { name: "all", to: &to, annotations: &[EARLIEST], ..Trigger::default() };
        manifests(lab, &mut gateway, "gateway", &[all])?;
        gateway.start()?;
        let mut sent: Vec<String> = Vec::new();
        for round in 0..10 {
            for number in 0..40 {
                let id = format!("{round:02}-{number:02}");
                assert_eq!(gateway.post(DEFAULT_BROKER, &id, "text/plain", id.as_bytes())?.status, 202);
                sent.push(id);
            }
            gateway.kill9()?;
            gateway.start()?;
        }
        let last = sent.last().context("events")?.clone();
        wait::until("the last event arrives", LIMIT, || match sink.deliveries().last() {
            Some(delivery) if delivery.name().0 == last => Seen::Yes(()),
            other => Seen::NotYet(format!("{:?}", other.map(Delivery::name))),
        })?;
        let deliveries = sink.deliveries();
        let mut firsts: Vec<String> = Vec::new();
        for delivery in &deliveries {
            let id = delivery.name().0;
            if !firsts.contains(&id) {
                firsts.push(id);
            }
        }
        assert_eq!(firsts, sent, "all, in order of their first delivery");
        println!("{} deliveries of {} events over 10 kills", deliveries.len(), sent.len());
        Ok(())
    })
}

#[test]
fn a_reply_goes_back_into_the_broker() -> Result<()> {
    lab::run(|lab| {
        let second = Sink::start()?;
        let first = Sink::answering(|delivery, _| {
            let headers = [("ce-specversion", "1.0"), ("ce-id", "r"), ("ce-source", "/reply"), ("ce-type", "reply")];
            let mut headers: Vec<(String, String)> = headers.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec();
            headers.push(("content-type".to_owned(), "text/plain".to_owned()));
            Answer { status: 200, headers, body: Bytes::from(format!("to {}", delivery.name().0)) }
        })?;
        let mut gateway = Node::gateway(lab)?;
        let (a, b) = (first.url(), second.url());
        let ask = Trigger { name: "ask", to: &a, filter: &[("type", "test.event")], ..Trigger::default() };
        let answers = Trigger { name: "answers", to: &b, filter: &[("type", "reply")], ..Trigger::default() };
        manifests(lab, &mut gateway, "gateway", &[ask, answers])?;
        gateway.start()?;
        assert_eq!(gateway.post(DEFAULT_BROKER, "question", "text/plain", b"?")?.status, 202);
        let replies = second.wait(1, LIMIT)?;
        assert_eq!(replies[0].name(), ("r".to_owned(), "/reply".to_owned()));
        assert_eq!(replies[0].body.as_ref(), b"to question");
        Ok(())
    })
}

#[test]
fn what_cannot_be_delivered_becomes_a_dead_letter_and_the_next_goes_on() -> Result<()> {
    lab::run(|lab| {
        let sink = Sink::answering(|delivery, _| Answer::status(if delivery.name().0 == "bad" { 400 } else { 202 }))?;
        let letters = Sink::start()?;
        let mut gateway = Node::gateway(lab)?;
        let (to, dead) = (sink.url(), letters.url());
        let delivery =
            format!("{{retry: 2, backoffPolicy: exponential, backoffDelay: PT0.05S, deadLetterSink: {{uri: \"{dead}\"}}}}");
        let with = Trigger { name: "with-sink", to: &to, delivery: Some(&delivery), ..Trigger::default() };
        let without = Trigger { name: "without", to: &to, ..Trigger::default() };
        manifests(lab, &mut gateway, "gateway", &[with, without])?;
        gateway.start()?;
        for id in ["good", "bad", "better"] {
            assert_eq!(gateway.post(DEFAULT_BROKER, id, "text/plain", id.as_bytes())?.status, 202);
        }
        let dead = letters.wait(1, LIMIT)?;
        assert_eq!(dead[0].name().0, "bad");
        assert_eq!(dead[0].header("ce-knativeerrorcode"), "400");
        assert_eq!(dead[0].header("ce-knativeerrordest").trim_end_matches('/'), to);
        assert_eq!(dead[0].body.as_ref(), b"bad");
        for name in ["with-sink", "without"] {
            wait::until(format!("{name} has gone on"), LIMIT, || match gateway.consumer(DEFAULT_BROKER, name) {
                Ok(c) if c["delivered"] == 2 && c["dead_lettered"] == 1 && c["pending"] == 0 => Seen::Yes(()),
                other => Seen::NotYet(format!("{other:?}")),
            })?;
        }
        Ok(())
    })
}

#[test]
fn a_subscriber_that_is_down_is_retried_until_it_is_back() -> Result<()> {
    lab::run(|lab| {
        let sink = Sink::answering(|_, before| Answer::status(if before < 3 { 503 } else { 202 }))?;
        let mut gateway = Node::gateway(lab)?;
        let to = sink.url();
        manifests(lab, &mut gateway, "gateway", &[Trigger { name: "all", to: &to, ..Trigger::default() }])?;
        gateway.start()?;
        for id in ["1", "2"] {
            assert_eq!(gateway.post(DEFAULT_BROKER, id, "text/plain", b"x")?.status, 202);
        }
        let deliveries = sink.wait(5, LIMIT)?;
        let ids: Vec<String> = deliveries.iter().map(|delivery| delivery.name().0).collect();
        assert_eq!(ids, ["1", "1", "1", "1", "2"]);
        Ok(())
    })
}

#[test]
fn triggers_come_down_to_the_agents_they_are_for_and_run_without_a_gateway() -> Result<()> {
    lab::run(|lab| {
        let (boats, others, all) = (Sink::start()?, Sink::start()?, Sink::start()?);
        let mut pair = Pair::new(lab)?;
        pair.agent.set("agent.labels", "{ kind = \"boat\" }");
        let (boats_to, others_to, all_to) = (boats.url(), others.url(), all.url());
        let agents = |selector| [("godwit.dev/agents", selector)];
        let (boat, plane, every) = (agents("kind=boat"), agents("kind=plane"), agents(""));
        let triggers = [
            Trigger { name: "boats", to: &boats_to, annotations: &boat, ..Trigger::default() },
            Trigger { name: "planes", to: &others_to, annotations: &plane, ..Trigger::default() },
            Trigger { name: "every", to: &all_to, annotations: &every, ..Trigger::default() },
        ];
        manifests(lab, &mut pair.gateway, "gateway", &triggers)?;
        pair.gateway.start()?;
        pair.agent.start()?;
        wait::until("the Triggers run at the agent", LIMIT, || match pair.agent.broker(DEFAULT_BROKER) {
            Ok(b) if b.to_string().contains("boats") && b.to_string().contains("every") => Seen::Yes(()),
            other => Seen::NotYet(format!("{other:?}")),
        })?;
        assert_eq!(pair.agent.post(DEFAULT_BROKER, "1", "text/plain", b"x")?.status, 202);
        boats.wait(1, LIMIT)?;
        all.wait(1, LIMIT)?;
        // At the gateway they do not run; with it gone and the agent killed they do, at the agent.
        pair.arrived(LIMIT)?;
        pair.gateway.stop()?;
        pair.agent.kill9()?;
        pair.agent.start()?;
        assert_eq!(pair.agent.post(DEFAULT_BROKER, "2", "text/plain", b"x")?.status, 202);
        let ids = |deliveries: Vec<Delivery>| {
            let mut ids: Vec<String> = deliveries.iter().map(|delivery| delivery.name().0).collect();
            ids.dedup();
            ids
        };
        wait::until("event 2 arrives", LIMIT, || match ids(boats.deliveries()) {
            found if found == ["1", "2"] => Seen::Yes(()),
            found => Seen::NotYet(format!("{found:?}")),
        })?;
        assert!(others.deliveries().is_empty());
        Ok(())
    })
}

#[test]
fn an_invalid_set_leaves_the_old_one_running_and_says_why() -> Result<()> {
    lab::run(|lab| {
        let sink = Sink::start()?;
        let mut gateway = Node::gateway(lab)?;
        let to = sink.url();
        manifests(lab, &mut gateway, "gateway", &[Trigger { name: "all", to: &to, ..Trigger::default() }])?;
        gateway.start()?;
        lab.write("manifests-gateway/bad.yaml", "apiVersion: eventing.knative.dev/v1\nkind: Trigger\nspec: {brokr: x}\n")?;
        gateway.process().signal(Signal::HUP)?;
        wait::until("the log says why", LIMIT, || {
            let log = gateway.process().last_lines();
            if log.contains("bad.yaml") { Seen::Yes(()) } else { Seen::NotYet(log) }
        })?;
        assert_eq!(gateway.post(DEFAULT_BROKER, "1", "text/plain", b"x")?.status, 202);
        sink.wait(1, LIMIT)?;
        Ok(())
    })
}

#[test]
fn a_sequence_a_channel_and_a_service_by_name_with_the_same_manifests_as_elsewhere() -> Result<()> {
    lab::run(|lab| {
        let (step, display) = (Sink::start()?, Sink::start()?);
        let mut agent = Node::agent(lab, "agent-1")?;
        let yaml = format!(
            "apiVersion: flows.knative.dev/v1\nkind: Sequence\nmetadata: {{name: s, namespace: site}}\nspec:\n  steps:\n  - uri: {}\n---\n\
             apiVersion: messaging.knative.dev/v1\nkind: Channel\nmetadata: {{name: c}}\n---\n\
             apiVersion: messaging.knative.dev/v1\nkind: Subscription\nmetadata: {{name: d}}\nspec:\n  channel: {{apiVersion: \
             messaging.knative.dev/v1, kind: Channel, name: c}}\n  subscriber: {{ref: {{apiVersion: v1, kind: Service, name: \
             event-display}}}}\n",
            step.url()
        );
        let path = lab.write("manifests-flows/flows.yaml", &yaml)?;
        agent.set("agent.manifests", &path.parent().context("a folder")?.display().to_string());
        agent.set("resolve.services", &format!("default/event-display={}", display.url()));
        agent.start()?;
        for round in 1..=3 {
            let id = format!("e{round}");
            assert_eq!(agent.post("sequences/site/s", &id, "text/plain", b"x")?.status, 202);
            assert_eq!(agent.post("channels/default/c", &id, "text/plain", b"x")?.status, 202);
            agent.kill9()?;
            agent.start()?;
        }
        for sink in [&step, &display] {
            wait::until("the last event arrives", LIMIT, || match sink.deliveries().last() {
                Some(delivery) if delivery.name().0 == "e3" => Seen::Yes(()),
                other => Seen::NotYet(format!("{:?}", other.map(Delivery::name))),
            })?;
        }
        assert_eq!(agent.post("channels/default/none", "x", "text/plain", b"x")?.status, 404);
        let status = agent.status()?;
        let channels = status["channels"].as_array().context("channels")?;
        assert!(channels.iter().any(|c| c["name"] == "s-kn-sequence-0" && c["accepted"] == 3), "{status}");
        Ok(())
    })
}

#[test]
fn a_trigger_publishes_events_to_devices_on_the_agents_own_mqtt_listener() -> Result<()> {
    lab::run(|lab| {
        let mut agent = Node::agent(lab, "board")?;
        let to = "mqtt:///out/{id}?qos=1";
        manifests(lab, &mut agent, "agent", &[Trigger { name: "commands", to, ..Trigger::default() }])?;
        agent.start()?;
        let mut device = TcpStream::connect(agent.mqtt())?;
        device.set_read_timeout(Some(LIMIT))?;
        let mut out = Vec::new();
        mqtt::connect(&mut out, "device", true, 0, None);
        mqtt::subscribe(&mut out, 1, "out/#", 1);
        device.write_all(&out)?;
        let (mut bytes, mut room, mut suback) = (Vec::new(), [0; 4096], false);
        let publish = loop {
            while let Some((packet, size)) = mqtt::next(&bytes) {
                let whole: Vec<u8> = bytes.drain(..size).collect();
                match packet {
                    mqtt::Packet::Other(0x90) => suback = true,
                    mqtt::Packet::Other(first) if first >> 4 == 3 => bytes = [whole, bytes].concat(),
                    _ => {}
                }
                if bytes.first().is_some_and(|first| first >> 4 == 3) {
                    break;
                }
            }
            if suback {
                agent.post(DEFAULT_BROKER, "go", "text/plain", b"left")?;
                suback = false;
            }
            if bytes.first().is_some_and(|first| first >> 4 == 3) && mqtt::next(&bytes).is_some() {
                break bytes;
            }
            let n = device.read(&mut room)?;
            ensure!(n > 0, "the listener has closed");
            bytes.extend_from_slice(room.get(..n).unwrap_or_default());
        };
        ensure!(publish.first().is_some_and(|first| first >> 1 & 3 == 1), "QoS 1");
        let text = String::from_utf8_lossy(&publish).into_owned();
        ensure!(text.contains("out/go") && text.ends_with("left"), "{text:?}");
        wait::until("it counts as delivered", LIMIT, || match agent.consumer(DEFAULT_BROKER, "commands") {
            Ok(c) if c["delivered"] == 1 => Seen::Yes(()),
            other => Seen::NotYet(format!("{other:?}")),
        })?;
        assert_eq!(agent.accepted(DEFAULT_BROKER)?, 1, "what is published makes no event");
        Ok(())
    })
}
