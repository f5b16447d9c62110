//! `godwit get`: what a server has. Brokers, Triggers and agents as a table of how they fare, from `/status`; all else, and all
//! other forms, are the objects themselves.

use std::str::FromStr;

use godwit_mesh::manifest as objects;
use godwit_mesh::objects::jsonpath::Path;
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::Value;

use crate::api;
use crate::client::{Client, DEFAULT_AGENT, DEFAULT_GATEWAY, ServerArgs};
use crate::cursor::dropped;
use crate::output::{self, Format, Table};

const EXAMPLES: &str = "\
Examples:
  godwit get brokers
  godwit get triggers -o yaml --server http://127.0.0.1:8090
  godwit get trigger alarms -o jsonpath='{.status.subscriberUri}'
  godwit get agents                                (asks the gateway)";

/// The form of a table that `/apis` makes.
const TABLE: HeaderValue = HeaderValue::from_static("application/json;as=Table;v=v1;g=meta.k8s.io,application/json");

/// What is shown from `/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Brokers,
    Triggers,
    Agents,
}

/// What to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Agents,
    Objects(objects::Kind),
}

impl FromStr for What {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "agents" | "agent" => Ok(Self::Agents),
            word => api::kind(word).map(Self::Objects),
        }
    }
}

/// How to print.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Output {
    Format(Format),
    Wide,
    Path(Path),
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "table" => Self::Format(Format::Table),
            "json" => Self::Format(Format::Json),
            "yaml" => Self::Format(Format::Yaml),
            "name" => Self::Format(Format::Name),
            "wide" => Self::Wide,
            other => {
                let path = other.strip_prefix("jsonpath=").ok_or("is none of table, wide, json, yaml, name, jsonpath=…")?;
                let inner = path.strip_prefix('{').and_then(|p| p.strip_suffix('}')).unwrap_or(path);
                Self::Path(Path::parse(inner).ok_or("is no path that is known here: write one like {.spec.broker}")?)
            }
        })
    }
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
    /// What to list: agents, brokers, triggers or any other kind
    kind: What,
    /// Only the object of this name
    name: Option<String>,
    /// How to print it: table, wide, json, yaml, name or jsonpath=PATH
    #[arg(long, short, default_value = "table")]
    output: Output,
    /// Only those in this namespace [default: all, with a name `default`]
    #[arg(long, short)]
    namespace: Option<String>,
    /// Only those with these labels, as in site=north
    #[arg(long = "selector", short = 'l')]
    labels: Option<String>,
}

pub(crate) async fn run(server: &ServerArgs, args: &GetArgs) -> anyhow::Result<()> {
    let default = if args.kind == What::Agents { DEFAULT_GATEWAY } else { DEFAULT_AGENT };
    let mut client = server.client(default)?;
    let plain = args.output == Output::Format(Format::Table) && args.name.is_none() && args.labels.is_none();
    let text = match args.kind {
        What::Agents => standing(&mut client, Kind::Agents, args).await?,
        What::Objects(objects::Kind::Broker) if plain => standing(&mut client, Kind::Brokers, args).await?,
        What::Objects(objects::Kind::Trigger) if plain => standing(&mut client, Kind::Triggers, args).await?,
        What::Objects(kind) => of_objects(&mut client, kind, args).await?,
    };
    Ok(output::print(&text)?)
}

/// From `/status`.
async fn standing(client: &mut Client, kind: Kind, args: &GetArgs) -> anyhow::Result<String> {
    let mut status = client.json(Method::GET, "/status", None).await?;
    let Some(Value::Array(mut items)) = status.get_mut(kind.member()).map(Value::take) else {
        anyhow::bail!("{} has no {}", client.server(), kind.member());
    };
    // Subscriptions stand beside Triggers there; they have a table of their own.
    items.retain(|item| kind != Kind::Triggers || matches!(text(item, "kind").as_str(), "" | "Trigger"));
    if let Some(namespace) = &args.namespace {
        items.retain(|item| text(item, "namespace") == *namespace);
    }
    if let Some(wanted) = &args.name {
        items.retain(|item| name(item) == *wanted);
        anyhow::ensure!(!items.is_empty(), "{} has no {} {wanted}", client.server(), kind.member().trim_end_matches('s'));
    }
    Ok(match &args.output {
        Output::Format(Format::Table) | Output::Wide => table(kind, &items).render(output::stdout_colours()),
        Output::Format(Format::Name) => items.iter().map(|item| format!("{}\n", output::printable(&name(item)))).collect(),
        Output::Format(format) => output::document(&Value::Array(items), *format)?,
        Output::Path(path) => found(path, &Value::Array(items)),
    })
}

/// From the API.
async fn of_objects(client: &mut Client, kind: objects::Kind, args: &GetArgs) -> anyhow::Result<String> {
    let mut path = match &args.name {
        Some(name) => api::path(kind, args.namespace.as_deref().unwrap_or("default"), name),
        None => api::list_path(kind, args.namespace.as_deref()),
    };
    if let (None, Some(labels)) = (&args.name, &args.labels) {
        let query: String = url::form_urlencoded::byte_serialize(labels.as_bytes()).collect();
        path.push_str(&format!("?labelSelector={query}"));
    }
    if let Output::Format(Format::Table) | Output::Wide = &args.output {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, TABLE);
        let (_, body) = client.exchange(Method::GET, &path, &headers, bytes::Bytes::new()).await?;
        let answer: Value = serde_json::from_slice(&body)?;
        return Ok(columns(&answer, args.output == Output::Wide).render(output::stdout_colours()));
    }
    let mut answer = client.json(Method::GET, &path, None).await?;
    without_managers(&mut answer);
    Ok(match &args.output {
        Output::Format(Format::Name) => {
            let one = std::slice::from_ref(&answer);
            let items = answer.get("items").and_then(Value::as_array).map_or(one, Vec::as_slice);
            let metadata =
                |item: &Value| item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
            items.iter().map(|item| format!("{}\n", api::shown(kind, &metadata(item)))).collect()
        }
        Output::Format(format) => output::document(&answer, *format)?,
        Output::Path(path) => found(path, &answer),
        Output::Wide => String::new(),
    })
}

/// Takes out who set which field: long, and of use to programs only.
fn without_managers(answer: &mut Value) {
    if let Some(metadata) = answer.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("managedFields");
    }
    for item in answer.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        without_managers(item);
    }
}

/// A table that the server made.
fn columns(answer: &Value, wide: bool) -> Table {
    let list = |name: &str| answer.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let shown: Vec<bool> = list("columnDefinitions").iter().map(|c| wide || c["priority"] == 0).collect();
    let title = |c: &Value| c["name"].as_str().unwrap_or_default().to_uppercase();
    let titles: Vec<String> =
        list("columnDefinitions").iter().zip(&shown).filter(|(_, shown)| **shown).map(|(c, _)| title(c)).collect();
    let titles: Vec<&str> = std::iter::once("NAMESPACE").chain(titles.iter().map(String::as_str)).collect();
    let mut table = Table::new(&titles);
    for row in list("rows") {
        let namespace = row.pointer("/object/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
        let cells = row.get("cells").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let cells = cells.iter().zip(&shown).filter(|(_, shown)| **shown).map(|(cell, _)| plain_text(cell));
        table.row(std::iter::once(namespace.to_owned()).chain(cells));
    }
    table
}

/// What a path leads to, with spaces between.
fn found(path: &Path, value: &Value) -> String {
    let texts: Vec<String> = path.find(value).into_iter().map(plain_text).collect();
    format!("{}\n", output::printable(&texts.join(" ")))
}

fn plain_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
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
    fn outputs_are_words_or_paths() {
        assert_eq!("wide".parse(), Ok(Output::Wide));
        let path: Output = "jsonpath={.spec.broker}".parse().expect("a path");
        let Output::Path(path) = path else { panic!("a path") };
        assert_eq!(found(&path, &serde_json::json!({"spec": {"broker": "b"}})), "b\n");
        assert!("xml".parse::<Output>().is_err() && "jsonpath={x".parse::<Output>().is_err());
    }

    #[test]
    fn a_table_of_the_server_has_its_wide_columns_only_when_asked() {
        let answer = serde_json::json!({
            "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Class", "priority": 1}],
            "rows": [{"cells": ["b", null], "object": {"metadata": {"namespace": "n"}}}],
        });
        assert_eq!(columns(&answer, false).render(false), "NAMESPACE   NAME\nn           b\n");
        assert!(columns(&answer, true).render(false).contains("CLASS"));
    }

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
