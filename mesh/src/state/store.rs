//! The redb file, and what is done when it fails or is damaged.

use std::fmt;
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, DatabaseError, ReadableDatabase, StorageError, TableDefinition, TableError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tracing::{debug, warn};

use super::backend::{Backend, Doubt};
use super::place::Place;
use super::{Op, Table};
use crate::storage::{Storage, StorageFile};

/// Memory that redb may use for its pages. What is kept here is small and read seldom.
pub const CACHE_BYTES: usize = 256 << 10;

/// The version of redb's file format that is read and written.
pub(super) const FORMAT: u8 = 3;

type Rows = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;
type Bytes = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Why the state could not be read or changed.
#[derive(Debug, Error)]
pub enum StateError {
    /// The file system failed. Whether a change that was being made is there is not known: make it again. The next call opens
    /// the file anew.
    #[error("state {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the file system answered.
        source: io::Error,
    },
    /// The file was written by a later version of redb.
    #[error(
        "{path} has format version {found}, this program reads {FORMAT}: use the newer program again, or another data folder"
    )]
    Version {
        /// The file.
        path: String,
        /// The version found.
        found: u8,
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
    /// A key or value is too long.
    #[error("state table {table}: a {what} of {size} bytes is longer than the {limit} allowed")]
    TooLarge {
        /// `key` or `value`.
        what: &'static str,
        /// The table.
        table: &'static str,
        /// Its bytes.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

/// Keyed tables in one file. Cheap to clone. Every call blocks on the disk: make it off the runtime.
#[derive(Clone)]
pub struct State(Arc<Inner>);

struct Inner {
    place: Place,
    /// `None` after a failure, until the next call.
    database: Mutex<Option<Database>>,
    doubt: Arc<Doubt>,
    set_aside: AtomicU64,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State({})", self.0.place.path)
    }
}

/// Why an attempt did not work out.
#[derive(Debug)]
enum Failure {
    /// The disk: open anew with the next call.
    Io(io::Error),
    /// The file is not what redb wrote, as an error or a panic says.
    Damaged(String),
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io(e) if matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
                Self::Damaged(e.to_string())
            }
            StorageError::Io(e) => Self::Io(e),
            StorageError::Corrupted(why) => Self::Damaged(why),
            other => Self::Io(io::Error::other(other.to_string())),
        }
    }
}

impl From<redb::Error> for Failure {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(e) => StorageError::Io(e).into(),
            redb::Error::Corrupted(why) => Self::Damaged(why),
            redb::Error::PreviousIo | redb::Error::DatabaseClosed => Self::Io(io::Error::other(error.to_string())),
            // The types of our tables never change, so a file that has others is not ours.
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        redb::Error::from(error).into()
    }
}

impl State {
    /// Opens the file `path` of `storage`, made if absent.
    ///
    /// A damaged file is set aside, and where the disk fails the file is opened with the first call that finds it working;
    /// until then calls return the disk's error.
    ///
    /// # Errors
    /// [`StateError::Version`]; the file is left as it is.
    pub fn open(storage: Arc<dyn Storage>, path: &str) -> Result<Self, StateError> {
        let inner = Inner {
            place: Place { storage, path: path.to_owned() },
            database: Mutex::new(None),
            doubt: Arc::default(),
            set_aside: AtomicU64::new(0),
        };
        if let Some(found) = inner.place.newer() {
            return Err(StateError::Version { path: path.to_owned(), found });
        }
        if let Err(e) = inner.with(|_| Ok(())) {
            warn!(path, error = %e, "the state file cannot be opened: trying again when it is needed");
        }
        Ok(Self(Arc::new(inner)))
    }

    /// The value of a key.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn get<V: DeserializeOwned>(&self, table: Table<V>, key: &[u8]) -> Result<Option<V>, StateError> {
        let bytes = self.0.with(|database| {
            let Some(rows) = rows(database, table.name())? else { return Ok(None) };
            let value = rows.get(key)?;
            Ok(value.map(|v| v.value().to_vec()))
        })?;
        bytes.map(|bytes| table.decode(key, &bytes)).transpose()
    }

    /// All keys that begin with `prefix` and their values, in the order of the keys.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn scan<V: DeserializeOwned>(&self, table: Table<V>, prefix: &[u8]) -> Result<Vec<(Vec<u8>, V)>, StateError> {
        let found = self.0.with(|database| {
            let mut found = Vec::new();
            let Some(rows) = rows(database, table.name())? else { return Ok(found) };
            for row in rows.range::<&[u8]>((Bound::Included(prefix), Bound::Unbounded))? {
                let (key, value) = row?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                found.push((key.value().to_vec(), value.value().to_vec()));
            }
            Ok(found)
        })?;
        found.into_iter().map(|(key, bytes)| table.decode(&key, &bytes).map(|value| (key, value))).collect()
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
        self.0.with(|database| {
            let change = database.begin_write().map_err(redb::Error::from)?;
            for op in ops {
                let mut rows = change.open_table(Bytes::new(op.table)).map_err(redb::Error::from)?;
                match &op.value {
                    Some(value) => rows.insert(&*op.key, &**value)?,
                    None => rows.remove(&*op.key)?,
                };
            }
            change.commit().map_err(redb::Error::from)?;
            Ok(())
        })
    }

    /// How many damaged files were set aside since this was opened; what they held is gone.
    #[must_use]
    pub fn set_aside(&self) -> u64 {
        self.0.set_aside.load(Ordering::Relaxed)
    }
}

/// A table's rows as of now, if the table exists.
fn rows(database: &Database, table: &'static str) -> Result<Option<Rows>, Failure> {
    match database.begin_read().map_err(redb::Error::from)?.open_table(Bytes::new(table)) {
        Ok(rows) => Ok(Some(rows)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(e) => Err(redb::Error::from(e).into()),
    }
}

impl Inner {
    /// Runs `work` on the database, opening it if need be. Where the work finds damage the file is checked as a whole: if it
    /// is sound the work is done again, else it is done on an empty file.
    fn with<T>(&self, work: impl Fn(&Database) -> Result<T, Failure>) -> Result<T, StateError> {
        let mut held = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let mut damage = None;
        // Once as it is, once after a check of the file, once on an empty file.
        for _ in 0..3 {
            let database = match held.take() {
                Some(database) => database,
                None => self.reopen().map_err(|e| self.error(e))?,
            };
            match self.guarded(|| work(&database)) {
                Ok(value) => {
                    *held = Some(database);
                    return Ok(value);
                }
                Err(Failure::Io(e)) => {
                    // Should redb panic while it closes, the file is not to blame.
                    let _ = caught(|| {
                        drop(database);
                        Ok(())
                    });
                    return Err(self.error(e));
                }
                Err(Failure::Damaged(why)) => {
                    let _ = self.guarded(|| {
                        drop(database);
                        Ok(())
                    });
                    if damage.is_some() {
                        self.put_aside(&why).map_err(|e| self.error(e))?;
                    }
                    damage = Some(why);
                }
            }
        }
        Err(self.error(io::Error::other(damage.unwrap_or_default())))
    }

    /// Runs `work`. A panic of redb is damage; where panics are not caught, the file is set aside before the process ends.
    fn guarded<T>(&self, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        self.place.watched(|| caught(work))
    }

    fn error(&self, source: io::Error) -> StateError {
        StateError::Io { path: self.place.path.clone(), source }
    }

    /// Opens the file, or an empty one in its place if it is damaged.
    fn reopen(&self) -> io::Result<Database> {
        for _ in 0..2 {
            // The check reads all pages and commits. Where that commit finds no room, reading without a check is better
            // than not reading.
            let opened = match self.guarded(|| self.open_file(true)) {
                Err(Failure::Io(_)) => self.guarded(|| self.open_file(false)),
                other => other,
            };
            match opened {
                Ok(database) => return Ok(database),
                Err(Failure::Io(e)) => return Err(e),
                Err(Failure::Damaged(why)) => self.put_aside(&why)?,
            }
        }
        Err(io::Error::other("a new and empty state file is unusable"))
    }

    /// redb trusts what it reads unless the file as a whole is checked.
    fn open_file(&self, check: bool) -> Result<Database, Failure> {
        let file = match self.place.storage.open(&self.place.path, false) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.make_file()?,
            other => other.map_err(Failure::Io)?,
        };
        self.doubt.settle(&*file).map_err(Failure::Io)?;
        let path = self.place.path.clone();
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        builder.set_check_integrity_on_open(check);
        builder.set_repair_callback(move |_| debug!(path, "checking the state file"));
        Ok(builder.create_with_backend(Backend { file, doubt: Arc::clone(&self.doubt) })?)
    }

    /// Makes an empty file beside its place and puts it there when it is whole: a power cut before the rename leaves a
    /// `.new` that the next start makes again, never a half-made file under the real name.
    fn make_file(&self) -> Result<Arc<dyn StorageFile>, Failure> {
        let new = format!("{}.new", self.place.path);
        let file = self.place.storage.open(&new, true).map_err(Failure::Io)?;
        file.set_len(0).map_err(Failure::Io)?;
        let backend = Backend { file: Arc::clone(&file), doubt: Arc::clone(&self.doubt) };
        drop(Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?);
        // durable before: the content must be there before the name says so, and the name before a commit is answered.
        file.sync_data().and_then(|()| self.doubt.settle(&*file)).map_err(Failure::Io)?;
        self.place.storage.rename(&new, &self.place.path).map_err(Failure::Io)?;
        self.place.storage.sync_dir(self.place.folder()).map_err(Failure::Io)?;
        Ok(file)
    }

    /// Makes way for an empty file.
    fn put_aside(&self, why: &str) -> io::Result<()> {
        self.place.put_aside(why)?;
        self.doubt.forget();
        self.set_aside.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// What redb's panic says, which is damage like any other.
fn caught<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        #[cfg(test)]
        tests::PANICS.with(|panics| panics.set(panics.get() + 1));
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Failure::Damaged(format!("panic: {}", text.unwrap_or("of no text"))))
    })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
