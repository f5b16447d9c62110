//! The acknowledgements that a connection owes, in the order in which the publishes came.
//!
//! Each append to a journal is a *run*: one receipt and the packets it decides. Only the run at the head is looked at, so an
//! acknowledgement never overtakes an earlier one, whichever journal that went to, and all that a commit decides can leave in
//! one write.
//!
//! A connection that owes nothing has no buffers; those it had go to the next of its thread that owes something.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use godwit_mesh::broker::Claim;
use godwit_mesh::journal::{Receipt, Refused};
use godwit_mesh::observe::Span;

use super::fanout::Message;
use super::routes::Route;

/// How many connections' buffers a thread keeps for others.
const SPARES: usize = 4;
/// Buffers for more packets, acknowledgements or runs than this are not kept.
const SPARE_BYTES: usize = 64 << 10;
const SPARE_ACKS: usize = 1024;
const SPARE_RUNS: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<Queues>> = const { RefCell::new(Vec::new()) };
}

/// One packet that waits for its acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) packet_id: u16,
    pub(super) kind: AckKind,
    /// An MQTT 5 reason code, where it is other than success although nothing failed.
    pub(super) reason: u8,
}

impl Ack {
    pub(super) const fn new(packet_id: u16, kind: AckKind) -> Self {
        Self { packet_id, kind, reason: 0 }
    }
}

/// Which acknowledgement it will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AckKind {
    /// PUBACK.
    Puback,
    /// PUBREC.
    Pubrec,
    /// PUBREC for a publish that was stored before: it only keeps its place in the row.
    PubrecAgain,
    /// PUBCOMP for a hand-shake that was open.
    Pubcomp,
    /// PUBCOMP for one that was not.
    PubcompUnknown,
}

/// What decides a run.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Known from the start.
    Known(Result<(), Refused>),
    /// The journal will say.
    Receipt(Receipt),
}

/// The packets that one append decides.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) outcome: Outcome,
    /// How many of the queue's acknowledgements belong to it.
    pub(super) count: usize,
    /// The way it went, for another try and for who counts.
    pub(super) route: Option<Route>,
    /// How many publishes went it.
    pub(super) publishes: u64,
    /// Which of them are stored, where a Broker stores no duplicates.
    pub(super) claim: Option<Box<Claim>>,
    /// Its publishes' spans, over when it leaves the queue. None where there are no traces.
    pub(super) spans: Vec<Span>,
    /// How many bytes of packets are kept of it.
    packets: usize,
    /// What goes to live subscribers once it is durable.
    pub(super) messages: Vec<Arc<Message>>,
}

impl Run {
    /// A run without packets of its own to try again or messages for subscribers.
    pub(super) fn plain(outcome: Outcome, count: usize) -> Self {
        Self { outcome, count, route: None, publishes: 0, claim: None, spans: Vec::new(), packets: 0, messages: Vec::new() }
    }

    /// The receipt of its append.
    pub(super) fn receipt(&self) -> Option<&Receipt> {
        match &self.outcome {
            Outcome::Receipt(receipt) => Some(receipt),
            Outcome::Known(_) => None,
        }
    }

    /// Its outcome is final: its spans are over.
    fn end_spans(&mut self) {
        for mut span in self.spans.drain(..) {
            if let Outcome::Known(Err(refused)) = &self.outcome {
                span.failed(&refused.to_string());
            }
        }
    }

    /// Whether it was refused, but not for good, and its packets are here.
    pub(super) fn is_to_be_tried_again(&self) -> bool {
        let for_now = |refused: &Refused| !matches!(refused, Refused::TooLarge { .. } | Refused::Closed);
        self.packets > 0
            && match &self.outcome {
                Outcome::Known(outcome) => outcome.as_ref().is_err_and(for_now),
                Outcome::Receipt(receipt) => {
                    receipt.is_refused() && receipt.outcome().is_some_and(|outcome| outcome.is_err_and(|r| for_now(&r)))
                }
            }
    }
}

/// What is owed, the oldest first.
#[derive(Debug, Default)]
struct Queues {
    runs: VecDeque<Run>,
    acks: VecDeque<Ack>,
    /// The runs' packets as they came, kept for 3.1.1: what was refused is tried again.
    packets: VecDeque<u8>,
}

impl Queues {
    /// Some that are empty.
    fn take_spare() -> Self {
        SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    /// Gives them away, empty, to whoever needs some next.
    fn give_away(self) {
        let large =
            self.packets.capacity() > SPARE_BYTES || self.acks.capacity() > SPARE_ACKS || self.runs.capacity() > SPARE_RUNS;
        SPARE.with_borrow_mut(|spare| {
            if !large && spare.len() < SPARES {
                spare.push(self);
            }
        });
    }
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Acks {
    queues: Queues,
    /// QoS 1 publishes among them: what counts against Receive Maximum beside the open QoS 2 hand-shakes.
    pubacks: usize,
}

impl Acks {
    pub(super) fn is_empty(&self) -> bool {
        self.queues.runs.is_empty()
    }

    /// QoS 1 publishes that are not yet acknowledged.
    pub(super) const fn open_qos1(&self) -> usize {
        self.pubacks
    }

    /// Adds a run with its acknowledgements, and the packets that are kept for another try.
    pub(super) fn push(&mut self, mut run: Run, packets: &[u8], acks: impl Iterator<Item = Ack>) {
        if self.queues.runs.is_empty() {
            self.queues = Queues::take_spare();
        }
        let before = self.queues.acks.len();
        for ack in acks {
            self.pubacks += usize::from(ack.kind == AckKind::Puback);
            self.queues.acks.push_back(ack);
        }
        debug_assert_eq!(run.count, self.queues.acks.len() - before, "a run knows its acknowledgements");
        run.packets = packets.len();
        self.queues.packets.extend(packets);
        self.queues.runs.push_back(run);
    }

    /// Adds one acknowledgement that is due as soon as all before it have left.
    pub(super) fn push_known(&mut self, ack: Ack) {
        self.push(Run::plain(Outcome::Known(Ok(())), 1), &[], std::iter::once(ack));
    }

    /// The head's outcome, once it is known. Wakes the task when it becomes so.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(), Refused>>> {
        let Some(run) = self.queues.runs.front_mut() else { return Poll::Ready(None) };
        match &mut run.outcome {
            Outcome::Known(outcome) => Poll::Ready(Some(outcome.clone())),
            Outcome::Receipt(receipt) => match Pin::new(receipt).poll(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(outcome) => {
                    let outcome = outcome.map(|_| ());
                    run.outcome = Outcome::Known(outcome.clone());
                    Poll::Ready(Some(outcome))
                }
            },
        }
    }

    /// How many runs there are.
    pub(super) fn len(&self) -> usize {
        self.queues.runs.len()
    }

    /// All runs, the head first.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.queues.runs.iter()
    }

    /// One run; 0 is the head.
    pub(super) fn run(&self, at: usize) -> Option<&Run> {
        self.queues.runs.get(at)
    }

    /// The packets that are kept of a run, copied.
    pub(super) fn packets(&self, at: usize) -> Vec<u8> {
        let before = self.queues.runs.iter().take(at).map(|run| run.packets).sum();
        let len = self.run(at).map_or(0, |run| run.packets);
        self.queues.packets.iter().skip(before).take(len).copied().collect()
    }

    /// The newest receipt.
    pub(super) fn last_receipt(&self) -> Option<&Receipt> {
        self.queues.runs.iter().rev().find_map(Run::receipt)
    }

    /// What decides a run from now on.
    pub(super) fn decide(&mut self, at: usize, outcome: Outcome, claim: Option<Box<Claim>>) {
        if let Some(run) = self.queues.runs.get_mut(at) {
            run.outcome = outcome;
            run.claim = claim;
        }
    }

    /// Lets others store what was refused here, until it is tried again.
    pub(super) fn release_refused(&mut self) {
        self.queues.runs.iter_mut().filter(|run| run.is_to_be_tried_again()).for_each(|run| run.claim = None);
    }

    /// Takes the head and hands each of its acknowledgements to `each`.
    pub(super) fn pop(&mut self, mut each: impl FnMut(Ack)) -> Option<Run> {
        let mut run = self.queues.runs.pop_front()?;
        run.end_spans();
        for ack in self.queues.acks.drain(..run.count.min(self.queues.acks.len())) {
            self.pubacks -= usize::from(ack.kind == AckKind::Puback);
            each(ack);
        }
        self.queues.packets.drain(..run.packets.min(self.queues.packets.len()));
        if self.queues.runs.is_empty() {
            std::mem::take(&mut self.queues).give_away();
        }
        Some(run)
    }
}
