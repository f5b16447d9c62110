//! Memory of the agent: this machine's own binary, and as a trend the armhf one under an emulator.

use std::path::Path;

use anyhow::Result;
use godwit_tests::footprint;
use godwit_tests::lab::Lab;
use godwit_tests::node::Node;
use godwit_tests::skip;

use crate::artefacts;
use crate::judge::Figure;

/// What is measured of this machine's own program.
pub(crate) const NAMES: [&str; 3] = ["memory-idle", "memory-load", "memory-queued"];
/// What is told of the one for armhf.
pub(crate) const TRENDS: [&str; 3] = ["memory-idle-armhf", "memory-load-armhf", "memory-queued-armhf"];
/// What that is.
const TOLD: [&str; 3] =
    ["memory (PSS) with its emulator, idle", "the same, most under 1,000 events/s", "the same, 50,000 events queued"];

const QUEUED: u64 = 1_000_000;
/// Under the emulator fewer, so that it stays a matter of seconds; memory does not depend on the backlog.
const QUEUED_EMULATED: u64 = 50_000;
const EMULATOR: &str = "qemu-arm-static";
/// Names the root of a file system with a C library for armhf; without it, that of Debian's cross compiler.
const LIBRARIES: &str = "GODWIT_ARMHF_LIBRARIES";

/// The three states of the program on this machine.
pub(crate) fn native(program: &Path) -> Result<Vec<Figure>> {
    let values = measure(program, &[], QUEUED)?;
    Ok(NAMES.into_iter().zip(values).map(|(name, value)| Figure::new(name, value)).collect())
}

/// The same of the armhf binary; the emulator's own memory is in the figures, so they tell a trend and no more.
pub(crate) fn emulated(dist: &Path) -> Result<Vec<Figure>> {
    let Some(program) = artefacts::binary(dist, "armv7-unknown-linux-gnueabihf", "godwit-agent") else {
        return Ok(TRENDS.map(|name| Figure::skipped(name, "not built")).into());
    };
    let libraries = std::env::var(LIBRARIES).ok().filter(|path| !path.is_empty());
    let libraries = libraries.unwrap_or_else(|| "/usr/arm-linux-gnueabihf".to_owned());
    if !skip::has_program(EMULATOR) || !Path::new(&libraries).is_dir() {
        return Ok(TRENDS.map(|name| Figure::skipped(name, format!("needs {EMULATOR} and {libraries}"))).into());
    }
    let values = measure(&program, &[EMULATOR, "-L", &libraries], QUEUED_EMULATED)?;
    let figures = TRENDS.into_iter().zip(values).zip(TOLD);
    Ok(figures.map(|((name, value), what)| Figure::told(name, value, "MB", what)).collect())
}

fn measure(program: &Path, run_by: &[&str], queued: u64) -> Result<[f64; 3]> {
    let lab = Lab::new()?;
    let mut agent = Node::agent(&lab, "agent-1")?;
    agent.binary = Some(program.to_owned());
    agent.run_by = run_by.iter().map(|&word| word.to_owned()).collect();
    agent.start()?;
    let memory = footprint::memory(agent.process(), agent.mqtt(), queued)?;
    agent.stop()?;
    Ok([memory.idle_kib, memory.load_kib, memory.queued_kib].map(|kib| kib as f64 * 1024.0 / 1e6))
}
