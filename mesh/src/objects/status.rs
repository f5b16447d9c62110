//! The `status` of an object, made from how things stand: Knative's conditions, addresses, resolved URIs.
//!
//! A status is never read from what people write. A condition keeps the time at which its state last changed, as long as the
//! process lives.

use serde_json::{Map, Value, json};

use crate::clock::Clock;
use crate::delivery::Triggers;
use crate::delivery::plan::NOT_IMPLEMENTED;
use crate::manifest::{BrokerObject, Kind, Object, Spec};
use crate::names::BrokerName;
use crate::source::Missing;

use super::when::rfc3339;

const READY: &str = "Ready";
pub(super) const ADDRESSABLE: &str = "Addressable";
const DEAD_LETTER_SINK: &str = "DeadLetterSinkResolved";
const BROKER_READY: &str = "BrokerReady";
const SUBSCRIBER: &str = "SubscriberResolved";
const SUBSCRIPTION: &str = "SubscriptionReady";
const DEPENDENCY: &str = "DependencyReady";
pub(super) const OIDC: &str = "OIDCIdentityCreated";

/// What a queue of this kind has beside Addressable and DeadLetterSinkResolved: Knative's conditions of parts that are all one here.
fn conditions_of(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Channel => &["BackingChannelReady"],
        Kind::InMemoryChannel => {
            &["ChannelServiceReady", "DispatcherReady", "EndpointsReady", "EventPoliciesReady", "ServiceReady"]
        }
        _ => &["EventPoliciesReady", "FilterReady", "IngressReady", "TriggerChannelReady"],
    }
}

/// Whether something holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    True,
    False,
    Unknown,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    name: &'static str,
    truth: Truth,
    reason: &'static str,
    message: String,
    /// When it became so, in ms since 1970; `None` without a valid clock.
    since_ms: Option<u64>,
}

/// A status, before it is JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Status {
    conditions: Vec<Condition>,
    pub(super) address: Option<String>,
    subscriber_uri: Option<String>,
    dead_letter_sink_uri: Option<String>,
    /// What only some kinds have.
    pub(super) more: Map<String, Value>,
    sink_uri: Option<String>,
    /// `type` and `source` of a source's events.
    attributes: Option<(String, String)>,
}

impl Status {
    /// How `object` stands. `here`: whether it is applied in this process.
    pub(super) fn of(object: &Object, here: bool, triggers: &Triggers) -> Self {
        if !here {
            return Self::alone(Truth::Unknown, "ForAgents", "runs at the agents that godwit.dev/agents selects");
        }
        match object.spec() {
            Spec::Broker(broker) => Self::of_broker(Some(broker), &broker.name, triggers),
            Spec::Channel(channel) => Self::of_queue(Some(channel), &channel.name, conditions_of(object.kind()), triggers),
            Spec::Trigger(_) => Self::of_trigger(object, triggers),
            Spec::Subscription(_) => Self::of_subscription(object, triggers),
            Spec::Flow => Self::of_flow(object, triggers),
            Spec::Lacking { reason, why } => Self::alone(Truth::False, reason, why),
            Spec::Source(_) => Self::of_source(object, triggers),
            Spec::Stored if object.kind() == Kind::EventType => Self::of_event_type(object, triggers),
            Spec::Stored => {
                let mut what = object.warnings().to_vec();
                if what.is_empty() {
                    what.push(format!("{} is kept, but does not run yet", object.kind()));
                }
                Self::alone(Truth::False, NOT_IMPLEMENTED, &what.join("; "))
            }
        }
    }

    /// How a Broker stands that may have no object.
    pub(super) fn of_broker(object: Option<&BrokerObject>, name: &BrokerName, triggers: &Triggers) -> Self {
        Self::of_queue(object, name, conditions_of(Kind::Broker), triggers)
    }

    /// The same for Channels, which have the conditions `also`.
    fn of_queue(object: Option<&BrokerObject>, name: &BrokerName, also: &[&'static str], triggers: &Triggers) -> Self {
        if let Some(class) = object.and_then(|b| b.foreign_class.as_ref()) {
            let why = format!("brokers of class {class} do not run here");
            return Self::alone(Truth::False, "BrokerClassUnsupported", &why);
        }
        if triggers.brokers().get(name).is_none() {
            let reason = if name.is_channel() { "ChannelNotMade" } else { "BrokerNotMade" };
            return Self::alone(Truth::False, reason, "its journal is not there");
        }
        let url = triggers.broker_url(name);
        let mut status = Self { address: Some(url), ..Self::default() };
        let sink = object.and_then(|b| b.spec.delivery.as_ref()).and_then(|d| d.dead_letter_sink.as_ref());
        let sink = sink.map(|sink| triggers.resolve(sink, name.namespace()));
        let resolved = match sink {
            None => (Truth::True, "DeadLetterSinkNotConfigured", String::new()),
            Some(Ok(uri)) => {
                status.dead_letter_sink_uri = Some(uri);
                (Truth::True, "", String::new())
            }
            Some(Err((reason, why))) => (Truth::False, reason, why),
        };
        status.add(ADDRESSABLE, Truth::True, "", "");
        status.add(DEAD_LETTER_SINK, resolved.0, resolved.1, &resolved.2);
        for name in also {
            status.add(name, Truth::True, "", "");
        }
        status.sum_up();
        status
    }

    fn of_trigger(object: &Object, triggers: &Triggers) -> Self {
        let Some(standing) = triggers.standing(&object.key()) else {
            return Self::alone(Truth::Unknown, "Starting", "not started yet");
        };
        let mut status = Self {
            subscriber_uri: standing.subscriber_uri,
            dead_letter_sink_uri: standing.dead_letter_sink_uri,
            ..Self::default()
        };
        // What is at fault; the parts behind it are not known then.
        let fault = standing.not_ready.as_ref().map(|(reason, why)| {
            let part = match *reason {
                "BrokerDoesNotExist" | "BrokerClassUnsupported" => BROKER_READY,
                "DeadLetterSinkNotResolved" => DEAD_LETTER_SINK,
                "Starting" => SUBSCRIPTION,
                _ => SUBSCRIBER,
            };
            (part, *reason, why.as_str())
        });
        let sink = if status.dead_letter_sink_uri.is_none() { "DeadLetterSinkNotConfigured" } else { "" };
        let order = [
            (BROKER_READY, ""),
            (DEPENDENCY, ""),
            (OIDC, "OIDCFeatureDisabled"),
            (SUBSCRIBER, ""),
            (DEAD_LETTER_SINK, sink),
            (SUBSCRIPTION, ""),
        ];
        let at = fault.and_then(|(part, ..)| order.iter().position(|(name, _)| *name == part));
        for (i, (name, reason)) in order.into_iter().enumerate() {
            match (fault, at) {
                (Some((_, reason, why)), Some(at)) if i == at => {
                    let truth = if reason == "Starting" { Truth::Unknown } else { Truth::False };
                    status.add(name, truth, reason, why);
                }
                (Some(_), Some(at)) if i > at && name != DEPENDENCY && name != OIDC => {
                    status.add(name, Truth::Unknown, "", "");
                }
                _ => status.add(name, Truth::True, reason, ""),
            }
        }
        status.sum_up();
        status
    }

    /// The conditions of Knative's sources; ours have those of a PingSource.
    fn of_source(object: &Object, triggers: &Triggers) -> Self {
        let Some(standing) = triggers.sources().standing(object.kind(), object.name()) else {
            return Self::alone(Truth::Unknown, "Starting", "not started yet");
        };
        let mut status =
            Self { sink_uri: standing.sink.as_ref().ok().cloned(), attributes: standing.attributes, ..Self::default() };
        let deployed = match object.kind() {
            Kind::ContainerSource => {
                // Where the events go is the affair of a SinkBinding of its own, in Knative.
                status.add_found("SinkBindingReady", standing.sink.err().as_ref());
                "ReceiveAdapterReady"
            }
            kind => {
                status.add_found("SinkProvided", standing.sink.err().as_ref());
                if kind == Kind::PingSource || kind == Kind::SinkBinding {
                    status.add(OIDC, Truth::True, "OIDCFeatureDisabled", "");
                }
                if kind == Kind::SinkBinding { "SubjectFound" } else { "Deployed" }
            }
        };
        status.add_found(deployed, standing.deployed.err().as_ref());
        status.sum_up();
        status
    }

    /// An EventType tells where events can be had; whether that is there.
    fn of_event_type(object: &Object, triggers: &Triggers) -> Self {
        let value = object.current();
        let text = |field: &str| value.pointer(&format!("/spec/reference/{field}")).and_then(Value::as_str);
        let name = |name| BrokerName::new(text("namespace").unwrap_or(&object.name().namespace), name).ok();
        let there = match (text("kind"), text("name")) {
            (None, _) => Ok("ReferenceNotSet"),
            (Some("Broker"), Some(broker)) if name(broker).is_some_and(|name| triggers.brokers().get(&name).is_some()) => {
                Ok("")
            }
            (Some(kind), broker) => Err(format!("there is no {kind} {}", broker.unwrap_or_default())),
        };
        let mut status = Self::default();
        match there {
            Ok(reason) => status.add("ReferenceExists", Truth::True, reason, ""),
            Err(why) => status.add("ReferenceExists", Truth::False, "ReferenceNotFound", &why),
        }
        status.sum_up();
        status
    }

    fn add_found(&mut self, name: &'static str, missing: Option<&Missing>) {
        match missing {
            None => self.add(name, Truth::True, "", ""),
            Some(Missing { reason, message, unknown }) => {
                self.add(name, if *unknown { Truth::Unknown } else { Truth::False }, reason, message);
            }
        }
    }

    /// Only Ready.
    pub(super) fn alone(truth: Truth, reason: &'static str, message: &str) -> Self {
        let mut status = Self::default();
        status.add(READY, truth, reason, message);
        status
    }

    pub(super) fn add(&mut self, name: &'static str, truth: Truth, reason: &'static str, message: &str) {
        self.conditions.push(Condition { name, truth, reason, message: message.to_owned(), since_ms: None });
    }

    /// Ready holds when all else does; else it says what the first says that does not.
    pub(super) fn sum_up(&mut self) {
        let worst = self
            .conditions
            .iter()
            .find(|c| c.truth == Truth::False)
            .or_else(|| self.conditions.iter().find(|c| c.truth == Truth::Unknown));
        let ready = match worst {
            None => (Truth::True, "", String::new()),
            Some(c) => (c.truth, c.reason, c.message.clone()),
        };
        self.add(READY, ready.0, ready.1, &ready.2);
        self.conditions.sort_by_key(|c| c.name);
    }

    /// Takes over from `before` since when each condition has held; others hold from now on.
    pub(super) fn since(mut self, before: &Self, clock: &Clock) -> Self {
        for condition in &mut self.conditions {
            let was = before.conditions.iter().find(|c| c.name == condition.name && c.truth == condition.truth);
            condition.since_ms = was.map_or_else(|| clock.wall_ms(), |c| c.since_ms);
        }
        self
    }

    /// As JSON, of an object of this generation.
    pub(super) fn to_json(&self, generation: u64) -> Value {
        let mut status = Map::new();
        status.insert("observedGeneration".to_owned(), generation.into());
        if let Some(url) = &self.address {
            status.insert("address".to_owned(), json!({"name": "http", "url": url}));
        }
        if let Some(uri) = &self.subscriber_uri {
            status.insert("subscriberUri".to_owned(), uri.as_str().into());
        }
        if let Some(uri) = &self.dead_letter_sink_uri {
            status.insert("deadLetterSinkUri".to_owned(), uri.as_str().into());
        }
        status.extend(self.more.clone());
        if let Some(uri) = &self.sink_uri {
            status.insert("sinkUri".to_owned(), uri.as_str().into());
        }
        if let Some((ty, source)) = &self.attributes {
            status.insert("ceAttributes".to_owned(), json!([{"type": ty, "source": source}]));
        }
        status.insert("conditions".to_owned(), self.conditions.iter().map(Condition::to_json).collect());
        Value::Object(status)
    }
}

impl Condition {
    fn to_json(&self) -> Value {
        let truth = match self.truth {
            Truth::True => "True",
            Truth::False => "False",
            Truth::Unknown => "Unknown",
        };
        let mut json = Map::new();
        json.insert("type".to_owned(), self.name.into());
        json.insert("status".to_owned(), truth.into());
        for (name, text) in [("reason", self.reason), ("message", &self.message)] {
            if !text.is_empty() {
                json.insert(name.to_owned(), text.into());
            }
        }
        if let Some(ms) = self.since_ms {
            json.insert("lastTransitionTime".to_owned(), rfc3339(ms).into());
        }
        Value::Object(json)
    }
}
