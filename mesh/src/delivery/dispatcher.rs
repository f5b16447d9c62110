//! A Trigger's task: read, filter, send, move the cursor.
//!
//! One event is outstanding at a time, so a Trigger's events arrive in order. While it waits to try again, the task holds no
//! event: it reads the event anew from the journal. What it finds changed then, because retention was faster or an operator
//! moved the cursor, it accepts: the journal's cursor is the truth, the task follows it.
//!
//! The cursor passes an event only after the event is settled: taken by the subscriber (and its reply durable), taken by the
//! dead letter sink, durable in the dead-letter journal, or not wanted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::attempt::{Outgoing, to_dead_letter_sink, to_subscriber};
use super::dead_letter::{DeadLetter, DeadLetterHead, Mark};
use super::live::Live;
use super::outcome::{Cause, Failure};
use super::plan::{NotReady, Plan, Targets};
use super::policy::{Attempts, Next, Policy};
use super::retired;
use super::store::append_dead_letter;
use super::triggers::Context;
use crate::broker::Broker;
use crate::event::StoredEvent;
use crate::journal::{Consumer, Done, Epoch, Item, Offset, ReadError, Reader, Summary};

/// How much is read at once: enough to read sequentially, little enough for many Triggers.
const READ_BYTES: usize = 32 << 10;
/// Waits shorter than this keep the event in memory.
const BRIEF: Duration = Duration::from_millis(100);
/// How often a waiting task looks whether its cursor was moved meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long what is being sent may take to finish when the task is stopped.
const GRACE: Duration = Duration::from_secs(5);
/// The wait after the journal could not be read.
const READ_RETRY: Duration = Duration::from_secs(1);

/// One Trigger's task.
pub(crate) struct Dispatcher {
    context: Arc<Context>,
    plan: Arc<Plan>,
    live: Arc<Live>,
    stop: CancellationToken,
}

/// What the task has once everything it refers to is there.
struct Running {
    broker: Arc<Broker>,
    targets: Targets,
    consumer: Consumer,
}

/// The event that is being delivered.
struct Outstanding {
    epoch: Epoch,
    offset: Offset,
    stage: Stage,
    attempts: Attempts,
}

/// Where it goes next.
enum Stage {
    Subscriber,
    /// To the dead letter sink, after this.
    Sink(Failure),
    /// To the dead-letter journal, after this.
    Journal(Failure),
}

/// What an attempt led to.
enum Step {
    Delivered,
    DeadLettered,
    Wait(Duration),
    /// The subscriber is gone for good.
    Retired,
}

/// How a wait or a run through items ended.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    GoOn,
    /// Read again from the cursor.
    Reread,
    Stop,
}

/// What the cursor may move past, gathered.
struct Progress {
    from: Offset,
    to: Offset,
    done: Done,
}

impl Dispatcher {
    pub(crate) fn new(context: Arc<Context>, plan: Arc<Plan>, live: Arc<Live>, stop: CancellationToken) -> Self {
        Self { context, plan, live, stop }
    }

    /// Runs until the task is stopped or the journal closed.
    pub(crate) async fn run(self) {
        let Some(running) = self.start().await else { return };
        let filter = self.plan.filter.clone();
        let interest = Box::new(move |summary: &Summary| filter.wants(summary));
        let mut reader = running.broker.journal().reader(running.consumer.cursor()).with_interest(interest);
        let mut progress = Progress::at(running.consumer.cursor());
        let mut outstanding = None;
        loop {
            let items = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                items = reader.next(READ_BYTES) => items,
            };
            let then = match items {
                Ok(items) => self.work(&running, items, &mut progress, &mut outstanding).await,
                Err(ReadError::Closed) => break,
                Err(error) => {
                    tracing::warn!(trigger = %self.plan.name, broker = %self.plan.broker, %error, "events cannot be read; trying again");
                    self.sleep(READ_RETRY).await
                }
            };
            if then == Then::Stop {
                break;
            }
            if then == Then::Reread || !progress.flush(&running.consumer) {
                rewind(&mut reader, &mut progress, &running.consumer);
            }
        }
        progress.flush(&running.consumer);
        // The journal may be closed or its disk dead; then what was done since is done again at the next start.
        let _ = tokio::time::timeout(GRACE, running.consumer.flushed()).await;
    }

    /// Waits until everything the Trigger refers to is there, and takes up its cursor.
    async fn start(&self) -> Option<Running> {
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
            return self.retire(why).await;
        }
        let running = Running { broker, targets, consumer };
        while let Err(error) = self.catch_up(&running).await {
            tracing::warn!(trigger = %self.plan.name, %error, "dead letters cannot be read; trying again");
            if self.sleep(READ_RETRY).await == Then::Stop {
                return None;
            }
        }
        Some(running)
    }

    /// Waits for the end: the subscriber is gone for good.
    async fn retire<T>(&self, why: NotReady) -> Option<T> {
        tracing::warn!(trigger = %self.plan.name, reason = why.reason, why = %why.message, "the Trigger stands still");
        self.live.resolved(&Err(why), &self.context.settings.address);
        self.stop.cancelled().await;
        None
    }

    /// Goes past the last dead letter if the process ended after it was durable and before the cursor was.
    async fn catch_up(&self, running: &Running) -> Result<(), crate::broker::BrokerError> {
        let Some(dead_letters) = running.broker.existing_dead_letters().await? else { return Ok(()) };
        let Some(mark) = dead_letters.fact(&Mark::key(&self.live.uid)).and_then(|bytes| Mark::decode(&bytes)) else {
            return Ok(());
        };
        let journal = running.broker.journal();
        let Some(status) = journal.consumers().into_iter().find(|c| c.name == running.consumer.name()) else {
            return Ok(());
        };
        let epoch = journal.lineage().epoch_at(mark.offset());
        if let Some((to, done)) = mark.catch_up(epoch, status.since, status.cursor, &status.done) {
            running.consumer.advance(to, &done);
        }
        Ok(())
    }

    /// Works through what was read.
    async fn work(
        &self,
        running: &Running,
        items: Vec<Item>,
        progress: &mut Progress,
        outstanding: &mut Option<Outstanding>,
    ) -> Then {
        let mut scratch = String::new();
        let mut items = items.into_iter();
        while let Some(item) = items.next() {
            let (epoch, offset, body) = match item {
                Item::Event { epoch, offset, body } => (epoch, offset, body),
                Item::Unwanted { from, to } => {
                    progress.add(to, |done| done.filtered += to.since(from));
                    continue;
                }
                Item::Skip { from, to, reason } => {
                    if !progress.flush(&running.consumer) || running.consumer.cursor() >= to {
                        return Then::Reread;
                    }
                    progress.add(to, |done| *done.dropped.entry(reason).or_default() += to.since(from));
                    continue;
                }
            };
            let stored = StoredEvent::new(body.clone(), epoch, offset, self.context.brokers.agent());
            let verdict = stored.as_ref().ok().map(|event| self.plan.filter.judge(event, &mut scratch));
            if let Some(faults) = verdict.map(|verdict| verdict.faults).filter(|faults| *faults > 0) {
                self.live.faults(faults);
            }
            // What cannot be read cannot be judged: it is treated as wanted, and ends as a dead letter.
            if verdict.is_some_and(|verdict| !verdict.wanted) {
                progress.add(offset.plus(1), |done| done.filtered += 1);
                continue;
            }
            if !progress.flush(&running.consumer) || running.consumer.cursor() != offset {
                return Then::Reread;
            }
            if outstanding.as_ref().is_some_and(|other| (other.epoch, other.offset) != (epoch, offset)) {
                *outstanding = None;
            }
            let current = outstanding.get_or_insert_with(|| Outstanding::new(epoch, offset));
            let outgoing = stored.and_then(|stored| Outgoing::new(&stored));
            loop {
                if self.stop.is_cancelled() {
                    return Then::Stop;
                }
                let step = tokio::select! {
                    step = self.attempt(running, current, outgoing.as_ref(), &body) => step,
                    () = self.grace_is_over() => return Then::Stop,
                };
                match step {
                    Step::Delivered => progress.add(offset.plus(1), |done| done.delivered += 1),
                    Step::DeadLettered => progress.add(offset.plus(1), |done| done.dead_lettered += 1),
                    Step::Retired => {
                        drop((items, outgoing, body));
                        self.live.settled();
                        if let Err(error) = retired::note(running.broker.journal(), &self.live.uid, &self.plan).await {
                            tracing::warn!(trigger = %self.plan.name, %error, "the next start asks the subscriber once more");
                        }
                        let _: Option<()> = self.retire(retired::not_ready()).await;
                        return Then::Stop;
                    }
                    Step::Wait(wait) if wait < BRIEF => {
                        if !wait.is_zero() && self.sleep(wait).await == Then::Stop {
                            return Then::Stop;
                        }
                        continue;
                    }
                    Step::Wait(wait) => {
                        let next_ms =
                            self.context.settings.clock.elapsed_ms() + u64::try_from(wait.as_millis()).unwrap_or(0);
                        self.live.waits(offset.0, current.attempts.failed, next_ms);
                        // Nothing of the events stays in memory meanwhile.
                        drop((items, outgoing, body));
                        return self.wait(running, offset, wait).await;
                    }
                }
                break;
            }
            *outstanding = None;
            self.live.settled();
            if !progress.flush(&running.consumer) {
                return Then::Reread;
            }
        }
        Then::GoOn
    }

    /// One attempt at the stage where the event is.
    async fn attempt(
        &self,
        running: &Running,
        current: &mut Outstanding,
        outgoing: Result<&Outgoing, &crate::event::StoredError>,
        body: &Bytes,
    ) -> Step {
        let (context, plan) = (&*self.context, &*self.plan);
        let outgoing = match outgoing {
            Ok(outgoing) => outgoing,
            Err(error) => {
                // Nobody can be sent what cannot be read; it is kept as it is.
                let failure = Failure::new(Cause::Status(400), "", error.to_string(), error.to_string().into_bytes());
                self.live.failed(&failure, &context.settings.clock);
                return self.bury(running, current, &failure, body).await;
            }
        };
        match &current.stage {
            Stage::Subscriber => {
                match to_subscriber(context, plan, &running.broker, &running.targets.subscriber, outgoing).await {
                    Ok(()) => Step::Delivered,
                    Err(failure) => {
                        self.note(current, &failure);
                        if failure.cause == Cause::Gone {
                            return Step::Retired;
                        }
                        match plan.policy.after(&mut current.attempts, &failure, random()) {
                            Next::RetryAfter(wait) => Step::Wait(wait),
                            Next::GiveUp => {
                                current.attempts = Attempts::default();
                                current.stage = match running.targets.dead_letter_sink {
                                    Some(_) => Stage::Sink(failure),
                                    None => Stage::Journal(failure),
                                };
                                Step::Wait(Duration::ZERO)
                            }
                        }
                    }
                }
            }
            Stage::Sink(failure) => {
                let Some(sink) = &running.targets.dead_letter_sink else {
                    let failure = failure.clone();
                    return self.bury(running, current, &failure, body).await;
                };
                match to_dead_letter_sink(context, plan, sink, outgoing, failure).await {
                    Ok(()) => Step::DeadLettered,
                    Err(second) => {
                        let first = failure.clone();
                        self.note(current, &second);
                        match plan.policy.after(&mut current.attempts, &second, random()) {
                            Next::RetryAfter(wait) => Step::Wait(wait),
                            Next::GiveUp => {
                                current.attempts = Attempts::default();
                                current.stage = Stage::Journal(first);
                                Step::Wait(Duration::ZERO)
                            }
                        }
                    }
                }
            }
            Stage::Journal(failure) => {
                let failure = failure.clone();
                self.bury(running, current, &failure, body).await
            }
        }
    }

    fn note(&self, current: &Outstanding, failure: &Failure) {
        self.live.failed(failure, &self.context.settings.clock);
        if current.attempts.failed == 0 {
            tracing::warn!(trigger = %self.plan.name, offset = current.offset.0, error = %failure.message, "delivery failed");
        } else {
            tracing::debug!(trigger = %self.plan.name, offset = current.offset.0, attempts = current.attempts.failed + 1,
                error = %failure.message, "delivery failed again");
        }
    }

    /// Puts the event into the dead-letter journal, durably, with the mark that keeps it from being put there twice.
    async fn bury(&self, running: &Running, current: &mut Outstanding, failure: &Failure, body: &Bytes) -> Step {
        let journal = running.broker.journal();
        // The mark holds the ledger as it stands at this event, so earlier moves of the cursor must be in it.
        let ledger = match running.consumer.flushed().await {
            Ok(()) => journal.consumers().into_iter().find(|c| c.name == running.consumer.name()),
            Err(_) => None,
        };
        let mark = ledger.filter(|ledger| ledger.cursor == current.offset).map(|status| {
            let mut done = status.done;
            done.dead_lettered += 1;
            Mark::new(current.epoch, current.offset, status.since, &done)
        });
        let head = DeadLetterHead {
            trigger: self.plan.name.to_string(),
            uid: self.live.uid.clone(),
            epoch: current.epoch.to_string(),
            offset: current.offset.0,
            at_ms: self.context.settings.clock.wall_ms(),
            ..DeadLetterHead::new(failure)
        };
        let outcome = match running.broker.dead_letters().await {
            Err(error) => Err(error.to_string()),
            Ok(dead_letters) => {
                // durable before: the cursor moves only after this append is. A crash in between finds the mark.
                append_dead_letter(&running.broker, dead_letters, |append| {
                    append.event(|out| DeadLetter::encode(out, &head, body));
                    if let Some(mark) = &mark {
                        append.put(&Mark::key(&self.live.uid), &mark.encode());
                    }
                })
                .await
                .map(|_| ())
                .map_err(|refused| refused.to_string())
            }
        };
        match outcome {
            Ok(()) => {
                tracing::warn!(trigger = %self.plan.name, offset = current.offset.0, error = %failure.message,
                    "an event went to the dead-letter journal");
                Step::DeadLettered
            }
            Err(why) => {
                let message =
                    format!("the dead-letter journal of broker {} does not take the event: {why}", self.plan.broker);
                self.note(current, &Failure::new(Cause::NotStored, &failure.destination, message, Vec::new()));
                current.attempts.failed = current.attempts.failed.saturating_add(1);
                Step::Wait(Policy::wait_for_disk(current.attempts.failed, random()))
            }
        }
    }

    /// Waits, unless the cursor is moved away from `offset` or the task stopped.
    async fn wait(&self, running: &Running, offset: Offset, wait: Duration) -> Then {
        let until = tokio::time::Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            if left.is_zero() || running.consumer.cursor() != offset {
                return Then::Reread;
            }
            if self.sleep(left.min(LOOK_EVERY)).await == Then::Stop {
                return Then::Stop;
            }
        }
    }

    async fn sleep(&self, time: Duration) -> Then {
        tokio::select! {
            () = self.stop.cancelled() => Then::Stop,
            () = tokio::time::sleep(time) => Then::GoOn,
        }
    }

    async fn grace_is_over(&self) {
        self.stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    }
}

impl Outstanding {
    fn new(epoch: Epoch, offset: Offset) -> Self {
        Self { epoch, offset, stage: Stage::Subscriber, attempts: Attempts::default() }
    }
}

impl Progress {
    fn at(cursor: Offset) -> Self {
        Self { from: cursor, to: cursor, done: Done::default() }
    }

    fn add(&mut self, to: Offset, count: impl FnOnce(&mut Done)) {
        self.to = to;
        count(&mut self.done);
    }

    /// Moves the cursor past all that was gathered. False when the cursor is elsewhere by now: what was gathered does not
    /// count then.
    fn flush(&mut self, consumer: &Consumer) -> bool {
        if self.to == self.from {
            return true;
        }
        let moved = consumer.cursor() == self.from && consumer.advance(self.to, &self.done);
        self.from = self.to;
        self.done = Done::default();
        moved
    }
}

/// Goes back to what the journal says.
fn rewind(reader: &mut Reader, progress: &mut Progress, consumer: &Consumer) {
    let cursor = consumer.cursor();
    reader.seek(cursor);
    *progress = Progress::at(cursor);
}

/// Evenly between 0 and 1.
fn random() -> f64 {
    // 32 bits are exact in an f64. Without random numbers waits are as long as they may be.
    getrandom::u32().map_or(1.0, |n| f64::from(n) / f64::from(u32::MAX))
}
