//! One object: typed and validated, beside what its author wrote.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::annotations::Annotations;
use super::broker::{BrokerObject, BrokerSpec};
use super::error::{FieldError, ManifestError};
use super::metadata::{Metadata, ObjectName};
use super::trigger::{RawTriggerSpec, TriggerSpec};

const EVENTING_V1: &str = "eventing.knative.dev/v1";

/// The kinds that are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `eventing.knative.dev/v1` Broker.
    Broker,
    /// `eventing.knative.dev/v1` Trigger.
    Trigger,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broker => "Broker",
            Self::Trigger => "Trigger",
        })
    }
}

/// What an object says, by kind.
#[derive(Debug, Clone)]
pub enum Spec {
    /// A Broker.
    Broker(BrokerObject),
    /// A Trigger.
    Trigger(TriggerSpec),
}

/// One validated object. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Object(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: String,
    name: ObjectName,
    spec: Spec,
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

impl Object {
    /// Validates one object. `place` names it while its own name is not known, as in `document 3`.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn from_value(file: &str, place: &str, original: Value) -> Result<Self, ManifestError> {
        let text = |path: &str| original.pointer(path).and_then(Value::as_str);
        let kind_text = text("/kind").unwrap_or_default();
        let label = match text("/metadata/name") {
            Some(name) if !kind_text.is_empty() => {
                format!("{kind_text} {}/{name}", text("/metadata/namespace").unwrap_or(crate::names::DEFAULT_NAMESPACE))
            }
            _ => place.to_owned(),
        };
        let fail = |e: FieldError| ManifestError::field(file, &label, &e.field, e.why);

        if !original.is_object() {
            return Err(fail(FieldError::new("", "is not an object with apiVersion, kind, metadata and spec")));
        }
        let kind = kind_of(text("/apiVersion"), kind_text).map_err(fail)?;
        let spec = match kind {
            Kind::Broker => {
                let (metadata, annotations, spec) = typed::<BrokerSpec>(kind, &original).map_err(fail)?;
                BrokerObject::new(&metadata, annotations, spec).map(Spec::Broker).map(|s| (metadata, s))
            }
            Kind::Trigger => {
                let (metadata, annotations, raw) = typed::<RawTriggerSpec>(kind, &original).map_err(fail)?;
                TriggerSpec::new(&metadata, annotations, raw).map(Spec::Trigger).map(|s| (metadata, s))
            }
        };
        let (metadata, spec) = spec.map_err(fail)?;
        Ok(Self(Arc::new(Inner { file: file.to_owned(), name: metadata.object_name(), spec, original })))
    }

    /// The object's kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.0.spec {
            Spec::Broker(_) => Kind::Broker,
            Spec::Trigger(_) => Kind::Trigger,
        }
    }

    /// Namespace and name.
    #[must_use]
    pub fn name(&self) -> &ObjectName {
        &self.0.name
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
        match &self.0.spec {
            Spec::Broker(b) => &b.annotations,
            Spec::Trigger(t) => &t.annotations,
        }
    }

    /// The object as its author wrote it.
    #[must_use]
    pub fn original(&self) -> &Value {
        &self.0.original
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

fn kind_of(api_version: Option<&str>, kind: &str) -> Result<Kind, FieldError> {
    let api_version = api_version.ok_or_else(|| FieldError::new("apiVersion", "is missing, or no string"))?;
    match (api_version, kind) {
        (_, "") => Err(FieldError::new("kind", "is missing, or no string")),
        (EVENTING_V1, "Broker") => Ok(Kind::Broker),
        (EVENTING_V1, "Trigger") => Ok(Kind::Trigger),
        (other, "Broker" | "Trigger") => {
            Err(FieldError::new("apiVersion", format!("\"{other}\" is not known for a {kind}; write {EVENTING_V1}")))
        }
        (version, kind) => Err(FieldError::new(
            "kind",
            format!("{kind} of {version} is not built yet; Broker and Trigger of {EVENTING_V1} are"),
        )),
    }
}

/// Reads metadata and spec strictly: an unknown field is an error with its full path.
fn typed<S: DeserializeOwned>(kind: Kind, original: &Value) -> Result<(Metadata, Annotations, S), FieldError> {
    let mut value = without_nulls(original);
    if let Some(object) = value.as_object_mut() {
        object.remove("status");
        object.entry("spec").or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
    let raw: Raw<S> = serde_path_to_error::deserialize(value).map_err(|e| {
        let path = e.path().to_string();
        FieldError::new(if path == "." { String::new() } else { path }, e.into_inner())
    })?;
    raw.metadata.check().map_err(|e| e.within("metadata"))?;
    let annotations = Annotations::parse(kind, &raw.metadata.annotations).map_err(|e| e.within("metadata"))?;
    Ok((raw.metadata, annotations, raw.spec))
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
