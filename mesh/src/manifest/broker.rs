//! The kind Broker: `eventing.knative.dev/v1`.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::annotations::Annotations;
use super::delivery::DeliverySpec;
use super::duration::IsoDuration;
use super::error::FieldError;
use super::metadata::Metadata;
use crate::broker::BrokerSettings;
use crate::names::BrokerName;

/// The annotation that names a Broker's class.
pub(crate) const CLASS: &str = "eventing.knative.dev/broker.class";

/// The classes that are ours; absent is ours too.
const OUR_CLASSES: [&str; 2] = [OUR_CLASS, "MTChannelBasedBroker"];

/// The class of a Broker whose author named none.
pub(crate) const OUR_CLASS: &str = "Godwit";

/// A reference to a Broker's configuration. Ours need none; it is kept for what Knative's classes say there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Reference {
    /// API version of the object.
    pub api_version: Option<String>,
    /// Kind of the object.
    pub kind: Option<String>,
    /// Name of the object.
    pub name: Option<String>,
    /// Namespace of the object.
    pub namespace: Option<String>,
    /// Name of one of its addresses.
    pub address: Option<String>,
    /// Its API group, in place of the API version.
    pub group: Option<String>,
}

/// A Broker's `spec` as written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerSpec {
    /// Knative's configuration reference.
    pub config: Option<Reference>,
    /// The delivery of Triggers that have none of their own (D25).
    pub delivery: Option<DeliverySpec>,
}

/// A Channel's `spec` as written. What backs it is always a journal.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ChannelSpec {
    #[serde(default, rename = "channelTemplate")]
    _channel_template: IgnoredAny,
    #[serde(default, rename = "subscribers")]
    _subscribers: IgnoredAny,
    delivery: Option<DeliverySpec>,
}

/// A Broker, validated; or a Channel.
#[derive(Debug, Clone)]
pub struct BrokerObject {
    /// Its name.
    pub name: BrokerName,
    /// Our annotations.
    pub annotations: Annotations,
    /// A class that is not ours: such a Broker is kept, but not run here.
    pub foreign_class: Option<String>,
    /// Its spec.
    pub spec: BrokerSpec,
}

impl BrokerObject {
    pub(crate) fn new(metadata: &Metadata, annotations: Annotations, spec: BrokerSpec) -> Result<Self, FieldError> {
        let name =
            BrokerName::new(&metadata.namespace, &metadata.name).map_err(|e| FieldError::new("metadata.namespace", e))?;
        spec.check()?;
        let foreign_class = metadata.annotations.get(CLASS).filter(|c| !OUR_CLASSES.contains(&c.as_str())).cloned();
        Ok(Self { name, annotations, foreign_class, spec })
    }

    pub(super) fn channel(metadata: &Metadata, annotations: Annotations, spec: ChannelSpec) -> Result<Self, FieldError> {
        let name = BrokerName::channel(&metadata.namespace, &metadata.name)
            .map_err(|e| FieldError::new("metadata.namespace", e))?;
        let spec = BrokerSpec { config: None, delivery: spec.delivery };
        spec.check()?;
        Ok(Self { name, annotations, foreign_class: None, spec })
    }

    /// What its annotations say.
    #[must_use]
    pub fn settings(&self) -> BrokerSettings {
        BrokerSettings {
            uplink: self.uplink(),
            deduplication_ms: self.annotations.deduplication_window.map(IsoDuration::as_millis),
            retention: self.annotations.retention,
            closed: false,
        }
    }

    /// Whether the Broker's events go up to the gateway; a Channel's never do.
    #[must_use]
    pub fn uplink(&self) -> bool {
        !self.name.is_channel() && self.annotations.uplink.unwrap_or(true)
    }
}

impl BrokerSpec {
    fn check(&self) -> Result<(), FieldError> {
        self.delivery.as_ref().map_or(Ok(()), |delivery| delivery.check().map_err(|e| e.within("spec.delivery")))
    }
}
