//! Promise: clients that nobody here wrote just work: `mosquitto_pub` (its default QoS 0 too), paho-mqtt, rumqttc, curl and the
//! CloudEvents SDK.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use godwit_tests::disk::run;
use godwit_tests::events::Entry;
use godwit_tests::lab;
use godwit_tests::need;
use godwit_tests::node::{DEFAULT_BROKER, Node};
use godwit_tests::python;
use godwit_tests::skip;

const LIMIT: Duration = Duration::from_secs(15);

fn started(lab: &lab::Lab) -> Result<Node> {
    let mut agent = Node::agent(lab, "agent-1")?;
    agent.start()?;
    Ok(agent)
}

fn arrived(agent: &Node, count: u64) -> Result<Vec<Entry>> {
    agent.wait_accepted(DEFAULT_BROKER, count, LIMIT)?;
    let entries = agent.events(DEFAULT_BROKER)?;
    assert_eq!(entries.len() as u64, count);
    Ok(entries)
}

fn mosquitto_pub(to: SocketAddr, arguments: &[&str]) -> Result<()> {
    let (host, port) = (to.ip().to_string(), to.port().to_string());
    run(Command::new("mosquitto_pub").args(["-h", &host, "-p", &port]).args(arguments)).map(drop)
}

#[test]
fn mosquitto_pub_at_every_qos() -> Result<()> {
    need!("mosquitto_pub_at_every_qos", "mosquitto_pub");
    lab::run(|lab| {
        let agent = started(lab)?;
        mosquitto_pub(agent.mqtt(), &["-i", "a", "-t", "sensors/1", "-m", "{\"celsius\": 21.50}"])?;
        mosquitto_pub(agent.mqtt(), &["-i", "b", "-q", "1", "-t", "sensors/2", "-m", "plain text"])?;
        mosquitto_pub(agent.mqtt(), &["-i", "c c", "-q", "2", "-t", "sensors/3", "-n"])?;
        let event = [
            "-V",
            "5",
            "-i",
            "d",
            "-q",
            "1",
            "-t",
            "e",
            "-m",
            "<a/>",
            "-D",
            "publish",
            "content-type",
            "text/xml",
            "-D",
            "publish",
            "user-property",
            "specversion",
            "1.0",
            "-D",
            "publish",
            "user-property",
            "id",
            "7",
            "-D",
            "publish",
            "user-property",
            "source",
            "/mine",
            "-D",
            "publish",
            "user-property",
            "type",
            "my.type",
        ];
        mosquitto_pub(agent.mqtt(), &event)?;
        let structured = r#"{"specversion":"1.0","id":"8","source":"/mine","type":"my.type","data":{"n":1.10}}"#;
        mosquitto_pub(agent.mqtt(), &["-i", "e", "-q", "1", "-t", "e", "-m", structured])?;
        let entries = arrived(&agent, 5)?;
        let events: Vec<_> = entries.iter().map(|entry| &entry.event).collect();
        assert_eq!(events[0].source, "/agents/agent-1/mqtt/a");
        assert_eq!(events[0].ty, "dev.godwit.mqtt.publish");
        assert_eq!(events[0].subject.as_deref(), Some("sensors/1"));
        assert_eq!(events[0].datacontenttype.as_deref(), Some("application/json"));
        assert_eq!(events[0].data()?, b"{\"celsius\": 21.50}");
        assert_eq!(events[1].data()?, b"plain text");
        assert_eq!(events[2].source, "/agents/agent-1/mqtt/c%20c");
        assert_eq!(events[2].data()?, b"");
        assert_eq!((events[3].id.as_str(), events[3].source.as_str(), events[3].ty.as_str()), ("7", "/mine", "my.type"));
        assert_eq!(events[3].datacontenttype.as_deref(), Some("text/xml"));
        assert_eq!(events[3].data()?, b"<a/>");
        assert_eq!((events[4].id.as_str(), events[4].data()?), ("8", b"{\"n\":1.10}".to_vec()));
        Ok(())
    })
}

#[test]
fn mosquitto_sub_sees_what_is_published() -> Result<()> {
    need!("mosquitto_sub_sees_what_is_published", "mosquitto_pub", "mosquitto_sub");
    lab::run(|lab| {
        let agent = started(lab)?;
        let (host, port) = (agent.mqtt().ip().to_string(), agent.mqtt().port().to_string());
        let subscriber = Command::new("mosquitto_sub")
            .args(["-h", &host, "-p", &port, "-t", "a/+", "-C", "1", "-W", "10", "-v", "-q", "1"])
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        let done = std::sync::atomic::AtomicBool::new(false);
        let output = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = mosquitto_pub(agent.mqtt(), &["-q", "1", "-t", "a/b", "-m", "hello"]);
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
            let output = subscriber.wait_with_output();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            output
        })?;
        assert_eq!(String::from_utf8_lossy(&output.stdout), "a/b hello\n");
        Ok(())
    })
}

#[test]
fn paho_mqtt_by_both_versions() -> Result<()> {
    let Some(python) = python::interpreter() else {
        skip::skip("paho_mqtt_by_both_versions", "needs python3 with venv, and PyPI");
        return Ok(());
    };
    lab::run(|lab| {
        let agent = started(lab)?;
        let (host, port) = (agent.mqtt().ip().to_string(), agent.mqtt().port().to_string());
        run(Command::new(python).arg(python::script("paho_publish.py")).args([&host, &port, "20"]))?;
        let entries = arrived(&agent, 121)?;
        for (place, entry) in entries.iter().take(60).enumerate() {
            assert_eq!(entry.event.subject.as_deref(), Some(format!("paho/v3/{}", place / 20).as_str()));
            assert_eq!(entry.event.data()?, format!("{{\"n\":{},\"x\":1.10}}", place % 20).as_bytes());
        }
        let last = &entries.last().context("events")?.event;
        assert_eq!((last.id.as_str(), last.source.as_str(), last.ty.as_str()), ("from-paho", "/paho", "paho.event"));
        assert_eq!(last.extensions["extra"], "ü");
        assert_eq!(last.data()?, b"{\"celsius\": 21.50}");
        Ok(())
    })
}

#[test]
fn rumqttc_publishes() -> Result<()> {
    lab::run(|lab| {
        let agent = started(lab)?;
        let mut options = rumqttc::MqttOptions::new("rumqttc", agent.mqtt().ip().to_string(), agent.mqtt().port());
        options.set_keep_alive(Duration::from_secs(5));
        let (client, mut connection) = rumqttc::Client::new(options, 100);
        let sending = std::thread::spawn(move || -> Result<()> {
            for number in 0..50 {
                client.publish("r/1", rumqttc::QoS::AtLeastOnce, false, format!("one {number}"))?;
                client.publish("r/2", rumqttc::QoS::ExactlyOnce, false, format!("two {number}"))?;
            }
            Ok(())
        });
        let (mut acknowledged, mut completed) = (0, 0);
        while acknowledged < 50 || completed < 50 {
            match connection.recv_timeout(LIMIT).ok().context("rumqttc waits in vain")?? {
                rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_)) => acknowledged += 1,
                rumqttc::Event::Incoming(rumqttc::Packet::PubComp(_)) => completed += 1,
                _ => {}
            }
        }
        sending.join().expect("no panic")?;
        let entries = arrived(&agent, 100)?;
        for (topic, word) in [("r/1", "one"), ("r/2", "two")] {
            let of_topic = entries.iter().filter(|entry| entry.event.subject.as_deref() == Some(topic));
            let data: Vec<Vec<u8>> = of_topic.map(|entry| entry.event.data()).collect::<Result<_>>()?;
            let expected: Vec<Vec<u8>> = (0..50).map(|number| format!("{word} {number}").into_bytes()).collect();
            assert_eq!(data, expected);
        }
        Ok(())
    })
}

#[test]
fn curl_posts_binary_structured_and_batched() -> Result<()> {
    need!("curl_posts_binary_structured_and_batched", "curl");
    lab::run(|lab| {
        let agent = started(lab)?;
        let url = format!("http://{}/default/default", agent.http());
        let post = |arguments: &[&str]| {
            run(Command::new("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code}", &url]).args(arguments))
        };
        let binary = [
            "-H",
            "ce-specversion: 1.0",
            "-H",
            "ce-id: 1",
            "-H",
            "ce-source: /curl",
            "-H",
            "ce-type: t",
            "-H",
            "content-type: application/json",
            "-d",
            "{\"a\": 1.10}",
        ];
        assert_eq!(post(&binary)?, "202");
        let structured = r#"{"specversion":"1.0","id":"2","source":"/curl","type":"t","data":"text"}"#;
        assert_eq!(post(&["-H", "content-type: application/cloudevents+json", "-d", structured])?, "202");
        let batch = format!("[{},{}]", structured.replace("\"2\"", "\"3\""), structured.replace("\"2\"", "\"4\""));
        assert_eq!(post(&["-H", "content-type: application/cloudevents-batch+json", "-d", &batch])?, "202");
        assert_eq!(post(&["-H", "content-type: application/json", "-d", "{}"])?, "400");
        assert_eq!(post(&["-X", "PUT", "-d", "{}"])?, "405");
        assert_eq!(
            post(&["--http2-prior-knowledge", "-H", "content-type: application/cloudevents+json", "-d", structured])?,
            "202"
        );
        let entries = arrived(&agent, 5)?;
        let ids: Vec<&str> = entries.iter().map(|entry| entry.event.id.as_str()).collect();
        assert_eq!(ids, ["1", "2", "3", "4", "2"]);
        assert_eq!(entries[0].event.data()?, b"{\"a\": 1.10}");
        Ok(())
    })
}

#[test]
fn the_cloudevents_sdk_posts() -> Result<()> {
    let Some(python) = python::interpreter() else {
        skip::skip("the_cloudevents_sdk_posts", "needs python3 with venv, and PyPI");
        return Ok(());
    };
    lab::run(|lab| {
        let agent = started(lab)?;
        let url = format!("http://{}/default/default", agent.http());
        run(Command::new(python).arg(python::script("cloudevents_post.py")).arg(&url))?;
        let entries = arrived(&agent, 2)?;
        for (entry, id) in entries.iter().zip(["binary", "structured"]) {
            assert_eq!((entry.event.id.as_str(), entry.event.source.as_str()), (id, "/python-sdk"));
            let data: serde_json::Value = serde_json::from_slice(&entry.event.data()?)?;
            assert_eq!(data["celsius"], 21.5);
            assert_eq!(entry.event.extensions["extra"], "ü 100%");
        }
        Ok(())
    })
}
