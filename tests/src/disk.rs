//! Small disks of our own, mounted as root: a tmpfs, or an ext4 in a file.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::lab::Lab;

/// A mounted disk, unmounted when dropped; drop the processes that use it first.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    device: Option<String>,
}

impl Disk {
    /// A tmpfs of `mib` MiB.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn tmpfs(lab: &Lab, name: &str, mib: u32) -> Result<Self> {
        let path = lab.folder(name)?;
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(&path))?;
        Ok(Self { path, device: None })
    }

    /// An ext4 of `mib` MiB in a file, on a loop device of its own.
    ///
    /// # Errors
    /// When it cannot be made or mounted.
    pub fn ext4(lab: &Lab, name: &str, mib: u32) -> Result<Self> {
        let image = lab.path().join(format!("{name}.img"));
        let path = lab.folder(name)?;
        std::fs::File::create(&image)?.set_len(u64::from(mib) << 20)?;
        // All of its tables at once: else the kernel goes on writing them for minutes, and what is written is counted.
        let now = "lazy_itable_init=0,lazy_journal_init=0";
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-E", now]).arg(&image))?;
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(&image))?.trim().to_owned();
        let disk = Self { path, device: Some(device.clone()) };
        run(Command::new("mount").arg(&device).arg(&disk.path))?;
        Ok(disk)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes all the free space but `leave` bytes; the file gives it back when removed.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn fill(&self, leave: u64) -> Result<PathBuf> {
        let ballast = self.path.join("ballast");
        let stat = rustix::fs::statvfs(&self.path)?;
        let free = stat.f_bavail * stat.f_frsize;
        let file = std::fs::File::create(&ballast)?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, free.saturating_sub(leave).max(1))
            .context("cannot fill the disk")?;
        Ok(ballast)
    }

    /// Bytes of the whole file system.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn bytes(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(&self.path)?;
        Ok(stat.f_blocks * stat.f_frsize)
    }

    /// Bytes written to the block device since it was made; nothing for a tmpfs, which has none.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn written(&self) -> Result<Option<u64>> {
        let Some(device) = &self.device else { return Ok(None) };
        let name = Path::new(device).file_name().context("a device has a name")?;
        let path = Path::new("/sys/block").join(name).join("stat");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let sectors: u64 = text.split_whitespace().nth(6).context("a seventh field")?.parse()?;
        Ok(Some(sectors * 512))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, so that a process which is about to go does not keep it mounted for good.
        let _ = run(Command::new("umount").arg("-l").arg(&self.path));
        if let Some(device) = &self.device {
            let _ = run(Command::new("losetup").arg("-d").arg(device));
        }
    }
}

/// Runs a command to its end and gives what it printed.
///
/// # Errors
/// When it fails, with what it said.
pub fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| shown.clone())?;
    ensure!(output.status.success(), "{shown}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Copies a folder with all in it, as a backup would.
///
/// # Errors
/// When a file cannot be copied.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    run(Command::new("cp").arg("-a").arg(from).arg(to))?;
    Ok(())
}
