//! Objects in Knative's YAML: what they may say, and sets of them.
//!
//! A manifest is read in three steps: YAML (or JSON) to a JSON value; the value, held against its kind's [`schema`], to an
//! [`Object`] in which every field is known and valid, typed where the kind runs; the objects to a [`Manifests`] set, which is
//! applied as a whole or not at all. Every error names the file, the object, the field by its full path, and why. The object as
//! its author wrote it stays beside the typed one, so that a set can be kept, shown and sent on unaltered; [`Object::current`]
//! gives it with defaults, in the version in which its kind is stored. `null` is absent, and a `status` in what people write is
//! ignored. Kinds and features that do not run yet are taken, with a warning; their condition says so.

mod annotations;
mod broker;
mod convert;
mod delivery;
mod destination;
mod duration;
mod error;
pub(crate) mod flow;
mod kind;
mod metadata;
mod object;
mod parse;
pub mod schema;
mod selector;
mod set;
mod source;
pub(crate) mod subscription;
mod template;
#[cfg(test)]
mod tests;
mod topic;
mod trigger;

pub use annotations::{ANNOTATIONS, Annotation, Annotations, Jitter, MissedRuns, StartAt};
pub use broker::{BrokerObject, BrokerSpec, Reference as ConfigReference};
pub use convert::from_stored;
pub use delivery::{BackoffPolicy, DeliverySpec, Format};
pub(crate) use destination::absolute;
pub use destination::{Destination, Reference};
pub use duration::IsoDuration;
pub use error::{Fault, FieldError, ManifestError};
pub use kind::Kind;
pub use metadata::{Metadata, ObjectKey, ObjectName};
pub use object::{Object, Rejected, Spec, Strictness};
pub use parse::{Document, documents, load_dir, manifest_files, parse_str, read_file};
pub use selector::{LabelSelector, SelectorError};
pub use set::{MAX_OBJECTS, Manifests};
pub use source::{
    ContainerSpec, FileMode, FileSpec, FileStart, HttpPollSpec, MqttSpec, PingSpec, ProgramSpec, SourceKind, SourceSpec,
    Subject,
};
pub use template::{Escape, Template, Variables};
pub(crate) use topic::Topic;
pub use trigger::{FilterSpec, Reply, TriggerSpec};
