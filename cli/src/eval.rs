//! `godwit eval`: a CESQL expression, tried out on an event without a server.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use godwit_mesh::event::{Event, Limits, StoredEvent, json};
use godwit_mesh::filter::cesql::tck::{self, File};
use godwit_mesh::filter::cesql::{ErrorKind, Evaluation, Expression, ParseError, Place, Value};
use serde_json::{Value as Json, json};

use crate::output::{self, Style, paint};

/// Largest event that is read.
const MAX_EVENT_BYTES: u64 = 4 << 20;

const EXAMPLES: &str = "\
Without --event the expression runs on a small valid event with id, source and type only.

Exit codes: 0 there is a value, 1 there is a value beside errors, 2 the expression cannot be read.

Examples:
  godwit eval \"INT('5') * 4 + ABS(-2)\"
  godwit eval \"type = 'door.opened' AND subject LIKE 'house/%'\" --event event.json
  godwit tail -o json -n 1 | jq .event | godwit eval 'EXISTS expirytime' --event - --json
  godwit eval --tck cesql_tck/*.yaml";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EvalArgs {
    /// The expression
    #[arg(value_name = "EXPR", required_unless_present = "tck", allow_hyphen_values = true)]
    expression: Option<String>,
    /// A CloudEvent in JSON to run it on; `-` is stdin
    #[arg(long, value_name = "FILE")]
    event: Option<PathBuf>,
    /// Print a JSON object: value, type, errors
    #[arg(long)]
    json: bool,
    /// Run the cases of files of the specification's test kit
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["expression", "event", "json"])]
    tck: Vec<PathBuf>,
}

pub(crate) fn run(args: &EvalArgs) -> anyhow::Result<ExitCode> {
    let Some(text) = &args.expression else { return run_kit(&args.tck) };
    let expression = match Expression::parse(text) {
        Ok(expression) => expression,
        Err(error) => return unreadable(text, &error, args.json),
    };
    let event = match &args.event {
        Some(path) => event(path)?,
        None => Event::builder().id("1").source("/godwit/eval").ty("dev.godwit.eval").build()?,
    };
    let found = expression.evaluate(&tck::stored(&event));
    if args.json {
        output::print(&output::document(&as_json(text, &found), output::Format::Json)?)?;
    } else {
        output::print(&as_text(text, &found))?;
    }
    Ok(if found.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Reads an event in JSON; `-` is stdin.
///
/// # Errors
/// When it cannot be read, or is no valid event.
pub(crate) fn event(path: &Path) -> anyhow::Result<Event> {
    let name = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_EVENT_BYTES + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_EVENT_BYTES + 1).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("reading {name}"))?;
    if bytes.len() as u64 > MAX_EVENT_BYTES {
        bail!("{name}: larger than {MAX_EVENT_BYTES} bytes");
    }
    json::decode(&bytes.into(), &Limits::default()).with_context(|| format!("{name} is no CloudEvent in JSON"))
}

/// The event as filters read it.
pub(crate) fn stored(path: &Path) -> anyhow::Result<StoredEvent> {
    event(path).map(|event| tck::stored(&event))
}

/// Says what is wrong with an expression, and shows the place below it.
fn unreadable(text: &str, error: &ParseError, as_json: bool) -> anyhow::Result<ExitCode> {
    if as_json {
        let errors = json!([{
            "kind": ErrorKind::Parse.name(), "message": error.why, "line": error.place.line, "column": error.place.column,
        }]);
        let document = json!({ "value": null, "type": null, "errors": errors });
        output::print(&output::document(&document, output::Format::Json)?)?;
    } else {
        let line = output::printable(text.lines().nth(error.place.line - 1).unwrap_or_default());
        output::error(&anyhow::anyhow!("{error}\n  {line}\n  {}^", " ".repeat(error.place.column - 1)));
    }
    Ok(ExitCode::from(2))
}

fn as_text(text: &str, found: &Evaluation) -> String {
    let colours = output::stdout_colours();
    let mut lines = format!("{}\n", output::printable(&found.value.to_string()));
    lines.push_str(&format!("{} {}\n", paint(colours, Style::Dim, "type:"), found.value.type_of().name()));
    for error in &found.errors {
        let place = Place::of(text, error.span.start.into());
        let label = paint(colours, Style::Red, "error:");
        lines.push_str(&format!("{label} {} ({place})\n", output::printable(&error.to_string())));
    }
    lines
}

fn as_json(text: &str, found: &Evaluation) -> Json {
    let value = match &found.value {
        Value::Boolean(value) => json!(value),
        Value::Integer(value) => json!(value),
        Value::String(value) => json!(value),
    };
    let errors: Vec<Json> = found
        .errors
        .iter()
        .map(|error| {
            let place = Place::of(text, error.span.start.into());
            json!({ "kind": error.kind.name(), "message": error.why, "line": place.line, "column": place.column })
        })
        .collect();
    json!({ "value": value, "type": found.value.type_of().name(), "errors": errors })
}

fn run_kit(files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let (mut passed, mut failed) = (0_usize, 0_usize);
    for path in files {
        let name = path.display();
        let yaml = std::fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
        let file = File::read(&yaml).map_err(|why| anyhow::anyhow!("{name} is no file of the test kit: {why}"))?;
        for case in &file.tests {
            match case.run() {
                Ok(()) => passed += 1,
                Err(why) => {
                    failed += 1;
                    let line = format!("{name}: {}: {}: {why}", case.name, case.expression);
                    output::print(&format!("{}\n", output::printable(&line)))?;
                }
            }
        }
    }
    output::print(&format!("{passed} passed, {failed} failed\n"))?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
