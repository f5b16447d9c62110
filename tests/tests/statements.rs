//! What Knative's conformance tests (`test/rekt`: broker and channel, control plane and data plane) say an implementation must do, asked of
//! the real agent. What they ask of Kubernetes itself (roles, categories of CRDs, OIDC, policies) has nothing to be asked here.

use std::time::Duration;

use anyhow::{Result, ensure};
use godwit_tests::http::{self, Response};
use godwit_tests::lab::{self, Lab};
use godwit_tests::node::Node;
use godwit_tests::sink::Sink;
use godwit_tests::wait::{self, Seen};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(20);
const JSON: (&str, &str) = ("content-type", "application/json");

/// Objects by the agent's API.
struct Api<'a>(&'a Node);

impl Api<'_> {
    fn create(&self, path: &str, object: &Value) -> Result<Response> {
        http::request(self.0.http(), "POST", path, &[JSON], object.to_string().as_bytes())
    }

    fn get(&self, path: &str, name: &str) -> Result<Value> {
        let answer = http::request(self.0.http(), "GET", &format!("{path}/{name}"), &[], &[])?;
        ensure!(answer.status == 200, "{name}: {} {}", answer.status, answer.text());
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// The status of an update of what `change` does to the object.
    fn update(&self, path: &str, name: &str, change: impl FnOnce(&mut Value)) -> Result<u16> {
        let mut object = self.get(path, name)?;
        change(&mut object);
        let body = object.to_string();
        Ok(http::request(self.0.http(), "PUT", &format!("{path}/{name}"), &[JSON], body.as_bytes())?.status)
    }

    fn ready(&self, path: &str, name: &str) -> Result<Value> {
        wait::until(format!("{name} is ready"), LIMIT, || match self.get(path, name) {
            Ok(object) if is_ready(&object) => Seen::Yes(object),
            other => Seen::NotYet(format!("{other:?}")),
        })
    }
}

fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

const BROKERS: &str = "/apis/eventing.knative.dev/v1/namespaces/default/brokers";
const TRIGGERS: &str = "/apis/eventing.knative.dev/v1/namespaces/default/triggers";
const CHANNELS: &str = "/apis/messaging.knative.dev/v1/namespaces/default/channels";
const SUBSCRIPTIONS: &str = "/apis/messaging.knative.dev/v1/namespaces/default/subscriptions";

fn broker(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "eventing.knative.dev/v1", "kind": "Broker",
        "metadata": {"name": name, "annotations": {"eventing.knative.dev/broker.class": "MTChannelBasedBroker"}}, "spec": spec})
}

fn trigger(name: &str, broker: &str, to: &str) -> Value {
    json!({"apiVersion": "eventing.knative.dev/v1", "kind": "Trigger", "metadata": {"name": name},
        "spec": {"broker": broker, "subscriber": {"uri": to}}})
}

fn agent(lab: &Lab) -> Result<Node> {
    let mut agent = Node::agent(lab, "agent-1")?;
    agent.start()?;
    Ok(agent)
}

/// Path and query of a URL of the agent's.
fn path_of(url: &Value) -> Result<String> {
    let url = url::Url::parse(url.as_str().unwrap_or_default())?;
    Ok(url.path().to_owned())
}

#[test]
fn a_broker_says_that_it_is_ready_and_where_and_keeps_its_class_and_config() -> Result<()> {
    lab::run(|lab| {
        let agent = agent(lab)?;
        let api = Api(&agent);
        let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "one", "namespace": "default"});
        let dead = json!({"deadLetterSink": {"uri": "http://127.0.0.1:9/dead"}});
        let made = api.create(BROKERS, &broker("b", &json!({"config": config, "delivery": dead})))?;
        ensure!(made.status == 201, "{}", made.text());
        let ready = api.ready(BROKERS, "b")?;
        assert_eq!(ready["status"]["deadLetterSinkUri"], "http://127.0.0.1:9/dead");
        let ingress = path_of(&ready["status"]["address"]["url"])?;
        let headers = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
        assert_eq!(
            http::request(agent.http(), "POST", &ingress, &headers, b"")?.status,
            202,
            "ready means that it takes events"
        );

        let class =
            |object: &mut Value| object["metadata"]["annotations"]["eventing.knative.dev/broker.class"] = "Kafka".into();
        assert!(api.update(BROKERS, "b", class)? >= 400, "the class stays");
        let config = |object: &mut Value| object["spec"]["config"]["name"] = "two".into();
        assert!(api.update(BROKERS, "b", config)? >= 400, "the config stays");
        let delivery = |object: &mut Value| object["spec"]["delivery"]["retry"] = 3.into();
        assert_eq!(api.update(BROKERS, "b", delivery)?, 200, "what may change can be changed");
        Ok(())
    })
}

#[test]
fn a_trigger_has_one_broker_waits_for_it_and_takes_filters_that_can_be() -> Result<()> {
    lab::run(|lab| {
        let agent = agent(lab)?;
        let api = Api(&agent);
        let made = api.create(TRIGGERS, &trigger("t", "late", "http://127.0.0.1:9/in"))?;
        ensure!(made.status == 201, "{}", made.text());
        assert!(!is_ready(&api.get(TRIGGERS, "t")?), "its Broker is not there");
        ensure!(api.create(BROKERS, &broker("late", &json!({})))?.status == 201);
        let ready = api.ready(TRIGGERS, "t")?;
        assert_eq!(ready["status"]["subscriberUri"], "http://127.0.0.1:9/in");
        assert_eq!(ready["spec"]["broker"], "late");
        assert!(
            api.update(TRIGGERS, "t", |object| object["spec"]["broker"] = "default".into())? >= 400,
            "its Broker stays"
        );
        let none = json!({"apiVersion": "eventing.knative.dev/v1", "kind": "Trigger", "metadata": {"name": "none"},
            "spec": {"broker": "", "subscriber": {"uri": "http://127.0.0.1:9/in"}}});
        assert!(api.create(TRIGGERS, &none)?.status >= 400, "one without a Broker");

        let names =
            ["source", "id", "specversion", "type", "subject", "time", "datacontenttype", "dataschema", "aaa", "c1d2e3"];
        let wanted: Value =
            names.iter().map(|name| ((*name).to_owned(), json!("a value"))).collect::<serde_json::Map<_, _>>().into();
        let status = api.update(TRIGGERS, "t", |object| object["spec"]["filter"] = json!({"attributes": wanted}))?;
        assert_eq!(status, 200);
        assert_eq!(api.get(TRIGGERS, "t")?["spec"]["filter"]["attributes"], wanted, "kept as written");
        for wrong in ["SOURCE", "Source", "souRce", "s pace s", "s_pace_s", "s-pace-s", "😊", "!@#$%^&*()", "{}[];':"] {
            let status = api.update(TRIGGERS, "t", |object| object["spec"]["filter"]["attributes"][wrong] = "x".into())?;
            assert!(status >= 400, "{wrong}: {status}");
        }
        Ok(())
    })
}

/// What must hold of the place where events are posted to a Broker or a Channel.
fn ingress(agent: &Node, path: &str) -> Result<()> {
    for method in ["GET", "PUT", "PATCH", "DELETE"] {
        let status = http::request(agent.http(), method, path, &[], b"")?.status;
        assert_eq!(status, 405, "{method} {path}");
    }
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "binary"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("ce-ext", "x"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("ce-traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        JSON,
    ];
    assert_eq!(http::request(agent.http(), "POST", path, &binary, b"{ \"v\": 1.10 }")?.status, 202);
    let structured = r#"{"specversion":"1.0","id":"structured","source":"/s","type":"t","ext":"x","data":{"v":1.10}}"#;
    let media = [("content-type", "application/cloudevents+json")];
    assert_eq!(http::request(agent.http(), "POST", path, &media, structured.as_bytes())?.status, 202);
    for (headers, body) in [
        (&[("ce-specversion", "1.0"), ("ce-id", "1")][..], ""),
        (&[("ce-specversion", "9.9"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")], ""),
        (&media, "{"),
        (&media, r#"{"specversion":"1.0","id":"1"}"#),
    ] {
        let status = http::request(agent.http(), "POST", path, headers, body.as_bytes())?.status;
        assert_eq!(status, 400, "{headers:?} {body}");
    }
    Ok(())
}

/// What must hold of the two events that [`ingress`] had taken in.
fn arrived(sink: &Sink) -> Result<()> {
    let deliveries = sink.wait(2, LIMIT)?;
    assert_eq!(deliveries.len(), 2, "each once, and nothing that was refused");
    let [binary, structured] = &*deliveries else { unreachable!() };
    for (delivery, id, data) in [(binary, "binary", &b"{ \"v\": 1.10 }"[..]), (structured, "structured", b"{\"v\":1.10}")] {
        let header = |name| delivery.header(name);
        assert_eq!((header("ce-specversion"), header("ce-id"), header("ce-source")), ("1.0", id, "/s"));
        assert_eq!((header("ce-type"), header("ce-ext")), ("t", "x"));
        assert_eq!(&delivery.body[..], data, "not altered");
    }
    assert!(binary.header("ce-traceparent").starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "traces go on");
    Ok(())
}

#[test]
fn a_broker_takes_events_by_post_alone_and_gives_them_on_as_they_came() -> Result<()> {
    lab::run(|lab| {
        let (agent, sink) = (agent(lab)?, Sink::start()?);
        let api = Api(&agent);
        ensure!(api.create(TRIGGERS, &trigger("t", "default", &sink.url()))?.status == 201);
        api.ready(TRIGGERS, "t")?;
        ingress(&agent, "/default/default")?;
        arrived(&sink)
    })
}

#[test]
fn a_channel_takes_events_by_post_alone_and_gives_them_on_as_they_came() -> Result<()> {
    lab::run(|lab| {
        let (agent, first, second) = (agent(lab)?, Sink::start()?, Sink::start()?);
        let api = Api(&agent);
        let channel = json!({"apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "metadata": {"name": "c"}});
        ensure!(api.create(CHANNELS, &channel)?.status == 201);
        let ready = api.ready(CHANNELS, "c")?;
        let path = path_of(&ready["status"]["address"]["url"])?;
        for (name, sink) in [("one", &first), ("two", &second)] {
            let subscription = json!({"apiVersion": "messaging.knative.dev/v1", "kind": "Subscription", "metadata": {"name": name},
                "spec": {"channel": {"apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "name": "c"},
                    "subscriber": {"uri": sink.url()}}});
            ensure!(api.create(SUBSCRIPTIONS, &subscription)?.status == 201);
            api.ready(SUBSCRIPTIONS, name)?;
        }
        ingress(&agent, &path)?;
        let unknown = http::request(agent.http(), "POST", "/channels/default/unknown", &[], b"")?;
        assert_eq!(unknown.status, 404, "no Channel, no answer but this");
        arrived(&first)?;
        arrived(&second)
    })
}
