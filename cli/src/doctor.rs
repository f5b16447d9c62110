//! `godwit doctor`: the agent's checks of this board; see [`godwit_agent::doctor`].

use std::path::PathBuf;
use std::process::ExitCode;

use godwit_agent::doctor::{self, Subject};
use godwit_agent::flags::Flags;

use crate::client::{DEFAULT_AGENT, ServerArgs};

const EXAMPLES: &str = "\
Looks at the board that it runs on, whether the agent runs or not, and changes nothing. Whose configuration: that of --config,
else of the agent that listens at --server on this machine, else /etc/godwit/agent.toml, else the defaults. All checks together
take no more than 30 s. Root becomes the user of an agent that is found by its port; with --config it looks with all rights. Exit codes: 0 all ok, or worth a warning, or not known from here; 1 a check failed. What is `unknown`
may be known to root or to the agent's own user.

Examples:
  godwit doctor
  godwit doctor --config /etc/godwit/agent.toml --json
  sudo godwit doctor --endurance 40TBW";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[group(skip)]
pub(crate) struct DoctorArgs {
    /// The agent's configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    what: doctor::DoctorArgs,
}

pub(crate) fn run(server: &ServerArgs, args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let (token, trust) = (server.token()?, server.trust());
    // What the environment names is for all commands, and may be a gateway elsewhere.
    let asked = server.server().filter(|_| std::env::args_os().any(|word| word.to_string_lossy().starts_with("--server")));
    let mut subject = match args.config {
        Some(file) => Subject::of_flags(Flags { config: Some(file), ..Flags::default() })?,
        None => Subject::of_running(asked, server.server().unwrap_or(DEFAULT_AGENT))?,
    };
    // Where it was found by its port, it is asked there, by that name; else its configuration says where.
    if let Some(server) = asked.or(server.server().filter(|_| subject.found())) {
        subject.server = Some(server.to_owned());
    }
    // Those of the environment are for its server.
    if subject.server.is_some() || server.server().is_none() {
        (subject.token, subject.trust) = (token, trust);
    }
    doctor::run(subject, &args.what)
}
