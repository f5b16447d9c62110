//! A wall clock of our own for one process, by Debian's `libfaketime`: our programs ask the C library for the time, which it
//! answers in its place. Monotonic time stays real. A time namespace would not do: it shifts monotonic time only.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::node::Node;

/// A clock that a process reads from a file.
#[derive(Debug)]
pub struct Clock {
    file: PathBuf,
}

/// Where the library is, if it is installed.
#[must_use]
pub fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.is_file())
}

impl Clock {
    /// Gives `node` a clock, from its next start on, that runs from `time` (`2030-01-31 12:00:00`, UTC).
    ///
    /// # Errors
    /// When the library is not installed or the file cannot be written.
    pub fn give(node: &mut Node, folder: &Path, time: &str) -> Result<Self> {
        let library = library().context("libfaketime is not installed")?;
        let clock = Self { file: folder.join("clock") };
        clock.set(time)?;
        for (name, value) in [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", clock.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("TZ", "UTC".to_owned()),
        ] {
            node.environment.push((name.to_owned(), value));
        }
        Ok(clock)
    }

    /// Makes it jump to `time`, at once.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&self, time: &str) -> Result<()> {
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("@{time}\n"))?;
        std::fs::rename(&next, &self.file).with_context(|| self.file.display().to_string())
    }
}
