//! What is to be told to an agent, and the stream that tells it.
//!
//! Positions wait up to 200 ms for company, unless the agent said that it waits for them; refusals go with the position that covers
//! them. Everything is replaced by what is newer, so the outbox is as large as the agent has brokers, whatever happens.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use godwit_mesh::http::BoxError;
use godwit_mesh::journal::Offset;
use godwit_mesh::sync::chunk::{self, Kind};
use godwit_mesh::sync::frame::{Answer, Frame, GoOn, Goodbye, Welcome};
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a position may wait for others.
const COMPANY: Duration = Duration::from_millis(200);

/// Refusals that are told at once rather than kept waiting.
const MAX_REFUSALS: usize = 100;

/// The sending half of one connection.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pending: Mutex<Pending>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    welcome: Option<Welcome>,
    positions: BTreeMap<u32, Offset>,
    refused: Vec<(u32, u64, String)>,
    credit: BTreeMap<u32, u64>,
    brokers: Vec<GoOn>,
    goodbye: Option<Goodbye>,
    /// Since when something waits.
    since: Option<Instant>,
    urgent: bool,
    ended: bool,
    heartbeat: Option<Duration>,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Pending)) {
        let mut pending = self.lock();
        change(&mut pending);
        pending.since.get_or_insert_with(Instant::now);
        drop(pending);
        self.wake.notify_one();
    }

    /// The first frame.
    pub(super) fn welcome(&self, welcome: Welcome) {
        self.change(|pending| {
            pending.heartbeat = Some(Duration::from_millis(welcome.heartbeat_ms));
            pending.welcome = Some(welcome);
            pending.urgent = true;
        });
    }

    /// Everything of `broker` before `next` is stored.
    pub(super) fn position(&self, broker: u32, next: Offset, urgent: bool) {
        self.change(|pending| {
            pending.positions.insert(broker, next);
            pending.urgent |= urgent;
        });
    }

    /// An event will never be stored.
    pub(super) fn refuse(&self, broker: u32, offset: Offset, why: String) {
        self.change(|pending| {
            pending.refused.push((broker, offset.0, why));
            pending.urgent |= pending.refused.len() >= MAX_REFUSALS;
        });
    }

    /// New credit.
    pub(super) fn credit(&self, broker: u32, bytes: u64) {
        self.change(|pending| {
            pending.credit.insert(broker, bytes);
            pending.urgent = true;
        });
    }

    /// Answers to an offer.
    pub(super) fn go_on(&self, brokers: Vec<GoOn>) {
        self.change(|pending| {
            pending.brokers.extend(brokers);
            pending.urgent = true;
        });
    }

    /// Ends the stream with a reason; the first reason counts.
    pub(super) fn goodbye(&self, code: u32, message: impl Into<String>) {
        self.change(|pending| {
            pending.goodbye.get_or_insert_with(|| Goodbye { code, message: message.into() });
            pending.ended = true;
        });
    }

    /// Ends the stream once everything is told.
    pub(super) fn end(&self) {
        self.change(|pending| pending.ended = true);
    }

    /// The answer's body. Ends after [`Outbox::end`]; dropping it calls `gone`.
    pub(super) fn stream(
        self: Arc<Self>,
        gone: impl FnOnce() + Send + 'static,
    ) -> impl Stream<Item = Result<Bytes, BoxError>> + Send {
        let guard = Gone(Some(gone));
        futures_util::stream::unfold((self, guard, Instant::now()), |(outbox, guard, last)| async move {
            let bytes = outbox.next(last).await?;
            Some((Ok(bytes), (outbox, guard, Instant::now())))
        })
    }

    /// What goes next, when it is time; `last` is when something went before.
    async fn next(&self, last: Instant) -> Option<Bytes> {
        loop {
            let due = {
                let mut pending = self.lock();
                match pending.since {
                    Some(since) if pending.urgent || pending.ended || since.elapsed() >= COMPANY => {
                        let bytes = pending.take();
                        if !bytes.is_empty() {
                            return Some(bytes);
                        }
                        if pending.ended {
                            return None;
                        }
                        continue;
                    }
                    Some(since) => Some(since + COMPANY),
                    None => pending.heartbeat.map(|every| last + every),
                }
            };
            let Some(due) = due else {
                self.wake.notified().await;
                continue;
            };
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(due) => {
                    if self.lock().since.is_none() {
                        return Some(Bytes::from_static(chunk::HEARTBEAT));
                    }
                }
            }
        }
    }
}

impl Pending {
    /// All that waits, as chunks.
    fn take(&mut self) -> Bytes {
        let mut out = Vec::new();
        let mut put = |frame: &Frame<'_>| chunk::put(&mut out, Kind::Plain, &frame.to_vec());
        if let Some(welcome) = self.welcome.take() {
            put(&Frame::Welcome(welcome));
        }
        let answer = Answer {
            positions: std::mem::take(&mut self.positions).into_iter().map(|(broker, next)| (broker, next.0)).collect(),
            refused: std::mem::take(&mut self.refused),
            credit: std::mem::take(&mut self.credit).into_iter().collect(),
            brokers: std::mem::take(&mut self.brokers),
        };
        if answer != Answer::default() {
            put(&Frame::Answer(answer));
        }
        if let Some(goodbye) = self.goodbye.take() {
            put(&Frame::Goodbye(goodbye));
        }
        self.urgent = false;
        if !self.ended {
            self.since = None;
        }
        out.into()
    }
}

struct Gone<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for Gone<F> {
    fn drop(&mut self) {
        if let Some(gone) = self.0.take() {
            gone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;
    use godwit_mesh::sync::Chunks;

    fn frames(bytes: &[u8]) -> Vec<Bytes> {
        let mut chunks = Chunks::new(10_000);
        chunks.push(bytes);
        std::iter::from_fn(|| chunks.next().expect("chunks").map(|(_, bytes)| bytes)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn positions_wait_for_company_unless_they_are_urgent() {
        let outbox = Arc::new(Outbox::default());
        let mut stream = Box::pin(outbox.clone().stream(|| {}));
        let start = Instant::now();
        outbox.position(0, Offset(5), false);
        outbox.position(0, Offset(6), false);
        let bytes = stream.next().await.expect("open").expect("no error");
        assert_eq!(start.elapsed(), COMPANY);
        let told = frames(&bytes);
        let Ok(Frame::Answer(answer)) = Frame::from_gateway(&told[0]) else { panic!("an answer") };
        assert_eq!(answer.positions, [(0, 6)]);
        outbox.position(0, Offset(7), true);
        stream.next().await.expect("open").expect("no error");
        assert_eq!(start.elapsed(), COMPANY);
        outbox.end();
        assert!(stream.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_connection_has_heartbeats() {
        let outbox = Arc::new(Outbox::default());
        let mut stream = Box::pin(outbox.clone().stream(|| {}));
        outbox.welcome(Welcome { heartbeat_ms: 1000, ..Welcome::default() });
        stream.next().await.expect("open").expect("no error");
        let start = Instant::now();
        assert_eq!(stream.next().await.expect("open").expect("no error"), chunk::HEARTBEAT);
        assert_eq!(start.elapsed(), Duration::from_secs(1));
    }
}
