//! Load by MQTT: many publishing clients in one thread, each with a window of publishes in flight, that come back after every cut
//! and remember what was acknowledged.
//!
//! A QoS 1 client resends what was not acknowledged when it comes back, which may make a second event; a QoS 2 client keeps its
//! session and goes on with its hand-shakes, which may not. Payloads can be made again from the client's name and the number, so
//! that an audit compares bytes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::mqtt::{self, Packet};

/// How long a client waits before it tries to connect again.
const RECONNECT: Duration = Duration::from_millis(10);
/// How long a client waits for the answer to its CONNECT.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How often a client that is limited in rate looks whether it may publish.
const PACE: Duration = Duration::from_millis(5);

/// What to publish.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The listener.
    pub to: SocketAddr,
    /// Number of clients.
    pub clients: usize,
    /// Client ids are this and a number.
    pub name: String,
    /// Clients with a lower number than this use QoS 2 and a lasting session, the others QoS 1.
    pub exact: usize,
    /// Most publishes of one client without acknowledgement.
    pub window: usize,
    /// Bytes of a payload, at least 64.
    pub size: usize,
    /// Publishes of one client each second; 0 for as many as go.
    pub rate: u32,
    /// Publishes of one client in all; 0 for no end.
    pub count: u64,
    /// The topic; `{}` stands for the client id.
    pub topic: String,
    /// User name and password.
    pub user: Option<(String, String)>,
    /// The network namespace in which the clients live, if not the test's own.
    pub inside: Option<PathBuf>,
}

impl Plan {
    /// Ten clients at QoS 1 with 20 in flight each, 256 B payloads, no limit of rate or number.
    #[must_use]
    pub fn new(to: SocketAddr) -> Self {
        Self {
            to,
            clients: 10,
            name: "load".to_owned(),
            exact: 0,
            window: 20,
            size: 256,
            rate: 0,
            count: 0,
            topic: "load/{}".to_owned(),
            user: None,
            inside: None,
        }
    }
}

/// What one client did.
#[derive(Debug)]
pub struct Record {
    /// Its id.
    pub client: String,
    /// Whether it used QoS 2.
    pub exact: bool,
    /// The numbers that were acknowledged (PUBACK, or PUBCOMP), in the order in which that came.
    pub acknowledged: Vec<u64>,
    /// How many numbers were sent at least once: 0 to this, without it.
    pub published: u64,
    /// How many publishes were sent again after a cut.
    pub resent: u64,
    /// Acknowledgements that came in another order than the publishes went.
    pub out_of_order: u64,
    /// Bytes of each payload.
    pub size: usize,
}

/// The payload of a client's publish number `number`: JSON, `size` bytes.
#[must_use]
pub fn payload(client: &str, number: u64, size: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(size);
    write_payload(&mut out, client, number, size);
    out
}

fn write_payload(out: &mut Vec<u8>, client: &str, number: u64, size: usize) {
    let begin = out.len();
    out.extend_from_slice(b"{\"n\":\"");
    let mut digits = [b'0'; 12];
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    out.extend_from_slice(&digits);
    out.extend_from_slice(b"\",\"c\":\"");
    out.extend_from_slice(client.as_bytes());
    out.extend_from_slice(b"\",\"p\":\"");
    let end = begin + size.max(out.len() - begin + 2) - 2;
    out.resize(end, b'.');
    out.extend_from_slice(b"\"}");
}

/// Reads a payload's client and number again.
#[must_use]
pub fn read_payload(payload: &[u8]) -> Option<(String, u64)> {
    let text = std::str::from_utf8(payload).ok()?;
    let rest = text.strip_prefix("{\"n\":\"")?;
    let (number, rest) = rest.split_once("\",\"c\":\"")?;
    let (client, _) = rest.split_once('"')?;
    Some((client.to_owned(), number.parse().ok()?))
}

/// Clients at work in a thread of their own.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<Result<Vec<Record>>>>,
}

#[derive(Debug, Default)]
struct Shared {
    acknowledged: AtomicU64,
    stop: AtomicBool,
    give_up: AtomicBool,
}

impl Load {
    /// Begins.
    ///
    /// # Panics
    /// When no thread can be made.
    #[must_use]
    pub fn start(plan: Plan) -> Self {
        let shared = Arc::new(Shared::default());
        let given = Arc::clone(&shared);
        let thread = std::thread::spawn(move || run(&plan, &given));
        Self { shared, thread: Some(thread) }
    }

    /// How many publishes have been acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Publishes nothing new, waits until all is acknowledged, at most `limit`, and gives what was done.
    ///
    /// # Errors
    /// When a client failed for another reason than a lost connection.
    ///
    /// # Panics
    /// When the thread did.
    pub fn finish(mut self, limit: Duration) -> Result<Vec<Record>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.wait(limit)
    }

    /// Waits until each client has published its `count` and all is acknowledged, at most `limit`.
    ///
    /// # Errors
    /// As [`Load::finish`].
    ///
    /// # Panics
    /// As [`Load::finish`].
    pub fn wait_count(mut self, limit: Duration) -> Result<Vec<Record>> {
        self.wait(limit)
    }

    fn wait(&mut self, limit: Duration) -> Result<Vec<Record>> {
        let thread = self.thread.take().expect("waited for once");
        let begun = Instant::now();
        while !thread.is_finished() {
            if begun.elapsed() > limit {
                self.shared.stop.store(true, Ordering::Relaxed);
                self.shared.give_up.store(true, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        thread.join().expect("the load's thread does not panic")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.give_up.store(true, Ordering::Relaxed);
    }
}

fn run(plan: &Plan, shared: &Arc<Shared>) -> Result<Vec<Record>> {
    if let Some(path) = &plan.inside {
        // Only this thread moves, and with it the sockets that it makes.
        let namespace = std::fs::File::open(path).with_context(|| path.display().to_string())?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for number in 0..plan.clients {
            let client = Client::new(plan, number, Arc::clone(shared));
            tasks.spawn(client.run());
        }
        let mut records = Vec::with_capacity(plan.clients);
        while let Some(done) = tasks.join_next().await {
            records.push(done??);
        }
        records.sort_by(|a, b| a.client.cmp(&b.client));
        Ok(records)
    })
}

/// A publish without its last acknowledgement.
struct Flight {
    packet_id: u16,
    number: u64,
    /// QoS 2: the PUBREC came.
    received: bool,
}

struct Client {
    plan: Plan,
    topic: String,
    qos: u8,
    shared: Arc<Shared>,
    record: Record,
    flights: VecDeque<Flight>,
    begun: Instant,
    out: Vec<u8>,
    scratch: Vec<u8>,
}

impl Client {
    fn new(plan: &Plan, number: usize, shared: Arc<Shared>) -> Self {
        let client = format!("{}-{number}", plan.name);
        let exact = number < plan.exact;
        Self {
            topic: plan.topic.replace("{}", &client),
            qos: if exact { 2 } else { 1 },
            shared,
            record: Record {
                client,
                exact,
                acknowledged: Vec::new(),
                published: 0,
                resent: 0,
                out_of_order: 0,
                size: plan.size,
            },
            flights: VecDeque::with_capacity(plan.window),
            begun: Instant::now(),
            out: Vec::with_capacity(64 << 10),
            scratch: Vec::with_capacity(plan.size),
            plan: plan.clone(),
        }
    }

    async fn run(mut self) -> Result<Record> {
        while !self.done() {
            if let Ok(mut stream) = TcpStream::connect(self.plan.to).await {
                stream.set_nodelay(true)?;
                // A lost connection is what these tests are about; a wrong answer is not.
                if let Err(error) = self.serve(&mut stream).await
                    && error.downcast_ref::<std::io::Error>().is_none()
                {
                    return Err(error.context(self.record.client.clone()));
                }
            }
            if !self.done() {
                tokio::time::sleep(RECONNECT).await;
            }
        }
        Ok(self.record)
    }

    fn done(&self) -> bool {
        let all = self.plan.count > 0 && self.record.published >= self.plan.count;
        let ending = all || self.shared.stop.load(Ordering::Relaxed);
        ending && self.flights.is_empty() || self.shared.give_up.load(Ordering::Relaxed)
    }

    async fn serve(&mut self, stream: &mut TcpStream) -> Result<()> {
        self.out.clear();
        let user = self.plan.user.as_ref().map(|(name, password)| (name.as_str(), password.as_str()));
        mqtt::connect(&mut self.out, &self.record.client, !self.record.exact, 30, user);
        stream.write_all(&self.out).await?;
        let mut read = Vec::with_capacity(64 << 10);
        let greeted = async {
            while mqtt::next(&read).is_none() {
                if stream.read_buf(&mut read).await? == 0 {
                    return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
                }
            }
            Ok(())
        };
        tokio::time::timeout(CONNECT_LIMIT, greeted).await.map_err(std::io::Error::from)??;
        match mqtt::next(&read) {
            // Whether the session is still there does not matter: what is resent is either known or was never stored.
            Some((Packet::ConnAck(_, 0), size)) => drop(read.drain(..size)),
            other => bail!("refused: {other:?}"),
        }
        self.resend();
        loop {
            self.fill();
            if !self.out.is_empty() {
                stream.write_all(&self.out).await?;
                self.out.clear();
            }
            if self.done() {
                mqtt::disconnect(&mut self.out);
                stream.write_all(&self.out).await?;
                return Ok(());
            }
            // The pace is a time-out in both cases: it is how the end is noticed when nothing comes.
            let pace = if self.plan.rate > 0 { PACE } else { Duration::from_millis(50) };
            if let Ok(got) = tokio::time::timeout(pace, stream.read_buf(&mut read)).await
                && got? == 0
            {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
            self.take(&mut read)?;
        }
    }

    fn resend(&mut self) {
        self.out.clear();
        for flight in &self.flights {
            if flight.received {
                mqtt::pubrel(&mut self.out, flight.packet_id);
            } else {
                self.scratch.clear();
                write_payload(&mut self.scratch, &self.record.client, flight.number, self.plan.size);
                mqtt::publish(&mut self.out, &self.topic, self.qos, flight.packet_id, true, &self.scratch);
                self.record.resent += 1;
            }
        }
    }

    fn fill(&mut self) {
        if self.shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let mut may = if self.plan.count > 0 { self.plan.count - self.record.published } else { u64::MAX };
        if self.plan.rate > 0 {
            let allowed = self.begun.elapsed().as_millis() * u128::from(self.plan.rate) / 1000;
            may = may.min(u64::try_from(allowed).unwrap_or(u64::MAX).saturating_sub(self.record.published));
        }
        while self.flights.len() < self.plan.window && may > 0 {
            let number = self.record.published;
            let packet_id = u16::try_from(number % 65_535 + 1).unwrap_or(1);
            self.scratch.clear();
            write_payload(&mut self.scratch, &self.record.client, number, self.plan.size);
            mqtt::publish(&mut self.out, &self.topic, self.qos, packet_id, false, &self.scratch);
            self.flights.push_back(Flight { packet_id, number, received: false });
            self.record.published += 1;
            may -= 1;
        }
    }

    fn take(&mut self, read: &mut Vec<u8>) -> Result<()> {
        let mut at = 0;
        while let Some((packet, size)) = mqtt::next(read.get(at..).unwrap_or_default()) {
            at += size;
            match packet {
                Packet::PubAck(id) if self.qos == 1 => self.acknowledged(id)?,
                Packet::PubComp(id) if self.qos == 2 => self.acknowledged(id)?,
                Packet::PubRec(id) if self.qos == 2 => {
                    if let Some(flight) = self.flights.iter_mut().find(|flight| flight.packet_id == id) {
                        flight.received = true;
                    }
                    mqtt::pubrel(&mut self.out, id);
                }
                other => bail!("unexpected {other:?}"),
            }
        }
        read.drain(..at);
        Ok(())
    }

    fn acknowledged(&mut self, packet_id: u16) -> Result<()> {
        let found = self.flights.iter().position(|flight| flight.packet_id == packet_id);
        let at = found.with_context(|| format!("packet {packet_id} was acknowledged but is not in flight"))?;
        if at > 0 {
            self.record.out_of_order += 1;
        }
        if let Some(flight) = self.flights.remove(at) {
            self.record.acknowledged.push(flight.number);
            self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_json_of_the_size_asked_for_and_tells_where_it_came_from() {
        let bytes = payload("load-3", 42, 256);
        assert_eq!(bytes.len(), 256);
        assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
        assert_eq!(read_payload(&bytes), Some(("load-3".to_owned(), 42)));
    }
}
