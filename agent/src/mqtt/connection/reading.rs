//! Reading: what came is looked at where it lies, and what cannot be looked at yet is kept.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};

use super::{Connection, End, Waiting};
use crate::mqtt::limits::{NO_ROOM, SMALL_PACKET};
use crate::mqtt::packet::frame::{Frame, kind};
use crate::mqtt::packet::{Fault, control, reason};
use crate::mqtt::publish::{Hold, Stop};
use crate::mqtt::transport::{READ_BUFFER, with_read_buffer};

/// What is read ahead, for PINGREQ, while publishes wait for a full disk.
const MAX_READ_AHEAD: usize = READ_BUFFER;

impl Connection {
    /// Gets on with what has come, or reads more. Pending when there is nothing to be done until woken.
    pub(super) fn advance(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<()> {
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
            Waiting::Room(future) => {
                let held = std::task::ready!(future.as_mut().poll(cx));
                self.waiting = Waiting::Nothing;
                self.last_in_ms = self.hub.clock.elapsed_ms();
                match &held {
                    Some(held) => held.arrived(self.input.len()),
                    None => self.fault(Fault::new(reason::SERVER_BUSY, NO_ROOM)),
                }
                self.room = held;
                return Poll::Ready(());
            }
            Waiting::Retry(sleep) => {
                if sleep.as_mut().poll(cx).is_ready() {
                    self.inbound.try_again(&self.hub, &self.seat.session);
                    self.waiting = Waiting::Refused;
                    return Poll::Ready(());
                }
                return self.read_ahead(cx, out);
            }
            Waiting::Refused => {
                if self.inbound.must_wait() {
                    return self.read_ahead(cx, out);
                }
                self.waiting = Waiting::Nothing;
                let input = std::mem::take(&mut self.input);
                self.look_at(&input, out);
                return Poll::Ready(());
            }
        }
        if self.output.len() >= super::MAX_OUTPUT {
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
            if let Some(room) = &self.room {
                room.arrived(n);
            }
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

    /// Sees that there is room for all of the packet of which the first part is here, and gives back what is not needed. Who has
    /// only promised a large packet does not stand in line yet.
    fn make_room(&mut self, another: bool) {
        if another {
            self.room = None;
        }
        if self.input.len() <= SMALL_PACKET {
            return;
        }
        let large = Frame::announced(&self.input).filter(|&total| total > SMALL_PACKET);
        let Some(total) = large.filter(|_| self.room.is_none()) else { return };
        self.room = self.hub.room.try_take(total);
        if let Some(room) = &self.room {
            room.arrived(self.input.len());
        } else {
            let (hub, patience) = (Arc::clone(&self.hub), self.hub.limits.packet_timeout);
            self.waiting = Waiting::Room(Box::pin(async move { hub.room.take(total, patience).await }));
        }
    }

    /// Looks at all whole packets in `bytes` and keeps the rest.
    pub(super) fn look_at(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut at = 0;
        while self.end.is_none() {
            let rest = bytes.get(at..).unwrap_or_default();
            let (taken, stop) = self.inbound.take(&self.hub, &self.seat.session, rest);
            at += taken;
            let rest = bytes.get(at..).unwrap_or_default();
            match stop {
                Stop::End => {
                    self.input = rest.to_vec();
                    self.make_room(at > 0);
                    return;
                }
                Stop::Held(hold) => {
                    self.input = rest.to_vec();
                    self.waiting = match hold {
                        Hold::Room(journal) => Waiting::For(Box::pin(async move { journal.room().await })),
                        Hold::Refused => Waiting::Refused,
                        Hold::Undecided(names) => Waiting::For(Box::pin(names.over(self.hub.clock.clone()))),
                        Hold::Rate(ms) => Waiting::For(Box::pin(tokio::time::sleep(Duration::from_millis(ms)))),
                    };
                    return;
                }
                Stop::Fault(fault) => self.fault(fault),
                Stop::Other => {
                    let Ok(Some(frame)) = Frame::next(rest, usize::MAX) else { return };
                    if frame.kind() == kind::SUBSCRIBE
                        && let Some(noted) = self.note_subscription()
                    {
                        self.input = rest.to_vec();
                        self.waiting = Waiting::For(noted);
                        return;
                    }
                    at += frame.whole.len();
                    match control::decode(&frame, self.flow.version) {
                        Ok(packet) => self.handle(packet, out),
                        Err(fault) => self.fault(fault),
                    }
                }
            }
        }
    }
}
