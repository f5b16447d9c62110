//! An object's metadata: its name, labels and annotations. What only a server sets is accepted and left alone.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::error::FieldError;
use super::kind::Kind;
use super::selector::{is_label_key, is_label_value};
use crate::names::{DEFAULT_NAMESPACE, check_name};

/// Most bytes of all annotations of one object together, as in Kubernetes.
const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

/// Namespace and name of an object, unique within its kind. Displayed as `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// The namespace, `default` where none is written.
    pub namespace: String,
    /// The name within the namespace.
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which object: its kind, namespace and name. Displayed as `Kind namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub name: ObjectName,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// Metadata as written. The fields that a Kubernetes API server sets are accepted, so that what was read from one can be
/// applied here.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Metadata {
    /// The object's name.
    pub name: String,
    /// The object's namespace.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Labels, for selectors.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations; ours begin with `godwit.dev/`.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// What a server called this very object; only our own API's word counts.
    #[serde(default)]
    pub uid: Option<String>,
    #[serde(default, rename = "resourceVersion")]
    _resource_version: IgnoredAny,
    #[serde(default, rename = "generation")]
    _generation: IgnoredAny,
    #[serde(default, rename = "creationTimestamp")]
    _creation_timestamp: IgnoredAny,
    #[serde(default, rename = "deletionTimestamp")]
    _deletion_timestamp: IgnoredAny,
    #[serde(default, rename = "deletionGracePeriodSeconds")]
    _deletion_grace_period_seconds: IgnoredAny,
    #[serde(default, rename = "finalizers")]
    _finalizers: IgnoredAny,
    #[serde(default, rename = "ownerReferences")]
    _owner_references: IgnoredAny,
    #[serde(default, rename = "managedFields")]
    _managed_fields: IgnoredAny,
    #[serde(default, rename = "selfLink")]
    _self_link: IgnoredAny,
    #[serde(default, rename = "generateName")]
    _generate_name: IgnoredAny,
    #[serde(default, rename = "clusterName")]
    _cluster_name: IgnoredAny,
}

fn default_namespace() -> String {
    DEFAULT_NAMESPACE.to_owned()
}

impl Metadata {
    /// Namespace and name.
    #[must_use]
    pub fn object_name(&self) -> ObjectName {
        ObjectName { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// Checks names, labels and annotation keys. Paths are relative to `metadata`.
    pub(crate) fn check(&self) -> Result<(), FieldError> {
        check_name("name", &self.name).map_err(|e| FieldError::new("name", e))?;
        check_name("namespace", &self.namespace).map_err(|e| FieldError::new("namespace", e))?;
        for (key, value) in &self.labels {
            if !is_label_key(key) {
                return Err(FieldError::new(format!("labels[{key}]"), "is not a label key"));
            }
            if !is_label_value(value) {
                return Err(FieldError::new(
                    format!("labels[{key}]"),
                    "a label value has at most 63 letters, digits, '-', '_', '.'",
                ));
            }
        }
        if let Some(key) = self.annotations.keys().find(|k| !is_label_key(k)) {
            return Err(FieldError::new(format!("annotations[{key}]"), "is not an annotation key"));
        }
        if self.annotations.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > MAX_ANNOTATION_BYTES {
            return Err(FieldError::new("annotations", "have more than 256 KiB together"));
        }
        Ok(())
    }
}
