//! `godwit-agent`: reads its configuration, starts the agent, and listens to signals.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use godwit_agent::config::Config;
use godwit_agent::{Agent, check};
use godwit_mesh::config::Loader;
use godwit_mesh::{observe, process};

const AFTER_HELP: &str = "\
Every key of the configuration file can also be set by the environment: GODWIT_<SECTION>_<KEY>, such as GODWIT_LOG_LEVEL.
SIGTERM stops cleanly; SIGHUP reads manifests, certificates and credentials again.

Examples:
  godwit-agent --data-dir /var/lib/godwit --gateway https://mesh.example.org
  godwit-agent --config /etc/godwit/agent.toml --check";

/// Takes events from devices by MQTT and HTTP, keeps them on disk, and carries them to the gateway.
#[derive(Debug, Parser)]
#[command(name = "godwit-agent", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Args {
    /// Configuration file (TOML); every key has a default
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The agent's name at the gateway
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
    /// Folder for everything that must outlive a restart
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where MQTT is served; empty for not at all
    #[arg(long, value_name = "ADDRESS:PORT")]
    mqtt_listen: Option<String>,
    /// Where HTTP is served
    #[arg(long, value_name = "ADDRESS:PORT")]
    http_listen: Option<String>,
    /// URL of the gateway
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
    /// Folder with manifests (YAML)
    #[arg(long, value_name = "DIR")]
    manifests: Option<String>,
    /// Check configuration, certificates, credentials and manifests, and exit
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
            eprintln!("godwit-agent: {error:#}");
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
        println!("the configuration can be used");
        return Ok(());
    }
    let runtime = process::runtime().context("starting the runtime")?;
    Ok(runtime.block_on(process::serve(Box::pin(Agent::start(config))))?)
}

fn load(args: Args) -> anyhow::Result<(Config, Vec<String>)> {
    let loader = match &args.config {
        Some(path) => Loader::new().file(path)?,
        None => Loader::new(),
    };
    let loaded = loader
        .environment(std::env::vars())
        .flag("agent.id", "--id", args.id)
        .flag("agent.data-dir", "--data-dir", args.data_dir)
        .flag("agent.manifests", "--manifests", args.manifests)
        .flag("mqtt.listen", "--mqtt-listen", args.mqtt_listen)
        .flag("http.listen", "--http-listen", args.http_listen)
        .flag("gateway.url", "--gateway", args.gateway)
        .flag("log.format", "--log-format", args.log_format)
        .finish()?;
    Ok(loaded)
}
