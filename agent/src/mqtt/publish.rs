//! From PUBLISH packets to the journal, and from the journal's receipts to acknowledgements.
//!
//! All publishes of one read that go to the same journal are one append ([`super::append`]). What it needs is checked before, so
//! that nothing has happened yet when the journal says that it is busy: the bytes then stay where they are and are looked at
//! again.
//!
//! Invariants: an acknowledgement leaves only after its receipt said "durable"; acknowledgements leave in the order in which the
//! packets came; a QoS 2 packet id is in `handshakes` from its append until its PUBREL is durable.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use godwit_mesh::broker::Claim;
use godwit_mesh::journal::{Journal, Refused};
use rumqttd::protocol::Packet;

use super::acks::{Ack, AckKind, Acks, Outcome, Run};
use super::answer::{write_ack, write_refusal};
use super::duplicates::Undecided;
use super::fanout::Message;
use super::hub::Hub;
use super::packet::frame::{Frame, kind};
use super::packet::publish::Publish;
use super::packet::{Fault, Version, control, reason};
use super::qos2::{self, Handshakes, Open};
use super::rate::Rate;
use super::routes::Table;
use super::session::Session;
use super::trace;

/// Why no more of what has come can be looked at now.
#[derive(Debug)]
pub(super) enum Hold {
    /// The journal has too much to write: wait for room.
    Room(Journal),
    /// Earlier publishes were refused and are to be tried again: nothing may overtake them.
    Refused,
    /// It cannot be said yet which of them their Broker has had already.
    Undecided(Undecided),
    /// The client's publish rate is used up for so many milliseconds.
    Rate(u64),
}

/// Where [`Inbound::take`] stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The rest is no whole packet.
    End,
    /// The next packet is not a publish's.
    Other,
    /// Not now.
    Held(Hold),
    /// The peer broke a rule.
    Fault(Fault),
}

/// What [`Inbound::settle`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// All that is known has been written.
    Done,
    /// The journal refused the oldest publishes of a 3.1.1 client, who cannot be told: try them again later.
    TryAgain,
}

/// A topic name: in the packet, or remembered for an alias.
#[derive(Debug)]
pub(super) enum Topic<'a> {
    InPacket(&'a str),
    Remembered(Arc<str>),
}

impl Topic<'_> {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::InPacket(name) => name,
            Self::Remembered(name) => name,
        }
    }
}

/// A list of more publishes than this is not kept for the next read.
const KEEP_PUBLISHES: usize = 256;

thread_local! {
    /// For [`Batch::publishes`]; empty between two reads.
    static PUBLISHES: Cell<Vec<(Publish<'static>, Topic<'static>)>> = const { Cell::new(Vec::new()) };
}

/// Publishes of one read that go one way.
#[derive(Debug)]
struct Batch<'a> {
    table: Arc<Table>,
    route: usize,
    publishes: Vec<(Publish<'a>, Topic<'a>)>,
    /// How many of them want an acknowledgement.
    wanting: usize,
    /// Where its first packet begins and its last one ends.
    start: usize,
    end: usize,
}

/// A connection's publishing side.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) version: Version,
    /// Whether the session outlives the connection, and how long at most: then hand-shakes are kept in the journal.
    pub(super) expiry_seconds: u32,
    pub(super) acks: Acks,
    pub(super) handshakes: Handshakes,
    aliases: HashMap<u16, Arc<str>>,
    rate: Option<Box<Rate>>,
}

impl Inbound {
    pub(super) fn new(version: Version, expiry_seconds: u32, handshakes: Handshakes, rate: Option<Rate>) -> Self {
        Self {
            version,
            expiry_seconds,
            acks: Acks::default(),
            handshakes,
            aliases: HashMap::new(),
            rate: rate.map(Box::new),
        }
    }

    /// Whether everything that was appended has been settled.
    pub(super) fn is_settled(&self) -> bool {
        self.acks.is_empty()
    }

    /// Looks at the packets at the head of `bytes` as long as they are PUBLISH or PUBREL. Answers how many bytes are done with.
    pub(super) fn take(&mut self, hub: &Hub, session: &Arc<Session>, bytes: &[u8]) -> (usize, Stop) {
        let table = hub.routes.now();
        let mut batch = Batch { table, route: 0, publishes: PUBLISHES.take(), wanting: 0, start: 0, end: 0 };
        let mut at = 0;
        let stop = loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let frame = match Frame::next(rest, hub.limits.max_packet_bytes) {
                Ok(Some(frame)) => frame,
                Ok(None) => break Stop::End,
                Err(fault) => break Stop::Fault(fault),
            };
            let taken = match frame.kind() {
                kind::PUBLISH => self.take_publish(hub, session, bytes, at, &frame, &mut batch),
                kind::PUBREL => match self.flush(hub, session, bytes, &mut batch) {
                    Ok(()) => self.take_pubrel(session, &frame),
                    Err(hold) => Err(Stop::Held(hold)),
                },
                _ => break Stop::Other,
            };
            match taken {
                Ok(()) => at += frame.whole.len(),
                Err(stop) => break stop,
            }
        };
        let start = if batch.publishes.is_empty() { at } else { batch.start };
        let flushed = self.flush(hub, session, bytes, &mut batch);
        give_back(batch.publishes);
        match flushed {
            Ok(()) => (at, stop),
            // Whatever stopped us stands behind the batch and will be met again.
            Err(hold) => (start, Stop::Held(hold)),
        }
    }

    fn take_publish<'a>(
        &mut self,
        hub: &Hub,
        session: &Arc<Session>,
        bytes: &'a [u8],
        at: usize,
        frame: &Frame<'a>,
        batch: &mut Batch<'a>,
    ) -> Result<(), Stop> {
        let publish = Publish::read(frame, self.version, &hub.limits).map_err(Stop::Fault)?;
        if let Some(rate) = &mut self.rate
            && let Some(wait_ms) = rate.wait_ms(batch.publishes.len(), hub.clock.elapsed_ms())
        {
            return Err(Stop::Held(Hold::Rate(wait_ms)));
        }
        if publish.qos == 2 {
            let in_batch = batch.publishes.iter().any(|(p, _)| p.qos == 2 && p.packet_id == publish.packet_id);
            if in_batch {
                self.flush(hub, session, bytes, batch).map_err(Stop::Held)?;
            }
            let known = self.handshakes.get(&publish.packet_id).filter(|open| !open.releasing);
            // Of a remnant, only what says that it is sent again is the same publish (see `qos2`).
            if known.is_some_and(|open| !open.left_over || publish.dup) {
                self.flush(hub, session, bytes, batch).map_err(Stop::Held)?;
                if let Some(open) = self.handshakes.get_mut(&publish.packet_id) {
                    open.left_over = false;
                }
                hub.counters.duplicates.add(1);
                self.acks.push_known(Ack::new(publish.packet_id, AckKind::PubrecAgain));
                return Ok(());
            }
        }
        let open = self.handshakes.len() + batch.wanting;
        let maximum = usize::from(hub.limits.receive_maximum);
        let exceeded = match (publish.qos, self.version) {
            (0, _) => false,
            (_, Version::V5) => open + self.acks.open_qos1() >= maximum,
            // 3.1.1 has no flow control; only what we must remember for the client is bounded.
            (qos, Version::V4) => qos == 2 && self.handshakes.len() >= maximum,
        };
        if exceeded {
            let fault =
                Fault::new(reason::RECEIVE_MAXIMUM_EXCEEDED, "more unacknowledged publishes than this listener takes");
            return Err(Stop::Fault(fault));
        }
        let topic = self.topic(hub, session, bytes, &publish, batch)?;
        let route = if topic.name().starts_with('$') { None } else { batch.table.of(topic.name()).map(|(index, _)| index) };
        let Some(route) = route else {
            self.flush(hub, session, bytes, batch).map_err(Stop::Held)?;
            self.unstored(hub, &publish, topic.name());
            return Ok(());
        };
        if !batch.publishes.is_empty() && batch.route != route {
            self.flush(hub, session, bytes, batch).map_err(Stop::Held)?;
        }
        if batch.publishes.is_empty() {
            batch.route = route;
            batch.start = at;
        }
        batch.wanting += usize::from(publish.qos > 0);
        batch.end = at + frame.whole.len();
        batch.publishes.push((publish, topic));
        Ok(())
    }

    /// The topic's name, with topic aliases (5.0, 3.3.2.3.4).
    fn topic<'a>(
        &mut self,
        hub: &Hub,
        session: &Arc<Session>,
        bytes: &'a [u8],
        publish: &Publish<'a>,
        batch: &mut Batch<'a>,
    ) -> Result<Topic<'a>, Stop> {
        let Some(alias) = publish.alias else { return Ok(Topic::InPacket(publish.topic)) };
        if alias > hub.limits.topic_alias_maximum {
            let fault = Fault::new(reason::TOPIC_ALIAS_INVALID, "a topic alias above the announced maximum");
            return Err(Stop::Fault(fault));
        }
        let known = self.aliases.get(&alias);
        if publish.topic.is_empty() {
            let name = known.cloned().ok_or(Stop::Fault(Fault::protocol("a topic alias that was not set")))?;
            return Ok(Topic::Remembered(name));
        }
        if known.is_none_or(|known| **known != *publish.topic) {
            // If the batch were held and looked at again, its packets must find the aliases as they were.
            self.flush(hub, session, bytes, batch).map_err(Stop::Held)?;
            let others = self.aliases.iter().filter(|(held, _)| **held != alias).map(|(_, name)| name.len());
            if others.sum::<usize>() + publish.topic.len() > hub.limits.max_alias_bytes {
                let fault = Fault::new(reason::QUOTA_EXCEEDED, "topic aliases for too many bytes of topic names");
                return Err(Stop::Fault(fault));
            }
            self.aliases.insert(alias, publish.topic.into());
        }
        Ok(Topic::InPacket(publish.topic))
    }

    /// A publish that goes into no journal: its topic begins with `$` (dropped), or no mapping wants it (live only).
    fn unstored(&mut self, hub: &Hub, publish: &Publish<'_>, topic: &str) {
        hub.count_publish(publish);
        let mut code = reason::SUCCESS;
        let mut messages = Vec::new();
        if topic.starts_with('$') {
            hub.counters.refused_topic.add(1);
            code = reason::TOPIC_NAME_INVALID;
        } else {
            hub.counters.unrouted.add(1);
            messages.extend(message_for_subscribers(hub, publish, topic));
            if messages.is_empty() {
                code = reason::NO_MATCHING_SUBSCRIBERS;
            }
        }
        if publish.qos == 2 && (self.version == Version::V4 || code < 0x80) {
            self.handshakes.insert(publish.packet_id, Open::new(None));
        }
        let ack = wanted(publish).map(|ack| Ack { reason: code, ..ack });
        let mut run = Run::plain(Outcome::Known(Ok(())), usize::from(ack.is_some()));
        run.messages = messages;
        if ack.is_some() || !run.messages.is_empty() {
            self.acks.push(run, &[], ack.into_iter());
        }
    }

    /// Appends the batch.
    fn flush(&mut self, hub: &Hub, session: &Arc<Session>, bytes: &[u8], batch: &mut Batch<'_>) -> Result<(), Hold> {
        if batch.publishes.is_empty() {
            return Ok(());
        }
        let Some(route) = batch.table.route(batch.route) else { return Ok(()) };
        let journal = &route.journal;
        if self.must_wait() {
            return Err(Hold::Refused);
        }
        let before = if self.version == Version::V4 { self.acks.last_receipt() } else { None };
        let claim = self.claim(hub, session, route, &batch.publishes).map_err(Hold::Undecided)?;
        let outcome = match self.append(hub, session, route, before, &batch.publishes, claim.as_deref()) {
            Ok(outcome) => outcome,
            Err(Refused::Busy) => return Err(Hold::Room(journal.clone())),
            Err(refused) => Outcome::Known(Err(refused)),
        };
        let mut run = Run::plain(outcome, batch.wanting);
        let mut packets: &[u8] = &[];
        if self.version == Version::V4 && batch.wanting > 0 {
            packets = bytes.get(batch.start..batch.end).unwrap_or_default();
        }
        if !packets.is_empty() || route.mapping.is_some() {
            run.route = Some(route.clone());
            let stored = |claim: &Claim| claim.wanted.iter().filter(|wanted| **wanted).count();
            run.publishes = claim.as_deref().map_or(batch.publishes.len(), stored) as u64;
        }
        run.claim = claim;
        let (has_subscribers, traced) = (hub.has_subscribers(), hub.spans.is_on());
        for (publish, topic) in &batch.publishes {
            hub.count_publish(publish);
            if publish.qos == 2 {
                let fact_in = (self.expiry_seconds > 0).then(|| journal.clone());
                let replaced = self.handshakes.insert(publish.packet_id, Open::new(fact_in));
                // In the same journal the new fact has taken the old one's place.
                if let Some(old) = replaced.and_then(|open| open.fact_in).filter(|old| !old.is(journal)) {
                    let mut key = Vec::new();
                    qos2::key(&mut key, &session.client_id, publish.packet_id);
                    // Refused: it is left over once more after the next start.
                    let _ = old.append(|append| append.delete(&key));
                }
            }
            if traced {
                let mut without_alias = Vec::new();
                let record = self.record(session, publish, topic, &mut without_alias);
                run.spans.extend(trace::begin(&hub.spans, route, &record));
            }
            if has_subscribers {
                run.messages.extend(message_for_subscribers(hub, publish, topic.name()));
            }
        }
        if let Some(rate) = &mut self.rate {
            rate.spend(batch.publishes.len());
        }
        self.acks.push(run, packets, batch.publishes.iter().filter_map(|(publish, _)| wanted(publish)));
        batch.publishes.clear();
        batch.wanting = 0;
        Ok(())
    }

    /// PUBREL: the hand-shake ends, durably before PUBCOMP says so.
    fn take_pubrel(&mut self, session: &Session, frame: &Frame<'_>) -> Result<(), Stop> {
        let Packet::PubRel(pubrel, _) = control::decode(frame, self.version).map_err(Stop::Fault)? else {
            return Err(Stop::Fault(Fault::malformed("PUBREL")));
        };
        let Some(open) = self.handshakes.get_mut(&pubrel.pkid) else {
            self.acks.push_known(Ack::new(pubrel.pkid, AckKind::PubcompUnknown));
            return Ok(());
        };
        let ack = Ack::new(pubrel.pkid, AckKind::Pubcomp);
        let Some(journal) = open.fact_in.as_ref().filter(|_| !open.releasing) else {
            open.releasing = true;
            self.acks.push_known(ack);
            return Ok(());
        };
        let mut key = Vec::new();
        qos2::key(&mut key, &session.client_id, pubrel.pkid);
        let outcome = match journal.append(|append| append.delete(&key)) {
            Ok(receipt) => Outcome::Receipt(receipt),
            Err(Refused::Busy) => return Err(Stop::Held(Hold::Room(journal.clone()))),
            Err(refused) => Outcome::Known(Err(refused)),
        };
        open.releasing = true;
        self.acks.push(Run::plain(outcome, 1), &[], std::iter::once(ack));
        Ok(())
    }

    /// Writes the acknowledgements that are due, and gives what became durable to live subscribers.
    ///
    /// # Errors
    /// When the client cannot be told of a refusal in any other way than by closing.
    pub(super) fn settle(
        &mut self,
        cx: &mut Context<'_>,
        hub: &Hub,
        session: &Arc<Session>,
        out: &mut Vec<u8>,
    ) -> Result<Settled, Fault> {
        while let Poll::Ready(Some(outcome)) = self.acks.poll_head(cx) {
            let refused = outcome.err();
            if self.version == Version::V4 && self.acks.run(0).is_some_and(Run::is_to_be_tried_again) {
                self.acks.release_refused();
                return Ok(Settled::TryAgain);
            }
            if let Some(run) = self.pop(hub, refused.as_ref(), out)? {
                if let Some(mapping) = run.route.as_ref().and_then(|route| route.mapping.as_ref()) {
                    mapping.stored(run.publishes);
                }
                hub.dispatch(session, run.messages);
                if let Some(claim) = run.claim {
                    claim.stored(&hub.clock);
                }
            }
        }
        Ok(Settled::Done)
    }

    /// Takes the head of the queue and writes its acknowledgements. Answers the run if it was stored.
    fn pop(&mut self, hub: &Hub, refused: Option<&Refused>, out: &mut Vec<u8>) -> Result<Option<Run>, Fault> {
        let (version, handshakes) = (self.version, &mut self.handshakes);
        let mut fault = None;
        let run = self.acks.pop(|ack| {
            if let Some(refused) = refused {
                if let Err(found) = write_refusal(out, version, handshakes, ack, refused) {
                    fault.get_or_insert(found);
                }
                return;
            }
            if ack.kind == AckKind::Pubcomp && handshakes.get(&ack.packet_id).is_some_and(|open| open.releasing) {
                handshakes.remove(&ack.packet_id);
            }
            write_ack(out, version, ack);
        });
        if let Some(refused) = refused {
            hub.count_refusal(refused, run.as_ref().map_or(0, |run| run.count.max(1)));
        }
        match fault {
            Some(fault) => Err(fault),
            None => Ok(run.filter(|_| refused.is_none())),
        }
    }

    /// Whether earlier publishes were refused and must be stored first.
    pub(super) fn must_wait(&self) -> bool {
        self.version == Version::V4 && self.acks.runs().any(Run::is_to_be_tried_again)
    }

    /// Gives up on the refused run at the head: the client has gone, and what was not acknowledged it will send again.
    pub(super) fn give_up_head(&mut self) {
        let handshakes = &mut self.handshakes;
        self.acks.pop(|ack| {
            if ack.kind == AckKind::Pubrec {
                handshakes.remove(&ack.packet_id);
            }
        });
    }
}

/// Keeps the list for the next read.
fn give_back(mut publishes: Vec<(Publish<'_>, Topic<'_>)>) {
    publishes.clear();
    if publishes.capacity() <= KEEP_PUBLISHES {
        // The same memory, as a list of what borrows from other bytes: there is nothing in it.
        PUBLISHES.set(publishes.into_iter().map(|_| unreachable!("the list is empty")).collect());
    }
}

/// The acknowledgement that a publish wants.
fn wanted(publish: &Publish<'_>) -> Option<Ack> {
    match publish.qos {
        1 => Some(Ack::new(publish.packet_id, AckKind::Puback)),
        2 => Some(Ack::new(publish.packet_id, AckKind::Pubrec)),
        _ => None,
    }
}

fn message_for_subscribers(hub: &Hub, publish: &Publish<'_>, topic: &str) -> Option<Arc<Message>> {
    if !hub.has_subscriber_of(topic) {
        return None;
    }
    let mut scratch = Vec::new();
    let properties = publish.lasting_properties(&mut scratch);
    Some(Arc::new(Message::new(publish, topic, properties, hub.clock.elapsed_ms())))
}
