//! `/proc/self/mountinfo`: what is mounted where.
//!
//! A line is `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [OPTIONAL…] - KIND SOURCE SUPER-OPTIONS`; blanks and backslashes in a field
//! are `\ooo`. A line that is not of this shape is passed over.

use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// The device's number; major 0 where there is no block device of its own (tmpfs, overlay, NFS, btrfs, UBIFS).
    pub(super) device: (u32, u32),
    /// Where it is mounted.
    pub(super) point: PathBuf,
    /// The file system: `ext4`.
    pub(super) kind: String,
    /// What is mounted: `/dev/mmcblk0p2`, `server:/path`.
    pub(super) source: String,
    /// The options of the mount and of the file system.
    pub(super) options: Vec<String>,
}

impl Mount {
    /// Whether an option is set.
    pub(super) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|have| have == option)
    }

    /// The value of an option `name=value`.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.options.iter().find_map(|have| have.strip_prefix(name)?.strip_prefix('='))
    }
}

/// All mounts in the order of the kernel.
pub(super) fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(2);
    let (major, minor) = left.next()?.split_once(':')?;
    let point = unescape(left.nth(1)?);
    let mine = left.next()?;
    let mut right = right.split(' ');
    let (kind, source) = (right.next()?, right.next()?);
    let options = mine.split(',').chain(right.next().unwrap_or_default().split(','));
    Some(Mount {
        device: (major.parse().ok()?, minor.parse().ok()?),
        point: point.into(),
        kind: kind.to_owned(),
        source: unescape(source),
        options: options.filter(|option| !option.is_empty()).map(unescape).collect(),
    })
}

/// The mount that holds an absolute path without links: the one with the longest mount point; of several on one point the last,
/// which hides the others.
pub(super) fn holding<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let holds = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    holds.max_by_key(|mount| mount.point.components().count())
}

/// Replaces `\ooo` by the byte that it stands for.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| first == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = after.get(3..).unwrap_or_default();
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A Raspberry Pi with overlayroot, a USB stick, NFS, and a mount over another.
    const PI: &str = "\
22 28 0:20 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
28 1 0:26 / / rw,relatime shared:1 - overlay overlayroot rw,lowerdir=/media/root-ro,upperdir=/media/root-rw/overlay,workdir=/media/root-rw/overlay-workdir/_
29 28 179:2 / /media/root-ro ro,relatime shared:2 - ext4 /dev/mmcblk0p2 ro
30 28 0:25 / /media/root-rw rw,relatime shared:3 - tmpfs tmpfs-root rw
41 28 8:1 / /media/usb\\040stick rw,noatime shared:9 master:3 - vfat /dev/sda1 rw,fmask=0022,errors=remount-ro
50 28 0:45 / /srv rw - nfs4 10.0.0.1:/export rw,vers=4.2
51 28 259:1 / /srv rw,relatime - ext4 /dev/nvme0n1p1 rw,barrier=0
nonsense
52 28 x:1 / /x rw - ext4 /dev/x rw
";

    #[test]
    fn mounts_of_a_board_are_read() {
        let mounts = parse(PI);
        assert_eq!(mounts.len(), 7, "what is no mount is passed over");
        let at = |path: &str| holding(&mounts, Path::new(path)).expect("mounted");
        assert_eq!(at("/var/lib/godwit").kind, "overlay");
        assert_eq!(at("/").value("upperdir"), Some("/media/root-rw/overlay"));
        assert_eq!(at("/media/root-rw/overlay").kind, "tmpfs");
        assert_eq!(at("/media/usb stick/data").device, (8, 1));
        assert!(at("/media/root-ro/x").has("ro"));
        assert_eq!(at("/srv/data").kind, "ext4", "the last on a point hides the others");
        assert_eq!(at("/srv/data").value("barrier"), Some("0"));
        assert_eq!(at("/srvdata").kind, "overlay", "a name that only begins alike is elsewhere");
    }

    #[test]
    fn what_is_mounted_here_is_read() {
        let text = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let mounts = parse(&text);
        assert_eq!(mounts.len(), text.lines().count());
        assert!(holding(&mounts, Path::new("/proc/self")).is_some_and(|mount| mount.kind == "proc"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_passed_over(text in "[ -~\n\\\\0-9:/,-]{0,200}") {
            parse(&text);
        }
    }
}
