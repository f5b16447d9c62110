//! `godwit-gateway`: reads its configuration, starts the gateway, and listens to signals.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use godwit_gateway::config::Config;
use godwit_gateway::{Gateway, check};
use godwit_mesh::config::Loader;
use godwit_mesh::{observe, process};

const AFTER_HELP: &str = "\
Every key of the configuration file can also be set by the environment: GODWIT_<SECTION>_<KEY>, such as GODWIT_LOG_LEVEL.
SIGTERM stops cleanly; SIGHUP reads manifests, certificates and credentials again.

Examples:
  godwit-gateway --data-dir /var/lib/godwit-gateway --manifests /etc/godwit/manifests
  godwit-gateway --config /etc/godwit/gateway.toml --check";

/// Takes the agents' events and delivers them to subscribers.
#[derive(Debug, Parser)]
#[command(name = "godwit-gateway", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Args {
    /// Configuration file (TOML); every key has a default
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for everything that must outlive a restart
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where HTTP is served, the agents' way in included
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Folder with manifests (YAML); read again when a file changes
    #[arg(long, value_name = "DIR")]
    manifests: Option<String>,
    /// Check configuration, certificate, credentials and manifests, and exit
    #[arg(long)]
    check: bool,
    /// How log lines look: text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

fn main() -> ExitCode {
    process::keep_small();
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("godwit-gateway: {}", process::told(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let only_check = args.check;
    let (config, warnings) = load(args)?;
    observe::logs(&config.log)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if only_check {
        check(&config)?;
        // Nobody may be listening any more; the exit code says it too.
        let _ = writeln!(std::io::stdout(), "the configuration can be used");
        return Ok(());
    }
    let runtime = process::runtime().context("starting the runtime")?;
    Ok(runtime.block_on(process::serve(Box::pin(Gateway::start(config))))?)
}

fn load(args: Args) -> anyhow::Result<(Config, Vec<String>)> {
    let loader = match &args.config {
        Some(path) => Loader::new().file(path)?,
        None => Loader::new(),
    };
    let loaded = loader
        .environment(std::env::vars())
        .flag("gateway.data-dir", "--data-dir", args.data_dir)
        .flag("gateway.manifests", "--manifests", args.manifests)
        .flag("http.listen", "--listen", args.listen)
        .flag("log.format", "--log-format", args.log_format)
        .finish()?;
    Ok(loaded)
}
