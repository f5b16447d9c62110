//! The set of objects that the folder of manifests brings, applied at the start and again when it changes.
//!
//! A wrong set changes nothing: what ran before goes on, over a start too. For that the last set that was applied is kept in the
//! data folder, and a start that finds the folder wrong or gone applies that one. Where there is none either, nothing is applied
//! (an empty set would make Triggers be forgotten, with their cursors), and the process runs without. In each case the log,
//! `/status` and `/readyz` say so, and the folder is tried again until it is mended.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{ManifestFolder, read_kept, write_kept};
use crate::delivery::{Owner, Triggers};
use crate::manifest::{ManifestError, Manifests};
use crate::storage::Storage;

/// How often a folder is looked at for changes.
pub const LOOK_EVERY: Duration = Duration::from_secs(3);

/// How often a set that was refused is tried again although no file has changed: what stood against it may be elsewhere (the disk
/// was full, the gateway held a name, a file was not to be read).
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// The last set that was applied, all of it, as JSON.
const KEPT: &str = "manifests.json";

/// Largest set that is read back, in bytes.
const MAX_KEPT: u64 = 64 << 20;

/// Which of the objects in the folder are run here.
pub type Choose = Box<dyn Fn(&Manifests) -> Result<Manifests, ManifestError> + Send + Sync>;

/// The folder of manifests and what was last made of it.
pub struct FileSet {
    folder: Option<ManifestFolder>,
    storage: Arc<dyn Storage>,
    triggers: Triggers,
    choose: Choose,
    revision: u64,
    tried: Instant,
    shown: FileSetStatus,
}

/// How the folder stands, for `/status` and `/readyz`. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct FileSetStatus {
    path: Option<PathBuf>,
    inner: Arc<Mutex<Shown>>,
}

#[derive(Debug, Default)]
struct Shown {
    objects: usize,
    revision: u64,
    running: Running,
    error: Option<String>,
}

/// Where the set that runs comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Running {
    /// There was none to apply yet.
    #[default]
    Nothing,
    /// The folder as it is, or as it was before somebody broke it while we ran.
    Folder,
    /// What an earlier start has left.
    Kept,
}

impl fmt::Debug for FileSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSet").field("folder", &self.folder).field("revision", &self.revision).finish_non_exhaustive()
    }
}

impl FileSet {
    /// The set of the folder at `path`; without a folder an empty set. Nothing is read yet.
    #[must_use]
    pub fn new(path: Option<&Path>, storage: Arc<dyn Storage>, triggers: Triggers, choose: Choose) -> Self {
        let shown = FileSetStatus { path: path.map(Path::to_owned), inner: Arc::default() };
        let folder = path.map(ManifestFolder::new);
        Self { folder, storage, triggers, choose, revision: 0, tried: Instant::now(), shown }
    }

    /// Applies the folder for the first time, or else the last set that was applied by an earlier start. Returns all objects of
    /// it, also those not for here; `None` where there is nothing to go by.
    pub async fn start(&mut self) -> Option<Manifests> {
        let why = match self.apply().await {
            Ok(all) => return Some(all),
            Err(why) => why,
        };
        match self.apply_kept().await {
            Ok(Some(all)) => {
                let objects = all.len();
                tracing::error!(
                    objects,
                    "the manifests cannot be used, the last set that could is run until they are mended: {why}"
                );
                Some(all)
            }
            Ok(None) => {
                tracing::error!(
                    "the manifests cannot be used, and no earlier set is kept: none is run until they are mended: {why}"
                );
                None
            }
            Err(also) => {
                tracing::error!(
                    "the manifests cannot be used, nor the set that is kept ({also}): none is run until they are mended: {why}"
                );
                self.shown().error = Some(format!("{why}; the set that is kept cannot be used either: {also}"));
                None
            }
        }
    }

    /// Reads the folder again while running and applies it: what goes wrong is logged and changes nothing. `None` where nothing
    /// was applied.
    pub async fn apply_again(&mut self) -> Option<Manifests> {
        let before = self.shown().error.clone();
        match self.apply().await {
            Ok(all) => {
                tracing::info!(objects = all.len(), revision = self.revision, "manifests applied");
                Some(all)
            }
            Err(why) => {
                // Said once, however often it is tried.
                if before.as_ref() != Some(&why) {
                    tracing::error!("manifests not applied, those from before go on: {why}");
                }
                None
            }
        }
    }

    /// The same if a file of the folder has changed, or the last set was refused some time ago.
    pub async fn look(&mut self) -> Option<Manifests> {
        let folder = self.folder.as_ref()?;
        let again = self.refused() && self.tried.elapsed() >= TRY_AGAIN;
        if again || folder.changed().await { self.apply_again().await } else { None }
    }

    /// Whether the folder's newest set was refused.
    #[must_use]
    pub fn refused(&self) -> bool {
        self.shown().error.is_some()
    }

    /// For `/status` and `/readyz`.
    #[must_use]
    pub fn status(&self) -> FileSetStatus {
        self.shown.clone()
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock()
    }

    /// Reads the folder and applies what is in it, all or nothing.
    async fn apply(&mut self) -> Result<Manifests, String> {
        self.tried = Instant::now();
        let outcome = self.try_apply().await;
        match &outcome {
            Ok(all) => {
                let (objects, revision) = (all.len(), self.revision);
                *self.shown() = Shown { objects, revision, running: Running::Folder, error: None };
                // A power cut before it is kept leaves the set before it, which is then only applied where the folder is wrong.
                if let Err(why) = self.keep(all).await {
                    tracing::error!("the manifests run, but cannot be kept for a start without them ({KEPT}: {why})");
                }
            }
            Err(why) => self.shown().error = Some(why.clone()),
        }
        outcome
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

    /// Applies what an earlier start has kept; `None` if it kept nothing. Triggers that it does not know stay as they are: it may
    /// be older than they.
    async fn apply_kept(&mut self) -> Result<Option<Manifests>, String> {
        let storage = self.storage.clone();
        let read = tokio::task::spawn_blocking(move || read_kept(&*storage, KEPT, MAX_KEPT));
        let read = read.await.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(|e| format!("{KEPT}: {e}"))?;
        let Some(json) = read else { return Ok(None) };
        let all = Manifests::from_json(KEPT, &json).map_err(|e| e.to_string())?;
        let here = (self.choose)(&all).map_err(|e| e.to_string())?;
        self.triggers.apply_older(Owner::Files, here, self.revision + 1).await.map_err(|e| e.to_string())?;
        self.revision += 1;
        let (objects, revision) = (all.len(), self.revision);
        let mut shown = self.shown();
        (shown.objects, shown.revision, shown.running) = (objects, revision, Running::Kept);
        drop(shown);
        Ok(Some(all))
    }

    /// Keeps a set that runs, if another is kept. Without a folder nothing is kept: what an earlier one held is over.
    async fn keep(&self, all: &Manifests) -> io::Result<()> {
        let json = self.folder.is_some().then(|| all.to_json());
        let storage = self.storage.clone();
        let work = tokio::task::spawn_blocking(move || {
            let kept = read_kept(&*storage, KEPT, MAX_KEPT);
            match json {
                Some(json) if !matches!(&kept, Ok(Some(kept)) if *kept == json) => write_kept(&*storage, KEPT, &json),
                None if !matches!(kept, Ok(None)) => storage.remove(KEPT).and_then(|()| storage.sync_dir("")),
                _ => Ok(()),
            }
        });
        work.await.unwrap_or_else(|e| Err(io::Error::other(e)))
    }
}

impl FileSetStatus {
    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `{path, objects, revision, running, error}`; `null` where there is no folder.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let Some(path) = &self.path else { return Value::Null };
        let shown = self.lock();
        json!({
            "path": path.display().to_string(),
            "objects": shown.objects,
            "revision": shown.revision,
            "running": match shown.running {
                Running::Nothing => "none",
                Running::Folder => "folder",
                Running::Kept => "kept",
            },
            "error": shown.error,
        })
    }

    /// Whether what the folder says is what runs. For everybody to see, so the error does not quote the manifests.
    ///
    /// # Errors
    /// What runs instead.
    pub fn in_force(&self) -> Result<(), String> {
        let shown = self.lock();
        if shown.error.is_none() {
            return Ok(());
        }
        let instead = match shown.running {
            Running::Nothing => "none is run",
            Running::Folder => "those from before go on",
            Running::Kept => "the last ones that could be used are run",
        };
        Err(format!("the newest cannot be used, {instead}; manifests.error in /status says why"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{BrokerDefaults, Brokers};
    use crate::clock::Clock;
    use crate::delivery::DeliverySettings;
    use crate::door::ClientTls;
    use crate::storage::Disk;

    /// A process on `dir`, with the manifests in `dir/manifests`.
    struct Process {
        files: FileSet,
        triggers: Triggers,
        brokers: Brokers,
    }

    impl Process {
        async fn open(dir: &Path) -> Self {
            let storage: Arc<dyn Storage> = Arc::new(Disk::new(&dir.join("data")).expect("a folder"));
            let brokers = Brokers::open(storage.clone(), None, BrokerDefaults::default()).await.expect("opens");
            let settings = DeliverySettings {
                tls: ClientTls::new(None),
                address: "http://127.0.0.1:1/".parse().expect("a URL"),
                max_event_bytes: 1 << 20,
                clock: Clock::system(),
                tokens: std::collections::BTreeMap::new(),
                listener: crate::delivery::LocalListener::none(),
                spans: crate::observe::Spans::default(),
            };
            let triggers = Triggers::new(brokers.clone(), settings);
            let here = Box::new(|all: &Manifests| Ok(all.for_here()));
            let files = FileSet::new(Some(&dir.join("manifests")), storage, triggers.clone(), here);
            Self { files, triggers, brokers }
        }

        fn names(&self) -> Vec<String> {
            let status = self.triggers.status();
            let triggers = status.as_array().expect("an array").iter();
            triggers.map(|trigger| trigger["name"].as_str().expect("a name").to_owned()).collect()
        }

        /// Names of the consumers, which are those that the journal remembers.
        fn remembered(&self) -> usize {
            self.brokers.list().iter().map(|broker| broker.journal().consumers().len()).sum()
        }

        async fn close(self) {
            self.triggers.close().await;
            self.brokers.close().await;
        }
    }

    fn write(dir: &Path, name: &str, broker: &str) {
        let folder = dir.join("manifests");
        std::fs::create_dir_all(&folder).expect("made");
        let text = format!(
            "apiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata: {{name: '{name}'}}\n\
             spec: {{{broker}: default, subscriber: {{uri: 'http://127.0.0.1:9/'}}}}\n"
        );
        std::fs::write(folder.join(format!("{name}.yaml")), text).expect("written");
    }

    #[tokio::test]
    async fn a_start_with_a_wrong_folder_runs_the_last_set_that_could_be_used() {
        let dir = tempfile::tempdir().expect("a folder");
        write(dir.path(), "x", "broker");
        let mut process = Process::open(dir.path()).await;
        assert_eq!(process.files.start().await.map(|all| all.len()), Some(1));
        assert_eq!(process.files.status().in_force(), Ok(()));
        process.close().await;
        for gone in [false, true] {
            if gone {
                std::fs::remove_dir_all(dir.path().join("manifests")).expect("removed");
            } else {
                write(dir.path(), "y", "brokre");
            }
            let mut process = Process::open(dir.path()).await;
            assert_eq!(process.files.start().await.map(|all| all.len()), Some(1));
            assert_eq!(process.names(), ["x"]);
            let status = process.files.status().to_json();
            assert_eq!((status["running"].as_str(), status["objects"].as_u64()), (Some("kept"), Some(1)));
            assert!(status["error"].as_str().is_some_and(|why| gone || why.contains("brokre")), "{status}");
            assert!(process.files.status().in_force().is_err_and(|why| !why.contains("brokre")));
            assert!(process.files.look().await.is_none(), "nothing has changed");
            process.close().await;
        }
        // Mended, it is applied without a restart.
        let mut process = Process::open(dir.path()).await;
        process.files.start().await;
        write(dir.path(), "z", "broker");
        assert_eq!(process.files.look().await.map(|all| all.len()), Some(1));
        assert_eq!(process.names(), ["z"]);
        assert_eq!(process.files.status().to_json()["running"], "folder");
        assert!(!process.files.refused());
        process.close().await;
    }

    #[tokio::test]
    async fn with_nothing_to_go_by_nothing_is_forgotten() {
        let dir = tempfile::tempdir().expect("a folder");
        write(dir.path(), "x", "broker");
        let mut process = Process::open(dir.path()).await;
        process.files.start().await;
        assert_eq!(process.remembered(), 1);
        process.close().await;
        std::fs::write(dir.path().join("data").join(KEPT), "[{").expect("damaged");
        write(dir.path(), "x", "brokre");
        let mut process = Process::open(dir.path()).await;
        assert!(process.files.start().await.is_none());
        assert!(process.names().is_empty());
        assert_eq!(process.remembered(), 1, "the Trigger's cursor waits for its manifest");
        let status = process.files.status().to_json();
        assert_eq!(status["running"], "none");
        assert!(status["error"].as_str().is_some_and(|why| why.contains(KEPT) && why.contains("brokre")), "{status}");
        process.close().await;
    }

    #[tokio::test]
    async fn a_kept_set_that_is_older_than_a_trigger_does_not_make_it_forgotten() {
        let dir = tempfile::tempdir().expect("a folder");
        write(dir.path(), "x", "broker");
        let mut process = Process::open(dir.path()).await;
        process.files.start().await;
        let older = std::fs::read(dir.path().join("data").join(KEPT)).expect("kept");
        write(dir.path(), "y", "broker");
        process.files.apply_again().await.expect("applied");
        process.close().await;
        std::fs::write(dir.path().join("data").join(KEPT), older).expect("set back");
        write(dir.path(), "z", "brokre");
        let mut process = Process::open(dir.path()).await;
        process.files.start().await;
        assert_eq!((process.names(), process.remembered()), (vec!["x".to_owned()], 2));
        process.close().await;
    }

    #[tokio::test]
    async fn what_is_kept_is_written_only_when_it_changes_and_goes_with_the_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        write(dir.path(), "x", "broker");
        let kept = dir.path().join("data").join(KEPT);
        let mut process = Process::open(dir.path()).await;
        process.files.start().await;
        let first = std::fs::metadata(&kept).expect("kept").modified().expect("a time");
        process.files.apply_again().await.expect("applied");
        assert_eq!(std::fs::metadata(&kept).expect("kept").modified().expect("a time"), first);
        process.files.folder = None;
        process.files.apply_again().await.expect("applied");
        assert!(!kept.exists());
        process.close().await;
    }
}
