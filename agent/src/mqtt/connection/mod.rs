//! A connection after CONNACK: one task that reads, appends, acknowledges and delivers.
//!
//! The task is a loop of steps; each writes what is due in one write, then reads once and looks at all that came. It does not
//! read while the journal is busy, while the peer does not take what it is owed, or once the end is decided. The end has an
//! order of its own: what was appended is settled first, then the session is let go.

mod packets;
mod reading;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use godwit_mesh::room::{Held, LOOK};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tracing::debug;

use super::fanout::InFlight;
use super::hub::Hub;
use super::packet::{Fault, Version, control, reason};
use super::publish::{Inbound, Settled};
use super::seat::Seat;
use super::session::Order;
use super::transport::{Transport, with_write_buffer};

/// Reads in one step; then others have their turn.
const READS_PER_STEP: usize = 4;
/// Above this many bytes that the peer does not take, nothing more is read from it or delivered to it.
const MAX_OUTPUT: usize = 16 << 10;
/// Pause before a refused publish is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// How long a peer may take for its last bytes when we close.
const CLOSE_MS: u64 = 2_000;

/// How long bytes still on their way from a peer are taken and thrown away, so that it gets our last packet and not a reset.
const LINGER: Duration = Duration::from_millis(500);

/// What CONNECT said about the flow of packets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    pub(super) version: Version,
    /// One and a half times the keep-alive; 0 for none.
    pub(super) keep_alive_ms: u64,
    pub(super) receive_maximum: u16,
    pub(super) max_packet_bytes: u32,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client said goodbye; with its will if it asked so.
    Goodbye,
    /// The socket closed or broke.
    Lost,
    /// We end it, and tell a 5.0 client why.
    Fault(Fault),
}

/// What reading waits for.
enum Waiting {
    Nothing,
    /// The journal's room, the client's rate, or what becomes of an event of the same name.
    For(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// Room for a large packet, of which part is here.
    Room(Pin<Box<dyn Future<Output = Option<Held>> + Send>>),
    /// Time to append refused publishes again; meanwhile PINGREQ is answered.
    Retry(Pin<Box<tokio::time::Sleep>>),
    /// Refused publishes, to be stored before what has come since.
    Refused,
}

/// A connection.
pub(super) struct Connection {
    hub: Arc<Hub>,
    transport: Transport,
    seat: Seat,
    inbound: Inbound,
    flow: Flow,
    /// Came, but not looked at to the end: part of a packet, or what waits for the journal.
    input: Vec<u8>,
    /// For `input`, where it is large.
    room: Option<Held>,
    /// While there is room: when to look whether it must be given up.
    look: Option<Pin<Box<tokio::time::Sleep>>>,
    /// Due, but not taken by the socket.
    output: Vec<u8>,
    in_flight: Option<Box<InFlight>>,
    waiting: Waiting,
    /// When the last bytes came and went, in ms of elapsed time.
    last_in_ms: u64,
    last_out_ms: u64,
    end: Option<End>,
    /// When the end was decided.
    ending_since_ms: u64,
    /// DISCONNECT has been written, or there is none to write.
    told: bool,
    /// The socket can no longer be written.
    broken: bool,
    /// A layer above TCP holds bytes that the socket has not taken.
    unflushed: bool,
}

impl Connection {
    pub(super) fn new(
        hub: Arc<Hub>,
        transport: Transport,
        seat: Seat,
        inbound: Inbound,
        flow: Flow,
        input: Vec<u8>,
    ) -> Box<Self> {
        let now_ms = hub.clock.elapsed_ms();
        Box::new(Self {
            hub,
            transport,
            seat,
            inbound,
            flow,
            input,
            room: None,
            look: None,
            output: Vec::new(),
            in_flight: None,
            waiting: Waiting::Nothing,
            last_in_ms: now_ms,
            last_out_ms: now_ms,
            end: None,
            ending_since_ms: 0,
            told: false,
            broken: false,
            unflushed: false,
        })
    }

    /// Serves the connection to its end, and lets go of the session.
    pub(super) async fn run(mut self: Box<Self>) {
        if !self.input.is_empty() {
            let input = std::mem::take(&mut self.input);
            let mut out = Vec::new();
            self.look_at(&input, &mut out);
            self.output = out;
        }
        poll_fn(|cx| with_write_buffer(|out| self.step(cx, out))).await;
        let Self { mut seat, inbound, transport, end, broken, .. } = *self;
        seat.handshakes = inbound.handshakes;
        seat.leave().await;
        if matches!(end, Some(End::Fault(_))) && !broken {
            Box::pin(linger(transport)).await;
        }
    }

    /// One turn. Ready when there is nothing left to do.
    fn step(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<()> {
        self.obey(cx);
        for _ in 0..READS_PER_STEP {
            self.settle(cx, out);
            let more = self.deliver(out);
            self.say_goodbye(out);
            self.write(cx, out);
            if self.end.is_some() {
                if self.is_over() {
                    return Poll::Ready(());
                }
                if !self.told && self.inbound.is_settled() {
                    // The write has just failed: nothing else would wake us.
                    continue;
                }
                self.set_deadline();
                return Poll::Pending;
            }
            if more && self.output.is_empty() {
                continue;
            }
            if self.advance(cx, out).is_pending() {
                if self.end.is_some() || !out.is_empty() {
                    continue;
                }
                self.check_time();
                if self.end.is_some() {
                    continue;
                }
                self.set_deadline();
                self.look_again(cx);
                return Poll::Pending;
            }
        }
        // Bytes may be left in `out`: they go out in the next turn, which comes at once.
        self.output.append(out);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Registers for being woken, and takes orders.
    fn obey(&mut self, cx: &mut Context<'_>) {
        let order = {
            let mut state = self.seat.session.lock();
            let Some(link) = &mut state.link else { return };
            if !link.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                link.waker = Some(cx.waker().clone());
            }
            link.order.take()
        };
        match order {
            Some(Order::TakenOver) => {
                self.hub.counters.take_overs.add(1);
                self.fault(Fault::new(reason::TAKEN_OVER, "another connection has this client id"));
            }
            Some(Order::Revoked) => {
                self.fault(Fault::new(reason::NOT_AUTHORIZED, "the user name and password are no longer valid here"));
            }
            Some(Order::Shutdown) => {
                // The client is well, it is we who go: no will.
                self.seat.will = None;
                self.fault(Fault::new(reason::SHUTTING_DOWN, "the agent is stopping"));
            }
            None => {}
        }
    }

    fn fault(&mut self, fault: Fault) {
        self.finish(End::Fault(fault));
    }

    fn finish(&mut self, end: End) {
        if self.end.is_some() {
            return;
        }
        if let End::Fault(fault) = end {
            use reason::{KEEP_ALIVE_TIMEOUT, NOT_AUTHORIZED, SHUTTING_DOWN, TAKEN_OVER};
            let ours = matches!(fault.reason, TAKEN_OVER | SHUTTING_DOWN | KEEP_ALIVE_TIMEOUT | NOT_AUTHORIZED);
            if !ours {
                self.hub.counters.faults.add(1);
            }
            debug!(client = &*self.seat.session.client_id, %fault, "closing");
        }
        self.end = Some(end);
        self.ending_since_ms = self.hub.clock.elapsed_ms();
        self.input = Vec::new();
        self.room = None;
        self.look = None;
        self.waiting = Waiting::Nothing;
    }

    /// Writes the acknowledgements that are due.
    fn settle(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        if matches!(self.waiting, Waiting::Retry(_)) {
            return;
        }
        loop {
            match self.inbound.settle(cx, &self.hub, &self.seat.session, out) {
                Ok(Settled::Done) => return,
                Ok(Settled::TryAgain) if self.end.is_some() => self.inbound.give_up_head(),
                Ok(Settled::TryAgain) => {
                    self.waiting = Waiting::Retry(Box::pin(tokio::time::sleep(RETRY_PAUSE)));
                    return;
                }
                Err(fault) => self.fault(fault),
            }
        }
    }

    /// Writes the messages that wait for this subscriber, as far as it has room. Answers whether there are more that could
    /// follow.
    fn deliver(&mut self, out: &mut Vec<u8>) -> bool {
        if self.end.is_some() {
            return false;
        }
        let mut state = self.seat.session.lock();
        if state.queue.is_empty() {
            return false;
        }
        let window = self.flow.receive_maximum.min(self.hub.limits.outgoing_window);
        let in_flight = self.in_flight.get_or_insert_with(|| Box::new(InFlight::new(window)));
        let now_ms = self.hub.clock.elapsed_ms();
        while self.output.len() + out.len() < MAX_OUTPUT {
            let Some(delivery) = state.queue.pop(|next| in_flight.may_send(next.qos)) else { return false };
            let sent = in_flight.send(out, &delivery, self.flow.version, self.flow.max_packet_bytes, now_ms);
            let counters = &self.hub.counters;
            if sent { counters.deliveries.add(1) } else { counters.dropped_deliveries.add(1) }
        }
        true
    }

    /// The last packet, once nothing else is due.
    fn say_goodbye(&mut self, out: &mut Vec<u8>) {
        if self.told || !self.inbound.is_settled() {
            return;
        }
        if let Some(end) = self.end {
            self.told = true;
            if let (End::Fault(fault), Version::V5) = (end, self.flow.version) {
                control::disconnect(out, &fault);
            }
        }
    }

    fn is_over(&self) -> bool {
        let too_slow = self.hub.clock.elapsed_ms() >= self.ending_since_ms + CLOSE_MS;
        self.told && (self.broken || (self.output.is_empty() && !self.unflushed) || too_slow)
    }

    /// Writes what is due; what the socket does not take is kept.
    fn write(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        if self.broken {
            out.clear();
            self.output.clear();
            return;
        }
        if !self.output.is_empty() {
            self.output.append(out);
            std::mem::swap(&mut self.output, out);
        }
        if out.is_empty() && !self.unflushed {
            return;
        }
        let mut written = 0;
        let mut failed = false;
        while let Some(rest) = out.get(written..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.transport).poll_write(cx, rest) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    written += n;
                    self.last_out_ms = self.hub.clock.elapsed_ms();
                }
                Poll::Ready(_) => {
                    failed = true;
                    break;
                }
                Poll::Pending => break,
            }
        }
        if matches!(self.transport, Transport::Layered(_)) && !failed {
            let flushed = Pin::new(&mut self.transport).poll_flush(cx);
            self.unflushed = flushed.is_pending();
            failed = matches!(flushed, Poll::Ready(Err(_)));
        }
        if failed {
            out.clear();
            self.output = Vec::new();
            self.broken = true;
            self.finish(End::Lost);
            return;
        }
        if self.output.is_empty() && written < out.len() {
            if written == 0 {
                // Nothing went out this time: the peer has until the write timeout from here.
                self.last_out_ms = self.last_out_ms.max(self.last_in_ms);
            }
            self.output.extend_from_slice(out.get(written..).unwrap_or_default());
        }
        out.clear();
        if self.output.is_empty() {
            self.output = Vec::new();
        }
    }

    /// Ends a connection that has taken too long for something.
    fn check_time(&mut self) {
        if self.room.as_ref().is_some_and(|held| self.hub.room.is_over(held)) && matches!(self.waiting, Waiting::Nothing) {
            self.hub.counters.timeouts.add(1);
            self.fault(Fault::new(reason::SERVER_BUSY, "the packet came too slowly while others waited for room"));
            return;
        }
        if self.deadline_ms() > self.hub.clock.elapsed_ms() {
            return;
        }
        self.hub.counters.timeouts.add(1);
        self.broken |= !self.output.is_empty() || self.unflushed;
        self.fault(Fault::new(reason::KEEP_ALIVE_TIMEOUT, "nothing came or went for too long"));
    }

    /// When somebody must look at this connection again, whatever else happens.
    fn deadline_ms(&self) -> u64 {
        let after = |since_ms: u64, limit_ms: u64| since_ms.saturating_add(limit_ms);
        if self.end.is_some() {
            return after(self.ending_since_ms, CLOSE_MS);
        }
        let limits = &self.hub.limits;
        let millis = |limit: Duration| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let mut deadline = u64::MAX;
        if !self.output.is_empty() || self.unflushed {
            deadline = deadline.min(after(self.last_out_ms, millis(limits.write_timeout)));
        }
        let reading = matches!(self.waiting, Waiting::Nothing) && self.output.len() < MAX_OUTPUT;
        if reading && self.flow.keep_alive_ms > 0 {
            deadline = deadline.min(after(self.last_in_ms, self.flow.keep_alive_ms));
        }
        if reading && !self.input.is_empty() {
            deadline = deadline.min(after(self.last_in_ms, millis(limits.packet_timeout)));
        }
        deadline
    }

    fn set_deadline(&self) {
        let deadline_ms = self.deadline_ms();
        self.seat.session.deadline_ms.store(deadline_ms, Ordering::Relaxed);
        self.hub.look_by(deadline_ms);
    }

    /// Is woken when it is time to see whether the room must be given up: too soon for the listener's ticks.
    fn look_again(&mut self, cx: &mut Context<'_>) {
        if self.room.is_none() {
            self.look = None;
            return;
        }
        // One that has rung has done its work: a look was taken just now.
        while self.look.get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK))).as_mut().poll(cx).is_ready() {
            self.look = None;
        }
    }
}

/// Closes our side and waits a moment for the peer's.
async fn linger(mut transport: Transport) {
    let discard = async {
        if transport.shutdown().await.is_err() {
            return;
        }
        let mut sink = [0; 256];
        while matches!(transport.read(&mut sink).await, Ok(n) if n > 0) {}
    };
    // Whether it closed or not, this is the end.
    let _ = tokio::time::timeout(LINGER, discard).await;
}
