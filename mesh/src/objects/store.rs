//! The objects of this process: reading them, and changing those of the API one at a time.
//!
//! A change is validated, held against what others hold, made durable in redb, applied to the Triggers, and only then shown and
//! answered. A deletion goes the other way round: the Trigger ends and is forgotten before its row goes. So a power cut in between
//! leaves an object that nobody was told is there, or one that nobody was told is gone; never a Trigger without its object.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::error::ApiError;
use super::kept::Kept;
use super::managed::{Author, Managed};
use super::view::{Entry, Key, View};
use super::when;
use crate::delivery::{Owner, Triggers, identity::uuid};
use crate::manifest::{FieldError, Kind, Manifests, Object, ObjectName, Rejected, Strictness};
use crate::process::Choose;
use crate::state::State;

/// Most bytes of all objects of the API together.
const MAX_TOTAL_BYTES: usize = 16 << 20;

/// Most watches at a time.
const MAX_WATCHES: usize = 64;

/// Where kubectl notes what it applied: a second copy of the object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The annotation of a Broker that never changes.
const CLASS: &str = "eventing.knative.dev/broker.class";

/// The objects of this process. Cheap to clone.
#[derive(Clone)]
pub struct Objects(pub(super) Arc<Inner>);

pub(super) struct Inner {
    triggers: Triggers,
    kept: Kept,
    /// Which of the API's objects run here.
    choose: Choose,
    /// One change at a time.
    writing: tokio::sync::Mutex<()>,
    view: Mutex<View>,
    revision: watch::Sender<u64>,
    watches: Arc<Semaphore>,
}

/// How an object is to be changed.
#[derive(Debug, Clone)]
pub struct Change {
    /// Only say what would become of it.
    pub dry_run: bool,
    /// What becomes of unknown fields.
    pub strictness: Strictness,
    /// Who changes it.
    pub manager: String,
    /// Take fields from others (server-side apply).
    pub force: bool,
    /// The API version in which it is written.
    pub api_version: String,
}

/// What became of an object.
#[derive(Debug)]
pub struct Changed {
    /// The object as it is now, in the version in which its kind is stored.
    pub object: Value,
    /// Whether it was not there before.
    pub created: bool,
    /// What deserves a look.
    pub warnings: Vec<String>,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects").field("view", &self.0.view).finish_non_exhaustive()
    }
}

impl Objects {
    /// Reads the objects of the API from `state` and applies those that `choose` picks. What cannot be applied is logged and not
    /// run; it is never a reason not to start. Call it after the gateway's objects are applied and before the folder's.
    pub async fn open(triggers: Triggers, state: State, choose: Choose) -> Self {
        let kept = Kept::new(state);
        let (objects, start) = kept.open().await;
        let mut view = View::new(start);
        let mut set = Manifests::default();
        for object in objects {
            let next = set.with(object.clone()).map_err(|e| e.to_string()).and_then(|next| {
                let here = choose(&next).map_err(|e| e.to_string())?;
                triggers.check(Owner::Api, &here).map_err(|e| e.to_string())?;
                Ok(next)
            });
            match next {
                Ok(next) => set = next,
                Err(why) => tracing::error!("an object of the API does not run: {why}"),
            }
        }
        let here = choose(&set).unwrap_or_default();
        if let Err(error) = triggers.apply(Owner::Api, here, start).await {
            tracing::error!(%error, "the objects of the API do not run");
        }
        view.set_kept(set);
        view.refresh(&triggers);
        let revision = watch::Sender::new(view.revision);
        Self(Arc::new(Inner {
            triggers,
            kept,
            choose,
            writing: tokio::sync::Mutex::default(),
            view: Mutex::new(view),
            revision,
            watches: Arc::new(Semaphore::new(MAX_WATCHES)),
        }))
    }

    /// Shows what the folder of manifests has brought, also what is not for here; `None` changes nothing: it has brought nothing
    /// new.
    pub fn show_files(&self, applied: Option<Manifests>) {
        let Some(all) = applied else { return };
        let mut view = self.view();
        view.set_files(all);
        view.refresh(&self.0.triggers);
        // Told also where no object has changed: a first set, if only an empty one, is something to go by.
        self.0.revision.send_replace(view.revision);
    }

    /// What folder and API hold for agents, as it goes to them: without what only this server means by it. `None` while there is
    /// no set of the folder to go by: without its part agents would take what it brought for gone.
    #[must_use]
    pub fn for_agents(&self) -> Option<Manifests> {
        let view = self.view();
        let files = view.files.as_ref()?;
        let kept = view.kept.whole().map(|object| {
            let mut value = object.original().clone();
            if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
                for name in ["uid", "generation", "creationTimestamp", "managedFields"] {
                    metadata.shift_remove(name);
                }
                if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
                    annotations.shift_remove(LAST_APPLIED);
                }
            }
            Object::read(object.file(), value, Strictness::Ignore).unwrap_or_else(|_| object.clone())
        });
        let all = kept.chain(files.whole().cloned()).filter(|object| object.annotations().agents.is_some());
        Some(Manifests::new(all).unwrap_or_else(|_| files.clone()))
    }

    /// Changes with every change of any object.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.revision.subscribe()
    }

    /// Follows what becomes of Triggers and Brokers until `stop` is cancelled.
    pub async fn follow(&self, stop: CancellationToken) {
        let mut triggers = self.0.triggers.changes();
        let mut brokers = self.0.triggers.brokers().watch();
        loop {
            self.refresh();
            tokio::select! {
                Ok(()) = triggers.changed() => {}
                Ok(()) = brokers.changed() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        self.0.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn refresh(&self) {
        let mut view = self.view();
        if view.refresh(&self.0.triggers) {
            self.0.revision.send_replace(view.revision);
        }
    }

    /// A place among the watches.
    pub(super) fn watch_place(&self) -> Option<OwnedSemaphorePermit> {
        self.0.watches.clone().try_acquire_owned().ok()
    }

    pub(super) fn clock(&self) -> &crate::clock::Clock {
        self.0.triggers.clock()
    }

    /// The object as it is shown.
    pub(super) fn entry(&self, key: &Key) -> Option<Entry> {
        // Whatever has changed since is seen at once, not when the follower gets its turn.
        self.refresh();
        self.view().entries.get(key).cloned()
    }

    /// Creates an object.
    ///
    /// # Errors
    /// [`ApiError`]; nothing has changed then.
    pub async fn create(&self, kind: Kind, namespace: &str, object: Value, change: &Change) -> Result<Changed, ApiError> {
        let mut object = placed(kind, namespace, None, object)?;
        if let Some(prefix) = unnamed(&object) {
            let name = format!("{prefix}{}", &self.uid()?[..5]);
            set_metadata(&mut object, "name", name.into());
        }
        let name = name_of(&object);
        let _writing = self.0.writing.lock().await;
        let key = Key { kind, name: ObjectName { namespace: namespace.to_owned(), name: name.clone() } };
        if let Some(entry) = self.entry(&key)
            && let Some(owner) = entry.owner
        {
            let held = if owner == Owner::Api { String::new() } else { format!(" (held by {owner})") };
            return Err(ApiError::AlreadyExists(format!("{} \"{name}\" already exists{held}", qualified(kind))));
        }
        let (mut object, warnings) = normal(&key, object, change)?;
        let mut managed = Managed::default();
        managed.updated(None, &object, &self.author(change));
        managed.put(&mut object);
        self.write(&key, None, object, warnings, change).await
    }

    /// Puts `object` in the place of the one that is there; one that is not there is made.
    ///
    /// # Errors
    /// [`ApiError`]; nothing has changed then.
    pub async fn update(&self, key: &Key, object: Value, change: &Change) -> Result<Changed, ApiError> {
        let object = placed(key.kind, &key.name.namespace, Some(&key.name.name), object)?;
        let _writing = self.0.writing.lock().await;
        let Some(entry) = self.entry(key) else {
            return Err(not_found(key));
        };
        self.replace(key, &entry, object, change).await
    }

    /// Changes the object that is there by `patch`, in the version that `change` names.
    ///
    /// # Errors
    /// [`ApiError`]; nothing has changed then.
    pub async fn patch(
        &self,
        key: &Key,
        change: &Change,
        patch: impl FnOnce(&mut Value) -> Result<(), ApiError> + Send,
    ) -> Result<Changed, ApiError> {
        let _writing = self.0.writing.lock().await;
        let entry = self.entry(key).ok_or_else(|| not_found(key))?;
        let mut object = parsed(&entry.text);
        convert(key.kind, &change.api_version, &mut object)?;
        patch(&mut object)?;
        let object = placed(key.kind, &key.name.namespace, Some(&key.name.name), object)?;
        self.replace(key, &entry, object, change).await
    }

    /// Lays `applied` over the object for the manager that `change` names; makes it where it is not there.
    ///
    /// # Errors
    /// [`ApiError`]; nothing has changed then.
    pub async fn apply(&self, key: &Key, applied: Value, change: &Change) -> Result<Changed, ApiError> {
        let applied = placed(key.kind, &key.name.namespace, Some(&key.name.name), applied)?;
        if applied.pointer("/metadata/managedFields").is_some_and(|m| m.as_array().is_none_or(|m| !m.is_empty())) {
            return Err(ApiError::BadRequest("metadata.managedFields must be nil".to_owned()));
        }
        let _writing = self.0.writing.lock().await;
        let entry = self.entry(key);
        // Unknown fields go before anybody holds them; what is missing may be there already.
        let (applied, mut warnings) = Object::part(&applied, change.strictness).map_err(|e| refused(key, &e))?;
        let live = match &entry {
            Some(entry) => {
                may_change(key, entry)?;
                parsed(&entry.text)
            }
            None => {
                let (version, kind) = (key.kind.resource().api_version(), key.kind.resource().name);
                serde_json::json!({
                    "apiVersion": version, "kind": kind,
                    "metadata": {"name": key.name.name, "namespace": key.name.namespace},
                })
            }
        };
        let mut managed = Managed::of(&live);
        let mut merged =
            managed.apply(&live, &applied, &self.author(change), change.force).map_err(ApiError::FieldConflicts)?;
        managed.put(&mut merged);
        let (merged, more) = normal(key, merged, change)?;
        warnings.extend(more);
        self.write(key, entry.as_ref(), merged, warnings, change).await
    }

    /// Deletes an object. Returns it as it was.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn delete(
        &self,
        key: &Key,
        uid: Option<&str>,
        revision: Option<&str>,
        dry_run: bool,
    ) -> Result<Value, ApiError> {
        let _writing = self.0.writing.lock().await;
        let entry = self.entry(key).ok_or_else(|| not_found(key))?;
        let object = parsed(&entry.text);
        let metadata = |name: &str| object.pointer(&format!("/metadata/{name}")).and_then(Value::as_str);
        if uid.is_some_and(|uid| metadata("uid") != Some(uid)) {
            return Err(ApiError::Conflict(format!("the uid of {} is another", qualified(key.kind))));
        }
        if revision.is_some_and(|revision| metadata("resourceVersion") != Some(revision)) {
            return Err(changed_meanwhile(key));
        }
        match entry.owner {
            Some(Owner::Api) => may_change(key, &entry)?,
            None => {
                let why = format!("broker {} has no object: what is in it stays until the data folder goes", key.name);
                return Err(ApiError::Conflict(why));
            }
            Some(owner) => return Err(held(key, owner)),
        }
        if dry_run {
            return Ok(object);
        }
        let (before, revision) = {
            let view = self.view();
            (view.kept.clone(), view.revision)
        };
        let set = before.without(key.kind, &key.name);
        let chosen = |set: &Manifests| (self.0.choose)(set).map_err(|e| ApiError::BadRequest(e.to_string()));
        let applied = self.0.triggers.apply(Owner::Api, chosen(&set)?, revision).await;
        applied.map_err(|e| ApiError::applying(key.kind, &key.name.name, &e))?;
        self.view().set_kept(set);
        // A power cut here leaves the object, and its Trigger begins anew at the next start; nobody was told that it is gone.
        if let Err(error) = self.0.kept.delete(key.kind, &key.name).await {
            if let Err(error) = self.0.triggers.apply(Owner::Api, chosen(&before)?, revision).await {
                tracing::error!(%error, "an object that could not be deleted does not run");
            }
            self.view().set_kept(before);
            self.refresh();
            return Err(error);
        }
        self.refresh();
        tracing::info!(object = %format_args!("{} {}", key.kind, key.name), "deleted over the API");
        Ok(object)
    }

    /// An update or a patch of an object that is there.
    async fn replace(&self, key: &Key, entry: &Entry, object: Value, change: &Change) -> Result<Changed, ApiError> {
        may_change(key, entry)?;
        let (mut after, warnings) = normal(key, object, change)?;
        let before = parsed(&entry.text);
        // Managers that were changed by hand count: this is how clients hand over fields.
        let managed_before = before.pointer("/metadata/managedFields").filter(|m| !m.is_null());
        let managed_after = after.pointer("/metadata/managedFields").filter(|m| !m.is_null());
        let mut managed = match managed_after {
            Some(_) if managed_after != managed_before => Managed::of(&after),
            _ => Managed::of(&before),
        };
        managed.updated(Some(&before), &after, &self.author(change));
        managed.put(&mut after);
        self.write(key, Some(entry), after, warnings, change).await
    }

    /// Keeps and applies what is to be in the place of `entry`: an object with its defaults, in the stored version.
    async fn write(
        &self,
        key: &Key,
        entry: Option<&Entry>,
        object: Value,
        warnings: Vec<String>,
        change: &Change,
    ) -> Result<Changed, ApiError> {
        let before = entry.map(|entry| parsed(&entry.text));
        let mut after = object;
        self.stamp(key, before.as_ref(), &mut after)?;
        if let Some(before) = &before {
            never_changing(key, before, &after)?;
        }
        if entry.is_some_and(|e| e.owner.is_some()) && before.as_ref().is_some_and(|before| same(before, &after)) {
            return Ok(Changed { object: before.unwrap_or_default(), created: false, warnings });
        }
        let spec_changed = before.as_ref().is_none_or(|before| before.get("spec") != after.get("spec"));
        let generation = |o: &Value| o.pointer("/metadata/generation").and_then(Value::as_u64).unwrap_or(0);
        let generation = before.as_ref().map_or(0, generation) + u64::from(spec_changed);
        set_metadata(&mut after, "generation", generation.max(1).into());
        let object = read(key, after, Strictness::Ignore)?;
        let set = self.view().kept.with(object.clone()).map_err(|e| match e.field {
            Some(_) => ApiError::Conflict(e.to_string()),
            None => ApiError::TooLarge(e.why),
        })?;
        let bytes: usize = set.whole().map(|o| size(o.original())).sum();
        if bytes > MAX_TOTAL_BYTES {
            let why = format!("the objects of the API would have {bytes} bytes together; {MAX_TOTAL_BYTES} are allowed");
            return Err(ApiError::TooLarge(why));
        }
        let here = (self.0.choose)(&set).map_err(|e| ApiError::BadRequest(e.to_string()))?;
        let not_applied = |e| ApiError::applying(key.kind, &key.name.name, &e);
        self.0.triggers.check(Owner::Api, &here).map_err(not_applied)?;
        let created = entry.is_none();
        if change.dry_run {
            let mut shown = object.current();
            if let Some(before) = &before {
                if let (Some(status), Some(shown)) = (before.get("status"), shown.as_object_mut()) {
                    shown.insert("status".to_owned(), status.clone());
                }
                let revision = before.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
                set_metadata(&mut shown, "resourceVersion", revision);
            }
            return Ok(Changed { object: shown, created, warnings });
        }
        let previous = self.view().kept.get(key.kind, &key.name).cloned();
        // durable before: what is applied below survives the next power cut.
        self.0.kept.put(&object).await?;
        let revision = self.view().revision;
        if let Err(error) = self.0.triggers.apply(Owner::Api, here, revision).await {
            let back = match &previous {
                Some(previous) => self.0.kept.put(previous).await,
                None => self.0.kept.delete(key.kind, &key.name).await,
            };
            if let Err(back) = back {
                tracing::error!(object = %object, error = %back, "an object that was refused is kept; it may run from the next start on");
            }
            return Err(not_applied(error));
        }
        let (set, object) = self.adopt_uid(key, set, object).await?;
        self.view().set_kept(set);
        self.refresh();
        tracing::info!(object = %object, manager = %change.manager, "changed over the API");
        let shown = self.view().entries.get(key).map(|entry| parsed(&entry.text));
        Ok(Changed { object: shown.unwrap_or_else(|| object.current()), created, warnings })
    }

    /// A Trigger whose object was lost with a damaged file has kept its uid and its cursor in its Broker: the object takes it.
    async fn adopt_uid(&self, key: &Key, set: Manifests, object: Object) -> Result<(Manifests, Object), ApiError> {
        let running = self.0.triggers.standing(key);
        let Some(uid) = running.map(|standing| standing.uid) else { return Ok((set, object)) };
        let mut value = object.original().clone();
        if value.pointer("/metadata/uid").and_then(Value::as_str) == Some(&uid) {
            return Ok((set, object));
        }
        set_metadata(&mut value, "uid", uid.into());
        let object = read(key, value, Strictness::Ignore)?;
        self.0.kept.put(&object).await?;
        let set = set.with(object.clone()).map_err(|e| ApiError::TooLarge(e.why))?;
        Ok((set, object))
    }

    /// Sets what only the server sets, and holds the revision that the writer knew against the one that there is.
    fn stamp(&self, key: &Key, before: Option<&Value>, object: &mut Value) -> Result<(), ApiError> {
        let text = |object: &Value, name: &str| {
            object.pointer(&format!("/metadata/{name}")).and_then(Value::as_str).map(str::to_owned)
        };
        let known = text(object, "resourceVersion").filter(|r| !r.is_empty());
        let (uid, created) = match before {
            Some(before) => {
                if known.is_some() && known != text(before, "resourceVersion") {
                    return Err(changed_meanwhile(key));
                }
                let uid = text(before, "uid");
                if text(object, "uid").is_some_and(|given| Some(&given) != uid.as_ref()) {
                    return Err(ApiError::Conflict(format!("the uid of {} is another", qualified(key.kind))));
                }
                (uid, text(before, "creationTimestamp"))
            }
            None => {
                if known.is_some() {
                    return Err(ApiError::BadRequest(
                        "resourceVersion should not be set on objects to be created".to_owned(),
                    ));
                }
                (None, self.clock().wall_ms().map(when::rfc3339))
            }
        };
        let uid = match uid {
            Some(uid) => uid,
            None => self.uid()?,
        };
        let Some(Value::Object(metadata)) = object.get_mut("metadata") else { return Ok(()) };
        for name in ["resourceVersion", "creationTimestamp", "deletionTimestamp", "selfLink", "generation"] {
            metadata.shift_remove(name);
        }
        metadata.insert("uid".to_owned(), uid.into());
        if let Some(created) = created {
            metadata.insert("creationTimestamp".to_owned(), created.into());
        }
        Ok(())
    }

    fn author<'a>(&self, change: &'a Change) -> Author<'a> {
        Author {
            manager: &change.manager,
            api_version: &change.api_version,
            time: self.clock().wall_ms().map(when::rfc3339),
        }
    }

    fn uid(&self) -> Result<String, ApiError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|e| ApiError::Unavailable(format!("no random numbers to be had: {e}")))?;
        Ok(uuid(bytes))
    }
}

/// The kind's name as messages have it: `triggers.eventing.knative.dev`.
pub(super) fn qualified(kind: Kind) -> String {
    format!("{}.{}", kind.resource().plural, kind.resource().group)
}

pub(super) fn not_found(key: &Key) -> ApiError {
    ApiError::NotFound(format!("{} \"{}\" not found", qualified(key.kind), key.name.name))
}

fn held(key: &Key, owner: Owner) -> ApiError {
    let why = format!(
        "{} \"{}\" is held by {owner}: change or delete it there, or choose another name",
        qualified(key.kind),
        key.name.name
    );
    ApiError::Conflict(why)
}

fn changed_meanwhile(key: &Key) -> ApiError {
    ApiError::Conflict(format!(
        "Operation cannot be fulfilled on {} \"{}\": the object has been modified; please apply your changes to the latest \
         version and try again",
        qualified(key.kind),
        key.name.name
    ))
}

/// A text of ours as JSON.
pub(super) fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// Rewrites a stored object into the version named.
pub(super) fn convert(kind: Kind, api_version: &str, object: &mut Value) -> Result<(), ApiError> {
    let name = api_version.rsplit('/').next().unwrap_or_default();
    let version = kind.resource().version(name);
    let version = version.ok_or_else(|| ApiError::NotFound(format!("there is no version {api_version} of {kind}")))?;
    crate::manifest::from_stored(kind, version, object);
    Ok(())
}

/// Reads an object, all that is wrong with it told as the API does.
fn read(key: &Key, object: Value, strictness: Strictness) -> Result<Object, ApiError> {
    Object::read("the API", object, strictness).map_err(|rejected| refused(key, &rejected))
}

fn refused(key: &Key, rejected: &Rejected) -> ApiError {
    if rejected.wrong.is_empty() {
        let unknown: Vec<String> = rejected.unknown.iter().map(|field| format!("unknown field \"{field}\"")).collect();
        return ApiError::BadRequest(format!("strict decoding error: {}", unknown.join(", ")));
    }
    ApiError::Invalid { kind: key.kind, name: key.name.name.clone(), fields: rejected.all() }
}

/// The object with its defaults, in the stored version, and what deserves a look in it.
fn normal(key: &Key, object: Value, change: &Change) -> Result<(Value, Vec<String>), ApiError> {
    let object = read(key, object, change.strictness)?;
    Ok((object.current(), object.warnings().to_vec()))
}

fn may_change(key: &Key, entry: &Entry) -> Result<(), ApiError> {
    if let Some(whole) = &entry.part_of {
        return Err(ApiError::Conflict(format!("{key} is a part of {whole}, and changes and goes with it alone")));
    }
    match entry.owner {
        None | Some(Owner::Api) => Ok(()),
        Some(owner) => Err(held(key, owner)),
    }
}

/// An object that is of the kind and at the place that the path names.
fn placed(kind: Kind, namespace: &str, name: Option<&str>, object: Value) -> Result<Value, ApiError> {
    let mut object = object;
    let Value::Object(map) = &mut object else {
        return Err(ApiError::BadRequest("the body is not an object".to_owned()));
    };
    map.shift_remove("status");
    match map.get("kind").and_then(Value::as_str) {
        None => {
            map.insert("kind".to_owned(), kind.resource().name.into());
        }
        Some(written) if written == kind.resource().name => {}
        Some(written) => {
            let why = format!("the object is a {}, and this is the path for a {kind}", cut(written));
            return Err(ApiError::BadRequest(why));
        }
    }
    map.entry("apiVersion").or_insert_with(|| kind.resource().api_version().into());
    let metadata = map.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(metadata) = metadata else {
        return Err(ApiError::BadRequest("metadata is not an object".to_owned()));
    };
    for (field, expected) in [("namespace", Some(namespace)), ("name", name)] {
        let Some(expected) = expected else { continue };
        match metadata.get(field).and_then(Value::as_str).filter(|t| !t.is_empty()) {
            None => {
                metadata.insert(field.to_owned(), expected.into());
            }
            Some(written) if written == expected => {}
            Some(written) => {
                let why = format!(
                    "the {field} of the provided object does not match the {field} sent on the request ({} and {expected})",
                    cut(written)
                );
                return Err(ApiError::BadRequest(why));
            }
        }
    }
    Ok(object)
}

fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}

/// The beginning of the name that the server is to make.
fn unnamed(object: &Value) -> Option<String> {
    let text = |name: &str| object.pointer(name).and_then(Value::as_str).filter(|t| !t.is_empty());
    if text("/metadata/name").is_some() {
        return None;
    }
    text("/metadata/generateName").map(|prefix| prefix.chars().take(200).collect())
}

fn name_of(object: &Value) -> String {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn set_metadata(object: &mut Value, name: &str, value: Value) {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.insert(name.to_owned(), value);
    }
}

/// Whether a change leaves all as it is but for what the server sets.
fn same(before: &Value, after: &Value) -> bool {
    let written = |object: &Value| {
        let mut object = object.clone();
        if let Some(map) = object.as_object_mut() {
            map.shift_remove("status");
        }
        if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            for name in ["resourceVersion", "generation"] {
                metadata.shift_remove(name);
            }
            // When a manager last said the same is no change.
            if let Some(Value::Array(managers)) = metadata.get_mut("managedFields") {
                for manager in managers.iter_mut().filter_map(Value::as_object_mut) {
                    manager.shift_remove("time");
                }
            }
        }
        object
    };
    written(before) == written(after)
}

/// What D27 forbids to change; a Trigger's Broker is looked after where Triggers are applied.
fn never_changing(key: &Key, before: &Value, after: &Value) -> Result<(), ApiError> {
    if key.kind != Kind::Broker {
        return Ok(());
    }
    let class = |o: &Value| o.pointer("/metadata/annotations").and_then(|a| a.get(CLASS)).cloned();
    let config = |o: &Value| o.pointer("/spec/config").cloned();
    let mut fields = Vec::new();
    if class(before) != class(after) {
        fields.push(FieldError::new(format!("metadata.annotations[{CLASS}]"), "cannot change; delete the Broker first"));
    }
    if config(before).is_some() && config(before) != config(after) {
        fields.push(FieldError::new("spec.config", "cannot change; delete the Broker first"));
    }
    if fields.is_empty() {
        return Ok(());
    }
    Err(ApiError::Invalid { kind: key.kind, name: key.name.name.clone(), fields })
}

/// About how many bytes an object takes as JSON.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|item| size(item) + 1).sum::<usize>() + 2,
        Value::Object(map) => map.iter().map(|(name, value)| name.len() + 4 + size(value)).sum::<usize>() + 2,
        Value::Null | Value::Bool(_) | Value::Number(_) => 5,
    }
}
