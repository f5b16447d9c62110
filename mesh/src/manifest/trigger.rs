//! The kind Trigger: `eventing.knative.dev/v1`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::annotations::Annotations;
use super::delivery::DeliverySpec;
use super::destination::{Destination, Reference};
use super::error::FieldError;
use super::kind::Kind;
use super::metadata::{Metadata, ObjectKey, ObjectName};
use crate::filter::{Dialect, Filter};
use crate::names::BrokerName;

/// A Trigger's `spec.filter` as written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterSpec {
    /// Attributes that must have exactly these values; an empty value asks for any that is not empty.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// A Trigger's `spec` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct RawTriggerSpec {
    #[serde(default)]
    broker: String,
    #[serde(default)]
    broker_ref: Option<Reference>,
    #[serde(default)]
    filter: FilterSpec,
    #[serde(default)]
    filters: Vec<Dialect>,
    subscriber: Destination,
    #[serde(default)]
    delivery: Option<DeliverySpec>,
}

/// What becomes of a subscriber's replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// They go into the Broker itself (D19): a Trigger's.
    Broker,
    /// They are thrown away (D22).
    Discard,
    /// They go there (D22).
    To(Box<Destination>),
}

/// A Trigger, validated, its filter compiled; or a Subscription, which is one without a filter on a Channel.
#[derive(Debug, Clone)]
pub struct TriggerSpec {
    /// Trigger or Subscription.
    pub kind: Kind,
    /// Its namespace and name.
    pub name: ObjectName,
    /// The uid in its metadata, which only means something where our own API set it.
    pub(crate) uid: Option<String>,
    /// Our annotations.
    pub annotations: Annotations,
    /// The Broker whose events it wants; never changes.
    pub broker: BrokerName,
    /// Which events it wants.
    pub filter: Filter,
    /// Where they go.
    pub subscriber: Destination,
    /// Where the subscriber's replies go.
    pub reply: Reply,
    /// What happens when they are not taken; absent: the Broker's, else our default.
    pub delivery: Option<DeliverySpec>,
}

impl TriggerSpec {
    /// Which object it is.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        ObjectKey { kind: self.kind, name: self.name.clone() }
    }

    pub(crate) fn new(metadata: &Metadata, annotations: Annotations, raw: RawTriggerSpec) -> Result<Self, FieldError> {
        let broker = broker(metadata, &raw)?;
        // Both are checked, also where only one of them counts.
        let attributes = Filter::attributes(&raw.filter.attributes)
            .map_err(|e| FieldError::new(format!("spec.filter.attributes{}", e.field), e.why))?;
        let dialects =
            Filter::dialects(&raw.filters).map_err(|e| FieldError::new(format!("spec.filters{}", e.field), e.why))?;
        let filter = if raw.filters.is_empty() { attributes } else { dialects };
        raw.subscriber.check().map_err(|e| e.within("spec.subscriber"))?;
        if let Some(delivery) = &raw.delivery {
            delivery.check().map_err(|e| e.within("spec.delivery"))?;
        }
        Ok(Self {
            kind: Kind::Trigger,
            name: metadata.object_name(),
            uid: metadata.uid.clone(),
            annotations,
            broker,
            filter,
            subscriber: raw.subscriber,
            reply: Reply::Broker,
            delivery: raw.delivery,
        })
    }
}

/// The Broker that a Trigger names, in its own namespace or by a reference.
fn broker(metadata: &Metadata, raw: &RawTriggerSpec) -> Result<BrokerName, FieldError> {
    match &raw.broker_ref {
        None if raw.broker.is_empty() => Err(FieldError::new("spec.broker", "is missing").missing()),
        None => BrokerName::new(&metadata.namespace, &raw.broker).map_err(|e| FieldError::new("spec.broker", e)),
        Some(_) if !raw.broker.is_empty() => {
            Err(FieldError::new("spec.brokerRef", "broker and brokerRef exclude each other: write one of them"))
        }
        Some(reference) if !reference.is_broker() => {
            Err(FieldError::new("spec.brokerRef.kind", "must be a Broker of eventing.knative.dev/v1"))
        }
        Some(reference) => {
            let namespace = reference.namespace.as_deref().unwrap_or(&metadata.namespace);
            BrokerName::new(namespace, &reference.name).map_err(|e| FieldError::new("spec.brokerRef", e))
        }
    }
}
