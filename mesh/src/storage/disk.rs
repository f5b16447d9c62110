//! The machine's own file system.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;

use super::{Storage, StorageFile};

/// A folder of the machine's file system.
#[derive(Debug, Clone)]
pub struct Disk {
    root: PathBuf,
}

impl Disk {
    /// The folder `root`, made with those above it if absent.
    ///
    /// # Errors
    /// Whatever the file system answers.
    pub fn new(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        Ok(Self { root: root.to_owned() })
    }

    fn path(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }
}

impl Storage for Disk {
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn StorageFile>> {
        let file = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(self.path(path))?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path(dir))? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        let mut path = self.root.clone();
        for part in dir.split('/').filter(|p| !p.is_empty()) {
            let above = path.clone();
            path.push(part);
            match fs::create_dir(&path) {
                Ok(()) => File::open(&above)?.sync_all()?,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.path(path))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        File::open(self.path(dir))?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

#[derive(Debug)]
struct DiskFile(File);

impl StorageFile for DiskFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(buf, at)
    }

    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        self.0.write_all_at(buf, at)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            Err(e) => Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_exact_at;
    use super::*;

    #[test]
    fn a_file_is_written_renamed_and_read_back() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let disk = Disk::new(dir.path())?;
        disk.make_dir("a/b")?;
        let file = disk.open("a/b/one", true)?;
        file.write_all_at(b"hello", 3)?;
        file.sync_data()?;
        disk.rename("a/b/one", "a/b/two")?;
        disk.sync_dir("a/b")?;
        assert_eq!(disk.list("a/b")?, ["two"]);
        let mut buf = [0; 8];
        read_exact_at(&*disk.open("a/b/two", false)?, &mut buf, 0)?;
        assert_eq!(&buf, b"\0\0\0hello");
        assert!(disk.free_bytes()? > 0);
        disk.remove("a/b/two")?;
        assert!(disk.list("a/b")?.is_empty());
        Ok(())
    }
}
