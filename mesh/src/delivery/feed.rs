//! One reader for all Triggers of a Broker: it reads each new event once, finds those whom it may concern by an index, asks their
//! filters, and puts the offset of what they want into their queues.
//!
//! A queue holds offsets, no events: these are on [`Pages`] for a while, and on the disk. A Trigger whose queue is full leaves the feed,
//! goes on by itself, and comes back when it has nearly caught up; so nobody waits for anybody, and memory is bounded.
//!
//! Who wants nothing is not told of every event. It learns from time to time how far the feed has come, and moves its cursor there: the
//! more Triggers there are, the more seldom ([`Shared::quiet_time`]), and at once when it has an event to move past anyway. A crash in
//! between costs a look at these events, nothing else.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::index::Index;
use super::intake::key_of;
use super::judge::Judge;
use super::live::Live;
use super::pages::{Owner, Pages};
use super::plan::Plan;
use crate::event::StoredEvent;
use crate::filter::Key;
use crate::journal::{DropReason, Item, Journal, Offset, ReadError};
use crate::names::AgentId;
use crate::observe::Spans;

/// How much is read at once.
pub(crate) const READ_BYTES: usize = 32 << 10;
/// Most events that wait for one Trigger here: 16 KiB of offsets and keys.
const QUEUE: usize = 1024;
/// Who is no further behind than this may come to the feed.
pub(crate) const NEAR: u64 = 512;
/// Moves of cursors a second that the Triggers who want nothing cost together at most.
const QUIET_MOVES: u64 = 200;
const QUIET_LEAST: Duration = Duration::from_millis(250);
const QUIET_MOST: Duration = Duration::from_secs(30);
/// So many bytes of events later they move too: retention must not take for lost what nobody wanted.
const QUIET_BYTES: usize = 2 << 20;
/// The wait after the journal could not be read.
const READ_RETRY: Duration = Duration::from_secs(1);
/// How often pages that nobody looks at are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// A Broker's feed; its task ends with it.
#[derive(Debug)]
pub(crate) struct Feed {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Shared {
    number: u64,
    journal: Journal,
    agent: Option<AgentId>,
    pages: Arc<Pages>,
    spans: Spans,
    state: Mutex<State>,
    /// Somebody came to an empty feed.
    woken: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Everything before this has been given out.
    position: Offset,
    members: Vec<Option<Member>>,
    free: Vec<u32>,
    count: usize,
    index: Index,
    /// The journal is closed.
    closed: bool,
}

#[derive(Debug)]
struct Member {
    plan: Arc<Plan>,
    live: Arc<Live>,
    key: Option<Key>,
    /// What comes before this is none of its.
    from: Offset,
    queue: VecDeque<(Offset, Option<u64>)>,
    lost: VecDeque<(Offset, Offset, DropReason)>,
    /// Where it left, its queue being full.
    left: Option<Offset>,
    notify: Arc<Notify>,
}

/// A Trigger's place at the feed, given up when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    shared: Arc<Shared>,
    number: u32,
    /// The first offset that the feed gives.
    pub(crate) from: Offset,
    notify: Arc<Notify>,
}

/// What a Trigger takes from its queue.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) events: Vec<(Offset, Option<u64>)>,
    pub(crate) lost: Vec<(Offset, Offset, DropReason)>,
    /// Everything before this is told.
    pub(crate) to: Offset,
    /// There is no more: the Trigger goes on by itself.
    pub(crate) left: bool,
    pub(crate) closed: bool,
}

impl Feed {
    /// Starts the feed of a journal. Call within a runtime.
    pub(crate) fn start(journal: Journal, agent: Option<AgentId>, pages: Arc<Pages>, spans: Spans) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let shared =
            Arc::new(Shared { number, journal, agent, pages, spans, state: Mutex::default(), woken: Notify::new() });
        let stop = CancellationToken::new();
        let (task, ended) = (shared.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = task.run() => {}
            }
        });
        Self { shared, _stop: stop.drop_guard() }
    }

    /// The number of the journal on [`Pages`].
    pub(crate) fn number(&self) -> u64 {
        self.shared.number
    }

    pub(crate) fn pages(&self) -> &Pages {
        &self.shared.pages
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.shared.journal
    }

    /// Whose events these are where they do not say it themselves.
    pub(crate) fn agent(&self) -> Option<&AgentId> {
        self.shared.agent.as_ref()
    }

    /// Traces of what filters say.
    pub(crate) fn spans(&self) -> &Spans {
        &self.shared.spans
    }

    /// A place for a Trigger that has looked at everything before `at` and is near the end of the journal. It looks at what lies
    /// between `at` and the seat's beginning by itself.
    pub(crate) fn sit(&self, at: Offset, plan: &Arc<Plan>, live: &Arc<Live>) -> Seat {
        let durable = self.shared.journal.next_offset();
        let mut state = self.shared.lock();
        let first = state.count == 0;
        if first {
            state.position = state.position.max(durable);
        }
        let from = at.max(state.position);
        let key = plan.filter.key();
        let notify = Arc::new(Notify::new());
        let member = Member {
            plan: plan.clone(),
            live: live.clone(),
            key,
            from,
            queue: VecDeque::new(),
            lost: VecDeque::new(),
            left: None,
            notify: notify.clone(),
        };
        let number = match state.free.pop() {
            Some(number) => number,
            None => {
                state.members.push(None);
                u32::try_from(state.members.len() - 1).unwrap_or(u32::MAX)
            }
        };
        state.index.add(number, member.key.as_ref());
        state.count += 1;
        if let Some(place) = usize::try_from(number).ok().and_then(|n| state.members.get_mut(n)) {
            *place = Some(member);
        }
        drop(state);
        if first {
            self.shared.woken.notify_one();
        }
        Seat { shared: self.shared.clone(), number, from, notify }
    }
}

impl Seat {
    /// Takes at most `most` events from the queue.
    pub(crate) fn take(&self, most: usize) -> Taken {
        let mut state = self.shared.lock();
        let (position, closed) = (state.position, state.closed);
        let Some(member) = state.member(self.number) else { return Taken { left: true, ..Taken::default() } };
        let count = most.min(member.queue.len());
        let events: Vec<_> = member.queue.drain(..count).collect();
        let to = match (member.queue.front(), member.left) {
            (Some((next, _)), _) => *next,
            (None, Some(left)) => left,
            (None, None) => position.max(member.from),
        };
        if member.queue.is_empty() {
            // A long queue leaves its room behind only while it is used.
            member.queue.shrink_to(16);
        }
        let left = member.queue.is_empty() && member.left.is_some();
        Taken { events, lost: member.lost.drain(..).collect(), to, left, closed }
    }

    /// Resolves when there may be something to take. Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.leave(self.number);
        let place = usize::try_from(self.number).ok().and_then(|n| state.members.get_mut(n));
        if place.and_then(Option::take).is_some() {
            state.free.push(self.number);
        }
    }
}

impl State {
    fn member(&mut self, number: u32) -> Option<&mut Member> {
        self.members.get_mut(usize::try_from(number).ok()?)?.as_mut()
    }

    /// Takes a member out of the index; what is in its queue stays.
    fn leave(&mut self, number: u32) {
        let position = self.position;
        let Some(member) = self.member(number).filter(|member| member.left.is_none()) else { return };
        member.left = Some(position.max(member.from));
        let key = member.key.clone();
        self.index.remove(number, key.as_ref());
        self.count -= 1;
    }

    /// Gives one event to all who want it.
    fn give(
        &mut self,
        stored: Option<&StoredEvent>,
        offset: Offset,
        spans: &Spans,
        found: &mut Vec<u32>,
        scratch: &mut String,
    ) {
        found.clear();
        self.position = offset;
        match stored {
            Some(event) => self.index.candidates(event, scratch, |number| found.push(number)),
            // What cannot be read cannot be judged: everybody gets it, and it ends as a dead letter.
            None => found.extend((0_u32..).zip(&self.members).filter(|(_, m)| m.is_some()).map(|(number, _)| number)),
        }
        let judge = stored.map(|event| Judge::of(event, spans, scratch));
        let mut key = None;
        for number in found.iter().copied() {
            let Some(member) = self.member(number).filter(|m| m.left.is_none() && m.from <= offset) else { continue };
            if judge.as_ref().is_some_and(|judge| !judge.is_wanted(&member.plan, &member.live, scratch)) {
                continue;
            }
            if member.queue.len() >= QUEUE {
                member.notify.notify_one();
                self.leave(number);
                continue;
            }
            let ordered = member.plan.parallelism > 1;
            let key = if ordered { *key.get_or_insert_with(|| stored.and_then(|e| key_of(e, scratch))) } else { None };
            member.queue.push_back((offset, key));
            member.notify.notify_one();
        }
        self.position = offset.plus(1);
    }

    fn lose(&mut self, from: Offset, to: Offset, reason: DropReason) {
        for member in self.members.iter_mut().flatten().filter(|m| m.left.is_none() && m.from < to) {
            member.lost.push_back((from.max(member.from), to, reason));
            member.notify.notify_one();
        }
        self.position = to;
    }

    fn tell_all(&self) {
        for member in self.members.iter().flatten() {
            member.notify.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long those who want nothing need not be told how far the feed has come.
    fn quiet_time(members: usize) -> Duration {
        let each = Duration::from_millis(1000 / QUIET_MOVES);
        (each * u32::try_from(members).unwrap_or(u32::MAX)).clamp(QUIET_LEAST, QUIET_MOST)
    }

    async fn run(&self) {
        let mut moved = self.journal.watch_moved();
        let mut reader = self.journal.reader(self.journal.next_offset());
        let mut scratch = String::new();
        let mut found = Vec::new();
        // Where the quiet ones were last told of, when the next time is due, and the bytes since.
        let (mut told, mut due, mut bytes) = (Offset(0), None, 0);
        loop {
            let (position, count) = {
                let state = self.lock();
                (state.position, state.count)
            };
            if reader.position() != position {
                reader.seek(position);
            }
            let forget = if self.pages.forget_old() { None } else { Some(Instant::now() + FORGET_EVERY) };
            let wake = match (due, forget) {
                (Some(due), Some(forget)) => Some(forget.min(due)),
                (due, forget) => due.or(forget),
            };
            let items = tokio::select! {
                items = reader.next(READ_BYTES), if count > 0 => items,
                () = self.woken.notified() => continue,
                changed = moved.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.lock().tell_all();
                    continue;
                }
                () = sleep_until(wake) => {
                    if due.is_some_and(|due| due <= Instant::now()) {
                        (told, due, bytes) = (position, None, 0);
                        self.lock().tell_all();
                    }
                    continue;
                }
            };
            match items {
                Ok(items) => {
                    bytes += self.give_out(position, items, &mut found, &mut scratch);
                    if self.lock().position > told {
                        due.get_or_insert(Instant::now() + Self::quiet_time(count));
                    }
                    if bytes >= QUIET_BYTES {
                        due = Some(Instant::now());
                    }
                }
                Err(ReadError::Closed) => {
                    let mut state = self.lock();
                    state.closed = true;
                    state.tell_all();
                    return;
                }
                Err(error) => {
                    tracing::warn!(journal = ?self.journal, %error, "events cannot be read; trying again");
                    tokio::time::sleep(READ_RETRY).await;
                }
            }
        }
    }

    fn give_out(&self, position: Offset, items: Vec<Item>, found: &mut Vec<u32>, scratch: &mut String) -> usize {
        // On the page first: who is told of an event finds it there.
        let Some(page) = self.pages.add(self.number, Owner::Feed, position, items) else { return 0 };
        let mut bytes = 0;
        let mut state = self.lock();
        if state.position != position {
            // Everybody left meanwhile, and others came further on.
            return 0;
        }
        for item in page.items(position) {
            match item {
                Item::Event { epoch, offset, body } => {
                    bytes += body.len();
                    let stored = StoredEvent::new(body.clone(), *epoch, *offset, self.agent.as_ref()).ok();
                    state.give(stored.as_ref(), *offset, &self.spans, found, scratch);
                }
                Item::Skip { from, to, reason } => state.lose(*from, *to, *reason),
                Item::Unwanted { to, .. } => state.position = *to,
            }
        }
        bytes
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
