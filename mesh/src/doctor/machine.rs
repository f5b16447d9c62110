//! The machine: kernel, C library, random numbers, open files.

use rustix::process::Resource;

use super::processes::Process;
use super::report::{Finding, Verdict};

/// The oldest kernel that Rust's standard library runs on.
const OLDEST_KERNEL: (u32, u32) = if cfg!(target_arch = "aarch64") { (4, 1) } else { (3, 2) };

/// The oldest glibc that our binaries are built for.
const OLDEST_GLIBC: (u32, u32) = (2, 28);

/// From here on glibc has 64-bit time on 32-bit machines.
const GLIBC_AFTER_2038: (u32, u32) = (2, 34);

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
    let (major, minor) = OLDEST_KERNEL;
    let remedy = format!("it must be Linux {major}.{minor} or newer: take a newer system image");
    let finding = match version(&release) {
        Some(version) if version < OLDEST_KERNEL => Finding::fail("kernel", found, remedy),
        Some(_) => Finding::ok("kernel", found),
        None => Finding::unknown("kernel", found, remedy),
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
    fn too_few_open_files_warn_and_hardly_any_fail() {
        assert_eq!(judge_files(Some(1024), Some(7), 5120).verdict, Verdict::Warn);
        assert!(judge_files(Some(1024), Some(7), 5120).remedy.contains("LimitNOFILE=5184"));
        assert_eq!(judge_files(Some(8192), None, 5120).verdict, Verdict::Ok);
        assert_eq!(judge_files(Some(100), None, 5120).verdict, Verdict::Fail);
        assert_eq!(judge_files(None, Some(7), 5120).verdict, Verdict::Unknown);
    }
}
