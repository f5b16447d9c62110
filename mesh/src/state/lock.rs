//! One owner: a data folder belongs to one process.
//!
//! The file `lock` in the folder is locked with `flock`, which the kernel gives back whatever ends the process, and holds the
//! owner's pid for whoever is refused. The file itself stays.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use thiserror::Error;

/// The lock's file name.
const FILE: &str = "lock";

/// An owner that has just locked the folder writes its pid at once; so often and so long is waited for it.
const PID_TRIES: u32 = 20;
const PID_WAIT: Duration = Duration::from_millis(5);

/// Why a data folder could not be taken.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process owns the folder.
    #[error("data folder {} is in use by {}: stop that process, or give this one another data folder", path.display(), owner(*pid))]
    Held {
        /// The folder.
        path: PathBuf,
        /// The owner, if it could be found out.
        pid: Option<u32>,
    },
    /// The folder or the lock file could not be made or read.
    #[error("data folder {}: {what}: {source}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// What the file system answered.
        source: io::Error,
    },
}

fn owner(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// A data folder.
#[derive(Debug, Clone, Copy)]
pub struct DataDir;

impl DataDir {
    /// Takes the folder `path`, made with those above it if absent, until the lock is dropped or the process ends.
    ///
    /// # Errors
    /// [`LockError::Held`] with the owner's pid when another process, or another lock of this one, has it.
    pub fn lock(path: &Path) -> Result<Lock, LockError> {
        let error = |what| move |source| LockError::Io { path: path.to_owned(), what, source };
        std::fs::create_dir_all(path).map_err(error("making the folder"))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(FILE))
            .map_err(error("opening the lock file"))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(LockError::Held { path: path.to_owned(), pid: pid_of_owner(&mut file) });
            }
            Err(e) => return Err(error("locking the lock file")(e.into())),
        }
        // A full disk must not keep the owner out: without a pid the refusal of others is only less helpful.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Lock { file })
    }
}

fn pid_of_owner(file: &mut File) -> Option<u32> {
    for _ in 0..PID_TRIES {
        let mut text = String::new();
        file.rewind().ok()?;
        file.take(32).read_to_string(&mut text).ok()?;
        if let Some(pid) = text.strip_suffix('\n').and_then(|text| text.parse().ok()) {
            return Some(pid);
        }
        std::thread::sleep(PID_WAIT);
    }
    None
}

/// The ownership of a data folder; ends when dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The next owner's refusals must not name us.
        let _ = self.file.set_len(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_refused_with_the_first_ones_pid() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("data");
        let lock = DataDir::lock(&path).expect("free");
        let refused = DataDir::lock(&path).expect_err("held");
        assert!(matches!(refused, LockError::Held { pid: Some(pid), .. } if pid == std::process::id()));
        assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
        drop(lock);
        DataDir::lock(&path).expect("free again");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let file = dir.path().join("file");
        std::fs::write(&file, b"").expect("written");
        let error = DataDir::lock(&file.join("data")).expect_err("a file is no folder");
        assert!(error.to_string().contains("file/data: making the folder"), "{error}");
    }
}
