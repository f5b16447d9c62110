//! Small and middling files in the data folder that are replaced as a whole: the agent's id, sets of objects.

use std::io;

use crate::storage::{Storage, read_exact_at};

/// What the file at `path` holds, `None` if it is not there. Blocks.
///
/// # Errors
/// What the file system says; [`io::ErrorKind::InvalidData`] when it is larger than `most` bytes.
pub fn read_kept(storage: &dyn Storage, path: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match storage.open(path, false) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let length = file.len()?;
    let fits = usize::try_from(length).ok().filter(|_| length <= most);
    let length = fits.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{length} bytes are more than the {most} that are read"))
    })?;
    let mut bytes = vec![0; length];
    read_exact_at(&*file, &mut bytes, 0)?;
    Ok(Some(bytes))
}

/// Replaces the file at `path`, durably. Its folder must be there. Blocks.
///
/// # Errors
/// What the file system says; the old file is then as it was.
pub fn write_kept(storage: &dyn Storage, path: &str, bytes: &[u8]) -> io::Result<()> {
    let new = format!("{path}.new");
    let file = storage.open(&new, true)?;
    file.set_len(0)?;
    file.write_all_at(bytes, 0)?;
    // durable before: the rename below may only show a name whose bytes are on the disk. A power cut before it leaves the old
    // file and perhaps a `.new`, which the next write overwrites; one after it leaves either file, whole.
    file.sync_data()?;
    storage.rename(&new, path)?;
    storage.sync_dir(path.rsplit_once('/').map_or("", |(folder, _)| folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Disk;

    #[test]
    fn a_file_is_replaced_whole_and_one_that_is_too_large_is_not_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = Disk::new(dir.path()).expect("a disk");
        assert_eq!(read_kept(&disk, "agent-id", 100).expect("read"), None);
        write_kept(&disk, "agent-id", b"a-long-name\n").expect("written");
        write_kept(&disk, "agent-id", b"b\n").expect("written");
        assert_eq!(read_kept(&disk, "agent-id", 100).expect("read").as_deref(), Some(&b"b\n"[..]));
        assert_eq!(read_kept(&disk, "agent-id", 1).expect_err("too large").kind(), io::ErrorKind::InvalidData);
        disk.make_dir("uplink").expect("made");
        write_kept(&disk, "uplink/x", b"c").expect("written");
        assert_eq!(read_kept(&disk, "uplink/x", 100).expect("read").as_deref(), Some(&b"c"[..]));
    }
}
