//! Deleting objects of the API, one or all that a selector takes, and what finalizers make of it.
//!
//! An object with `metadata.finalizers` does not go when it is deleted: it is marked with `deletionTimestamp`, runs on, and goes with
//! the change that takes the last finalizer away; no new one can be added meanwhile. All that one request deletes goes in one set and
//! one commit. The set is applied first: a power cut before the commit leaves objects that nobody was told are gone or marked.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::change::{Changed, changed_meanwhile, held, may_change, not_found, qualified, read};
use super::error::ApiError;
use super::form::{parsed, set_metadata};
use super::selector::Wanted;
use super::store::Objects;
use super::view::{Entry, Key};
use super::when;
use crate::delivery::Owner;
use crate::manifest::{FieldError, Kind, Manifests, Object, Strictness};

/// What became of an object that was deleted.
#[derive(Debug)]
pub struct Deleted {
    /// The object: as it was, or as it is marked.
    pub object: Value,
    /// Whether it is gone; else its finalizers keep it.
    pub gone: bool,
}

impl Objects {
    /// Deletes an object.
    ///
    /// # Errors
    /// [`ApiError`]; nothing has changed then.
    pub async fn delete(
        &self,
        key: &Key,
        uid: Option<&str>,
        revision: Option<&str>,
        dry_run: bool,
    ) -> Result<Deleted, ApiError> {
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
        let mut done = self.end(&[(key.clone(), entry)], dry_run).await?;
        done.pop().ok_or_else(|| not_found(key))
    }

    /// Deletes all objects that are wanted, together or not at all. Brokers without an object, and parts of a Sequence or Parallel,
    /// are passed over: there is nothing to delete, or it goes with its whole.
    ///
    /// # Errors
    /// [`ApiError`], as when another holds one of them; nothing has changed then.
    pub(super) async fn delete_all(&self, wanted: &Wanted, dry_run: bool) -> Result<Vec<Deleted>, ApiError> {
        let _writing = self.0.writing.lock().await;
        self.refresh();
        let chosen: Vec<(Key, Entry)> = {
            let view = self.view();
            let entries = view.entries.iter().filter(|(key, entry)| wanted.takes(key, &entry.labels));
            let written = entries.filter(|(_, entry)| entry.owner.is_some() && entry.part_of.is_none());
            written.map(|(key, entry)| (key.clone(), entry.clone())).collect()
        };
        self.end(&chosen, dry_run).await
    }

    /// Marks those of the objects that have finalizers, and lets the others go.
    async fn end(&self, chosen: &[(Key, Entry)], dry_run: bool) -> Result<Vec<Deleted>, ApiError> {
        let (mut done, mut marked, mut gone) = (Vec::with_capacity(chosen.len()), Vec::new(), Vec::new());
        for (key, entry) in chosen {
            deletable(key, entry)?;
            let mut shown = parsed(&entry.text);
            let stays = !finalizers(&shown).is_empty();
            if !stays {
                gone.push(key.clone());
            } else if !is_ending(&shown) {
                let mut object = entry.object.as_ref().map(|object| object.original().clone()).unwrap_or_default();
                self.mark(&mut object);
                self.mark(&mut shown);
                marked.push(read(key, object, Strictness::Ignore)?);
            }
            done.push(Deleted { object: shown, gone: !stays });
        }
        if dry_run {
            return Ok(done);
        }
        self.settle(marked, &gone).await?;
        let view = self.view();
        for ((key, _), deleted) in chosen.iter().zip(&mut done) {
            // As it is shown now, with the revision of its mark.
            if let (false, Some(entry)) = (deleted.gone, view.entries.get(key)) {
                deleted.object = parsed(&entry.text);
            }
        }
        Ok(done)
    }

    /// Says in an object that it is to go.
    fn mark(&self, object: &mut Value) {
        // It must be there even where no clock tells the time: that it is there is what counts.
        set_metadata(object, "deletionTimestamp", when::rfc3339(self.clock().wall_ms().unwrap_or(0)).into());
        set_metadata(object, "deletionGracePeriodSeconds", 0.into());
        let generation = object.pointer("/metadata/generation").and_then(Value::as_u64).unwrap_or(0);
        set_metadata(object, "generation", (generation + 1).into());
    }

    /// What a change makes of an object that is to go: `None` while a finalizer is left.
    ///
    /// # Errors
    /// When there is a finalizer that was not there before.
    pub(super) async fn let_go(
        &self,
        key: &Key,
        before: &Value,
        after: &Value,
        warnings: &[String],
        dry_run: bool,
    ) -> Result<Option<Changed>, ApiError> {
        if !is_ending(before) {
            return Ok(None);
        }
        let (had, has) = (finalizers(before), finalizers(after));
        if let Some(new) = has.iter().find(|new| !had.contains(new)) {
            let why = format!("no new finalizers can be added if the object is being deleted, found new finalizer {new:?}");
            let fields = vec![FieldError::new("metadata.finalizers", why)];
            return Err(ApiError::Invalid { kind: key.kind, name: key.name.name.clone(), fields });
        }
        if !has.is_empty() {
            return Ok(None);
        }
        if !dry_run {
            self.settle(Vec::new(), std::slice::from_ref(key)).await?;
        }
        let mut object = after.clone();
        let revision = before.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
        set_metadata(&mut object, "resourceVersion", revision);
        Ok(Some(Changed { object, created: false, warnings: warnings.to_vec() }))
    }

    /// Puts the `marked` in their places and takes what is `gone` away: applied, durable, shown.
    async fn settle(&self, marked: Vec<Object>, gone: &[Key]) -> Result<(), ApiError> {
        let first = gone.first().cloned().or_else(|| marked.first().map(Object::key));
        let Some(first) = first else { return Ok(()) };
        let (before, revision) = {
            let view = self.view();
            (view.kept.clone(), view.revision)
        };
        let without: BTreeSet<&Key> = gone.iter().collect();
        let mut instead: BTreeMap<Key, &Object> = marked.iter().map(|object| (object.key(), object)).collect();
        let left = before.whole().filter(|object| !without.contains(&object.key()));
        let left = left.map(|object| instead.remove(&object.key()).unwrap_or(object).clone());
        let set = Manifests::new(left).map_err(|e| ApiError::Conflict(e.to_string()))?;
        let chosen = |set: &Manifests| (self.0.choose)(set).map_err(|e| ApiError::BadRequest(e.to_string()));
        let applied = self.0.triggers.apply(Owner::Api, chosen(&set)?, revision).await;
        applied.map_err(|e| ApiError::applying(first.kind, &first.name.name, &e))?;
        self.view().set_kept(set);
        // A power cut here leaves the objects, and their Triggers begin anew at the next start; nobody was told that they are gone.
        if let Err(error) = self.0.kept.settle(&marked, gone).await {
            if let Err(error) = self.0.triggers.apply(Owner::Api, chosen(&before)?, revision).await {
                tracing::error!(%error, "objects that could not be deleted do not run");
            }
            self.view().set_kept(before);
            self.refresh();
            return Err(error);
        }
        self.refresh();
        for key in gone {
            tracing::info!(object = %key, "deleted over the API");
        }
        for object in &marked {
            tracing::info!(%object, "to be deleted over the API when its finalizers are done");
        }
        Ok(())
    }
}

/// Whether an object was deleted and its finalizers keep it.
fn is_ending(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some_and(Value::is_string)
}

fn finalizers(object: &Value) -> Vec<&str> {
    let list = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Refuses what is not the API's to delete.
fn deletable(key: &Key, entry: &Entry) -> Result<(), ApiError> {
    match entry.owner {
        Some(Owner::Api) => may_change(key, entry),
        None => {
            let why = match key.kind {
                Kind::EventType => format!("{} was found in what passes: it goes when its events have gone", key.name),
                _ => format!("broker {} has no object: what is in it stays until the data folder goes", key.name),
            };
            Err(ApiError::Conflict(why))
        }
        Some(owner) => Err(held(key, owner)),
    }
}
