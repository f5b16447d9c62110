//! One broker of one connected agent: batches come in, events and position go into the journal in one append.
//!
//! One append is outstanding at a time: were a later one stored although an earlier one was refused, the position would lie. What
//! arrives meanwhile is gathered into the next. When the journal is full or its disk fails, the lane keeps what it has (no more
//! than the credit), takes the credit back and tries again; the agent hears nothing, and so forgets nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use godwit_mesh::broker::Broker;
use godwit_mesh::event;
use godwit_mesh::journal::{Epoch, Offset, Refused};
use godwit_mesh::names::AgentId;
use godwit_mesh::sync::Batch;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::outbox::Outbox;
use super::position::{Refusal, Seen};

/// What a frame counts against the credit beside its bodies.
pub(super) const FRAME_COST: usize = 256;

/// Bodies gathered into one append.
const APPEND_BYTES: usize = 256 << 10;

/// Pause before a full or failing journal is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// An event is only to blame for an append that is too large if it is at least so large itself.
const LARGE_EVENT: usize = 64 << 10;

/// What the gateway knows of one broker of an agent, connected or not.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// What is stored. Only the one lane there is changes it.
    pub(super) seen: Mutex<Seen>,
    /// Where the agent's own journal stood when last heard of.
    pub(super) agent_next: AtomicU64,
    /// Offsets that came without events since this process began, by reason.
    pub(super) skipped: Mutex<BTreeMap<&'static str, u64>>,
    /// Events refused for good since this process began.
    pub(super) refused: AtomicU64,
    /// Events that the gateway had once told it had, and was set back behind.
    pub(super) set_back: AtomicU64,
}

impl Known {
    /// A snapshot of what is stored.
    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn skip(&self, reason: &'static str, n: u64) {
        *self.skipped.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += n;
    }
}

/// The way into a lane.
#[derive(Debug)]
pub(super) struct LaneHandle {
    batches: mpsc::Sender<Batch>,
    waiting: Arc<AtomicUsize>,
    credit: usize,
}

impl LaneHandle {
    /// Hands a batch on; `false` if the agent has sent more than it had credit for.
    pub(super) fn take(&self, batch: Batch) -> bool {
        let cost = batch.bodies.total_bytes() + FRAME_COST;
        if self.waiting.fetch_add(cost, Ordering::Relaxed) >= self.credit + FRAME_COST {
            return false;
        }
        // A lane that has ended was told to; what comes after is nobody's.
        !matches!(self.batches.try_send(batch), Err(mpsc::error::TrySendError::Full(_)))
    }
}

/// One broker of one connection.
pub(super) struct Lane {
    pub(super) agent: AgentId,
    pub(super) index: u32,
    pub(super) broker: Arc<Broker>,
    pub(super) known: Arc<Known>,
    pub(super) next: Offset,
    pub(super) outbox: Arc<Outbox>,
    pub(super) credit: usize,
    pub(super) stop: CancellationToken,
}

struct Event {
    epoch: Epoch,
    offset: Offset,
    body: Bytes,
}

/// What one append shall store.
#[derive(Default)]
struct Load {
    events: Vec<Event>,
    bytes: usize,
    /// Spans to note: epoch, from, to.
    spans: Vec<(Epoch, Offset, Offset)>,
    skips: Vec<(&'static str, u64)>,
    /// Events that will not be stored: kept with the position that passes them.
    refusals: Vec<Refusal>,
    cost: usize,
    urgent: bool,
}

impl Lane {
    /// The lane's handle, and the task to spawn. The task ends when the handle is dropped and all is stored, or when stopped.
    pub(super) fn start(self) -> (LaneHandle, impl Future<Output = ()> + Send) {
        // The credit allows no more frames than this.
        let (batches, inbox) = mpsc::channel(self.credit / FRAME_COST + 2);
        let waiting = Arc::new(AtomicUsize::new(0));
        let handle = LaneHandle { batches, waiting: waiting.clone(), credit: self.credit };
        (handle, self.run(inbox, waiting))
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Batch>, waiting: Arc<AtomicUsize>) {
        loop {
            let batch = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                batch = inbox.recv() => match batch {
                    Some(batch) => batch,
                    None => return,
                },
            };
            let mut load = Load::default();
            let mut next = Some(batch);
            while let Some(batch) = next {
                if let Err(why) = self.gather(&mut load, &batch) {
                    self.outbox.goodbye(godwit_mesh::sync::frame::Goodbye::MALFORMED, why);
                    self.stop.cancel();
                    return;
                }
                next = if load.bytes < APPEND_BYTES { inbox.try_recv().ok() } else { None };
            }
            let (cost, urgent) = (load.cost, load.urgent);
            if !self.store(load).await {
                return;
            }
            waiting.fetch_sub(cost, Ordering::Relaxed);
            self.outbox.position(self.index, self.next, urgent);
        }
    }

    /// Adds what is new in a batch to the load, and refuses what cannot be read.
    fn gather(&mut self, load: &mut Load, batch: &Batch) -> Result<(), String> {
        load.cost += batch.bodies.total_bytes() + FRAME_COST;
        load.urgent |= batch.urgent;
        if batch.from > self.next {
            return Err(format!("{}: offset {} was expected, {} came", self.broker.name(), self.next, batch.from));
        }
        for (offset, body) in batch.events().filter(|(offset, _)| *offset >= self.next) {
            match event::split(&body) {
                Ok(_) => {
                    load.bytes += body.len();
                    load.events.push(Event { epoch: batch.epoch, offset, body });
                }
                Err(why) => load.refusals.push(self.refuse(batch.epoch, offset, &why.to_string())),
            }
        }
        for skip in batch.skips.iter().filter(|skip| skip.to > self.next) {
            load.skips.push((skip.reason.name(), skip.to.since(skip.from.max(self.next))));
        }
        if batch.to > self.next {
            load.spans.push((batch.epoch, self.next, batch.to));
            self.next = batch.to;
        }
        self.known.agent_next.fetch_max(batch.to.0, Ordering::Relaxed);
        Ok(())
    }

    fn refuse(&self, epoch: Epoch, offset: Offset, why: &str) -> Refusal {
        tracing::warn!(agent = %self.agent, broker = %self.broker.name(), %offset, "an event is refused for good: {why}");
        self.known.refused.fetch_add(1, Ordering::Relaxed);
        self.outbox.refuse(self.index, offset, why.to_owned());
        Refusal { epoch, offset, why: why.into() }
    }

    /// Stores a load; `false` if the lane must end.
    async fn store(&mut self, mut load: Load) -> bool {
        let mut stalled = false;
        while !load.spans.is_empty() {
            match self.append(&mut load).await {
                Ok(()) => {}
                Err(Refused::Closed) => {
                    self.outbox.goodbye(godwit_mesh::sync::frame::Goodbye::UNAVAILABLE, "the gateway stops");
                    return false;
                }
                Err(why) => {
                    if !stalled {
                        tracing::warn!(agent = %self.agent, broker = %self.broker.name(), "events must wait: {why}");
                        self.outbox.credit(self.index, 0);
                        stalled = true;
                    }
                    tokio::select! {
                        () = self.stop.cancelled() => return false,
                        () = tokio::time::sleep(RETRY) => {}
                    }
                }
            }
        }
        if stalled {
            tracing::info!(agent = %self.agent, broker = %self.broker.name(), "events are stored again");
            self.outbox.credit(self.index, self.credit as u64);
        }
        true
    }

    /// Appends as much of the load as one append takes, and removes it from the load.
    async fn append(&mut self, load: &mut Load) -> Result<(), Refused> {
        let mut take = load.events.len();
        loop {
            // Where the load is cut, the position is that of the first event left.
            let cut = load.events.get(take).map(|event| event.offset);
            let mut seen = self.known.seen();
            let mut older_too = false;
            for &(epoch, from, to) in &load.spans {
                let to = cut.map_or(to, |cut| cut.min(to));
                if to > from {
                    older_too |= seen.note(epoch, from, to);
                }
            }
            let refusals = load.refusals.iter().filter(|refusal| cut.is_none_or(|cut| refusal.offset < cut));
            let mut refusals_too = false;
            for refusal in refusals {
                seen.refuse(refusal.clone());
                refusals_too = true;
            }
            let events = load.events.get(..take).unwrap_or_default();
            let receipt = self.broker.journal().append(|append| {
                for event in events {
                    append.event(|out| {
                        event::with_origin(out, &event.body, self.agent.as_str(), event.epoch, event.offset);
                    });
                }
                seen.put(append, &self.agent, older_too, refusals_too);
            });
            match receipt {
                Ok(receipt) => {
                    receipt.await?;
                    *self.known.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
                    load.stored(take, cut);
                    if load.spans.is_empty() {
                        for (reason, n) in load.skips.drain(..) {
                            self.known.skip(reason, n);
                        }
                    }
                    return Ok(());
                }
                Err(Refused::Busy) => {
                    tokio::select! {
                        () = self.stop.cancelled() => return Err(Refused::Busy),
                        () = self.broker.journal().room() => {}
                    }
                }
                Err(Refused::TooLarge { .. }) if take > 1 => take /= 2,
                Err(Refused::TooLarge { limit, .. })
                    if events.first().is_some_and(|event| event.body.len() > limit.min(LARGE_EVENT)) =>
                {
                    let event = load.events.remove(0);
                    let why = format!("{} bytes are too large for the gateway", event.body.len());
                    load.refusals.push(self.refuse(event.epoch, event.offset, &why));
                    take = load.events.len();
                }
                Err(why) => return Err(why),
            }
        }
    }
}

impl Load {
    /// Forgets what is stored: the first `taken` events, and the offsets before `cut` (all, if there is none).
    fn stored(&mut self, taken: usize, cut: Option<Offset>) {
        self.events.drain(..taken);
        match cut {
            None => {
                self.spans.clear();
                self.refusals.clear();
            }
            Some(cut) => {
                self.refusals.retain(|refusal| refusal.offset >= cut);
                self.spans.retain_mut(|(_, from, to)| {
                    *from = (*from).max(cut);
                    *to > *from
                });
            }
        }
    }
}
