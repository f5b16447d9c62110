//! The block device below a file system, as `/sys` describes it: SD card, eMMC, NVMe …, what it caches and how worn it says it is.

use std::fs;
use std::path::{Path, PathBuf};

/// How many layers (dm, md, loop) are looked through.
const MAX_DEPTH: u32 = 8;

/// What kind of medium something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An SD card.
    Sd,
    /// An eMMC chip.
    Emmc,
    /// A UFS chip.
    Ufs,
    /// An NVMe disk.
    Nvme,
    /// A flash disk on SATA.
    Sata,
    /// A disk that turns.
    Turning,
    /// Something on USB: stick, card reader or disk.
    Usb,
    /// A virtual machine's disk.
    Virtual,
    /// Flash without a controller of its own (MTD, UBI).
    Raw,
    /// Memory.
    Ram,
    /// None of these.
    Other,
}

impl Kind {
    /// What people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sd => "an SD card",
            Self::Emmc => "an eMMC",
            Self::Ufs => "a UFS chip",
            Self::Nvme => "an NVMe disk",
            Self::Sata => "a SATA flash disk",
            Self::Turning => "a turning disk",
            Self::Usb => "a USB disk",
            Self::Virtual => "a virtual disk (virtio)",
            Self::Raw => "raw flash",
            Self::Ram => "memory",
            Self::Other => "a disk of an unknown kind",
        }
    }

    /// One word for machines.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Sd => "sd",
            Self::Emmc => "emmc",
            Self::Ufs => "ufs",
            Self::Nvme => "nvme",
            Self::Sata => "sata",
            Self::Turning => "hdd",
            Self::Usb => "usb",
            Self::Virtual => "virtio",
            Self::Raw => "raw-flash",
            Self::Ram => "memory",
            Self::Other => "other",
        }
    }
}

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Medium {
    /// The kernel's name: `mmcblk0`.
    pub(super) name: String,
    /// What it is.
    pub(super) kind: Kind,
    /// Its size in bytes.
    pub(super) bytes: u64,
    /// `queue/write_cache`: what the kernel believes, `write back` or `write through`. It flushes only in the first case.
    pub(super) believed_cache: Option<String>,
    /// `scsi_disk/*/cache_type`: what a SCSI or SATA disk said of itself.
    pub(super) own_cache: Option<String>,
    /// eMMC: how much of its life is used, in per cent rounded up to tens (`life_time`).
    pub(super) used_percent: Option<u8>,
    /// eMMC: 1 normal, 2 of its spare blocks 80 % are used, 3 urgent (`pre_eol_info`).
    pub(super) end_of_life: Option<u8>,
    /// Bytes written to it since the start of the machine.
    pub(super) written: Option<u64>,
}

/// What is below a device number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Below {
    /// A disk.
    Disk(Medium),
    /// A file of another file system (a loop device).
    File(PathBuf),
}

/// The whole disk that the device `(major, minor)` is or is a part of, below any `dm` or `md`. `sys` is `/sys`.
pub(super) fn below(sys: &Path, device: (u32, u32)) -> Option<Below> {
    let link = sys.join(format!("dev/block/{}:{}", device.0, device.1));
    descend(&fs::canonicalize(link).ok()?, MAX_DEPTH)
}

fn descend(device: &Path, depth: u32) -> Option<Below> {
    // A partition's folder is inside that of its disk, and only a disk has a queue.
    let disk =
        if device.join("queue").is_dir() { device } else { device.parent().filter(|up| up.join("queue").is_dir())? };
    if let Some(file) = text(disk, "loop/backing_file") {
        return Some(Below::File(file.trim_end_matches(" (deleted)").into()));
    }
    let mut slaves: Vec<PathBuf> =
        fs::read_dir(disk.join("slaves")).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    slaves.sort();
    if let (Some(first), Some(depth)) = (slaves.first(), depth.checked_sub(1)) {
        return descend(&fs::canonicalize(first).ok()?, depth);
    }
    Some(Below::Disk(medium(disk)?))
}

fn medium(disk: &Path) -> Option<Medium> {
    let name = disk.file_name()?.to_string_lossy().into_owned();
    let percent = text(disk, "device/life_time").and_then(|life| used_percent(&life));
    Some(Medium {
        kind: kind(disk, &name),
        bytes: text(disk, "size")?.parse::<u64>().ok()?.saturating_mul(512),
        believed_cache: text(disk, "queue/write_cache"),
        own_cache: own_cache(disk),
        used_percent: percent,
        end_of_life: text(disk, "device/pre_eol_info").and_then(|info| hex(&info)),
        written: text(disk, "stat").and_then(|stat| written(&stat)),
        name,
    })
}

fn kind(disk: &Path, name: &str) -> Kind {
    let path = disk.to_string_lossy();
    let on = |bus: &str| path.split('/').any(|part| part.starts_with(bus));
    if name.starts_with("mmcblk") {
        return if text(disk, "device/type").as_deref() == Some("MMC") { Kind::Emmc } else { Kind::Sd };
    }
    if name.starts_with("nvme") {
        return Kind::Nvme;
    }
    if name.starts_with("zram") || name.starts_with("ram") {
        return Kind::Ram;
    }
    if name.starts_with("mtdblock") || name.starts_with("ubiblock") {
        return Kind::Raw;
    }
    if on("virtio") || name.starts_with("xvd") {
        return Kind::Virtual;
    }
    // Most sticks say that they turn; what is on USB is therefore not asked.
    if on("usb") {
        return Kind::Usb;
    }
    // The controller's folder, whatever the board calls it.
    if disk.ancestors().any(|up| up.join("health_descriptor").is_dir()) {
        return Kind::Ufs;
    }
    match text(disk, "queue/rotational").as_deref() {
        Some("1") if name.starts_with("sd") => Kind::Turning,
        Some("0") if on("ata") => Kind::Sata,
        _ => Kind::Other,
    }
}

fn own_cache(disk: &Path) -> Option<String> {
    let entries = fs::read_dir(disk.join("device/scsi_disk")).ok()?;
    entries.flatten().find_map(|entry| text(&entry.path(), "cache_type"))
}

/// `0x03 0x01`: for each kind of cell in tens of per cent, 0x0b is beyond; 0 is not told.
fn used_percent(life: &str) -> Option<u8> {
    let most = life.split_whitespace().filter_map(hex).max()?;
    (1..=11).contains(&most).then_some(most * 10)
}

fn hex(text: &str) -> Option<u8> {
    u8::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
}

/// The seventh number of `stat`: sectors of 512 bytes written.
fn written(stat: &str) -> Option<u64> {
    stat.split_whitespace().nth(6)?.parse::<u64>().ok()?.checked_mul(512)
}

fn text(folder: &Path, name: &str) -> Option<String> {
    Some(fs::read_to_string(folder.join(name)).ok()?.trim().to_owned())
}

/// A tree like that of `/sys`, of files with their text, for tests.
#[cfg(test)]
pub(super) fn tree(files: &[(&str, &str)], links: &[(&str, &str)]) -> tempfile::TempDir {
    let sys = tempfile::tempdir().expect("a folder");
    let place = |name: &str| {
        let path = sys.path().join(name);
        fs::create_dir_all(path.parent().expect("in the tree")).expect("made");
        path
    };
    for (name, text) in files {
        fs::write(place(name), text).expect("written");
    }
    for (name, to) in links {
        std::os::unix::fs::symlink(sys.path().join(to), place(name)).expect("linked");
    }
    sys
}

#[cfg(test)]
mod tests {
    use super::*;

    const MMC: &str = "devices/platform/emmc2bus/fe340000.mmc/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0";

    fn disk(sys: &Path, device: (u32, u32)) -> Medium {
        match below(sys, device) {
            Some(Below::Disk(medium)) => medium,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_partition_of_an_sd_card_is_known_as_one() {
        let file = |name: &str| format!("{MMC}/{name}");
        let sys = tree(
            &[
                (&file("queue/write_cache"), "write through\n"),
                (&file("size"), "62333952\n"),
                (&file("stat"), "   10 2 300 4   50 6   7000  8 0 9 10 0 0 0 0 0 0\n"),
                (&file("device/type"), "SD\n"),
                (&file("mmcblk0p2/partition"), "2\n"),
            ],
            &[("dev/block/179:2", &file("mmcblk0p2"))],
        );
        let medium = disk(sys.path(), (179, 2));
        assert_eq!((medium.name.as_str(), medium.kind, medium.bytes), ("mmcblk0", Kind::Sd, 31_914_983_424));
        assert_eq!((medium.written, medium.used_percent), (Some(7000 * 512), None));
        assert_eq!(medium.believed_cache.as_deref(), Some("write through"));
    }

    #[test]
    fn an_emmc_tells_how_worn_it_is() {
        let file = |name: &str| format!("{MMC}/{name}");
        let sys = tree(
            &[
                (&file("queue/write_cache"), "write back\n"),
                (&file("size"), "15269888\n"),
                (&file("device/type"), "MMC\n"),
                (&file("device/life_time"), "0x03 0x0b\n"),
                (&file("device/pre_eol_info"), "0x02\n"),
            ],
            &[("dev/block/179:0", MMC)],
        );
        let medium = disk(sys.path(), (179, 0));
        assert_eq!((medium.kind, medium.used_percent, medium.end_of_life), (Kind::Emmc, Some(110), Some(2)));
        assert_eq!(used_percent("0x00 0x00"), None, "an old eMMC does not tell");
    }

    #[test]
    fn kinds_of_disks_are_told_apart() {
        let cases = [
            ("devices/pci0/usb1/1-1/host0/target0/0:0:0:0/block/sda", "1", Kind::Usb),
            ("devices/pci0/ata1/host1/target1/1:0:0:0/block/sdb", "0", Kind::Sata),
            ("devices/pci0/ata2/host2/target2/2:0:0:0/block/sdc", "1", Kind::Turning),
            ("devices/pci0/virtio0/block/vda", "1", Kind::Virtual),
            ("devices/pci0/nvme/nvme0/nvme0n1", "0", Kind::Nvme),
            ("devices/pci0/host1/target1/1:0:0:0/block/sda", "0", Kind::Other),
            ("devices/virtual/block/zram0", "0", Kind::Ram),
            ("devices/LNXSYSTM:00/ndbus0/region0/namespace0.0/block/pmem0", "0", Kind::Other),
            ("devices/virtual/block/nbd0", "0", Kind::Other),
        ];
        for (path, rotational, kind) in cases {
            let (queue, size) = (format!("{path}/queue/rotational"), format!("{path}/size"));
            let sys = tree(&[(&queue, rotational), (&size, "8")], &[("dev/block/8:0", path)]);
            assert_eq!(disk(sys.path(), (8, 0)).kind, kind, "{path}");
        }
    }

    #[test]
    fn a_ufs_chip_is_known_by_its_controller() {
        let controller = "devices/platform/soc/4e84000.ufs";
        let disk_path = format!("{controller}/host0/target0:0:0/0:0:0:0/block/sda");
        let (queue, size) = (format!("{disk_path}/queue/rotational"), format!("{disk_path}/size"));
        let health = format!("{controller}/health_descriptor/eol_info");
        let sys = tree(&[(&queue, "0"), (&size, "8"), (&health, "0x01")], &[("dev/block/8:0", &disk_path)]);
        assert_eq!(disk(sys.path(), (8, 0)).kind, Kind::Ufs);
    }

    #[test]
    fn a_volume_is_looked_through_and_a_loop_device_names_its_file() {
        let sata = "devices/pci0/ata1/host1/target1/1:0:0:0/block/sdb";
        let (dm, ring) = ("devices/virtual/block/dm-0", "devices/virtual/block/loop0");
        let sys = tree(
            &[
                (&format!("{sata}/queue/rotational"), "0"),
                (&format!("{sata}/size"), "8"),
                (&format!("{sata}/sdb1/partition"), "1"),
                (&format!("{sata}/device/scsi_disk/1:0:0:0/cache_type"), "write back\n"),
                (&format!("{dm}/queue/rotational"), "0"),
                (&format!("{ring}/queue/rotational"), "0"),
                (&format!("{ring}/loop/backing_file"), "/srv/disk.img\n"),
            ],
            &[("dev/block/253:0", dm), (&format!("{dm}/slaves/sdb1"), &format!("{sata}/sdb1")), ("dev/block/7:0", ring)],
        );
        let medium = disk(sys.path(), (253, 0));
        assert_eq!((medium.name.as_str(), medium.own_cache.as_deref()), ("sdb", Some("write back")));
        assert_eq!(below(sys.path(), (7, 0)), Some(Below::File("/srv/disk.img".into())));
        assert_eq!(below(sys.path(), (1, 1)), None);
    }
}
