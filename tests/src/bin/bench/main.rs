//! `bench`: Godwit beside its peers on this machine, in one run, as ratios.
//!
//! Machines differ and move by a factor of two while they run, so every figure is a ratio to a peer measured right beside it, or a
//! size. Each is the median of paired runs, ours and the peer's in turn. `docs/benchmarks.md` keeps a table of it.

mod bare;
mod filter;
mod ingress;
mod link;
mod resources;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use table::{Row, print};

#[derive(Parser)]
#[command(about = "Measures the real programs beside their peers and prints a table of ratios")]
struct Arguments {
    /// What to measure.
    #[arg(value_enum, default_value = "all")]
    what: Vec<What>,
    /// Seconds of one run.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Runs of each of a pair; the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Internal: be a bare server at this port.
    #[arg(long, hide = true)]
    bare_server: Option<u16>,
    /// Internal: be the one that only stores, in this folder.
    #[arg(long, hide = true)]
    bare_store: Option<PathBuf>,
    /// Internal: bytes of what it takes at once.
    #[arg(long, hide = true, default_value_t = 0)]
    size: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Everything.
    All,
    /// QoS 1 acknowledgements with 1, 10 and 100 clients, beside mosquitto in RAM.
    Mqtt,
    /// HTTP 202 over 64 connections, beside a hyper server that only answers.
    Http,
    /// One event alone, beside a write and fdatasync, and beside the least server that does both.
    Latency,
    /// A backlog's way to the gateway, beside mosquitto's bridge.
    Drain,
    /// TCP payload of a drone's flight, beside mosquitto's bridge.
    Bytes,
    /// Bytes written to the block device for each byte of events.
    Flash,
    /// Memory: idle, with a million events queued, after full load.
    Memory,
    /// Memory that 1,000 idle clients cost.
    Idle,
    /// Start to ready with a million events queued.
    Start,
    /// One evaluation of a Trigger's filter on an event as the journal keeps it.
    Filter,
}

/// How long and how often to measure.
#[derive(Debug, Clone, Copy)]
struct Extent {
    run: Duration,
    runs: usize,
}

/// Measures one part.
type Part = fn(Extent) -> Result<Vec<Row>>;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(port) = arguments.bare_server {
        return match arguments.bare_store {
            Some(folder) => bare::store(port, &folder, arguments.size),
            None => bare::serve(port),
        };
    }
    let extent = Extent { run: Duration::from_secs_f64(arguments.seconds), runs: arguments.runs.max(1) };
    let parts: [(What, Part); 9] = [
        (What::Mqtt, ingress::mqtt),
        (What::Http, ingress::http),
        (What::Latency, ingress::latency),
        (What::Drain, link::drain),
        (What::Bytes, link::bytes),
        (What::Flash, resources::flash),
        (What::Memory, resources::memory_and_start),
        (What::Idle, resources::idle_clients),
        (What::Filter, filter::evaluation),
    ];
    let wanted = |part: What| {
        arguments.what.contains(&What::All)
            || arguments.what.contains(&part)
            || part == What::Memory && arguments.what.contains(&What::Start)
    };
    let mut rows = Vec::new();
    for (_, part) in parts.iter().filter(|(name, _)| wanted(*name)) {
        match part(extent) {
            Ok(more) => rows.extend(more),
            Err(error) => eprintln!("not measured: {error:?}"),
        }
    }
    print(&rows);
    Ok(())
}
