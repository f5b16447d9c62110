//! `godwit send`: events from the command line, one or many.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use godwit_mesh::event::{self, Event, Value, check_attribute_name};
use http::{Method, StatusCode, header};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::client::{Client, DEFAULT_AGENT, ServerArgs, Usage};
use crate::output;
use crate::queue::QueueArgs;

/// Largest data that is read from a file or stdin.
const MAX_DATA_BYTES: u64 = 64 << 20;

/// How often the progress line changes.
const PROGRESS: Duration = Duration::from_millis(200);

/// Most requests under way at a time.
const MAX_PARALLEL: usize = 256;

/// Longest pause that a busy server may ask for between two attempts.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Without --data and --data-file the data is read from stdin, if that is not a terminal. Each event is on the server's disk when
its request is answered.

Examples:
  godwit send --type door.opened --source /house/1 --data '{\"door\":3}'
  sensors | godwit send --type reading --content-type text/csv --broker telemetry
  godwit send --type load.test --data-file payload.bin --count 100000 --parallel 64
  godwit send --type tick --count 60 --rate 1 -e priority=5";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SendArgs {
    #[command(flatten)]
    queue: QueueArgs,
    /// Attribute `id`; with --count a number is put behind it [default: random]
    #[arg(long)]
    id: Option<String>,
    /// Attribute `source`
    #[arg(long, default_value = "/godwit/send")]
    source: String,
    /// Attribute `type`
    #[arg(long = "type", default_value = "dev.godwit.send")]
    ty: String,
    /// Attribute `subject`
    #[arg(long)]
    subject: Option<String>,
    /// Attribute `time`, RFC 3339 [default: now]
    #[arg(long)]
    time: Option<String>,
    /// Attribute `datacontenttype` [default: by what the data looks like]
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Attribute `dataschema`
    #[arg(long, value_name = "URI")]
    schema: Option<String>,
    /// An extension attribute; may be given several times
    #[arg(long = "extension", short = 'e', value_name = "NAME=VALUE", value_parser = extension)]
    extensions: Vec<(String, String)>,
    /// The data itself
    #[arg(long, short, conflicts_with = "data_file")]
    data: Option<String>,
    /// A file with the data; `-` is stdin
    #[arg(long, value_name = "FILE")]
    data_file: Option<PathBuf>,
    /// Send so many events
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Send at most so many events a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Requests under way at a time; above 1 the events' order is open
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parallel)]
    parallel: usize,
}

fn extension(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("is not NAME=VALUE")?;
    let own = ["id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "specversion"];
    if own.contains(&name) {
        return Err(format!("{name} is no extension: it has a flag of its own, see --help"));
    }
    check_attribute_name(name).map_err(|why| why.to_string())?;
    Ok((name.to_owned(), value.to_owned()))
}

fn parallel(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|n| (1..=MAX_PARALLEL).contains(n))
        .ok_or_else(|| format!("is not a number from 1 to {MAX_PARALLEL}"))
}

pub(crate) async fn run(server: &ServerArgs, args: SendArgs) -> anyhow::Result<()> {
    let client = server.client(DEFAULT_AGENT)?;
    let data = data(&args)?;
    let template = template(&args, data)?;
    let prefix = match &args.id {
        Some(id) => id.clone(),
        None => format!("{:016x}", getrandom::u64().context("no random numbers")?),
    };
    let path = args.queue.ingress();
    if args.count == 1 {
        let id = prefix;
        post(&mut client.another(), &path, &with_id(&template, &id)?).await?;
        return Ok(output::print(&format!("{id}\n"))?);
    }
    send_many(&client, &path, &template, &prefix, &args).await
}

/// Shares the events out to workers, each with a connection of its own; ends at the first error.
async fn send_many(client: &Client, path: &str, template: &Event, prefix: &str, args: &SendArgs) -> anyhow::Result<()> {
    // One slot for each worker: whoever is free takes the next number, and the pace of giving them out is the rate.
    let (give, take) = tokio::sync::mpsc::channel::<u64>(1);
    let take = std::sync::Arc::new(tokio::sync::Mutex::new(take));
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..args.parallel {
        let (mut client, path, template, prefix) = (client.another(), path.to_owned(), template.clone(), prefix.to_owned());
        let (take, sent) = (take.clone(), sent.clone());
        workers.spawn(async move {
            loop {
                let number = take.lock().await.recv().await;
                let Some(number) = number else { return anyhow::Ok(()) };
                post(&mut client, &path, &with_id(&template, &format!("{prefix}-{number}"))?).await?;
                sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        });
    }
    let (count, rate) = (args.count, args.rate);
    workers.spawn(async move {
        let mut pace = rate.map(|rate| {
            let mut pace = tokio::time::interval(Duration::from_secs(1) / rate);
            pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
            pace
        });
        for number in 1..=count {
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
            if give.send(number).await.is_err() {
                break;
            }
        }
        Ok(())
    });
    let progress = Progress { start: Instant::now(), count, shown: output::stderr_is_terminal() };
    let outcome = follow(&mut workers, || progress.show(sent.load(std::sync::atomic::Ordering::Relaxed))).await;
    workers.shutdown().await;
    progress.finish(sent.load(std::sync::atomic::Ordering::Relaxed));
    outcome
}

/// Waits for the workers while the progress line moves; Ctrl-C ends it early.
async fn follow(workers: &mut JoinSet<anyhow::Result<()>>, show: impl Fn()) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(PROGRESS);
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            done = workers.join_next() => match done {
                None => return Ok(()),
                Some(done) => done.context("a worker failed")??,
            },
            _ = ticks.tick() => show(),
            _ = &mut interrupt => bail!("stopped by Ctrl-C"),
        }
    }
}

struct Progress {
    start: Instant,
    count: u64,
    shown: bool,
}

impl Progress {
    fn show(&self, sent: u64) {
        if self.shown {
            eprint!("\r{sent}/{} events, {}/s   ", self.count, self.rate(sent));
        }
    }

    fn finish(&self, sent: u64) {
        let start = if self.shown { "\r" } else { "" };
        let seconds = self.start.elapsed().as_secs_f64();
        eprintln!("{start}{sent} of {} events stored in {seconds:.1} s, {}/s", self.count, self.rate(sent));
    }

    fn rate(&self, sent: u64) -> u64 {
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        sent.saturating_mul(1000) / ms
    }
}

/// Posts one event and waits until it is stored. A busy server is asked again after the pause it names.
async fn post(client: &mut Client, path: &str, event: &Event) -> anyhow::Result<()> {
    let (headers, body) = event::http::deliver(event);
    loop {
        let answer = client.request(Method::POST, path, &headers, body.clone()).await?;
        if answer.status() == StatusCode::SERVICE_UNAVAILABLE
            && let Some(pause) = answer.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok())
        {
            tokio::time::sleep(Duration::from_secs(pause).clamp(Duration::from_millis(100), MAX_RETRY_AFTER)).await;
            continue;
        }
        let answer = client.accepted(answer).await?;
        // The body is empty; reading it to its end lets the connection carry the next request.
        let _ = http_body_util::BodyExt::collect(answer.into_body()).await;
        return Ok(());
    }
}

fn with_id(template: &Event, id: &str) -> anyhow::Result<Event> {
    let mut event = template.clone();
    event.set("id", Value::String(id.to_owned()))?;
    Ok(event)
}

fn template(args: &SendArgs, data: Option<Bytes>) -> anyhow::Result<Event> {
    let mut builder = Event::builder().id("0").source(args.source.as_str()).ty(args.ty.as_str());
    if let Some(subject) = &args.subject {
        builder = builder.subject(subject.as_str());
    }
    if let Some(time) = args.time.clone().or_else(now) {
        builder = builder.time(time);
    }
    if let Some(schema) = &args.schema {
        builder = builder.attribute("dataschema", Value::Uri(schema.clone()));
    }
    for (name, value) in &args.extensions {
        builder = builder.attribute(name, Value::String(value.clone()));
    }
    match data {
        Some(data) => {
            let guessed = args.content_type.clone().unwrap_or_else(|| guess(&data).to_owned());
            builder = builder.data(&guessed, data);
        }
        None => {
            if let Some(content_type) = &args.content_type {
                builder = builder.attribute("datacontenttype", Value::String(content_type.clone()));
            }
        }
    }
    builder.build().map_err(|why| Usage(why.to_string()).into())
}

/// The time now, unless this machine's clock has plainly not been set.
fn now() -> Option<String> {
    let ms = godwit_mesh::clock::Clock::system().wall_ms()?;
    let nanos = i128::from(ms) * 1_000_000;
    let time = time::OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
    time.format(&time::format_description::well_known::Rfc3339).ok()
}

fn data(args: &SendArgs) -> anyhow::Result<Option<Bytes>> {
    if let Some(data) = &args.data {
        return Ok(Some(Bytes::from(data.clone().into_bytes())));
    }
    match &args.data_file {
        Some(path) if path.as_os_str() != "-" => {
            let file = std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
            read(file, &path.display().to_string()).map(Some)
        }
        Some(_) => read(std::io::stdin().lock(), "stdin").map(Some),
        None if std::io::stdin().is_terminal() => Ok(None),
        None => read(std::io::stdin().lock(), "stdin").map(|data| Some(data).filter(|data| !data.is_empty())),
    }
}

fn read(from: impl Read, name: &str) -> anyhow::Result<Bytes> {
    let mut data = Vec::new();
    from.take(MAX_DATA_BYTES + 1).read_to_end(&mut data).with_context(|| format!("reading {name}"))?;
    if data.len() as u64 > MAX_DATA_BYTES {
        bail!("{name} has more than 64 MiB: no server takes an event of that size");
    }
    Ok(Bytes::from(data))
}

fn guess(data: &[u8]) -> &'static str {
    if serde_json::from_slice::<serde::de::IgnoredAny>(data).is_ok() {
        "application/json"
    } else if std::str::from_utf8(data).is_ok() {
        "text/plain"
    } else {
        "application/octet-stream"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_is_guessed_from_the_data() {
        assert_eq!(guess(b"{\"a\":1}"), "application/json");
        assert_eq!(guess(b"open"), "text/plain");
        assert_eq!(guess(&[0xff, 0]), "application/octet-stream");
    }
}
