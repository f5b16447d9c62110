//! A Trigger's task: take in, send, move the cursor.
//!
//! As many events are outstanding as `godwit.dev/parallelism` says; with one, the default, a Trigger's events arrive in order. An event
//! that waits for another attempt is an offset and no more: it is read anew when it is due. Those behind it go on around it as far
//! as the [`Window`] reaches, or, where order counts, wait. What the task finds changed, because retention was faster or an
//! operator moved the cursor, it accepts: the journal's cursor is the truth, the task follows it.
//!
//! The cursor passes an event only after the event is settled: taken by the subscriber (and its reply durable), taken by the
//! dead letter sink, durable in the dead-letter journal, expired, or not wanted. What is settled beyond the cursor is kept beside it.

mod launch;

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use self::launch::Next;
use super::circuit::Circuit;
use super::intake::Intake;
use super::live::Live;
use super::plan::{NotReady, Plan};
use super::retired;
use super::room::Share;
use super::target::Target;
use super::triggers::Context;
use super::window::{Outcome, Window};
use super::work::{Finished, Parcel, Verdict, Work};
use crate::journal::{Offset, ReadError};

/// How often a task that has something under way looks whether its cursor was moved meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long what is being sent may take to finish when the task is stopped.
const GRACE: Duration = Duration::from_secs(5);
/// The wait after the journal could not be read.
const READ_RETRY: Duration = Duration::from_secs(1);
/// Wanted events that a Trigger looks at beyond its oldest one, for each that may be outstanding.
const WINDOW: usize = 4;

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

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
