//! What can go wrong, from the caller's point of view.

use std::io;

use thiserror::Error;

/// Why an append was not, or will not be, durable. Nothing of it can be read, now or after a crash, under the name it might
/// have had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// The broker is at its limit and its policy is `reject`.
    #[error(
        "the broker is at its limit and its policy is reject: wait until its consumers have caught up, or raise max-bytes"
    )]
    Full,
    /// The file system has no space left.
    #[error("no space left on the disk: free some, or lower max-bytes")]
    DiskFull,
    /// Too many bytes are waiting for the disk: wait for [`super::Journal::room`] and try again.
    #[error("too much is waiting for the disk")]
    Busy,
    /// One append is larger than half a segment, or the facts would outgrow a quarter of one.
    #[error("{size} bytes are more than the {limit} that fit: raise segment-bytes or send less at once")]
    TooLarge {
        /// Bytes of the append.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The disk answered with an error. The next append tries again, in a new epoch if need be.
    #[error("the disk failed: {0}")]
    Disk(String),
    /// The journal has been closed.
    #[error("the journal is closed")]
    Closed,
}

impl Refused {
    /// The refusal that an I/O error means.
    pub(super) fn from_io(what: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Self::DiskFull,
            _ => Self::Disk(format!("{what}: {error}")),
        }
    }
}

/// Why a journal could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A call to the file system failed.
    #[error("journal {dir}: {what}: {source}")]
    Io {
        /// The journal's folder.
        dir: String,
        /// What was being done.
        what: String,
        /// What the file system answered.
        source: io::Error,
    },
    /// A segment was written by a later version of the format.
    #[error(
        "journal {dir}: {file} has format version {found}, this program reads {known}: use the newer program again, or another data folder"
    )]
    Version {
        /// The journal's folder.
        dir: String,
        /// The segment's file name.
        file: String,
        /// The version found.
        found: u8,
        /// The version this program writes.
        known: u8,
    },
    /// There is no room for the segment that every start needs.
    #[error("journal {dir}: no room for a new segment of {needed} bytes, {free} are free: {refused}")]
    NoRoom {
        /// The journal's folder.
        dir: String,
        /// Bytes of the segment.
        needed: u64,
        /// Bytes free on the disk.
        free: u64,
        /// Why.
        refused: Refused,
    },
    /// The system has no random numbers to draw an epoch from.
    #[error("journal {dir}: no random numbers to be had: {0}", dir = .1)]
    Random(getrandom::Error, String),
}

/// Why reading failed. The reader stays where it was and may be asked again.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file system failed.
    #[error("reading the journal: {0}")]
    Io(#[from] io::Error),
    /// The journal has been closed.
    #[error("the journal is closed")]
    Closed,
}

impl From<ReadError> for Refused {
    /// What had to be read before the append could not be.
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => Self::from_io("reading the journal", &error),
            ReadError::Closed => Self::Closed,
        }
    }
}
