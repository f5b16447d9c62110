//! `godwit check`: manifests, checked without a server.
//!
//! A line for each object, and one for each thing that is wrong with it, so that all is seen at once; the exit code is 1 if
//! anything is wrong.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use godwit_mesh::manifest::{
    Document, MAX_OBJECTS, ManifestError, Object, Strictness, documents, manifest_files, read_file,
};

use crate::output::{self, Style, paint};

const EXAMPLES: &str = "\
A folder is checked as one set, as an agent or gateway would load it with --manifests: its files whose names end in .yaml,
.yml or .json and do not begin with a dot; folders in it are left alone.
A warning is about what is taken all the same, as a kind that does not run yet.

Examples:
  godwit check -f config/manifests
  godwit check -f brokers.yaml -f triggers.yaml";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckArgs {
    /// A file or folder with manifests; may be given several times
    #[arg(long = "file", short, value_name = "PATH", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// Take objects with unknown fields, with a warning
    #[arg(long)]
    lenient: bool,
}

pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let mut report = Report { lenient: args.lenient, ..Report::new(output::stdout_colours()) };
    for path in &args.files {
        report.path(path)?;
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

struct Report {
    text: String,
    colours: bool,
    lenient: bool,
    objects: usize,
    errors: usize,
}

impl Report {
    fn new(colours: bool) -> Self {
        Self { text: String::new(), colours, lenient: false, objects: 0, errors: 0 }
    }

    /// A file, or a folder as one set.
    fn path(&mut self, path: &Path) -> anyhow::Result<()> {
        if !path.is_dir() {
            return self.file(path, &mut BTreeMap::new());
        }
        let (mut seen, before) = (BTreeMap::new(), self.objects);
        for file in manifest_files(path).with_context(|| format!("reading {}", path.display()))? {
            self.file(&file, &mut seen)?;
        }
        if self.objects - before > MAX_OBJECTS {
            self.errors += 1;
            self.line(
                &path.display().to_string(),
                Style::Red,
                "error:",
                &format!("more than {MAX_OBJECTS} objects in one set"),
            );
        }
        Ok(())
    }

    /// The objects of a file; `seen` are those of the same set before, with their files.
    fn file(&mut self, path: &Path, seen: &mut BTreeMap<String, String>) -> anyhow::Result<()> {
        let name = path.display().to_string();
        std::fs::metadata(path).with_context(|| format!("reading {name}"))?;
        let parsed = read_file(path).and_then(|text| documents(&name, &text));
        match parsed {
            Ok(documents) => documents.into_iter().for_each(|document| self.document(&name, document, seen)),
            Err(ManifestError { object, field, why, .. }) => {
                self.objects += 1;
                self.errors += 1;
                let place = [object, field].into_iter().flatten().map(|part| part + ": ").collect::<String>();
                self.line(&name, Style::Red, "error:", &format!("{place}{why}"));
            }
        }
        Ok(())
    }

    fn document(&mut self, file: &str, document: Document, seen: &mut BTreeMap<String, String>) {
        self.objects += 1;
        let label = document.label();
        let shown = slashed(&label).unwrap_or_else(|| format!("{file}: {label}"));
        let strictness = if self.lenient { Strictness::Warn } else { Strictness::Strict };
        let object = match Object::read(file, document.value, strictness) {
            Ok(object) => object,
            Err(rejected) => {
                self.errors += 1;
                for error in rejected.all() {
                    self.line(&shown, Style::Red, "error:", &format!("{error} (in {file})"));
                }
                return;
            }
        };
        let mut warnings = object.warnings().to_vec();
        if let Some(earlier) = seen.insert(label, file.to_owned()) {
            warnings.push(format!("the one in {earlier} has the same name; this one wins"));
        }
        if warnings.is_empty() {
            self.text.push_str(&format!("{} {}\n", output::printable(&shown), paint(self.colours, Style::Green, "ok")));
        }
        for warning in warnings {
            self.line(&shown, Style::Yellow, "warning:", &warning);
        }
    }

    fn line(&mut self, object: &str, style: Style, word: &str, what: &str) {
        let (object, what) = (output::printable(object), output::printable(what));
        self.text.push_str(&format!("{object} {} {what}\n", paint(self.colours, style, word)));
    }
}

/// `Trigger site-1/x` as `trigger/site-1/x`, and without the namespace where that is `default`.
fn slashed(label: &str) -> Option<String> {
    let (kind, name) = label.split_once(' ').filter(|(_, name)| name.contains('/'))?;
    Some(format!("{}/{}", kind.to_lowercase(), name.strip_prefix("default/").unwrap_or(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata: {name: good}\n\
        spec: {broker: default, subscriber: {uri: 'http://127.0.0.1:9/'}}\n";

    fn lines(files: &[(&str, &str)], lenient: bool) -> (Vec<String>, usize) {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).expect("written");
        }
        let mut report = Report { lenient, ..Report::new(false) };
        report.path(dir.path()).expect("read");
        let folder = format!("{}/", dir.path().display());
        (report.text.lines().map(|line| line.replace(&folder, "")).collect(), report.errors)
    }

    #[test]
    fn every_object_gets_a_line_and_every_error_its_field() {
        let bad = GOOD.replace("good", "bad").replace("broker:", "brokre:").replace("uri", "url");
        let other = GOOD.replace("name: good", "name: good, namespace: site-1");
        let (lines, errors) = lines(&[("a.yaml", &format!("{GOOD}---\n{other}")), ("b.yaml", &bad)], false);
        assert_eq!(
            lines,
            [
                "trigger/good ok",
                "trigger/site-1/good ok",
                "trigger/bad error: spec.brokre: unknown field (in b.yaml)",
                "trigger/bad error: spec.subscriber.url: unknown field (in b.yaml)",
                "trigger/bad error: spec.subscriber: needs a ref or a uri (in b.yaml)",
            ]
        );
        assert_eq!(errors, 1, "one object cannot be used");
    }

    #[test]
    fn what_does_not_run_yet_and_a_name_twice_are_warnings() {
        let sink = "apiVersion: sinks.knative.dev/v1alpha1\nkind: JobSink\nmetadata: {name: s}\nspec: {job: {}}\n";
        let (lines, errors) = lines(&[("a.yaml", GOOD), ("b.yaml", &format!("{GOOD}---\n{sink}"))], false);
        assert_eq!(lines[0], "trigger/good ok");
        assert!(lines[1].starts_with("trigger/good warning: the one in a.yaml"), "{lines:?}");
        assert!(lines[2].starts_with("jobsink/s warning: ") && lines[2].contains("NotImplemented"), "{lines:?}");
        assert_eq!(errors, 0);
    }

    #[test]
    fn lenient_takes_unknown_fields_with_a_warning() {
        let (lines, errors) = lines(&[("a.yaml", &GOOD.replace("broker:", "extra: 1, broker:"))], true);
        assert_eq!((lines, errors), (vec!["trigger/good warning: unknown field \"spec.extra\"".to_owned()], 0));
    }

    #[test]
    fn a_file_that_cannot_be_parsed_is_one_error() {
        let (lines, errors) = lines(&[("a.yaml", "a: [")], false);
        assert!(lines[0].starts_with("a.yaml error: line 1"), "{lines:?}");
        assert_eq!(errors, 1);
    }
}
