//! One delivery: an event, or a batch of them, on its way to the subscriber, the dead letter sink or the dead-letter journal, until it
//! is settled or has to wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::ahead::Buried;
use super::attempt::{Outgoing, Prepared, batch_to_subscriber, to_dead_letter_sink, to_subscriber};
use super::dead_letter::{DeadLetter, DeadLetterHead, Mark};
use super::live::Live;
use super::outcome::{Cause, Class, Failure};
use super::plan::{Plan, Targets};
use super::policy::{Attempts, Next, Policy};
use super::room::Taken;
use super::store::append_dead_letter;
use super::triggers::Context;
use super::window::Outcome;
use crate::broker::Broker;
use crate::event::{StoredError, StoredEvent, has_expired};
use crate::journal::{Consumer, DropReason, Epoch, Offset, Refused};

/// Waits shorter than this keep the event in memory.
const BRIEF: Duration = Duration::from_millis(100);

/// What a Trigger's deliveries need once everything it refers to is there.
pub(crate) struct Work {
    pub(crate) context: Arc<Context>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) live: Arc<Live>,
    pub(crate) stop: CancellationToken,
    pub(crate) broker: Arc<Broker>,
    pub(crate) targets: Targets,
    pub(crate) consumer: Consumer,
    /// Events that went to the dead-letter journal before others that come first; one is written at a time.
    pub(crate) buried: tokio::sync::Mutex<BTreeMap<Offset, Epoch>>,
}

/// Events that go together.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) offsets: Vec<Offset>,
    pub(crate) stage: Stage,
    pub(crate) attempts: Attempts,
    /// One that goes by itself, because the batch that it was in was not taken.
    pub(crate) alone: bool,
}

/// Where they go next.
#[derive(Debug, Clone)]
pub(crate) enum Stage {
    Subscriber,
    /// To the dead letter sink, after this.
    Sink(Failure),
    /// To the dead-letter journal, after this.
    Journal(Failure),
}

/// One of them with its bytes.
pub(crate) struct Job {
    pub(crate) epoch: Epoch,
    pub(crate) offset: Offset,
    pub(crate) body: Bytes,
}

/// What a delivery led to.
pub(crate) enum Verdict {
    /// What became of each.
    Settled(Vec<(Offset, Outcome)>),
    /// Again after this.
    Again(Duration),
    /// Each by itself, at this stage.
    Apart(Stage),
    /// The subscriber is gone for good: nothing more is sent, and what is pending stays.
    Gone,
}

/// Whether anybody answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contact {
    /// Nobody was asked.
    None,
    Answered,
    /// No connection, no answer in time, or a broken one.
    Silence,
}

/// A delivery that has come back.
pub(crate) struct Finished {
    pub(crate) parcel: Parcel,
    pub(crate) verdict: Verdict,
    pub(crate) contact: Contact,
    pub(crate) taken: Taken,
}

impl Parcel {
    pub(crate) fn new(offset: Offset) -> Self {
        Self { offsets: vec![offset], stage: Stage::Subscriber, attempts: Attempts::default(), alone: false }
    }

    /// Whether nothing has been tried yet, so that it may go with others.
    pub(crate) fn is_fresh(&self) -> bool {
        !self.alone && self.attempts == Attempts::default() && matches!(self.stage, Stage::Subscriber)
    }

    pub(crate) fn first(&self) -> Offset {
        self.offsets.first().copied().unwrap_or_default()
    }
}

/// An event that can be sent.
struct Ready {
    offset: Offset,
    outgoing: Outgoing,
}

/// Events as they are sent, made before it is their turn.
pub(crate) struct Content {
    events: Vec<Result<Sendable, StoredError>>,
    /// The request for the only one.
    request: Option<Prepared>,
}

/// One of them.
struct Sendable {
    stored: StoredEvent,
    outgoing: Outgoing,
}

impl Work {
    /// Makes ready what will be sent.
    pub(crate) fn prepare(&self, jobs: &[Job]) -> Content {
        let agent = self.context.brokers.agent();
        let stored = |job: &Job| StoredEvent::new(job.body.clone(), job.epoch, job.offset, agent);
        if let [only] = jobs {
            let made = stored(only).and_then(|stored| {
                let outgoing = Outgoing::prepare(&self.context, &self.plan, &self.targets.subscriber, stored.clone());
                outgoing.map(|(outgoing, request)| (Sendable { stored, outgoing }, request))
            });
            let (event, request) = made.map_or_else(|e| (Err(e), None), |(event, request)| (Ok(event), request));
            return Content { events: vec![event], request };
        }
        let read = |job: &Job| {
            let stored = stored(job)?;
            let outgoing = Outgoing::new(&stored)?;
            Ok(Sendable { stored, outgoing })
        };
        Content { events: jobs.iter().map(read).collect(), request: None }
    }

    /// Delivers. Nothing of the events stays in memory when this has ended. One of these is made for each event: what happens
    /// seldom has a place of its own, and does not make it larger.
    pub(crate) async fn deliver(
        self: Arc<Self>,
        mut parcel: Parcel,
        jobs: Vec<Job>,
        content: Option<Content>,
        taken: Taken,
    ) -> Finished {
        let mut contact = Contact::None;
        let content = content.unwrap_or_else(|| self.prepare(&jobs));
        let verdict = self.work(&mut parcel, &jobs, content, &mut contact).await;
        Finished { parcel, verdict, contact, taken }
    }

    async fn work(&self, parcel: &mut Parcel, jobs: &[Job], content: Content, contact: &mut Contact) -> Verdict {
        let Content { events, mut request } = content;
        let mut settled = Vec::with_capacity(jobs.len());
        let mut ready = Vec::with_capacity(jobs.len());
        let clock = &self.context.settings.clock;
        let first = parcel.attempts == Attempts::default() && matches!(parcel.stage, Stage::Subscriber);
        let mut scratch = String::new();
        for (job, event) in jobs.iter().zip(events) {
            match event {
                Ok(Sendable { stored, outgoing }) => {
                    let arrival = stored.arrival_ms();
                    self.live.sending(job.offset.0, arrival);
                    if has_expired(&stored, clock, &mut scratch) {
                        settled.push((job.offset, Outcome::Dropped(DropReason::Expired)));
                        continue;
                    }
                    if first {
                        self.context.times.processed(&self.plan.broker, arrival, clock.wall_ms());
                    }
                    ready.push(Ready { offset: job.offset, outgoing });
                }
                Err(_) if jobs.len() > 1 => return Verdict::Apart(parcel.stage.clone()),
                Err(error) => {
                    // Nobody can be sent what cannot be read; it is kept as it is.
                    let why = error.to_string();
                    parcel.stage = Stage::Journal(Failure::new(Cause::Status(400), "", why.clone(), why.into_bytes()));
                }
            }
        }
        if settled.len() == jobs.len() {
            return Verdict::Settled(settled);
        }
        loop {
            let step = match (&*ready, jobs) {
                ([], [job]) => self.one(parcel, job, None, None, contact).await,
                ([one], [job]) => self.one(parcel, job, Some(&one.outgoing), request.take(), contact).await,
                _ => Box::pin(self.batch(parcel, &ready, contact)).await,
            };
            match step {
                Verdict::Settled(more) => {
                    settled.extend(more);
                    return Verdict::Settled(settled);
                }
                Verdict::Again(wait) if wait < BRIEF && !self.stop.is_cancelled() => {
                    tokio::select! {
                        () = tokio::time::sleep(wait), if !wait.is_zero() => {}
                        () = self.stop.cancelled() => return Verdict::Again(wait),
                        () = std::future::ready(()), if wait.is_zero() => {}
                    }
                }
                other => return other,
            }
        }
    }

    /// One attempt at the stage where a single event is; without `outgoing` it cannot be read.
    async fn one(
        &self,
        parcel: &mut Parcel,
        job: &Job,
        outgoing: Option<&Outgoing>,
        request: Option<Prepared>,
        contact: &mut Contact,
    ) -> Verdict {
        let (context, plan) = (&*self.context, &*self.plan);
        let settled = |outcome| Verdict::Settled(vec![(job.offset, outcome)]);
        match (&parcel.stage, outgoing) {
            (Stage::Subscriber, Some(outgoing)) => {
                match to_subscriber(context, plan, &self.broker, &self.targets, outgoing, request).await {
                    Ok(()) => {
                        *contact = Contact::Answered;
                        settled(Outcome::Delivered)
                    }
                    Err(failure) => {
                        *contact = contact_of(&failure);
                        self.note(job.offset, parcel.attempts, &failure);
                        if failure.cause == Cause::Gone {
                            return Verdict::Gone;
                        }
                        match plan.policy.after(&mut parcel.attempts, &failure, random()) {
                            Next::RetryAfter(wait) => Verdict::Again(wait),
                            Next::GiveUp => {
                                parcel.attempts = Attempts::default();
                                parcel.stage = self.after_the_last(failure);
                                Verdict::Again(Duration::ZERO)
                            }
                        }
                    }
                }
            }
            (Stage::Sink(failure), Some(outgoing)) => {
                let Some(sink) = &self.targets.dead_letter_sink else {
                    let failure = failure.clone();
                    return Box::pin(self.bury(parcel, job, &failure)).await;
                };
                match Box::pin(to_dead_letter_sink(context, plan, sink, outgoing, failure)).await {
                    Ok(()) => settled(Outcome::DeadLettered),
                    Err(second) => {
                        let first = failure.clone();
                        self.note(job.offset, parcel.attempts, &second);
                        match plan.policy.after(&mut parcel.attempts, &second, random()) {
                            Next::RetryAfter(wait) => Verdict::Again(wait),
                            Next::GiveUp => {
                                parcel.attempts = Attempts::default();
                                parcel.stage = Stage::Journal(first);
                                Verdict::Again(Duration::ZERO)
                            }
                        }
                    }
                }
            }
            (Stage::Journal(failure) | Stage::Sink(failure), _) => {
                let failure = failure.clone();
                Box::pin(self.bury(parcel, job, &failure)).await
            }
            // Not met: what cannot be read is at the last stage.
            (Stage::Subscriber, None) => Verdict::Again(BRIEF),
        }
    }

    fn after_the_last(&self, failure: Failure) -> Stage {
        if self.targets.dead_letter_sink.is_some() { Stage::Sink(failure) } else { Stage::Journal(failure) }
    }

    /// One attempt with a batch. What a receiver refuses about the whole is tried with each: one of them may be why.
    async fn batch(&self, parcel: &mut Parcel, ready: &[Ready], contact: &mut Contact) -> Verdict {
        let outgoing = ready.iter().map(|ready| &ready.outgoing);
        match batch_to_subscriber(&self.context, &self.plan, &self.targets.subscriber, outgoing).await {
            Ok(()) => {
                *contact = Contact::Answered;
                Verdict::Settled(ready.iter().map(|ready| (ready.offset, Outcome::Delivered)).collect())
            }
            Err(failure) => {
                *contact = contact_of(&failure);
                self.note(parcel.first(), parcel.attempts, &failure);
                if failure.cause == Cause::Gone {
                    return Verdict::Gone;
                }
                match self.plan.policy.after(&mut parcel.attempts, &failure, random()) {
                    Next::RetryAfter(wait) => Verdict::Again(wait),
                    Next::GiveUp if is_about_events(&failure) => Verdict::Apart(Stage::Subscriber),
                    Next::GiveUp => Verdict::Apart(self.after_the_last(failure)),
                }
            }
        }
    }

    fn note(&self, offset: Offset, attempts: Attempts, failure: &Failure) {
        self.live.failed(failure, &self.context.settings.clock);
        if attempts.failed == 0 {
            tracing::warn!(trigger = %self.plan.name, offset = offset.0, error = %failure.message, "delivery failed");
        } else {
            tracing::debug!(trigger = %self.plan.name, offset = offset.0, attempts = attempts.failed + 1,
                error = %failure.message, "delivery failed again");
        }
    }

    /// Puts the event into the dead-letter journal, durably, with the mark that keeps it from being put there twice.
    async fn bury(&self, parcel: &mut Parcel, job: &Job, failure: &Failure) -> Verdict {
        let mut buried = self.buried.lock().await;
        let journal = self.broker.journal();
        // The mark holds the ledger as it stands at this event, so earlier moves of the cursor must be in it.
        let ledger = match self.consumer.flushed().await {
            Ok(()) => journal.consumers().into_iter().find(|c| c.name == self.consumer.name()),
            Err(_) => None,
        };
        let mark = ledger.as_ref().filter(|ledger| ledger.cursor == job.offset).map(|status| {
            let mut done = status.done.clone();
            done.dead_lettered += 1;
            Mark::new(job.epoch, job.offset, status.since, &done)
        });
        let ahead = ledger.filter(|ledger| ledger.cursor < job.offset).map(|status| {
            buried.retain(|offset, _| *offset >= status.cursor);
            let mut all = buried.clone();
            all.insert(job.offset, job.epoch);
            Buried { since: status.since, events: all }
        });
        let head = DeadLetterHead {
            trigger: self.plan.name.to_string(),
            uid: self.live.uid.clone(),
            epoch: job.epoch.to_string(),
            offset: job.offset.0,
            at_ms: self.context.settings.clock.wall_ms(),
            ..DeadLetterHead::new(failure)
        };
        let outcome = match self.broker.dead_letters().await {
            Err(error) => Err(error.to_string()),
            Ok(dead_letters) => {
                // durable before: the cursor moves only after this append is. A crash in between finds the mark.
                append_dead_letter(&self.broker, dead_letters, |append| {
                    append.event(|out| DeadLetter::encode(out, &head, &job.body));
                    if let Some(mark) = &mark {
                        append.put(&Mark::key(&self.live.uid), &mark.encode());
                    }
                    if let Some(ahead) = &ahead {
                        append.put(&Buried::key(&self.live.uid), &ahead.encode());
                    }
                })
                .await
                .map(|_| ())
                .map_err(|refused| match refused {
                    Refused::Full => {
                        "it is full: replay or drop letters (godwit dead-letter), or raise max-bytes".to_owned()
                    }
                    other => other.to_string(),
                })
            }
        };
        match outcome {
            Ok(()) => {
                if let Some(ahead) = ahead {
                    *buried = ahead.events;
                }
                tracing::warn!(trigger = %self.plan.name, offset = job.offset.0, error = %failure.message,
                    "an event went to the dead-letter journal");
                Verdict::Settled(vec![(job.offset, Outcome::DeadLettered)])
            }
            Err(why) => {
                let message =
                    format!("the dead-letter journal of broker {} does not take the event: {why}", self.plan.broker);
                let failure = Failure::new(Cause::NotStored, &failure.destination, message, Vec::new());
                self.note(job.offset, parcel.attempts, &failure);
                parcel.attempts.failed = parcel.attempts.failed.saturating_add(1);
                Verdict::Again(Policy::wait_for_disk(parcel.attempts.failed, random()))
            }
        }
    }
}

fn contact_of(failure: &Failure) -> Contact {
    if failure.cause == Cause::NoResponse { Contact::Silence } else { Contact::Answered }
}

/// Whether a final refusal may be for what is in the batch, and not for who asks or whom.
fn is_about_events(failure: &Failure) -> bool {
    match failure.cause {
        Cause::Status(401 | 403 | 404 | 405 | 407 | 410) => false,
        Cause::Status(400..500) => failure.class() == Class::Final,
        _ => false,
    }
}

/// Evenly between 0 and 1.
fn random() -> f64 {
    // 32 bits are exact in an f64. Without random numbers waits are as long as they may be.
    getrandom::u32().map_or(1.0, |n| f64::from(n) / f64::from(u32::MAX))
}
