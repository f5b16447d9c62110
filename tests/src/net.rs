//! A network namespace with a link of its own to the machine, to cut and to spoil as root.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::disk::run;

/// A namespace joined to the machine by a pair of virtual interfaces; gone when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    number: u8,
}

impl Namespace {
    /// Makes one; `number` is its own among those that live at the same time. What a run that was killed has left of that number goes: it
    /// has the same addresses.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new(number: u8) -> Result<Self> {
        let name = format!("gw{}n{number}", std::process::id() % 100_000);
        for left in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let left = left.file_name().to_string_lossy().into_owned();
            let of = left.strip_prefix("gw").and_then(|left| left.strip_suffix(&format!("n{number}")));
            if of.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
                run(Command::new("ip").args(["netns", "del", &left]))?;
            }
        }
        let namespace = Self { name: name.clone(), number };
        let (here, there) = (format!("{name}a"), format!("{name}b"));
        let ip = |line: &str| run(Command::new("ip").args(line.split(' ')));
        ip(&format!("netns add {name}"))?;
        ip(&format!("link add {here} type veth peer name {there} netns {name}"))?;
        ip(&format!("addr add {}/24 dev {here}", namespace.outside()))?;
        ip(&format!("link set {here} up"))?;
        ip(&format!("-n {name} addr add {}/24 dev {there}", namespace.inside()))?;
        ip(&format!("-n {name} link set {there} up"))?;
        ip(&format!("-n {name} link set lo up"))?;
        Ok(namespace)
    }

    /// The machine's address on the link.
    #[must_use]
    pub fn outside(&self) -> IpAddr {
        Ipv4Addr::new(10, 213, self.number, 1).into()
    }

    /// The namespace's address on the link.
    #[must_use]
    pub fn inside(&self) -> IpAddr {
        Ipv4Addr::new(10, 213, self.number, 2).into()
    }

    /// The words that run a program inside.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name].map(str::to_owned).to_vec()
    }

    /// Its file, by which a thread moves in.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Takes the link down, or up again: both sides notice.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn link(&self, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        run(Command::new("ip").args(["link", "set", &format!("{}a", self.name), state])).map(drop)
    }

    /// Drops `percent` of all packets at random, both ways; 100 is a black hole, of which nobody is told.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn lose(&self, percent: u32) -> Result<()> {
        let rule = if percent < 100 { format!("numgen random mod 100 < {percent} drop") } else { "drop".to_owned() };
        let rules = format!(
            "flush ruleset\ntable ip t {{\n chain i {{ type filter hook input priority 0;\n iifname != \"lo\" {rule}\n }}\n \
             chain o {{ type filter hook output priority 0;\n oifname != \"lo\" {rule}\n }}\n}}\n"
        );
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), rules)?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, "nft", "-f"]).arg(file.path());
        run(&mut command).map(drop)
    }

    /// Loses nothing any more.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn heal(&self) -> Result<()> {
        run(Command::new("ip").args(["netns", "exec", &self.name, "nft", "flush", "ruleset"])).map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run(Command::new("ip").args(["link", "del", &format!("{}a", self.name)]));
        let _ = run(Command::new("ip").args(["netns", "del", &self.name]));
    }
}
