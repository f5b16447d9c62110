//! The folder of one test: data, configurations and logs of everything it starts, gone with it; when the test fails, the end of
//! each log is shown first.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::process;

/// The folder of one test.
#[derive(Debug)]
pub struct Lab {
    folder: TempDir,
}

/// Runs a test in a lab of its own; an error comes back with the end of each log.
///
/// # Errors
/// The test's.
pub fn run(test: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    let lab = Lab::new()?;
    test(&lab).map_err(|error| error.context(lab.last_lines()))
}

impl Lab {
    /// A lab in the folder for temporary files.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("godwit-test-").tempdir().context("cannot make a folder")?;
        Ok(Self { folder })
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A new folder in it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Writes a file in it, making folders on the way.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn last_lines(&self) -> String {
        let mut logs: Vec<PathBuf> = std::fs::read_dir(self.path())
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "log"))
            .collect();
        logs.sort();
        let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        logs.iter().map(|log| process::last_lines(&name(log), log)).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.last_lines());
        }
    }
}
