//! Memory: what is there for the agent, and what it needs.

use std::fs;

use super::processes::Process;
use super::report::Finding;
use super::units::size;

/// What the agent takes under load, and what each connection may add, in bytes.
const UNDER_LOAD: u64 = 10 << 20;
const PER_CONNECTION: u64 = 4 << 10;

/// Memory against what the agent needs: under load, with so many connections, and with so many bytes of large bodies at once.
#[must_use]
pub fn memory(running: Option<&Process>, connections: u64, bodies: u64) -> Finding {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let limit = memory_limit(running.map(|process| process.pid));
    let own = running.and_then(Process::resident);
    judge_memory(meminfo(&text, "MemTotal"), meminfo(&text, "MemAvailable"), limit, own, connections, bodies)
}

fn judge_memory(
    total: Option<u64>,
    available: Option<u64>,
    limit: Option<u64>,
    own: Option<u64>,
    connections: u64,
    bodies: u64,
) -> Finding {
    const CHECK: &str = "memory";
    let (Some(total), Some(available)) = (total, available) else {
        return Finding::unknown(CHECK, "/proc/meminfo does not tell", "mount /proc");
    };
    // What the agent has already is its own to use.
    let room = available.saturating_add(own.unwrap_or(0)).min(limit.unwrap_or(u64::MAX));
    let most = UNDER_LOAD + bodies + connections.saturating_mul(PER_CONNECTION);
    let mut found = format!("{} of {} available", size(available), size(total));
    if let Some(own) = own {
        found.push_str(&format!(", the agent has {}", size(own)));
    }
    if let Some(limit) = limit {
        let whose = if own.is_some() { "the agent's limit" } else { "the limit here" };
        found.push_str(&format!(", {whose} is {}", size(limit)));
    }
    found.push_str(&format!("; it needs {} under load, {} if all connections come", size(UNDER_LOAD), size(most)));
    let finding = if room < UNDER_LOAD {
        Finding::fail(CHECK, found, "stop what is not needed, or raise the limit (MemoryMax=)")
    } else if room < most {
        let remedy = "lower mqtt.max-connections, http.max-connections and http.max-batch, or raise the limit (MemoryMax=)";
        Finding::warn(CHECK, found, remedy)
    } else {
        Finding::ok(CHECK, found)
    };
    finding.with("available_bytes", available).with("total_bytes", total).with("needed_bytes", most)
}

/// A line of `/proc/meminfo`, in bytes.
fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least limit of a process's control groups, of either version; `None` without one.
fn memory_limit(pid: Option<u32>) -> Option<u64> {
    let who = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let groups = fs::read_to_string(format!("/proc/{who}/cgroup")).ok()?;
    let mut least: Option<u64> = None;
    for (root, file, path) in memory_groups(&groups) {
        let mut folder = format!("{root}{path}");
        // Each group is bounded by those above it.
        while folder.len() >= root.len() {
            let limit = fs::read_to_string(format!("{folder}/{file}")).ok().and_then(|text| text.trim().parse().ok());
            least = [least, limit].into_iter().flatten().min();
            let Some(cut) = folder.rfind('/') else { break };
            folder.truncate(cut);
        }
    }
    // The first version writes a number near 2^63 for none.
    least.filter(|bytes| *bytes < 1 << 60)
}

/// Where the limits of the groups in `/proc/PID/cgroup` are: root, file, path.
fn memory_groups(text: &str) -> Vec<(&'static str, &'static str, &str)> {
    fn group(line: &str) -> Option<(&'static str, &'static str, &str)> {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?.trim_end_matches('/'));
        if number == "0" && controllers.is_empty() {
            Some(("/sys/fs/cgroup", "memory.max", path))
        } else if controllers.split(',').any(|controller| controller == "memory") {
            Some(("/sys/fs/cgroup/memory", "memory.limit_in_bytes", path))
        } else {
            None
        }
    }
    text.lines().filter_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;

    #[test]
    fn this_machine_is_seen() {
        assert_ne!(memory(None, 100, 0).verdict, Verdict::Unknown);
    }

    #[test]
    fn memory_is_judged_by_what_is_available_to_the_agent() {
        let mib = |n: u64| n << 20;
        let verdict =
            |available, limit, own| judge_memory(Some(mib(512)), Some(mib(available)), limit, own, 1000, mib(8)).verdict;
        assert_eq!(verdict(200, None, None), Verdict::Ok);
        assert_eq!(verdict(15, None, None), Verdict::Warn);
        assert_eq!(verdict(5, None, None), Verdict::Fail);
        assert_eq!(verdict(5, None, Some(mib(6))), Verdict::Warn, "what it has is its own");
        assert_eq!(verdict(200, Some(mib(8)), None), Verdict::Fail, "a limit below what it needs");
        assert_eq!(judge_memory(None, None, None, None, 1, 1).verdict, Verdict::Unknown);
        let text = "MemTotal:         443596 kB\nMemFree:           80572 kB\nMemAvailable:     240436 kB\n";
        assert_eq!(meminfo(text, "MemAvailable"), Some(240_436 * 1024));
        assert_eq!(meminfo(text, "Mem"), None);
    }

    #[test]
    fn control_groups_of_both_versions_are_found() {
        let text = "12:memory:/system.slice/godwit.service\n3:cpu,cpuacct:/x\n0::/system.slice/godwit.service\n";
        let wanted = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "/system.slice/godwit.service"),
            ("/sys/fs/cgroup", "memory.max", "/system.slice/godwit.service"),
        ];
        assert_eq!(memory_groups(text), wanted);
        assert_eq!(memory_groups("0::/\nnonsense\n"), [("/sys/fs/cgroup", "memory.max", "")]);
    }
}
