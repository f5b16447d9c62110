//! `godwit dev` as a newcomer uses it: an event goes the whole way to the sink, Ctrl-C stops, and all is there again.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long anything may take here; a loaded machine is slow.
const DEADLINE: Duration = Duration::from_secs(60);

/// A running `godwit dev`; killed when dropped.
struct Dev {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Dev {
    fn start(data: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_godwit"))
            .args(["dev", "--mqtt-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"])
            .args(["--gateway-listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the command runs");
        let out = child.stdout.take().expect("stdout");
        let (give, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if give.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// The first line from now on that `fits`.
    fn wait_for(&mut self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + DEADLINE;
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.seen.push(line.clone());
            if fits(&line) {
                return line;
            }
        }
        panic!("{what} did not come; what came:\n{}", self.seen.join("\n"));
    }

    /// The URLs of agent and gateway.
    fn servers(&mut self) -> (String, String) {
        let url = |line: &str| line.split_whitespace().find(|w| w.starts_with("http://")).map(str::to_owned);
        let agent = self.wait_for("the agent's address", |line| line.trim_start().starts_with("agent "));
        let gateway = self.wait_for("the gateway's address", |line| line.trim_start().starts_with("gateway "));
        (url(&agent).expect("a URL"), url(&gateway).expect("a URL"))
    }

    fn interrupt(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("sent");
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().expect("waited") {
                assert!(status.success(), "it ended with {status}");
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it did not stop; what it wrote:\n{}", self.seen.join("\n"));
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn godwit(server: &str, arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_godwit"))
        .args(arguments)
        .args(["--server", server])
        .stdin(Stdio::null())
        .output()
        .expect("the command runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn out(server: &str, arguments: &[&str]) -> String {
    String::from_utf8(godwit(server, arguments).stdout).expect("text")
}

/// The body of a plain GET.
fn get(server: &str, path: &str) -> String {
    let address = server.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address).expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    std::io::Write::write_all(&mut stream, request.as_bytes()).expect("sent");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
    body.to_owned()
}

/// The names of all members of a JSON value, except below `skip`: there they are data.
fn members(value: &serde_json::Value, skip: &[&str], names: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (name, value) in object {
                names.insert(name.clone());
                if !skip.contains(&name.as_str()) {
                    members(value, skip, names);
                }
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| members(item, skip, names)),
        _ => {}
    }
}

#[test]
fn every_metric_and_status_field_is_documented() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
    let document = std::fs::read_to_string(document).expect("read");
    let dir = tempfile::tempdir().expect("a folder");
    let mut dev = Dev::start(&dir.path().join("data"));
    let (agent, gateway) = dev.servers();
    out(&agent, &["send", "--data", "1"]);
    dev.wait_for("the event at the sink", |line| line.starts_with('←'));
    for server in [&agent, &gateway] {
        for line in get(server, "/metrics").lines().filter(|line| line.starts_with("# TYPE ")) {
            let name = line.split_whitespace().nth(2).expect("a name");
            assert!(document.contains(&format!("`{name}`")), "{name} is not in docs/operations.md");
        }
        let status = serde_json::from_str(&get(server, "/status")).expect("JSON");
        let mut names = std::collections::BTreeSet::new();
        members(&status, &["dropped", "counters", "labels", "skipped"], &mut names);
        for name in names {
            assert!(
                document.contains(&format!("`{name}`")) || document.contains(&format!("`{name}[]`")),
                "{name} of /status"
            );
        }
    }
    dev.interrupt();
}

#[test]
fn an_event_goes_the_whole_way_and_is_still_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");

    let mut dev = Dev::start(&data);
    let (agent, gateway) = dev.servers();
    out(&agent, &["send", "--type", "hello", "--subject", "first", "--data", "{\"n\":1.10}"]);
    let line = dev.wait_for("the event at the sink", |line| line.starts_with('←'));
    assert!(line.contains("hello first {\"n\":1.10}"), "{line}");

    // What waits while the link is held arrives when it is let go, once and in order.
    assert!(out(&agent, &["link", "hold"]).contains("state: held"));
    out(&agent, &["send", "--type", "later", "--data", "2", "--count", "20", "--id", "x"]);
    assert!(out(&agent, &["cursor", "list"]).lines().any(|line| line.starts_with("uplink") && line.contains(" 20 ")));
    dev.interrupt();

    let mut dev = Dev::start(&data);
    let (agent, _) = dev.servers();
    assert!(out(&agent, &["link", "status"]).contains("state: held"), "a held link stays held over a restart");
    let raw = out(&agent, &["tail", "--from", "start", "--no-follow", "-o", "raw", "-n", "2"]);
    assert_eq!(raw, "{\"n\":1.10}\n2\n");
    out(&agent, &["link", "resume"]);
    for _ in 0..20 {
        dev.wait_for("an event that was held", |line| line.starts_with('←') && line.contains(" later "));
    }
    let only = out(&agent, &["tail", "--from", "start", "--no-follow", "-o", "json", "-a", "type=hello"]);
    assert_eq!(only.lines().count(), 1, "{only}");
    assert!(out(&agent, &["get", "brokers"]).contains("default/default"));
    drop(gateway);
    dev.interrupt();
}

#[test]
fn a_channel_is_fed_watched_and_steered_as_a_broker_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut dev = Dev::start(&dir.path().join("data"));
    let (agent, _) = dev.servers();
    let file = dir.path().join("channel.yaml");
    let yaml = "apiVersion: messaging.knative.dev/v1\nkind: InMemoryChannel\nmetadata: {name: orders}\n---\n\
        apiVersion: messaging.knative.dev/v1\nkind: Subscription\nmetadata: {name: nobody}\nspec:\n  channel: {apiVersion: \
        messaging.knative.dev/v1, kind: InMemoryChannel, name: orders}\n  subscriber: {uri: 'http://127.0.0.1:1/'}\n";
    std::fs::write(&file, yaml).expect("written");
    out(&agent, &["apply", "-f", file.to_str().expect("text")]);
    out(&agent, &["send", "--channel", "orders", "--type", "order", "--data", "one", "--count", "3"]);

    let raw = out(&agent, &["tail", "--channel", "default/orders", "--from", "start", "--no-follow", "-o", "raw"]);
    assert_eq!(raw, "one\none\none\n");
    let list = out(&agent, &["cursor", "list", "--channel", "orders"]);
    let row: Vec<&str> = list.lines().nth(1).expect("a consumer").split_whitespace().collect();
    assert!(row[0].contains("nobody") && row[1..3] == ["0", "3"], "{list}");
    let moved = out(&agent, &["cursor", "seek", row[0], "latest", "--channel", "orders"]);
    assert!(moved.contains("skipped 3"), "{moved}");
    assert!(out(&agent, &["dead-letter", "list", "--channel", "orders"]).lines().count() <= 1, "no dead letters");
    assert!(!out(&agent, &["tail", "--from", "start", "--no-follow", "-o", "raw"]).contains("one"), "not in the Broker");
    dev.interrupt();
}
