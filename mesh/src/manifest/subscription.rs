//! The kind Subscription: `messaging.knative.dev/v1`. It is delivered like a Trigger without a filter, on a Channel.

use serde::Deserialize;

use super::annotations::Annotations;
use super::delivery::DeliverySpec;
use super::destination::{Destination, Reference};
use super::error::FieldError;
use super::kind::Kind;
use super::metadata::Metadata;
use super::object::Spec;
use super::trigger::{Reply, TriggerSpec};
use crate::filter::Filter;
use crate::names::BrokerName;

/// The reason of a Subscription that no Channel can be found for.
pub(crate) const CHANNEL_FAILED: &str = "ChannelReferenceFailed";

/// A Subscription's `spec` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawSubscriptionSpec {
    channel: Option<Reference>,
    subscriber: Option<Destination>,
    reply: Option<Destination>,
    delivery: Option<DeliverySpec>,
}

/// What a Subscription says. One that names no Channel of ours, or nothing to do with the events, is kept and does not run.
///
/// # Errors
/// What is wrong with a field.
pub(super) fn subscription(
    metadata: &Metadata,
    annotations: Annotations,
    raw: RawSubscriptionSpec,
) -> Result<Spec, FieldError> {
    for (field, destination) in [("spec.subscriber", &raw.subscriber), ("spec.reply", &raw.reply)] {
        if let Some(destination) = destination {
            destination.check().map_err(|e| e.within(field))?;
        }
    }
    if let Some(delivery) = &raw.delivery {
        delivery.check().map_err(|e| e.within("spec.delivery"))?;
    }
    let lacking = |reason, why: String| Ok(Spec::Lacking { reason, why });
    let Some(channel) = &raw.channel else {
        return lacking(CHANNEL_FAILED, "spec.channel: is missing".to_owned());
    };
    if !channel.is_channel() {
        let why = format!("spec.channel: a {} is none of the channels that run here; write a Channel", channel.kind);
        return lacking(CHANNEL_FAILED, why);
    }
    let namespace = channel.namespace.as_deref().unwrap_or(&metadata.namespace);
    let channel = BrokerName::channel(namespace, &channel.name).map_err(|e| FieldError::new("spec.channel.name", e))?;
    // Without a subscriber the events themselves go where its replies would.
    let (subscriber, reply) = match (raw.subscriber, raw.reply) {
        (Some(subscriber), reply) => (subscriber, reply.map_or(Reply::Discard, |to| Reply::To(Box::new(to)))),
        (None, Some(reply)) => (reply, Reply::Discard),
        (None, None) => {
            return lacking("SubscriberResolveFailed", "spec.subscriber: is missing, and so is spec.reply".to_owned());
        }
    };
    Ok(Spec::Subscription(TriggerSpec {
        kind: Kind::Subscription,
        name: metadata.object_name(),
        uid: metadata.uid.clone(),
        annotations,
        broker: channel,
        filter: Filter::all(),
        subscriber,
        reply,
        delivery: raw.delivery,
    }))
}
