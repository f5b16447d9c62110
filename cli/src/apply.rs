//! `godwit apply`, `delete` and `diff`: what is in files, brought to a server.

use std::path::PathBuf;
use std::process::ExitCode;

use godwit_mesh::manifest::Kind;
use http::Method;
use serde_json::Value;

use crate::api::{self, How, Written};
use crate::client::{DEFAULT_AGENT, ServerArgs};
use crate::output::{self, Format, Style, paint};

const APPLY_EXAMPLES: &str = "\
Each object is applied by itself: what is wrong with one keeps no other back.

Examples:
  godwit apply -f triggers.yaml
  godwit apply -f config/manifests --server http://127.0.0.1:8090";

#[derive(Debug, clap::Args)]
#[command(after_help = APPLY_EXAMPLES)]
pub(crate) struct ApplyArgs {
    /// A file or folder with manifests, or - for stdin; may be given several times
    #[arg(long = "file", short, value_name = "PATH", required = true)]
    files: Vec<PathBuf>,
    /// The namespace of objects that name none
    #[arg(long, short, default_value = "default")]
    namespace: String,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Take objects with unknown fields, with a warning
    #[arg(long)]
    lenient: bool,
    /// Take over fields that others set to another value
    #[arg(long)]
    force: bool,
}

const DELETE_EXAMPLES: &str = "\
Examples:
  godwit delete trigger alarms
  godwit delete -f triggers.yaml";

const DIFF_EXAMPLES: &str = "\
Exit codes: 0 no difference, 1 differences, and as for all commands.

Examples:
  godwit diff -f triggers.yaml";

#[derive(Debug, clap::Args)]
#[command(after_help = DELETE_EXAMPLES)]
pub(crate) struct DeleteArgs {
    /// What kind of object, as in `trigger`
    #[arg(value_parser = api::kind, required_unless_present = "files")]
    kind: Option<Kind>,
    /// Names of objects
    #[arg(required_unless_present = "files")]
    names: Vec<String>,
    /// Delete the objects in this file or folder; may be given several times
    #[arg(long = "file", short, value_name = "PATH", conflicts_with_all = ["kind", "names"])]
    files: Vec<PathBuf>,
    /// The namespace of objects that name none
    #[arg(long, short, default_value = "default")]
    namespace: String,
}

#[derive(Debug, clap::Args)]
#[command(after_help = DIFF_EXAMPLES)]
pub(crate) struct DiffArgs {
    /// A file or folder with manifests, or - for stdin; may be given several times
    #[arg(long = "file", short, value_name = "PATH", required = true)]
    files: Vec<PathBuf>,
    /// The namespace of objects that name none
    #[arg(long, short, default_value = "default")]
    namespace: String,
}

pub(crate) async fn apply(server: &ServerArgs, args: &ApplyArgs) -> anyhow::Result<ExitCode> {
    let mut client = server.client(DEFAULT_AGENT)?;
    let how = How { dry_run: args.dry_run, lenient: args.lenient, force: args.force };
    let files = api::written(&args.files, &args.namespace)?;
    let mut failed = !files.tell();
    for object in files.objects {
        let path = object.path();
        let before = api::find(&mut client, &path).await?;
        match api::apply(&mut client, &path, &object.value, how).await {
            Ok(after) => {
                let what = became(before.as_ref(), &after);
                let dry = if args.dry_run { " (dry run)" } else { "" };
                output::print(&format!("{} {what}{dry}\n", object.shown()))?;
            }
            Err(error) => {
                failed = true;
                output::error(&error.context(object.shown()));
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What became of an object.
fn became(before: Option<&Value>, after: &Value) -> &'static str {
    match before {
        None => "created",
        Some(before) if written_part(before) == written_part(after) => "unchanged",
        Some(_) => "configured",
    }
}

pub(crate) async fn delete(server: &ServerArgs, args: &DeleteArgs) -> anyhow::Result<()> {
    let mut client = server.client(DEFAULT_AGENT)?;
    let mut targets: Vec<(Kind, String, String)> = Vec::new();
    if let Some(kind) = args.kind {
        targets.extend(args.names.iter().map(|name| (kind, args.namespace.clone(), name.clone())));
    } else {
        let files = api::written(&args.files, &args.namespace)?;
        files.tell();
        targets.extend(files.objects.into_iter().map(|o| (o.kind, o.namespace, o.name)));
    }
    for (kind, namespace, name) in targets {
        let answer = client.json(Method::DELETE, &api::path(kind, &namespace, &name), None).await?;
        let kept = answer.pointer("/metadata/finalizers").and_then(Value::as_array).into_iter().flatten();
        let kept: Vec<&str> = kept.filter_map(Value::as_str).collect();
        let waits =
            if kept.is_empty() { String::new() } else { format!(" when its finalizers are done: {}", kept.join(", ")) };
        output::print(&output::printable(&format!("{} deleted{waits}", api::shown(kind, &name))))?;
        output::print("\n")?;
    }
    Ok(())
}

pub(crate) async fn diff(server: &ServerArgs, args: &DiffArgs) -> anyhow::Result<ExitCode> {
    let mut client = server.client(DEFAULT_AGENT)?;
    let (colours, mut differs) = (output::stdout_colours(), false);
    let files = api::written(&args.files, &args.namespace)?;
    files.tell();
    for object in files.objects {
        let path = object.path();
        let before = api::find(&mut client, &path).await?;
        let how = How { dry_run: true, force: true, ..How::default() };
        let after = api::apply(&mut client, &path, &object.value, how).await?;
        let text = difference(&object, before.as_ref(), &after, colours)?;
        differs |= !text.is_empty();
        output::print(&text)?;
    }
    Ok(if differs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What people write of an object.
fn written_part(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.shift_remove("status");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for name in ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"] {
            metadata.shift_remove(name);
        }
    }
    object
}

fn difference(object: &Written, before: Option<&Value>, after: &Value, colours: bool) -> anyhow::Result<String> {
    let yaml = |value: Option<&Value>| match value {
        Some(value) => output::document(&written_part(value), Format::Yaml),
        None => Ok(String::new()),
    };
    let (before, after) = (yaml(before)?, yaml(Some(after))?);
    if before == after {
        return Ok(String::new());
    }
    let mut text = format!("{}\n", object.shown());
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    for (mark, line) in lines(&old, &new) {
        let line = output::printable(line);
        let line = match mark {
            '-' => paint(colours, Style::Red, &format!("- {line}")),
            '+' => paint(colours, Style::Green, &format!("+ {line}")),
            _ => format!("  {line}"),
        };
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}

/// Both texts as one: what only the old has (`-`), what only the new has (`+`), what both have.
fn lines<'t>(old: &[&'t str], new: &[&'t str]) -> Vec<(char, &'t str)> {
    // The longest sequence that both have, from the ends on. Manifests have some dozens of lines.
    let mut longest = vec![vec![0u32; new.len() + 1]; old.len() + 1];
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            longest[i][j] = if a == b { longest[i + 1][j + 1] + 1 } else { longest[i + 1][j].max(longest[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut found) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            found.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && longest[i + 1][j] >= longest[i][j + 1]) {
            found.push(('-', old[i]));
            i += 1;
        } else {
            found.push(('+', new[j]));
            j += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_server_sets_is_no_change() {
        let object = |revision: &str, uri: &str| {
            json!({
                "metadata": {"name": "x", "resourceVersion": revision},
                "spec": {"uri": uri}, "status": {"n": revision},
            })
        };
        assert_eq!(became(None, &object("1", "a")), "created");
        assert_eq!(became(Some(&object("1", "a")), &object("2", "a")), "unchanged");
        assert_eq!(became(Some(&object("1", "a")), &object("2", "b")), "configured");
    }

    #[test]
    fn a_difference_keeps_what_both_have() {
        let found = lines(&["a", "b", "c"], &["a", "x", "c", "d"]);
        assert_eq!(found, [(' ', "a"), ('-', "b"), ('+', "x"), (' ', "c"), ('+', "d")]);
    }
}
