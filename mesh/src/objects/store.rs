//! The objects of this process: where they are held, and how all of them are seen. `change` changes those of the API.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::kept::Kept;
use super::view::{Entry, Key, View};
use crate::delivery::{Owner, Triggers};
use crate::manifest::{Manifests, Object, Strictness};
use crate::process::Choose;
use crate::state::State;

/// Most watches at a time.
const MAX_WATCHES: usize = 64;

/// Where kubectl notes what it applied: a second copy of the object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The objects of this process. Cheap to clone.
#[derive(Clone)]
pub struct Objects(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) triggers: Triggers,
    pub(super) kept: Kept,
    /// Which of the API's objects run here.
    pub(super) choose: Choose,
    /// One change at a time.
    pub(super) writing: tokio::sync::Mutex<()>,
    view: Mutex<View>,
    revision: watch::Sender<u64>,
    watches: Arc<Semaphore>,
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
                for name in ["uid", "generation", "creationTimestamp", "deletionTimestamp", "managedFields"] {
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
}
