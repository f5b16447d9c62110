//! `godwit link`: the agent's way to the gateway, held and resumed by hand.

use http::Method;
use serde_json::{Value, json};

use crate::client::{DEFAULT_AGENT, ServerArgs};
use crate::output;

/// Where an agent shows its link and is told to hold it.
const PATH: &str = "/apis/godwit.dev/v1/link";

const EXAMPLES: &str = "\
A held link stays closed until it is resumed, over restarts too; events wait in the agent meanwhile.

Examples:
  godwit link status
  godwit link hold
  godwit link resume --server http://10.0.0.7:8080 --token-file site.token";

/// What to do with the link.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Action {
    /// Show it.
    Status,
    /// Close it and keep it closed.
    Hold,
    /// Let it connect again.
    Resume,
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LinkArgs {
    /// What to do.
    action: Action,
}

pub(crate) async fn run(server: &ServerArgs, args: &LinkArgs) -> anyhow::Result<()> {
    let mut client = server.client(DEFAULT_AGENT)?;
    let answer = match args.action {
        Action::Status => client.json(Method::GET, PATH, None).await?,
        Action::Hold => client.json(Method::PUT, PATH, Some(&json!({ "held": true }))).await?,
        Action::Resume => client.json(Method::PUT, PATH, Some(&json!({ "held": false }))).await?,
    };
    Ok(output::print(&describe(&answer))?)
}

/// One line for each thing known of the link: `state: up`.
pub(crate) fn describe(link: &Value) -> String {
    let mut text = String::new();
    for (name, value) in link.as_object().into_iter().flatten() {
        let shown = value.as_str().map_or_else(|| value.to_string(), output::printable);
        text.push_str(&format!("{name}: {shown}\n"));
    }
    text
}
