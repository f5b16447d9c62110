//! redb's way to the disk: a file of our storage.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;

use crate::storage::{StorageFile, read_exact_at};

/// Bytes that are written again at once after a failed sync.
const REWRITE_BYTES: usize = 64 << 10;

/// What a failed sync leaves behind for whoever opens the file next.
#[derive(Debug, Default)]
pub(super) struct Doubt(AtomicBool);

impl Doubt {
    /// There is another file now.
    pub(super) fn forget(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Makes certain what a failed sync left in doubt: the kernel marks such pages clean, so a second sync would do nothing
    /// for them; every byte is therefore written again, then synced. Nothing changes what is read, so a power cut on the way
    /// leaves what it would have left before.
    ///
    /// # Errors
    /// Whatever the file system answers; the doubt then stays.
    pub(super) fn settle(&self, file: &dyn StorageFile) -> io::Result<()> {
        if !self.0.load(Ordering::Relaxed) {
            return Ok(());
        }
        let len = file.len()?;
        let mut bytes = vec![0; REWRITE_BYTES];
        let mut at = 0;
        while at < len {
            let n = usize::try_from(len - at).unwrap_or(REWRITE_BYTES).min(REWRITE_BYTES);
            read_exact_at(file, &mut bytes[..n], at)?;
            file.write_all_at(&bytes[..n], at)?;
            at += n as u64;
        }
        file.sync_data()?;
        self.0.store(false, Ordering::Relaxed);
        Ok(())
    }
}

/// One file as redb wants it.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) file: Arc<dyn StorageFile>,
    pub(super) doubt: Arc<Doubt>,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        read_exact_at(&*self.file, out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data().inspect_err(|_| self.doubt.0.store(true, Ordering::Relaxed))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }
}
