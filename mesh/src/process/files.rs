//! The set of objects that the folder of manifests brings, applied at the start and again when it changes.
//!
//! At the start a wrong set is an error: to run without the Brokers and Triggers that somebody wrote down would be worse than not
//! to start. Later a wrong set changes nothing; why it was refused is in the log and in `/status` until a good one comes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::ManifestFolder;
use crate::delivery::{Owner, Triggers};
use crate::manifest::{ManifestError, Manifests};

/// Which of the objects in the folder are run here.
pub type Choose = Box<dyn Fn(&Manifests) -> Result<Manifests, ManifestError> + Send + Sync>;

/// The folder of manifests and what was last made of it.
pub struct FileSet {
    folder: Option<ManifestFolder>,
    triggers: Triggers,
    choose: Choose,
    revision: u64,
    shown: FileSetStatus,
}

/// How the folder stands, for `/status`. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct FileSetStatus {
    path: Option<PathBuf>,
    inner: Arc<Mutex<Shown>>,
}

#[derive(Debug, Default)]
struct Shown {
    objects: usize,
    revision: u64,
    error: Option<String>,
}

impl fmt::Debug for FileSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSet").field("folder", &self.folder).field("revision", &self.revision).finish_non_exhaustive()
    }
}

impl FileSet {
    /// The set of the folder at `path`; without a folder an empty set. Nothing is read yet.
    #[must_use]
    pub fn new(path: Option<&Path>, triggers: Triggers, choose: Choose) -> Self {
        let shown = FileSetStatus { path: path.map(Path::to_owned), inner: Arc::default() };
        Self { folder: path.map(ManifestFolder::new), triggers, choose, revision: 0, shown }
    }

    /// Reads the folder and applies what is in it, all or nothing. Returns all objects, also those not for here.
    ///
    /// # Errors
    /// Why nothing was applied; `/status` shows it too.
    pub async fn apply(&mut self) -> Result<Manifests, String> {
        let outcome = self.try_apply().await;
        let mut shown = self.shown.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match &outcome {
            Ok(all) => *shown = Shown { objects: all.len(), revision: self.revision, error: None },
            Err(why) => shown.error = Some(why.clone()),
        }
        outcome
    }

    /// The same while running: what goes wrong is logged and changes nothing. `None` where nothing was applied.
    pub async fn apply_again(&mut self) -> Option<Manifests> {
        match self.apply().await {
            Ok(all) => {
                tracing::info!(objects = all.len(), revision = self.revision, "manifests applied");
                Some(all)
            }
            Err(why) => {
                tracing::error!("manifests not applied, those from before go on: {why}");
                None
            }
        }
    }

    /// Whether a file of the folder has changed since it was last read.
    pub async fn changed(&self) -> bool {
        match &self.folder {
            Some(folder) => folder.changed().await,
            None => false,
        }
    }

    /// For `/status`.
    #[must_use]
    pub fn status(&self) -> FileSetStatus {
        self.shown.clone()
    }

    async fn try_apply(&mut self) -> Result<Manifests, String> {
        let all = match &mut self.folder {
            Some(folder) => folder.load().await.map_err(|e| e.to_string())?,
            None => Manifests::default(),
        };
        for warning in all.warnings() {
            tracing::warn!("manifests: {warning}");
        }
        let here = (self.choose)(&all).map_err(|e| e.to_string())?;
        self.triggers.apply(Owner::Files, here, self.revision + 1).await.map_err(|e| e.to_string())?;
        self.revision += 1;
        Ok(all)
    }
}

impl FileSetStatus {
    /// `{path, objects, revision, error}`; `null` where there is no folder.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let Some(path) = &self.path else { return Value::Null };
        let shown = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        json!({
            "path": path.display().to_string(),
            "objects": shown.objects,
            "revision": shown.revision,
            "error": shown.error,
        })
    }
}
