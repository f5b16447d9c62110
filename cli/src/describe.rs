//! `godwit describe` and `edit`: one object, to be read or changed by a person.

use std::process::Command;

use anyhow::Context as _;
use godwit_mesh::manifest::Kind;
use http::Method;
use serde_json::{Map, Value};

use crate::api;
use crate::client::{Client, DEFAULT_AGENT, ServerArgs};
use crate::output::{self, Format, Table};

const EXAMPLES: &str = "\
Examples:
  godwit describe trigger alarms
  godwit edit trigger alarms";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ObjectArgs {
    /// What kind of object, as in `trigger`
    #[arg(value_parser = api::kind)]
    kind: Kind,
    /// Its name
    name: String,
    /// Its namespace
    #[arg(long, short, default_value = "default")]
    namespace: String,
}

pub(crate) async fn describe(server: &ServerArgs, args: &ObjectArgs) -> anyhow::Result<()> {
    let mut client = server.client(DEFAULT_AGENT)?;
    let object = client.json(Method::GET, &api::path(args.kind, &args.namespace, &args.name), None).await?;
    let mut text = described(&object)?;
    if args.kind == Kind::Trigger
        && let Some(live) = live(&mut client, &args.namespace, &args.name).await?
    {
        text.push_str(&delivery(&live));
    }
    Ok(output::print(&text)?)
}

/// What `/status` knows of a Trigger.
async fn live(client: &mut Client, namespace: &str, name: &str) -> anyhow::Result<Option<Value>> {
    let status = client.json(Method::GET, "/status", None).await?;
    let all = status.get("triggers").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    Ok(all.iter().find(|t| t["namespace"] == namespace && t["name"] == name).cloned())
}

fn described(object: &Value) -> anyhow::Result<String> {
    let at = |path: &str| object.pointer(path);
    let mut head = Map::new();
    for (title, path) in [
        ("name", "/metadata/name"),
        ("namespace", "/metadata/namespace"),
        ("kind", "/kind"),
        ("apiVersion", "/apiVersion"),
        ("uid", "/metadata/uid"),
        ("created", "/metadata/creationTimestamp"),
        ("generation", "/metadata/generation"),
        ("labels", "/metadata/labels"),
        ("annotations", "/metadata/annotations"),
        ("spec", "/spec"),
    ] {
        if let Some(value) = at(path) {
            head.insert(title.to_owned(), value.clone());
        }
    }
    let mut status = at("/status").and_then(Value::as_object).cloned().unwrap_or_default();
    let conditions = status.shift_remove("conditions");
    if !status.is_empty() {
        head.insert("status".to_owned(), Value::Object(status));
    }
    let mut text = output::document(&Value::Object(head), Format::Yaml)?;
    let mut table = Table::new(&["CONDITION", "STATUS", "SINCE", "REASON", "MESSAGE"]);
    for condition in conditions.as_ref().and_then(Value::as_array).into_iter().flatten() {
        let cell = |name: &str| condition.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        table.row(["type", "status", "lastTransitionTime", "reason", "message"].map(cell));
    }
    text.push('\n');
    text.push_str(&table.render(output::stdout_colours()));
    Ok(text)
}

fn delivery(live: &Value) -> String {
    let mut text = format!("\npending: {}\n", live["pending"]);
    if let Some(cursor) = live["cursor"].as_u64() {
        text.push_str(&format!("cursor: {cursor}\n"));
    }
    if let Some(rate) = live["rate"].as_f64() {
        text.push_str(&format!("rate: {rate} events a second, over the last minute\n"));
    }
    if let Some(circuit) = live["circuit"].as_str().filter(|state| *state != "closed") {
        let silent = &live["unanswered"];
        text.push_str(&output::printable(&format!("circuit: {circuit}, {silent} attempts without an answer")));
        text.push('\n');
    }
    if let Some(oldest) = live["oldest"]["offset"].as_u64() {
        text.push_str(&format!("under way: event {oldest} and what follows\n"));
    }
    let error = &live["last_error"];
    if let Some(message) = error["message"].as_str() {
        let destination = error["destination"].as_str().unwrap_or_default();
        text.push_str(&output::printable(&format!("last error: {message} ({} from {destination})", error["code"])));
        text.push('\n');
        if let Some(at) = error["at_ms"].as_u64().and_then(time_of) {
            text.push_str(&format!("last error at: {at}\n"));
        }
        if let Some(answer) = error["answer"].as_str().filter(|answer| !answer.is_empty()) {
            text.push_str(&format!("answered: {}\n", output::printable(answer)));
        }
    }
    let retry = &live["retry"];
    if retry.is_object() {
        let (offset, failed, next) = (&retry["offset"], &retry["failed_attempts"], &retry["next_in_ms"]);
        text.push_str(&format!("retry: event {offset} has failed {failed} times, again in {next} ms\n"));
    }
    // As events a second, where the server counts them.
    text
}

/// Milliseconds since 1970 as RFC 3339.
fn time_of(ms: u64) -> Option<String> {
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()?;
    at.format(&time::format_description::well_known::Rfc3339).ok()
}

pub(crate) async fn edit(server: &ServerArgs, args: &ObjectArgs) -> anyhow::Result<()> {
    let mut client = server.client(DEFAULT_AGENT)?;
    let path = api::path(args.kind, &args.namespace, &args.name);
    let mut object = client.json(Method::GET, &path, None).await?;
    if let Some(map) = object.as_object_mut() {
        map.shift_remove("status");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("managedFields");
    }
    let before = output::document(&object, Format::Yaml)?;
    let after = edited(&before)?;
    if after.trim() == before.trim() {
        return Ok(output::print(&format!("{} unchanged\n", api::shown(args.kind, &args.name)))?);
    }
    let value: Value = serde_saphyr::from_str(&after).context("what was written is no YAML; nothing has changed")?;
    api::send(&mut client, Method::PUT, &path, "application/json", &value).await?;
    Ok(output::print(&format!("{} edited\n", api::shown(args.kind, &args.name)))?)
}

/// Lets the user's editor change a text.
fn edited(text: &str) -> anyhow::Result<String> {
    let editor = ["VISUAL", "EDITOR"].iter().find_map(|name| std::env::var(name).ok().filter(|e| !e.is_empty()));
    let editor = editor.unwrap_or_else(|| "vi".to_owned());
    let path = std::env::temp_dir().join(format!("godwit-edit-{}.yaml", std::process::id()));
    let file = Scratch(path);
    let mut open = std::fs::OpenOptions::new();
    // A file of that name that is there already is not ours.
    let mut made =
        open.write(true).create_new(true).open(&file.0).with_context(|| format!("making {}", file.0.display()))?;
    std::io::Write::write_all(&mut made, text.as_bytes())?;
    drop(made);
    // An editor may be given with arguments.
    let mut words = editor.split_whitespace();
    let program = words.next().context("EDITOR is empty")?;
    let status = Command::new(program).args(words).arg(&file.0).status().with_context(|| format!("running {editor}"))?;
    anyhow::ensure!(status.success(), "{editor} ended with {status}; nothing has changed");
    std::fs::read_to_string(&file.0).with_context(|| format!("reading {}", file.0.display()))
}

/// A file that goes with this.
struct Scratch(std::path::PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_description_has_what_is_wanted_and_how_it_stands() {
        let text = described(&json!({
            "apiVersion": "v1", "kind": "Trigger", "metadata": {"name": "t", "namespace": "default"},
            "spec": {"broker": "default"},
            "status": {"subscriberUri": "http://x/", "conditions": [{"type": "Ready", "status": "False", "reason": "Why"}]},
        }))
        .expect("text");
        for part in ["name: t", "broker: default", "subscriberUri: ", "Ready", "Why"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn delivery_tells_of_the_last_error_and_the_next_try() {
        let text = delivery(&json!({
            "pending": 7, "cursor": 3,
            "last_error": {"message": "refused", "code": 500, "destination": "http://x/", "answer": "try\u{1b} later", "at_ms": 1_767_225_600_000_u64},
            "rate": 2.25,
            "retry": {"offset": 3, "failed_attempts": 2, "next_in_ms": 900},
        }));
        assert_eq!(
            text,
            "\npending: 7\ncursor: 3\nrate: 2.25 events a second, over the last minute\nlast error: refused (500 from http://x/)\n\
             last error at: 2026-01-01T00:00:00Z\nanswered: try\\u{1b} later\n\
             retry: event 3 has failed 2 times, again in 900 ms\n"
        );
    }
}
