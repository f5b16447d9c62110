//! Where a Trigger's events come from: its seat at the Broker's feed, or, where it is behind, its own reading.
//!
//! Reading goes by pages that all Triggers share; the disk is asked for what is on none. One read is under way at a time, and it is kept
//! while other things happen, so that they cannot start it over and over again.

use std::future::Future;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::feed::{Feed, NEAR, READ_BYTES, Seat};
use super::judge::Judge;
use super::live::Live;
use super::pages::{Look, Owner};
use super::plan::Plan;
use super::window::Window;
use crate::event::StoredEvent;
use crate::journal::{Item, Offset, ReadError, Reader, Summary};

/// The key that keeps an event behind others of the same key: the extension `partitionkey`.
pub(crate) fn key_of(event: &StoredEvent, scratch: &mut String) -> Option<u64> {
    let text = event.attribute_text("partitionkey", scratch).filter(|text| !text.is_empty())?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    Some(hasher.finish())
}

/// A read under way.
type Reading = Pin<Box<dyn Future<Output = Read> + Send>>;

/// A read that has ended.
pub(crate) struct Read {
    reader: Reader,
    from: Offset,
    items: Result<Vec<Item>, ReadError>,
}

/// See the module.
pub(crate) struct Intake {
    feed: Arc<Feed>,
    plan: Arc<Plan>,
    live: Arc<Live>,
    /// Names the pages that are of use to this Trigger only.
    number: u64,
    seat: Option<Seat>,
    /// What is looked at next, by itself.
    own: Offset,
    reader: Option<Reader>,
    reading: Option<Reading>,
    scratch: String,
}

impl Intake {
    /// Begins at the cursor.
    pub(crate) fn new(feed: Arc<Feed>, plan: Arc<Plan>, live: Arc<Live>, cursor: Offset) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let scratch = String::new();
        Self { feed, plan, live, number, seat: None, own: cursor, reader: None, reading: None, scratch }
    }

    /// Goes elsewhere.
    pub(crate) fn seek(&mut self, to: Offset) {
        self.seat = None;
        self.own = to;
    }

    /// The cursor was moved forward.
    pub(crate) fn forward(&mut self, to: Offset) {
        self.own = self.own.max(to);
    }

    /// Takes what there is, as far as the window has room; `ready` gets those that may go. What must be read first is begun to be read.
    /// False when the journal is closed.
    pub(crate) fn fill(&mut self, window: &mut Window, mut ready: impl FnMut(Offset)) -> bool {
        while window.room() > 0 {
            match &self.seat {
                Some(seat) if self.own >= seat.from => {
                    let taken = seat.take(window.room());
                    if taken.closed {
                        return false;
                    }
                    let some = !taken.events.is_empty();
                    for (from, to, reason) in taken.lost {
                        window.lose(from, to, reason);
                    }
                    for (offset, key) in taken.events {
                        if window.accept(offset, key) {
                            ready(offset);
                        }
                    }
                    window.pass(taken.to);
                    self.own = taken.to.max(self.own);
                    if taken.left {
                        self.seat = None;
                    } else if !some {
                        return true;
                    }
                }
                _ => {
                    if !self.look_further(window, &mut ready) {
                        return true;
                    }
                }
            }
        }
        true
    }

    /// One page by itself. False when it must be read first.
    fn look_further(&mut self, window: &mut Window, ready: &mut impl FnMut(Offset)) -> bool {
        let durable = self.feed.journal().next_offset();
        if self.seat.is_none() && durable.since(self.own) <= NEAR {
            let seat = self.feed.sit(self.own, &self.plan, &self.live);
            self.seat = Some(seat);
            self.reader = None;
            return true;
        }
        let end = self.seat.as_ref().map_or(Offset(u64::MAX), |seat| seat.from);
        let Some(page) = self.feed.pages().find(self.feed.number(), self.own, self.number) else {
            self.read(self.own);
            return false;
        };
        for item in page.items(self.own) {
            if window.room() == 0 || self.own >= end {
                return true;
            }
            match item {
                Item::Event { epoch, offset, body } => {
                    let stored = StoredEvent::new(body.clone(), *epoch, *offset, self.feed.agent()).ok();
                    let wanted = |event: &StoredEvent| {
                        let judge = Judge::of(event, self.feed.spans(), &mut self.scratch);
                        judge.is_wanted(&self.plan, &self.live, &mut self.scratch)
                    };
                    // What cannot be read cannot be judged: it is treated as wanted, and ends as a dead letter.
                    if stored.as_ref().is_none_or(wanted) {
                        let ordered = self.plan.parallelism > 1;
                        let key = stored.filter(|_| ordered).and_then(|event| key_of(&event, &mut self.scratch));
                        if window.accept(*offset, key) {
                            ready(*offset);
                        }
                    }
                    self.own = offset.plus(1);
                }
                Item::Unwanted { to, .. } => self.own = (*to).min(end),
                Item::Skip { to, reason, .. } => {
                    let to = (*to).min(end);
                    window.lose(self.own, to, *reason);
                    self.own = to;
                }
            }
            window.pass(self.own);
        }
        true
    }

    /// An event's bytes, if they are at hand; else they are begun to be read.
    pub(crate) fn look(&mut self, offset: Offset) -> Look {
        let look = self.feed.pages().look(self.feed.number(), offset, self.number);
        if look == Look::Absent {
            self.read(offset);
        }
        look
    }

    fn read(&mut self, from: Offset) {
        if self.reading.is_some() {
            return;
        }
        let mut reader = self.reader.take().unwrap_or_else(|| {
            let filter = self.plan.filter.clone();
            self.feed.journal().reader(from).with_interest(Box::new(move |summary: &Summary| filter.wants(summary)))
        });
        reader.seek(from);
        self.reading = Some(Box::pin(async move {
            let items = reader.next(READ_BYTES).await;
            Read { reader, from, items }
        }));
    }

    /// Resolves when what is being read has been, or with none when the feed may have something; the latter only where it is `wanted`.
    /// Cancel-safe.
    pub(crate) async fn changed(&mut self, wanted: bool) -> Option<Read> {
        let Self { seat, reading, .. } = self;
        let told = async {
            match seat {
                Some(seat) if wanted => seat.changed().await,
                _ => std::future::pending().await,
            }
        };
        let read = async {
            match reading {
                Some(reading) => reading.as_mut().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            read = read => {
                self.reading = None;
                Some(read)
            }
            () = told => None,
        }
    }

    /// Takes what was read.
    ///
    /// # Errors
    /// Why nothing was.
    pub(crate) fn take(&mut self, read: Read) -> Result<(), ReadError> {
        let items = read.items?;
        if self.seat.is_none() {
            self.reader = Some(read.reader);
        }
        self.feed.pages().add(self.feed.number(), Owner::Behind(self.number), read.from, items);
        Ok(())
    }
}
