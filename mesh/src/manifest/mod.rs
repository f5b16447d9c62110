//! Objects in Knative's YAML: what they may say, and sets of them.
//!
//! A manifest is read in three steps: YAML (or JSON) to a JSON value; the value to a typed object, in which every field is
//! known and valid; the objects to a [`Manifests`] set, which is applied as a whole or not at all. Every error names the
//! file, the object, the field by its full path, and why. The object as its author wrote it stays beside the typed one, so
//! that a set can be kept, shown and sent on unaltered. `null` is absent, and a `status` in what people write is ignored.

mod annotations;
mod broker;
mod delivery;
mod destination;
mod duration;
mod error;
mod metadata;
mod object;
mod parse;
mod selector;
mod set;
#[cfg(test)]
mod tests;
mod trigger;

pub use annotations::{Annotations, Jitter, StartAt};
pub use broker::{BrokerObject, BrokerSpec, Reference as ConfigReference};
pub use delivery::{BackoffPolicy, DeliverySpec, Format};
pub use destination::{Destination, Reference};
pub use duration::IsoDuration;
pub use error::ManifestError;
pub use metadata::{Metadata, ObjectName};
pub use object::{Kind, Object, Spec};
pub use parse::{load_dir, parse_str};
pub use selector::{LabelSelector, SelectorError};
pub use set::{MAX_OBJECTS, Manifests};
pub use trigger::{FilterSpec, TriggerSpec};
