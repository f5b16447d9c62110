//! How much room the brokers may take, from the section `[storage]`.
//!
//! Without a limit in the configuration it is a quarter of what was free at the first start, and stays that: a number that moved
//! with the disk would let events go that had room yesterday. It is kept in the small file `max-bytes` in the data folder.

use std::io;
use std::time::Duration;

use crate::broker::BrokerDefaults;
use crate::clock::Clock;
use crate::config::{self, StoragePolicy};
use crate::journal::{Options, Policy};
use crate::storage::{Storage, read_exact_at};

/// Where the limit is kept that the first start chose.
const FILE: &str = "max-bytes";

/// The least that the first start chooses: four segments of the smallest useful broker.
const LEAST_BYTES: u64 = 32 << 20;

/// What holds for every broker. Blocks: reads and, at the first start, writes a file.
///
/// # Errors
/// What the file system says, with the file's name.
pub fn broker_defaults(storage: &dyn Storage, section: &config::Storage, clock: Clock) -> io::Result<BrokerDefaults> {
    let max_bytes = match section.max_bytes {
        Some(size) => size.0,
        None => kept_or_chosen(storage).map_err(|e| io::Error::new(e.kind(), format!("{FILE} in the data folder: {e}")))?,
    };
    let options = Options {
        segment_bytes: section.segment_bytes.0,
        max_bytes,
        max_age_ms: section.max_age.map(ms),
        max_count: section.max_count,
        keep_ms: ms(section.keep),
        policy: match section.policy {
            StoragePolicy::DropOldest => Policy::DropOldest,
            StoragePolicy::Reject => Policy::Reject,
        },
        commit_delay_ms: ms(section.commit_delay),
        clock,
        ..Options::default()
    };
    Ok(BrokerDefaults { options, ..BrokerDefaults::default() })
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn kept_or_chosen(storage: &dyn Storage) -> io::Result<u64> {
    if let Some(kept) = read_small(storage, FILE)?.and_then(|text| text.trim().parse().ok()) {
        return Ok(kept);
    }
    let chosen = chosen_limit(storage.free_bytes()?);
    write_small(storage, FILE, &format!("{chosen}\n"))?;
    Ok(chosen)
}

/// The limit that a first start chooses with so many bytes free.
#[must_use]
pub fn chosen_limit(free_bytes: u64) -> u64 {
    (free_bytes / 4).max(LEAST_BYTES)
}

/// The text of a small file in the data folder, `None` if it is not there. What is no text in it reads as U+FFFD.
///
/// # Errors
/// What the file system says.
pub fn read_small(storage: &dyn Storage, path: &str) -> io::Result<Option<String>> {
    const MOST: u64 = 4096;
    let file = match storage.open(path, false) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let length = file.len()?;
    let mut bytes = vec![0; usize::try_from(length.min(MOST)).unwrap_or(0)];
    read_exact_at(&*file, &mut bytes, 0)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Replaces a small file in the data folder, durably.
///
/// # Errors
/// What the file system says; the old file is then as it was.
pub fn write_small(storage: &dyn Storage, path: &str, text: &str) -> io::Result<()> {
    let new = format!("{path}.new");
    let file = storage.open(&new, true)?;
    file.set_len(0)?;
    file.write_all_at(text.as_bytes(), 0)?;
    // durable before: the rename below may only show a name whose bytes are on the disk. A power cut before it leaves the old
    // file and perhaps a `.new`, which the next write overwrites; one after it leaves the new file.
    file.sync_data()?;
    storage.rename(&new, path)?;
    storage.sync_dir("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Disk;

    #[test]
    fn the_limit_of_the_first_start_stays() {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = Disk::new(dir.path()).expect("a disk");
        let chosen = kept_or_chosen(&disk).expect("chosen");
        assert!(chosen >= LEAST_BYTES);
        write_small(&disk, FILE, "123456789\n").expect("written");
        assert_eq!(kept_or_chosen(&disk).expect("kept"), 123_456_789);
    }

    #[test]
    fn a_small_file_is_replaced_whole() {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = Disk::new(dir.path()).expect("a disk");
        assert_eq!(read_small(&disk, "agent-id").expect("read"), None);
        write_small(&disk, "agent-id", "a-long-name\n").expect("written");
        write_small(&disk, "agent-id", "b\n").expect("written");
        assert_eq!(read_small(&disk, "agent-id").expect("read").as_deref(), Some("b\n"));
    }
}
