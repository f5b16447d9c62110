//! How much room the brokers may take, from the section `[storage]`.
//!
//! Without a limit in the configuration it is a quarter of what was free at the first start, and stays that: a number that moved
//! with the disk would let events go that had room yesterday. It is kept in the small file `max-bytes` in the data folder. On a
//! disk of less than 128 MiB a quarter would be too little, and it is up to half.
//!
//! Segments follow from it unless the configuration gives their size: two of a journal's are head-room, so that there must be several
//! for one to hold events.

use std::io;
use std::time::Duration;

use crate::broker::BrokerDefaults;
use crate::clock::Clock;
use crate::config::{self, StoragePolicy};
use crate::journal::{Options, Policy};
use crate::storage::{Storage, read_exact_at};

use super::write_kept;

/// Where the limit is kept that the first start chose.
pub(crate) const FILE: &str = "max-bytes";

/// What the first start chooses at least where half of the free disk is as much.
const USEFUL_BYTES: u64 = 32 << 20;

/// Less than this is no limit that a start has chosen: the file is damaged.
const LEAST_BYTES: u64 = 1 << 20;

/// Into how many segments the room is divided where it is small, and the bounds of what comes of that. Half of the smallest still
/// takes an event of 64 KiB, which every listener must take.
const SEGMENTS: u64 = 8;
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 256 << 10..=8 << 20;

/// The fewest segments a journal works with.
const LEAST_SEGMENTS: u64 = 4;

/// What holds for every broker. Blocks: reads and, at the first start, writes a file.
///
/// # Errors
/// What the file system says, with the file's name.
pub fn broker_defaults(storage: &dyn Storage, section: &config::Storage, clock: Clock) -> io::Result<BrokerDefaults> {
    let max_bytes = match section.max_bytes {
        Some(size) => size.0,
        None => kept_or_chosen(storage).map_err(|e| io::Error::new(e.kind(), format!("{FILE} in the data folder: {e}")))?,
    };
    let segment_bytes = section.segment_bytes.map_or_else(|| chosen_segment(max_bytes), |size| size.0);
    let options = Options {
        segment_bytes,
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
    tell_small(storage, &options);
    Ok(BrokerDefaults { options, ..BrokerDefaults::default() })
}

/// The size of segments that suits the room, unless the configuration says another.
#[must_use]
pub fn chosen_segment(max_bytes: u64) -> u64 {
    (max_bytes / SEGMENTS).clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end()) & !4095
}

/// The limit that a first start chooses with so many bytes free.
#[must_use]
pub fn chosen_limit(free_bytes: u64) -> u64 {
    (free_bytes / 4).max(USEFUL_BYTES.min(free_bytes / 2))
}

/// Says what small room means, and what is missing where it does not even do for one broker.
fn tell_small(storage: &dyn Storage, options: &Options) {
    let (max_bytes, segment) = (options.max_bytes, options.segment_bytes);
    if segment < *SEGMENT_BYTES.end() {
        let largest = options.max_append();
        tracing::info!(
            max_bytes,
            segment,
            "little room for events: one of more than {largest} bytes is refused as too large"
        );
    }
    let needed = segment * LEAST_SEGMENTS;
    if max_bytes < needed {
        let free = storage.free_bytes().unwrap_or(0);
        tracing::warn!(
            max_bytes,
            free,
            needed,
            "too little room for one broker: {LEAST_SEGMENTS} segments of {segment} bytes are used all the same; \
             give the data folder a larger disk, or set storage.max-bytes and storage.segment-bytes to fit"
        );
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The limit in the file `max-bytes`; `None` where it is damaged.
pub(crate) fn kept_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|kept| *kept >= LEAST_BYTES)
}

fn kept_or_chosen(storage: &dyn Storage) -> io::Result<u64> {
    if let Some(kept) = read_small(storage, FILE)?.and_then(|text| kept_limit(&text)) {
        return Ok(kept);
    }
    let chosen = chosen_limit(storage.free_bytes()?);
    write_small(storage, FILE, &format!("{chosen}\n"))?;
    Ok(chosen)
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
    write_kept(storage, path, text.as_bytes())
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
        assert!(chosen > 0);
        write_small(&disk, FILE, "123456789\n").expect("written");
        assert_eq!(kept_or_chosen(&disk).expect("kept"), 123_456_789);
        for damaged in ["0\n", "x", "-1"] {
            write_small(&disk, FILE, damaged).expect("written");
            assert!(kept_or_chosen(&disk).expect("chosen anew") >= LEAST_BYTES, "{damaged}");
        }
    }

    #[test]
    fn a_small_disk_gets_small_segments_and_as_many_as_it_takes() {
        const MIB: u64 = 1 << 20;
        for (free, room, segment) in [
            (1024 * MIB, 256 * MIB, 8 * MIB),
            (128 * MIB, 32 * MIB, 4 * MIB),
            (48 * MIB, 24 * MIB, 3 * MIB),
            (24 * MIB, 12 * MIB, 3 * MIB / 2),
            (16 * MIB, 8 * MIB, MIB),
            (MIB, MIB / 2, MIB / 4),
        ] {
            assert_eq!((chosen_limit(free), chosen_segment(chosen_limit(free))), (room, segment), "{free} bytes free");
        }
    }
}
