//! What a broker takes of a board, measured in the same way of ours and of its peers: memory, wake-ups, writes, instructions.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::disk::{self, Disk};
use crate::load::{Load, Plan};
use crate::process::Process;

/// How long a broker gets to come to rest before its memory is read.
const SETTLE: Duration = Duration::from_secs(2);
/// How long the load of [`memory`] lasts, and how often memory is looked at meanwhile.
const LOAD: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);
/// Clients of that load, and events that each sends in a second.
const CLIENTS: u32 = 10;
const RATE: u32 = 100;
/// How long queueing may take.
const LIMIT: Duration = Duration::from_secs(240);

/// Memory (PSS) in KiB.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Started, nothing to do.
    pub idle_kib: u64,
    /// The most that was seen under 1,000 events/s by MQTT.
    pub load_kib: u64,
    /// With the events queued that were asked for.
    pub queued_kib: u64,
}

/// Memory once the process has come to rest.
///
/// # Errors
/// When the process is gone.
pub fn settled_kib(process: &Process) -> Result<u64> {
    std::thread::sleep(SETTLE);
    process.pss_kib()
}

/// Measures a broker's memory idle, under load, and with `queued` events waiting. `process` is that of the broker.
///
/// # Errors
/// When it does not take the events.
pub fn memory(process: &Process, mqtt: SocketAddr, queued: u64) -> Result<Memory> {
    let idle_kib = settled_kib(process)?;
    let mut plan = Plan::new(mqtt);
    (plan.clients, plan.rate, plan.window) = (CLIENTS as usize, RATE, 100);
    let load = Load::start(plan.clone());
    let begun = Instant::now();
    let mut load_kib = 0;
    while begun.elapsed() < LOAD {
        std::thread::sleep(LOOK);
        load_kib = load_kib.max(process.pss_kib()?);
    }
    let sent: usize = load.finish(LIMIT)?.iter().map(|record| record.acknowledged.len()).sum();
    let wanted = u64::from(CLIENTS * RATE) * LOAD.as_secs();
    anyhow::ensure!(
        sent as u64 >= wanted * 9 / 10,
        "{sent} events were acknowledged in {LOAD:?}, {wanted} were to be sent"
    );
    (plan.rate, plan.count) = (0, queued / u64::from(CLIENTS));
    "queue".clone_into(&mut plan.name);
    let kept: usize = Load::start(plan).wait_count(LIMIT)?.iter().map(|record| record.acknowledged.len()).sum();
    anyhow::ensure!(kept as u64 == queued, "{kept} of {queued} events were acknowledged in {LIMIT:?}");
    Ok(Memory { idle_kib, load_kib, queued_kib: settled_kib(process)? })
}

/// What a broker does while nothing happens.
#[derive(Debug, Clone, Copy)]
pub struct Quiet {
    /// Wake-ups of all its threads in a second.
    pub wakeups_per_second: f64,
    /// Bytes in an hour: the larger of what it had written and what the block device took.
    pub written_per_hour: f64,
}

/// Watches a broker that has come to rest for `time`. With `disk` what its block device takes counts too.
///
/// # Errors
/// When the process is gone.
pub fn quiet(process: &Process, disk: Option<&Disk>, time: Duration) -> Result<Quiet> {
    let written = || -> Result<(u64, u64)> {
        let Some(disk) = disk else { return Ok((process.written_bytes()?, 0)) };
        disk::run(Command::new("sync").arg("-f").arg(disk.path()))?;
        Ok((process.written_bytes()?, disk.written()?.unwrap_or(0)))
    };
    let before = (process.wakeups()?, written()?);
    let begun = Instant::now();
    std::thread::sleep(time);
    let wakeups = process.wakeups()?.saturating_sub(before.0);
    let seconds = begun.elapsed().as_secs_f64();
    let after = written()?;
    let bytes = (after.0 - before.1.0).max(after.1 - before.1.1);
    Ok(Quiet { wakeups_per_second: wakeups as f64 / seconds, written_per_hour: bytes as f64 * 3600.0 / seconds })
}

/// The line before a program that has callgrind count its instructions into `out`.
#[must_use]
pub fn callgrind(out: &Path) -> Vec<String> {
    let out = format!("--callgrind-out-file={}", out.display());
    ["valgrind", "--quiet", "--tool=callgrind", &out].map(str::to_owned).to_vec()
}

/// What callgrind counted in all, from the file that it wrote at the program's end.
///
/// # Errors
/// When the file is not there or says nothing.
pub fn instructions(out: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(out).with_context(|| out.display().to_string())?;
    let line = text.lines().find_map(|line| line.strip_prefix("summary:").or_else(|| line.strip_prefix("totals:")));
    Ok(line.context("callgrind wrote no summary")?.trim().parse()?)
}
