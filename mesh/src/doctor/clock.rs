//! The clock: set at all, kept by NTP, and does it outlive a power cut?
//!
//! The agent runs without a clock: its events then have no time. What needs one is TLS to the gateway, since a certificate is
//! not valid yet in 1970; so a clock that is not set fails where there is an `https://` gateway and is a warning elsewhere.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::report::{Finding, Verdict};
use super::units::long;
use crate::clock::{Clock, EARLIEST_VALID_MS};

const CHECK: &str = "clock";

/// A clock this far behind what was written in the data folder has gone back; less is a file system's coarse time.
const BACK_SECONDS: u64 = 60;

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    /// Seconds since 1970 by the wall clock.
    now: u64,
    /// Whether the kernel's clock is steered by NTP or PTP; `None` when it may not be asked.
    steered: Option<bool>,
    /// The hardware clock: its name, and its time in seconds since 1970 if it can be read.
    hardware: Option<(String, Option<u64>)>,
    /// When the data folder's lock was last written.
    written: Option<u64>,
}

/// The clock. `data_dir` tells by its files whether the clock has gone back; `https` whether the gateway needs it.
#[must_use]
pub fn clock(data_dir: &Path, https: bool) -> Finding {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seen = Seen {
        now: seconds(SystemTime::now()),
        steered: steered(),
        hardware: hardware(Path::new("/sys/class/rtc")),
        written: fs::metadata(data_dir.join("lock")).and_then(|about| about.modified()).ok().map(seconds),
    };
    judge(&seen, Clock::system().wall_ms().is_some(), https)
}

fn judge(seen: &Seen, set: bool, https: bool) -> Finding {
    let day = time::OffsetDateTime::from_unix_timestamp(i64::try_from(seen.now).unwrap_or(0))
        .map_or_else(|_| "beyond all dates".to_owned(), |time| format!("{time}"));
    let shown = day.split('.').next().unwrap_or_default();
    let mut finding = Finding::ok(CHECK, format!("{shown} UTC")).with("unix_s", seen.now);
    if !set {
        let (verdict, found) = if https {
            (Verdict::Fail, "not set: the gateway's certificate is not valid yet by it, and events have no time")
        } else {
            (Verdict::Warn, "not set: events have no time until it is")
        };
        finding = finding.and(verdict, found, "run an NTP client (systemd-timesyncd, chrony), or set it: date -s …");
    } else if let Some(back) =
        seen.written.and_then(|written| written.checked_sub(seen.now)).filter(|back| *back > BACK_SECONDS)
    {
        let found = format!("{} behind what was written to the data folder: it has gone back", long(back));
        finding = finding.and(Verdict::Warn, &found, "run an NTP client; a hardware clock keeps time over power cuts");
    }
    finding = match seen.steered {
        Some(true) => finding.and(Verdict::Ok, "synchronised", "").with("synchronised", true),
        Some(false) => finding
            .and(
                Verdict::Warn,
                "not synchronised",
                "run an NTP client (systemd-timesyncd, chrony), or ignore it if all is offline",
            )
            .with("synchronised", false),
        None => finding.and(
            Verdict::Unknown,
            "the kernel does not tell whether it is synchronised",
            "ask the NTP client: timedatectl, chronyc tracking",
        ),
    };
    match &seen.hardware {
        None => finding.and(Verdict::Ok, "no hardware clock: after a power cut it is wrong until NTP has answered", ""),
        Some((name, Some(time))) if time.saturating_mul(1000) < EARLIEST_VALID_MS => finding.and(
            Verdict::Warn,
            &format!("{name} is not set"),
            "hwclock --systohc; if it happens again, its battery is empty",
        ),
        Some((name, _)) => finding.and(Verdict::Ok, &format!("hardware clock {name}"), ""),
    }
}

/// Asks the kernel without changing anything.
#[cfg(target_os = "linux")]
fn steered() -> Option<bool> {
    // SAFETY: all of timex is integers, for which zero is a value; with no mode set adjtimex only fills the structure it is given.
    #[allow(unsafe_code)]
    let state = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut timex)
    };
    (state >= 0).then_some(state != libc::TIME_ERROR)
}

#[cfg(not(target_os = "linux"))]
fn steered() -> Option<bool> {
    None
}

/// The first hardware clock in `class`.
fn hardware(class: &Path) -> Option<(String, Option<u64>)> {
    let mut names: Vec<_> = fs::read_dir(class).ok()?.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    let first = names.first()?;
    let time = fs::read_to_string(class.join(first).join("since_epoch")).ok().and_then(|text| text.trim().parse().ok());
    Some((first.to_string_lossy().into_owned(), time))
}

#[cfg(test)]
mod tests {
    use super::super::medium::tree;
    use super::*;

    fn seen(now: u64) -> Seen {
        Seen { now, steered: Some(true), hardware: Some(("rtc0".to_owned(), Some(now))), written: None }
    }

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn a_clock_in_1970_fails_where_certificates_are_checked_and_warns_elsewhere() {
        assert_eq!(judge(&seen(12), false, true).verdict, Verdict::Fail);
        assert_eq!(judge(&seen(12), false, false).verdict, Verdict::Warn);
        let finding = judge(&seen(NOW), true, true);
        assert_eq!(finding.verdict, Verdict::Ok);
        assert_eq!(finding.found, "2027-01-15 8:00:00 UTC; synchronised; hardware clock rtc0");
    }

    #[test]
    fn a_clock_that_nobody_steers_or_that_went_back_is_told() {
        assert_eq!(judge(&Seen { steered: Some(false), ..seen(NOW) }, true, false).verdict, Verdict::Warn);
        let untold = judge(&Seen { steered: None, ..seen(NOW) }, true, false);
        assert!(untold.verdict == Verdict::Unknown && !untold.remedy.is_empty(), "{untold:?}");
        assert_eq!(judge(&Seen { written: Some(NOW + 3600), ..seen(NOW) }, true, false).verdict, Verdict::Warn);
        assert_eq!(judge(&Seen { written: Some(NOW + 2), ..seen(NOW) }, true, false).verdict, Verdict::Ok);
        let empty = Some(("rtc0".to_owned(), Some(5)));
        assert_eq!(judge(&Seen { hardware: empty, ..seen(NOW) }, true, false).verdict, Verdict::Warn);
        assert_eq!(judge(&Seen { hardware: None, ..seen(NOW) }, true, false).verdict, Verdict::Ok);
    }

    #[test]
    fn a_hardware_clock_is_read_where_there_is_one() {
        let sys = tree(&[("rtc/rtc0/since_epoch", "1700000000\n"), ("none/x", "")], &[]);
        assert_eq!(hardware(&sys.path().join("rtc")), Some(("rtc0".to_owned(), Some(1_700_000_000))));
        assert_eq!(hardware(&sys.path().join("absent")), None);
        assert!(steered().is_some(), "anybody may ask");
    }
}
