//! Instructions of an event from the socket to the disk and of its acknowledgement back, as callgrind counts them in the agent's own
//! program. Two runs that differ by a number of events and nothing else, so that start and stop cancel out.

use std::path::Path;

use anyhow::{Context as _, Result};
use godwit_tests::footprint;
use godwit_tests::lab::Lab;
use godwit_tests::lockstep::Lockstep;
use godwit_tests::node::Node;
use godwit_tests::skip;

use crate::file::Build;
use crate::judge::{Figure, Measured};

/// What is measured here.
pub(crate) const NAMES: [&str; 3] = ["instructions-mqtt", "instructions-mqtt-window", "instructions-http"];

/// Events of the shorter run, and how many more the longer one has.
const FEW: u32 = 600;
const MORE: u32 = 3000;

/// Connects to an agent with so many events in flight.
type Connect = fn(&Node, u16) -> Result<Lockstep>;

/// Counts by MQTT with one event in flight and with many, and by HTTP.
pub(crate) fn measure(agent: &Path) -> Result<Vec<Figure>> {
    let mqtt: Connect = |agent, burst| Lockstep::mqtt(agent.mqtt(), burst);
    let http: Connect = |agent, burst| Lockstep::http(agent.http(), burst);
    let cases: [(Connect, u16); 3] = [(mqtt, 1), (mqtt, 100), (http, 1)];
    if !skip::has_program("valgrind") {
        return Ok(NAMES.map(|name| Figure::skipped(name, "needs the program valgrind")).into());
    }
    let build = build(agent)?;
    let mut figures = Vec::new();
    for (name, (connect, burst)) in NAMES.into_iter().zip(cases) {
        let few = run(agent, connect, burst, FEW)?;
        let many = run(agent, connect, burst, FEW + MORE)?;
        let each = many.saturating_sub(few) as f64 / f64::from(MORE);
        figures.push(Figure { name, value: Measured::Built(each, build.clone()) });
    }
    Ok(figures)
}

/// One run of an agent from its start to its end.
fn run(program: &Path, connect: Connect, burst: u16, events: u32) -> Result<u64> {
    let lab = Lab::new()?;
    let out = lab.path().join("callgrind.out");
    let mut agent = Node::agent(&lab, "agent-1")?;
    agent.binary = Some(program.to_owned());
    agent.run_by = footprint::callgrind(&out);
    agent.start()?;
    connect(&agent, burst)?.run(events / u32::from(burst))?;
    agent.stop()?;
    footprint::instructions(&out)
}

/// How a program was built: the compiler wrote its version into it, and its folder tells the profile.
fn build(program: &Path) -> Result<Build> {
    let bytes = std::fs::read(program).with_context(|| program.display().to_string())?;
    let rustc = compiler(&bytes).with_context(|| format!("{}: no rustc says that it made this", program.display()))?;
    let folder = program.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    // `cross/build` puts what it made below the target's name.
    let profile = if folder.contains("-linux-") { "device" } else { folder };
    Ok(Build { rustc, profile: profile.to_owned() })
}

/// The version in a program's `.comment`: `rustc version 1.95.0 (…)`. The newest, where the standard library has another.
fn compiler(bytes: &[u8]) -> Option<String> {
    const BEFORE: &[u8] = b"rustc version ";
    let found = bytes.windows(BEFORE.len()).enumerate().filter(|(_, window)| *window == BEFORE).filter_map(|(at, _)| {
        let rest = bytes.get(at + BEFORE.len()..)?;
        let end = rest.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
        let version = std::str::from_utf8(rest.get(..end)?).ok()?;
        let parts: Vec<u32> = version.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
        (parts.len() == 3).then(|| (parts, version.to_owned()))
    });
    found.max().map(|(_, version)| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compilers_version_is_read_from_the_program() {
        let comment = b"\0GCC: (Debian 12)\0rustc version 1.95.0 (59807616e)\0rustc version 1.100.2 (0)\0rustc version x\0";
        assert_eq!(compiler(comment).as_deref(), Some("1.100.2"));
        assert_eq!(compiler(b"GCC: (Debian 12)"), None);
    }
}
