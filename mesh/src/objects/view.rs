//! Every object of this process as the API shows it, whoever brought it, and the changes that watches follow.
//!
//! The view is made anew from the owners' sets and the Triggers' state whenever one of them changes ([`View::refresh`]); what
//! comes out otherwise than before gets a new revision and goes to the watches. Revisions grow with every change; each start
//! begins a range of its own, so that a watch from before the last start is told to begin anew and never misses a change.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::status::Status;
use super::when::rfc3339;
use crate::delivery::{Owner, Triggers};
use crate::manifest::{Kind, Manifests, Object, ObjectName};
use crate::names::BrokerName;

/// Most changes that watches can look back on, and most bytes of them.
const HISTORY: usize = 512;
const HISTORY_BYTES: usize = 1 << 20;

/// How many revisions a start has to itself.
const REVISIONS_BITS: u32 = 32;

pub use crate::manifest::ObjectKey as Key;

/// Labels of an object.
pub(super) type Labels = Arc<BTreeMap<String, String>>;

/// One object as it is shown.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Who brought it; `None`: a Broker that is there although nobody wrote it down.
    pub(super) owner: Option<Owner>,
    pub(super) object: Option<Object>,
    /// The Sequence or Parallel that it is a part of, and changes with.
    pub(super) part_of: Option<Key>,
    pub(super) labels: Labels,
    /// Its JSON in the version in which its kind is stored.
    pub(super) text: Arc<str>,
    status: Status,
    generation: u64,
    created_ms: Option<u64>,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Added,
    Modified,
    Deleted,
}

/// One change, for watches.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) revision: u64,
    pub(super) what: What,
    pub(super) key: Key,
    pub(super) text: Arc<str>,
    pub(super) labels: Labels,
    /// Its labels before.
    pub(super) before: Labels,
}

/// What is shown.
#[derive(Debug)]
pub(super) struct View {
    pub(super) entries: BTreeMap<Key, Entry>,
    pub(super) revision: u64,
    /// What the folder of manifests brought, also what does not run here; `None` while there is no set to go by.
    pub(super) files: Option<Manifests>,
    /// What came over the API, also what does not run here.
    pub(super) kept: Manifests,
    history: VecDeque<Change>,
    history_bytes: usize,
    /// The newest revision that watches cannot look back on.
    forgotten: u64,
    /// What was looked at last: how often Triggers changed, how many Brokers there were, which sets.
    seen: Option<(u64, usize)>,
}

impl View {
    pub(super) fn new(start: u64) -> Self {
        let revision = start << REVISIONS_BITS;
        Self {
            entries: BTreeMap::new(),
            revision,
            files: None,
            kept: Manifests::default(),
            history: VecDeque::new(),
            history_bytes: 0,
            forgotten: revision,
            seen: None,
        }
    }

    /// Shows another set of the folder.
    pub(super) fn set_files(&mut self, files: Manifests) {
        self.files = Some(files);
        self.seen = None;
    }

    /// Shows another set of the API.
    pub(super) fn set_kept(&mut self, kept: Manifests) {
        self.kept = kept;
        self.seen = None;
    }

    /// The oldest revision from which a watch can begin.
    pub(super) fn oldest(&self) -> u64 {
        self.forgotten
    }

    /// The changes after a revision, oldest first, at most `limit`.
    ///
    /// # Errors
    /// When there were changes after it that are not known any more.
    pub(super) fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, u64> {
        if after < self.forgotten || after > self.revision {
            return Err(self.forgotten);
        }
        let from = self.history.partition_point(|change| change.revision <= after);
        Ok(self.history.range(from..).take(limit).cloned().collect())
    }

    /// Looks at everything again. Returns whether something has changed.
    pub(super) fn refresh(&mut self, triggers: &Triggers) -> bool {
        let now = (*triggers.changes().borrow(), triggers.brokers().list().len());
        if self.seen == Some(now) {
            return false;
        }
        self.seen = Some(now);
        let before = self.revision;
        let applied: BTreeMap<Owner, Manifests> = [Owner::Gateway, Owner::Api, Owner::Files]
            .into_iter()
            .filter_map(|owner| Some((owner, triggers.applied(owner)?.1)))
            .collect();
        let none = Manifests::default();
        let of = |owner: Owner| applied.get(&owner).unwrap_or(&none);
        // Where two have one name it is an object that runs elsewhere: the folder's is shown.
        let mut wanted: BTreeMap<Key, Wanted> = BTreeMap::new();
        for broker in triggers.brokers().list().into_iter().filter(|broker| !broker.name().is_channel()) {
            let name =
                ObjectName { namespace: broker.name().namespace().to_owned(), name: broker.name().name().to_owned() };
            let unwritten = Wanted { owner: None, object: None, part_of: None, here: true };
            wanted.insert(Key { kind: Kind::Broker, name }, unwritten);
        }
        let files = self.files.as_ref().unwrap_or(&none);
        for (owner, set) in [(Owner::Gateway, of(Owner::Gateway)), (Owner::Api, &self.kept), (Owner::Files, files)] {
            for object in set.objects() {
                let here = of(owner).get(object.kind(), object.name()).is_some();
                let part_of = set.part_of(object.kind(), object.name()).cloned();
                let brought = Wanted { owner: Some(owner), object: Some(object.clone()), part_of, here };
                wanted.insert(object.key(), brought);
            }
        }
        for object in triggers.sources().types() {
            let found = Wanted { owner: None, object: Some(object.clone()), part_of: None, here: true };
            wanted.entry(object.key()).or_insert(found);
        }
        // An object and what is shown where there is none are two things, with a uid each.
        let goes = |(key, entry): &(&Key, &Entry)| {
            wanted.get(key).is_none_or(|wanted| wanted.owner.is_some() != entry.owner.is_some())
        };
        let gone: Vec<Key> = self.entries.iter().filter(goes).map(|(key, _)| key.clone()).collect();
        for key in gone {
            if let Some(entry) = self.entries.remove(&key) {
                self.revision += 1;
                let text = with_revision(&entry.text, self.revision);
                let labels = entry.labels.clone();
                self.remember(Change {
                    revision: self.revision,
                    what: What::Deleted,
                    key,
                    text,
                    labels: labels.clone(),
                    before: labels,
                });
            }
        }
        for (key, wanted) in wanted {
            self.look(key, wanted, triggers);
        }
        self.revision != before
    }

    fn look(&mut self, key: Key, wanted: Wanted, triggers: &Triggers) {
        let Wanted { owner, object, part_of, here } = wanted;
        let clock = triggers.clock();
        let old = self.entries.get(&key);
        let status = match &object {
            Some(object) => Status::of(object, here, triggers),
            None => match BrokerName::new(&key.name.namespace, &key.name.name) {
                Ok(name) => Status::of_broker(None, &name, triggers),
                Err(_) => return,
            },
        };
        let status = status.since(old.map_or(&Status::default(), |old| &old.status), clock);
        let same_object = old.is_some_and(|old| {
            old.owner == owner
                && match (&old.object, &object) {
                    (Some(a), Some(b)) => a.same(b),
                    (None, None) => true,
                    _ => false,
                }
        });
        if same_object && old.is_some_and(|old| old.status == status) {
            return;
        }
        let mut value = object.as_ref().map_or_else(|| unwritten(&key), Object::current);
        let changed_spec = || {
            let was: Option<Value> = old.and_then(|old| serde_json::from_str(&old.text).ok());
            was.is_some_and(|was| was.get("spec") != value.get("spec"))
        };
        let generation = match old {
            Some(old) if same_object => old.generation,
            Some(old) => old.generation + u64::from(changed_spec()),
            None => 1,
        };
        let created_ms = old.map_or_else(|| clock.wall_ms(), |old| old.created_ms);
        let (what, before) = match old {
            Some(old) => (What::Modified, old.labels.clone()),
            None => (What::Added, Labels::default()),
        };
        self.revision += 1;
        let of = (&key, owner, part_of.as_ref());
        let generation = finish(&mut value, of, generation, created_ms, self.revision, triggers);
        if let Some(map) = value.as_object_mut() {
            map.insert("status".to_owned(), status.to_json(generation));
        }
        let text: Arc<str> = value.to_string().into();
        let labels: Labels = Arc::new(object.as_ref().map(|o| o.labels().clone()).unwrap_or_default());
        let entry =
            Entry { owner, object, part_of, labels: labels.clone(), text: text.clone(), status, generation, created_ms };
        self.entries.insert(key.clone(), entry);
        self.remember(Change { revision: self.revision, what, key, text, labels, before });
    }

    fn remember(&mut self, change: Change) {
        self.history_bytes += change.text.len();
        self.history.push_back(change);
        while self.history.len() > HISTORY || self.history_bytes > HISTORY_BYTES {
            let Some(oldest) = self.history.pop_front() else { break };
            self.history_bytes -= oldest.text.len();
            self.forgotten = oldest.revision;
        }
    }
}

/// One object that is to be shown.
struct Wanted {
    owner: Option<Owner>,
    object: Option<Object>,
    part_of: Option<Key>,
    /// Whether it runs here.
    here: bool,
}

/// Sets what the server sets in `metadata` of an object, given with who brought it and whose part it is. Returns the generation.
fn finish(
    value: &mut Value,
    (key, owner, part_of): (&Key, Option<Owner>, Option<&Key>),
    generation: u64,
    created_ms: Option<u64>,
    revision: u64,
    triggers: &Triggers,
) -> u64 {
    let Some(Value::Object(metadata)) = value.get_mut("metadata") else { return generation };
    let mut generation = generation;
    if owner == Some(Owner::Api) && part_of.is_none() {
        // The API has set these itself, and they are kept.
        generation = metadata.get("generation").and_then(Value::as_u64).unwrap_or(generation);
    } else {
        // What stands in a file or came from the gateway is another server's word.
        for name in ["uid", "generation", "creationTimestamp", "managedFields", "selfLink", "deletionTimestamp"] {
            metadata.shift_remove(name);
        }
        let whole = metadata.get_mut("ownerReferences").and_then(|of| of.pointer_mut("/0/uid"));
        if let (Some(part_of), Some(uid)) = (part_of, whole)
            && owner != Some(Owner::Api)
        {
            *uid = made_uid(part_of, owner).into();
        }
        let running = triggers.standing(key);
        let uid = running.map_or_else(|| made_uid(key, owner), |standing| standing.uid);
        metadata.insert("uid".to_owned(), uid.into());
        metadata.insert("generation".to_owned(), generation.into());
        if let Some(ms) = created_ms {
            metadata.insert("creationTimestamp".to_owned(), rfc3339(ms).into());
        }
    }
    metadata.insert("resourceVersion".to_owned(), revision.to_string().into());
    generation
}

/// A Broker that nobody wrote down.
fn unwritten(key: &Key) -> Value {
    let resource = key.kind.resource();
    json!({
        "apiVersion": resource.api_version(),
        "kind": resource.name,
        "metadata": {
            "name": key.name.name,
            "namespace": key.name.namespace,
            "annotations": {"eventing.knative.dev/broker.class": "Godwit"},
        },
        "spec": {},
    })
}

/// The uid of an object that has none of its own: the same at every start.
fn made_uid(key: &Key, owner: Option<Owner>) -> String {
    let owner = owner.map_or("", Owner::name);
    let digest = Sha256::digest(format!("{owner}/{}/{}", key.kind, key.name));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    crate::delivery::identity::uuid(bytes)
}

/// The same object with another revision.
fn with_revision(text: &str, revision: u64) -> Arc<str> {
    let mut value: Value = serde_json::from_str(text).unwrap_or_default();
    if let Some(at) = value.pointer_mut("/metadata/resourceVersion") {
        *at = revision.to_string().into();
    }
    value.to_string().into()
}
