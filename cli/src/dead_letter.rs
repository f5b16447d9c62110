//! `godwit dead-letter`: what could not be delivered, looked at, sent again or dropped.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use bytes::{Buf, Bytes, BytesMut};
use godwit_mesh::config::Setting;
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::client::{Client, DEFAULT_AGENT, ServerArgs};
use crate::output::{self, Format, Table};
use crate::queue::QueueArgs;

/// Longest line that is taken from the server.
const MAX_LINE_BYTES: usize = 64 << 20;

/// Rows that are gathered for one table: its columns are as wide as they need to be, and a long list is several tables.
const ROWS: usize = 200;

const EXAMPLES: &str = "\
A replay sends letters again as they were, with their id and source: to the subscriber of
the Trigger that could not deliver them, one attempt each, or with --to-broker into the
broker again, for all its Triggers and the uplink. What is settled is not sent again: a
replay that was cut short goes on when the same is asked for again.

Examples:
  godwit dead-letter list
  godwit dead-letter list --trigger billing --since 2h -o json
  godwit dead-letter show 12
  godwit dead-letter replay --trigger billing
  godwit dead-letter replay 12 13 --to-broker
  godwit dead-letter drop --cesql \"type = 'probe' AND NOT EXISTS subject\" --until 2026-01-31T12:00:00Z";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DeadLetterArgs {
    #[command(flatten)]
    queue: QueueArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the dead letters that wait.
    List {
        #[command(flatten)]
        which: Which,
        /// End after so many
        #[arg(long, short = 'n', value_name = "N")]
        limit: Option<u64>,
        /// How to print: table, or json for one object a line
        #[arg(long, short, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Show one dead letter with its event.
    Show {
        /// Its offset, as in `list`
        offset: u64,
        /// How to print
        #[arg(long, short, value_enum, default_value_t = Format::Yaml)]
        output: Format,
    },
    /// Send dead letters again.
    Replay {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        which: Which,
        /// Into the broker again, for all its Triggers, in place of the one subscriber
        #[arg(long)]
        to_broker: bool,
        /// How to print: table for people, or json for one object a line
        #[arg(long, short, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Drop dead letters for good; they are counted as dropped-by-hand.
    Drop {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, clap::Args)]
struct Named {
    /// These, by their offsets, as in `list`
    #[arg(value_name = "OFFSET")]
    offsets: Vec<u64>,
    /// All that wait
    #[arg(long)]
    all: bool,
}

/// Which letters are meant; all that is given must hold.
#[derive(Debug, clap::Args)]
struct Which {
    /// Only those of this Trigger, [NAMESPACE/]NAME; or `uplink`
    #[arg(long)]
    trigger: Option<String>,
    /// Only those put there since: a time (RFC 3339), or so long ago (`90m`, `2d`)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<String>,
    /// Only those put there before
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<String>,
    /// Only events that have this attribute with this value; all of several must hold
    #[arg(long = "filter", value_name = "NAME=VALUE")]
    filters: Vec<String>,
    /// Only events for which this CESQL expression is true
    #[arg(long, value_name = "EXPRESSION")]
    cesql: Option<String>,
}

/// A point in time as the server wants it.
fn moment(text: &str) -> Result<String, String> {
    if OffsetDateTime::parse(text, &Rfc3339).is_ok() {
        return Ok(text.to_owned());
    }
    let ago = Duration::from_text(text)
        .map_err(|_| "is neither a time such as 2026-01-31T12:00:00Z nor a duration such as 90m or 2d".to_owned())?;
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(ago);
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::try_from(at.as_nanos()).unwrap_or_default());
    at.ok().and_then(|at| at.format(&Rfc3339).ok()).ok_or_else(|| "is too long ago".to_owned())
}

type Query = url::form_urlencoded::Serializer<'static, String>;

impl Which {
    fn add(&self, query: &mut Query) {
        let texts = [("trigger", &self.trigger), ("since", &self.since), ("until", &self.until), ("cesql", &self.cesql)];
        for (name, value) in texts {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        for filter in &self.filters {
            query.append_pair("filter", filter);
        }
    }
}

impl Named {
    fn add(&self, query: &mut Query) {
        for offset in &self.offsets {
            query.append_pair("offset", &offset.to_string());
        }
        if self.all {
            query.append_pair("all", "true");
        }
    }
}

pub(crate) async fn run(server: &ServerArgs, args: DeadLetterArgs) -> anyhow::Result<ExitCode> {
    let mut client = server.client(DEFAULT_AGENT)?;
    let path = args.queue.path("dead-letters");
    let mut query = Query::new(String::new());
    match args.action {
        Action::List { which, limit, output } => {
            which.add(&mut query);
            if let Some(limit) = limit {
                query.append_pair("limit", &limit.to_string());
            }
            if matches!(output, Format::Table | Format::Name) {
                query.append_pair("data", "false");
            }
            list(&mut client, &format!("{path}?{}", query.finish()), output).await
        }
        Action::Show { offset, output } => {
            let letter = client.json(Method::GET, &format!("{path}/{offset}"), None).await?;
            output::print(&output::document(&letter, output)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Replay { named, which, to_broker, output } => {
            named.add(&mut query);
            which.add(&mut query);
            query.append_pair("to", if to_broker { "broker" } else { "subscriber" });
            replay(&mut client, &format!("{path}/replay?{}", query.finish()), output).await
        }
        Action::Drop { named, which } => {
            named.add(&mut query);
            which.add(&mut query);
            let answer = client.json(Method::POST, &format!("{path}/drop?{}", query.finish()), None).await?;
            output::print(&format!("{} dropped\n", answer["dropped"]))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn list(client: &mut Client, path: &str, format: Format) -> anyhow::Result<ExitCode> {
    let mut lines = Lines::open(client, Method::GET, path).await?;
    let mut rows = Vec::new();
    while let Some(line) = lines.next().await? {
        match format {
            Format::Json => print_line(&line)?,
            Format::Name => output::print(&format!("{}\n", letter(&line)?["offset"]))?,
            Format::Yaml => output::print(&format!("---\n{}", output::document(&letter(&line)?, format)?))?,
            Format::Table => rows.push(letter(&line)?),
        }
        if rows.len() == ROWS {
            output::print(&table(&std::mem::take(&mut rows)).render(output::stdout_colours()))?;
        }
    }
    if !rows.is_empty() {
        output::print(&table(&rows).render(output::stdout_colours()))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn replay(client: &mut Client, path: &str, format: Format) -> anyhow::Result<ExitCode> {
    let mut lines = Lines::open(client, Method::POST, path).await?;
    let mut end = None;
    while let Some(line) = lines.next().await? {
        let said = letter(&line)?;
        if format == Format::Json {
            print_line(&line)?;
        } else if let Some(text) = outcome(&said) {
            output::print(&text)?;
        }
        if said.get("outcome").is_none() {
            end = Some(said);
        }
    }
    let Some(end) = end else { bail!("the replay was cut short; the same command again goes on") };
    if format != Format::Json {
        output::print(&format!("{} replayed, {} failed\n", end["replayed"], end["failed"]))?;
    }
    if let Some(why) = end["stopped"].as_str() {
        bail!("stopped: {}; the same command again goes on", output::printable(why));
    }
    Ok(if end["failed"].as_u64() == Some(0) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is worth a line for people: a replayed letter only where it may have come twice.
fn outcome(said: &Value) -> Option<String> {
    let offset = &said["offset"];
    match said["outcome"].as_str()? {
        "replayed" if said["again"] == true => {
            Some(format!("{offset} replayed; a replay that was cut short may have brought it before\n"))
        }
        "failed" => Some(
            output::printable(&format!(
                "{offset} failed ({}): {}",
                said["code"],
                said["message"].as_str().unwrap_or_default()
            )) + "\n",
        ),
        _ => None,
    }
}

fn letter(line: &[u8]) -> anyhow::Result<Value> {
    serde_json::from_slice(line).with_context(|| {
        format!("the server sent a line that is no JSON: {}", output::printable(&String::from_utf8_lossy(line)))
    })
}

fn print_line(line: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(line)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

fn table(letters: &[Value]) -> Table {
    let mut table = Table::new(&["OFFSET", "AT", "TRIGGER", "TYPE", "ID", "CODE", "WHY"]);
    for letter in letters {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let why = letter["message"].as_str().or_else(|| letter["error"].as_str()).unwrap_or_default();
        let doubt = if letter["inDoubt"] == true { " (perhaps replayed)" } else { "" };
        table.row(vec![
            letter["offset"].to_string(),
            text(&letter["at"]),
            text(&letter["trigger"]),
            text(&letter["event"]["type"]),
            text(&letter["event"]["id"]),
            letter["code"].as_u64().map_or(String::new(), |code| code.to_string()),
            format!("{why}{doubt}"),
        ]);
    }
    table
}

/// An answer's lines as they come.
struct Lines {
    body: Incoming,
    pending: BytesMut,
    server: String,
}

impl Lines {
    async fn open(client: &mut Client, method: Method, path: &str) -> anyhow::Result<Self> {
        let answer = client.request(method, path, &HeaderMap::new(), Bytes::new()).await?;
        let body = client.accepted(answer).await?.into_body();
        Ok(Self { body, pending: BytesMut::new(), server: client.server().to_owned() })
    }

    async fn next(&mut self) -> anyhow::Result<Option<BytesMut>> {
        loop {
            if let Some(end) = self.pending.iter().position(|b| *b == b'\n') {
                let line = self.pending.split_to(end);
                self.pending.advance(1);
                return Ok(Some(line));
            }
            if self.pending.len() > MAX_LINE_BYTES {
                bail!("{} sent a line of more than 64 MiB", self.server);
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let broke = || format!("the connection to {} broke; the same command again goes on", self.server);
            let frame = frame.with_context(broke)?;
            if let Ok(data) = frame.into_data() {
                self.pending.extend_from_slice(&data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_time_is_one_or_so_long_ago() {
        assert_eq!(moment("2026-01-31T12:00:00Z").as_deref(), Ok("2026-01-31T12:00:00Z"));
        assert!(moment("90m").is_ok_and(|at| OffsetDateTime::parse(&at, &Rfc3339).is_ok()));
        assert!(moment("yesterday").is_err());
    }

    #[test]
    fn people_see_letters_in_a_table_and_of_a_replay_what_is_not_plain_success() {
        let letter = json!({
            "offset": 3, "at": "2026-01-31T12:00:00Z", "trigger": "default/t", "code": 500, "message": "no",
            "inDoubt": true, "event": {"type": "a", "id": "7"},
        });
        let text = table(&[letter]).render(false);
        assert!(
            text.ends_with("3        2026-01-31T12:00:00Z   default/t   a      7    500    no (perhaps replayed)\n"),
            "{text}"
        );
        assert_eq!(outcome(&json!({"offset": 1, "outcome": "replayed"})), None);
        assert!(outcome(&json!({"offset": 1, "outcome": "replayed", "again": true})).is_some());
        let failed = outcome(&json!({"offset": 2, "outcome": "failed", "code": 400, "message": "bad\u{1b}"}));
        assert_eq!(failed.as_deref(), Some("2 failed (400): bad\\u{1b}\n"));
    }
}
