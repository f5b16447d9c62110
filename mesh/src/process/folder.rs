//! A folder of manifests that may change while the process runs.
//!
//! What counts as a change is the list of files with their lengths and times of change, and whether there is a list at all; a set
//! is read again as a whole. A folder that cannot be read, or holds something wrong, gives an error and no set: what was applied
//! before goes on.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::manifest::{ManifestError, Manifests};

/// A folder of manifests.
#[derive(Debug, Clone)]
pub struct ManifestFolder {
    path: PathBuf,
    seen: Option<Listing>,
}

/// The files with their lengths and times of change, by name.
type Listing = Vec<(PathBuf, u64, Option<SystemTime>)>;

impl ManifestFolder {
    /// The folder at `path`; nothing is read yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), seen: None }
    }

    /// The folder's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the set off the runtime.
    ///
    /// # Errors
    /// The first thing that is wrong in any file.
    pub async fn load(&mut self) -> Result<Manifests, ManifestError> {
        let path = self.path.clone();
        let work = tokio::task::spawn_blocking(move || (list(&path), Manifests::load_dir(&path)));
        let Ok((seen, set)) = work.await else {
            return Err(ManifestError {
                file: self.path.display().to_string(),
                object: None,
                field: None,
                why: "reading the manifests was cut short".to_owned(),
            });
        };
        // Listed before it was read: a file that changes in between is seen as changed the next time.
        self.seen = seen;
        set
    }

    /// Whether a file has come, gone or changed since the last [`ManifestFolder::load`]. Looks off the runtime.
    pub async fn changed(&self) -> bool {
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || list(&path)).await.is_ok_and(|now| now != self.seen)
    }
}

/// The files in a folder; `None` if it cannot be read.
fn list(path: &Path) -> Option<Listing> {
    let mut files: Listing = std::fs::read_dir(path)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let data = std::fs::metadata(entry.path()).ok()?;
            data.is_file().then(|| (entry.path(), data.len(), data.modified().ok()))
        })
        .collect();
    files.sort();
    Some(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_changed_file_is_noticed_and_a_wrong_one_gives_no_set() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut folder = ManifestFolder::new(dir.path());
        assert!(folder.load().await.expect("empty").is_empty());
        assert!(!folder.changed().await);
        std::fs::write(dir.path().join("x.yaml"), "kind: Nothing\n").expect("written");
        assert!(folder.changed().await);
        assert!(folder.load().await.is_err());
        assert!(!folder.changed().await, "the same wrong file is reported once");
    }

    #[tokio::test]
    async fn a_folder_that_comes_into_being_is_a_change_even_while_it_is_empty() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("manifests");
        let mut folder = ManifestFolder::new(&path);
        assert!(folder.load().await.is_err());
        assert!(!folder.changed().await);
        std::fs::create_dir(&path).expect("made");
        assert!(folder.changed().await);
    }
}
