//! From a producer to the disk and back: the batch being gathered, the receipts, the writer thread.
//!
//! Whatever is appended while an `fdatasync` runs goes with the next one: nothing waits on a timer. Producers on a tokio runtime
//! hand over what they appended once the runtime has gone through all that was ready, so that connections which were ready
//! together share a sync; the writer takes it earlier where that takes long ([`ROUND`]), and at once from a producer elsewhere. The
//! writer sleeps only after it has looked once more, under the lock, that nothing is there.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use super::consumer::ByHand;
use super::error::Refused;
use super::format::{Kind, put_bytes, put_record};
use super::log::{Batch, Log, lock};
use super::state::{ConsumerState, Move, put_move};
use super::{Epoch, Offset, Options};

/// A cursor's move is durable this long after it was made, at the latest.
const MOVE_DELAY: Duration = Duration::from_millis(100);
/// The longest that appends wait for the runtime to have gone through what is ready. A bound, not a delay: a runtime with this
/// much to do has more than enough for the next commit.
const ROUND: Duration = Duration::from_millis(1);
/// Between two looks at the limits of age and `keep`.
const MAINTAIN_EVERY: Duration = Duration::from_secs(60);
/// After a failure control records are tried again this much later.
const RETRY_CONTROL: Duration = Duration::from_millis(500);
/// After a failure a spare segment is tried again this much later.
const RETRY_SPARE: Duration = Duration::from_secs(10);

/// That the disk is full is said this often at most.
const SAY_FULL_EVERY: Duration = Duration::from_secs(60);

/// Where one append went, once it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The epoch it was appended in.
    pub epoch: Epoch,
    /// The offset of the append's first event; of the next event, if it had none.
    pub first: Offset,
}

/// All appends that share one batch, and so one outcome.
#[derive(Debug, Default)]
pub(super) struct Group {
    outcome: OnceLock<Result<Committed, Refused>>,
    waiting: Mutex<Waiting>,
}

/// Who waits for a group.
#[derive(Debug, Default)]
struct Waiting {
    /// Often the only one.
    first: Option<Waker>,
    others: Vec<Waker>,
    /// The runtime of the first, if the others may be woken by a task there.
    runtime: Option<Handle>,
}

impl Group {
    fn finish(&self, outcome: Result<Committed, Refused>) {
        let _ = self.outcome.set(outcome);
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let others = WakeAll(waiting.others);
        if let Some(runtime) = waiting.runtime.filter(|_| others.0.len() > 1) {
            // Each wake from this thread is a system call for the runtime; those that a task of its own makes are none.
            runtime.spawn(async move { drop(others) });
        }
        if let Some(first) = waiting.first {
            first.wake();
        }
    }

    fn wait(&self, waker: &Waker) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.first.is_none() {
            waiting.runtime = Handle::try_current().ok();
            waiting.first = Some(waker.clone());
        } else {
            waiting.others.push(waker.clone());
        }
    }
}

/// Wakes all when it is dropped: also where the runtime that should have done it has ended.
struct WakeAll(Vec<Waker>);

impl Drop for WakeAll {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

/// Resolves when an append is durable or has been refused.
#[derive(Debug)]
#[must_use = "nothing may be acknowledged before the receipt says that it is durable"]
pub struct Receipt {
    group: Arc<Group>,
    /// How many events of the group came before this append's first.
    index: u32,
    registered: Option<Waker>,
}

impl Receipt {
    /// The outcome, if it is known already.
    #[must_use]
    pub fn outcome(&self) -> Option<Result<Committed, Refused>> {
        let outcome = self.group.outcome.get()?.clone();
        Some(outcome.map(|c| Committed { first: c.first.plus(u64::from(self.index)), ..c }))
    }

    /// Whether the append is known to have been refused.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self.group.outcome.get(), Some(Err(_)))
    }

    /// Whether both are decided by the same commit.
    #[must_use]
    pub fn same_commit(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.group, &other.group)
    }
}

impl Future for Receipt {
    type Output = Result<Committed, Refused>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.outcome() {
            return Poll::Ready(outcome);
        }
        if !self.registered.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.registered = Some(cx.waker().clone());
            self.group.wait(cx.waker());
        }
        // The writer may have finished between the first look and the registration.
        self.outcome().map_or(Poll::Pending, Poll::Ready)
    }
}

/// What is being gathered for the next commit.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) batch: Batch,
    /// Decides the appends that have events.
    events: Option<Arc<Group>>,
    /// Decide the appends that have none; several after a failure.
    control: Vec<Arc<Group>>,
    /// Steps of cursors, gathered.
    pub(super) moves: BTreeMap<u32, Move>,
    /// What consumers have finished beyond their cursors: the fact's key, and its value; empty: nothing.
    pub(super) notes: BTreeMap<u32, (Vec<u8>, Vec<u8>)>,
    pub(super) moves_since: Option<Instant>,
    /// Somebody waits for the moves: do not gather any longer.
    pub(super) flush: bool,
    pub(super) next_consumer: u32,
    /// Consumers whose registration is not durable yet.
    pub(super) registered: BTreeMap<String, (u32, ConsumerState)>,
    /// Where the consumers in use are.
    pub(super) cursors: BTreeMap<u32, Arc<AtomicU64>>,
    /// Consumers whose seek is not durable yet.
    pub(super) seeks: BTreeSet<u32>,
    /// What the last moves by hand have noted, durable or not.
    pub(super) by_hand: BTreeMap<u32, ByHand>,
    new_options: Option<Options>,
    round: Round,
    /// The writer sleeps, and must be woken for anything but events.
    sleeping: bool,
    pub(super) closing: bool,
    /// The writer has ended.
    pub(super) closed: bool,
}

impl Pending {
    pub(super) fn receipt(&mut self, with_events: bool, index: u32) -> Receipt {
        let group = if with_events {
            Arc::clone(self.events.get_or_insert_default())
        } else {
            if self.control.is_empty() {
                self.control.push(Arc::default());
            }
            self.control.last().map_or_else(Arc::default, Arc::clone)
        };
        Receipt { group, index, registered: None }
    }

    pub(super) fn step(&mut self, id: u32, step: Move) {
        self.moves_since.get_or_insert_with(Instant::now);
        match self.moves.entry(id) {
            std::collections::btree_map::Entry::Occupied(mut held) if held.get().to == step.from => {
                held.get_mut().to = step.to;
                held.get_mut().done.add(&step.done);
            }
            std::collections::btree_map::Entry::Occupied(mut held) => {
                // Retention or a hand moved the cursor in between: both steps are written, in order.
                let before = held.insert(step);
                put_move(&mut self.batch.control, id, &before);
            }
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(step);
            }
        }
    }

    /// Keeps what a consumer has finished beyond its cursor for the commit of the moves.
    pub(super) fn note(&mut self, id: u32, key: Vec<u8>, value: Vec<u8>) {
        self.moves_since.get_or_insert_with(Instant::now);
        self.notes.insert(id, (key, value));
    }

    /// Refuses what gathered while an earlier commit was being refused: a smaller append might still fit, and would overtake.
    fn refuse_events(&mut self, refused: &Refused) {
        self.batch.forget_events();
        if let Some(group) = self.events.take() {
            group.finish(Err(refused.clone()));
        }
    }

    /// Turns the gathered moves into records.
    pub(super) fn write_moves(&mut self) {
        for (id, step) in std::mem::take(&mut self.moves) {
            put_move(&mut self.batch.control, id, &step);
        }
        for (key, value) in std::mem::take(&mut self.notes).into_values() {
            let kind = if value.is_empty() { Kind::Delete } else { Kind::Put };
            put_record(&mut self.batch.control, kind, |out| {
                put_bytes(out, &key);
                if kind == Kind::Put {
                    put_bytes(out, &value);
                }
            });
        }
        self.moves_since = None;
        self.flush = false;
    }
}

/// How far the runtime is with what was ready when the first event of a commit was appended.
#[derive(Debug, Default, Clone, Copy)]
enum Round {
    /// No event waits.
    #[default]
    None,
    /// Other connections may yet append theirs.
    On(Instant),
    /// The writer may take what there is.
    Over,
}

/// Ends the round when it is dropped: also where the runtime ends before.
struct EndRound(Arc<Shared>);

impl Drop for EndRound {
    fn drop(&mut self) {
        let mut pending = self.0.lock();
        if matches!(pending.round, Round::On(_)) {
            pending.round = Round::Over;
            self.0.wake(pending);
        }
    }
}

/// What producers, the writer and the face of the journal share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) pending: Mutex<Pending>,
    wake: Condvar,
    pub(super) room: Notify,
    pub(super) durable: watch::Sender<Offset>,
    /// Counts moves of cursors by others than their consumers.
    pub(super) moved: watch::Sender<u64>,
    /// Bytes of facts, so that an append that would have too many is refused before it is gathered.
    pub(super) fact_bytes: AtomicUsize,
    pub(super) bytes: AtomicU64,
    pub(super) epoch: AtomicU64,
    /// Bytes of a segment that events wait for because the disk is full; 0 while they do not.
    pub(super) lacking: AtomicU64,
    pub(super) closed: Notify,
}

impl Shared {
    pub(super) fn new(log: &Log, next_consumer: u32) -> Self {
        let view = lock(&log.view);
        let (next, facts) = (view.state.next, view.state.fact_bytes);
        drop(view);
        Self {
            pending: Mutex::new(Pending { next_consumer, ..Pending::default() }),
            wake: Condvar::new(),
            room: Notify::new(),
            durable: watch::Sender::new(next),
            moved: watch::Sender::new(0),
            fact_bytes: AtomicUsize::new(facts),
            bytes: AtomicU64::new(log.bytes()),
            epoch: AtomicU64::new(log.epoch.0),
            lacking: AtomicU64::new(0),
            closed: Notify::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands events that were appended under the lock to the writer, once the runtime has gone through what is ready.
    pub(super) fn hand_over(self: &Arc<Self>, mut pending: MutexGuard<'_, Pending>) {
        match pending.round {
            Round::On(since) if since.elapsed() < ROUND => return,
            Round::On(_) | Round::Over => {}
            Round::None => {
                if let Ok(runtime) = Handle::try_current() {
                    pending.round = Round::On(Instant::now());
                    drop(pending);
                    let end = EndRound(Arc::clone(self));
                    // Stands behind all tasks that are ready now.
                    runtime.spawn(async move { drop(end) });
                    return;
                }
            }
        }
        pending.round = Round::Over;
        self.wake(pending);
    }

    /// Wakes the writer if it sleeps. The guard shows that something was changed under the lock.
    pub(super) fn wake(&self, mut pending: MutexGuard<'_, Pending>) {
        let sleeping = std::mem::take(&mut pending.sleeping);
        drop(pending);
        if sleeping {
            self.wake.notify_one();
        }
    }

    pub(super) fn set_options(&self, options: Options) {
        let mut pending = self.lock();
        pending.new_options = Some(options);
        self.wake(pending);
    }

    pub(super) fn close(&self) {
        let mut pending = self.lock();
        pending.closing = true;
        self.wake(pending);
    }
}

/// The writer thread: takes what has gathered, commits it, tells everybody, until it is closed and nothing is left.
pub(super) struct Writer {
    pub(super) log: Log,
    pub(super) shared: Arc<Shared>,
    /// After a failure: when control records are tried again, and spares made.
    retry_at: Option<Instant>,
    maintain_at: Instant,
    /// The files as they were when their bytes were last added up.
    counted: Option<(u64, usize, Offset)>,
    /// Whether events find no room; when that was last logged, and whether its end is to be logged too.
    is_full: bool,
    said_full: Option<Instant>,
    say_end: bool,
}

/// What the writer took from [`Pending`] for one commit.
struct Taken {
    batch: Batch,
    events: Option<Arc<Group>>,
    control: Vec<Arc<Group>>,
}

impl Writer {
    pub(super) fn new(log: Log, shared: Arc<Shared>) -> Self {
        Self {
            log,
            shared,
            retry_at: None,
            maintain_at: Instant::now() + MAINTAIN_EVERY,
            counted: None,
            is_full: false,
            said_full: None,
            say_end: false,
        }
    }

    pub(super) fn run(mut self) {
        let mut empty = None;
        loop {
            self.publish();
            if let Some(taken) = self.wait(&mut empty) {
                empty = Some(self.commit(taken));
            } else if self.shared.lock().closing {
                break;
            }
            if let Some(seal) = self.log.take_unsealed() {
                // Derived, and slow beside a commit: a thread of its own for the moment, and none where the system has none to give.
                let _ = std::thread::Builder::new().name("seal".to_owned()).stack_size(128 << 10).spawn(seal);
            }
            if Instant::now() >= self.maintain_at {
                self.log.maintain();
                self.maintain_at = Instant::now() + MAINTAIN_EVERY;
            }
        }
        let mut pending = self.shared.lock();
        pending.closed = true;
        for group in pending.control.drain(..) {
            group.finish(Err(Refused::Closed));
        }
        drop(pending);
        self.shared.room.notify_waiters();
        self.shared.closed.notify_waiters();
    }

    /// What became durable need not be remembered beside it.
    fn forget_durable(&self) {
        let mut pending = self.shared.lock();
        if pending.registered.is_empty() && pending.seeks.is_empty() {
            return;
        }
        let view = lock(&self.log.view);
        pending.registered.retain(|_, (id, _)| !view.state.consumers.contains_key(id));
        if pending.batch.control.is_empty() {
            pending.seeks.clear();
        }
    }

    /// Says that events find no room on the disk, and that they do again. Small ones may still fit where larger ones do not, so
    /// this can change with every commit; it is logged once a minute at most.
    fn tell_room(&mut self) {
        let lacks = self.log.lacks_room();
        if lacks == self.is_full {
            return;
        }
        self.is_full = lacks;
        let segment = self.log.options.segment_bytes;
        self.shared.lacking.store(if lacks { segment } else { 0 }, Ordering::Relaxed);
        let recent = self.said_full.is_some_and(|at| at.elapsed() < SAY_FULL_EVERY);
        if lacks && !recent {
            (self.said_full, self.say_end) = (Some(Instant::now()), true);
            let free = self.log.storage.free_bytes().unwrap_or(0);
            warn!(dir = %self.log.dir, segment, free, "the disk is full: events are refused until a segment and its head-room fit");
        } else if !lacks && std::mem::take(&mut self.say_end) {
            info!(dir = %self.log.dir, "events find room again");
        }
    }

    fn publish(&mut self) {
        let view = lock(&self.log.view);
        let (next, first) = (view.state.next, view.state.first);
        self.shared.fact_bytes.store(view.state.fact_bytes, Ordering::Relaxed);
        drop(view);
        let files = Some((self.log.seq, self.log.spares.len(), first));
        if self.counted != files {
            self.counted = files;
            self.shared.bytes.store(self.log.bytes(), Ordering::Relaxed);
        }
        self.shared.epoch.store(self.log.epoch.0, Ordering::Relaxed);
        self.tell_room();
        self.shared.durable.send_if_modified(|durable| std::mem::replace(durable, next) != next);
    }

    /// Sleeps until there is something to commit, a limit to look at, or the end. `empty` is what the next appends go into; made
    /// where there is none yet.
    fn wait(&mut self, empty: &mut Option<Batch>) -> Option<Taken> {
        let shared = Arc::clone(&self.shared);
        let mut pending = shared.lock();
        loop {
            if let Some(options) = pending.new_options.take() {
                self.log.set_options(options);
            }
            let now = Instant::now();
            self.retry_at = self.retry_at.filter(|at| *at > now);
            let moves_due = pending.moves_since.map(|since| since + MOVE_DELAY);
            let control = !pending.batch.control.is_empty() || pending.flush || moves_due.is_some_and(|due| due <= now);
            let round = match pending.round {
                Round::On(since) => Some(since + ROUND).filter(|end| *end > now),
                _ => None,
            };
            let events = pending.batch.events > 0 && round.is_none();
            if events || pending.closing || (control && self.retry_at.is_none()) {
                break;
            }
            if self.maintain_at <= now {
                return None;
            }
            if self.retry_at.is_none() && pending.batch.events == 0 && self.log.wants_spare() {
                // There is time to make a spare ready; producers go on gathering meanwhile.
                drop(pending);
                if let Err(e) = self.log.make_spare() {
                    warn!(dir = %self.log.dir, error = %e, "could not make a spare segment");
                    self.retry_at = Some(now + RETRY_SPARE);
                }
                self.publish();
                pending = shared.lock();
                continue;
            }
            let waits = [moves_due, self.retry_at, round].into_iter().flatten().filter(|at| *at > now);
            let until = waits.min().unwrap_or(self.maintain_at).min(self.maintain_at);
            pending.sleeping = true;
            pending = shared.wake.wait_timeout(pending, until - now).unwrap_or_else(PoisonError::into_inner).0;
            pending.sleeping = false;
        }
        let delay = self.log.options.commit_delay_ms;
        if delay > 0 && !pending.closing {
            drop(pending);
            std::thread::sleep(Duration::from_millis(delay));
            pending = shared.lock();
        }
        // Moves ride along with whatever is committed; alone they wait for their time.
        pending.write_moves();
        if pending.batch.is_empty() && pending.control.is_empty() {
            return None;
        }
        pending.round = Round::None;
        let batch = std::mem::replace(&mut pending.batch, empty.take().unwrap_or_default());
        let taken = Taken { batch, events: pending.events.take(), control: std::mem::take(&mut pending.control) };
        drop(pending);
        shared.room.notify_waiters();
        Some(taken)
    }

    /// Commits. Where the events are refused the control records go alone, as cursors must move on a full disk too; where those
    /// fail they are kept and tried again.
    fn commit(&mut self, mut taken: Taken) -> Batch {
        let outcome = self.log.commit(&mut taken.batch);
        let mut control = outcome.clone();
        if outcome.is_err() && taken.batch.events > 0 {
            let mut alone = Batch { control: std::mem::take(&mut taken.batch.control), ..Batch::default() };
            control = self.log.commit(&mut alone);
            taken.batch.control = alone.control;
        }
        self.publish();
        if let Some(group) = taken.events {
            // Under the lock: nothing may be appended between the refusal and the refusal of what gathered meanwhile.
            let mut pending = self.shared.lock();
            if let Err(refused @ (Refused::Full | Refused::DiskFull | Refused::Disk(_))) = &outcome {
                pending.refuse_events(refused);
            }
            group.finish(outcome);
        }
        match control {
            Err(refused) if !taken.batch.control.is_empty() && !self.shared.lock().closing => {
                warn!(dir = %self.log.dir, error = %refused, "could not commit cursors: trying again");
                self.retry_at = Some(Instant::now() + RETRY_CONTROL);
                let mut pending = self.shared.lock();
                // Moves are in the control bytes already: they are written again as they are.
                let later = std::mem::take(&mut pending.batch.control);
                pending.batch.control.extend_from_slice(&taken.batch.control);
                pending.batch.control.extend_from_slice(&later);
                let later = std::mem::replace(&mut pending.control, taken.control);
                pending.control.extend(later);
            }
            other => {
                self.forget_durable();
                taken.control.into_iter().for_each(|group| group.finish(other.clone()));
            }
        }
        taken.batch.clear(self.log.options.max_pending_bytes);
        taken.batch
    }
}
