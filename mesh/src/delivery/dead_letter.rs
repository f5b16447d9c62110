//! Dead letters: what could not be delivered (D23, D24).
//!
//! An event goes to the dead letter sink with what went wrong in its attributes. Where there is no sink, or it does not take
//! the event, the Broker's dead-letter journal keeps it: the event's stored bytes as they were, behind a head that says which
//! Trigger failed on which event, and why.
//!
//! The journal's record is `1` (the version), the head's length as u32 LE, the head as JSON, the event's stored body. With it
//! goes a fact, `t` and the Trigger's uid: the last event that the Trigger put there, with its account so far. A crash after the
//! dead letter is durable and before the cursor is finds the fact and goes on behind that event: no dead letter is doubled.
//! The agent's uplink puts what the gateway refuses for good there too, with a fact of its own, `u`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::outcome::Failure;
use crate::event::{Event, EventError, Value};
use crate::journal::{Done, DropReason, Epoch, Offset};

const VERSION: u8 = 1;

/// Puts what went wrong into the event's attributes (D23).
pub(crate) fn mark(event: &mut Event, failure: &Failure) -> Result<(), EventError> {
    event.set("knativeerrordest", Value::String(failure.destination.clone()))?;
    event.set("knativeerrorcode", Value::Integer(i32::from(failure.code())))?;
    event.set("knativeerrordata", Value::String(STANDARD.encode(&failure.detail)))
}

/// What a dead-letter journal says about an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterHead {
    /// The Trigger, `namespace/name`; `uplink` where the gateway refused the event for good.
    pub trigger: String,
    /// The Trigger's uid; empty for the uplink.
    pub uid: String,
    /// The event's epoch in its Broker's journal, 16 hexadecimal digits.
    pub epoch: String,
    /// The event's offset in its Broker's journal.
    pub offset: u64,
    /// The URL that was tried last, without user name and password.
    pub destination: String,
    /// The status of the last attempt as in `knativeerrorcode`.
    pub code: u16,
    /// What went wrong, for people.
    pub message: String,
    /// The beginning of the answer, in base64, as in `knativeerrordata`.
    pub data: String,
    /// When it was put here, in milliseconds since 1970; none where no clock was valid.
    pub at_ms: Option<u64>,
}

/// One record of a dead-letter journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// What went wrong.
    pub head: DeadLetterHead,
    /// The event's stored form as it was in its Broker's journal.
    pub body: Bytes,
}

impl DeadLetterHead {
    /// The event's epoch, if it is one.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        u64::from_str_radix(&self.epoch, 16).ok().map(Epoch)
    }

    pub(crate) fn new(failure: &Failure) -> Self {
        Self {
            trigger: String::new(),
            uid: String::new(),
            epoch: String::new(),
            offset: 0,
            destination: failure.destination.clone(),
            code: failure.code(),
            message: failure.message.clone(),
            data: STANDARD.encode(&failure.detail),
            at_ms: None,
        }
    }
}

impl DeadLetter {
    /// Appends the record for an event with this stored form.
    ///
    /// # Panics
    /// Where a head has 4 GiB.
    pub fn encode(out: &mut Vec<u8>, head: &DeadLetterHead, body: &[u8]) {
        let json = serde_json::to_vec(head).expect("strings and numbers are JSON, and memory takes all writes");
        out.push(VERSION);
        out.extend_from_slice(&u32::try_from(json.len()).expect("a head has some KiB").to_le_bytes());
        out.extend_from_slice(&json);
        out.extend_from_slice(body);
    }

    /// Reads a record; none where it is not one that this version knows.
    #[must_use]
    pub fn decode(record: &Bytes) -> Option<Self> {
        let (version, rest) = record.split_first()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (json, _) = rest.split_at_checked(length)?;
        if *version != VERSION {
            return None;
        }
        Some(Self { head: serde_json::from_slice(json).ok()?, body: record.slice(1 + 4 + length..) })
    }
}

/// The fact that remembers the last dead letter of a Trigger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    epoch: u64,
    offset: u64,
    since: u64,
    delivered: u64,
    filtered: u64,
    dead_lettered: u64,
    dropped: Vec<(u8, u64)>,
}

impl Mark {
    pub(crate) fn key(uid: &str) -> Vec<u8> {
        format!("t{uid}").into_bytes()
    }

    /// The account `done` reaches from `since` to the event, the event included.
    pub(crate) fn new(epoch: Epoch, offset: Offset, since: Offset, done: &Done) -> Self {
        Self {
            epoch: epoch.0,
            offset: offset.0,
            since: since.0,
            delivered: done.delivered,
            filtered: done.filtered,
            dead_lettered: done.dead_lettered,
            dropped: done.dropped.iter().map(|(reason, n)| (*reason as u8, *n)).collect(),
        }
    }

    /// The offset of the event.
    pub(crate) fn offset(&self) -> Offset {
        Offset(self.offset)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers are JSON, and memory takes all writes")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// How a consumer that stands at `cursor` with the account `done` since `since` gets past the event: where to, and what to
    /// account for. None where the mark is of another past, or the consumer is past it already.
    pub(crate) fn catch_up(
        &self,
        epoch: Option<Epoch>,
        since: Offset,
        cursor: Offset,
        done: &Done,
    ) -> Option<(Offset, Done)> {
        let to = Offset(self.offset).plus(1);
        if epoch != Some(Epoch(self.epoch)) || since.0 != self.since || to <= cursor {
            return None;
        }
        let mut missing = Done {
            delivered: self.delivered.checked_sub(done.delivered)?,
            filtered: self.filtered.checked_sub(done.filtered)?,
            dead_lettered: self.dead_lettered.checked_sub(done.dead_lettered)?,
            ..Done::default()
        };
        for (code, n) in &self.dropped {
            let reason = DropReason::from_code(*code)?;
            let known = done.dropped.get(&reason).copied().unwrap_or(0);
            let more = n.checked_sub(known)?;
            if more > 0 {
                missing.dropped.insert(reason, more);
            }
        }
        (missing.total() == to.since(cursor)).then_some((to, missing))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::outcome::Cause;
    use super::*;

    #[test]
    fn d23_the_event_says_where_it_failed_with_which_status_and_answer() {
        let mut event = Event::builder().id("1").source("/s").ty("t").build().expect("valid");
        let failure = Failure::new(Cause::Status(503), "http://sink/", String::new(), vec![b'x'; 2000]);
        mark(&mut event, &failure).expect("valid");
        assert_eq!(event.get("knativeerrordest"), Some(&Value::String("http://sink/".to_owned())));
        assert_eq!(event.get("knativeerrorcode"), Some(&Value::Integer(503)));
        let data = event.get("knativeerrordata").and_then(Value::as_str).expect("text");
        assert_eq!(data.len(), 1024);
        assert_eq!(STANDARD.decode(data).expect("base64"), vec![b'x'; 768]);
    }

    #[test]
    fn a_record_is_read_back_with_the_event_as_it_was() {
        let failure = Failure::new(Cause::Status(400), "http://sink/", "no".to_owned(), b"no".to_vec());
        let mut head = DeadLetterHead::new(&failure);
        head.epoch = Epoch(7).to_string();
        let mut out = Vec::new();
        DeadLetter::encode(&mut out, &head, b"body");
        let read = DeadLetter::decode(&out.into()).expect("a record");
        assert_eq!(read.head, head);
        assert_eq!(read.head.epoch(), Some(Epoch(7)));
        assert_eq!(read.body, &b"body"[..]);
    }

    #[test]
    fn a_mark_leads_past_its_event_only_in_the_same_past() {
        let full = Done { delivered: 2, filtered: 5, dead_lettered: 1, ..Done::default() };
        let mark = Mark::new(Epoch(9), Offset(17), Offset(10), &full);
        let mark = Mark::decode(&mark.encode()).expect("read back");
        let known = Done { delivered: 2, filtered: 3, ..Done::default() };
        let catch_up =
            |epoch, since, cursor, done: &Done| mark.catch_up(Some(Epoch(epoch)), Offset(since), Offset(cursor), done);
        assert_eq!(
            catch_up(9, 10, 15, &known),
            Some((Offset(18), Done { filtered: 2, dead_lettered: 1, ..Done::default() }))
        );
        assert_eq!(catch_up(8, 10, 15, &known), None, "another epoch");
        assert_eq!(catch_up(9, 11, 15, &known), None, "the cursor was set back by hand");
        assert_eq!(catch_up(9, 10, 18, &full), None, "past it already");
        assert_eq!(catch_up(9, 10, 14, &known), None, "the account does not fit");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = DeadLetter::decode(&bytes.into());
        }
    }
}
