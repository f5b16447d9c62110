//! Where a source's events go: a Broker of this process, or a URL.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use thiserror::Error;
use url::Url;

use super::job::Job;
use super::live::Missing;
use super::mark;
use crate::broker::Broker;
use crate::delivery::append;
use crate::delivery::endpoint::Endpoint;
use crate::delivery::outcome::{Class, Failure};
use crate::delivery::sender::Letter;
use crate::delivery::target::Target;
use crate::event::{Event, encode_event, ttl};
use crate::journal::Refused;
use crate::names::BrokerName;

/// Longest time for one attempt.
const TIMEOUT: Duration = Duration::from_secs(30);

/// First and longest wait between attempts, in milliseconds.
const FIRST_WAIT_MS: u64 = 50;
const LONGEST_WAIT_MS: u64 = 60_000;

/// The source is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the source is to end")]
pub struct Stopped;

/// How often it is tried to hand over an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tries {
    /// Once, and five times more with waits from 50 ms doubling, as Knative's PingSource does; then the event is lost.
    Five,
    /// As long as another attempt may help, with waits from 50 ms doubling to a minute: whoever made the event keeps it meanwhile.
    ForEver,
}

/// Where the events of a source go, found.
#[derive(Debug, Clone)]
pub struct Sink {
    to: To,
    uri: String,
    job: Job,
}

#[derive(Debug, Clone)]
enum To {
    Broker(Arc<Broker>),
    Http(Box<Endpoint>),
}

/// Why one attempt failed.
struct Attempt {
    reason: &'static str,
    message: String,
    again: bool,
}

impl Sink {
    pub(super) fn new(target: Target, job: Job, address: &Url) -> Result<Self, Missing> {
        let uri = target.shown(address);
        let to = match target {
            Target::Http(endpoint) => To::Http(endpoint),
            Target::Mqtt(_) => {
                let why = "a source's events go to a Broker, a Channel or by HTTP; a Trigger takes them on to mqtt:";
                return Err(Missing::new("NotImplemented", why));
            }
            Target::Broker(name) => {
                let broker = job.brokers().get(&name);
                To::Broker(
                    broker.ok_or_else(|| Missing::new("NotFound", format!("{} {name} does not exist", name.what())))?,
                )
            }
        };
        Ok(Self { to, uri, job })
    }

    /// The URL as `status.sinkUri` shows it.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The Broker, if it is one.
    #[must_use]
    pub fn broker(&self) -> Option<&Arc<Broker>> {
        match &self.to {
            To::Broker(broker) => Some(broker),
            To::Http(_) => None,
        }
    }

    /// Hands over events, in order, and then keeps `mark`: how far the source has come with them. With a Broker that is one commit.
    /// What cannot be handed over is counted as lost, by reason. Events and mark may be as large as one append may be; larger
    /// events are lost (`too_large`). Without a mark, the one from before stays.
    ///
    /// # Errors
    /// [`Stopped`]; some of the events may have been handed over.
    pub async fn put(&self, events: &[Event], mark: Option<&[u8]>, tries: Tries) -> Result<(), Stopped> {
        debug_assert!(mark.is_none_or(|mark| mark.len() <= mark::MAX_BYTES), "a mark is small");
        match &self.to {
            To::Broker(broker) => self.store(broker, events, mark, tries).await,
            To::Http(url) => {
                for event in events {
                    let attempt = || self.post(url, event);
                    self.try_again(attempt, tries, 1).await?;
                }
                let Some(mark) = mark else { return Ok(()) };
                let Some(broker) = self.job.brokers().get(&BrokerName::default()) else { return Ok(()) };
                self.store(&broker, &[], Some(mark), Tries::ForEver).await
            }
        }
    }

    async fn store(&self, broker: &Broker, events: &[Event], mark: Option<&[u8]>, tries: Tries) -> Result<(), Stopped> {
        let fact = mark.map(|mark| (self.job.mark_key(), self.job.encode_mark(mark)));
        let attempt = || self.append(broker, events, fact.as_ref());
        let Err(lost) = self.try_once_or_again(attempt, tries).await? else {
            self.job.live.sent(events.len() as u64);
            return Ok(());
        };
        if events.len() > 1 && lost.reason == "too_large" {
            // Together they are too much; the mark comes with the last one.
            for (i, event) in events.iter().enumerate() {
                let mark = mark.filter(|_| i + 1 == events.len());
                Box::pin(self.store(broker, std::slice::from_ref(event), mark, tries)).await?;
            }
            return Ok(());
        }
        if events.is_empty() {
            self.job.live.failed(lost.message, self.job.clock());
            return Ok(());
        }
        self.lose(&lost, events.len() as u64);
        match mark {
            // The source goes on behind what is lost, also after the next start.
            Some(mark) => Box::pin(self.store(broker, &[], Some(mark), tries)).await,
            None => Ok(()),
        }
    }

    async fn append(&self, broker: &Broker, events: &[Event], fact: Option<&(Vec<u8>, Vec<u8>)>) -> Result<(), Attempt> {
        let clock = self.job.clock();
        let arrival = clock.wall_ms();
        let mut marked = Vec::with_capacity(events.len());
        for event in events {
            let mut event = event.clone();
            let before = ttl::take(&mut event);
            // A source's own events have gone through no Broker yet, so this fails only where an override says otherwise.
            ttl::put(&mut event, before).map_err(|e| Attempt::final_("ttl", e.to_string()))?;
            marked.push(event);
        }
        let claim = broker.claim(clock, &marked).await.map_err(|e| Attempt::refused(&e.into()))?;
        if let Some(claim) = &claim {
            let mut wanted = claim.wanted.iter();
            marked.retain(|_| wanted.next().is_none_or(|wanted| *wanted));
        }
        let stored = append(broker.journal(), |append| {
            for event in &marked {
                append.event(|out| encode_event(out, event, arrival, std::iter::empty()));
            }
            if let Some((key, value)) = fact {
                append.put(key, value);
            }
        });
        stored.await.map_err(|refused| Attempt::refused(&refused))?;
        if let Some(claim) = claim {
            claim.stored(clock);
        }
        Ok(())
    }

    async fn post(&self, url: &Endpoint, event: &Event) -> Result<(), Attempt> {
        let headers = HeaderMap::new();
        let letter = Letter {
            url,
            event,
            batch: None,
            headers: &headers,
            format: None,
            timeout: TIMEOUT,
            namespace: &self.job.name().namespace,
            reply: false,
        };
        let sent = self.job.triggers().context().sender.post(&letter).await;
        sent.map(|_| ()).map_err(|failure| Attempt::failed(&failure))
    }

    async fn try_again<F, A>(&self, attempt: A, tries: Tries, events: u64) -> Result<(), Stopped>
    where
        F: Future<Output = Result<(), Attempt>>,
        A: Fn() -> F,
    {
        match self.try_once_or_again(attempt, tries).await? {
            Ok(()) => self.job.live.sent(events),
            Err(lost) => self.lose(&lost, events),
        }
        Ok(())
    }

    /// The outcome of the last attempt.
    async fn try_once_or_again<F, A>(&self, attempt: A, tries: Tries) -> Result<Result<(), Attempt>, Stopped>
    where
        F: Future<Output = Result<(), Attempt>>,
        A: Fn() -> F,
    {
        let mut wait_ms = FIRST_WAIT_MS;
        for retries in 0u32.. {
            let failed = match self.job.stop.run_until_cancelled(attempt()).await.ok_or(Stopped)? {
                Ok(()) => return Ok(Ok(())),
                Err(failed) => failed,
            };
            if !failed.again || (tries == Tries::Five && retries == 5) {
                return Ok(Err(failed));
            }
            self.job.live.failed(failed.message, self.job.clock());
            self.job.wait(wait_ms).await?;
            wait_ms = (wait_ms * 2).min(LONGEST_WAIT_MS);
        }
        Err(Stopped)
    }

    fn lose(&self, lost: &Attempt, events: u64) {
        let (kind, name) = (self.job.kind(), self.job.name());
        tracing::warn!(source = %format_args!("{kind} {name}"), events, reason = lost.reason, "events are lost: {}", lost.message);
        self.job.live.failed(lost.message.clone(), self.job.clock());
        self.job.live.lost(lost.reason, events);
    }
}

impl Attempt {
    fn final_(reason: &'static str, message: String) -> Self {
        Self { reason, message, again: false }
    }

    fn refused(refused: &Refused) -> Self {
        let (reason, again) = match refused {
            Refused::Full => ("full", true),
            Refused::DiskFull => ("disk_full", true),
            Refused::TooLarge { .. } => ("too_large", false),
            Refused::Busy | Refused::Disk(_) => ("disk", true),
            Refused::Closed => ("closed", true),
        };
        Self { reason, message: refused.to_string(), again }
    }

    fn failed(failure: &Failure) -> Self {
        let (reason, again) = match failure.class() {
            Class::Away => ("no_response", true),
            Class::Retryable => ("receiver_failed", true),
            Class::Malformed | Class::Final => ("rejected", false),
        };
        Self { reason, message: failure.message.clone(), again }
    }
}
