//! One object: typed and validated, beside what its author wrote.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::annotations::Annotations;
use super::broker::{BrokerObject, BrokerSpec, CLASS, ChannelSpec, OUR_CLASS};
use super::convert::to_stored;
use super::error::{Fault, FieldError, ManifestError};
use super::flow;
use super::kind::Kind;
use super::metadata::{Metadata, ObjectKey, ObjectName};
use super::schema::{Findings, METADATA, Runs, Version, examine_spec};
use super::selector::is_label_value;
use super::source::{SourceSpec, is_source};
use super::subscription::{RawSubscriptionSpec, subscription};
use super::trigger::{RawTriggerSpec, TriggerSpec};
use crate::names::DEFAULT_NAMESPACE;

/// Knative's label on a Trigger: its Broker.
const BROKER_LABEL: &str = "eventing.knative.dev/broker";

/// When a PingSource without a schedule fires.
const EVERY_MINUTE: &str = "* * * * *";

/// What an object says, by kind.
#[derive(Debug, Clone)]
pub enum Spec {
    /// A Broker.
    Broker(BrokerObject),
    /// A Trigger.
    Trigger(TriggerSpec),
    /// A Channel or InMemoryChannel: both are journals.
    Channel(BrokerObject),
    /// A Subscription.
    Subscription(TriggerSpec),
    /// A Sequence or a Parallel; what it is made of runs, see [`Object::parts`].
    Flow,
    /// An object of a kind that runs, but this one lacks something.
    Lacking {
        /// One word, as in a condition.
        reason: &'static str,
        /// What it lacks.
        why: String,
    },
    /// A source, or what is bound to one.
    Source(Box<SourceSpec>),
    /// An object of a kind that is kept and does not run yet.
    Stored,
}

/// What becomes of fields that a kind does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strictness {
    /// The object is refused.
    #[default]
    Strict,
    /// They are left out, with a warning.
    Warn,
    /// They are left out.
    Ignore,
}

/// Why an object was refused: everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Full paths of unknown fields, if these are why.
    pub unknown: Vec<String>,
    /// What is wrong with fields that are known.
    pub wrong: Vec<FieldError>,
}

/// One validated object. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Object(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: String,
    kind: Kind,
    name: ObjectName,
    labels: std::collections::BTreeMap<String, String>,
    annotations: Annotations,
    spec: Spec,
    warnings: Vec<String>,
    parts: Vec<Object>,
    original: Value,
}

/// The outer shape of every object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw<S> {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Metadata,
    spec: S,
}

/// An object held against its schema: defaulted, in the stored version, without unknown fields.
struct Normal {
    kind: Kind,
    version: &'static Version,
    value: Value,
    findings: Findings,
}

impl Object {
    /// Validates one object. `place` names it while its own name is not known, as in `document 3`. Unknown fields are errors.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn from_value(file: &str, place: &str, original: Value) -> Result<Self, ManifestError> {
        let label = label(&original, place);
        Self::read(file, original, Strictness::Strict).map_err(|rejected| {
            let first = rejected.all().into_iter().next().unwrap_or_else(|| FieldError::new("", "is refused"));
            ManifestError::field(file, &label, &first.field, first.why)
        })
    }

    /// Validates one object that came from `file`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(file: &str, original: Value, strictness: Strictness) -> Result<Self, Rejected> {
        let Normal { kind, version, value, mut findings } =
            normal(&original).map_err(|e| Rejected { unknown: Vec::new(), wrong: vec![e] })?;
        let mut warnings: Vec<String> = Vec::new();
        match strictness {
            Strictness::Strict if !findings.is_empty() => return Err(findings.into()),
            Strictness::Warn => warnings.extend(findings.unknown.iter().map(|field| format!("unknown field \"{field}\""))),
            Strictness::Strict | Strictness::Ignore => {}
        }
        if !findings.wrong.is_empty() {
            findings.unknown.clear();
            return Err(findings.into());
        }
        let checked = typed_spec(kind, &value);
        let (metadata, annotations, spec) = checked.map_err(|e| Rejected { unknown: Vec::new(), wrong: vec![e] })?;
        warnings.extend(warnings_of(kind, version, &spec));
        let name = metadata.object_name();
        let parts = flow::parts(kind, file, &name, &value);
        let parts = parts.map_err(|e| Rejected { unknown: Vec::new(), wrong: vec![e] })?;
        Ok(Self(Arc::new(Inner {
            file: file.to_owned(),
            kind,
            name,
            labels: metadata.labels,
            annotations,
            spec,
            warnings,
            parts,
            original,
        })))
    }

    /// Holds a part of an object against its schema, as server-side apply takes it: what is missing may come from others. Returns
    /// it in the stored version, without defaults, and what deserves a look.
    ///
    /// # Errors
    /// Unknown fields, and values that cannot be.
    pub fn part(original: &Value, strictness: Strictness) -> Result<(Value, Vec<String>), Rejected> {
        let Normal { value, mut findings, .. } =
            held_against_schema(original).map_err(|e| Rejected { unknown: Vec::new(), wrong: vec![e] })?;
        findings.wrong.retain(|error| error.fault != Fault::Missing);
        let warnings = findings.unknown.iter().map(|field| format!("unknown field \"{field}\"")).collect();
        match strictness {
            Strictness::Strict if !findings.is_empty() => Err(findings.into()),
            _ if !findings.wrong.is_empty() => Err(Rejected { unknown: Vec::new(), wrong: findings.wrong }),
            Strictness::Warn => Ok((value, warnings)),
            Strictness::Strict | Strictness::Ignore => Ok((value, Vec::new())),
        }
    }

    /// The object's kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Namespace and name.
    #[must_use]
    pub fn name(&self) -> &ObjectName {
        &self.0.name
    }

    /// Its labels, those that are set by default too.
    #[must_use]
    pub fn labels(&self) -> &std::collections::BTreeMap<String, String> {
        &self.0.labels
    }

    /// The file it came from.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.0.file
    }

    /// What it says.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.0.spec
    }

    /// Our annotations on it.
    #[must_use]
    pub fn annotations(&self) -> &Annotations {
        &self.0.annotations
    }

    /// What deserves a look although the object is valid.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.0.warnings
    }

    /// The Channels and Subscriptions that a Sequence or a Parallel is made of.
    #[must_use]
    pub fn parts(&self) -> &[Self] {
        &self.0.parts
    }

    /// Which object it is.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        ObjectKey { kind: self.0.kind, name: self.0.name.clone() }
    }

    /// Whether both say the same, as their authors wrote them.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.original == other.0.original
    }

    /// The object as its author wrote it.
    #[must_use]
    pub fn original(&self) -> &Value {
        &self.0.original
    }

    /// The object with its defaults, in the version in which its kind is stored, without unknown fields, nulls and status.
    ///
    /// # Panics
    /// Never: it has been read before.
    #[must_use]
    pub fn current(&self) -> Value {
        normal(&self.0.original).expect("it was read before, and reading depends on nothing else").value
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

impl Rejected {
    /// Everything that is wrong, unknown fields first.
    #[must_use]
    pub fn all(&self) -> Vec<FieldError> {
        let unknown = self.unknown.iter().map(|field| FieldError::new(field.clone(), "unknown field"));
        unknown.chain(self.wrong.iter().cloned()).collect()
    }
}

impl From<Findings> for Rejected {
    fn from(findings: Findings) -> Self {
        Self { unknown: findings.unknown, wrong: findings.wrong }
    }
}

/// What an object is called while it is not known to be valid.
pub(super) fn label(original: &Value, place: &str) -> String {
    let text = |path: &str| original.pointer(path).and_then(Value::as_str).filter(|t| !t.is_empty());
    match (text("/kind"), text("/metadata/name")) {
        (Some(kind), Some(name)) => format!("{kind} {}/{name}", text("/metadata/namespace").unwrap_or(DEFAULT_NAMESPACE)),
        _ => place.to_owned(),
    }
}

/// Holds an object against its schema, and sets what Knative's webhook sets.
fn normal(original: &Value) -> Result<Normal, FieldError> {
    let mut normal = held_against_schema(original)?;
    set_defaults(normal.kind, &mut normal.value);
    Ok(normal)
}

/// Holds an object against its schema.
fn held_against_schema(original: &Value) -> Result<Normal, FieldError> {
    let Value::Object(mut object) = without_nulls(original) else {
        return Err(FieldError::new("", "is not an object with apiVersion, kind, metadata and spec"));
    };
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let (kind, version) = Kind::find(text("apiVersion"), text("kind").unwrap_or_default())?;
    object.remove("status");
    let mut findings = Findings::default();
    object.retain(|name, _| {
        let known = ["apiVersion", "kind", "metadata", "spec"].contains(&name.as_str());
        if !known {
            findings.unknown.push(name.chars().take(100).collect());
        }
        known
    });
    let Some(Value::Object(metadata)) = object.get_mut("metadata") else {
        return Err(FieldError::new("metadata", "is missing, or no object").missing());
    };
    metadata.entry("namespace").or_insert_with(|| Value::from(DEFAULT_NAMESPACE));
    let namespace = metadata.get("namespace").and_then(Value::as_str).unwrap_or(DEFAULT_NAMESPACE).to_owned();
    examine_spec(&METADATA, "metadata", metadata, &namespace, &mut findings);
    if !metadata.contains_key("name") {
        findings.wrong.push(FieldError::new("metadata.name", "is missing").missing());
    }
    let Value::Object(spec) = object.entry("spec").or_insert_with(|| Value::Object(Map::new())) else {
        findings.wrong.push(FieldError::new("spec", "must be an object"));
        return Ok(Normal { kind, version, value: Value::Object(object), findings });
    };
    examine_spec(version.spec, "spec", spec, &namespace, &mut findings);
    let mut value = Value::Object(object);
    if version.name != kind.resource().stored().name {
        to_stored(kind, version, &mut value);
        if let Some(Value::Object(spec)) = value.get_mut("spec") {
            // What the conversion made is valid if what it was made from is; it only lacks defaults.
            examine_spec(kind.resource().stored().spec, "spec", spec, &namespace, &mut Findings::default());
        }
    }
    Ok(Normal { kind, version, value, findings })
}

/// What Knative's webhook sets.
fn set_defaults(kind: Kind, object: &mut Value) {
    let broker = |spec: &Value| {
        let named = spec.get("broker").or_else(|| spec.pointer("/brokerRef/name"));
        named.and_then(Value::as_str).filter(|b| !b.is_empty() && is_label_value(b)).map(str::to_owned)
    };
    match kind {
        Kind::Broker => {
            entry(object, "metadata", "annotations").entry(CLASS).or_insert_with(|| Value::from(OUR_CLASS));
        }
        Kind::Trigger => {
            if let Some(name) = object.get("spec").and_then(broker) {
                entry(object, "metadata", "labels").insert(BROKER_LABEL.to_owned(), Value::from(name));
            }
            entry(object, "spec", "filter");
        }
        Kind::PingSource => {
            if let Some(Value::Object(spec)) = object.get_mut("spec") {
                spec.entry("schedule").or_insert_with(|| Value::from(EVERY_MINUTE));
            }
        }
        _ => {}
    }
}

/// The object `outer.inner`, made where it is missing. What stands there and is no object has been found to be wrong already, and
/// is replaced.
fn entry<'o>(object: &'o mut Value, outer: &str, inner: &str) -> &'o mut Map<String, Value> {
    let mut at = object;
    for name in [outer, inner] {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(map) = at else { unreachable!("made an object above") };
        at = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
    }
    if !at.is_object() {
        *at = Value::Object(Map::new());
    }
    let Value::Object(map) = at else { unreachable!("made an object above") };
    map
}

/// The typed object; what types cannot say is checked here.
fn typed_spec(kind: Kind, value: &Value) -> Result<(Metadata, Annotations, Spec), FieldError> {
    match kind {
        Kind::Broker => {
            let (metadata, annotations, spec) = typed::<BrokerSpec>(kind, value)?;
            let broker = BrokerObject::new(&metadata, annotations.clone(), spec)?;
            Ok((metadata, annotations, Spec::Broker(broker)))
        }
        Kind::Trigger => {
            let (metadata, annotations, raw) = typed::<RawTriggerSpec>(kind, value)?;
            let trigger = TriggerSpec::new(&metadata, annotations.clone(), raw)?;
            Ok((metadata, annotations, Spec::Trigger(trigger)))
        }
        Kind::Channel | Kind::InMemoryChannel => {
            let (metadata, annotations, spec) = typed::<ChannelSpec>(kind, value)?;
            let channel = BrokerObject::channel(&metadata, annotations.clone(), spec)?;
            Ok((metadata, annotations, Spec::Channel(channel)))
        }
        Kind::Subscription => {
            let (metadata, annotations, raw) = typed::<RawSubscriptionSpec>(kind, value)?;
            let spec = subscription(&metadata, annotations.clone(), raw)?;
            Ok((metadata, annotations, spec))
        }
        _ => {
            let (metadata, annotations, _) = typed::<serde::de::IgnoredAny>(kind, value)?;
            if is_source(kind) {
                let spec = value.get("spec").cloned().unwrap_or_default();
                let source = SourceSpec::new(kind, &metadata, &annotations, &spec)?;
                return Ok((metadata, annotations, Spec::Source(Box::new(source))));
            }
            let flow = matches!(kind, Kind::Sequence | Kind::Parallel);
            Ok((metadata, annotations, if flow { Spec::Flow } else { Spec::Stored }))
        }
    }
}

/// Reads metadata and spec into their types.
fn typed<S: DeserializeOwned>(kind: Kind, value: &Value) -> Result<(Metadata, Annotations, S), FieldError> {
    let raw: Raw<S> = serde_path_to_error::deserialize(value.clone()).map_err(|e| {
        let path = e.path().to_string();
        FieldError::new(if path == "." { String::new() } else { path }, e.into_inner())
    })?;
    raw.metadata.check().map_err(|e| e.within("metadata"))?;
    let annotations = Annotations::parse(kind, &raw.metadata.annotations).map_err(|e| e.within("metadata"))?;
    Ok((raw.metadata, annotations, raw.spec))
}

/// What a valid object does not do, or not as its author may think.
fn warnings_of(kind: Kind, version: &Version, spec: &Spec) -> Vec<String> {
    let mut warnings = Vec::new();
    if version.deprecated {
        let stored = kind.resource().api_version();
        warnings.push(format!("apiVersion: {} is deprecated; write {stored}", version.name));
    }
    if kind.resource().runs == Runs::NotYet {
        warnings.push(format!("{kind} is kept, but does not run yet (NotImplemented)"));
    }
    match spec {
        Spec::Broker(broker) => {
            if let Some(class) = &broker.foreign_class {
                warnings.push(format!("metadata.annotations[{CLASS}]: brokers of class {class} do not run here"));
            }
        }
        Spec::Lacking { why, .. } => warnings.push(why.clone()),
        Spec::Source(source) => warnings.extend(source.not_built().map(str::to_owned)),
        Spec::Trigger(_) | Spec::Channel(_) | Spec::Subscription(_) | Spec::Flow | Spec::Stored => {}
    }
    warnings
}

/// A copy in which every field that is `null` is absent.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), without_nulls(v))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}
