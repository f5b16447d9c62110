//! The machine: kernel, C library, memory, random numbers, open files.

use std::fs;

use rustix::process::Resource;

use super::processes::Process;
use super::report::{Finding, Verdict};
use super::units::size;

/// The oldest kernel that Rust's standard library runs on.
const OLDEST_KERNEL: (u32, u32) = (3, 2);

/// The oldest glibc that our binaries are built for.
const OLDEST_GLIBC: (u32, u32) = (2, 28);

/// From here on glibc has 64-bit time on 32-bit machines.
const GLIBC_AFTER_2038: (u32, u32) = (2, 34);

/// What the agent takes under load, and what each connection may add, in bytes.
const UNDER_LOAD: u64 = 10 << 20;
const PER_CONNECTION: u64 = 4 << 10;

/// Files that are open whatever the connections: journals, state, log, sockets.
const OTHER_FILES: u64 = 64;

/// Kernel and architecture.
#[must_use]
pub fn kernel() -> Finding {
    let about = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let (name, release, machine) = (text(about.sysname()), text(about.release()), text(about.machine()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let ours = std::env::consts::ARCH;
    let built = if machine == ours { String::new() } else { format!(" (this program is for {ours})") };
    let found = format!("{name} {release} on {machine}{built}, processors: {cores}");
    let finding = match version(&release) {
        Some(version) if version < OLDEST_KERNEL => {
            Finding::fail("kernel", found, "the agent needs Linux 3.2 or newer: take a newer system image")
        }
        Some(_) => Finding::ok("kernel", found),
        None => Finding::unknown("kernel", found, "it must be Linux 3.2 or newer"),
    };
    finding.with("release", release).with("machine", machine).with("cores", cores)
}

/// The C library.
#[must_use]
pub fn libc() -> Finding {
    judge_libc(&libc_version(), usize::BITS)
}

#[cfg(target_env = "gnu")]
fn libc_version() -> String {
    // SAFETY: the function takes nothing and returns a pointer to a constant string of the library that ends with a zero.
    #[allow(unsafe_code)]
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    format!("glibc {}", version.to_string_lossy())
}

#[cfg(not(target_env = "gnu"))]
fn libc_version() -> String {
    if cfg!(target_env = "musl") { "musl".to_owned() } else { "an unknown C library".to_owned() }
}

fn judge_libc(found: &str, bits: u32) -> Finding {
    let Some(have) = found.strip_prefix("glibc ").and_then(version) else {
        return if found == "musl" {
            Finding::ok("libc", found)
        } else {
            Finding::unknown("libc", found, "it must be glibc 2.28 or newer")
        };
    };
    if have < OLDEST_GLIBC {
        Finding::fail(
            "libc",
            found,
            "our packages need glibc 2.28 or newer: take a newer system image, or build for this one",
        )
    } else if bits < 64 && have < GLIBC_AFTER_2038 {
        Finding::warn("libc", format!("{found}: its clock ends in January 2038"), "glibc 2.34 or newer goes on")
    } else {
        Finding::ok("libc", found)
    }
}

/// `6.1.21-v8+` as (6, 1).
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

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
        found.push_str(&format!(", the agent's limit is {}", size(limit)));
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

/// Random numbers: are there any yet?
#[must_use]
pub fn entropy() -> Finding {
    const CHECK: &str = "entropy";
    let got = rustix::rand::getrandom(&mut [0_u8; 16], rustix::rand::GetRandomFlags::NONBLOCK);
    match got {
        Ok(_) => Finding::ok(CHECK, "the kernel gives random numbers without waiting"),
        Err(rustix::io::Errno::AGAIN) => {
            let remedy =
                "TLS and ids wait for it: a hardware source (CONFIG_HW_RANDOM, rngd), or a seed kept over restarts";
            Finding::warn(CHECK, "the kernel has not gathered enough randomness since its start", remedy)
        }
        Err(e) => Finding::unknown(CHECK, format!("getrandom: {e}"), "see what dmesg says"),
    }
}

/// The limit of open files against the connections that are allowed.
#[must_use]
pub fn files(running: Option<&Process>, connections: u64) -> Finding {
    let limit = match running {
        Some(process) => process.open_files(),
        None => Some(rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)),
    };
    judge_files(limit, running.map(|process| process.pid), connections)
}

fn judge_files(limit: Option<u64>, pid: Option<u32>, connections: u64) -> Finding {
    const CHECK: &str = "files";
    let need = connections.saturating_add(OTHER_FILES);
    let whose = pid.map_or("started from here the agent".to_owned(), |pid| format!("the agent (process {pid})"));
    let Some(limit) = limit else {
        return Finding::unknown(CHECK, format!("/proc/{}/limits cannot be read", pid.unwrap_or(0)), "run it as root");
    };
    let shown = if limit == u64::MAX { "any number of".to_owned() } else { limit.to_string() };
    let found = format!("{whose} may open {shown} files; {connections} connections are configured");
    let remedy = format!("LimitNOFILE={need} in its unit (ulimit -n {need} in a shell), or fewer max-connections");
    let verdict = match limit {
        _ if limit >= need => return Finding::ok(CHECK, found).with("limit", limit).with("needed", need),
        _ if limit < OTHER_FILES * 2 => Verdict::Fail,
        _ => Verdict::Warn,
    };
    Finding::new(CHECK, verdict, found, remedy).with("limit", limit).with("needed", need)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_seen() {
        assert_eq!(kernel().verdict, Verdict::Ok);
        assert_eq!(version("6.1.21-v8+"), Some((6, 1)));
        assert_eq!(version("5.4"), Some((5, 4)));
        assert_eq!(version("new"), None);
        assert_ne!(libc().verdict, Verdict::Fail, "{}", libc().found);
        assert_eq!(entropy().verdict, Verdict::Ok);
        assert_ne!(memory(None, 100, 0).verdict, Verdict::Unknown);
    }

    #[test]
    fn an_old_c_library_is_told_by_what_it_cannot() {
        assert_eq!(judge_libc("glibc 2.24", 64).verdict, Verdict::Fail);
        assert_eq!(judge_libc("glibc 2.31", 64).verdict, Verdict::Ok);
        assert_eq!(judge_libc("glibc 2.31", 32).verdict, Verdict::Warn, "its time has 32 bits");
        assert_eq!(judge_libc("glibc 2.36", 32).verdict, Verdict::Ok);
        assert_eq!(judge_libc("musl", 32).verdict, Verdict::Ok);
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

    #[test]
    fn too_few_open_files_warn_and_hardly_any_fail() {
        assert_eq!(judge_files(Some(1024), Some(7), 5120).verdict, Verdict::Warn);
        assert!(judge_files(Some(1024), Some(7), 5120).remedy.contains("LimitNOFILE=5184"));
        assert_eq!(judge_files(Some(8192), None, 5120).verdict, Verdict::Ok);
        assert_eq!(judge_files(Some(100), None, 5120).verdict, Verdict::Fail);
        assert_eq!(judge_files(None, Some(7), 5120).verdict, Verdict::Unknown);
    }
}
