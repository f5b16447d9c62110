//! Live fan-out: a message that goes to subscribers, what waits for one of them, and what is on its way to it.
//!
//! A subscriber gets the publish unaltered: topic, payload, properties in order. What waits is bounded in number and bytes for
//! each subscriber; a further message is dropped and counted, and nobody else waits. Nothing here survives the connection: the
//! persistent session, which reads the journal instead, is to take this queue's place.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::limits::Limits;
use super::packet::Version;
use super::packet::properties::{IN_PUBLISH, Value, Walk, id};
use super::packet::publish::{Outgoing, Publish};

/// A publish on its way to subscribers.
#[derive(Debug)]
pub(super) struct Message {
    topic: Box<str>,
    payload: Box<[u8]>,
    /// Raw, in order, without the topic alias.
    properties: Box<[u8]>,
    pub(super) qos: u8,
    pub(super) retain: bool,
    /// Where in `properties` the message expiry interval's four bytes stand, its seconds, and when it came.
    expiry: Option<(usize, u32, u64)>,
}

impl Message {
    /// A message from a publish. `now_ms` is the clock's elapsed time.
    pub(super) fn new(publish: &Publish<'_>, topic: &str, properties: &[u8], now_ms: u64) -> Self {
        Self::from_parts(topic, publish.payload, properties, publish.qos, publish.retain, now_ms)
    }

    /// A message from its parts; `properties` are well-formed.
    pub(super) fn from_parts(topic: &str, payload: &[u8], properties: &[u8], qos: u8, retain: bool, now_ms: u64) -> Self {
        let mut at = 0;
        let mut expiry = None;
        for property in Walk::new(properties, IN_PUBLISH).flatten() {
            if let (id::MESSAGE_EXPIRY, Value::Four(seconds)) = (property.id, property.value) {
                expiry = Some((at + 1, seconds, now_ms));
            }
            at += property.raw.len();
        }
        Self { topic: topic.into(), payload: payload.into(), properties: properties.into(), qos, retain, expiry }
    }

    /// The topic name.
    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.len()
    }
}

/// A message for one subscriber.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) message: Arc<Message>,
    /// The lower of the publish's and the subscription's.
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) subscription_ids: Box<[u32]>,
}

/// What waits for one subscriber.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Delivery>,
    bytes: usize,
}

impl Queue {
    /// Adds a delivery, or says that there is no room for it.
    pub(super) fn push(&mut self, delivery: Delivery, limits: &Limits) -> bool {
        let bytes = delivery.message.bytes();
        let full = self.waiting.len() >= limits.max_queued_messages
            || (!self.waiting.is_empty() && self.bytes + bytes > limits.max_queued_bytes);
        if full {
            return false;
        }
        self.bytes += bytes;
        self.waiting.push_back(delivery);
        true
    }

    /// Takes the next delivery, if `may` agrees to it.
    pub(super) fn pop(&mut self, may: impl FnOnce(&Delivery) -> bool) -> Option<Delivery> {
        if !self.waiting.front().is_some_and(may) {
            return None;
        }
        let delivery = self.waiting.pop_front()?;
        self.bytes -= delivery.message.bytes();
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some(delivery)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

/// How far a delivery of QoS 1 or 2 has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// PUBACK is awaited.
    Puback,
    /// PUBREC is awaited.
    Pubrec,
    /// PUBCOMP is awaited.
    Pubcomp,
}

/// Deliveries of QoS 1 and 2 that one subscriber has not acknowledged yet.
#[derive(Debug)]
pub(super) struct InFlight {
    open: BTreeMap<u16, Stage>,
    last_id: u16,
    window: usize,
}

impl InFlight {
    /// None yet; at most `window` at once.
    pub(super) fn new(window: u16) -> Self {
        Self { open: BTreeMap::new(), last_id: 0, window: usize::from(window) }
    }

    /// Whether another delivery of `qos` may leave.
    pub(super) fn may_send(&self, qos: u8) -> bool {
        qos == 0 || self.open.len() < self.window
    }

    fn take_id(&mut self, qos: u8) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            // The window is smaller than the number of ids, so one is free.
            if let std::collections::btree_map::Entry::Vacant(free) = self.open.entry(self.last_id) {
                free.insert(if qos == 1 { Stage::Puback } else { Stage::Pubrec });
                return self.last_id;
            }
        }
    }

    /// PUBACK has come.
    pub(super) fn acknowledged(&mut self, packet_id: u16) {
        if self.open.get(&packet_id) == Some(&Stage::Puback) {
            self.open.remove(&packet_id);
        }
    }

    /// PUBREC has come; `refused` if with an error. Answers whether PUBREL shall say that the id is known, or `None` for no
    /// PUBREL at all.
    pub(super) fn received(&mut self, packet_id: u16, refused: bool) -> Option<bool> {
        match self.open.get_mut(&packet_id) {
            Some(stage @ (Stage::Pubrec | Stage::Pubcomp)) if !refused => {
                *stage = Stage::Pubcomp;
                Some(true)
            }
            Some(Stage::Pubrec) => {
                self.open.remove(&packet_id);
                None
            }
            _ if refused => None,
            _ => Some(false),
        }
    }

    /// PUBCOMP has come.
    pub(super) fn completed(&mut self, packet_id: u16) {
        if self.open.get(&packet_id) == Some(&Stage::Pubcomp) {
            self.open.remove(&packet_id);
        }
    }

    /// Writes `delivery`, unless it has expired or is larger than the subscriber takes.
    pub(super) fn send(
        &mut self,
        out: &mut Vec<u8>,
        delivery: &Delivery,
        version: Version,
        max_packet_bytes: u32,
        now_ms: u64,
    ) -> bool {
        let message = &delivery.message;
        let mut aged: Box<[u8]> = Box::default();
        let mut properties = &*message.properties;
        if let Some((at, seconds, since_ms)) = message.expiry {
            let waited = u32::try_from(now_ms.saturating_sub(since_ms) / 1000).unwrap_or(u32::MAX);
            if waited >= seconds && waited > 0 {
                return false;
            }
            if waited > 0 {
                aged = properties.into();
                if let Some(bytes) = aged.get_mut(at..at + 4) {
                    bytes.copy_from_slice(&(seconds - waited).to_be_bytes());
                }
            }
        }
        if !aged.is_empty() {
            properties = &aged;
        }
        let mut outgoing = Outgoing {
            topic: &message.topic,
            qos: delivery.qos,
            retain: delivery.retain,
            packet_id: 0,
            properties,
            subscription_ids: &delivery.subscription_ids,
            payload: &message.payload,
        };
        if outgoing.len(version) > max_packet_bytes as usize {
            return false;
        }
        if delivery.qos > 0 {
            outgoing.packet_id = self.take_id(delivery.qos);
        }
        outgoing.write(out, version);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(qos: u8, properties: &[u8]) -> Delivery {
        let message = Arc::new(Message::from_parts("t", b"payload", properties, qos, false, 1000));
        Delivery { message, qos, retain: false, subscription_ids: Box::default() }
    }

    #[test]
    fn a_full_queue_takes_no_more_and_gives_in_order() {
        let limits = Limits { max_queued_messages: 2, ..Limits::default() };
        let mut queue = Queue::default();
        assert!(queue.push(delivery(0, b""), &limits));
        assert!(queue.push(delivery(1, b""), &limits));
        assert!(!queue.push(delivery(0, b""), &limits));
        assert_eq!(queue.pop(|d| d.qos == 0).map(|d| d.qos), Some(0));
        assert!(queue.pop(|d| d.qos == 0).is_none());
        assert_eq!(queue.pop(|_| true).map(|d| d.qos), Some(1));
        assert!(queue.is_empty() && queue.bytes == 0);
    }

    #[test]
    fn a_message_larger_than_the_whole_queue_still_passes_an_empty_one() {
        let limits = Limits { max_queued_bytes: 3, ..Limits::default() };
        let mut queue = Queue::default();
        assert!(queue.push(delivery(0, b""), &limits));
        assert!(!queue.push(delivery(0, b""), &limits));
    }

    #[test]
    fn the_window_closes_and_opens_with_acknowledgements() {
        let mut flight = InFlight::new(2);
        let mut out = Vec::new();
        for qos in [1, 2] {
            assert!(flight.may_send(qos));
            assert!(flight.send(&mut out, &delivery(qos, b""), Version::V4, u32::MAX, 1000));
        }
        assert!(!flight.may_send(1) && flight.may_send(0));
        flight.acknowledged(2);
        assert!(!flight.may_send(1), "a PUBACK does not end a QoS 2 delivery");
        flight.acknowledged(1);
        assert!(flight.may_send(1));
        assert_eq!(flight.received(2, false), Some(true));
        assert_eq!(flight.received(9, false), Some(false));
        flight.completed(2);
        assert!(flight.open.is_empty());
    }

    #[test]
    fn the_message_expiry_interval_shrinks_by_the_time_waited() {
        let mut flight = InFlight::new(2);
        let properties = b"\x01\x01\x02\0\0\0\x05";
        let mut out = Vec::new();
        assert!(flight.send(&mut out, &delivery(0, properties), Version::V5, u32::MAX, 3500));
        assert!(out.windows(7).any(|w| w == b"\x01\x01\x02\0\0\0\x03"), "{out:?}");
        assert!(!flight.send(&mut out, &delivery(0, properties), Version::V5, u32::MAX, 6000));
        assert!(!flight.send(&mut out, &delivery(0, b""), Version::V5, 8, 1000), "larger than the subscriber takes");
    }
}
