//! A Trigger's task: take in, send, move the cursor.
//!
//! As many events are outstanding as `godwit.dev/parallelism` says; with one, the default, a Trigger's events arrive in order. An event
//! that waits for another attempt is an offset and no more: it is read anew when it is due. Those behind it go on around it as far
//! as the [`Window`] reaches, or, where order counts, wait. What the task finds changed, because retention was faster or an
//! operator moved the cursor, it accepts: the journal's cursor is the truth, the task follows it.
//!
//! The cursor passes an event only after the event is settled: taken by the subscriber (and its reply durable), taken by the
//! dead letter sink, durable in the dead-letter journal, expired, or not wanted. What is settled beyond the cursor is kept beside it.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::circuit::Circuit;
use super::intake::Intake;
use super::live::Live;
use super::pages::Look;
use super::plan::{NotReady, Plan};
use super::retired;
use super::room::{Found, Share, Taken};
use super::target::Target;
use super::triggers::Context;
use super::window::{Outcome, Window};
use super::work::{Content, Finished, Job, Parcel, Verdict, Work};
use crate::journal::{Offset, ReadError};

/// How often a task that has something under way looks whether its cursor was moved meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long what is being sent may take to finish when the task is stopped.
const GRACE: Duration = Duration::from_secs(5);
/// The wait after the journal could not be read.
const READ_RETRY: Duration = Duration::from_secs(1);
/// Wanted events that a Trigger looks at beyond its oldest one, for each that may be outstanding.
const WINDOW: usize = 4;
/// Most bytes of events in one batch.
const BATCH_BYTES: usize = 256 << 10;
/// Larger events are not copied out of the page that they are on while they are sent.
const COPY_BYTES: usize = 8 << 10;

/// One Trigger's task.
pub(crate) struct Dispatcher {
    context: Arc<Context>,
    plan: Arc<Plan>,
    live: Arc<Live>,
    stop: CancellationToken,
}

/// What the task does once everything it refers to is there.
struct Running {
    work: Arc<Work>,
    window: Window,
    intake: Intake,
    /// Most deliveries at a time, and events in one.
    parallelism: usize,
    batch: usize,
    /// What may go, in order.
    ready: VecDeque<Parcel>,
    /// What waits for another attempt, by when it is due.
    later: BTreeMap<(Instant, Offset), Parcel>,
    deliveries: FuturesUnordered<BoxFuture<'static, Finished>>,
    /// What goes when the only delivery there may be has come back.
    next: Option<Next>,
    share: Share,
    /// Room for so many KiB is waited for; what was waited for.
    starved: Option<u32>,
    waited: Option<OwnedSemaphorePermit>,
    circuit: Circuit,
    /// The subscriber is gone for good.
    gone: bool,
    /// When the cursor is looked at next, while something is under way.
    look: Pin<Box<Sleep>>,
    /// Whether the note of what is finished beyond the cursor says anything.
    noted: Vec<u8>,
}

/// An event made ready while another is on its way.
struct Next {
    job: Job,
    content: Content,
    taken: Taken,
}

impl Dispatcher {
    pub(crate) fn new(context: Arc<Context>, plan: Arc<Plan>, live: Arc<Live>, stop: CancellationToken) -> Self {
        Self { context, plan, live, stop }
    }

    /// Runs until the task is stopped or the journal closed.
    pub(crate) async fn run(self) {
        let Some(work) = self.start().await else { return };
        let ahead = loop {
            match work.catch_up().await {
                Ok(ahead) => break ahead,
                Err(error) => {
                    tracing::warn!(trigger = %self.plan.name, %error, "dead letters cannot be read; trying again");
                    tokio::select! {
                        () = self.stop.cancelled() => return,
                        () = tokio::time::sleep(READ_RETRY) => {}
                    }
                }
            }
        };
        // Boxed: a task that only waits for its Broker is small.
        let mut running = Box::new(Running::new(&self, work, &ahead));
        running.run(&self.stop).await;
        if running.gone {
            let journal = running.work.broker.journal().clone();
            drop(running);
            if let Err(error) = retired::note(&journal, &self.live.uid, &self.plan).await {
                tracing::warn!(trigger = %self.plan.name, %error, "the next start asks the subscriber once more");
            }
            self.retire(retired::not_ready()).await;
        }
    }

    /// Waits for the end: the subscriber is gone for good.
    async fn retire(&self, why: NotReady) {
        tracing::warn!(trigger = %self.plan.name, reason = why.reason, why = %why.message, "the Trigger stands still");
        self.live.resolved(&Err(why), &self.context.settings.address);
        self.stop.cancelled().await;
    }

    /// Waits until everything the Trigger refers to is there, and takes up its cursor.
    async fn start(&self) -> Option<Arc<Work>> {
        let mut made = self.context.brokers.watch();
        let targets = loop {
            made.mark_unchanged();
            let targets = self.plan.resolve(&self.context.brokers, &self.context.settings);
            self.live.resolved(&targets, &self.context.settings.address);
            match targets {
                Ok(targets) => break targets,
                Err(why) => {
                    tracing::info!(trigger = %self.plan.name, reason = why.reason, why = %why.message, "not ready");
                    let changed = async {
                        if !why.waits_for_broker || made.changed().await.is_err() {
                            std::future::pending::<()>().await;
                        }
                    };
                    tokio::select! {
                        () = self.stop.cancelled() => return None,
                        () = changed => {}
                    }
                }
            }
        };
        let broker = self.context.brokers.get(&self.plan.broker)?;
        let consumer = broker.journal().consumer(&self.live.consumer(), self.plan.start(), self.plan.hold);
        if let Some(why) = retired::why(broker.journal(), &self.live.uid, &self.plan) {
            self.retire(why).await;
            return None;
        }
        Some(Arc::new(Work {
            context: self.context.clone(),
            plan: self.plan.clone(),
            live: self.live.clone(),
            stop: self.stop.clone(),
            broker,
            targets,
            consumer,
            buried: tokio::sync::Mutex::default(),
        }))
    }
}

impl Running {
    fn new(dispatcher: &Dispatcher, work: Arc<Work>, ahead: &BTreeMap<Offset, Outcome>) -> Self {
        let plan = &dispatcher.plan;
        let batch = if matches!(work.targets.subscriber, Target::Http(_)) { plan.batch } else { 1 };
        let parallelism = if batch > 1 { 1 } else { plan.parallelism };
        // In order there is one to go, or a batch, behind what is on its way.
        let limit = if parallelism > 1 { parallelism * WINDOW } else { batch * 2 };
        let cursor = work.consumer.cursor();
        let feed = dispatcher.context.feed(&work.broker);
        Self {
            window: Window::new(cursor, limit, ahead),
            intake: Intake::new(feed, plan.clone(), dispatcher.live.clone(), cursor),
            parallelism,
            batch,
            ready: VecDeque::new(),
            later: BTreeMap::new(),
            deliveries: FuturesUnordered::new(),
            next: None,
            share: Share::default(),
            starved: None,
            waited: None,
            circuit: Circuit::default(),
            look: Box::pin(tokio::time::sleep(LOOK_EVERY)),
            gone: false,
            noted: work.consumer.ahead().unwrap_or_default(),
            work,
        }
    }

    async fn run(&mut self, stop: &CancellationToken) {
        loop {
            if self.gone {
                break;
            }
            // The next goes first: what there is to do about the last is done while it is on its way.
            self.launch();
            if !self.flush().await {
                // The cursor is elsewhere: what is there goes next.
                tokio::task::yield_now().await;
                continue;
            }
            let ready = &mut self.ready;
            if !self.intake.fill(&mut self.window, |offset| ready.push_back(Parcel::new(offset))) {
                break;
            }
            let settled = self.launch();
            if self.window.step().is_some() && !self.flush().await {
                continue;
            }
            if settled && !stop.is_cancelled() {
                // There may be more to do at once.
                tokio::task::yield_now().await;
                continue;
            }
            self.prepare();
            self.tell();
            let ask = self.circuit.ask_at().filter(|_| self.deliveries.is_empty() && !self.ready.is_empty());
            let due = self.later.first_key_value().map(|((at, _), _)| *at).into_iter().chain(ask).min();
            let (under_way, room) = (self.window.open() > 0, self.window.room() > 0);
            let context = self.work.context.clone();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(finished) = self.deliveries.next() => self.finished(finished),
                read = self.intake.changed(room) => match read.map(|read| self.intake.take(read)) {
                    None | Some(Ok(())) => {}
                    Some(Err(ReadError::Closed)) => break,
                    Some(Err(error)) => {
                        tracing::warn!(trigger = %self.work.plan.name, broker = %self.work.plan.broker, %error,
                            "events cannot be read; trying again");
                        tokio::select! {
                            () = stop.cancelled() => break,
                            () = tokio::time::sleep(READ_RETRY) => {}
                        }
                    }
                },
                () = sleep_until(due), if self.deliveries.len() < self.parallelism => {}
                permit = context.room.wait(self.starved.unwrap_or(0)), if self.starved.is_some() => self.waited = permit,
                () = &mut self.look, if under_way => self.look.as_mut().reset(Instant::now() + LOOK_EVERY),
            }
            // What came back together is settled together.
            self.take_back();
        }
        self.end().await;
    }

    /// What is being sent has some time to finish; then the cursor is made durable.
    async fn end(&mut self) {
        let until = Instant::now() + GRACE;
        while let Ok(Some(finished)) = tokio::time::timeout_at(until, self.deliveries.next()).await {
            self.finished(finished);
        }
        self.deliveries.clear();
        // What the feed has seen and nobody wanted need not be looked at again.
        self.intake.fill(&mut self.window, |_| {});
        self.flush().await;
        // The journal may be closed or its disk dead; then what was done since is done again at the next start.
        let _ = tokio::time::timeout(GRACE, self.work.consumer.flushed()).await;
    }

    /// Sends what may go, and has it begin to go. Whether anything has come back at once.
    fn launch(&mut self) -> bool {
        let before = self.deliveries.len();
        self.launch_all();
        self.deliveries.len() > before && self.take_back()
    }

    /// Takes those that have come back; others go on as far as they can. Whether there were any.
    fn take_back(&mut self) -> bool {
        let mut some = false;
        while let Some(Some(finished)) = self.deliveries.next().now_or_never() {
            self.finished(finished);
            some = true;
        }
        some
    }

    fn launch_all(&mut self) {
        let now = Instant::now();
        self.starved = None;
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            let parcel = entry.remove();
            self.ready.push_front(parcel);
        }
        while self.deliveries.len() < self.parallelism && self.circuit.lets_pass(self.deliveries.len(), now) {
            // Where order counts nothing goes around what waits.
            if self.parallelism == 1 && !self.later.is_empty() {
                return;
            }
            let Some(mut parcel) = self.ready.pop_front() else { return };
            while parcel.offsets.len() < self.batch
                && parcel.is_fresh()
                && self.ready.front().is_some_and(|next| next.is_fresh() && next.offsets.len() == 1)
                && let Some(next) = self.ready.pop_front()
            {
                parcel.offsets.extend(next.offsets);
            }
            if !self.send(parcel) {
                return;
            }
        }
    }

    /// Sends one parcel. False when something it needs is not there yet: it stands first in line again then.
    fn send(&mut self, mut parcel: Parcel) -> bool {
        if let Some(Next { job, content, taken }) = self.next.take() {
            if parcel.is_fresh() && parcel.offsets == [job.offset] && self.window.is_open(job.offset) {
                let delivery = self.work.clone().deliver(parcel, vec![job], Some(content), taken);
                self.deliveries.push(Box::pin(delivery));
                return true;
            }
            self.share.give_back(&taken);
        }
        let mut jobs = Vec::with_capacity(parcel.offsets.len());
        let mut bytes = 0;
        let mut here = Vec::with_capacity(parcel.offsets.len());
        let mut absent = false;
        for (i, offset) in parcel.offsets.iter().enumerate() {
            // The cursor was moved past it.
            if !self.window.is_open(*offset) {
                continue;
            }
            match self.intake.look(*offset) {
                Look::Event(epoch, body) => {
                    if i > 0 && bytes + body.len() > BATCH_BYTES {
                        break;
                    }
                    bytes += body.len();
                    jobs.push(Job { epoch, offset: *offset, body: own(body) });
                    here.push(*offset);
                }
                Look::Lost(reason) => self.settle(*offset, Outcome::Dropped(reason)),
                Look::Absent => {
                    absent = true;
                    break;
                }
            }
        }
        // A batch that is not at hand as a whole goes as far as it is.
        let rest: Vec<Offset> = match here.last() {
            Some(last) => parcel.offsets.iter().copied().filter(|offset| offset > last).collect(),
            None if absent => {
                self.ready.push_front(parcel);
                return false;
            }
            None => return true,
        };
        for offset in rest.into_iter().rev() {
            let (stage, attempts) = (parcel.stage.clone(), parcel.attempts);
            let part = Parcel { stage, attempts, alone: parcel.alone, ..Parcel::new(offset) };
            self.ready.push_front(part);
        }
        parcel.offsets = here;
        match self.work.context.room.take(&mut self.share, bytes, &mut self.waited) {
            Found::Room(taken) => {
                self.deliveries.push(Box::pin(self.work.clone().deliver(parcel, jobs, None, taken)));
                true
            }
            Found::Later => {
                self.ready.push_front(parcel);
                false
            }
            Found::Wait(kib) => {
                self.starved = Some(kib);
                self.ready.push_front(parcel);
                false
            }
        }
    }

    /// Makes the next one ready while the only one that may be on its way is, if there is room.
    fn prepare(&mut self) {
        if self.parallelism > 1 || self.batch > 1 || self.next.is_some() || self.deliveries.is_empty() {
            return;
        }
        let Some(offset) = self.ready.front().filter(|parcel| parcel.is_fresh()).map(Parcel::first) else { return };
        let Look::Event(epoch, body) = self.intake.look(offset) else { return };
        if body.len() > COPY_BYTES {
            return;
        }
        if let Found::Room(taken) = self.work.context.room.take(&mut self.share, body.len(), &mut None) {
            let job = Job { epoch, offset, body: own(body) };
            let content = self.work.prepare(std::slice::from_ref(&job));
            self.next = Some(Next { job, content, taken });
        }
    }

    /// Gives back what was made ready.
    fn unprepare(&mut self) {
        if let Some(Next { taken, .. }) = self.next.take() {
            self.share.give_back(&taken);
        }
    }

    /// Takes a delivery that has come back.
    fn finished(&mut self, finished: Finished) {
        let Finished { mut parcel, verdict, contact, taken } = finished;
        self.share.give_back(&taken);
        if !matches!(verdict, Verdict::Settled(_)) {
            // While this one waits, the next is an offset and no more.
            self.unprepare();
        }
        let mut again = None;
        match verdict {
            Verdict::Settled(outcomes) => {
                for (offset, outcome) in outcomes {
                    self.settle(offset, outcome);
                }
            }
            Verdict::Gone => self.gone = true,
            Verdict::Again(wait) => {
                parcel.offsets.retain(|offset| self.window.is_open(*offset));
                if !parcel.offsets.is_empty() {
                    let at = Instant::now() + wait;
                    again = Some(at);
                    self.later.insert((at, parcel.first()), parcel);
                }
            }
            Verdict::Apart(stage) => {
                for offset in parcel.offsets.iter().rev() {
                    self.ready.push_front(Parcel { stage: stage.clone(), alone: true, ..Parcel::new(*offset) });
                }
            }
        }
        self.circuit.note(contact, again);
    }

    /// An event is finished; the next of its key may go.
    fn settle(&mut self, offset: Offset, outcome: Outcome) {
        if self.window.is_open(offset) {
            self.work.live.settled(offset.0, &self.work.context.settings.clock);
        }
        if let Some(next) = self.window.finish(offset, outcome) {
            self.ready.push_back(Parcel::new(next));
        }
    }

    /// Moves the cursor as far as it may go. False when it was moved by somebody else, and the task has gone there.
    async fn flush(&mut self) -> bool {
        let consumer = &self.work.consumer;
        let (cursor, base) = (consumer.cursor(), self.window.base());
        if cursor < base {
            self.go_back(cursor).await;
            return false;
        }
        if cursor > base {
            for offset in self.window.forward(cursor) {
                self.ready.push_back(Parcel::new(offset));
            }
            self.intake.forward(cursor);
            self.unprepare();
            self.later.retain(|_, parcel| parcel.offsets.iter().any(|offset| self.window.is_open(*offset)));
            return false;
        }
        let note = if self.parallelism == 1 && self.noted.is_empty() { Vec::new() } else { self.window.ahead() };
        let changed = note != self.noted;
        let Some(step) = self.window.step() else {
            if changed && consumer.advance_noting(base, base, &crate::journal::Done::default(), Some(note.clone())) {
                self.noted = note;
            }
            return true;
        };
        if !consumer.advance_noting(step.from, step.to, &step.done, changed.then(|| note.clone())) {
            return false;
        }
        self.noted = note;
        self.window.settle(step.to);
        true
    }

    /// An operator moved the cursor back: everything from there on is to be done again.
    async fn go_back(&mut self, to: Offset) {
        self.deliveries.clear();
        self.next = None;
        self.share = Share::default();
        self.ready.clear();
        self.later.clear();
        self.work.forget_marks().await;
        self.window = Window::new(to, self.window.limit(), &BTreeMap::new());
        self.intake.seek(to);
        self.noted = Vec::new();
    }

    /// Shows what is waited for.
    fn tell(&self) {
        let clock = &self.work.context.settings.clock;
        let next = self.later.first_key_value().map(|((at, _), parcel)| {
            let at = self.circuit.ask_at().map_or(*at, |ask| ask.max(*at));
            let wait = at.saturating_duration_since(Instant::now());
            let next_ms = clock.elapsed_ms() + u64::try_from(wait.as_millis()).unwrap_or(0);
            (parcel.first().0, parcel.attempts.failed, next_ms)
        });
        let state = match (self.circuit.is_open(), self.deliveries.is_empty()) {
            (false, _) => "closed",
            (true, true) => "open",
            (true, false) => "half-open",
        };
        self.work.live.waits(next, state, self.circuit.silent());
    }
}

/// Small events are copied out of the page that they are on.
fn own(body: Bytes) -> Bytes {
    if body.len() > COPY_BYTES { body } else { Bytes::copy_from_slice(&body) }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
