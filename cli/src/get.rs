//! `godwit get`: what a server has, from its `/status`.

use http::Method;
use serde_json::Value;

use crate::client::{DEFAULT_AGENT, DEFAULT_GATEWAY, ServerArgs};
use crate::cursor::dropped;
use crate::output::{self, Format, Table};

const EXAMPLES: &str = "\
Examples:
  godwit get brokers
  godwit get triggers -o yaml --server http://127.0.0.1:8090
  godwit get agents                                (asks the gateway)";

/// What to list.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    #[value(alias = "broker")]
    Brokers,
    #[value(alias = "trigger")]
    Triggers,
    #[value(alias = "agent")]
    Agents,
}

impl Kind {
    fn member(self) -> &'static str {
        match self {
            Self::Brokers => "brokers",
            Self::Triggers => "triggers",
            Self::Agents => "agents",
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GetArgs {
    /// What to list.
    kind: Kind,
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Only those in this namespace.
    #[arg(long, short)]
    namespace: Option<String>,
}

pub(crate) async fn run(server: &ServerArgs, args: &GetArgs) -> anyhow::Result<()> {
    let default = if matches!(args.kind, Kind::Agents) { DEFAULT_GATEWAY } else { DEFAULT_AGENT };
    let mut client = server.client(default)?;
    let mut status = client.json(Method::GET, "/status", None).await?;
    let Some(Value::Array(mut items)) = status.get_mut(args.kind.member()).map(Value::take) else {
        anyhow::bail!("{} has no {}", client.server(), args.kind.member());
    };
    if let Some(namespace) = &args.namespace {
        items.retain(|item| text(item, "namespace") == *namespace);
    }
    let printed = match args.output {
        Format::Table => table(args.kind, &items).render(output::stdout_colours()),
        Format::Name => items.iter().map(|item| format!("{}\n", output::printable(&name(item)))).collect(),
        format => output::document(&Value::Array(items), format)?,
    };
    Ok(output::print(&printed)?)
}

fn table(kind: Kind, items: &[Value]) -> Table {
    match kind {
        Kind::Brokers => brokers(items),
        Kind::Triggers => triggers(items),
        Kind::Agents => agents(items),
    }
}

/// One row for each consumer, since that is where events wait.
fn brokers(items: &[Value]) -> Table {
    let mut table = Table::new(&["BROKER", "ACCEPTED", "KEPT", "SIZE", "CONSUMER", "PENDING", "DELIVERED", "DROPPED"]);
    for broker in items {
        let kept = number(broker, "next_offset").saturating_sub(number(broker, "first_offset"));
        let head =
            [name(broker), number(broker, "accepted").to_string(), kept.to_string(), output::size(number(broker, "bytes"))];
        let consumers = broker.get("consumers").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if consumers.is_empty() {
            table.row(head.to_vec());
        }
        for (row, consumer) in consumers.iter().enumerate() {
            let mut cells = if row == 0 { head.to_vec() } else { vec![String::new(); head.len()] };
            cells.extend([
                text(consumer, "name"),
                number(consumer, "pending").to_string(),
                number(consumer, "delivered").to_string(),
                dropped(consumer),
            ]);
            table.row(cells);
        }
    }
    table
}

fn triggers(items: &[Value]) -> Table {
    let mut table = Table::new(&["TRIGGER", "BROKER", "READY", "PENDING", "SUBSCRIBER", "FROM", "REASON"]);
    for trigger in items {
        table.row(vec![
            name(trigger),
            text(trigger, "broker"),
            text(trigger, "ready"),
            text(trigger, "pending"),
            text(trigger, "subscriberUri"),
            text(trigger, "owner"),
            first(&[text(trigger, "message"), trigger.get("last_error").map_or_else(String::new, |e| text(e, "message"))]),
        ]);
    }
    table
}

fn agents(items: &[Value]) -> Table {
    let mut table = Table::new(&["AGENT", "LINK", "SINCE", "SOFTWARE", "BEHIND", "OBJECTS", "READY", "REASON"]);
    for agent in items {
        let none = Value::Null;
        let (link, objects) = (agent.get("link").unwrap_or(&none), agent.get("objects").unwrap_or(&none));
        let brokers = agent.get("brokers").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let behind: u64 = brokers.iter().map(|broker| number(broker, "lag")).sum();
        table.row(vec![
            name(agent),
            text(link, "state"),
            text(link, "since"),
            text(agent, "software"),
            behind.to_string(),
            text(objects, "revision"),
            text(objects, "ready"),
            first(&[text(objects, "error"), trouble(agent, link)]),
        ]);
    }
    table
}

/// What last went wrong on the way, as long as it matters: the link is not up, or somebody else asks in the agent's name.
fn trouble(agent: &Value, link: &Value) -> String {
    let over = text(link, "state") == "up" && number(agent, "forks_refused") == 0;
    if over { String::new() } else { text(agent, "last_error") }
}

/// The first text that says something.
fn first(texts: &[String]) -> String {
    texts.iter().find(|text| !text.is_empty()).cloned().unwrap_or_default()
}

fn name(item: &Value) -> String {
    match (
        item.get("namespace").and_then(Value::as_str),
        item.get("name").or_else(|| item.get("id")).and_then(Value::as_str),
    ) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        (None, Some(name)) => name.to_owned(),
        _ => String::new(),
    }
}

/// A member as text: strings as they are, nothing for what is not there.
fn text(item: &Value, member: &str) -> String {
    match item.get(member) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

fn number(item: &Value, member: &str) -> u64 {
    item.get(member).and_then(Value::as_u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_consumer_of_a_broker_has_a_row() {
        let broker = serde_json::json!({
            "namespace": "default", "name": "default", "first_offset": 2, "next_offset": 9, "bytes": 2048, "accepted": 9,
            "consumers": [
                { "name": "uplink", "delivered": 4, "pending": 3, "dropped": { "retention": 2 } },
                { "name": "trigger/default/x/1", "delivered": 9, "pending": 0, "dropped": {} },
            ],
        });
        let text = table(Kind::Brokers, &[broker]).render(false);
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[1], "default/default 9 7 2.0 KiB uplink 3 4 retention 2");
        assert_eq!(lines[2], "trigger/default/x/1 0 9 0");
    }

    #[test]
    fn an_agent_that_came_back_shows_no_old_trouble_but_forks() {
        let agent = |state: &str, forks: u64| {
            let agent = serde_json::json!({
                "id": "a1", "link": { "state": state }, "software": "s", "brokers": [],
                "forks_refused": forks, "last_error": "trouble",
            });
            table(Kind::Agents, &[agent]).render(false).contains("trouble")
        };
        assert_eq!([agent("up", 0), agent("down", 0), agent("up", 2)], [false, true, true]);
    }
}
