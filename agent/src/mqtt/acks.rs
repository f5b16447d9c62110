//! The acknowledgements that a connection owes, in the order in which the publishes came.
//!
//! Each append to a journal is a *run*: one receipt and the packets it decides. Only the run at the head is looked at, so an
//! acknowledgement never overtakes an earlier one, whichever journal that went to, and all that a commit decides can leave in
//! one write.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use godwit_mesh::journal::{Journal, Receipt, Refused};

use super::fanout::Message;

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
    /// The journal it went to, for another try.
    pub(super) journal: Option<Journal>,
    /// The packets as they came, kept for 3.1.1: what was refused is tried again.
    pub(super) packets: Box<[u8]>,
    /// What goes to live subscribers once it is durable.
    pub(super) messages: Vec<Arc<Message>>,
}

impl Run {
    /// A run without packets of its own to try again or messages for subscribers.
    pub(super) fn plain(outcome: Outcome, count: usize) -> Self {
        Self { outcome, count, journal: None, packets: Box::default(), messages: Vec::new() }
    }

    /// The receipt of its append.
    pub(super) fn receipt(&self) -> Option<&Receipt> {
        match &self.outcome {
            Outcome::Receipt(receipt) => Some(receipt),
            Outcome::Known(_) => None,
        }
    }

    /// Whether it was refused, but not for good, and its packets are here.
    pub(super) fn is_to_be_tried_again(&self) -> bool {
        let for_now = |refused: &Refused| !matches!(refused, Refused::TooLarge { .. } | Refused::Closed);
        !self.packets.is_empty()
            && match &self.outcome {
                Outcome::Known(outcome) => outcome.as_ref().is_err_and(for_now),
                Outcome::Receipt(receipt) => {
                    receipt.is_refused() && receipt.outcome().is_some_and(|outcome| outcome.is_err_and(|r| for_now(&r)))
                }
            }
    }
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Acks {
    runs: VecDeque<Run>,
    acks: VecDeque<Ack>,
    /// QoS 1 publishes among them: what counts against Receive Maximum beside the open QoS 2 hand-shakes.
    pubacks: usize,
}

impl Acks {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// QoS 1 publishes that are not yet acknowledged.
    pub(super) const fn open_qos1(&self) -> usize {
        self.pubacks
    }

    /// Adds a run with its acknowledgements.
    pub(super) fn push(&mut self, run: Run, acks: impl Iterator<Item = Ack>) {
        let before = self.acks.len();
        for ack in acks {
            self.pubacks += usize::from(ack.kind == AckKind::Puback);
            self.acks.push_back(ack);
        }
        debug_assert_eq!(run.count, self.acks.len() - before, "a run knows its acknowledgements");
        self.runs.push_back(run);
    }

    /// Adds one acknowledgement that is due as soon as all before it have left.
    pub(super) fn push_known(&mut self, ack: Ack) {
        self.push(Run::plain(Outcome::Known(Ok(())), 1), std::iter::once(ack));
    }

    /// The head's outcome, once it is known. Wakes the task when it becomes so.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(), Refused>>> {
        let Some(run) = self.runs.front_mut() else { return Poll::Ready(None) };
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
        self.runs.len()
    }

    /// All runs, the head first.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter()
    }

    /// One run; 0 is the head.
    pub(super) fn run(&self, at: usize) -> Option<&Run> {
        self.runs.get(at)
    }

    /// The newest receipt.
    pub(super) fn last_receipt(&self) -> Option<&Receipt> {
        self.runs.iter().rev().find_map(Run::receipt)
    }

    /// What decides a run from now on.
    pub(super) fn decide(&mut self, at: usize, outcome: Outcome) {
        if let Some(run) = self.runs.get_mut(at) {
            run.outcome = outcome;
        }
    }

    /// Takes the head and hands each of its acknowledgements to `each`.
    pub(super) fn pop(&mut self, mut each: impl FnMut(Ack)) -> Option<Run> {
        let run = self.runs.pop_front()?;
        for ack in self.acks.drain(..run.count.min(self.acks.len())) {
            self.pubacks -= usize::from(ack.kind == AckKind::Puback);
            each(ack);
        }
        if self.runs.is_empty() {
            // An idle client keeps no buffers.
            self.runs = VecDeque::new();
            self.acks = VecDeque::new();
        }
        Some(run)
    }
}
