//! `godwit trigger test`: Triggers in files, tried out without a server.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use godwit_mesh::manifest::{Object, Spec, parse_str};

use crate::eval;
use crate::output::{self, Style, paint};

const EXAMPLES: &str = "\
A line for each Trigger in the files: whether its filter lets the event pass, which part of the filter decided, and what it found.
Exit codes: 0 all of them match, 1 one does not.

Examples:
  godwit trigger test -f trigger.yaml --event event.json
  godwit tail -o json -n 1 | jq .event | godwit trigger test -f triggers.yaml --event -";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TestArgs {
    /// A file with Triggers; other objects in it are left out; may be given several times
    #[arg(long = "file", short, value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// A CloudEvent in JSON; `-` is stdin
    #[arg(long, value_name = "FILE")]
    event: PathBuf,
}

pub(crate) fn run(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let mut objects: Vec<Object> = Vec::new();
    for path in &args.files {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
        objects.extend(parse_str(&name, &text)?);
    }
    let event = eval::stored(&args.event)?;
    let colours = output::stdout_colours();
    let (mut lines, mut triggers, mut matches) = (String::new(), 0_usize, 0_usize);
    for object in &objects {
        let Spec::Trigger(trigger) = object.spec() else { continue };
        let found = trigger.filter.explain(&event);
        triggers += 1;
        matches += usize::from(found.wanted);
        let verdict =
            if found.wanted { paint(colours, Style::Green, "match") } else { paint(colours, Style::Yellow, "no match") };
        let part = if found.part.is_empty() { String::new() } else { format!("spec.{}: ", found.part) };
        let why = output::printable(&format!("{part}{}", found.why));
        lines.push_str(&format!("trigger/{} {verdict}: {why}\n", trigger.name));
    }
    if triggers == 0 {
        bail!("there is no Trigger in what was given");
    }
    output::print(&lines)?;
    Ok(if matches == triggers { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
