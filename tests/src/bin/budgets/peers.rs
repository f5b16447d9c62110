//! The table of `docs/footprint.md`: what Godwit, mosquitto and a leaf of NATS take of the same machine in one run.
//!
//! Each takes MQTT at QoS 1 from the same clients, and keeps what it gets for a subscriber that is away: Godwit in its journal,
//! mosquitto in memory and, at its end, in its database, NATS in a stream of JetStream.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use godwit_tests::disk::{self, Disk};
use godwit_tests::footprint::{self, Memory, Quiet};
use godwit_tests::lab::Lab;
use godwit_tests::lockstep::Lockstep;
use godwit_tests::mosquitto::{self, Mosquitto};
use godwit_tests::mqtt;
use godwit_tests::nats::{self, Leaf};
use godwit_tests::node::Node;
use godwit_tests::process::Process;

const QUEUED: u64 = 1_000_000;
const REST: Duration = Duration::from_secs(8);
const WATCH: Duration = Duration::from_secs(60);
/// Events of the two runs under callgrind, and of the one that measures processor time.
const FEW: u32 = 600;
const MORE: u32 = 3000;
const TIMED: u32 = 20_000;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Godwit,
    Mosquitto,
    Nats,
}

const PEERS: [Peer; 3] = [Peer::Godwit, Peer::Mosquitto, Peer::Nats];

/// One that runs, and what it is linked to.
enum Running {
    Godwit { agent: Box<Node>, _gateway: Option<Box<Node>> },
    Mosquitto { broker: Mosquitto, _remote: Option<Mosquitto> },
    Nats(Leaf),
}

/// How one is started.
struct Start<'a> {
    lab: &'a Lab,
    /// Where it keeps its data.
    folder: &'a Path,
    /// Whether it has a way up to another of its kind. A leaf of NATS always has.
    linked: bool,
    run_by: &'a [String],
}

/// What was measured of one.
struct Column {
    program_mb: f64,
    package: String,
    memory: Memory,
    quiet: Quiet,
    instructions: Option<f64>,
    processor_us: f64,
}

/// Measures all, and prints the table in Markdown.
pub(crate) fn table(agent: &Path, dist: &Path) -> Result<()> {
    let quiet = quiet(agent)?;
    let mut columns = Vec::new();
    for (peer, quiet) in PEERS.into_iter().zip(quiet) {
        let column = peer.measure(agent, dist, quiet).with_context(|| format!("{peer:?}"))?;
        columns.push(column);
    }
    print(&columns);
    Ok(())
}

impl Peer {
    fn program(self, agent: &Path) -> Result<PathBuf> {
        match self {
            Self::Godwit => Ok(agent.to_owned()),
            Self::Mosquitto => mosquitto::program(),
            Self::Nats => nats::program(),
        }
    }

    fn start(self, agent: &Path, start: &Start<'_>) -> Result<Running> {
        let Start { lab, folder, linked, run_by } = *start;
        match self {
            Self::Godwit => {
                let mut gateway = if linked { Some(Box::new(Node::gateway(lab)?)) } else { None };
                let mut node = Node::agent(lab, "agent-1")?;
                node.binary = Some(agent.to_owned());
                node.run_by = run_by.to_vec();
                node.keep_data_at(folder);
                if let Some(gateway) = &mut gateway {
                    gateway.start()?;
                    node.uplink(gateway.http());
                    node.set("gateway.heartbeat", "30s");
                }
                node.start()?;
                Ok(Running::Godwit { agent: Box::new(node), _gateway: gateway })
            }
            Self::Mosquitto => {
                let remote = if linked { Some(Mosquitto::start(lab, "remote")?) } else { None };
                let to = remote.as_ref().map(|remote| remote.address);
                let broker = Mosquitto::start_persistent(lab, "mosquitto", folder, to, run_by)?;
                Ok(Running::Mosquitto { broker, _remote: remote })
            }
            Self::Nats => Ok(Running::Nats(Leaf::start(lab, folder)?)),
        }
    }

    /// All but the quiet minute, in which all three share.
    fn measure(self, agent: &Path, dist: &Path, quiet: Quiet) -> Result<Column> {
        let lab = Lab::new()?;
        let start = Start { lab: &lab, folder: &lab.folder("data")?, linked: false, run_by: &[] };
        let running = self.start(agent, &start)?;
        if self != Self::Godwit {
            subscribe_and_go(running.mqtt())?;
        }
        let memory = footprint::memory(running.process(), running.mqtt(), QUEUED)?;
        let mut client = Lockstep::mqtt(running.mqtt(), 1)?;
        let before = running.process().cpu_seconds()?;
        client.run(TIMED)?;
        let processor_us = (running.process().cpu_seconds()? - before) * 1e6 / f64::from(TIMED);
        drop(client);
        running.stop()?;
        let instructions = match self {
            // valgrind cannot run what Go made.
            Self::Nats => None,
            _ => Some((self.counted(agent, FEW + MORE)? - self.counted(agent, FEW)?) / f64::from(MORE)),
        };
        let program_mb = self.program(agent)?.metadata()?.len() as f64 / 1e6;
        Ok(Column { program_mb, package: self.package(dist), memory, quiet, instructions, processor_us })
    }

    fn counted(self, agent: &Path, events: u32) -> Result<f64> {
        let lab = Lab::new()?;
        let out = lab.path().join("callgrind.out");
        let run_by = footprint::callgrind(&out);
        let start = Start { lab: &lab, folder: &lab.folder("data")?, linked: false, run_by: &run_by };
        let running = self.start(agent, &start)?;
        if self != Self::Godwit {
            subscribe_and_go(running.mqtt())?;
        }
        Lockstep::mqtt(running.mqtt(), 1)?.run(events)?;
        running.stop()?;
        Ok(footprint::instructions(&out)? as f64)
    }

    /// The size of its package for this architecture.
    fn package(self, dist: &Path) -> String {
        let bytes = match self {
            Self::Godwit => {
                crate::artefacts::package(dist, "amd64").and_then(|path| path.metadata().ok()).map(|data| data.len())
            }
            Self::Mosquitto => debian_package("mosquitto"),
            Self::Nats => debian_package("nats-server"),
        };
        bytes.map_or_else(|| "not built".to_owned(), |bytes| format!("{:.2} MB", bytes as f64 / 1e6))
    }
}

impl Running {
    fn process(&self) -> &Process {
        match self {
            Self::Godwit { agent, .. } => agent.process(),
            Self::Mosquitto { broker, .. } => &broker.process,
            Self::Nats(leaf) => &leaf.process,
        }
    }

    fn mqtt(&self) -> SocketAddr {
        match self {
            Self::Godwit { agent, .. } => agent.mqtt(),
            Self::Mosquitto { broker, .. } => broker.address,
            Self::Nats(leaf) => leaf.mqtt,
        }
    }

    fn stop(self) -> Result<()> {
        const LIMIT: Duration = Duration::from_secs(60);
        match self {
            Self::Godwit { mut agent, .. } => agent.stop(),
            Self::Mosquitto { broker, .. } => broker.process.stop(LIMIT).map(drop),
            Self::Nats(leaf) => leaf.process.stop(LIMIT).map(drop),
        }
    }
}

/// All three side by side for a minute, each linked to another of its kind, each with a device that says nothing.
fn quiet(agent: &Path) -> Result<Vec<Quiet>> {
    let mut running = Vec::new();
    for peer in PEERS {
        let lab = Lab::new()?;
        let disk = Disk::ext4(&lab, "disk", 256).context("the quiet minute needs root, for disks of its own")?;
        let folder = disk.path().to_owned();
        let started = peer.start(agent, &Start { lab: &lab, folder: &folder, linked: true, run_by: &[] })?;
        let device = connect(started.mqtt(), "silent", true)?;
        running.push((started, device, disk, lab));
    }
    std::thread::sleep(REST);
    std::thread::scope(|scope| {
        let watched: Vec<_> = running
            .iter()
            .map(|(started, _, disk, _)| scope.spawn(move || footprint::quiet(started.process(), Some(disk), WATCH)))
            .collect();
        watched.into_iter().map(|thread| thread.join().expect("watching does not panic")).collect()
    })
}

fn connect(to: SocketAddr, name: &str, clean: bool) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut out = Vec::new();
    mqtt::connect(&mut out, name, clean, 600, None);
    stream.write_all(&out)?;
    stream.read_exact(&mut [0; 4])?;
    Ok(stream)
}

/// A subscriber with a lasting session, for whom everything is kept while it is away.
fn subscribe_and_go(to: SocketAddr) -> Result<()> {
    let mut stream = connect(to, "away", false)?;
    let mut out = Vec::new();
    mqtt::subscribe(&mut out, 1, "load/#", 1);
    stream.write_all(&out)?;
    stream.read_exact(&mut [0; 5])?;
    out.clear();
    mqtt::disconnect(&mut out);
    stream.write_all(&out)?;
    // Gone when the broker closes.
    let _ = stream.read(&mut [0; 1])?;
    Ok(())
}

fn debian_package(name: &str) -> Option<u64> {
    let shown = disk::run(Command::new("apt-cache").args(["show", "--no-all-versions", name])).ok()?;
    shown.lines().find_map(|line| line.strip_prefix("Size: "))?.trim().parse().ok()
}

fn print(columns: &[Column]) {
    let mb = |kib: u64| format!("{:.1} MB", kib as f64 * 1024.0 / 1e6);
    let row = |what: &str, cell: &dyn Fn(&Column) -> String| {
        println!("| {what} | {} |", columns.iter().map(cell).collect::<Vec<_>>().join(" | "));
    };
    println!("| | Godwit's agent | mosquitto | nats-server, leaf |\n|---|---|---|---|");
    row("program, as installed here", &|c| format!("{:.2} MB", c.program_mb));
    row("Debian package, amd64", &|c| c.package.clone());
    row("memory (PSS), idle", &|c| mb(c.memory.idle_kib));
    row("memory, most under 1,000 events/s", &|c| mb(c.memory.load_kib));
    row("memory, 1 M events queued", &|c| mb(c.memory.queued_kib));
    row("wake-ups per second, quiet", &|c| format!("{:.2}", c.quiet.wakeups_per_second));
    row("bytes to the disk per hour, quiet", &|c| format!("{:.0}", c.quiet.written_per_hour));
    row("instructions per event, QoS 1, one in flight", &|c| {
        c.instructions.map_or_else(|| "valgrind cannot run it".to_owned(), |n| format!("{n:.0}"))
    });
    row("processor time per event, the same", &|c| format!("{:.0} µs", c.processor_us));
}
