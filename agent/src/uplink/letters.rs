//! Events that the gateway refuses for good become dead letters of their Broker.
//!
//! The event's stored form goes into the Broker's dead-letter journal as soon as the refusal is heard, so before the position that
//! lets the cursor pass it. In the same append goes a fact, `u`: which events were put there that the durable cursor has not
//! passed. If the link or the process ends in between, such an event is refused again, or the gateway's position is found behind
//! it; both ways it is known, is not put there twice, and counts as a dead letter.
//!
//! Where the dead-letter journal does not take it (full, its disk fails), the event is dropped (`refused`) with a warning: the gateway goes on without it, so the uplink cannot wait.

use std::collections::BTreeSet;

use bytes::Bytes;
use godwit_mesh::broker::{Broker, BrokerError};
use godwit_mesh::clock::Clock;
use godwit_mesh::delivery::{DeadLetter, DeadLetterHead, append, append_dead_letter};
use godwit_mesh::journal::{Epoch, Item, Journal, Offset};

use super::run::CONSUMER;

/// The fact that names the dead letters which the cursor may not have passed.
const BURIED: &[u8] = b"u";

/// Most events that the fact names, the newest: 16 KiB. Far more than are refused between two moves of the cursor; were it not,
/// a crash could double the oldest.
const MOST_BURIED: usize = 1024;

/// Bodies put there in one append, and how many; a single larger one goes alone.
const APPEND_BYTES: usize = 64 << 10;
const APPEND_EVENTS: usize = 64;

/// What a head says as the status of a refusal: the event is not acceptable.
const CODE: u16 = 400;

/// Events that are dead letters already, by offset and epoch: a disk set back gives an offset to another event.
#[derive(Debug, Default)]
pub(super) struct Buried(BTreeSet<(Offset, Epoch)>);

impl Buried {
    /// What is known of a Broker's dead letters from the uplink.
    pub(super) async fn of(broker: &Broker) -> Result<Self, BrokerError> {
        let journal = broker.existing_dead_letters().await?;
        Ok(journal.map(Self::read).unwrap_or_default())
    }

    pub(super) fn contains(&self, offset: Offset, epoch: Epoch) -> bool {
        self.0.contains(&(offset, epoch))
    }

    fn read(dead_letters: &Journal) -> Self {
        let bytes = dead_letters.fact(BURIED).unwrap_or_default();
        let (numbers, _) = bytes.as_chunks::<8>();
        let (pairs, _) = numbers.as_chunks::<2>();
        Self(
            pairs
                .iter()
                .map(|&[offset, epoch]| (Offset(u64::from_le_bytes(offset)), Epoch(u64::from_le_bytes(epoch))))
                .collect(),
        )
    }

    fn encode(&self) -> Vec<u8> {
        self.0.iter().flat_map(|(offset, epoch)| [offset.0.to_le_bytes(), epoch.0.to_le_bytes()]).flatten().collect()
    }
}

/// An event on its way into the dead-letter journal.
struct Letter {
    offset: Offset,
    epoch: Epoch,
    head: DeadLetterHead,
    body: Bytes,
}

/// Makes dead letters of what one gateway refuses.
#[derive(Debug)]
pub(super) struct Letters {
    /// The gateway's URL, without user name and password.
    pub(super) gateway: String,
    pub(super) clock: Clock,
}

impl Letters {
    /// Puts the refused events of a Broker into its dead-letter journal. Returns which are there, durably; why others are not has
    /// been logged.
    pub(super) async fn keep(&self, broker: &Broker, refused: &[(Offset, String)]) -> BTreeSet<Offset> {
        let mut kept = BTreeSet::new();
        let dead_letters = match broker.dead_letters().await {
            Ok(dead_letters) => dead_letters,
            Err(error) => {
                tracing::warn!(broker = %broker.name(), %error, "refused events are dropped: the dead-letter journal cannot be opened");
                return kept;
            }
        };
        // An append whose waiter was given up may still be on its way; its fact counts.
        let _ = append(dead_letters, |_| ()).await;
        let mut buried = Buried::read(dead_letters);
        if let Some(uplink) = broker.journal().consumers().into_iter().find(|consumer| consumer.name == CONSUMER) {
            buried.0.retain(|(offset, _)| *offset >= uplink.cursor);
        }
        let (mut letters, mut bytes) = (Vec::new(), 0);
        for (offset, why) in refused {
            let Some((epoch, body)) = event_at(broker, *offset).await else {
                tracing::warn!(broker = %broker.name(), %offset, "a refused event is dropped: it is no longer in the journal");
                continue;
            };
            if buried.contains(*offset, epoch) {
                kept.insert(*offset);
                continue;
            }
            if letters.len() >= APPEND_EVENTS || bytes + body.len() > APPEND_BYTES && !letters.is_empty() {
                put(broker, dead_letters, &mut buried, std::mem::take(&mut letters), &mut kept).await;
                bytes = 0;
            }
            bytes += body.len();
            letters.push(Letter { offset: *offset, epoch, head: self.head(*offset, epoch, why), body });
        }
        if !letters.is_empty() {
            put(broker, dead_letters, &mut buried, letters, &mut kept).await;
        }
        kept
    }

    fn head(&self, offset: Offset, epoch: Epoch, why: &str) -> DeadLetterHead {
        DeadLetterHead {
            trigger: CONSUMER.to_owned(),
            uid: String::new(),
            epoch: epoch.to_string(),
            offset: offset.0,
            destination: self.gateway.clone(),
            code: CODE,
            message: why.to_owned(),
            data: String::new(),
            at_ms: self.clock.wall_ms(),
        }
    }
}

/// One append: all of these letters, and the fact that names them.
async fn put(
    broker: &Broker,
    dead_letters: &Journal,
    buried: &mut Buried,
    letters: Vec<Letter>,
    kept: &mut BTreeSet<Offset>,
) {
    let mut after = Buried(buried.0.iter().copied().chain(letters.iter().map(|l| (l.offset, l.epoch))).collect());
    while after.0.len() > MOST_BURIED {
        after.0.pop_first();
    }
    let fact = after.encode();
    // durable before: the uplink's cursor passes these events only after this append is. A crash in between finds the fact.
    let appended = append_dead_letter(broker, dead_letters, |append| {
        for letter in &letters {
            append.event(|out| DeadLetter::encode(out, &letter.head, &letter.body));
        }
        append.put(BURIED, &fact);
    })
    .await;
    match appended {
        Ok(_) => {
            *buried = after;
            kept.extend(letters.iter().map(|letter| letter.offset));
        }
        Err(why) => {
            tracing::warn!(
                broker = %broker.name(), events = letters.len(),
                "refused events are dropped: the dead-letter journal does not take them: {why}"
            );
        }
    }
}

/// The event at an offset, as it is stored; none where it is not kept any more, or cannot be read.
async fn event_at(broker: &Broker, at: Offset) -> Option<(Epoch, Bytes)> {
    let items = broker.journal().reader(at).try_next(1).await.ok()?;
    items.into_iter().find_map(|item| match item {
        Item::Event { epoch, offset, body } if offset == at => Some((epoch, body)),
        _ => None,
    })
}
