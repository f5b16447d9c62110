//! Free space: may the brokers grow as far as they are allowed to, and is the reserve there by which cursors and the ledger are
//! still written on a full disk?
//!
//! The limit is found as the agent finds it (`storage.max-bytes`, else what the first start chose and kept in `max-bytes`, else
//! what a first start would choose now), and the reserve is the journal's: spare segments beside those in use.
//!
//! And can what lies there be read? A segment of a newer format keeps the agent from starting; a damaged state file was set aside.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::place::Place;
use super::report::{Finding, Verdict};
use super::units::size;
use crate::config::Storage;
use crate::journal::{RESERVE_SEGMENTS, newer};
use crate::objects;
use crate::process::{LIMIT_FILE, chosen_limit, chosen_segment, kept_limit};
use crate::state::{self, HEAD_BYTES, StateError};

const CHECK: &str = "room";

/// A broker works with no fewer segments.
const LEAST_SEGMENTS: u64 = 4;

/// Folders below `brokers` are `<namespace>/<name>/journal` and `dead-letters`, those of channels `channels/<namespace>/…`.
const DEPTH: u32 = 4;

/// What of the disk is used for events, and what is left.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    total: u64,
    free: u64,
    free_files: u64,
    /// What lies under `brokers`; `None` when this user may not look.
    used: Option<Used>,
    limit: u64,
    segment: u64,
}

#[derive(Debug, PartialEq, Eq, Default)]
struct Used {
    bytes: u64,
    journals: u64,
    /// Spare segments that are missing in the journals' reserves.
    missing: u64,
    /// What the agent says of a file of a newer format.
    newer: Option<String>,
    /// State files that were set aside.
    damaged: Vec<String>,
}

/// Free space in the data folder. Blocks as long as its file system does.
#[must_use]
pub fn room(place: &Place, section: &Storage) -> Finding {
    match look(place, section) {
        Ok(seen) => judge(&seen, &place.shown()),
        Err(e) => {
            Finding::unknown(CHECK, format!("the free space of {}: {e}", place.shown()), "run it as root, and see storage")
        }
    }
}

fn look(place: &Place, section: &Storage) -> io::Result<Seen> {
    let stat = rustix::fs::statvfs(&place.there)?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let mut used = Used::default();
    for entry in fs::read_dir(&place.folder).into_iter().flatten().flatten() {
        used.damaged.extend(entry.file_name().into_string().ok().filter(|name| name.contains(".damaged-")));
    }
    let mut head = Vec::new();
    let objects =
        File::open(place.folder.join(objects::FILE)).and_then(|file| file.take(HEAD_BYTES as u64).read_to_end(&mut head));
    if let (Ok(_), Some(found)) = (objects, state::newer(&head)) {
        used.newer = Some(StateError::Version { path: objects::FILE.to_owned(), found }.to_string());
    }
    let used = match add(&place.folder.join("brokers"), DEPTH, &mut used) {
        Ok(()) => Some(used),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Some(used),
        Err(_) => None,
    };
    let kept = || kept_limit(&fs::read_to_string(place.folder.join(LIMIT_FILE)).ok()?);
    let limit = section.max_bytes.map(|size| size.0).or_else(kept).unwrap_or_else(|| chosen_limit(free));
    Ok(Seen {
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        free,
        // Some file systems make room for files as they come, and tell of none.
        free_files: if stat.f_files == 0 { u64::MAX } else { stat.f_favail },
        used,
        limit,
        segment: section.segment_bytes.map_or_else(|| chosen_segment(limit), |size| size.0),
    })
}

/// Adds up what is in a folder and those below it; a journal is a folder that holds segments.
fn add(folder: &Path, depth: u32, used: &mut Used) -> io::Result<()> {
    let (mut segments, mut spares) = (0, 0);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // A segment may be renamed or go while we look.
        let Ok(about) = entry.metadata() else { continue };
        if about.is_dir() {
            if let Some(depth) = depth.checked_sub(1) {
                add(&entry.path(), depth, used)?;
            }
            continue;
        }
        used.bytes += about.len();
        let name = entry.file_name();
        spares += u64::from(name.as_encoded_bytes().starts_with(b"spare-"));
        if let Some(name) = name.to_str().filter(|name| name.starts_with("seg-")) {
            segments += 1;
            let mut head = Vec::new();
            match File::open(entry.path()).and_then(|file| file.take(4096).read_to_end(&mut head)) {
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Err(e),
                // Gone meanwhile, or the agent reads over it.
                Err(_) => {}
                Ok(_) => {
                    if let Some(why) = newer(&folder.display().to_string(), name, &head) {
                        used.newer = Some(why.to_string());
                    }
                }
            }
        }
    }
    if segments > 0 {
        used.journals += 1;
        used.missing += (RESERVE_SEGMENTS as u64).saturating_sub(spares);
    }
    Ok(())
}

fn judge(seen: &Seen, folder: &str) -> Finding {
    let Seen { total, free, limit, segment, .. } = *seen;
    let mut finding = Finding::ok(CHECK, format!("{} of {} free in {folder}", size(free), size(total)))
        .with("free_bytes", free)
        .with("total_bytes", total)
        .with("limit_bytes", limit);
    let Some(used) = &seen.used else {
        let found = "what the brokers take cannot be seen by this user";
        return finding.and(Verdict::Unknown, found, "run it as root or as the agent's user");
    };
    let found = format!("brokers take {} of the {} that they may", size(used.bytes), size(limit));
    finding = finding.and(Verdict::Ok, &found, "").with("used_bytes", used.bytes);
    if let Some(why) = &used.newer {
        finding = finding.and(
            Verdict::Fail,
            why,
            "the agent does not start like this: install the newer program, or set agent.data-dir",
        );
    }
    if !used.damaged.is_empty() {
        let found = format!("set aside as damaged, and what they held is gone: {}", used.damaged.join(", "));
        finding =
            finding.and(Verdict::Warn, &found, "look at the disk (dmesg), make anew what was made over HTTP, remove them");
    }
    let make_room = format!("free some space there, or set agent.data-dir; a segment takes {}", size(segment));
    if seen.free_files == 0 {
        return finding.and(Verdict::Fail, "no more files can be made (no free inodes)", &make_room);
    }
    if used.journals == 0 {
        let least = segment.saturating_mul(LEAST_SEGMENTS);
        if free < least {
            let found = format!("a broker needs {LEAST_SEGMENTS} segments, {}", size(least));
            return finding.and(Verdict::Fail, &found, &make_room);
        }
    } else if used.missing > 0 && free < used.missing.saturating_mul(segment) {
        let found = format!("{} spare segments of the reserve for cursors and ledger are missing", used.missing);
        return finding.and(Verdict::Fail, &found, &make_room);
    } else if free < segment && used.bytes < limit {
        let found = "full: there is no room for another segment, so new events are refused or the oldest go";
        return finding.and(Verdict::Fail, found, &make_room);
    }
    if limit.saturating_sub(used.bytes) > free {
        let found = "the limit is more than the disk has: it will be full before brokers are at their limit";
        return finding.and(Verdict::Warn, found, "set storage.max-bytes lower, or free some space");
    }
    finding
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::StoragePolicy;

    fn section() -> Storage {
        Storage {
            segment_bytes: None,
            max_bytes: None,
            keep: Duration::ZERO,
            max_age: None,
            max_count: None,
            policy: StoragePolicy::DropOldest,
            commit_delay: Duration::ZERO,
        }
    }

    fn verdict(free_mib: u64, used_mib: u64, limit_mib: u64, missing: u64) -> Verdict {
        let used = Used { bytes: used_mib << 20, journals: u64::from(used_mib > 0), missing, ..Used::default() };
        let seen = Seen {
            total: 1 << 30,
            free: free_mib << 20,
            free_files: 1000,
            used: Some(used),
            limit: limit_mib << 20,
            segment: 8 << 20,
        };
        judge(&seen, "/data").verdict
    }

    #[test]
    fn there_is_room_for_all_that_is_allowed_or_it_is_said() {
        assert_eq!(verdict(600, 100, 400, 0), Verdict::Ok);
        assert_eq!(verdict(200, 100, 400, 0), Verdict::Warn, "the limit is beyond the disk");
        assert_eq!(verdict(2, 100, 400, 0), Verdict::Fail, "no room for a segment");
        assert_eq!(verdict(2, 400, 400, 0), Verdict::Ok, "at its limit it needs no more");
        assert_eq!(verdict(9, 400, 400, 2), Verdict::Fail, "the reserve is not there");
        assert_eq!(verdict(20, 0, 20, 0), Verdict::Fail, "too little to begin with");
    }

    #[test]
    fn what_journals_take_is_added_up_with_their_reserve() {
        let dir = tempfile::tempdir().expect("a folder");
        let journal = dir.path().join("brokers/default/default/journal");
        fs::create_dir_all(&journal).expect("made");
        for (name, bytes) in [("seg-0000000000000001-0000000000000000", 1000), ("spare-0000000000000001", 500)] {
            fs::write(journal.join(name), vec![0; bytes]).expect("written");
        }
        let mut used = Used::default();
        add(&dir.path().join("brokers"), DEPTH, &mut used).expect("read");
        let missing = RESERVE_SEGMENTS as u64 - 1;
        assert_eq!(used, Used { bytes: 1500, journals: 1, missing, ..Used::default() });
        let channel = dir.path().join("brokers/channels/default/c/journal");
        fs::create_dir_all(&channel).expect("made");
        fs::write(channel.join("seg-0000000000000001-0000000000000000"), [0; 100]).expect("written");
        let mut used = Used::default();
        add(&dir.path().join("brokers"), DEPTH, &mut used).expect("read");
        assert_eq!((used.bytes, used.journals), (1600, 2), "channels too");
    }

    #[test]
    fn what_a_newer_program_wrote_fails_and_what_was_set_aside_warns() {
        let dir = tempfile::tempdir().expect("a folder");
        let section = section();
        let letters = dir.path().join("brokers/default/default/dead-letters");
        fs::create_dir_all(&letters).expect("made");
        let room = || room(&Place::of(dir.path()).expect("a place"), &section);
        fs::write(dir.path().join("objects.redb.damaged-1"), "x").expect("written");
        let damaged = room();
        assert!(damaged.verdict >= Verdict::Warn && damaged.found.contains("objects.redb.damaged-1"), "{damaged:?}");
        let mut head = [0; HEAD_BYTES];
        head[..9].copy_from_slice(b"redb\x1a\x0a\xa9\x0d\x0a");
        (head[64], head[192]) = (4, 4);
        fs::write(dir.path().join(objects::FILE), head).expect("written");
        let newer = room();
        assert_eq!(newer.verdict, Verdict::Fail);
        assert!(newer.found.contains("objects.redb has format version 4"), "{}", newer.found);
        fs::remove_file(dir.path().join(objects::FILE)).expect("removed");
        let mut head = [0; 80];
        head[..8].copy_from_slice(b"GODWITJ\x02");
        let segment = letters.join("seg-0000000000000001-0000000000000000");
        fs::write(&segment, head).expect("written");
        assert!(!room().found.contains("version"), "a flipped bit");
        let sum = crc32c::crc32c_append(crc32c::crc32c(&head[7..8]), &head[16..]);
        head[8..12].copy_from_slice(&sum.to_le_bytes());
        fs::write(&segment, head).expect("written");
        let newer = room();
        assert_eq!(newer.verdict, Verdict::Fail);
        assert!(newer.found.contains("has format version 2, this program reads 1"), "{}", newer.found);
    }

    #[test]
    fn a_limit_that_the_agent_does_not_believe_is_not_believed() {
        let dir = tempfile::tempdir().expect("a folder");
        let section = section();
        let limit = |kept: &str| {
            fs::write(dir.path().join(LIMIT_FILE), kept).expect("written");
            look(&Place::of(dir.path()).expect("a place"), &section).expect("seen").limit
        };
        assert_eq!(limit("5000000\n"), 5_000_000);
        for damaged in ["0\n", "", "17"] {
            assert!(limit(damaged) > 1 << 20, "{damaged}");
        }
    }

    #[test]
    fn what_may_not_be_looked_at_is_not_ok() {
        let seen = Seen { total: 1 << 30, free: 1 << 29, free_files: 9, used: None, limit: 1 << 28, segment: 8 << 20 };
        assert_eq!(judge(&seen, "/data").verdict, Verdict::Unknown);
    }
}
