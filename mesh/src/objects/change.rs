//! Changes to the objects of the API, one at a time.
//!
//! A change is validated, held against what others hold, made durable in redb, applied to the Triggers, and only then shown and
//! answered. A deletion (`delete`) goes the other way round: the Trigger ends and is forgotten before its row goes. So a power cut in between
//! leaves an object that nobody was told is there, or one that nobody was told is gone; never a Trigger without its object.

use serde_json::Value;

use super::error::ApiError;
use super::form::{convert, name_of, never_changing, parsed, placed, same, set_metadata, size, unnamed};
use super::managed::{Author, Managed};
use super::store::Objects;
use super::view::{Entry, Key};
use super::when;
use crate::delivery::{Owner, identity::uuid};
use crate::manifest::{Kind, Manifests, Object, ObjectName, Rejected, Strictness};

/// Most bytes of all objects of the API together.
const MAX_TOTAL_BYTES: usize = 16 << 20;

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

impl Objects {
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
        let written = entry.is_some_and(|entry| entry.owner.is_some());
        self.stamp(key, before.as_ref(), written, &mut after)?;
        if let Some(before) = &before {
            never_changing(key, before, &after)?;
            if let Some(gone) = self.let_go(key, before, &after, &warnings, change.dry_run).await? {
                return Ok(gone);
            }
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
    /// `written` says whether `before` is an object, or only what is shown of a Broker that has none.
    fn stamp(&self, key: &Key, before: Option<&Value>, written: bool, object: &mut Value) -> Result<(), ApiError> {
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
                match written {
                    true => (uid, text(before, "creationTimestamp")),
                    // Shown without an object: what is written now is a new one, whose end can be told from what is shown after it.
                    false => (None, self.clock().wall_ms().map(when::rfc3339)),
                }
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
        for name in ["resourceVersion", "creationTimestamp", "selfLink", "generation"] {
            metadata.shift_remove(name);
        }
        // That an object is to go, nobody can say or take back by writing it.
        for name in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
            metadata.shift_remove(name);
            if let Some(mark) = before.and_then(|before| before.pointer(&format!("/metadata/{name}"))) {
                metadata.insert(name.to_owned(), mark.clone());
            }
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

pub(super) fn held(key: &Key, owner: Owner) -> ApiError {
    let why = format!(
        "{} \"{}\" is held by {owner}: change or delete it there, or choose another name",
        qualified(key.kind),
        key.name.name
    );
    ApiError::Conflict(why)
}

pub(super) fn changed_meanwhile(key: &Key) -> ApiError {
    ApiError::Conflict(format!(
        "Operation cannot be fulfilled on {} \"{}\": the object has been modified; please apply your changes to the latest \
         version and try again",
        qualified(key.kind),
        key.name.name
    ))
}

/// Reads an object, all that is wrong with it told as the API does.
pub(super) fn read(key: &Key, object: Value, strictness: Strictness) -> Result<Object, ApiError> {
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

pub(super) fn may_change(key: &Key, entry: &Entry) -> Result<(), ApiError> {
    if let Some(whole) = &entry.part_of {
        return Err(ApiError::Conflict(format!("{key} is a part of {whole}, and changes and goes with it alone")));
    }
    match entry.owner {
        None | Some(Owner::Api) => Ok(()),
        Some(owner) => Err(held(key, owner)),
    }
}
