//! A connection after CONNACK: one task that reads, appends, acknowledges and delivers.
//!
//! The task is a loop of steps; each writes what is due in one write, then reads once and looks at all that came. It does not
//! read while the journal is busy, while the peer does not take what it is owed, or once the end is decided. The end has an
//! order of its own: what was appended is settled first, then the session is let go.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use rumqttd::protocol::{DisconnectReasonCode, Packet, PubRecReason, SubscribeReasonCode, UnsubAckReason};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tracing::debug;

use super::fanout::InFlight;
use super::hub::{Hub, Seat};
use super::packet::frame::{Frame, kind};
use super::packet::topic::filter_is_valid;
use super::packet::{Fault, Version, control, reason};
use super::publish::{Hold, Inbound, Settled, Stop};
use super::session::Order;
use super::subscriptions::Options;
use super::transport::{READ_BUFFER, Transport, with_read_buffer, with_write_buffer};

/// Reads in one step; then others have their turn.
const READS_PER_STEP: usize = 4;
/// Above this many bytes that the peer does not take, nothing more is read from it or delivered to it.
const MAX_OUTPUT: usize = 16 << 10;
/// What is read ahead, for PINGREQ, while publishes wait for a full disk.
const MAX_READ_AHEAD: usize = READ_BUFFER;
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
    /// The journal's room, or the client's rate.
    For(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// Time to append refused publishes again; meanwhile PINGREQ is answered.
    Retry(Pin<Box<tokio::time::Sleep>>),
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
            let ours = matches!(fault.reason, reason::TAKEN_OVER | reason::SHUTTING_DOWN | reason::KEEP_ALIVE_TIMEOUT);
            if !ours {
                self.hub.counters.faults.add(1);
            }
            debug!(client = &*self.seat.session.client_id, %fault, "closing");
        }
        self.end = Some(end);
        self.ending_since_ms = self.hub.clock.elapsed_ms();
        self.input = Vec::new();
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

    /// Gets on with what has come, or reads more. Pending when there is nothing to be done until woken.
    fn advance(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<()> {
        match &mut self.waiting {
            Waiting::Nothing => {}
            Waiting::For(future) => {
                std::task::ready!(future.as_mut().poll(cx));
                self.waiting = Waiting::Nothing;
                self.last_in_ms = self.hub.clock.elapsed_ms();
                let input = std::mem::take(&mut self.input);
                self.look_at(&input, out);
                return Poll::Ready(());
            }
            Waiting::Retry(sleep) => {
                if sleep.as_mut().poll(cx).is_ready() {
                    self.waiting = Waiting::Nothing;
                    self.inbound.try_again(&self.hub, &self.seat.session);
                    let input = std::mem::take(&mut self.input);
                    self.look_at(&input, out);
                    return Poll::Ready(());
                }
                return self.read_ahead(cx, out);
            }
        }
        if self.output.len() >= MAX_OUTPUT {
            return Poll::Pending;
        }
        self.read(cx, out)
    }

    /// Reads once and looks at what has come.
    fn read(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<()> {
        with_read_buffer(|buffer| {
            // The part of a packet that is here already goes in front, unless it is large itself.
            let kept = if self.input.len() <= READ_BUFFER / 2 { self.input.len() } else { 0 };
            if let Some(front) = buffer.get_mut(..kept) {
                front.copy_from_slice(self.input.get(..kept).unwrap_or_default());
            }
            let mut space = ReadBuf::new(buffer.get_mut(kept..).unwrap_or_default());
            let read = std::task::ready!(Pin::new(&mut self.transport).poll_read(cx, &mut space));
            let n = space.filled().len();
            if read.is_err() || n == 0 {
                self.broken = read.is_err();
                self.finish(End::Lost);
                return Poll::Ready(());
            }
            self.last_in_ms = self.hub.clock.elapsed_ms();
            if kept == self.input.len() {
                self.input = Vec::new();
                self.look_at(buffer.get(..kept + n).unwrap_or_default(), out);
            } else {
                self.input.extend_from_slice(buffer.get(..n).unwrap_or_default());
                let whole = Frame::next(&self.input, self.hub.limits.max_packet_bytes);
                if !matches!(whole, Ok(None)) {
                    let input = std::mem::take(&mut self.input);
                    self.look_at(&input, out);
                }
            }
            Poll::Ready(())
        })
    }

    /// While publishes wait for a full disk: reads some more, so that PINGREQ is answered and a peer's end is noticed.
    fn read_ahead(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<()> {
        if self.input.len() >= MAX_READ_AHEAD {
            return Poll::Pending;
        }
        with_read_buffer(|buffer| {
            let mut space = ReadBuf::new(buffer);
            let read = std::task::ready!(Pin::new(&mut self.transport).poll_read(cx, &mut space));
            if read.is_err() || space.filled().is_empty() {
                self.broken = read.is_err();
                self.finish(End::Lost);
                return Poll::Ready(());
            }
            self.last_in_ms = self.hub.clock.elapsed_ms();
            self.input.extend_from_slice(space.filled());
            let mut at = 0;
            while let Ok(Some(frame)) = Frame::next(self.input.get(at..).unwrap_or_default(), usize::MAX) {
                let (len, ping) = (frame.whole.len(), frame.whole == [kind::PINGREQ << 4, 0]);
                if ping {
                    self.input.drain(at..at + len);
                    control::pingresp(out, self.flow.version);
                } else {
                    at += len;
                }
            }
            Poll::Ready(())
        })
    }

    /// Looks at all whole packets in `bytes` and keeps the rest.
    fn look_at(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut at = 0;
        while self.end.is_none() {
            let rest = bytes.get(at..).unwrap_or_default();
            let (taken, stop) = self.inbound.take(&self.hub, &self.seat.session, rest);
            at += taken;
            let rest = bytes.get(at..).unwrap_or_default();
            match stop {
                Stop::End => {
                    self.input = rest.to_vec();
                    return;
                }
                Stop::Held(hold) => {
                    self.input = rest.to_vec();
                    self.waiting = match hold {
                        Hold::Room(journal) => Waiting::For(Box::pin(async move { journal.room().await })),
                        Hold::Rate(ms) => Waiting::For(Box::pin(tokio::time::sleep(Duration::from_millis(ms)))),
                    };
                    return;
                }
                Stop::Fault(fault) => self.fault(fault),
                Stop::Other => {
                    let Ok(Some(frame)) = Frame::next(rest, usize::MAX) else { return };
                    at += frame.whole.len();
                    match control::decode(&frame, self.flow.version) {
                        Ok(packet) => self.handle(packet, out),
                        Err(fault) => self.fault(fault),
                    }
                }
            }
        }
    }

    /// A packet other than PUBLISH and PUBREL.
    fn handle(&mut self, packet: Packet, out: &mut Vec<u8>) {
        let version = self.flow.version;
        match packet {
            Packet::PingReq(_) => control::pingresp(out, version),
            Packet::Subscribe(subscribe, properties) => {
                let identifier = properties.and_then(|p| p.id);
                if identifier == Some(0) {
                    return self.fault(Fault::protocol("subscription identifier 0"));
                }
                let identifier = identifier.and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
                let codes = subscribe.filters.iter().map(|filter| self.subscribe(filter, identifier)).collect();
                control::suback(out, version, subscribe.pkid, codes);
            }
            Packet::Unsubscribe(unsubscribe, _) => {
                let remove = |filter: &String| match self.hub.unsubscribe(&self.seat.session, filter) {
                    true => UnsubAckReason::Success,
                    false => UnsubAckReason::NoSubscriptionExisted,
                };
                let reasons = unsubscribe.filters.iter().map(remove).collect();
                control::unsuback(out, version, unsubscribe.pkid, reasons);
            }
            Packet::PubAck(puback, _) => {
                if let Some(in_flight) = &mut self.in_flight {
                    in_flight.acknowledged(puback.pkid);
                }
            }
            Packet::PubRec(pubrec, _) => {
                let refused = !matches!(pubrec.reason, PubRecReason::Success | PubRecReason::NoMatchingSubscribers);
                let known = self.in_flight.as_mut().map_or(Some(false), |flight| flight.received(pubrec.pkid, refused));
                if let Some(known) = known {
                    control::pubrel(out, version, pubrec.pkid, known);
                }
            }
            Packet::PubComp(pubcomp, _) => {
                if let Some(in_flight) = &mut self.in_flight {
                    in_flight.completed(pubcomp.pkid);
                }
            }
            Packet::Disconnect(disconnect, properties) => {
                let expiry = properties.and_then(|p| p.session_expiry_interval);
                self.disconnect(disconnect.reason_code, expiry);
            }
            _ => self.fault(Fault::protocol("a packet that a client must not send")),
        }
    }

    fn subscribe(&self, filter: &rumqttd::protocol::Filter, identifier: u32) -> SubscribeReasonCode {
        if filter.path.starts_with("$share/") {
            return SubscribeReasonCode::SharedSubscriptionsNotSupported;
        }
        if !filter_is_valid(&filter.path, &self.hub.limits) {
            return SubscribeReasonCode::TopicFilterInvalid;
        }
        let options = Options {
            qos: filter.qos as u8,
            no_local: filter.nolocal,
            retain_as_published: filter.preserve_retain,
            identifier,
        };
        if self.hub.subscribe(&self.seat.session, &filter.path, options) {
            SubscribeReasonCode::Success(filter.qos)
        } else {
            SubscribeReasonCode::QuotaExceeded
        }
    }

    /// DISCONNECT (5.0, 3.14): without its will unless the client asks for it.
    fn disconnect(&mut self, code: DisconnectReasonCode, expiry: Option<u32>) {
        match expiry {
            Some(seconds) if seconds > 0 && self.seat.expiry_seconds == 0 => {
                return self.fault(Fault::protocol("a session expiry that was 0 cannot be raised"));
            }
            Some(seconds) => {
                let longest = u32::try_from(self.hub.limits.session_expiry.as_secs()).unwrap_or(u32::MAX);
                self.seat.expiry_seconds = seconds.min(longest);
            }
            None => {}
        }
        if code == DisconnectReasonCode::NormalDisconnection {
            self.seat.will = None;
        }
        self.finish(End::Goodbye);
    }

    /// Ends a connection that has taken too long for something.
    fn check_time(&mut self) {
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
        self.seat.session.deadline_ms.store(self.deadline_ms(), Ordering::Relaxed);
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
