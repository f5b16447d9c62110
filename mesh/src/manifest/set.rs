//! A set of objects, applied as a whole.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::broker::BrokerObject;
use super::error::ManifestError;
use super::kind::Kind;
use super::metadata::ObjectName;
use super::object::{Object, Spec};
use super::trigger::TriggerSpec;

/// Most objects in one set.
pub const MAX_OBJECTS: usize = 10_000;

/// A validated set: at most one object for each kind and name. Serialises as a JSON array of the objects as they were
/// written; [`Manifests::from_json`] reads that back.
#[derive(Debug, Clone, Default)]
pub struct Manifests {
    objects: BTreeMap<(Kind, ObjectName), Object>,
    warnings: Vec<String>,
}

impl Manifests {
    /// A set of these objects. Where a name is repeated the last one wins, with a warning.
    ///
    /// # Errors
    /// When there are more than [`MAX_OBJECTS`].
    pub fn new(objects: impl IntoIterator<Item = Object>) -> Result<Self, ManifestError> {
        let mut set = Self::default();
        for object in objects {
            let key = (object.kind(), object.name().clone());
            if let Some(earlier) = set.objects.insert(key, object.clone()) {
                let warning = format!("{object} in {} replaces the one in {}", object.file(), earlier.file());
                set.warnings.push(warning);
            }
            if set.objects.len() > MAX_OBJECTS {
                return Err(ManifestError::file(object.file(), format!("more than {MAX_OBJECTS} objects in one set")));
            }
        }
        Ok(set)
    }

    /// Reads every manifest in a folder; see [`super::load_dir`].
    ///
    /// # Errors
    /// The first thing that is wrong in any of the files.
    pub fn load_dir(dir: &std::path::Path) -> Result<Self, ManifestError> {
        super::load_dir(dir)
    }

    /// Reads the JSON form of a set that was kept or sent. `from` is named in errors.
    ///
    /// # Errors
    /// When it is no array of valid objects.
    pub fn from_json(from: &str, json: &[u8]) -> Result<Self, ManifestError> {
        let items: Vec<Value> = serde_json::from_slice(json).map_err(|e| ManifestError::file(from, e))?;
        let objects = items
            .into_iter()
            .enumerate()
            .map(|(i, item)| Object::from_value(from, &format!("object {}", i + 1), item))
            .collect::<Result<Vec<_>, _>>()?;
        Self::new(objects)
    }

    /// The JSON form: an array of the objects as they were written, in the order of kind, namespace and name.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("JSON values have string keys, and memory takes all writes")
    }

    /// What deserves a look although the set is valid.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// All objects, by kind, namespace and name.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.values()
    }

    /// The object of this kind and name.
    #[must_use]
    pub fn get(&self, kind: Kind, name: &ObjectName) -> Option<&Object> {
        self.objects.get(&(kind, name.clone()))
    }

    /// The same set with `object` in the place of the one of its kind and name.
    ///
    /// # Errors
    /// When there are more than [`MAX_OBJECTS`] then.
    pub fn with(&self, object: Object) -> Result<Self, ManifestError> {
        let mut objects = self.objects.clone();
        let file = object.file().to_owned();
        objects.insert((object.kind(), object.name().clone()), object);
        if objects.len() > MAX_OBJECTS {
            return Err(ManifestError::file(&file, format!("more than {MAX_OBJECTS} objects in one set")));
        }
        Ok(Self { objects, warnings: Vec::new() })
    }

    /// The same set without the object of this kind and name.
    #[must_use]
    pub fn without(&self, kind: Kind, name: &ObjectName) -> Self {
        let mut objects = self.objects.clone();
        objects.remove(&(kind, name.clone()));
        Self { objects, warnings: Vec::new() }
    }

    /// The Brokers.
    pub fn brokers(&self) -> impl Iterator<Item = &BrokerObject> {
        self.objects.values().filter_map(|o| match o.spec() {
            Spec::Broker(broker) => Some(broker),
            Spec::Trigger(_) | Spec::Source(_) | Spec::Stored => None,
        })
    }

    /// The Triggers.
    pub fn triggers(&self) -> impl Iterator<Item = &TriggerSpec> {
        self.objects.values().filter_map(|o| match o.spec() {
            Spec::Trigger(trigger) => Some(trigger),
            Spec::Broker(_) | Spec::Source(_) | Spec::Stored => None,
        })
    }

    /// The objects that run where the set was applied: those without `godwit.dev/agents`.
    #[must_use]
    pub fn for_here(&self) -> Self {
        self.only(|o| o.annotations().agents.is_none())
    }

    /// The objects for an agent with these labels: those whose `godwit.dev/agents` selects it.
    #[must_use]
    pub fn for_agent(&self, labels: &BTreeMap<String, String>) -> Self {
        self.only(|o| o.annotations().agents.as_ref().is_some_and(|s| s.matches(labels)))
    }

    fn only(&self, keep: impl Fn(&Object) -> bool) -> Self {
        let objects = self.objects.iter().filter(|(_, o)| keep(o)).map(|(k, o)| (k.clone(), o.clone())).collect();
        Self { objects, warnings: Vec::new() }
    }
}

/// Equal when the objects are, as they were written.
impl PartialEq for Manifests {
    fn eq(&self, other: &Self) -> bool {
        self.objects.len() == other.objects.len()
            && self.objects.iter().zip(&other.objects).all(|((a, x), (b, y))| a == b && x.original() == y.original())
    }
}

impl Serialize for Manifests {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.objects.values().map(Object::original))
    }
}
