//! One Broker's share of the connection: what is read, what is on its way, and the cursor.
//!
//! The cursor moves on the gateway's answers and on nothing else, with the account of what lies between. A frame that was sent is
//! remembered by its range and counts only; were the connection cut, its events are read again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use godwit_mesh::broker::Broker;
use godwit_mesh::clock::Clock;
use godwit_mesh::journal::{Consumer, Done, DropReason, Item, Lineage, Offset, Reader};
use godwit_mesh::sync::BatchWriter;
use godwit_mesh::sync::batch::range;
use godwit_mesh::sync::frame::{GoOn, Standing};
use godwit_mesh::sync::limits::MAX_LINEAGE;
use tokio::time::Instant;

use super::connect::LinkError;
use super::expired::drop_expired;
use super::letters::{Buried, Letters};
use super::run::register;
use super::window::{Ticket, Window};

/// What a frame counts against the credit beside its bodies.
const FRAME_COST: u64 = 256;

/// Read at a time to account for what the gateway has already.
const ACCOUNT_BYTES: usize = 64 << 10;

/// One Broker on one connection.
#[derive(Debug)]
pub(super) struct Lane {
    broker: Arc<Broker>,
    consumer: Consumer,
    writer: BatchWriter,
    reader: Reader,
    /// Read, and not yet sent.
    held: Vec<Item>,
    /// Offsets below this are accounted for already, or are no longer ours to account for.
    accounted: Offset,
    credit: u64,
    /// What of the credit is used.
    used: u64,
    flights: VecDeque<Flight>,
    /// Events that will not be stored, and what became of them.
    refused: BTreeMap<Offset, Fate>,
    /// Largest body that fits into a frame.
    max_body: usize,
    open: bool,
    /// By which events expire.
    clock: Clock,
    /// For attributes that have to be derived.
    scratch: String,
}

/// What became of an event that the gateway refused for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is in the dead-letter journal, durably.
    DeadLetter,
    /// The dead-letter journal did not take it.
    Dropped,
}

/// A frame on its way.
#[derive(Debug)]
struct Flight {
    from: Offset,
    to: Offset,
    done: Done,
    cost: u64,
    ticket: Ticket,
}

impl Lane {
    pub(super) fn new(broker: Arc<Broker>, index: u32, clock: Clock) -> Self {
        let consumer = register(&broker);
        let reader = broker.journal().reader(consumer.cursor());
        Self {
            consumer,
            writer: BatchWriter::new(index),
            reader,
            held: Vec::new(),
            accounted: Offset(0),
            credit: 0,
            used: 0,
            flights: VecDeque::new(),
            refused: BTreeMap::new(),
            max_body: 0,
            open: false,
            clock,
            scratch: String::new(),
            broker,
        }
    }

    pub(super) fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    pub(super) fn index(&self) -> u32 {
        self.writer.broker()
    }

    /// What the hello says of this Broker; `told` is the last position that this process was told, if any.
    pub(super) fn standing(&self, told: Option<Offset>) -> Standing {
        let journal = self.broker.journal();
        // In this order: events appended in between are in no epoch that the lineage lacks.
        let next = journal.next_offset();
        let lineage = journal.lineage().0;
        let newest = lineage.len().saturating_sub(MAX_LINEAGE);
        Standing {
            index: self.index(),
            name: self.broker.name().to_string(),
            lineage: lineage.iter().skip(newest).map(|(epoch, first)| (epoch.0, first.0)).collect(),
            first: journal.first_offset().0,
            next: next.0,
            cursor: self.told(told).unwrap_or_default().0,
        }
    }

    /// Where the gateway goes on. `told` is the last position that this process was told, if any. Returns how far the gateway was
    /// set back.
    pub(super) async fn go_on(
        &mut self,
        go_on: &GoOn,
        told: Option<Offset>,
        max_body: usize,
        letters: &Letters,
    ) -> Result<u64, LinkError> {
        if !go_on.refused.is_empty() {
            tracing::warn!(broker = %self.broker.name(), "the gateway does not take this broker: {}", go_on.refused);
            self.open = false;
            return Ok(0);
        }
        let (next, cursor) = (Offset(go_on.next), self.consumer.cursor());
        if next > self.broker.journal().next_offset() {
            return Err(LinkError::Nonsense(format!("{} goes on at {next}, where nothing is yet", self.broker.name())));
        }
        self.held.clear();
        self.flights.clear();
        self.refused.clear();
        (self.used, self.credit, self.max_body, self.open) = (0, go_on.credit, max_body, true);
        let mut set_back = 0;
        if next > cursor {
            self.account(next, &go_on.refusals, letters).await?;
        } else if let Some(told) = self.told(told).filter(|told| next < *told) {
            set_back = told.since(next);
            tracing::warn!(
                broker = %self.broker.name(), from = %told, to = %next,
                "the gateway does not have what it had: it was set back, or is another; what is still here is sent again"
            );
            self.consumer.rewind(next);
        } else if next < cursor && cursor > self.broker.journal().first_offset() {
            // The cursor was moved on by hand: the gateway is told of what it will not get.
            self.held.push(Item::Skip { from: next, to: cursor, reason: DropReason::Skipped });
        }
        // Else retention moved the cursor on, if anything did: the journal says so when it is read from there.
        self.accounted = self.consumer.cursor();
        self.reader = self.broker.journal().reader(if self.held.is_empty() { next } else { cursor });
        Ok(set_back)
    }

    /// The last position that the gateway told. A new process takes the cursor for it, or where that was before a hand moved it,
    /// unless retention has moved it: then it is where the oldest event is.
    fn told(&self, told: Option<Offset>) -> Option<Offset> {
        let cursor = self.consumer.cursor();
        let by_itself = || (cursor > self.broker.journal().first_offset()).then_some(cursor);
        told.or_else(|| self.consumer.before_hand()).or_else(by_itself)
    }

    /// Moves the cursor to `to`, where the gateway already is: an answer was lost, or this disk is an older copy. `refusals` are the
    /// events that the gateway passed without storing them.
    async fn account(&mut self, to: Offset, refusals: &[(u64, String)], letters: &Letters) -> Result<(), LinkError> {
        let mut at = self.consumer.cursor();
        let open = at..to;
        let refusals = refusals.iter().map(|(offset, why)| (Offset(*offset), why.clone()));
        let refusals: Vec<(Offset, String)> = refusals.filter(|(offset, _)| open.contains(offset)).collect();
        if !refusals.is_empty() {
            tracing::warn!(broker = %self.broker.name(), events = refusals.len(), "the gateway has refused events for good, and its answer was lost");
            letters.keep(&self.broker, &refusals).await;
        }
        let refused: BTreeSet<Offset> = refusals.into_iter().map(|(offset, _)| offset).collect();
        // Its refusal was heard, the position behind it was not.
        let buried = Buried::of(&self.broker).await.unwrap_or_else(|error| {
            tracing::warn!(broker = %self.broker.name(), %error, "dead letters cannot be read; they may count as delivered");
            Buried::default()
        });
        let mut reader = self.broker.journal().reader(at);
        while at < to {
            let items = reader.try_next(ACCOUNT_BYTES).await?;
            let mut done = Done::default();
            let begin = at;
            for item in &items {
                let (from, end) = range(item);
                match item {
                    Item::Event { epoch, offset, .. } if *offset < to && buried.contains(*offset, *epoch) => {
                        done.dead_lettered += 1;
                    }
                    Item::Event { offset, .. } if *offset < to && refused.contains(offset) => {
                        *done.dropped.entry(DropReason::Refused).or_default() += 1;
                    }
                    _ => add(&mut done, item, from.max(at), end.min(to)),
                }
                at = at.max(end.min(to));
            }
            if at == begin {
                return Err(LinkError::Nonsense(format!("{} goes on at {to}, which cannot be read", self.broker.name())));
            }
            if !self.consumer.advance(at, &done) {
                return Err(LinkError::Moved(self.broker.name().to_string()));
            }
        }
        Ok(())
    }

    /// Whether the cursor was moved by hand since the Broker goes on. Retention moves it forward, too, and is no reason to begin anew.
    pub(super) fn moved(&self) -> bool {
        let cursor = self.consumer.cursor();
        self.open && (cursor < self.accounted || (cursor > self.accounted && self.consumer.before_hand().is_some()))
    }

    /// A new stream begins, at whose other end nothing is known of the last.
    pub(super) fn begin(&mut self) {
        self.writer = BatchWriter::new(self.index());
    }

    /// Whether there is something that may be sent. A Broker that is no longer to go up stops at once; its lane goes with the
    /// connection.
    pub(super) fn ready(&self) -> bool {
        self.open
            && self.broker.settings().uplink
            && self.used < self.credit
            && (!self.held.is_empty() || self.reader.position() < self.broker.journal().next_offset())
    }

    /// Appends a frame of about `budget` bytes of bodies; none if there is nothing after all. Its range and account are the result;
    /// [`Lane::sent`] must follow.
    pub(super) async fn frame(
        &mut self,
        budget: usize,
        presses: impl FnOnce(u64) -> bool,
        out: &mut Vec<u8>,
    ) -> Result<Option<Filled>, LinkError> {
        if self.held.is_empty() {
            self.held = self.reader.try_next(budget).await?;
            drop_expired(&mut self.held, &self.clock, &mut self.scratch);
            for item in &mut self.held {
                refuse_too_large(item, self.max_body);
            }
        }
        let bytes: u64 =
            self.held.iter().map(|item| if let Item::Event { body, .. } = item { body.len() as u64 } else { 0 }).sum();
        let urgent = presses(bytes) || self.used + bytes + FRAME_COST >= self.credit / 2;
        let journal = self.broker.journal();
        let only_events = self.held.iter().all(|item| matches!(item, Item::Event { .. }));
        let lineage = if only_events { Lineage::default() } else { journal.lineage() };
        let Some(sent) = self.writer.frame(&self.held, &lineage, urgent, out) else { return Ok(None) };
        let (mut done, mut bytes) = (Done::default(), 0);
        for item in self.held.drain(..sent.items) {
            let (from, to) = range(&item);
            add(&mut done, &item, from.max(self.accounted), to);
            if let Item::Event { body, .. } = &item {
                bytes += body.len() as u64;
            }
        }
        Ok(Some(Filled { from: sent.from, to: sent.to, done, bytes, urgent }))
    }

    /// Notes that a frame is on its way.
    pub(super) fn sent(&mut self, filled: Filled, ticket: Ticket) {
        let cost = filled.bytes + FRAME_COST;
        self.used += cost;
        self.flights.push_back(Flight { from: filled.from, to: filled.to, done: filled.done, cost, ticket });
    }

    /// Events that will never be stored; the position that covers them follows. They are dead letters when this returns, or else
    /// are dropped.
    pub(super) async fn refuse(&mut self, mut refused: Vec<(Offset, String)>, letters: &Letters) {
        // Only what is on its way can be refused, and once.
        refused.retain(|(offset, _)| {
            *offset >= self.accounted
                && !self.refused.contains_key(offset)
                && self.flights.iter().any(|flight| (flight.from..flight.to).contains(offset))
        });
        for (offset, why) in &refused {
            tracing::warn!(broker = %self.broker.name(), %offset, "the gateway refuses an event for good: {why}");
        }
        if refused.is_empty() {
            return;
        }
        let kept = letters.keep(&self.broker, &refused).await;
        for (offset, _) in refused {
            let fate = if kept.contains(&offset) { Fate::DeadLetter } else { Fate::Dropped };
            self.refused.insert(offset, fate);
        }
    }

    /// Everything before `next` is stored.
    pub(super) fn answered(&mut self, next: Offset, window: &mut Window, now: Instant) -> Result<(), LinkError> {
        let mut done = Done::default();
        let mut to = None;
        while let Some(flight) = self.flights.front().filter(|flight| flight.to <= next) {
            window.answered(&flight.ticket, now);
            self.used = self.used.saturating_sub(flight.cost);
            let mut theirs = flight.done.clone();
            let later = self.refused.split_off(&flight.to);
            for (offset, fate) in std::mem::replace(&mut self.refused, later) {
                if offset >= self.accounted && theirs.delivered > 0 {
                    theirs.delivered -= 1;
                    match fate {
                        Fate::DeadLetter => theirs.dead_lettered += 1,
                        Fate::Dropped => *theirs.dropped.entry(DropReason::Refused).or_default() += 1,
                    }
                }
            }
            done.add(&theirs);
            to = Some(flight.to);
            self.flights.pop_front();
        }
        match to {
            Some(to) if to > self.accounted => {
                if !self.consumer.advance(to, &done) {
                    return Err(LinkError::Moved(self.broker.name().to_string()));
                }
                self.accounted = to;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// New credit. None at all: what is on its way is kept at the gateway, and is no measure of the link.
    pub(super) fn set_credit(&mut self, credit: u64, window: &mut Window) {
        if credit == 0 && self.credit > 0 {
            tracing::warn!(broker = %self.broker.name(), "the gateway cannot store this broker's events now");
            for flight in &mut self.flights {
                window.forget(&mut flight.ticket);
            }
        }
        self.credit = credit;
    }
}

/// What a frame holds.
#[derive(Debug)]
pub(super) struct Filled {
    from: Offset,
    to: Offset,
    done: Done,
    /// Bytes of its bodies.
    pub(super) bytes: u64,
    /// Whether its answer was asked for at once.
    pub(super) urgent: bool,
}

/// Adds what becomes of the offsets of an item in `[from, to)`.
fn add(done: &mut Done, item: &Item, from: Offset, to: Offset) {
    let n = to.since(from);
    match item {
        Item::Event { .. } => done.delivered += n,
        Item::Skip { reason, .. } if n > 0 => *done.dropped.entry(*reason).or_default() += n,
        Item::Skip { .. } => {}
        Item::Unwanted { .. } => done.filtered += n,
    }
}

/// An event that no frame can hold is given up, by name.
fn refuse_too_large(item: &mut Item, max_body: usize) {
    if let Item::Event { offset, body, .. } = item
        && body.len() > max_body
    {
        tracing::warn!(%offset, bytes = body.len(), "an event is larger than the gateway takes and is given up");
        *item = Item::Skip { from: *offset, to: offset.plus(1), reason: DropReason::Refused };
    }
}
