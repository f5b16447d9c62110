//! What lies below the journal: files, and the four calls whose order decides what a power cut leaves.
//!
//! Two implementations: [`Disk`] is the machine's own file system, [`SimDisk`] records every call and produces
//! the states that a power cut may leave behind. All paths are relative to the root the storage was made with.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

mod disk;
pub mod sim;

pub use disk::Disk;
pub use sim::SimDisk;

/// A file system, or a model of one.
pub trait Storage: Send + Sync + Debug {
    /// Opens a file for reading and writing; made if `create` and absent.
    ///
    /// A created name is durable only after [`Storage::sync_dir`].
    ///
    /// # Errors
    /// Whatever the file system answers.
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn StorageFile>>;

    /// The file names in a folder, in no order. Folders below it are not listed.
    ///
    /// # Errors
    /// Whatever the file system answers; an absent folder is [`io::ErrorKind::NotFound`].
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;

    /// Makes a folder and those above it, durably.
    ///
    /// # Errors
    /// Whatever the file system answers.
    fn make_dir(&self, dir: &str) -> io::Result<()>;

    /// Renames a file over whatever has the new name. Durable only after [`Storage::sync_dir`]; until then a power cut may
    /// leave either name, never both, never none.
    ///
    /// # Errors
    /// Whatever the file system answers.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Durable only after [`Storage::sync_dir`].
    ///
    /// # Errors
    /// Whatever the file system answers.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// Whatever the file system answers.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;

    /// Bytes that may still be written on the file system that holds the root.
    ///
    /// # Errors
    /// Whatever the file system answers.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// One open file. All calls may come from several threads at once.
#[expect(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait StorageFile: Send + Sync + Debug {
    /// Reads into `buf` at `at`; returns the bytes read, 0 at the end of the file.
    ///
    /// # Errors
    /// Whatever the file system answers.
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize>;

    /// Writes all of `buf` at `at`. Durable only after [`StorageFile::sync_data`].
    ///
    /// # Errors
    /// Whatever the file system answers; part of the bytes may then have been written.
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()>;

    /// Makes what was written durable, the file's length included (`fdatasync`).
    ///
    /// # Errors
    /// Whatever the file system answers. After an error none of the bytes written since the last success can be trusted.
    fn sync_data(&self) -> io::Result<()>;

    /// Cuts or extends the file (with zeros). Durable only after [`StorageFile::sync_data`].
    ///
    /// # Errors
    /// Whatever the file system answers.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// The file's length in bytes.
    ///
    /// # Errors
    /// Whatever the file system answers.
    fn len(&self) -> io::Result<u64>;

    /// Reserves blocks for the first `len` bytes without changing what they read as, and extends the file to `len`.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where the file system cannot (UBIFS); the caller then writes zeros.
    fn allocate(&self, len: u64) -> io::Result<()>;
}

/// Reads exactly `buf.len()` bytes at `at`.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] when the file ends before, else what the file system answers.
pub fn read_exact_at(file: &dyn StorageFile, mut buf: &mut [u8], mut at: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.read_at(buf, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                buf = &mut buf[n..];
                at += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
