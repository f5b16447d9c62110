//! `budgets`: measures what the agent takes of a board, and holds it against `cross/budgets.toml`.
//!
//! One line for each budget, by which `tests/run` counts: `ok: …`, `FAILED: …`, or `skipped: …` where what it is about has not been
//! built. `recorded: …` tells a figure that nothing judges. No timing is ever judged. The exit status is 0 only when nothing failed.

mod allocations;
mod artefacts;
mod crates;
mod file;
mod instructions;
mod judge;
mod memory;
mod peers;
mod quiet;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use godwit_tests::binaries;

use file::Budgets;
use judge::{Figure, Verdict, judge};

#[derive(Parser)]
#[command(about = "Holds the agent's footprint against cross/budgets.toml")]
struct Arguments {
    /// Measure peers too, and print the table of docs/footprint.md instead
    #[arg(long)]
    peers: bool,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("tests is a folder of the project")?;
    let dist = std::env::var_os("GODWIT_DIST").map_or_else(|| root.join("dist"), PathBuf::from);
    let agent = binaries::path("godwit-agent");
    if arguments.peers {
        peers::table(&agent, &dist)?;
        return Ok(ExitCode::SUCCESS);
    }
    let budgets = Budgets::read(&root.join("cross/budgets.toml"))?;
    let mut verdicts = vec![crates::check(root)];
    verdicts.extend(judge(&budgets, &figures(&agent, &dist)));
    for verdict in &verdicts {
        println!("{verdict}");
    }
    let failed = verdicts.iter().any(|verdict| matches!(verdict, Verdict::Failed(_)));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Measures everything, about two and a half minutes long.
fn figures(agent: &Path, dist: &Path) -> Vec<Figure> {
    // Alone: the allocator counts every thread of this process but the client's.
    let mut figures = measured(&allocations::NAMES, allocations::measure);
    std::thread::scope(|scope| {
        // A minute of waiting, beside work that takes about as long.
        let quiet = scope.spawn(|| measured(&quiet::NAMES, || quiet::measure(agent)));
        figures.extend(measured(&instructions::NAMES, || instructions::measure(agent)));
        figures.extend(quiet.join().expect("watching does not panic"));
    });
    // Alone again: two agents would share their program's pages, and each would count half of them.
    figures.extend(measured(&memory::NAMES, || memory::native(agent)));
    figures.extend(measured(&memory::TRENDS, || memory::emulated(dist)));
    figures.extend(artefacts::sizes(dist));
    figures
}

/// What a part measured; where it failed, each of its figures has.
fn measured(names: &[&'static str], part: impl FnOnce() -> Result<Vec<Figure>>) -> Vec<Figure> {
    part().unwrap_or_else(|error| names.iter().map(|&name| Figure::failed(name, &error)).collect())
}
