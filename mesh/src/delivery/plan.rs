//! What one Trigger's task needs to know; when any of it changes, the task is replaced.

use super::policy::Policy;
use super::target::Target;
use super::triggers::DeliverySettings;
use crate::broker::Brokers;
use crate::filter::Filter;
use crate::journal::Start;
use crate::manifest::subscription::CHANNEL_FAILED;
use crate::manifest::{BrokerObject, Destination, Kind, ObjectKey, ObjectName, Reply, StartAt, TriggerSpec};
use crate::names::BrokerName;

/// Why `mqtt:` leads nowhere at a gateway.
pub(crate) const NO_LISTENER: &str =
    "mqtt: is the process's own MQTT listener, and this one has none; godwit.dev/agents gives a Trigger to agents";

/// The reason of a condition about what is taken and does not run yet.
pub(crate) const NOT_IMPLEMENTED: &str = "NotImplemented";

/// A Trigger with what it inherits from its Broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    kind: Kind,
    pub(crate) name: ObjectName,
    pub(crate) broker: BrokerName,
    /// The class of the Broker, if it is not ours.
    broker_class: Option<String>,
    pub(crate) filter: Filter,
    subscriber: Destination,
    reply: Reply,
    dead_letter_sink: Option<Destination>,
    pub(crate) policy: Policy,
    start: StartAt,
    pub(crate) hold: bool,
    /// Most deliveries at a time.
    pub(crate) parallelism: usize,
    /// Most events in one delivery.
    pub(crate) batch: usize,
    /// Whether the subscriber is asked for consent, and which rate for.
    handshake: Option<Option<u32>>,
}

/// Where a Trigger's events go, everything found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Targets {
    pub(crate) subscriber: Target,
    /// Where replies go that are not for the Broker itself.
    pub(crate) reply: Option<Target>,
    pub(crate) dead_letter_sink: Option<Target>,
}

/// Why a Trigger does not run yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotReady {
    /// One word, as in a condition.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// Whether a Broker that comes into being may change it.
    pub(crate) waits_for_broker: bool,
}

impl Plan {
    /// The plan of `trigger`; `broker` is its Broker's object, if anyone brought one.
    ///
    /// A Trigger's `delivery` replaces its Broker's as a whole (D25), save that the Broker's dead letter sink stays where the
    /// Trigger names none.
    pub(crate) fn new(trigger: &TriggerSpec, broker: Option<&BrokerObject>) -> Self {
        let inherited = broker.and_then(|b| b.spec.delivery.as_ref());
        let delivery = trigger.delivery.as_ref().or(inherited);
        let sink = |spec: Option<&crate::manifest::DeliverySpec>| spec.and_then(|d| d.dead_letter_sink.clone());
        Self {
            kind: trigger.kind,
            name: trigger.name.clone(),
            broker: trigger.broker.clone(),
            broker_class: broker.and_then(|b| b.foreign_class.clone()),
            filter: trigger.filter.clone(),
            subscriber: trigger.subscriber.clone(),
            reply: trigger.reply.clone(),
            dead_letter_sink: sink(trigger.delivery.as_ref()).or_else(|| sink(inherited)),
            policy: Policy::new(delivery, &trigger.annotations, broker.map(|b| &b.annotations)),
            start: trigger.annotations.start,
            hold: trigger.annotations.hold,
            parallelism: trigger.annotations.parallelism.map_or(1, usize::from),
            batch: trigger.annotations.batch.map_or(1, usize::from),
            handshake: trigger.annotations.webhook_handshake.then_some(trigger.annotations.webhook_rate),
        }
    }

    /// Which object it is the plan of.
    pub(crate) fn key(&self) -> ObjectKey {
        ObjectKey { kind: self.kind, name: self.name.clone() }
    }

    /// Whether a 2xx answer with a body that is no event is a failure (D21): of a Trigger's subscriber.
    pub(crate) fn wants_events(&self) -> bool {
        self.reply == Reply::Broker
    }

    /// Where the Trigger begins when it has no cursor yet.
    pub(crate) fn start(&self) -> Start {
        match self.start {
            StartAt::Earliest => Start::Earliest,
            StartAt::Latest => Start::Next,
        }
    }

    /// Finds everything that the Trigger refers to (D27).
    pub(crate) fn resolve(&self, brokers: &Brokers, settings: &DeliverySettings) -> Result<Targets, NotReady> {
        if let Some(class) = &self.broker_class {
            let message = format!("broker {} has class {class}, which does not run here", self.broker);
            return Err(NotReady { reason: "BrokerClassUnsupported", message, waits_for_broker: false });
        }
        let exists = |name: &BrokerName, reason| match brokers.get(name) {
            Some(_) => Ok(()),
            None => {
                Err(NotReady { reason, message: format!("{} {name} does not exist", name.what()), waits_for_broker: true })
            }
        };
        exists(&self.broker, if self.broker.is_channel() { CHANNEL_FAILED } else { "BrokerDoesNotExist" })?;
        let find = |destination: &Destination, reason| {
            let target = Target::resolve(destination, &self.name.namespace, settings).map_err(|e| NotReady {
                reason,
                message: e.0,
                waits_for_broker: false,
            })?;
            match &target {
                Target::Broker(name) => exists(name, reason)?,
                Target::Mqtt(_) if settings.listener.is_none() => {
                    let message = NO_LISTENER.to_owned();
                    return Err(NotReady { reason, message, waits_for_broker: false });
                }
                Target::Mqtt(_) | Target::Http(_) => {}
            }
            Ok(target)
        };
        let mut subscriber = find(&self.subscriber, "SubscriberNotResolved")?;
        if let Some(rate) = self.handshake {
            subscriber = subscriber.with_handshake(settings.address.host_str().unwrap_or("localhost"), rate);
        }
        let reply = match &self.reply {
            Reply::To(to) => Some(find(to, "ReplyNotResolved")?),
            Reply::Broker | Reply::Discard => None,
        };
        let sink = self.dead_letter_sink.as_ref().map(|d| find(d, "DeadLetterSinkNotResolved")).transpose()?;
        Ok(Targets { subscriber, reply, dead_letter_sink: sink })
    }
}
