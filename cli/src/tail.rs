//! `godwit tail`: the events of a broker or a channel as they come, or those it has kept.

use anyhow::{Context, bail};
use base64::Engine;
use bytes::{Buf, BytesMut};
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::io::Write;

use crate::client::{DEFAULT_AGENT, ServerArgs};
use crate::output::{self, Style, paint};
use crate::queue::QueueArgs;

/// Longest line that is taken from the server.
const MAX_LINE_BYTES: usize = 64 << 20;

/// How much of the data the human format shows.
const SHOWN_CHARACTERS: usize = 400;

const EXAMPLES: &str = "\
Looking changes nothing: a tail has no cursor. Formats: human (a line for people), json (one object a line with offset, epoch
and the event as CloudEvents JSON), raw (the data's bytes and a line end).

Examples:
  godwit tail
  godwit tail --from start --no-follow -o json
  godwit tail --broker alarms -a type=fire -a source=/agents/boat-7/mqtt/deck -n 1
  godwit tail --channel orders --from start
  godwit tail --server http://127.0.0.1:8090       what reached the gateway";

/// How events are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Human,
    Json,
    Raw,
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    queue: QueueArgs,
    /// Where to begin: `now`, `start` or an offset
    #[arg(long, default_value = "now", value_parser = start)]
    from: String,
    /// End with the last event there is, in place of waiting for more
    #[arg(long)]
    no_follow: bool,
    /// End after so many events
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<u64>,
    /// Only events that have this attribute with this value; all of several must hold
    #[arg(long = "attribute", short = 'a', value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, String)>,
    /// How to print
    #[arg(long, short, value_enum, default_value_t = Format::Human)]
    output: Format,
}

fn start(text: &str) -> Result<String, String> {
    match text {
        "now" => Ok("latest".to_owned()),
        "start" => Ok("earliest".to_owned()),
        offset if offset.parse::<u64>().is_ok() => Ok(offset.to_owned()),
        _ => Err("is neither now, start nor an offset".to_owned()),
    }
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("is not NAME=VALUE")?;
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        return Err(format!("\"{name}\" cannot be an attribute: lower-case letters and digits only"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// One line of the server's answer; the parts that are printed as they came stay as they are.
#[derive(Debug, Deserialize)]
struct Line<'a> {
    offset: u64,
    #[serde(borrow)]
    event: BTreeMap<String, &'a RawValue>,
}

pub(crate) async fn run(server: &ServerArgs, args: TailArgs) -> anyhow::Result<()> {
    let mut client = server.client(DEFAULT_AGENT)?;
    let path = path(&args);
    let answer = client.request(Method::GET, &path, &HeaderMap::new(), bytes::Bytes::new()).await?;
    let mut body = client.accepted(answer).await?.into_body();
    let mut printer = Printer { format: args.output, colours: output::stdout_colours() };
    let mut pending = BytesMut::new();
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            _ = &mut interrupt => return Ok(()),
        };
        let Some(frame) = frame else { break };
        let frame = frame
            .with_context(|| format!("the connection to {} broke; `--from` goes on from an offset", client.server()))?;
        let Ok(data) = frame.into_data() else { continue };
        pending.extend_from_slice(&data);
        let mut out = Vec::new();
        while let Some(end) = pending.iter().position(|b| *b == b'\n') {
            let line = pending.split_to(end);
            pending.advance(1);
            printer.line(&line, &mut out)?;
        }
        if pending.len() > MAX_LINE_BYTES {
            bail!("{} sent a line of more than 64 MiB", client.server());
        }
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&out)?;
        stdout.flush()?;
    }
    Ok(())
}

fn path(args: &TailArgs) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("from", &args.from);
    query.append_pair("follow", if args.no_follow { "false" } else { "true" });
    if let Some(limit) = args.limit {
        query.append_pair("limit", &limit.to_string());
    }
    if args.output == Format::Raw {
        // Byte by byte as it was sent.
        query.append_pair("data", "base64");
    }
    for (name, value) in &args.attributes {
        query.append_pair(name, value);
    }
    args.queue.path(&format!("events?{}", query.finish()))
}

struct Printer {
    format: Format,
    colours: bool,
}

impl Printer {
    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        if self.format == Format::Json {
            out.extend_from_slice(line);
            out.push(b'\n');
            return Ok(());
        }
        let parsed: Line<'_> = serde_json::from_slice(line).with_context(|| {
            format!("the server sent a line that is no event: {}", output::printable(&String::from_utf8_lossy(line)))
        })?;
        let data = data(&parsed.event)?;
        if self.format == Format::Raw {
            out.extend_from_slice(&data);
            out.push(b'\n');
            return Ok(());
        }
        out.extend_from_slice(self.human(&parsed, &data).as_bytes());
        Ok(())
    }

    /// `#12 2026-… type subject data (source)`.
    fn human(&self, line: &Line<'_>, data: &[u8]) -> String {
        let text = |name: &str| line.event.get(name).and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        let mut shown = paint(self.colours, Style::Dim, &format!("#{}", line.offset));
        let mut part = |style: Option<Style>, text: Option<String>| {
            if let Some(text) = text {
                let text = output::printable(&text);
                shown.push_str("  ");
                shown.push_str(&style.map_or_else(|| text.clone(), |style| paint(self.colours, style, &text)));
            }
        };
        part(Some(Style::Dim), text("time"));
        part(Some(Style::Cyan), text("type"));
        part(Some(Style::Green), text("subject"));
        let whole = match std::str::from_utf8(data) {
            Ok(text) => text.to_owned(),
            Err(_) => format!("<{} bytes>", data.len()),
        };
        let cut: String = whole.chars().take(SHOWN_CHARACTERS).collect();
        let more = whole.len() - cut.len();
        part(None, Some(cut).filter(|cut| !cut.is_empty()));
        part(Some(Style::Dim), (more > 0).then(|| format!("… and {more} bytes more")));
        part(Some(Style::Dim), text("source").map(|source| format!("({source})")));
        shown.push('\n');
        shown
    }
}

/// The data's own bytes: base64 undone, a string where the content is not JSON, else the JSON as it came.
fn data(event: &BTreeMap<String, &RawValue>) -> anyhow::Result<Vec<u8>> {
    if let Some(raw) = event.get("data_base64") {
        let text: String = serde_json::from_str(raw.get())?;
        return base64::engine::general_purpose::STANDARD.decode(text).context("data_base64 is not base64");
    }
    let Some(raw) = event.get("data") else { return Ok(Vec::new()) };
    let media = event.get("datacontenttype").and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    let essence =
        media.as_deref().unwrap_or("application/json").split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json = essence.ends_with("/json") || essence.ends_with("+json");
    match serde_json::from_str::<String>(raw.get()) {
        Ok(text) if !json => Ok(text.into_bytes()),
        _ => Ok(raw.get().as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(format: Format, line: &str) -> String {
        let mut out = Vec::new();
        Printer { format, colours: false }.line(line.as_bytes(), &mut out).expect("an event");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn json_data_is_printed_as_it_came() {
        let line = r#"{"offset":3,"epoch":"00","event":{"specversion":"1.0","type":"t","source":"/s","id":"1","data":{"b":1.10,"a":2}}}"#;
        assert_eq!(print(Format::Raw, line), "{\"b\":1.10,\"a\":2}\n");
        assert_eq!(print(Format::Human, line), "#3  t  {\"b\":1.10,\"a\":2}  (/s)\n");
    }

    #[test]
    fn text_and_binary_data_are_decoded() {
        let text = r#"{"offset":0,"event":{"datacontenttype":"text/plain","data":"on\u001b"}}"#;
        assert_eq!(print(Format::Raw, text), "on\u{1b}\n");
        assert_eq!(print(Format::Human, text), "#0  on\\u{1b}\n");
        let binary = r#"{"offset":0,"event":{"datacontenttype":"image/png","data_base64":"aGk="}}"#;
        assert_eq!(print(Format::Raw, binary), "hi\n");
    }

    #[test]
    fn an_attribute_filter_is_checked_before_anything_is_asked() {
        assert!(attribute("type=a=b").is_ok_and(|(name, value)| name == "type" && value == "a=b"));
        assert!(attribute("Type=a").is_err());
        assert!(attribute("type").is_err());
        assert!(start("yesterday").is_err());
    }
}
