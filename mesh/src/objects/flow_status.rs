//! The `status` of Subscriptions, Sequences and Parallels.

use serde_json::{Map, Value, json};

use super::status::{ADDRESSABLE, OIDC, Status, Truth};
use crate::delivery::Triggers;
use crate::manifest::subscription::CHANNEL_FAILED;
use crate::manifest::{Kind, Object, Spec};

const CHANNEL_READY: &str = "ChannelReady";
const REFERENCES: &str = "ReferencesResolved";
const ADDED: &str = "AddedToChannel";

impl Status {
    pub(super) fn of_subscription(object: &Object, triggers: &Triggers) -> Self {
        let Some(standing) = triggers.standing(&object.key()) else {
            return Self::alone(Truth::Unknown, "Starting", "not started yet");
        };
        let mut status = Self::default();
        let uris = [
            ("subscriberUri", standing.subscriber_uri),
            ("replyUri", standing.reply_uri),
            ("deadLetterSinkUri", standing.dead_letter_sink_uri),
        ];
        let uris: Map<String, Value> =
            uris.into_iter().filter_map(|(name, uri)| Some((name.to_owned(), uri?.into()))).collect();
        status.more.insert("physicalSubscription".to_owned(), uris.into());
        let fault = standing.not_ready.as_ref().map(|(reason, why)| (*reason, why.as_str()));
        let at = fault.map(|(reason, _)| match reason {
            CHANNEL_FAILED => CHANNEL_READY,
            "Starting" => ADDED,
            _ => REFERENCES,
        });
        // What comes behind the part at fault is not known.
        let mut known = true;
        for name in [CHANNEL_READY, REFERENCES, ADDED] {
            match fault {
                Some((reason, why)) if at == Some(name) => {
                    let truth = if reason == "Starting" { Truth::Unknown } else { Truth::False };
                    status.add(name, truth, reason, why);
                    known = false;
                }
                _ => status.add(name, if known { Truth::True } else { Truth::Unknown }, "", ""),
            }
        }
        status.add(OIDC, Truth::True, "OIDCFeatureDisabled", "");
        status.sum_up();
        status
    }

    /// A Sequence or a Parallel stands as its parts do.
    pub(super) fn of_flow(object: &Object, triggers: &Triggers) -> Self {
        let mut status = Self::default();
        let address = triggers.flow_url(object.kind(), object.name());
        let mut channels: Vec<(&Object, Option<String>)> = Vec::new();
        let mut subscriptions: Vec<(&Object, Option<String>)> = Vec::new();
        for part in object.parts() {
            match part.spec() {
                Spec::Channel(channel) => {
                    let missing = triggers.brokers().get(&channel.name).is_none();
                    channels.push((part, missing.then(|| format!("{part} is not made"))));
                }
                _ => subscriptions.push((part, not_ready(part, triggers))),
            }
        }
        status.address = Some(address);
        let all = |parts: &[(&Object, Option<String>)]| parts.iter().find_map(|(_, why)| why.clone());
        for (name, reason, why) in [
            ("ChannelsReady", "ChannelsNotReady", all(&channels)),
            ("SubscriptionsReady", "SubscriptionsNotReady", all(&subscriptions)),
        ] {
            match why {
                None => status.add(name, Truth::True, "", ""),
                Some(why) => status.add(name, Truth::False, reason, &why),
            }
        }
        for name in [ADDRESSABLE, "EventPoliciesReady"] {
            status.add(name, Truth::True, "", "");
        }
        status.add(OIDC, Truth::True, "OIDCFeatureDisabled", "");
        status.sum_up();
        let channels: Vec<Value> = channels.iter().map(|(part, why)| shown("channel", part, why.as_deref())).collect();
        let subscriptions: Vec<Value> =
            subscriptions.iter().map(|(part, why)| shown("subscription", part, why.as_deref())).collect();
        if object.kind() == Kind::Sequence {
            status.more.insert("channelStatuses".to_owned(), channels.into());
            status.more.insert("subscriptionStatuses".to_owned(), subscriptions.into());
        } else {
            // The first channel is in front; then each branch has one channel and two Subscriptions.
            let mut channels = channels.into_iter();
            status.more.insert("ingressChannelStatus".to_owned(), channels.next().unwrap_or_default());
            let branches = channels.zip(subscriptions.chunks(2)).map(|(channel, pair)| {
                json!({
                    "filterSubscriptionStatus": pair.first(),
                    "filterChannelStatus": channel,
                    "subscriberSubscriptionStatus": pair.get(1),
                })
            });
            status.more.insert("branchStatuses".to_owned(), branches.collect());
        }
        status
    }
}

/// Why a Subscription is not ready, if it is not.
fn not_ready(part: &Object, triggers: &Triggers) -> Option<String> {
    if let Spec::Lacking { why, .. } = part.spec() {
        return Some(format!("{part}: {why}"));
    }
    match triggers.standing(&part.key()) {
        None => Some(format!("{part} is not started yet")),
        Some(standing) => standing.not_ready.map(|(_, why)| format!("{part}: {why}")),
    }
}

/// One part as the whole's status shows it.
fn shown(what: &str, part: &Object, why: Option<&str>) -> Value {
    let resource = part.kind().resource();
    let mut ready = json!({"type": "Ready", "status": if why.is_none() { "True" } else { "False" }});
    if let (Some(why), Some(ready)) = (why, ready.as_object_mut()) {
        ready.insert("message".to_owned(), why.into());
    }
    json!({
        (what): {
            "apiVersion": resource.api_version(), "kind": resource.name,
            "name": part.name().name, "namespace": part.name().namespace,
        },
        "ready": ready,
    })
}
