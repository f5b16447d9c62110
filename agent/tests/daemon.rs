//! The agent as a service manager and an operator meet it: ready when its port is open, out with 0, one owner, clear refusals.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take here; a loaded machine is slow.
const DEADLINE: Duration = Duration::from_secs(60);

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_godwit-agent"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("GODWIT_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    command().args(arguments).output().expect("the agent runs")
}

/// A running agent, its log and where it serves HTTP; killed when dropped.
struct Running(Child, BufReader<std::process::ChildStderr>, String);

impl Running {
    /// Starts one on ports of the system's choice and waits until it says that it is ready.
    fn start(data: &Path, more: &[&str]) -> Self {
        Self::start_telling(data, more).0
    }

    /// The same, with what it said until then.
    fn start_telling(data: &Path, more: &[&str]) -> (Self, String) {
        let mut child = command()
            .args(["--mqtt-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the agent runs");
        let log = BufReader::new(child.stderr.take().expect("stderr"));
        let mut running = Self(child, log, String::new());
        let said = running.log_until("is ready");
        let http = said.split_once("http=").expect("where it serves").1;
        running.2 = http.split_whitespace().next().expect("an address").to_owned();
        (running, said)
    }

    /// The answer to a GET, head and body.
    fn get(&self, path: &str) -> String {
        let mut tcp = std::net::TcpStream::connect(&self.2).expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        std::io::Write::write_all(&mut tcp, request.as_bytes()).expect("sent");
        std::io::read_to_string(tcp).expect("answered")
    }

    /// Reads the log until a line has `text`.
    fn wait_for(&mut self, text: &str) -> String {
        self.log_until(text).lines().last().unwrap_or_default().to_owned()
    }

    /// The log until a line has `text`.
    fn log_until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            let before = seen.len();
            let read = self.1.read_line(&mut seen).expect("text");
            assert!(read > 0, "the log ended without \"{text}\":\n{seen}");
            if seen.get(before..).is_some_and(|line| line.contains(text)) {
                return seen;
            }
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).expect("sent");
    }

    fn ended(&mut self) -> std::process::ExitStatus {
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            if let Some(status) = self.0.try_wait().expect("waited") {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the agent did not end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_says_its_name_and_version() {
    let output = run(&["--version"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("godwit-agent {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn it_stops_with_0_and_the_data_folder_has_one_owner() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut agent = Running::start(dir.path(), &["--id", "boat-7"]);
    let data = dir.path().to_str().expect("text");
    let second = run(&["--data-dir", data, "--mqtt-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(1));
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(error.contains(&format!("process {}", agent.0.id())), "{error}");
    agent.signal(rustix::process::Signal::TERM);
    assert!(agent.ended().success());
    let mut again = Running::start(dir.path(), &["--id", "boat-7"]);
    again.signal(rustix::process::Signal::INT);
    assert!(again.ended().success());
}

#[test]
fn a_wrong_set_of_manifests_keeps_it_neither_from_going_on_nor_from_starting() {
    let dir = tempfile::tempdir().expect("a folder");
    let manifests = dir.path().join("manifests");
    std::fs::create_dir(&manifests).expect("made");
    let file = manifests.join("x.yaml");
    let good = "apiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata: {name: x}\n\
        spec: {broker: default, subscriber: {uri: 'http://127.0.0.1:9/'}}\n";
    std::fs::write(&file, good).expect("written");
    let folder = manifests.to_str().expect("text");
    assert!(run(&["--manifests", folder, "--check"]).status.success());
    let data = dir.path().join("data");
    let mut agent = Running::start(&data, &["--manifests", folder]);
    std::fs::write(&file, good.replace("broker:", "brokre:")).expect("written");
    agent.signal(rustix::process::Signal::HUP);
    let line = agent.wait_for("manifests not applied");
    assert!(line.contains("x.yaml") && line.contains("brokre"), "{line}");
    agent.signal(rustix::process::Signal::TERM);
    assert!(agent.ended().success());
    // At a start the set from before is run, and at the first one none, until the folder is mended.
    for (data, said) in [(data, "the last set that could is run"), (dir.path().join("other"), "none is run")] {
        std::fs::write(&file, good.replace("broker:", "brokre:")).expect("written");
        let (mut agent, log) = Running::start_telling(&data, &["--manifests", folder]);
        assert!(log.contains(said) && log.contains("brokre"), "{log}");
        let ready = agent.get("/readyz");
        assert!(ready.contains("200 OK") && ready.contains("ready\ndegraded: manifests: "), "{ready}");
        assert!(!ready.contains("brokre"), "everybody may ask: {ready}");
        std::fs::write(&file, good).expect("written");
        agent.wait_for("manifests applied");
        assert!(agent.get("/readyz").ends_with("\r\n\r\nready\n"));
        agent.signal(rustix::process::Signal::TERM);
        assert!(agent.ended().success());
    }
    std::fs::write(&file, "kind: Nothing\n").expect("written");
    assert_eq!(run(&["--manifests", folder, "--check"]).status.code(), Some(1));
}

#[test]
fn what_is_wrong_with_the_configuration_is_said_before_anything_is_opened() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, "[mqtt]\nlisten = \"127.0.0.1:0\"\nmax-conections = 3\n").expect("written");
    for (arguments, wanted) in [
        (
            &["--config", file.to_str().expect("text")][..],
            "agent.toml:3: unknown key \"mqtt.max-conections\"; did you mean",
        ),
        (&["--http-listen", "0.0.0.0:0", "--check"], "insecure = true"),
        (&["--gateway", "ftp://x", "--check"], "gateway.url"),
        (&["--id", "Boat 7", "--check"], "agent.id"),
        (&["--log-format", "xml", "--check"], "flag --log-format: log.format"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(wanted), "{arguments:?}: {error}");
    }
    assert_eq!(run(&["--mqtt-port", "1"]).status.code(), Some(2));
}

#[test]
fn readiness_is_told_to_the_service_manager_and_logs_can_be_json() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("bound");
    socket.set_read_timeout(Some(DEADLINE)).expect("set");
    let mut child = command()
        .args(["--mqtt-listen", "", "--http-listen", "127.0.0.1:0", "--log-format", "json", "--data-dir"])
        .arg(dir.path().join("data"))
        .env("NOTIFY_SOCKET", &path)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the agent runs");
    let log = BufReader::new(child.stderr.take().expect("stderr"));
    let mut agent = Running(child, log, String::new());
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).expect("a message");
    assert_eq!(&buffer[..length], b"READY=1");
    let line = agent.wait_for("the agent is ready");
    assert!(line.starts_with('{') && line.contains("\"http\":\"127.0.0.1:"), "{line}");
    agent.signal(rustix::process::Signal::TERM);
    let length = socket.recv(&mut buffer).expect("a message");
    assert_eq!(&buffer[..length], b"STOPPING=1");
    assert!(agent.ended().success());
}
