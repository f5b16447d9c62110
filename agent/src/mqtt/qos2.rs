//! Open QoS 2 hand-shakes: what makes a publish that is sent again the same publish.
//!
//! A hand-shake opens with the event itself: the packet id is a fact that rides in the event's own append, so the two are
//! durable together or not at all. It closes with PUBREL, which removes the fact, durably, before PUBCOMP leaves. So after a
//! crash at any instant a publish that is sent again either meets its fact (the event is there) or meets nothing (it is not).
//! Sessions that end with their connection need no facts: nothing of theirs outlives it.
//!
//! **What CONNACK says after a restart.** Subscriptions do not outlive the process yet. A session that had some is gone with them,
//! and Session Present must be 0 (3.1.1, 3.2.2.2; 5.0, 3.2.2.1.1), or the client would wait for messages that nobody sends. A
//! session that never had any is all there: Session Present is 1, and nothing below matters to it. So that the two can be told
//! apart, the first SUBSCRIBE of a session that outlives its connection writes a fact of its own, durable before SUBACK.
//!
//! To a client, Session Present 0 means one of two things for the publishes it has open. The standards tell it to forget them: then
//! it may give their packet ids to other events. Yet clients there are, of 3.1.1 above all, that send them again. What is left here
//! of such a session, its *remnant*, serves both:
//!
//! - PUBREL ends the hand-shake, known or not: the event was stored before PUBREC.
//! - PUBLISH with DUP is the same event sent again, since a client that has forgotten sends nothing again (3.3.1.1): PUBREC only, so
//!   it is not doubled.
//! - PUBLISH without DUP is another event, since one sent again must say so: it is stored and takes the hand-shake's place, so it
//!   is not lost. What it replaces was stored long ago, and its client has forgotten it.
//!
//! Session Present stays 0 while hand-shakes of the remnant are open: a client that forgets does so each time, and cannot come back
//! with DUP for something that was never here; a client that does not means by DUP what is here. Who sends again does it
//! at once (4.4); what a connection of a minute has not asked for is forgotten at its end, and the session is like any other.

use std::collections::{BTreeMap, HashMap};

use godwit_mesh::journal::{Journal, Receipt, Refused};
use tracing::debug;

/// First byte of the keys of these facts in a journal.
const SPACE: u8 = b'q';
/// First byte of the keys of the facts that say that a session has subscriptions.
const NOTES: u8 = b'n';
/// Version of the fact's value.
const VALUE_VERSION: u8 = 1;

/// One open hand-shake.
#[derive(Debug)]
pub(super) struct Open {
    /// Where its fact is; `None` where there is none.
    pub(super) fact_in: Option<Journal>,
    /// PUBREL has come, and the fact's removal is on its way to the disk.
    pub(super) releasing: bool,
    /// It is of a remnant, and the client has not asked for it since.
    pub(super) left_over: bool,
}

impl Open {
    /// A hand-shake that begins now.
    pub(super) const fn new(fact_in: Option<Journal>) -> Self {
        Self { fact_in, releasing: false, left_over: false }
    }
}

/// The open hand-shakes of one client, by packet id.
pub(super) type Handshakes = BTreeMap<u16, Open>;

/// The key of a fact: `q`, client id, 0 (which no client id holds), packet id in network order.
pub(super) fn key(out: &mut Vec<u8>, client_id: &str, packet_id: u16) {
    out.clear();
    out.push(SPACE);
    out.extend_from_slice(client_id.as_bytes());
    out.push(0);
    out.extend_from_slice(&packet_id.to_be_bytes());
}

/// The key of the fact that says that a session has subscriptions.
pub(super) fn note_key(client_id: &str) -> Vec<u8> {
    [&[NOTES], client_id.as_bytes()].concat()
}

/// The value of a fact: how many seconds the session outlives its connection.
pub(super) fn value(session_expiry_seconds: u32) -> [u8; 5] {
    let [a, b, c, d] = session_expiry_seconds.to_le_bytes();
    [VALUE_VERSION, a, b, c, d]
}

fn parse(key: &[u8], value: &[u8]) -> Option<(String, u16, u32)> {
    let (&SPACE, rest) = key.split_first()? else { return None };
    let (rest, packet_id) = rest.split_last_chunk::<2>()?;
    let (&0, client_id) = rest.split_last()? else { return None };
    let client_id = std::str::from_utf8(client_id).ok()?.to_owned();
    let (&VALUE_VERSION, expiry) = value.split_first()? else { return None };
    Some((client_id, u16::from_be_bytes(*packet_id), u32::from_le_bytes(expiry.try_into().ok()?)))
}

/// What the journals know of one client.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) handshakes: Handshakes,
    pub(super) session_expiry_seconds: u32,
    /// It had subscriptions.
    pub(super) noted_in: Option<Journal>,
}

/// All hand-shakes that were open when the agent last stopped, by client id.
pub(super) fn load(journals: impl Iterator<Item = Journal> + Clone) -> HashMap<String, Known> {
    let mut clients: HashMap<String, Known> = HashMap::new();
    for journal in journals.clone() {
        for (key, value) in journal.facts(&[SPACE]) {
            let Some((client_id, packet_id, expiry)) = parse(&key, &value) else { continue };
            let known = clients.entry(client_id).or_default();
            known.session_expiry_seconds = known.session_expiry_seconds.max(expiry);
            known.handshakes.insert(packet_id, Open::new(Some(journal.clone())));
        }
    }
    for journal in journals {
        for (key, _) in journal.facts(&[NOTES]) {
            let client_id = key.get(1..).and_then(|id| std::str::from_utf8(id).ok());
            if let Some(known) = client_id.and_then(|id| clients.get_mut(id)) {
                known.handshakes.values_mut().for_each(|open| open.left_over = true);
                known.noted_in = Some(journal.clone());
            } else if journal.append(|append| append.delete(&key)).is_err() {
                // Nothing is left of the session, and the note of it is met again at the next start.
                debug!("the note of a session that is gone stays in the journal for now");
            }
        }
    }
    clients
}

/// Removes the facts of hand-shakes. Their receipts say when that is durable.
///
/// # Errors
/// The first refusal; what was refused stays.
pub(super) fn forget<'a>(
    client_id: &str,
    handshakes: impl Iterator<Item = (&'a u16, &'a Open)>,
) -> Result<Vec<Receipt>, Refused> {
    let mut scratch = Vec::new();
    let mut receipts = Vec::new();
    for (packet_id, open) in handshakes {
        if let Some(journal) = &open.fact_in {
            key(&mut scratch, client_id, *packet_id);
            receipts.push(journal.append(|append| append.delete(&scratch))?);
        }
    }
    Ok(receipts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_and_value_are_read_back_and_others_are_left_alone() {
        let mut out = Vec::new();
        for (client, id) in [("drone-7", 1), ("", 65535), ("a/b ü", 256)] {
            key(&mut out, client, id);
            assert_eq!(parse(&out, &value(604_800)), Some((client.to_owned(), id, 604_800)));
        }
        assert_eq!(parse(b"q", &value(1)), None);
        assert_eq!(parse(b"pdrone\0\0\x01", &value(1)), None);
        assert_eq!(parse(b"qdrone\0\0\x01", b"\x02\0\0\0\0"), None);
    }
}
