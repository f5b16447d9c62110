//! `godwit cursor`: where the consumers of a broker or a channel stand, and the means to move one for the day when somebody must.

use http::Method;
use serde_json::{Value, json};

use crate::client::{DEFAULT_AGENT, ServerArgs};
use crate::output::{self, Table};
use crate::queue::QueueArgs;

const EXAMPLES: &str = "\
Skipped events are counted in the ledger as dropped(skipped). Seeking a Trigger
backwards delivers again; the uplink goes on where the gateway stands.

Examples:
  godwit cursor list
  godwit cursor skip uplink 1                        over one event that the gateway cannot take
  godwit cursor seek trigger/default/billing/1f3a earliest --broker default/alarms
  godwit cursor list --channel orders                its Subscriptions";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CursorArgs {
    #[command(flatten)]
    queue: QueueArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show every consumer's cursor and ledger.
    List,
    /// Move a cursor forward over some events.
    Skip {
        /// The consumer's name, as in `list`.
        consumer: String,
        /// How many events.
        count: u64,
    },
    /// Move a cursor to an offset.
    Seek {
        /// The consumer's name, as in `list`.
        consumer: String,
        /// `earliest`, `latest` or an offset.
        #[arg(value_parser = position)]
        to: Value,
    },
}

fn position(text: &str) -> Result<Value, String> {
    match text {
        "earliest" | "latest" => Ok(Value::from(text)),
        number => {
            number.parse::<u64>().map(Value::from).map_err(|_| "is neither earliest, latest nor an offset".to_owned())
        }
    }
}

pub(crate) async fn run(server: &ServerArgs, args: CursorArgs) -> anyhow::Result<()> {
    let mut client = server.client(DEFAULT_AGENT)?;
    let path = args.queue.path("cursors");
    let (consumer, change) = match args.action {
        Action::List => {
            let answer = client.json(Method::GET, &path, None).await?;
            return Ok(output::print(&table(&answer).render(output::stdout_colours()))?);
        }
        Action::Skip { consumer, count } => (consumer, json!({ "skip": count })),
        Action::Seek { consumer, to } => (consumer, json!({ "seek": to })),
    };
    let path = format!("{path}/{}", encode(&consumer));
    let answer = client.json(Method::POST, &path, Some(&change)).await?;
    Ok(output::print(&table(&answer).render(output::stdout_colours()))?)
}

/// The consumer's name as one path segment: it may have slashes.
fn encode(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// The consumers in an answer: all of them in `cursors`, or the one that was moved.
fn table(answer: &Value) -> Table {
    let mut table = Table::new(&["CONSUMER", "CURSOR", "PENDING", "DELIVERED", "FILTERED", "DEAD-LETTERED", "DROPPED"]);
    let one = std::slice::from_ref(answer);
    let list = answer.get("cursors").and_then(Value::as_array).map_or(one, Vec::as_slice);
    for consumer in list {
        let number = |name: &str| consumer.get(name).and_then(Value::as_u64).map_or(String::new(), |n| n.to_string());
        table.row(vec![
            consumer.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
            number("cursor"),
            number("pending"),
            number("delivered"),
            number("filtered"),
            number("dead_lettered"),
            dropped(consumer),
        ]);
    }
    table
}

/// The drop counts of a consumer, `retention 12, skipped 1`, or 0.
pub(crate) fn dropped(consumer: &Value) -> String {
    let reasons: Vec<String> = consumer
        .get("dropped")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, n)| n.as_u64() != Some(0))
        .map(|(reason, n)| format!("{reason} {n}"))
        .collect();
    if reasons.is_empty() { "0".to_owned() } else { reasons.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_with_slashes_is_one_path_segment() {
        assert_eq!(encode("trigger/default/x/1"), "trigger%2Fdefault%2Fx%2F1");
    }

    #[test]
    fn drops_are_shown_by_reason() {
        assert_eq!(dropped(&json!({ "dropped": { "retention": 12, "skipped": 0 } })), "retention 12");
        assert_eq!(dropped(&json!({})), "0");
    }
}
