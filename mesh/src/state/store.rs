//! The state file, and what is done when the disk fails or the file is damaged.
//!
//! Every change writes the whole file anew beside the old one, syncs it, and renames it over the old one. A power cut before the
//! rename leaves the old file and a `.new` that the next change overwrites; after it, one of the two under the name, whole.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tracing::warn;

use super::image::{self, Rows};
use super::{Op, Table};
use crate::storage::{Storage, read_exact_at};

/// Most bytes that all keys and values may have together: a change costs as many written bytes as there are.
pub const MAX_STATE_BYTES: usize = 16 << 20;

/// Damaged files that are kept for a look at them; the oldest goes when there are more.
pub const MAX_DAMAGED: usize = 3;

/// Why the state could not be read or changed.
#[derive(Debug, Error)]
pub enum StateError {
    /// The file system failed. Whether a change that was being made is there is not known: make it again.
    #[error("state {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the file system answered.
        source: io::Error,
    },
    /// A value is not what its table holds. Written by another version of the program.
    #[error("state table {table}, key \"{key}\": {why}")]
    Value {
        /// The table.
        table: &'static str,
        /// The key.
        key: String,
        /// What does not fit.
        why: String,
    },
    /// A key or value is too long, or all of them together are.
    #[error("state table {table}: a {what} of {size} bytes is longer than the {limit} allowed")]
    TooLarge {
        /// `key`, `value` or `file`.
        what: &'static str,
        /// The table.
        table: &'static str,
        /// Its bytes.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

/// Keyed tables in one file. Cheap to clone. Every call reads the file, and blocks on the disk: make it off the runtime.
#[derive(Clone)]
pub struct State(Arc<Inner>);

struct Inner {
    storage: Arc<dyn Storage>,
    path: String,
    /// One call at a time.
    turn: Mutex<Doubt>,
    set_aside: AtomicU64,
}

/// Whether a rename was made that may not be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    None,
    Name,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State({})", self.0.path)
    }
}

impl State {
    /// Opens the file `path` of `storage`, which is made with the first change.
    ///
    /// Never fails: a damaged file is set aside, and where the disk fails calls return its error until it works again.
    #[must_use]
    pub fn open(storage: Arc<dyn Storage>, path: &str) -> Self {
        let turn = Mutex::new(Doubt::None);
        let inner = Inner { storage, path: path.to_owned(), turn, set_aside: AtomicU64::new(0) };
        if let Err(e) = inner.rows() {
            warn!(path, error = %e, "the state file cannot be read: trying again when it is needed");
        }
        Self(Arc::new(inner))
    }

    /// The value of a key.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn get<V: DeserializeOwned>(&self, table: Table<V>, key: &[u8]) -> Result<Option<V>, StateError> {
        let rows = self.0.rows()?;
        rows.get(&(table.name().to_owned(), key.to_vec())).map(|bytes| table.decode(key, bytes)).transpose()
    }

    /// All keys that begin with `prefix` and their values, in the order of the keys.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn scan<V: DeserializeOwned>(&self, table: Table<V>, prefix: &[u8]) -> Result<Vec<(Vec<u8>, V)>, StateError> {
        let rows = self.0.rows()?;
        let from = (table.name().to_owned(), prefix.to_vec());
        let found = rows.range(from..).take_while(|((name, key), _)| name == table.name() && key.starts_with(prefix));
        found.map(|((_, key), bytes)| table.decode(key, bytes).map(|value| (key.clone(), value))).collect()
    }

    /// Sets a key, durably.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn put<V: Serialize>(&self, table: Table<V>, key: &[u8], value: &V) -> Result<(), StateError> {
        self.apply(&[table.put(key, value)?])
    }

    /// Removes a key, durably. One that does not exist is no error.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn delete<V>(&self, table: Table<V>, key: &[u8]) -> Result<(), StateError> {
        self.apply(&[table.delete(key)])
    }

    /// Makes all these changes, in order and durably, or none.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn apply(&self, ops: &[Op]) -> Result<(), StateError> {
        self.0.change(ops)
    }

    /// How many damaged files were set aside since this was opened; what they held is gone.
    #[must_use]
    pub fn set_aside(&self) -> u64 {
        self.0.set_aside.load(Ordering::Relaxed)
    }
}

impl Inner {
    fn rows(&self) -> Result<Rows, StateError> {
        let mut doubt = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.load(&mut doubt).map_err(|e| self.error(e))
    }

    fn change(&self, ops: &[Op]) -> Result<(), StateError> {
        let mut doubt = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows = self.load(&mut doubt).map_err(|e| self.error(e))?;
        for Op { table, key, value } in ops {
            let place = ((*table).to_owned(), key.clone());
            match value {
                Some(value) => rows.insert(place, value.clone()),
                None => rows.remove(&place),
            };
        }
        let bytes = image::write(&rows);
        if let (Some(last), true) = (ops.last(), bytes.len() > MAX_STATE_BYTES) {
            return Err(StateError::TooLarge {
                what: "file",
                table: last.table,
                size: bytes.len(),
                limit: MAX_STATE_BYTES,
            });
        }
        self.store(&bytes, &mut doubt).map_err(|e| self.error(e))
    }

    fn error(&self, source: io::Error) -> StateError {
        StateError::Io { path: self.path.clone(), source }
    }

    /// What the file holds, and nothing where there is none. A damaged one is set aside.
    fn load(&self, doubt: &mut Doubt) -> io::Result<Rows> {
        let bytes = match self.storage.open(&self.path, false) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Rows::new()),
            Err(e) => return Err(e),
            Ok(file) => {
                let len = usize::try_from(file.len()?).ok().filter(|len| *len <= MAX_STATE_BYTES);
                let mut bytes = vec![0; len.unwrap_or(0)];
                read_exact_at(&*file, &mut bytes, 0)?;
                bytes
            }
        };
        match image::read(&bytes) {
            Ok(rows) => {
                if *doubt == Doubt::Name {
                    // What is read here is acted upon, so it must not be gone after a power cut.
                    self.store(&bytes, doubt)?;
                }
                Ok(rows)
            }
            Err(why) => {
                self.put_aside(why)?;
                *doubt = Doubt::None;
                Ok(Rows::new())
            }
        }
    }

    /// Puts a file with these bytes into the place of the old one.
    fn store(&self, bytes: &[u8], doubt: &mut Doubt) -> io::Result<()> {
        let new = format!("{}.new", self.path);
        let written = self.storage.open(&new, true).and_then(|file| {
            file.set_len(0)?;
            file.write_all_at(bytes, 0)?;
            // durable before: the content must be there before the name says so.
            file.sync_data()
        });
        if let Err(error) = written {
            // Its room is given back; where that fails too, the next change writes it anew.
            let _ = self.storage.remove(&new);
            return Err(error);
        }
        *doubt = Doubt::Name;
        self.storage.rename(&new, &self.path)?;
        // durable before: the name, before the change is answered.
        self.storage.sync_dir(folder(&self.path))?;
        *doubt = Doubt::None;
        Ok(())
    }

    /// Renames the damaged file. Before the folder is synced a power cut leaves it under its old name, and the next start does
    /// the same again.
    fn put_aside(&self, why: &str) -> io::Result<()> {
        let dir = folder(&self.path);
        let name = self.path.rsplit('/').next().unwrap_or_default();
        let prefix = format!("{name}.damaged-");
        let mut numbers: Vec<u64> =
            self.storage.list(dir)?.iter().filter_map(|file| file.strip_prefix(&prefix)?.parse().ok()).collect();
        numbers.sort_unstable();
        let number = numbers.last().map_or(1, |n| n.saturating_add(1));
        let to = format!("{}.damaged-{number}", self.path);
        self.storage.rename(&self.path, &to)?;
        self.storage.sync_dir(dir)?;
        self.set_aside.fetch_add(1, Ordering::Relaxed);
        warn!(path = self.path, why, kept_as = to, "the state file is damaged: set aside, beginning with an empty one");
        let surplus = (numbers.len() + 1).saturating_sub(MAX_DAMAGED);
        for old in numbers.iter().take(surplus) {
            // Found again by the next one if it stays.
            if let Err(e) = self.storage.remove(&format!("{}.damaged-{old}", self.path)) {
                warn!(path = self.path, number = old, error = %e, "could not remove an old damaged state file");
            }
        }
        Ok(())
    }
}

fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
