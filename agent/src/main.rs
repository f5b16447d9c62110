//! `godwit-agent`: reads its configuration, starts the agent, and listens to signals.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use godwit_agent::doctor::{self, DoctorArgs, Subject};
use godwit_agent::flags::Flags;
use godwit_agent::{Agent, check};
use godwit_mesh::{observe, process};

const AFTER_HELP: &str = "\
Every key of the configuration file can also be set by the environment: GODWIT_<SECTION>_<KEY>, such as GODWIT_LOG_LEVEL.
SIGTERM stops cleanly; SIGHUP reads manifests, certificates and credentials again.

Examples:
  godwit-agent --data-dir /var/lib/godwit --gateway https://mesh.example.org
  godwit-agent --config /etc/godwit/agent.toml --check
  godwit-agent --config /etc/godwit/agent.toml doctor";

/// Takes events from devices by MQTT and HTTP, keeps them on disk, and carries them to the gateway.
#[derive(Debug, Parser)]
#[command(name = "godwit-agent", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Args {
    #[command(flatten)]
    flags: Flags,
    /// Check configuration, certificates, credentials and manifests, and exit
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at this board: is it fit for an agent with these flags, and what is to be done?
    #[command(after_help = doctor::AFTER_HELP)]
    Doctor(DoctorArgs),
}

fn main() -> ExitCode {
    process::keep_small();
    let args = Args::parse();
    let outcome = match args.command {
        Some(Command::Doctor(asked)) => Subject::of_flags(args.flags).and_then(|subject| doctor::run(subject, &asked)),
        None => run(args.flags, args.check),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("godwit-agent: {}", process::told(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags, only_check: bool) -> anyhow::Result<ExitCode> {
    let (config, warnings) = flags.load(std::env::vars())?;
    observe::logs(&config.log)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if only_check {
        check(&config)?;
        // Nobody may be listening any more; the exit code says it too.
        let _ = writeln!(std::io::stdout(), "the configuration can be used");
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = process::runtime().context("starting the runtime")?;
    runtime.block_on(process::serve(Box::pin(Agent::start(config))))?;
    Ok(ExitCode::SUCCESS)
}
