//! Does `fdatasync` mean what it says, and how long does it take?
//!
//! A disk that acknowledges a flush and keeps the bytes in its memory cannot be caught for certain without cutting the power.
//! What can be told: mount options that do without flushes, a kernel that believes there is no cache where the disk says there
//! is one, and times that no such medium can reach.
//!
//! Measured as the journal writes: into blocks that were written before, a small piece and a sync at a time. The file has no
//! name any more when the first byte goes into it, so that nothing stays behind, whatever happens.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::medium::Kind;
use super::place::Place;
use super::report::{Finding, Verdict};
use super::units::short;

const CHECK: &str = "fdatasync";

/// How many syncs are timed; and when it is enough however few they were.
const SYNCS: usize = 48;
const ENOUGH: Duration = Duration::from_secs(4);

/// What is written before each sync, and where the next begins: an event, and a page.
const PIECE: usize = 512;
const STRIDE: u64 = 4096;

/// Above these, clients that wait for acknowledgements feel it, or give up.
const SLOW_MEDIAN: Duration = Duration::from_millis(50);
const SLOW_P99: Duration = Duration::from_secs(1);

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timing {
    pub(super) syncs: usize,
    pub(super) median: Duration,
    pub(super) p99: Duration,
}

/// Times syncs in a folder.
pub(super) fn measure(folder: &Path) -> io::Result<Timing> {
    let path = folder.join(format!(".doctor-{}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    let zeros = vec![0; usize::try_from(STRIDE).unwrap_or(0)];
    for at in 0..SYNCS as u64 {
        file.write_all_at(&zeros, at * STRIDE)?;
    }
    file.sync_all()?;
    let begun = Instant::now();
    let mut took = Vec::with_capacity(SYNCS);
    for at in 0..SYNCS as u64 {
        file.write_all_at(&[0x5a; PIECE], at * STRIDE)?;
        let start = Instant::now();
        file.sync_data()?;
        took.push(start.elapsed());
        if begun.elapsed() > ENOUGH {
            break;
        }
    }
    took.sort();
    let at =
        |share: usize| took.get((took.len() * share / 100).min(took.len().saturating_sub(1))).copied().unwrap_or_default();
    Ok(Timing { syncs: took.len(), median: at(50), p99: at(99) })
}

/// Times syncs in the data folder and judges whether they can be believed.
#[must_use]
pub fn fdatasync(place: &Place) -> Finding {
    match measure(&place.there) {
        Ok(timing) => judge(place, Ok(timing)),
        Err(e) => judge(place, Err(&e)),
    }
}

fn judge(place: &Place, timing: Result<Timing, &io::Error>) -> Finding {
    let mut finding = match timing {
        Err(error) => {
            let remedy = match error.kind() {
                io::ErrorKind::PermissionDenied => "run it as root or as the agent's user",
                _ => "see storage and room, and what dmesg says of the disk",
            };
            Finding::unknown(CHECK, format!("not timed: writing to {}: {error}", place.shown()), remedy)
        }
        Ok(timing) => {
            let (median, p99) = (short(timing.median), short(timing.p99));
            let found = format!("median {median}, 99 % within {p99} ({} syncs of {PIECE} B)", timing.syncs);
            let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            let slow = timing.median > SLOW_MEDIAN || timing.p99 > SLOW_P99;
            let finding = if slow {
                let remedy = "each acknowledgement waits for it: a better card or disk, or fewer other writers on this one";
                Finding::warn(CHECK, found, remedy)
            } else {
                Finding::ok(CHECK, found)
            };
            finding.with("median_us", us(timing.median)).with("p99_us", us(timing.p99)).with("syncs", timing.syncs)
        }
    };
    for mount in &place.layers {
        let off =
            mount.has("nobarrier") || mount.value("barrier").is_some_and(|value| matches!(value, "0" | "none" | "off"));
        if off {
            let found = format!("{} is mounted without barriers: the disk is never asked to flush", mount.point.display());
            finding = finding.and(Verdict::Fail, &found, "mount it without nobarrier or barrier=0");
        }
        if mount.kind == "zfs" && mount.value("sync") == Some("disabled") {
            finding = finding.and(Verdict::Fail, "zfs does not sync", "zfs set sync=standard");
        }
    }
    if place.kind() == Some(Kind::Ram) {
        return finding.and(Verdict::Fail, "it is memory: a sync keeps nothing", "see storage");
    }
    let Some(medium) = &place.medium else {
        let found = "the disk below cannot be seen, nor whether it keeps its word";
        return finding.and(Verdict::Unknown, found, "ask who keeps that disk, or cut its power under load");
    };
    let believed = medium.believed_cache.as_deref();
    if believed == Some("write through") && medium.own_cache.as_deref().is_some_and(|own| own.starts_with("write back")) {
        let found = format!("{} has a write cache, but the kernel was told otherwise and never flushes it", medium.name);
        let remedy =
            format!("echo 'write back' > /sys/block/{}/queue/write_cache, and find who wrote otherwise", medium.name);
        finding = finding.and(Verdict::Fail, &found, &remedy);
    }
    if let (Ok(timing), Some(least)) = (timing, plausible(medium.kind))
        && timing.median < least
    {
        let found = format!("{} is not known to make anything durable in less than {}", medium.kind.name(), short(least));
        let remedy =
            "unless its cache outlives a power cut it does not keep its word: cut the power under load, or ask its maker";
        finding = finding.and(Verdict::Warn, &found, remedy);
    }
    let cache = believed.map_or("the kernel does not tell of a write cache".to_owned(), |cache| format!("cache: {cache}"));
    finding.and(Verdict::Ok, &cache, "")
}

/// What a sync takes at least on such a medium when it is honest: the time to program a page of flash through its bus, or a part
/// of a turn. Assumptions, set low: a disk with a protected cache may be faster in all honesty.
fn plausible(kind: Kind) -> Option<Duration> {
    let us = match kind {
        Kind::Turning => 2000,
        Kind::Sd | Kind::Usb => 200,
        Kind::Emmc => 80,
        Kind::Sata | Kind::Ufs => 20,
        Kind::Virtual | Kind::Nvme => 5,
        Kind::Raw | Kind::Ram | Kind::Other => return None,
    };
    Some(Duration::from_micros(us))
}

#[cfg(test)]
mod tests {
    use super::super::place::tests::{disk, on};
    use super::*;

    fn timing(median_us: u64) -> Result<Timing, &'static io::Error> {
        let median = Duration::from_micros(median_us);
        Ok(Timing { syncs: 48, median, p99: median * 3 })
    }

    fn verdict(options: &str, kind: Kind, median_us: u64) -> Verdict {
        judge(&on("ext4", options, Some(disk(kind))), timing(median_us)).verdict
    }

    #[test]
    fn times_that_no_card_can_reach_are_not_believed() {
        assert_eq!(verdict("rw", Kind::Sd, 3000), Verdict::Ok);
        assert_eq!(verdict("rw", Kind::Sd, 30), Verdict::Warn);
        assert_eq!(verdict("rw", Kind::Nvme, 30), Verdict::Ok);
        assert_eq!(verdict("rw", Kind::Turning, 400), Verdict::Warn);
        assert_eq!(verdict("rw", Kind::Sd, 90_000), Verdict::Warn, "slow");
    }

    #[test]
    fn a_disk_that_is_never_asked_to_flush_fails() {
        assert_eq!(verdict("rw,nobarrier", Kind::Sd, 3000), Verdict::Fail);
        assert_eq!(verdict("rw,barrier=0", Kind::Sd, 3000), Verdict::Fail);
        assert_eq!(verdict("rw,barrier=1", Kind::Sd, 3000), Verdict::Ok);
        let mut told = disk(Kind::Sata);
        (told.believed_cache, told.own_cache) = (Some("write through".to_owned()), Some("write back".to_owned()));
        let finding = judge(&on("ext4", "rw", Some(told)), timing(3000));
        assert_eq!(finding.verdict, Verdict::Fail);
        assert!(finding.remedy.contains("/sys/block/disk0/queue/write_cache"), "{}", finding.remedy);
        assert_eq!(judge(&on("tmpfs", "rw", None), timing(1)).verdict, Verdict::Fail);
        assert_eq!(verdict("rw", Kind::Ram, 1), Verdict::Fail, "zram");
    }

    #[test]
    fn what_was_not_timed_or_not_seen_is_not_ok_and_has_a_remedy() {
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::StorageFull] {
            let finding = judge(&on("ext4", "rw", Some(disk(Kind::Sd))), Err(&kind.into()));
            assert_eq!(finding.verdict, Verdict::Unknown);
            assert!(finding.found.starts_with("not timed") && !finding.remedy.is_empty(), "{finding:?}");
        }
        let unseen = judge(&on("zfs", "rw", None), timing(3000));
        assert!(unseen.verdict == Verdict::Unknown && !unseen.remedy.is_empty(), "{unseen:?}");
    }

    #[test]
    fn the_measurement_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("a folder");
        let timing = measure(dir.path()).expect("measured");
        assert!(timing.syncs > 0 && timing.median <= timing.p99);
        assert_eq!(std::fs::read_dir(dir.path()).expect("read").count(), 0);
    }
}
