//! Where the data folder is: its file system, what lies below, and the medium at the bottom.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::medium::{Below, Kind, Medium, below};
use super::mounts::{self, Mount};
use super::report::{Finding, Verdict};
use super::units::size;

const CHECK: &str = "storage";

/// How many file systems are looked through (overlay, loop).
const MAX_LAYERS: usize = 4;

/// File systems that live in memory.
const IN_MEMORY: [&str; 3] = ["tmpfs", "ramfs", "rootfs"];

/// File systems that another machine, or the host of this one, keeps.
const REMOTE: [&str; 8] = ["nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "ceph", "afs"];

/// File systems that a power cut may damage.
const FRAGILE: [&str; 5] = ["vfat", "msdos", "exfat", "ntfs", "ntfs3"];

/// File systems on flash without a controller.
const RAW: [&str; 3] = ["ubifs", "jffs2", "yaffs2"];

/// Where the data folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The folder as configured.
    pub folder: PathBuf,
    /// The folder, or what of the way to it there is already; without links.
    pub there: PathBuf,
    /// The file systems, from the one that the folder is in downwards.
    pub(super) layers: Vec<Mount>,
    /// The disk at the bottom.
    pub(super) medium: Option<Medium>,
}

impl Place {
    /// Finds out where a folder is. Blocks as long as its file system does.
    ///
    /// # Errors
    /// The finding, where it is no folder or cannot be seen.
    pub fn of(folder: &Path) -> Result<Self, Box<Finding>> {
        let there = existing(folder)?;
        let text = std::fs::read("/proc/self/mountinfo")
            .map_err(|e| Box::new(Finding::unknown(CHECK, format!("/proc/self/mountinfo: {e}"), "mount /proc")))?;
        let mounts = mounts::parse(&String::from_utf8_lossy(&text));
        let (layers, medium) = descend(&mounts, Path::new("/sys"), &there);
        Ok(Self { folder: folder.to_owned(), there, layers, medium })
    }

    /// Whether the folder is there.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.folder.is_dir()
    }

    /// The kind of medium at the bottom.
    pub(super) fn kind(&self) -> Option<Kind> {
        if self.layers.last().is_some_and(|mount| IN_MEMORY.contains(&mount.kind.as_str())) {
            return Some(Kind::Ram);
        }
        if self.layers.last().is_some_and(|mount| RAW.contains(&mount.kind.as_str())) {
            return Some(Kind::Raw);
        }
        self.medium.as_ref().map(|medium| medium.kind)
    }

    /// Where to look in a sentence.
    pub(super) fn shown(&self) -> String {
        self.there.display().to_string()
    }
}

/// The nearest folder above `folder`, or itself, that is there.
fn existing(folder: &Path) -> Result<PathBuf, Box<Finding>> {
    let none = |path: &Path, why: &str| {
        let remedy = "move away what is there, mount the disk that it should be on, or set agent.data-dir";
        Box::new(Finding::fail(CHECK, format!("agent.data-dir is not a folder: {} {why}", path.display()), remedy))
    };
    let whole = std::path::absolute(folder).map_err(|e| none(folder, &e.to_string()))?;
    for path in whole.ancestors() {
        match std::fs::canonicalize(path) {
            Ok(there) if there.is_dir() => return Ok(there),
            Ok(_) => return Err(none(path, "is a file")),
            Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                let found = format!("{} may not be looked at by this user", path.display());
                return Err(Box::new(Finding::unknown(CHECK, found, "run it as root or as the agent's user")));
            }
            // Of what is not there there is not even a link.
            Err(e) if e.kind() == ErrorKind::NotFound => {
                if path.is_symlink() {
                    return Err(none(path, "is a link to what is not there"));
                }
            }
            // Below a file: it is named when its turn comes.
            Err(e) if e.kind() == ErrorKind::NotADirectory => {}
            Err(e) => return Err(none(path, &e.to_string())),
        }
    }
    Err(none(folder, "has nothing above it"))
}

fn descend(mounts: &[Mount], sys: &Path, path: &Path) -> (Vec<Mount>, Option<Medium>) {
    let mut layers: Vec<Mount> = Vec::new();
    let mut path = path.to_owned();
    while let Some(mount) = mounts::holding(mounts, &path).filter(|_| layers.len() < MAX_LAYERS) {
        layers.push(mount.clone());
        if mount.kind == "overlay" {
            // In a container the upper folder is a path of the host, which is not to be seen, or is something else here.
            match mount.value("upperdir").map(PathBuf::from).filter(|upper| upper.is_dir()) {
                Some(upper) => path = upper,
                None => break,
            }
            continue;
        }
        match below(sys, mount.device).or_else(|| below(sys, number(&mount.source)?)) {
            Some(Below::Disk(medium)) => return (layers, Some(medium)),
            Some(Below::File(file)) => path = file,
            None => break,
        }
    }
    (layers, None)
}

/// The number of a device file: what btrfs gives as its own number is none of a device.
fn number(source: &str) -> Option<(u32, u32)> {
    let number = std::fs::metadata(Path::new(source).strip_prefix("/dev").ok().map(|_| source)?).ok()?.rdev();
    (number != 0).then(|| (rustix::fs::major(number), rustix::fs::minor(number)))
}

/// What the data folder is on.
#[must_use]
pub fn storage(place: &Place) -> Finding {
    let Some(top) = place.layers.first() else {
        return Finding::unknown(
            CHECK,
            format!("what {} is on cannot be seen", place.shown()),
            "look at `findmnt -T` for it",
        );
    };
    let kind = place.kind();
    let names: Vec<&str> = place.layers.iter().map(|mount| mount.kind.as_str()).collect();
    let on = match (&place.medium, kind) {
        (Some(medium), _) => format!("{}, {} of {}", medium.name, medium.kind.name(), size(medium.bytes)),
        (None, Some(kind)) => kind.name().to_owned(),
        (None, None) => top.source.clone(),
    };
    let found = format!("{} is on {}: {on}", place.shown(), names.join(" over "));
    let is = |list: &[&str]| names.iter().any(|name| list.contains(name));
    let remote = is(&REMOTE) || names.iter().any(|name| name.starts_with("fuse"));
    let (verdict, remedy) = if kind == Some(Kind::Ram) {
        (Verdict::Fail, "what is acknowledged goes with the power: put agent.data-dir on a disk or a partition of its own")
    } else if top.has("ro") {
        (
            Verdict::Fail,
            "it is mounted read-only: mount it rw (after an error the kernel does this; see dmesg), or set agent.data-dir",
        )
    } else if remote {
        (
            Verdict::Warn,
            "another machine keeps it, and events wait for the network: put agent.data-dir on a disk of this board",
        )
    } else if is(&FRAGILE) {
        (Verdict::Warn, "a power cut can damage this file system: put agent.data-dir on ext4, f2fs, btrfs or xfs")
    } else if top.kind == "overlay" {
        (Verdict::Warn, "what is in an overlay goes with its container or its upper layer: mount a volume there")
    } else if place.medium.is_none() && kind.is_none() {
        (Verdict::Unknown, "the disk below cannot be seen from here: run it where it can, on the host and as root")
    } else {
        (Verdict::Ok, "")
    };
    let medium = kind.map_or("unknown", Kind::word);
    let missing = if place.exists() { String::new() } else { format!("the agent will make {}", place.folder.display()) };
    Finding::new(CHECK, verdict, found, remedy)
        .and(Verdict::Ok, &missing, "")
        .with("file_system", top.kind.as_str())
        .with("medium", medium)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::medium::tree;
    use super::*;

    /// A place on one file system with this medium.
    pub(in super::super) fn on(kind: &str, options: &str, medium: Option<Medium>) -> Place {
        let line = format!("1 2 179:2 / / {options} - {kind} /dev/x {options}");
        Place { folder: "/".into(), there: "/data".into(), layers: mounts::parse(&line), medium }
    }

    /// A disk of this kind.
    pub(in super::super) fn disk(kind: Kind) -> Medium {
        Medium {
            name: "disk0".to_owned(),
            kind,
            bytes: 32 << 30,
            believed_cache: Some("write back".to_owned()),
            own_cache: None,
            used_percent: None,
            end_of_life: None,
            written: None,
        }
    }

    #[test]
    fn a_card_with_ext4_is_good_and_memory_is_not() {
        let good = storage(&on("ext4", "rw,noatime", Some(disk(Kind::Sd))));
        assert_eq!(good.verdict, Verdict::Ok, "{}", good.found);
        assert_eq!(good.found, "/data is on ext4: disk0, an SD card of 32.0 GiB");
        assert_eq!(storage(&on("tmpfs", "rw", None)).verdict, Verdict::Fail);
        assert_eq!(storage(&on("ext4", "rw", Some(disk(Kind::Ram)))).verdict, Verdict::Fail, "zram");
        assert_eq!(storage(&on("ext4", "ro", Some(disk(Kind::Sd)))).verdict, Verdict::Fail);
        assert_eq!(storage(&on("vfat", "rw", Some(disk(Kind::Usb)))).verdict, Verdict::Warn);
        assert_eq!(storage(&on("nfs4", "rw", None)).verdict, Verdict::Warn);
        assert_eq!(storage(&on("fuse.sshfs", "rw", None)).verdict, Verdict::Warn);
        assert_eq!(storage(&on("overlay", "rw", None)).verdict, Verdict::Warn);
        assert_eq!(storage(&on("ubifs", "rw", None)).verdict, Verdict::Ok);
        assert_eq!(storage(&on("zfs", "rw", None)).verdict, Verdict::Unknown);
    }

    #[test]
    fn a_read_only_root_with_its_changes_in_memory_is_seen_through() {
        let upper = tempfile::tempdir().expect("a folder");
        let shown = upper.path().display();
        let mounts = mounts::parse(&format!(
            "28 1 0:26 / / rw - overlay overlayroot rw,upperdir={shown}\n30 28 0:25 / {shown} rw - tmpfs tmpfs-root rw\n"
        ));
        let sys = tree(&[], &[]);
        let (layers, medium) = descend(&mounts, sys.path(), Path::new("/var/lib/godwit"));
        assert_eq!(layers.iter().map(|mount| mount.kind.as_str()).collect::<Vec<_>>(), ["overlay", "tmpfs"]);
        let place = Place { folder: "/var".into(), there: "/var".into(), layers, medium };
        assert_eq!(storage(&place).verdict, Verdict::Fail);
    }

    #[test]
    fn a_loop_device_is_followed_to_the_disk_of_its_file() {
        let mounts = mounts::parse("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 7:0 / /mnt rw - ext4 /dev/loop0 rw\n");
        let sys = tree(
            &[
                ("devices/ata1/block/sda/queue/rotational", "0"),
                ("devices/ata1/block/sda/size", "8"),
                ("devices/ata1/block/sda/sda1/partition", "1"),
                ("devices/virtual/block/loop0/queue/rotational", "0"),
                ("devices/virtual/block/loop0/loop/backing_file", "/srv/disk.img\n"),
            ],
            &[("dev/block/8:1", "devices/ata1/block/sda/sda1"), ("dev/block/7:0", "devices/virtual/block/loop0")],
        );
        let (layers, medium) = descend(&mounts, sys.path(), Path::new("/mnt/data"));
        assert_eq!((layers.len(), medium.map(|medium| medium.kind)), (2, Some(Kind::Sata)));
    }

    #[test]
    fn a_folder_that_is_not_there_is_where_it_would_be() {
        let dir = tempfile::tempdir().expect("a folder");
        let place = Place::of(&dir.path().join("not/yet")).expect("found");
        assert_eq!(place.there, std::fs::canonicalize(dir.path()).expect("there"));
        assert!(!place.exists() && !place.layers.is_empty());
        let found = storage(&place).found;
        assert!(found.ends_with("/not/yet") && found.contains("; the agent will make "), "{found}");
    }

    #[test]
    fn what_cannot_be_a_folder_fails() {
        let dir = tempfile::tempdir().expect("a folder");
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "").expect("written");
        std::os::unix::fs::symlink(dir.path().join("not-mounted"), &link).expect("linked");
        for (folder, why) in [
            (file.clone(), "/file is a file"),
            (file.join("below/it"), "/file is a file"),
            (link.clone(), "/link is a link to what is not there"),
            (link.join("below"), "/link is a link to what is not there"),
        ] {
            let finding = Place::of(&folder).expect_err("no folder");
            assert_eq!((finding.check, finding.verdict), ("storage", Verdict::Fail));
            assert!(finding.found.starts_with("agent.data-dir is not a folder: "), "{}", finding.found);
            assert!(finding.found.ends_with(why) && !finding.remedy.is_empty(), "{finding:?}");
        }
    }
}
