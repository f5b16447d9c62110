//! Failures on request: the nth call of a kind, a full disk, a drive that lies.

use std::io;

/// The kinds of calls on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// `Storage::open`, with or without making the file.
    Open,
    /// `Storage::list`.
    List,
    /// `Storage::make_dir`.
    MakeDir,
    /// `Storage::rename`.
    Rename,
    /// `Storage::remove`.
    Remove,
    /// `Storage::sync_dir`.
    SyncDir,
    /// `StorageFile::read_at`.
    Read,
    /// `StorageFile::write_all_at`.
    Write,
    /// `StorageFile::sync_data`.
    Sync,
    /// `StorageFile::set_len`.
    SetLen,
    /// `StorageFile::allocate`.
    Allocate,
}

/// What a failed call answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// `ENOSPC`: no space left on the device. A write has then written the first half of its bytes.
    NoSpace,
    /// `EIO`: the device failed. A failed sync leaves the pages marked clean, see [`super::SimDisk`].
    Io,
    /// `EOPNOTSUPP`: the file system cannot do it (UBIFS and `fallocate`).
    Unsupported,
}

impl Failure {
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::NoSpace => io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error()),
            Self::Io => io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()),
            Self::Unsupported => io::ErrorKind::Unsupported.into(),
        }
    }
}

/// Which calls fail, and how.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The kind of call; `None` for every kind except `Read` and `List`.
    pub call: Option<Call>,
    /// Calls of this kind that still succeed.
    pub after: u64,
    /// Calls that fail then; `u64::MAX` for all until [`super::SimDisk::clear_faults`].
    pub times: u64,
    /// What they answer.
    pub failure: Failure,
}

/// The faults that are waiting for their call.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Counts one call and says whether it fails.
    pub(super) fn meet(&mut self, call: Call) -> Option<Failure> {
        let mut failure = None;
        for fault in &mut self.0 {
            let meant = fault.call.map_or(!matches!(call, Call::Read | Call::List), |c| c == call);
            if !meant || fault.times == 0 {
                continue;
            }
            if fault.after > 0 {
                fault.after -= 1;
            } else {
                if fault.times != u64::MAX {
                    fault.times -= 1;
                }
                failure = failure.or(Some(fault.failure));
            }
        }
        failure
    }
}
