//! Appending to a Broker of this process: replies, and events whose subscriber is a Broker.

use http::HeaderMap;

use crate::broker::Broker;
use crate::clock::Clock;
use crate::event::ttl::{self, TtlExhausted};
use crate::event::{Event, encode_event};
use crate::journal::{Append, Committed, Journal, Refused};

/// Why an event was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotStored {
    /// It has been through too many Brokers (D8).
    TtlUsedUp,
    /// The journal refused it.
    Refused(Refused),
}

/// What an event is, where it comes to a Broker that de-duplicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    /// An event: one that the Broker has had already is stored (D7).
    Event,
    /// What became of one: it has the event's name, and is another.
    DeadLetter,
}

/// Stores `event`, durably when this returns. `ttl` is what it had before this Broker.
pub(crate) async fn store(
    broker: &Broker,
    mut event: Event,
    what: As,
    ttl: i32,
    headers: &HeaderMap,
    clock: &Clock,
) -> Result<(), NotStored> {
    ttl::put(&mut event, ttl).map_err(|TtlExhausted| NotStored::TtlUsedUp)?;
    let arrival = clock.wall_ms();
    let claim = match what {
        As::Event => broker.claim(clock, std::slice::from_ref(&event)).await.map_err(|e| NotStored::Refused(e.into()))?,
        As::DeadLetter => None,
    };
    if claim.as_ref().is_none_or(|claim| claim.wanted.contains(&true)) {
        let stored = append(broker.journal(), |append| {
            append.event(|out| {
                encode_event(out, &event, arrival, headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
            });
        });
        stored.await.map_err(NotStored::Refused)?;
    }
    if let Some(claim) = claim {
        claim.stored(clock);
    }
    Ok(())
}

/// Appends and waits until it is durable, first for room if the journal is busy. `write` may be called more than once.
///
/// # Errors
/// See [`Journal::append`], `Busy` excepted; and [`Refused`] for what a disk does.
pub async fn append(journal: &Journal, write: impl Fn(&mut Append<'_>)) -> Result<Committed, Refused> {
    loop {
        match journal.append(&write) {
            Ok(receipt) => return receipt.await,
            Err(Refused::Busy) => journal.room().await,
            Err(refused) => return Err(refused),
        }
    }
}

/// Appends to a Broker's dead-letter journal, whose segments grow where an event needs larger ones. As [`append`] otherwise.
///
/// # Errors
/// As [`append`].
pub async fn append_dead_letter(
    broker: &Broker,
    dead_letters: &Journal,
    write: impl Fn(&mut Append<'_>),
) -> Result<Committed, Refused> {
    loop {
        match append(dead_letters, &write).await {
            Err(Refused::TooLarge { .. }) if broker.grow_dead_letters(dead_letters) => {}
            outcome => return outcome,
        }
    }
}
