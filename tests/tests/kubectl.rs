//! Promise: `kubectl` works against an agent and a gateway as it does against Kubernetes. The test says which kubectl it used;
//! without one (Debian: `kubernetes-client`) it is skipped. `GODWIT_KUBECTL` names another one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use godwit_tests::lab::{self, Lab};
use godwit_tests::node::Node;
use godwit_tests::sink::Sink;
use godwit_tests::skip;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);

/// kubectl, and whom it talks to.
struct Kubectl {
    program: PathBuf,
    server: String,
    home: PathBuf,
}

impl Kubectl {
    /// The kubectl of this machine, if there is one.
    fn find(test: &str, lab: &Lab, node: &Node) -> Result<Option<Self>> {
        let program = std::env::var_os("GODWIT_KUBECTL").map_or_else(|| PathBuf::from("kubectl"), PathBuf::from);
        let version = Command::new(&program).args(["version", "--client", "-o", "json"]).stderr(Stdio::null()).output();
        let Ok(version) = version else {
            skip::skip(test, "needs the program kubectl (Debian: kubernetes-client)");
            return Ok(None);
        };
        let version: Value = serde_json::from_slice(&version.stdout).context("kubectl version is no JSON")?;
        eprintln!("{test}: with kubectl {}", version["clientVersion"]["gitVersion"]);
        let server = format!("http://{}", node.http());
        Ok(Some(Self { program, server, home: lab.folder("kubectl-home")? }))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.home)
            .arg("--server")
            .arg(&self.server)
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs it, with `stdin`; gives what it printed and whether it was content.
    fn output(&self, arguments: &[&str], stdin: &str) -> Result<Output> {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("kubectl does not start")?;
        child.stdin.take().context("stdin")?.write_all(stdin.as_bytes())?;
        Ok(child.wait_with_output()?)
    }

    /// Runs it and expects success; gives its output.
    fn with(&self, arguments: &[&str], stdin: &str) -> Result<String> {
        let output = self.output(arguments, stdin)?;
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        ensure!(output.status.success(), "kubectl {arguments:?}: {}\n{out}\n{err}", output.status);
        Ok(out)
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        self.with(arguments, "")
    }

    /// Runs it and expects that it is refused; gives what it said.
    fn refused(&self, arguments: &[&str], stdin: &str) -> Result<String> {
        let output = self.output(arguments, stdin)?;
        ensure!(!output.status.success(), "kubectl {arguments:?} was taken: {}", text(&output.stdout));
        Ok(text(&output.stderr))
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        serde_json::from_str(&self.run(arguments)?).context("no JSON")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn trigger(name: &str, to: &str, more: &str) -> String {
    format!(
        "apiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata:\n  name: {name}\n  labels: {{site: north}}\nspec:\n  \
         broker: default\n  filter:\n    attributes: {{type: test.event}}\n  subscriber:\n    uri: {to}\n{more}"
    )
}

/// A watch in the background; ended with the test.
struct Watch(Child, std::sync::mpsc::Receiver<String>);

impl Watch {
    fn start(kubectl: &Kubectl, arguments: &[&str]) -> Result<Self> {
        let mut child = kubectl.command(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let out = BufReader::new(child.stdout.take().context("stdout")?);
        let (tell, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Ok(Self(child, lines))
    }

    /// Waits for a line with all of these words.
    fn line(&self, words: &[&str]) -> Result<String> {
        let mut seen = Vec::new();
        let until = std::time::Instant::now() + LIMIT;
        while let Ok(line) = self.1.recv_timeout(until.saturating_duration_since(std::time::Instant::now())) {
            if words.iter().all(|word| line.contains(word)) {
                return Ok(line);
            }
            seen.push(line);
        }
        anyhow::bail!("no line with {words:?} within {LIMIT:?}; seen: {seen:?}")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<String> {
    let path = folder.join(name);
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

fn agent_and_gateway(name: &str, test: impl Fn(&Kubectl, &Node, &Path) -> Result<()>) -> Result<()> {
    for gateway in [false, true] {
        lab::run(|lab| {
            let mut node = if gateway { Node::gateway(lab)? } else { Node::agent(lab, "agent-1")? };
            let Some(kubectl) = Kubectl::find(name, lab, &node)? else { return Ok(()) };
            node.start()?;
            test(&kubectl, &node, lab.path())?;
            node.stop()
        })?;
    }
    Ok(())
}

#[test]
fn apply_in_both_modes_get_patch_diff_wait_and_delete() -> Result<()> {
    agent_and_gateway("apply_in_both_modes_get_patch_diff_wait_and_delete", |kubectl, node, folder| {
        let sink = Sink::start()?;
        let to = format!("{}/in", sink.url());
        let yaml = trigger("t", &to, "");
        let file = write(folder, "t.yaml", &yaml)?;

        // Client-side, dry first.
        assert!(kubectl.run(&["apply", "-f", &file, "--dry-run=server"])?.contains("created (server dry run)"));
        assert!(kubectl.refused(&["get", "trigger", "t"], "")?.contains("NotFound"));
        assert!(kubectl.run(&["apply", "-f", &file])?.contains("trigger.eventing.knative.dev/t created"));
        assert!(kubectl.run(&["apply", "-f", &file])?.contains("unchanged"));
        kubectl.run(&["wait", "--for=condition=Ready", "trigger/t", "--timeout=20s"])?;

        // It runs: what comes from now on is delivered.
        assert_eq!(node.post("default/default", "1", "text/plain", b"x")?.status, 202);
        assert_eq!(sink.wait(1, LIMIT)?.len(), 1);

        // Every output.
        let table = kubectl.run(&["get", "triggers"])?;
        let mut lines = table.lines();
        let head: Vec<_> = lines.next().unwrap_or_default().split_whitespace().collect();
        assert_eq!(head, ["NAME", "BROKER", "SUBSCRIBER_URI", "AGE", "READY", "REASON"]);
        let row = lines.next().unwrap_or_default();
        assert!(row.starts_with("t ") && row.contains(&to) && row.contains("True"), "{row}");
        assert!(kubectl.run(&["get", "trigger", "t", "-o", "wide"])?.contains("READY"));
        assert!(kubectl.run(&["get", "trigger", "t", "-o", "yaml"])?.contains("subscriberUri: "));
        assert_eq!(kubectl.json(&["get", "trigger", "t", "-o", "json"])?["status"]["subscriberUri"], to);
        assert_eq!(kubectl.run(&["get", "trigger", "t", "-o", "name"])?, "trigger.eventing.knative.dev/t\n");
        assert_eq!(kubectl.run(&["get", "trigger", "t", "-o", "jsonpath={.spec.broker}"])?, "default");
        assert!(kubectl.run(&["get", "trigger", "t", "-o", "custom-columns=B:.spec.broker"])?.contains("default"));
        assert!(kubectl.run(&["get", "triggers", "-A", "-l", "site=north"])?.contains("default"));
        assert!(kubectl.run(&["get", "triggers", "-l", "site=south", "-o", "name"])?.is_empty());
        assert_eq!(
            kubectl.run(&["get", "triggers", "--field-selector", "metadata.name=t", "-o", "name"])?.lines().count(),
            1
        );
        assert!(kubectl.run(&["get", "brokers"])?.contains("http://"));
        let described = kubectl.run(&["describe", "trigger", "t"])?;
        assert!(described.contains("Subscriber Uri:") && described.contains("Name:"), "{described}");

        // Patch, diff, and a change that cannot be.
        let other = format!("{}/other", sink.url());
        let patch = format!("{{\"spec\":{{\"subscriber\":{{\"uri\":\"{other}\"}}}}}}");
        assert!(kubectl.run(&["patch", "trigger", "t", "--type=merge", "-p", &patch])?.contains("patched"));
        let json = "[{\"op\":\"add\",\"path\":\"/metadata/labels/by\",\"value\":\"patch\"}]";
        assert!(kubectl.run(&["patch", "trigger", "t", "--type=json", "-p", json])?.contains("patched"));
        assert!(kubectl.run(&["label", "trigger", "t", "extra=yes"])?.contains("labeled"));
        let now = kubectl.json(&["get", "trigger", "t", "-o", "json"])?;
        assert_eq!((&now["status"]["subscriberUri"], &now["metadata"]["labels"]["by"]), (&other.into(), &"patch".into()));
        let diff = kubectl.output(&["diff", "-f", &file], "")?;
        assert_eq!(diff.status.code(), Some(1), "{}", text(&diff.stderr));
        assert!(text(&diff.stdout).contains("subscriber"), "{}", text(&diff.stdout));
        let moved = "{\"spec\":{\"broker\":\"other\"}}";
        assert!(kubectl.refused(&["patch", "trigger", "t", "--type=merge", "-p", moved], "")?.contains("spec.broker"));

        // Server-side, over what was applied client-side, and by another.
        assert!(kubectl.run(&["apply", "--server-side", "--force-conflicts", "-f", &file])?.contains("serverside-applied"));
        let others = trigger("t", "http://127.0.0.1:9/", "");
        let conflict = kubectl.refused(&["apply", "--server-side", "--field-manager=other", "-f", "-"], &others)?;
        assert!(conflict.contains("conflict") && conflict.contains(".spec.subscriber.uri"), "{conflict}");

        // What is wrong is named.
        let wrong = kubectl.refused(&["apply", "-f", "-"], &trigger("w", &to, "  extra: 1\n"))?;
        assert!(wrong.contains("extra"), "{wrong}");
        let wrong = kubectl.refused(&["apply", "-f", "-"], &trigger("w", "ftp://x/", ""))?;
        assert!(wrong.contains("spec.subscriber.uri"), "{wrong}");

        // Deletion is waited for.
        assert!(kubectl.run(&["delete", "trigger", "t", "--wait", "--timeout=20s"])?.contains("deleted"));
        assert!(kubectl.refused(&["get", "trigger", "t"], "")?.contains("not found"));

        // What a selector takes goes by one request; what has a finalizer goes when that is done.
        for name in ["a", "b", "kept"] {
            kubectl.with(&["apply", "-f", "-"], &trigger(name, &to, ""))?;
        }
        kubectl.run(&["label", "trigger", "kept", "--overwrite", "site=south"])?;
        let all = "/apis/eventing.knative.dev/v1/namespaces/default/triggers";
        let list: Value =
            serde_json::from_str(&kubectl.run(&["delete", "--raw", &format!("{all}?labelSelector=site%3Dnorth")])?)?;
        assert_eq!((&list["kind"], list["items"].as_array().map(Vec::len)), (&"TriggerList".into(), Some(2)), "{list}");
        assert_eq!(kubectl.run(&["get", "triggers", "-o", "name"])?.trim(), "trigger.eventing.knative.dev/kept");
        let finalizers = |list: &str| format!("{{\"metadata\":{{\"finalizers\":[{list}]}}}}");
        kubectl.run(&["patch", "trigger", "kept", "--type=merge", "-p", &finalizers("\"example.com/last\"")])?;
        kubectl.run(&["delete", "trigger", "kept", "--wait=false"])?;
        assert!(kubectl.json(&["get", "trigger", "kept", "-o", "json"])?["metadata"]["deletionTimestamp"].is_string());
        kubectl.run(&["patch", "trigger", "kept", "--type=merge", "-p", &finalizers("")])?;
        assert!(kubectl.refused(&["get", "trigger", "kept"], "")?.contains("not found"));

        // A Broker without an object is shown all the same; that its object has gone is seen, as often as it goes.
        let broker = "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {name: default}\n";
        for _ in 0..2 {
            kubectl.with(&["apply", "-f", "-"], broker)?;
            assert!(kubectl.run(&["delete", "broker", "default", "--wait", "--timeout=20s"])?.contains("deleted"));
        }
        Ok(())
    })
}

#[test]
fn a_watch_sees_what_comes_changes_and_goes() -> Result<()> {
    agent_and_gateway("a_watch_sees_what_comes_changes_and_goes", |kubectl, _, folder| {
        let file = write(folder, "w.yaml", &trigger("w", "http://127.0.0.1:9/", ""))?;
        let watch = Watch::start(kubectl, &["get", "triggers", "--watch", "--output-watch-events"])?;
        let first = write(folder, "first.yaml", &trigger("first", "http://127.0.0.1:9/", ""))?;
        kubectl.run(&["apply", "-f", &first])?;
        watch.line(&["ADDED", "first"])?;
        kubectl.run(&["apply", "-f", &file])?;
        watch.line(&["ADDED", "w "])?;
        kubectl.run(&["annotate", "trigger", "w", "a=b"])?;
        watch.line(&["MODIFIED", "w "])?;
        kubectl.run(&["delete", "-f", &file])?;
        watch.line(&["DELETED", "w "])?;
        Ok(())
    })
}

#[test]
fn discovery_and_explain_know_the_kinds() -> Result<()> {
    agent_and_gateway("discovery_and_explain_know_the_kinds", |kubectl, _, _| {
        let resources = kubectl.run(&["api-resources"])?;
        for kind in ["triggers", "brokers", "sequences", "pingsources", "mqttsources"] {
            assert!(resources.contains(kind), "{kind} in {resources}");
        }
        assert!(kubectl.run(&["version"])?.contains("godwit"));
        let explained = kubectl.run(&["explain", "trigger.spec.delivery"])?;
        assert!(explained.contains("backoffDelay") && explained.contains("first wait"), "{explained}");
        let recursive = kubectl.run(&["explain", "broker", "--recursive"])?;
        assert!(recursive.contains("deadLetterSink"), "{recursive}");
        Ok(())
    })
}

#[test]
fn objects_of_older_versions_and_kinds_that_do_not_run_are_kept() -> Result<()> {
    agent_and_gateway("objects_of_older_versions_and_kinds_that_do_not_run_are_kept", |kubectl, _, _| {
        let kinds = "apiVersion: eventing.knative.dev/v1beta2\nkind: EventType\nmetadata: {name: e}\nspec: {type: a.b, source: /x}\n\
            ---\napiVersion: sinks.knative.dev/v1alpha1\nkind: JobSink\nmetadata: {name: s}\nspec: {job: {}}\n";
        kubectl.with(&["apply", "-f", "-"], kinds)?;
        let flat = kubectl.json(&["get", "eventtypes.v1beta2.eventing.knative.dev", "e", "-o", "json"])?;
        assert_eq!(flat["spec"]["type"], "a.b");
        let listed = kubectl.json(&["get", "eventtypes.v1beta3.eventing.knative.dev", "e", "-o", "json"])?;
        assert_eq!(listed["spec"]["attributes"][0]["value"], "a.b");
        let condition = "jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}";
        assert_eq!(kubectl.run(&["get", "jobsink", "s", "-o", condition])?, "NotImplemented");
        Ok(())
    })
}
