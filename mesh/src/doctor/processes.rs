//! Other processes as `/proc` shows them: who keeps the data folder, who listens on a port, and what the agent does.
//!
//! Of a process of another user only a part is shown; what is not is `None`.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ports;
use super::wear::Counted;

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its name: `godwit-agent`.
    pub name: String,
}

impl Process {
    /// The process of this number, if it is there.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned();
        Some(Self { pid, name })
    }

    fn read(&self, file: &str) -> Option<String> {
        let bytes = fs::read(format!("/proc/{}/{file}", self.pid)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Its command line.
    #[must_use]
    pub fn arguments(&self) -> Option<Vec<String>> {
        let words = self.read("cmdline")?;
        Some(words.trim_end_matches('\0').split('\0').map(str::to_owned).collect())
    }

    /// Its environment, for its own user and root.
    #[must_use]
    pub fn environment(&self) -> Option<Vec<(String, String)>> {
        let words = self.read("environ")?;
        let pairs = words.split('\0').filter_map(|pair| pair.split_once('='));
        Some(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// The folder that it works in, for its own user and root.
    #[must_use]
    pub fn folder(&self) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/cwd", self.pid)).ok()
    }

    /// The user that it is, its group, and its other groups. The real ones: what has the set-user-ID bit does as whoever started it says.
    #[must_use]
    pub fn user(&self) -> Option<(u32, u32, Vec<u32>)> {
        user(&self.read("status")?)
    }

    /// Whether its program is one that makes itself another user or group by its set-user-ID or set-group-ID bit; for root.
    #[must_use]
    pub fn changes_user(&self) -> bool {
        fs::metadata(format!("/proc/{}/exe", self.pid)).is_ok_and(|about| about.mode() & 0o6000 != 0)
    }

    /// Whether its paths are not ours, as in a container; `false` too where this user cannot see it. A namespace of its own alone
    /// does not say so: systemd gives one to many a service.
    #[must_use]
    pub fn apart(&self) -> bool {
        let root = |path: &str| fs::metadata(path).map(|about| (about.dev(), about.ino())).ok();
        let theirs = root(&format!("/proc/{}/root/", self.pid));
        theirs.is_some() && theirs != root("/")
    }

    /// Whether its program's file has been replaced since it started; for its own user and root.
    #[must_use]
    pub fn replaced(&self) -> Option<bool> {
        let file = fs::read_link(format!("/proc/{}/exe", self.pid)).ok()?;
        Some(file.to_string_lossy().ends_with(" (deleted)"))
    }

    /// Bytes that it wrote to block devices since it started, and how long ago that is; `None` for other users.
    #[must_use]
    pub fn written(&self) -> Option<Counted> {
        let bytes = field(&self.read("io")?, "write_bytes:")?.parse().ok()?;
        let begun = started(&self.read("stat")?, rustix::param::clock_ticks_per_second())?;
        Some(Counted { bytes, over: machine_up()?.saturating_sub(begun) })
    }

    /// Memory that it has, in bytes.
    pub(super) fn resident(&self) -> Option<u64> {
        let kib: u64 = field(&self.read("status")?, "VmRSS:")?.trim_end_matches("kB").trim().parse().ok()?;
        kib.checked_mul(1024)
    }

    /// How many files it may have open.
    pub(super) fn open_files(&self) -> Option<u64> {
        soft_limit(&self.read("limits")?)
    }
}

/// Who has a data folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeper {
    /// No process.
    Nobody,
    /// This one: the agent.
    Process(Process),
    /// This user may not look.
    Unseen,
}

impl Keeper {
    /// The process, if it is known.
    #[must_use]
    pub fn process(&self) -> Option<&Process> {
        if let Self::Process(process) = self { Some(process) } else { None }
    }
}

/// How long the machine has been running.
#[must_use]
pub fn machine_up() -> Option<Duration> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    Duration::try_from_secs_f64(text.split_whitespace().next()?.parse().ok()?).ok()
}

/// The process that has locked a data folder.
#[must_use]
pub fn keeper(data_dir: &Path) -> Keeper {
    let Ok(locks) = fs::read_to_string("/proc/locks") else { return Keeper::Unseen };
    kept(&data_dir.join("lock"), &locks)
}

/// Who has this file locked. Among the locks is its inode's number alone (the device's is another one on overlay and btrfs), which a
/// file elsewhere may have too: its owner is written in it, and has it open.
fn kept(path: &Path, locks: &str) -> Keeper {
    let file = |path: &Path| fs::metadata(path).map(|about| (about.dev(), about.ino()));
    let this = match file(path) {
        Ok(this) => this,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Keeper::Nobody,
        Err(_) => return Keeper::Unseen,
    };
    let lockers: Vec<u32> = lockers(locks, this.1).collect();
    if lockers.is_empty() {
        return Keeper::Nobody;
    }
    let Ok(written) = fs::read_to_string(path) else { return Keeper::Unseen };
    let own = |pid: &u32| {
        written.trim().parse() == Ok(*pid) || ports::holds(*pid, |open| file(open).is_ok_and(|open| open == this))
    };
    let closed =
        |pid: u32| fs::read_dir(format!("/proc/{pid}/fd")).is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied);
    match lockers.iter().find(|pid| own(pid)) {
        Some(pid) => Process::of(*pid).map_or(Keeper::Unseen, Keeper::Process),
        None if lockers.iter().copied().any(closed) => Keeper::Unseen,
        None => Keeper::Nobody,
    }
}

/// The process that listens at a TCP address, or `None` if none does or it is another user's.
#[must_use]
pub fn listener_pid(address: SocketAddr) -> Option<u32> {
    let inode = ports::listening(address)?;
    ports::owner(inode)
}

/// The processes that have files of this number locked for themselves, in `/proc/locks`:
/// `1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`.
fn lockers(text: &str, inode: u64) -> impl Iterator<Item = u32> {
    let line = move |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, file, ..] = fields.as_slice() else { return None };
        let same = file.rsplit(':').next()?.parse() == Ok(inode);
        pid.parse().ok().filter(|_| same)
    };
    text.lines().filter_map(line)
}

/// What follows `name` on its line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// The real user and group, and the other groups, in `status`.
fn user(status: &str) -> Option<(u32, u32, Vec<u32>)> {
    let ids = |name| field(status, name).unwrap_or_default().split_whitespace().filter_map(|id| id.parse().ok());
    Some((ids("Uid:").next()?, ids("Gid:").next()?, ids("Groups:").collect()))
}

/// When a process began, after the start of the machine: the 22nd field of `stat`, in clock ticks. The second field is a name
/// in brackets, which may hold anything.
fn started(stat: &str, ticks: u64) -> Option<Duration> {
    let after = stat.rsplit_once(") ")?.1;
    let start: u64 = after.split(' ').nth(19)?.parse().ok()?;
    Some(Duration::from_millis(start.checked_mul(1000)?.checked_div(ticks)?))
}

/// `Max open files            1024                 524288               files`
fn soft_limit(limits: &str) -> Option<u64> {
    let soft = field(limits, "Max open files")?.split_whitespace().next()?;
    if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::DataDir;

    #[test]
    fn who_keeps_a_folder_is_found_without_touching_its_lock() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(keeper(dir.path()), Keeper::Nobody);
        let lock = DataDir::lock(dir.path()).expect("free");
        assert_eq!(keeper(dir.path()).process().map(|process| process.pid), Some(std::process::id()));
        drop(lock);
        assert_eq!(keeper(dir.path()), Keeper::Nobody, "the file stays, the lock does not");
    }

    #[test]
    fn locks_of_others_are_not_ours() {
        let text = "\
1: POSIX  ADVISORY  WRITE 813 00:19:1141 0 EOF
2: FLOCK  ADVISORY  WRITE 905 b3:02:261234 0 EOF
2: -> FLOCK  ADVISORY  WRITE 906 b3:02:261234 0 EOF
3: FLOCK  ADVISORY  READ 907 b3:02:99 0 EOF
4: OFDLCK ADVISORY  READ -1 00:06:8 0 0
";
        assert_eq!(lockers(text, 261_234).collect::<Vec<_>>(), [905]);
        assert_eq!([1141, 99, 1].map(|inode| lockers(text, inode).count()), [0; 3]);
    }

    #[test]
    fn a_file_elsewhere_of_the_same_number_is_not_the_lock() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("lock");
        fs::write(&path, "1\n").expect("written");
        let inode = fs::metadata(&path).expect("there").ino();
        let by = |pid: u32| kept(&path, &format!("1: FLOCK  ADVISORY  WRITE {pid} 00:19:{inode} 0 EOF\n"));
        let this = std::process::id();
        assert_eq!(by(this), Keeper::Nobody, "it says another, and we do not have it open");
        assert!(by(1).process().is_some(), "it says so itself");
        let _open = fs::File::open(&path).expect("opened");
        assert_eq!(by(this).process().map(|process| process.pid), Some(this), "an owner that has not written its pid yet");
    }

    #[test]
    fn what_proc_tells_of_a_process_is_read() {
        let stat =
            "4242 (a) b (c)) S 1 4242 4242 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 123456 1000 200 18446744073709551615";
        assert_eq!(started(stat, 100), Some(Duration::from_millis(1_234_560)));
        assert_eq!(started("nonsense", 100), None);
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
            Max open files            1024                 524288               files\n";
        assert_eq!(soft_limit(limits), Some(1024));
        assert_eq!(soft_limit("Max open files            unlimited            unlimited            files"), Some(u64::MAX));
        let status = "Name:\tsu\nUid:\t1000\t0\t0\t0\nGid:\t1000\t42\t42\t42\nGroups:\t27 1000 \n";
        assert_eq!(user(status), Some((1000, 1000, vec![27, 1000])), "not those of a program with the set-user-ID bit");
        assert_eq!(field("rchar: 9\nwrite_bytes: 4096\ncancelled_write_bytes: 1\n", "write_bytes:"), Some("4096"));
    }

    #[test]
    fn this_process_tells_of_itself() {
        let this = Process::of(std::process::id()).expect("runs");
        assert!(this.arguments().is_some_and(|words| !words.is_empty()));
        assert!(this.resident().is_some_and(|bytes| bytes > 0));
        assert!(this.open_files().is_some());
        assert!(!this.apart());
        assert!(!this.changes_user());
        assert_eq!(this.user().map(|(id, ..)| id), Some(rustix::process::geteuid().as_raw()));
        assert_eq!(this.folder(), std::env::current_dir().ok());
        assert!(this.written().is_some_and(|counted| counted.over < Duration::from_secs(86_400)));
        assert_eq!(Process::of(u32::MAX), None);
    }
}
