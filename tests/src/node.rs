//! An agent or a gateway under test: its configuration, its process, and what it tells of itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::events::{self, Entry};
use crate::http::{self, Response};
use crate::lab::Lab;
use crate::process::{Line, Process};
use crate::{binaries, ports, wait};

/// How long a start may take before it counts as failed; far above what is promised, for slow machines.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long an orderly stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// The broker that always exists.
pub const DEFAULT_BROKER: &str = "default/default";

/// An agent or gateway, running or not. What it keeps is in its folder, so that it may be killed and started again.
#[derive(Debug)]
pub struct Node {
    name: String,
    program: &'static str,
    folder: PathBuf,
    log: PathBuf,
    settings: BTreeMap<String, BTreeMap<String, String>>,
    address: IpAddr,
    http_port: u16,
    mqtt_port: Option<u16>,
    process: Option<Process>,
    /// Programs that run it, outermost first (`ip netns exec …`).
    pub before: Vec<String>,
    /// What [`Line::run_by`] says: an emulator or a profiler.
    pub run_by: Vec<String>,
    /// Another program than the one under test in [`binaries`].
    pub binary: Option<PathBuf>,
    /// A token to be sent with each request.
    pub bearer: Option<String>,
    /// Variables set for it.
    pub environment: Vec<(String, String)>,
}

impl Node {
    /// An agent with the id `id`, not started, without a gateway.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn agent(lab: &Lab, id: &str) -> Result<Self> {
        let mut node = Self::new(lab, id, "godwit-agent")?;
        node.mqtt_port = Some(ports::free());
        node.set("agent.id", id);
        node.set("agent.data-dir", &node.data().display().to_string());
        // Short, so that a test need not wait for what a real link waits for.
        node.set("gateway.heartbeat", "1s");
        node.set("gateway.backoff-max", "1s");
        node.listen(Ipv4Addr::LOCALHOST.into());
        Ok(node)
    }

    /// A gateway, not started.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn gateway(lab: &Lab) -> Result<Self> {
        Self::gateway_named(lab, "gateway")
    }

    /// A gateway whose folder and log have the name `name`, not started.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn gateway_named(lab: &Lab, name: &str) -> Result<Self> {
        let mut node = Self::new(lab, name, "godwit-gateway")?;
        node.set("gateway.data-dir", &node.data().display().to_string());
        node.listen(Ipv4Addr::LOCALHOST.into());
        Ok(node)
    }

    fn new(lab: &Lab, name: &str, program: &'static str) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            program,
            folder: lab.folder(name)?,
            log: lab.path().join(format!("{name}.log")),
            settings: BTreeMap::new(),
            address: Ipv4Addr::LOCALHOST.into(),
            http_port: ports::free(),
            mqtt_port: None,
            process: None,
            before: Vec::new(),
            run_by: Vec::new(),
            binary: None,
            bearer: None,
            environment: Vec::new(),
        })
    }

    /// Sets `section.key`; a list or table is given as TOML, all else as plain text.
    ///
    /// # Panics
    /// When `key` has no dot.
    pub fn set(&mut self, key: &str, value: &str) {
        let (section, key) = key.split_once('.').expect("a key is section.key");
        let value = if value.starts_with(['[', '{']) { value.to_owned() } else { format!("{value:?}") };
        self.settings.entry(section.to_owned()).or_default().insert(key.to_owned(), value);
    }

    /// Listens at `address` from the next start on.
    pub fn listen(&mut self, address: IpAddr) {
        self.address = address;
        self.set("http.listen", &self.http().to_string());
        if let Some(mqtt) = self.mqtt_port {
            self.set("mqtt.listen", &SocketAddr::new(address, mqtt).to_string());
        }
    }

    /// Puts an agent's way up to `gateway` (or to a relay before it).
    pub fn uplink(&mut self, gateway: SocketAddr) {
        self.set("gateway.url", &format!("http://{gateway}"));
    }

    /// Keeps its data at `path` (a small disk) rather than in the lab.
    pub fn keep_data_at(&mut self, path: &Path) {
        path.clone_into(&mut self.folder);
        let section = if self.mqtt_port.is_some() { "agent" } else { "gateway" };
        self.set(&format!("{section}.data-dir"), &self.data().display().to_string());
    }

    /// The folder with what it keeps.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The folder of a broker's segments.
    #[must_use]
    pub fn journal(&self, broker: &str) -> PathBuf {
        self.data().join("brokers").join(broker).join("journal")
    }

    /// Where its HTTP listener is.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.http_port)
    }

    /// Where an agent's MQTT listener is.
    ///
    /// # Panics
    /// For a gateway.
    #[must_use]
    pub fn mqtt(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.mqtt_port.expect("an agent has an MQTT listener"))
    }

    /// Starts it and waits until its ports are open; gives how long that took.
    ///
    /// # Errors
    /// When it does not start, with its last log lines.
    pub fn start(&mut self) -> Result<Duration> {
        let line = self.line()?;
        let begun = Instant::now();
        let mut process = Process::start(&self.name, &line, &self.log)?;
        let wanted: Vec<SocketAddr> =
            std::iter::once(self.http()).chain(self.mqtt_port.map(|port| SocketAddr::new(self.address, port))).collect();
        for address in wanted {
            while TcpStream::connect(address).is_err() {
                if let Some(status) = process.ended()? {
                    bail!("{} ended at its start: {status}\n{}", self.name, process.last_lines());
                }
                if begun.elapsed() > START_LIMIT {
                    bail!("{}: {address} not open within {START_LIMIT:?}\n{}", self.name, process.last_lines());
                }
                std::thread::sleep(Duration::from_micros(500));
            }
        }
        self.process = Some(process);
        Ok(begun.elapsed())
    }

    /// Starts it and expects that it refuses; gives what it said.
    ///
    /// # Errors
    /// When it goes on running.
    pub fn start_refused(&mut self) -> Result<String> {
        let line = self.line()?;
        let mut process = Process::start(&self.name, &line, &self.log)?;
        let status = wait::until("it refuses to start", START_LIMIT, || match process.ended() {
            Ok(Some(status)) => wait::Seen::Yes(status),
            _ => wait::Seen::NotYet("it runs".to_owned()),
        })?;
        anyhow::ensure!(!status.success(), "it ended with success");
        Ok(process.last_lines())
    }

    /// Writes its configuration beside its log and gives the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_config(&self) -> Result<PathBuf> {
        let config = self.log.with_extension("toml");
        let mut text = String::new();
        for (section, keys) in &self.settings {
            writeln!(text, "[{section}]")?;
            for (key, value) in keys {
                writeln!(text, "{key} = {value}")?;
            }
        }
        std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        Ok(config)
    }

    fn line(&self) -> Result<Line> {
        let config = self.write_config()?;
        let line = Line {
            program: self.binary.clone().unwrap_or_else(|| binaries::path(self.program)),
            arguments: vec!["--config".to_owned(), config.display().to_string()],
            environment: self.environment.clone(),
            before: self.before.clone(),
        };
        Ok(line.run_by(&self.run_by))
    }

    /// The running process.
    ///
    /// # Panics
    /// When it is not running.
    #[must_use]
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the node was started")
    }

    /// Kills it as a power cut would.
    ///
    /// # Errors
    /// When it had ended by itself before.
    ///
    /// # Panics
    /// When it is not running.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.take().expect("the node was started").kill9()
    }

    /// Stops it in order.
    ///
    /// # Errors
    /// When it does not end in time, or not with exit status 0.
    ///
    /// # Panics
    /// When it is not running.
    pub fn stop(&mut self) -> Result<()> {
        let process = self.process.take().expect("the node was started");
        let lines = process.last_lines();
        let status = process.stop(STOP_LIMIT)?;
        anyhow::ensure!(status.success(), "{} ended with {status} after SIGTERM\n{lines}", self.name);
        Ok(())
    }

    fn authorization(&self) -> Option<String> {
        self.bearer.as_ref().map(|token| format!("Bearer {}", token.trim()))
    }

    /// A GET.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn get(&self, path: &str) -> Result<Response> {
        let authorization = self.authorization();
        let headers: Vec<(&str, &str)> = authorization.iter().map(|value| ("authorization", value.as_str())).collect();
        http::request(self.http(), "GET", path, &headers, b"")
    }

    /// Posts an event in binary mode with the given data and content type.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn post(&self, broker: &str, id: &str, content_type: &str, data: &[u8]) -> Result<Response> {
        let headers = [
            ("ce-specversion", "1.0"),
            ("ce-id", id),
            ("ce-source", "/test"),
            ("ce-type", "test.event"),
            ("content-type", content_type),
        ];
        http::request(self.http(), "POST", &format!("/{broker}"), &headers, data)
    }

    /// `/status`.
    ///
    /// # Errors
    /// When it does not answer with JSON.
    pub fn status(&self) -> Result<Value> {
        let response = self.get("/status")?;
        serde_json::from_slice(&response.body).with_context(|| format!("/status is not JSON: {}", response.text()))
    }

    /// What `/status` says of one broker (`namespace/name`).
    ///
    /// # Errors
    /// When it does not say anything of it.
    pub fn broker(&self, broker: &str) -> Result<Value> {
        let status = self.status()?;
        let (namespace, name) = broker.split_once('/').context("a broker is namespace/name")?;
        let brokers = status.get("brokers").and_then(Value::as_array).context("no brokers in /status")?;
        let found = brokers.iter().find(|b| b["namespace"] == namespace && b["name"] == name);
        found.cloned().with_context(|| format!("no broker {broker} in {status}"))
    }

    /// How many events a broker ever took.
    ///
    /// # Errors
    /// When `/status` does not say.
    pub fn accepted(&self, broker: &str) -> Result<u64> {
        let broker = self.broker(broker)?;
        broker["accepted"].as_u64().with_context(|| format!("no accepted in {broker}"))
    }

    /// What `/status` says of a broker's consumer.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn consumer(&self, broker: &str, consumer: &str) -> Result<Value> {
        let broker = self.broker(broker)?;
        let consumers = broker["consumers"].as_array().context("no consumers")?;
        let found = consumers.iter().find(|c| c["name"].as_str().is_some_and(|name| name.contains(consumer)));
        found.cloned().with_context(|| format!("no consumer {consumer} in {broker}"))
    }

    /// All events that a broker has, from the oldest.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn events(&self, broker: &str) -> Result<Vec<Entry>> {
        events::read(broker, |path| self.get(path))
    }

    /// Waits until a broker has taken `count` events or more.
    ///
    /// # Errors
    /// When it has not within `limit`.
    pub fn wait_accepted(&self, broker: &str, count: u64, limit: Duration) -> Result<u64> {
        wait::at_least(format!("{} takes events into {broker}", self.name), limit, count, || self.accepted(broker))
    }
}
