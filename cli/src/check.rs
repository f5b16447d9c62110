//! `godwit check`: manifests, checked without a server.
//!
//! One line for each object, so that all that is wrong is seen at once; the exit code is 1 if anything is.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use godwit_mesh::manifest::{ManifestError, Manifests, parse_str};

use crate::output::{self, Style, paint};

const EXAMPLES: &str = "\
A folder is checked as one set, as an agent or gateway would load it with --manifests.

Examples:
  godwit check -f config/manifests
  godwit check -f brokers.yaml -f triggers.yaml";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckArgs {
    /// A file or folder with manifests; may be given several times
    #[arg(long = "file", short, value_name = "PATH", required = true)]
    files: Vec<PathBuf>,
}

pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let mut report = Report { text: String::new(), colours: output::stdout_colours(), objects: 0, errors: 0 };
    for path in &args.files {
        if path.is_dir() {
            let mut files = files(path)?;
            files.sort();
            for file in &files {
                report.file(file)?;
            }
            report.set(path);
        } else {
            report.file(path)?;
        }
    }
    output::print(&report.text)?;
    if report.errors > 0 {
        eprintln!("{} of {} objects cannot be used", report.errors, report.objects);
        return Ok(ExitCode::FAILURE);
    }
    if report.objects == 0 {
        eprintln!("there are no objects in what was given: manifests are *.yaml, *.yml or *.json");
    }
    Ok(ExitCode::SUCCESS)
}

/// The files of a folder that a server would load.
fn files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.is_file() && path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json") {
            files.push(path);
        }
    }
    Ok(files)
}

struct Report {
    text: String,
    colours: bool,
    objects: usize,
    errors: usize,
}

impl Report {
    fn file(&mut self, path: &Path) -> anyhow::Result<()> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
        match parse_str(&name, &text) {
            Ok(objects) => {
                for object in objects {
                    self.ok(&object.to_string());
                }
            }
            Err(error) => self.error(&error),
        }
        Ok(())
    }

    /// What is wrong only with the set as a whole; errors of single files have been shown already.
    fn set(&mut self, dir: &Path) {
        let before = self.errors;
        match Manifests::load_dir(dir) {
            Ok(set) => {
                for warning in set.warnings() {
                    self.text.push_str(&format!("{} {warning}\n", paint(self.colours, Style::Yellow, "warning:")));
                }
            }
            Err(error) if before == 0 => self.error(&error),
            Err(_) => {}
        }
    }

    fn ok(&mut self, object: &str) {
        self.objects += 1;
        self.text.push_str(&format!("{} {}\n", slashed(object), paint(self.colours, Style::Green, "ok")));
    }

    fn error(&mut self, error: &ManifestError) {
        self.objects += 1;
        self.errors += 1;
        let object = error.object.as_deref().map_or_else(|| error.file.clone(), slashed);
        let field = error.field.as_ref().map_or_else(String::new, |field| format!("{field}: "));
        let label = paint(self.colours, Style::Red, "error:");
        let line = output::printable(&format!("{field}{} (in {})", error.why, error.file));
        self.text.push_str(&format!("{object} {label} {line}\n"));
    }
}

/// `Trigger default/x` as `trigger/default/x`.
fn slashed(object: &str) -> String {
    match object.split_once(' ') {
        Some((kind, name)) if name.contains('/') => format!("{}/{name}", kind.to_lowercase()),
        _ => object.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata: {name: good}\n\
        spec: {broker: default, subscriber: {uri: 'http://127.0.0.1:9/'}}\n";

    #[test]
    fn every_file_gets_its_lines() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("a.yaml"), GOOD).expect("written");
        std::fs::write(dir.path().join("b.yaml"), GOOD.replace("good", "bad").replace("broker:", "brokre:"))
            .expect("written");
        let mut report = Report { text: String::new(), colours: false, objects: 0, errors: 0 };
        report.file(&dir.path().join("a.yaml")).expect("read");
        report.file(&dir.path().join("b.yaml")).expect("read");
        report.set(dir.path());
        let lines: Vec<_> = report.text.lines().collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[0], "trigger/default/good ok");
        assert!(lines[1].starts_with("trigger/default/bad error: spec"), "{lines:?}");
    }
}
