//! All Brokers on one connection: whose turn it is, how much, and how well compressed.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use godwit_mesh::broker::Brokers;
use godwit_mesh::journal::Offset;
use godwit_mesh::names::BrokerName;
use godwit_mesh::sync::frame::{Answer, GoOn, Standing, Welcome};
use godwit_mesh::sync::{Effort, Encoder};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connect::LinkError;
use super::lane::Lane;
use super::letters::Letters;
use super::window::Window;

/// Most bytes of bodies in a frame: large enough to compress well, small enough to take turns and to be read in one piece.
const FRAME_BYTES: u64 = 128 << 10;

/// Positions that this process has been told, by Broker.
pub(super) type Told = HashMap<BrokerName, Offset>;

/// The Brokers on one connection.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    letters: Letters,
    turn: usize,
    window: Window,
    window_log: u32,
    encoder: Encoder,
    /// Bytes on the wire for each byte of bodies, as of late.
    ratio: f64,
    second: (Instant, u64, u64),
    max_body: usize,
    frame: Vec<u8>,
}

impl Lanes {
    pub(super) fn new(window_log: u32, letters: Letters) -> Self {
        Self {
            lanes: Vec::new(),
            letters,
            turn: 0,
            window: Window::new(Duration::ZERO),
            window_log,
            encoder: Encoder::new(window_log),
            ratio: 0.5,
            second: (Instant::now(), 0, 0),
            max_body: 0,
            frame: Vec::new(),
        }
    }

    /// Adds Brokers that are not there yet and shall go up. Returns where the new ones stand.
    pub(super) fn add(
        &mut self,
        brokers: &Brokers,
        told: &Told,
        watch: &mut JoinSet<()>,
        news: &std::sync::Arc<Notify>,
    ) -> Vec<Standing> {
        let mut added = Vec::new();
        for broker in brokers.list() {
            if !broker.settings().uplink || self.lanes.iter().any(|lane| lane.broker().name() == broker.name()) {
                continue;
            }
            let (mut next, mut moved) = (broker.journal().watch(), broker.journal().watch_moved());
            let news = news.clone();
            watch.spawn(async move {
                loop {
                    let changed = tokio::select! {
                        changed = next.changed() => changed,
                        changed = moved.changed() => changed,
                    };
                    if changed.is_err() {
                        return;
                    }
                    news.notify_one();
                }
            });
            let lane = Lane::new(broker, u32::try_from(self.lanes.len()).unwrap_or(u32::MAX), self.letters.clock.clone());
            added.push(lane.standing(told.get(lane.broker().name()).copied()));
            self.lanes.push(lane);
        }
        added
    }

    /// A Broker whose cursor was moved by hand, if there is one: where it goes on is to be settled anew.
    pub(super) fn moved(&self) -> Option<String> {
        self.lanes.iter().find(|lane| lane.moved()).map(|lane| lane.broker().name().to_string())
    }

    /// Whether one of the Brokers is no longer to go up.
    pub(super) fn outdated(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.broker().settings().uplink)
    }

    /// The connection is welcome: `round_trip` is how long a small request took.
    pub(super) fn welcome(&mut self, welcome: &Welcome, round_trip: Duration) {
        self.window = Window::new(round_trip);
        self.window_log = self.window_log.min(welcome.window_log);
        self.encoder = Encoder::new(self.window_log);
        let max_frame = usize::try_from(welcome.max_frame_bytes).unwrap_or(usize::MAX);
        // A batch may be filled to its limit when the large event comes.
        self.max_body = max_frame.saturating_sub(4 * usize::try_from(FRAME_BYTES).unwrap_or(usize::MAX)).max(64 << 10);
    }

    /// Where Brokers go on. Returns how far the gateway was set back in all.
    pub(super) async fn go_on(&mut self, brokers: &[GoOn], told: &mut Told) -> Result<u64, LinkError> {
        let mut set_back = 0;
        for go_on in brokers {
            let lane = lane(&mut self.lanes, go_on.index)?;
            let name = lane.broker().name().clone();
            set_back += lane.go_on(go_on, told.get(&name).copied(), self.max_body, &self.letters).await?;
            told.insert(name, Offset(go_on.next));
        }
        Ok(set_back)
    }

    fn lane(&mut self, index: u32) -> Result<&mut Lane, LinkError> {
        lane(&mut self.lanes, index)
    }

    /// Takes an answer in. Brokers that it lets go on are for the caller, by [`Lanes::go_on`].
    pub(super) async fn answer(&mut self, answer: &Answer, told: &mut Told) -> Result<(), LinkError> {
        let now = Instant::now();
        let mut refused: BTreeMap<u32, Vec<(Offset, String)>> = BTreeMap::new();
        for (broker, offset, why) in &answer.refused {
            refused.entry(*broker).or_default().push((Offset(*offset), why.clone()));
        }
        for (broker, refused) in refused {
            lane(&mut self.lanes, broker)?.refuse(refused, &self.letters).await;
        }
        let mut window = std::mem::replace(&mut self.window, Window::new(Duration::ZERO));
        let mut taken = Ok(());
        for &(broker, next) in &answer.positions {
            taken = taken.and_then(|()| {
                let lane = self.lane(broker)?;
                told.insert(lane.broker().name().clone(), Offset(next));
                lane.answered(Offset(next), &mut window, now)
            });
        }
        for &(broker, bytes) in &answer.credit {
            taken = taken.and_then(|()| {
                self.lane(broker)?.set_credit(bytes, &mut window);
                Ok(())
            });
        }
        self.window = window;
        taken
    }

    /// Whether [`Lanes::chunk`] would have something.
    pub(super) fn ready(&self) -> bool {
        // Not for the last few bytes of the window: they would make a frame of one event.
        self.window.room() >= self.window.size() / 4 && self.lanes.iter().any(Lane::ready)
    }

    /// Appends a chunk with events of the Broker whose turn it is; `false` if there was nothing after all.
    pub(super) async fn chunk(&mut self, out: &mut Vec<u8>) -> Result<bool, LinkError> {
        let count = self.lanes.len();
        let Some(at) = (0..count).map(|i| (self.turn + i) % count).find(|&at| self.lanes.get(at).is_some_and(Lane::ready))
        else {
            return Ok(false);
        };
        self.turn = at + 1;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let budget = ((self.window.room() as f64 / self.ratio) as u64).clamp(512, FRAME_BYTES);
        let (window, ratio) = (&self.window, self.ratio);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let presses = |bytes: u64| window.presses((bytes as f64 * ratio) as u64);
        let Some(lane) = self.lanes.get_mut(at) else { return Ok(false) };
        self.frame.clear();
        let Some(filled) = lane.frame(usize::try_from(budget).unwrap_or(usize::MAX), presses, &mut self.frame).await?
        else {
            return Ok(false);
        };
        let effort = self.effort(filled.bytes);
        let before = out.len();
        self.encoder.put(out, &self.frame, effort)?;
        let wire = (out.len() - before) as u64;
        if filled.bytes > 0 {
            #[allow(clippy::cast_precision_loss)]
            let ratio = (wire as f64 / filled.bytes as f64).clamp(0.01, 2.0);
            self.ratio = self.ratio * 0.75 + ratio * 0.25;
        }
        let ticket = self.window.sent(wire, filled.urgent, Instant::now());
        if let Some(lane) = self.lanes.get_mut(at) {
            lane.sent(filled, ticket);
        }
        if self.frame.capacity() > 512 << 10 {
            self.frame = Vec::new();
        }
        Ok(true)
    }

    /// The effort that the traffic of the last second, and of this one so far, allows.
    fn effort(&mut self, bytes: u64) -> Effort {
        let (since, sum, last) = &mut self.second;
        let elapsed = since.elapsed();
        if elapsed >= Duration::from_secs(1) {
            *last = if elapsed < Duration::from_secs(2) { *sum } else { 0 };
            *sum = 0;
            *since = Instant::now();
        }
        *sum += bytes;
        Effort::for_rate((*sum).max(*last))
    }

    /// Gives the compression's memory back while nothing is sent; what says so is also a sign of life.
    pub(super) fn rest(&mut self, out: &mut Vec<u8>) {
        self.encoder.end(out);
        if out.is_empty() {
            out.extend_from_slice(godwit_mesh::sync::chunk::HEARTBEAT);
        }
    }

    /// A new stream begins, at whose other end nothing is known of the last.
    pub(super) fn begin(&mut self) {
        self.encoder = Encoder::new(self.window_log);
        for lane in &mut self.lanes {
            lane.begin();
        }
    }

    /// Where the Brokers stand now.
    pub(super) fn standings(&self, told: &Told) -> Vec<Standing> {
        self.lanes.iter().map(|lane| lane.standing(told.get(lane.broker().name()).copied())).collect()
    }
}

fn lane(lanes: &mut [Lane], index: u32) -> Result<&mut Lane, LinkError> {
    let at = usize::try_from(index).unwrap_or(usize::MAX);
    let lane = lanes.get_mut(at).filter(|lane| lane.index() == index);
    lane.ok_or_else(|| LinkError::Nonsense(format!("broker {index} is there, which was not offered")))
}
