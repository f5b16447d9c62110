//! A listener with its journal in a folder of its own, and a client that speaks bytes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use godwit_agent::mqtt::{Handle, Limits, Listener, Route, Routes, Settings, Table};
use godwit_mesh::broker::{Broker, BrokerDefaults, BrokerSettings, Brokers};
use godwit_mesh::clock::Clock;
use godwit_mesh::door::{Credentials, ServerTls};
use godwit_mesh::event::StoredEvent;
use godwit_mesh::journal::{Item, Journal, Offset, Options};
use godwit_mesh::names::{AgentId, BrokerName};
use godwit_mesh::observe::Spans;
use godwit_mesh::storage::Disk;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything that must happen may take.
const SOON: Duration = Duration::from_secs(10);

/// A listener, running.
pub struct Site {
    dir: tempfile::TempDir,
    pub journal: Journal,
    pub broker: Option<Arc<Broker>>,
    pub clock: Clock,
    pub addr: SocketAddr,
    pub handle: Handle,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    plan: Plan,
}

/// What a site is made with.
#[derive(Clone, Default)]
pub struct Plan {
    pub limits: Limits,
    pub credentials: Option<Credentials>,
    pub options: Options,
    pub tls: Option<ServerTls>,
    /// Topics that begin with `other/` go to a journal of their own.
    pub two_journals: bool,
    /// The journal is a Broker's, which stores no duplicates for so long.
    pub deduplication_ms: Option<u64>,
    pub spans: Spans,
}

fn open(dir: &Path, name: &str, options: &Options) -> Journal {
    let storage = Arc::new(Disk::new(dir).expect("a folder"));
    Journal::open(storage, name, options.clone()).expect("a journal")
}

/// The Broker `default/default`, which stores no duplicates for so long.
async fn deduplicating(dir: &Path, options: &Options, window_ms: u64) -> Arc<Broker> {
    let storage = Arc::new(Disk::new(dir).expect("a folder"));
    let defaults = BrokerDefaults { options: options.clone(), max_brokers: 1 };
    let agent = AgentId::new("test").expect("a name");
    let brokers = Brokers::open(storage, Some(agent), defaults).await.expect("opens");
    let broker = brokers.get(&BrokerName::default()).expect("there");
    broker.set(BrokerSettings { deduplication_ms: Some(window_ms), ..BrokerSettings::default() });
    broker
}

impl Site {
    pub async fn new() -> Self {
        Self::planned(Plan::default()).await
    }

    pub async fn with_limits(limits: Limits) -> Self {
        Self::planned(Plan { limits, ..Plan::default() }).await
    }

    pub async fn planned(plan: Plan) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        Self::start(dir, plan).await
    }

    async fn start(dir: tempfile::TempDir, plan: Plan) -> Self {
        let clock = Clock::manual(1_800_000_000_000);
        let broker = match plan.deduplication_ms {
            Some(window_ms) => Some(deduplicating(dir.path(), &plan.options, window_ms).await),
            None => None,
        };
        let journal = match &broker {
            Some(broker) => broker.journal().clone(),
            None => open(dir.path(), "main", &plan.options),
        };
        let routes = if let Some(broker) = &broker {
            Routes::all_to(Route::to(broker.clone(), None))
        } else if plan.two_journals {
            let other = open(dir.path(), "other", &plan.options);
            let way = |topic: &str, journal: &Journal| (vec![topic.to_owned()], Route::to_journal(journal.clone()));
            let ways = vec![way("#", &journal), way("other/#", &other)];
            Routes::new(Table::new(vec![journal.clone(), other], ways))
        } else {
            Routes::all_to(Route::to_journal(journal.clone()))
        };
        let settings = Settings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: plan.tls.clone(),
            credentials: plan.credentials.clone(),
            limits: plan.limits.clone(),
            clock: clock.clone(),
            routes,
            spans: plan.spans.clone(),
        };
        let listener = Listener::bind(settings).await.expect("a free port");
        let (addr, handle, shutdown) = (listener.local_addr(), listener.handle(), CancellationToken::new());
        let task = tokio::spawn(listener.serve(shutdown.clone()));
        Self { dir, journal, broker, clock, addr, handle, shutdown, task, plan }
    }

    /// Stops as a kill would, as far as clients can tell, and starts again on the same folder.
    pub async fn crash_and_restart(self) -> Self {
        self.task.abort();
        let _ = self.task.await;
        self.journal.close().await;
        drop((self.journal, self.broker));
        Self::start(self.dir, self.plan).await
    }

    /// Stops in good order.
    pub async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(SOON, self.task).await.expect("the listener ends").expect("without a panic");
    }

    /// Everything in the journal: topic and payload.
    pub async fn stored(&self) -> Vec<(String, Vec<u8>)> {
        self.events()
            .await
            .iter()
            .filter_map(|event| event.mqtt().map(|p| (p.topic.to_owned(), p.payload.to_vec())))
            .collect()
    }

    /// Everything in the journal.
    pub async fn events(&self) -> Vec<StoredEvent> {
        let agent = AgentId::new("test").expect("a name");
        let mut reader = self.journal.reader(Offset(0));
        let mut events = Vec::new();
        loop {
            let items = reader.try_next(1 << 20).await.expect("readable");
            if items.is_empty() {
                return events;
            }
            for item in items {
                if let Item::Event { epoch, offset, body } = item {
                    events.push(StoredEvent::new(body, epoch, offset, &agent).expect("a stored event"));
                }
            }
        }
    }

    /// A connected client of 3.1.1 with a clean session.
    pub async fn v4(&self, id: &str) -> Client {
        let mut client = Client::open(self).await;
        client.send(&connect_v4(id, true, 0)).await;
        client.expect(&[0x20, 2, 0, 0]).await;
        client
    }

    /// A connected client of 5.0 with these CONNECT properties, and its CONNACK.
    pub async fn v5(&self, id: &str, clean: bool, properties: &[u8]) -> (Client, Vec<u8>) {
        let mut client = Client::open(self).await;
        client.send(&connect_v5(id, clean, 0, properties)).await;
        let connack = client.packet().await;
        assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:?}");
        (client, connack)
    }

    /// Waits until `condition` holds.
    pub async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        for _ in 0..1000 {
            if condition() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {what}; {}", self.handle.status());
    }
}

/// A client that sends and expects bytes.
pub struct Client {
    pub stream: TcpStream,
    input: Vec<u8>,
}

impl Client {
    pub async fn open(site: &Site) -> Self {
        Self { stream: TcpStream::connect(site.addr).await.expect("the listener is there"), input: Vec::new() }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the socket takes it");
    }

    /// The next packet, or `None` if the listener closed.
    pub async fn packet_or_end(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(len) = whole(&self.input) {
                return Some(self.input.drain(..len).collect());
            }
            let read = tokio::time::timeout(SOON, self.stream.read_buf(&mut self.input));
            match read.await.expect("something comes in time") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    pub async fn packet(&mut self) -> Vec<u8> {
        self.packet_or_end().await.expect("a packet, not the end")
    }

    pub async fn expect(&mut self, packet: &[u8]) {
        assert_eq!(self.packet().await, packet);
    }

    /// The listener closes, after a DISCONNECT with this reason to a 5.0 client.
    pub async fn expect_disconnect(&mut self, reason: u8) {
        let packet = self.packet().await;
        assert_eq!((packet[0], packet[2]), (0xe0, reason), "{packet:?}");
        self.expect_end().await;
    }

    pub async fn expect_end(&mut self) {
        assert_eq!(self.packet_or_end().await, None);
    }

    /// Nothing comes before the answer to a ping.
    pub async fn expect_nothing(&mut self) {
        self.send(&[0xc0, 0]).await;
        self.expect(&[0xd0, 0]).await;
    }
}

fn whole(bytes: &[u8]) -> Option<usize> {
    let mut len = 0usize;
    for (at, byte) in bytes.iter().skip(1).enumerate().take(4) {
        len |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let total = at + 2 + len;
            return (bytes.len() >= total).then_some(total);
        }
    }
    None
}

/// A packet from its first byte and its body.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut len = body.len();
    loop {
        let low = (len & 0x7f) as u8;
        len >>= 7;
        bytes.push(if len == 0 { low } else { low | 0x80 });
        if len == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

/// A string or binary data with its length.
pub fn text(value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    let len = u16::try_from(value.len()).expect("short");
    [&len.to_be_bytes(), value].concat()
}

/// Properties with their length (below 128).
pub fn properties(raw: &[u8]) -> Vec<u8> {
    [&[u8::try_from(raw.len()).expect("short")], raw].concat()
}

pub fn connect_v4(id: &str, clean: bool, keep_alive: u16) -> Vec<u8> {
    let flags = if clean { 2 } else { 0 };
    packet(0x10, &[&text("MQTT")[..], &[4, flags], &keep_alive.to_be_bytes(), &text(id)].concat())
}

pub fn connect_v5(id: &str, clean: bool, keep_alive: u16, raw: &[u8]) -> Vec<u8> {
    let flags = if clean { 2 } else { 0 };
    packet(0x10, &[&text("MQTT")[..], &[5, flags], &keep_alive.to_be_bytes(), &properties(raw), &text(id)].concat())
}

pub fn publish_v4(topic: &str, qos: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    let id = if qos == 0 { Vec::new() } else { id.to_be_bytes().to_vec() };
    packet(0x30 | qos << 1, &[&text(topic)[..], &id, payload].concat())
}

pub fn publish_v5(topic: &str, qos: u8, id: u16, raw: &[u8], payload: &[u8]) -> Vec<u8> {
    let id = if qos == 0 { Vec::new() } else { id.to_be_bytes().to_vec() };
    packet(0x30 | qos << 1, &[&text(topic)[..], &id, &properties(raw), payload].concat())
}

pub fn puback(id: u16) -> Vec<u8> {
    packet(0x40, &id.to_be_bytes())
}

pub fn pubrec(id: u16) -> Vec<u8> {
    packet(0x50, &id.to_be_bytes())
}

pub fn pubrel(id: u16) -> Vec<u8> {
    packet(0x62, &id.to_be_bytes())
}

pub fn pubcomp(id: u16) -> Vec<u8> {
    packet(0x70, &id.to_be_bytes())
}

/// SUBSCRIBE with packet id 1 to one filter.
pub fn subscribe_v4(filter: &str, qos: u8) -> Vec<u8> {
    packet(0x82, &[&[0, 1], &text(filter)[..], &[qos]].concat())
}

/// SUBSCRIBE with packet id 1 to one filter.
pub fn subscribe_v5(filter: &str, options: u8, raw: &[u8]) -> Vec<u8> {
    packet(0x82, &[&[0, 1], &properties(raw)[..], &text(filter), &[options]].concat())
}

/// The bytes of a payload.
pub fn payload(bytes: impl Into<Vec<u8>>) -> Bytes {
    Bytes::from(bytes.into())
}
