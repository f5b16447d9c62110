//! Sending dead letters again, as they were: to the one subscriber, or into the whole Broker.
//!
//! A run goes on for as long as somebody listens to it, and can be begun again at any time: what is settled is not sent twice.
//!
//! **To the subscriber** one letter is under way at a time, one attempt each. Before it is sent, the letter is durably in doubt;
//! that ends with the commit that settles it, which is the next one's too. A run that was cut short in between leaves the letter in doubt,
//! as does one that got no answer, and the next run says of it that it may have come twice. A subscriber that is away ends the run.
//!
//! **Into the Broker** letters go in batches, each one append with a fact of the Broker's journal that names them. A run that was cut
//! short between that append and the one that settles them finds the fact: no letter goes in twice.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::HeaderMap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Found, Placed, Selection, Walk, Work, event_of};
use crate::broker::{Fate, Settled, Settling};
use crate::delivery::attempt::{Outgoing, to_subscriber};
use crate::delivery::outcome::{Cause, Class, Failure};
use crate::delivery::sender::headers_of;
use crate::delivery::triggers::{Context, Triggers};
use crate::delivery::{append, plan::Plan, plan::Targets};
use crate::event::{Event, encode_event, ttl};
use crate::journal::{Epoch, Offset, Refused};
use crate::manifest::{Kind, ObjectKey, ObjectName};

/// The fact in the Broker's journal that names the letters of the last batch put there: epoch and offset of each.
const REPLAYED: &[u8] = b"replayed";

/// Most letters, and about how many bytes, of one append to the Broker.
const BATCH: usize = 32;
const BATCH_BYTES: usize = 64 << 10;

/// The attribute that says when an event came to a Broker.
const ARRIVAL: &str = "knativearrivaltime";

/// Where letters go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// To the subscriber of the Trigger that could not deliver them.
    Subscriber,
    /// Into the Broker again, for all its Triggers and the uplink.
    Broker,
}

/// What a run tells as it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Settled, durably.
    Replayed {
        /// The letter.
        offset: Offset,
        /// An earlier run may have brought it to the subscriber already.
        again: bool,
    },
    /// It waits on.
    Failed {
        /// The letter.
        offset: Offset,
        /// As in `knativeerrorcode`.
        code: u16,
        /// Why, for people.
        message: String,
    },
    /// The last word.
    End(Summary),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Letters settled.
    pub replayed: u64,
    /// Letters that wait on.
    pub failed: u64,
    /// Why the run ended before the last letter that was meant.
    pub stopped: Option<String>,
}

/// A letter on its way into the Broker.
struct Parcel {
    offset: Offset,
    epoch: Epoch,
    event: Event,
    headers: HeaderMap,
}

struct Run<'a> {
    triggers: &'a Triggers,
    work: Work,
    tell: mpsc::Sender<Told>,
    stop: CancellationToken,
    sum: Summary,
    doubts: BTreeSet<(Offset, Epoch)>,
    /// Taken by the subscriber, not durable yet; whether it was in doubt before.
    taken: Option<(Offset, Epoch, bool)>,
    /// The last Trigger that was asked for.
    known: Option<(String, Result<Subscriber, String>)>,
}

/// Where a Trigger's letters go.
#[derive(Clone)]
struct Subscriber {
    context: Arc<Context>,
    plan: Arc<Plan>,
    targets: Arc<Targets>,
}

impl Work {
    /// Sends the letters that are meant, and tells what becomes of them until nobody listens any more or `stop` is cancelled.
    pub async fn replay(
        self,
        triggers: &Triggers,
        selection: Selection,
        to: To,
        tell: mpsc::Sender<Told>,
        stop: CancellationToken,
    ) {
        let doubts = self.letters.doubts();
        let mut run = Run { triggers, work: self, tell, stop, sum: Summary::default(), doubts, taken: None, known: None };
        let mut ended = match to {
            To::Subscriber => run.send_all(selection).await,
            To::Broker => run.put_all(selection).await,
        };
        // What the last letter led to counts, however the run ended.
        if let Err(refused) = run.settle_taken(None).await {
            ended = ended.and(Err(refused));
        }
        if let Err(refused) = run.work.advance().await {
            ended = ended.and(Err(refused.to_string()));
        }
        run.sum.stopped = ended.err();
        tracing::info!(broker = %run.work.letters.broker.name(), replayed = run.sum.replayed, failed = run.sum.failed,
            stopped = run.sum.stopped.as_deref(), "dead letters were replayed");
        let _ = run.tell.send(Told::End(run.sum.clone())).await;
    }
}

impl Run<'_> {
    fn walk(&self, selection: Selection) -> Walk {
        self.work.letters.walk(selection, Offset(0), self.triggers.brokers().agent())
    }

    /// Whether to go on.
    fn wanted(&self) -> Result<(), String> {
        if self.stop.is_cancelled() {
            return Err("the process is stopping; the same again goes on from here".to_owned());
        }
        if self.tell.is_closed() {
            return Err("nobody listens any more; the same again goes on from here".to_owned());
        }
        Ok(())
    }

    async fn failed(&mut self, offset: Offset, code: u16, message: String) {
        self.sum.failed += 1;
        let _ = self.tell.send(Told::Failed { offset, code, message }).await;
    }

    async fn replayed(&mut self, offset: Offset, again: bool) {
        self.sum.replayed += 1;
        let _ = self.tell.send(Told::Replayed { offset, again }).await;
    }

    async fn send_all(&mut self, selection: Selection) -> Result<(), String> {
        let mut walk = self.walk(selection);
        while let Some(found) = walk.next().await.map_err(|e| e.to_string())? {
            for found in found {
                match found {
                    Found::Lost(lost) => self.work.note_lost(lost),
                    Found::Letter(placed) => {
                        self.wanted()?;
                        self.send(&placed).await?;
                    }
                }
            }
            self.settle_taken(None).await?;
            self.work.advance().await.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    async fn send(&mut self, placed: &Placed) -> Result<(), String> {
        let prepared = match &placed.letter {
            None => Err("this version cannot read the letter".to_owned()),
            Some(letter) => self.subscriber(&letter.head.trigger).and_then(|subscriber| {
                let stored = event_of(letter, self.triggers.brokers().agent());
                let outgoing = stored.and_then(|stored| Outgoing::new(&stored).ok());
                Ok((subscriber, outgoing.ok_or("the letter's event cannot be read")?))
            }),
        };
        let (subscriber, outgoing) = match prepared {
            Ok(prepared) => prepared,
            Err(why) => {
                self.failed(placed.offset, 400, why).await;
                return Ok(());
            }
        };
        let again = self.doubts.contains(&(placed.offset, placed.epoch));
        self.settle_taken(Some((placed.offset, placed.epoch))).await?;
        let Subscriber { context, plan, targets } = subscriber;
        let broker = self.work.letters.broker.clone();
        match to_subscriber(&context, &plan, &broker, &targets, &outgoing, None).await {
            Ok(()) => {
                self.taken = Some((placed.offset, placed.epoch, again));
                Ok(())
            }
            Err(failure) => {
                if failure.cause != Cause::NoResponse {
                    // It has answered: nothing is in doubt.
                    self.doubts.remove(&(placed.offset, placed.epoch));
                }
                let Failure { message, .. } = &failure;
                self.failed(placed.offset, failure.code(), message.clone()).await;
                match failure.class() {
                    Class::Away => Err(format!("{} is away: {message}", failure.destination)),
                    Class::Retryable | Class::Malformed | Class::Final => Ok(()),
                }
            }
        }
    }

    /// Makes durable that the last letter was taken, and that `next` is under way.
    async fn settle_taken(&mut self, next: Option<(Offset, Epoch)>) -> Result<(), String> {
        let before = self.work.letters.doubts();
        let mut settling = Settling::default();
        if let Some((offset, epoch, _)) = self.taken {
            settling.add(&self.work.letters.journal, offset, Fate::Replayed);
            self.doubts.remove(&(offset, epoch));
        }
        self.doubts.extend(next);
        let doubts = (self.doubts != before).then_some(&self.doubts);
        // durable before: `next` is sent only after this, so that a letter that may have been sent is known to be.
        self.work.settle(&settling, doubts).await.map_err(|e| e.to_string())?;
        if let Some((offset, _, again)) = self.taken.take() {
            self.replayed(offset, again).await;
        }
        Ok(())
    }

    /// The subscriber of a letter's Trigger.
    fn subscriber(&mut self, trigger: &str) -> Result<Subscriber, String> {
        if self.known.as_ref().is_none_or(|(known, _)| known != trigger) {
            let found = self.find(trigger);
            self.known = Some((trigger.to_owned(), found));
        }
        self.known.as_ref().map_or_else(|| Err(String::new()), |(_, found)| found.clone())
    }

    fn find(&self, trigger: &str) -> Result<Subscriber, String> {
        const ELSE: &str = "put the letter back into the broker in place of this";
        let Some((namespace, name)) = trigger.split_once('/') else {
            return Err(format!("the gateway refused the event, and no Trigger has it: {ELSE}"));
        };
        let broker = self.work.letters.broker.name();
        let kind = if broker.is_channel() { Kind::Subscription } else { Kind::Trigger };
        let name = ObjectName { namespace: namespace.to_owned(), name: name.to_owned() };
        let key = ObjectKey { kind, name };
        let (context, plan) =
            self.triggers.running(&key).ok_or_else(|| format!("there is no {key} here any more: {ELSE}"))?;
        if plan.broker != *broker {
            return Err(format!("{key} is on another {} now: {ELSE}", broker.what()));
        }
        let targets = plan.resolve(&context.brokers, &context.settings);
        let targets = targets.map_err(|why| format!("{key} is not ready: {}: {}", why.reason, why.message))?;
        Ok(Subscriber { context, plan, targets: Arc::new(targets) })
    }

    async fn put_all(&mut self, selection: Selection) -> Result<(), String> {
        self.settle_known().await?;
        let mut walk = self.walk(selection);
        while let Some(found) = walk.next().await.map_err(|e| e.to_string())? {
            let (mut parcels, mut bytes) = (Vec::new(), 0);
            for found in found {
                let placed = match found {
                    Found::Lost(lost) => {
                        self.work.note_lost(lost);
                        continue;
                    }
                    Found::Letter(placed) => placed,
                };
                self.wanted()?;
                match self.parcel(&placed) {
                    Err(why) => self.failed(placed.offset, 400, why).await,
                    Ok(parcel) => {
                        let size = placed.letter.as_ref().map_or(0, |letter| letter.body.len());
                        if parcels.len() >= BATCH || (bytes + size > BATCH_BYTES && !parcels.is_empty()) {
                            self.put(std::mem::take(&mut parcels)).await?;
                            bytes = 0;
                        }
                        bytes += size;
                        parcels.push(parcel);
                    }
                }
            }
            self.put(parcels).await?;
            self.work.advance().await.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Settles what a run put into the Broker that was cut short before it could say so.
    async fn settle_known(&mut self) -> Result<(), String> {
        let names = self.work.letters.broker.journal().fact(REPLAYED).unwrap_or_default();
        let lineage = self.work.letters.journal.lineage();
        let (first, next) = (self.work.letters.keeper.cursor(), self.work.letters.journal.next_offset());
        let mut settled = Settled::new(self.work.letters.journal.clone());
        let mut settling = Settling::default();
        let mut known = Vec::new();
        for pair in names.as_chunks::<16>().0 {
            let pair = u128::from_le_bytes(*pair);
            let low = u128::from(u64::MAX);
            let (Ok(epoch), Ok(offset)) = (u64::try_from(pair >> 64), u64::try_from(pair & low)) else { continue };
            let (epoch, offset) = (Epoch(epoch), Offset(offset));
            let there = offset >= first && offset < next && lineage.epoch_at(offset) == Some(epoch);
            if there && settled.fate(offset).is_none() {
                settling.add(&self.work.letters.journal, offset, Fate::Replayed);
                known.push(offset);
            }
        }
        self.work.settle(&settling, None).await.map_err(|e| e.to_string())?;
        for offset in known {
            self.replayed(offset, false).await;
        }
        Ok(())
    }

    fn parcel(&self, placed: &Placed) -> Result<Parcel, String> {
        let letter = placed.letter.as_ref().ok_or("this version cannot read the letter")?;
        let stored = event_of(letter, self.triggers.brokers().agent()).ok_or("the letter's event cannot be read")?;
        let mut event = stored.to_event().map_err(|e| e.to_string())?;
        event.remove(ARRIVAL);
        let left = ttl::take(&mut event);
        ttl::put(&mut event, left)
            .map_err(|_| "knativebrokerttl is used up: brokers and replies go round in a circle".to_owned())?;
        Ok(Parcel { offset: placed.offset, epoch: placed.epoch, event, headers: headers_of(&stored) })
    }

    /// One append to the Broker, and the one that settles the letters in it.
    async fn put(&mut self, parcels: Vec<Parcel>) -> Result<(), String> {
        if parcels.is_empty() {
            return Ok(());
        }
        match self.append(&parcels).await {
            Ok(()) => {}
            Err(Refused::TooLarge { .. }) if parcels.len() > 1 => {
                for parcel in parcels {
                    Box::pin(self.put(vec![parcel])).await?;
                }
                return Ok(());
            }
            Err(why @ Refused::TooLarge { .. }) => {
                for parcel in parcels {
                    self.failed(parcel.offset, 413, why.to_string()).await;
                }
                return Ok(());
            }
            Err(why) => return Err(format!("the broker does not take the letter: {why}")),
        }
        let mut settling = Settling::default();
        for parcel in &parcels {
            settling.add(&self.work.letters.journal, parcel.offset, Fate::Replayed);
        }
        self.work.settle(&settling, None).await.map_err(|e| e.to_string())?;
        for parcel in parcels {
            self.replayed(parcel.offset, false).await;
        }
        Ok(())
    }

    async fn append(&self, parcels: &[Parcel]) -> Result<(), Refused> {
        let arrival = self.triggers.clock().wall_ms();
        let name = |parcel: &Parcel| u128::from(parcel.epoch.0) << 64 | u128::from(parcel.offset.0);
        let names: Vec<u8> = parcels.iter().flat_map(|parcel| name(parcel).to_le_bytes()).collect();
        // durable before: the letters are settled only after this is. A crash in between finds the fact.
        append(self.work.letters.broker.journal(), |append| {
            for parcel in parcels {
                let headers = parcel.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
                append.event(|out| encode_event(out, &parcel.event, arrival, headers));
            }
            append.put(REPLAYED, &names);
        })
        .await
        .map(|_| ())
    }
}
