//! How long the flash lasts at the rate at which it is written now.
//!
//! Two rates are told: the agent's own (`write_bytes` of `/proc/PID/io`, which leaves out what the file system writes on its
//! behalf), and the whole disk's since the machine started, which is what wears it. The worse of the two decides. The endurance
//! is the one given, else an assumption by the kind of medium, named as such: makers of cards do not tell, and the controller
//! writes more than it is given. What was seen for less than a day (a first start, an update of the system) warns at most.

use std::time::Duration;

use super::medium::Kind;
use super::place::Place;
use super::report::{Finding, Verdict};
use super::units::{long, size};

const CHECK: &str = "flash";

const DAY: u64 = 86_400;

/// Less than this much of a life left is worth a word, or an alarm.
const SHORT_LIFE: u64 = 3 * 365 * DAY;
const SHORTEST_LIFE: u64 = 90 * DAY;

/// A machine that has been up for less tells more of its start than of its days.
const SETTLED: Duration = Duration::from_secs(600);

/// What was written, and in how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Bytes.
    pub bytes: u64,
    /// Over this time.
    pub over: Duration,
}

impl Counted {
    /// Bytes a day.
    fn a_day(self) -> Option<u64> {
        let ms = self.over.as_millis();
        let bytes = u128::from(self.bytes).checked_mul(u128::from(DAY) * 1000)?.checked_div(ms)?;
        u64::try_from(bytes).ok()
    }
}

/// How long the medium of the data folder lasts. `agent` is what the running agent wrote, `Err` why that is not known; `up` how
/// long the machine has been running; `endurance` what the medium can take, in bytes.
#[must_use]
pub fn flash(place: &Place, agent: &Result<Counted, String>, up: Option<Duration>, endurance: Option<u64>) -> Finding {
    let medium = place.medium.as_ref();
    let disk = medium.and_then(|medium| medium.written).zip(up).map(|(bytes, over)| Counted { bytes, over });
    let mut told = Vec::new();
    let mut finding = Finding::ok(CHECK, "");
    let agent_rate = agent.as_ref().ok().and_then(|counted| counted.a_day());
    match (agent, agent_rate) {
        (Ok(counted), Some(rate)) => {
            told.push(format!("the agent writes {} a day (by its last {})", size(rate), long(counted.over.as_secs())));
            finding = finding.with("agent_bytes_per_day", rate);
        }
        (Err(why), _) => told.push(why.clone()),
        (Ok(_), None) => told.push("what the agent writes was measured for too short a time".to_owned()),
    }
    // A machine just started has a rate that would kill any card.
    let disk = disk.filter(|disk| disk.over >= SETTLED);
    if let (Some(medium), Some(disk), Some(rate)) = (medium, disk, disk.and_then(Counted::a_day)) {
        let up = long(disk.over.as_secs());
        told.push(format!("all of {} {} a day since the machine started {up} ago", medium.name, size(rate)));
        finding = finding.with("disk_bytes_per_day", rate);
    }
    finding.found = told.join(", ");
    if let Some(medium) = medium {
        finding = worn(finding, medium.used_percent, medium.end_of_life);
    }
    if matches!(place.kind(), Some(Kind::Turning | Kind::Ram)) && endurance.is_none() {
        return finding.and(Verdict::Ok, "writing does not wear its medium", "");
    }
    let Some((endurance, whence)) = endurance.map(|bytes| (bytes, "as given".to_owned())).or_else(|| assumed(place)) else {
        return finding.and(Verdict::Unknown, "what its medium can take is not known", "give --endurance, such as 40TBW");
    };
    let life =
        |rate: u64| u64::try_from(u128::from(endurance) * u128::from(DAY) / u128::from(rate.max(1))).unwrap_or(u64::MAX);
    let rates = || [agent.as_ref().ok().copied(), disk].into_iter().flatten();
    let lasting = rates().filter(|counted| counted.over.as_secs() >= DAY).filter_map(Counted::a_day).max();
    let Some(rate) = rates().filter_map(Counted::a_day).max() else {
        return finding.and(Verdict::Unknown, "the rate of writing is not known", "run it while the agent runs, as root");
    };
    let seconds = life(rate);
    let found = format!("an endurance of {} ({whence}) lasts {}", size(endurance), long(seconds));
    finding = finding.with("endurance_bytes", endurance).with("life_days", seconds / DAY);
    let remedy =
        "see what writes (iotop); storage.commit-delay gathers commits; a card or disk made for endurance lasts longer";
    match seconds {
        _ if lasting.is_some_and(|rate| life(rate) < SHORTEST_LIFE) => finding.and(Verdict::Fail, &found, remedy),
        0..SHORT_LIFE => finding.and(Verdict::Warn, &found, remedy),
        _ => finding.and(Verdict::Ok, &found, ""),
    }
}

/// What an eMMC says of itself.
fn worn(finding: Finding, used_percent: Option<u8>, end_of_life: Option<u8>) -> Finding {
    let replace = "keep a copy of what matters, and replace it";
    let finding = match end_of_life {
        Some(3) => finding.and(Verdict::Fail, "it says that nearly all its spare blocks are used", replace),
        Some(2) => finding.and(Verdict::Warn, "it says that 80 % of its spare blocks are used", replace),
        _ => finding,
    };
    let Some(percent) = used_percent else { return finding };
    let up_to = format!("it says that up to {percent} % of its life is used");
    let finding = match percent {
        0..=90 => finding.and(Verdict::Ok, &up_to, ""),
        91..=100 => finding.and(Verdict::Warn, &up_to, replace),
        101.. => finding.and(Verdict::Warn, "it says that it is past its life", replace),
    };
    finding.with("used_percent", percent)
}

/// What a medium whose maker says nothing is assumed to take: so many times its size, small writes and the controller's own
/// included. Low on purpose.
fn assumed(place: &Place) -> Option<(u64, String)> {
    let medium = place.medium.as_ref()?;
    let times = match medium.kind {
        Kind::Sd | Kind::Usb => 100,
        Kind::Emmc | Kind::Ufs | Kind::Sata | Kind::Nvme => 300,
        Kind::Turning | Kind::Virtual | Kind::Raw | Kind::Ram | Kind::Other => return None,
    };
    let whence = format!("assumed for {}: {times} times its size", medium.kind.name());
    Some((medium.bytes.saturating_mul(times), whence))
}

#[cfg(test)]
mod tests {
    use super::super::place::tests::{disk, on};
    use super::*;

    fn day(bytes: u64) -> Result<Counted, String> {
        Ok(Counted { bytes, over: Duration::from_secs(DAY) })
    }

    #[test]
    fn a_life_is_endurance_by_rate() {
        let place = on("ext4", "rw", Some(disk(Kind::Sd)));
        let finding = flash(&place, &day(10 << 30), None, Some(40_000_000_000_000));
        assert_eq!(finding.verdict, Verdict::Ok);
        assert!(finding.found.contains("(as given) lasts 10.2 years"), "{}", finding.found);
        assert_eq!(finding.values["agent_bytes_per_day"], 10_u64 << 30);
        // 32 GiB a hundred times, by 10 GiB a day: 320 days.
        let finding = flash(&place, &day(10 << 30), None, None);
        assert_eq!((finding.verdict, &finding.values["life_days"]), (Verdict::Warn, &320.into()));
        assert!(finding.found.contains("assumed for an SD card"), "{}", finding.found);
        assert_eq!(flash(&place, &day(100 << 30), None, None).verdict, Verdict::Fail);
    }

    #[test]
    fn the_whole_disk_counts_and_what_is_not_known_is_not_ok() {
        let mut medium = disk(Kind::Sd);
        medium.written = Some(100 << 30);
        let place = on("ext4", "rw", Some(medium));
        let up = Some(Duration::from_secs(DAY));
        assert_eq!(flash(&place, &day(1), up, None).verdict, Verdict::Fail, "others wear it out");
        let morning = flash(&place, &day(1), Some(Duration::from_secs(DAY / 4)), None);
        assert_eq!(morning.verdict, Verdict::Warn, "the day of an update is not every day: {}", morning.found);
        let burst = Ok(Counted { bytes: 1 << 30, over: Duration::from_secs(3) });
        assert_eq!(flash(&place, &burst, None, None).verdict, Verdict::Warn);
        assert_eq!(flash(&place, &burst, up, None).verdict, Verdict::Fail, "a burst hides nothing");
        let just = Some(Duration::from_secs(5));
        let unknown = flash(&place, &Err("no agent runs".to_owned()), just, None);
        assert_eq!(unknown.verdict, Verdict::Unknown);
        let virtual_disk = on("ext4", "rw", Some(disk(Kind::Virtual)));
        assert_eq!(flash(&virtual_disk, &day(1), None, None).verdict, Verdict::Unknown);
        assert_eq!(flash(&virtual_disk, &day(1), None, Some(1 << 40)).verdict, Verdict::Ok);
        let turning = on("ext4", "rw", Some(disk(Kind::Turning)));
        assert_eq!(flash(&turning, &Err("no agent runs".to_owned()), None, None).verdict, Verdict::Ok);
        let nothing = Ok(Counted { bytes: 1, over: Duration::ZERO });
        assert_eq!(flash(&place, &nothing, None, None).verdict, Verdict::Unknown);
    }

    #[test]
    fn an_emmc_that_says_it_is_worn_is_believed() {
        let mut medium = disk(Kind::Emmc);
        (medium.used_percent, medium.end_of_life) = (Some(110), Some(3));
        assert_eq!(flash(&on("ext4", "rw", Some(medium.clone())), &day(1), None, None).verdict, Verdict::Fail);
        (medium.used_percent, medium.end_of_life) = (Some(100), Some(1));
        let finding = flash(&on("ext4", "rw", Some(medium.clone())), &day(1), None, None);
        assert!(finding.verdict == Verdict::Warn && finding.found.contains("100 %"), "{finding:?}");
        (medium.used_percent, medium.end_of_life) = (Some(30), Some(1));
        let finding = flash(&on("ext4", "rw", Some(medium)), &day(1), None, None);
        assert_eq!((finding.verdict, &finding.values["used_percent"]), (Verdict::Ok, &30.into()));
    }
}
