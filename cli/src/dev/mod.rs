//! `godwit dev`: a gateway and an agent on this machine, in one process, with a sink that prints what arrives.
//!
//! An event goes the whole way: into the agent by MQTT or HTTP, up to the gateway, through a Trigger there and by HTTP POST into
//! the sink. All data is under one folder, so that stopping and starting again loses nothing. A default port that is taken is
//! replaced by the next free one; the lines to paste say which.

mod lines;
mod ports;
mod sink;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use godwit_agent::Agent;
use godwit_gateway::Gateway;
use godwit_mesh::config::{Loader, Sections};
use godwit_mesh::observe;
use godwit_mesh::process::{Daemon, Signal, Signals};
use tokio_util::sync::CancellationToken;

use crate::output;
use sink::Sink;

/// The Trigger that brings everything to the sink, as the gateway's folder of manifests has it.
const TRIGGER_FILE: &str = "dev-sink.yaml";

const EXAMPLES: &str = "\
Everything is kept under ./godwit-data: stop with Ctrl-C, start again, and all is still there. Manifests in
./godwit-data/manifests are applied by the gateway as they change.

Examples:
  godwit dev
  godwit dev --data-dir /tmp/try --verbose";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DevArgs {
    /// Folder for everything that is kept
    #[arg(long, value_name = "DIR", default_value = "godwit-data")]
    data_dir: PathBuf,
    /// Where the agent serves MQTT [default: 127.0.0.1:1883, or the next free port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    mqtt_listen: Option<SocketAddr>,
    /// Where the agent serves HTTP [default: 127.0.0.1:8080, or the next free port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    http_listen: Option<SocketAddr>,
    /// Where the gateway serves HTTP [default: 127.0.0.1:8090, or the next free port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    gateway_listen: Option<SocketAddr>,
    /// Show what agent and gateway log, not only warnings
    #[arg(long, short)]
    verbose: bool,
}

pub(crate) async fn run(args: DevArgs) -> anyhow::Result<()> {
    let level = if args.verbose { "info" } else { "warn" };
    let mut signals = Signals::catch().context("catching signals")?;
    let stop = CancellationToken::new();

    // From the end of an event's way to its beginning, so that each part finds the next one there.
    let sink = Sink::open().await?;
    let manifests = args.data_dir.join("manifests");
    let display = sink.address();
    write_trigger(&manifests, display).context("writing the Trigger for the sink")?;
    let printing = tokio::spawn(sink.serve(stop.clone()));

    let gateway = gateway(&args, &manifests, display, level)?;
    observe::logs(&gateway.log)?;
    let mut gateway = Gateway::start(gateway).await.context("the gateway")?;
    let agent = agent(&args, gateway.address(), display, level)?;
    let mut agent = match Agent::start(agent).await.context("the agent") {
        Ok(agent) => agent,
        Err(error) => {
            gateway.stop().await;
            return Err(error);
        }
    };
    output::print(&lines::welcome(&agent, gateway.address(), &args.data_dir, output::stdout_colours()))?;

    let outcome = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop => break Ok(()),
                Signal::Reload => {
                    gateway.reload().await;
                    agent.reload().await;
                }
            },
            why = agent.failed() => break Err(anyhow::Error::msg(why)),
            why = gateway.failed() => break Err(anyhow::Error::msg(why)),
        }
    };
    eprintln!("stopping; what was acknowledged is on the disk");
    let stopping = async {
        agent.stop().await;
        gateway.stop().await;
        stop.cancel();
        let _ = printing.await;
    };
    tokio::select! {
        () = stopping => {}
        _ = signals.next() => eprintln!("not waiting any longer"),
    }
    outcome
}

/// The gateway's configuration: the environment's, with this command's folders and ports over it.
fn gateway(
    args: &DevArgs,
    manifests: &Path,
    sink: SocketAddr,
    level: &str,
) -> anyhow::Result<godwit_gateway::config::Config> {
    let listen = ports::or_next_free(args.gateway_listen, 8090)?;
    load(&[
        ("gateway.data-dir", args.data_dir.join("gateway").display().to_string()),
        ("gateway.manifests", manifests.display().to_string()),
        ("http.listen", listen.to_string()),
        ("resolve.services", service(sink)),
        ("log.level", level.to_owned()),
    ])
}

fn agent(
    args: &DevArgs,
    gateway: SocketAddr,
    sink: SocketAddr,
    level: &str,
) -> anyhow::Result<godwit_agent::config::Config> {
    let mqtt = ports::or_next_free(args.mqtt_listen, 1883)?;
    let http = ports::or_next_free(args.http_listen, 8080)?;
    load(&[
        ("agent.data-dir", args.data_dir.join("agent").display().to_string()),
        ("mqtt.listen", mqtt.to_string()),
        ("http.listen", http.to_string()),
        ("resolve.services", service(sink)),
        ("gateway.url", format!("http://{gateway}")),
        ("log.level", level.to_owned()),
    ])
}

/// The sink under the name that Knative's pages give to one that prints events.
fn service(sink: SocketAddr) -> String {
    format!("default/event-display=http://{sink}/")
}

/// Defaults and these values. The environment is left out: its keys mean one daemon, and here are two.
fn load<T: Sections>(values: &[(&str, String)]) -> anyhow::Result<T> {
    let loader = values.iter().fold(Loader::new(), |loader, (key, value)| loader.flag(key, key, Some(value.as_str())));
    Ok(loader.finish()?.0)
}

/// Writes the Trigger that brings all events to the sink, if what is there is another.
fn write_trigger(folder: &Path, sink: SocketAddr) -> std::io::Result<()> {
    let text = format!(
        "# Written by `godwit dev` at each start: everything that reaches the gateway goes to the sink that prints it.\n\
         apiVersion: eventing.knative.dev/v1\n\
         kind: Trigger\n\
         metadata:\n  name: dev-sink\n\
         spec:\n  broker: default\n  subscriber:\n    uri: http://{sink}/\n"
    );
    let path = folder.join(TRIGGER_FILE);
    std::fs::create_dir_all(folder)?;
    if std::fs::read_to_string(&path).is_ok_and(|now| now == text) {
        return Ok(());
    }
    std::fs::write(path, text)
}
