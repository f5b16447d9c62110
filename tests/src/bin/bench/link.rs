//! What the link costs: a backlog's drain to the gateway, and the bytes of a drone's flight, beside mosquitto's bridge at QoS 1.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use godwit_tests::data::{self, Message};
use godwit_tests::lab::Lab;
use godwit_tests::load::{Load, Plan};
use godwit_tests::mosquitto::Mosquitto;
use godwit_tests::mqtt::{self, Packet};
use godwit_tests::node::{DEFAULT_BROKER, Node};
use godwit_tests::ports;
use godwit_tests::relay::Relay;
use godwit_tests::wait;

use crate::Extent;
use crate::table::{Row, median, median_ratio, thousands};

const LIMIT: Duration = Duration::from_secs(120);
/// Publishes of the one client that feeds a bridge, in flight.
const WINDOW: usize = 100;

/// A publisher at QoS 1 that waits for its acknowledgements when it has to.
struct Publisher {
    stream: TcpStream,
    read: Vec<u8>,
    flights: VecDeque<u16>,
    next: u16,
    out: Vec<u8>,
}

impl Publisher {
    fn connect(to: SocketAddr, name: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut out = Vec::new();
        mqtt::connect(&mut out, name, true, 0, None);
        stream.write_all(&out)?;
        stream.read_exact(&mut [0; 4])?;
        Ok(Self { stream, read: Vec::new(), flights: VecDeque::new(), next: 1, out })
    }

    fn publish(&mut self, topic: &str, payload: &[u8]) -> Result<()> {
        self.wait(WINDOW)?;
        self.out.clear();
        mqtt::publish(&mut self.out, topic, 1, self.next, false, payload);
        self.stream.write_all(&self.out)?;
        self.flights.push_back(self.next);
        self.next = self.next.checked_add(1).unwrap_or(1);
        Ok(())
    }

    /// Waits until fewer than `most` are without acknowledgement.
    fn wait(&mut self, most: usize) -> Result<()> {
        let mut buffer = [0; 4096];
        while self.flights.len() >= most.max(1) {
            let size = self.stream.read(&mut buffer)?;
            anyhow::ensure!(size > 0, "the broker closed the connection");
            self.read.extend_from_slice(buffer.get(..size).unwrap_or_default());
            while let Some((packet, size)) = mqtt::next(&self.read) {
                self.read.drain(..size);
                if let Packet::PubAck(_) = packet {
                    self.flights.pop_front();
                }
            }
        }
        Ok(())
    }
}

/// Drain of 100,000 queued events.
pub(crate) fn drain(extent: Extent) -> Result<Vec<Row>> {
    const EVENTS: u64 = 100_000;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..extent.runs {
        ours.push(EVENTS as f64 / drain_ours(EVENTS)?);
        theirs.push(EVENTS as f64 / drain_bridge(EVENTS)?);
    }
    Ok(vec![Row {
        work: format!("drain of {EVENTS} queued events to the gateway, stored there"),
        ours: thousands(median(&ours)),
        peer: format!("mosquitto's bridge into RAM {}", thousands(median(&theirs))),
        figure: format!("{:.2} ×", median_ratio(&ours, &theirs)),
        floor: "3 ×",
        aim: "200 k/s",
    }])
}

/// From the agent's start with its queue to the last event's commit at the gateway.
fn drain_ours(events: u64) -> Result<f64> {
    let lab = Lab::new()?;
    let mut gateway = Node::gateway(&lab)?;
    let mut agent = Node::agent(&lab, "agent-1")?;
    agent.start()?;
    let mut plan = Plan::new(agent.mqtt());
    (plan.clients, plan.count, plan.window) = (10, events / 10, 100);
    Load::start(plan).wait_count(LIMIT)?;
    agent.stop()?;
    gateway.start()?;
    agent.uplink(gateway.http());
    let begun = Instant::now();
    agent.start()?;
    gateway.wait_accepted(DEFAULT_BROKER, events, LIMIT)?;
    Ok(begun.elapsed().as_secs_f64())
}

/// From the arrival of the first of the queued messages to that of the last: the bridge's own time, without its reconnect.
fn drain_bridge(events: u64) -> Result<f64> {
    let lab = Lab::new()?;
    let remote = ports::free();
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), remote);
    let local = Mosquitto::start_at(&lab, "local", ports::free(), Some(to))?;
    let mut publisher = Publisher::connect(local.address, "feeder")?;
    publisher.publish("mark", b"first")?;
    for _ in 0..events {
        publisher.publish("load/bridge", &[b'x'; 256])?;
    }
    publisher.publish("mark", b"last")?;
    publisher.wait(1)?;
    // The mark can come before a subscription: the subscriber must be there before the bridge finds the remote.
    let _remote = Mosquitto::start_at(&lab, "remote", remote, None)?;
    let mut marks = TcpStream::connect(to)?;
    marks.set_read_timeout(Some(LIMIT))?;
    let mut out = Vec::new();
    mqtt::connect(&mut out, "marks", true, 0, None);
    mqtt::subscribe(&mut out, 1, "mark", 0);
    marks.write_all(&out)?;
    marks.read_exact(&mut [0; 4 + 5])?;
    let packet = |payload: &[u8]| 2 + 2 + 4 + payload.len();
    marks.read_exact(&mut vec![0; packet(b"first")]).context("the first mark")?;
    let begun = Instant::now();
    marks.read_exact(&mut vec![0; packet(b"last")]).context("the last mark")?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Both ways up side by side, each through a relay that counts.
struct Paths {
    agent: Node,
    gateway: Node,
    ours: Relay,
    local: Mosquitto,
    _remote: Mosquitto,
    theirs: Relay,
    _lab: Lab,
}

impl Paths {
    fn start(connected: bool) -> Result<Self> {
        let lab = Lab::new()?;
        let mut gateway = Node::gateway(&lab)?;
        gateway.start()?;
        let ours = Relay::start(gateway.http())?;
        let remote = Mosquitto::start(&lab, "remote")?;
        let theirs = Relay::start(remote.address)?;
        ours.refuse(!connected);
        theirs.refuse(!connected);
        let mut agent = Node::agent(&lab, "agent-1")?;
        agent.uplink(ours.address());
        agent.set("gateway.heartbeat", "30s");
        agent.start()?;
        let local = Mosquitto::start_at(&lab, "local", ports::free(), Some(theirs.address()))?;
        Ok(Self { agent, gateway, ours, local, _remote: remote, theirs, _lab: lab })
    }

    /// Publishes to both at `speed` times the flight's own pace, or as fast as it goes for none.
    fn publish(&self, flight: &[Message], speed: Option<f64>) -> Result<()> {
        let mut publishers =
            [Publisher::connect(self.agent.mqtt(), "drone")?, Publisher::connect(self.local.address, "drone")?];
        let first = flight.first().map_or(0, |message| message.t_ms);
        let begun = Instant::now();
        for message in flight {
            if let Some(speed) = speed {
                let due = Duration::from_secs_f64((message.t_ms - first) as f64 / 1000.0 / speed);
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
            }
            for publisher in &mut publishers {
                publisher.publish(&message.topic, message.payload())?;
            }
        }
        publishers.iter_mut().try_for_each(|publisher| publisher.wait(1))
    }

    /// Waits until everything has arrived and both paths are still.
    fn settle(&self) -> Result<()> {
        self.gateway.wait_accepted(DEFAULT_BROKER, self.agent.accepted(DEFAULT_BROKER)?, LIMIT)?;
        let mut last = (0, Instant::now());
        wait::until("both paths are still", LIMIT, || {
            let now = self.ours.total() + self.theirs.total();
            if now != last.0 {
                last = (now, Instant::now());
            }
            let still = last.1.elapsed() > Duration::from_millis(1500);
            if still { wait::Seen::Yes(()) } else { wait::Seen::NotYet(now.to_string()) }
        })
    }
}

/// TCP payload of the flight, live, at ten times its pace, and from a backlog.
pub(crate) fn bytes(_: Extent) -> Result<Vec<Row>> {
    let flight = data::flight()?;
    // Live: a minute from the middle, when all topics have begun.
    let middle = flight.len() / 3;
    let begin = flight.get(middle).context("a flight")?.t_ms;
    let minute: Vec<&Message> = flight.iter().skip(middle).take_while(|message| message.t_ms < begin + 60_000).collect();
    let minute = flight.get(middle..middle + minute.len()).context("a minute")?;
    Ok(vec![
        flight_row("TCP payload of the drone's flight, live at its own pace", minute, Some(1.0), "0.33 ×", "0.20 ×")?,
        flight_row("the same at ten times its pace", &flight, Some(10.0), "0.20 ×", "0.125 ×")?,
        flight_row("the same while draining a backlog", &flight, None, "0.10 ×", "0.05 ×")?,
    ])
}

fn flight_row(work: &str, flight: &[Message], speed: Option<f64>, floor: &'static str, aim: &'static str) -> Result<Row> {
    let paths = Paths::start(speed.is_some())?;
    if speed.is_some() {
        wait::at_least("both are connected", LIMIT, 2, || Ok(paths.ours.connections() + paths.theirs.connections()))?;
        paths.settle()?;
    }
    let before = (paths.ours.total(), paths.theirs.total());
    paths.publish(flight, speed)?;
    paths.ours.refuse(false);
    paths.theirs.refuse(false);
    if speed.is_none() {
        wait::at_least("the bridge is back", LIMIT, 1, || Ok(paths.theirs.connections()))?;
    }
    paths.settle()?;
    let count = flight.len() as f64;
    let ours = (paths.ours.total() - before.0) as f64 / count;
    let theirs = (paths.theirs.total() - before.1) as f64 / count;
    Ok(Row {
        work: format!("{work} ({} events)", flight.len()),
        ours: format!("{ours:.0} B an event"),
        peer: format!("mosquitto's bridge {theirs:.0} B"),
        figure: format!("{:.3} ×", ours / theirs),
        floor,
        aim,
    })
}
