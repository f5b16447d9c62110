//! Where the fields of a stored body stand, and taking the body apart and together again.

use std::ops::Range;

use super::StoredError;
use super::publish::MqttPublish;
use super::wire::{Fields, text};

pub(super) const KIND: u8 = 0b111;
pub(super) const EVENT: u8 = 0;
pub(super) const WRAPPED: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const STRUCTURED: u8 = 3;
pub(super) const MAPPED: u8 = 4;
pub(super) const ORIGIN: u8 = 7;
pub(super) const ARRIVAL: u8 = 1 << 3;
pub(super) const PACKET_ID: u8 = 1 << 4;
pub(super) const DETAIL_SHIFT: u8 = 5;
/// Of an event: there is data.
pub(super) const DATA: u8 = 1 << 5;
/// Of an event: there are headers.
pub(super) const HEADERS: u8 = 1 << 6;
const LATER: u8 = 1 << 7;

/// What is in the fields of a body without origin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fixed {
    pub(super) head: u8,
    pub(super) arrival_ms: Option<u64>,
    pub(super) packet_id: u16,
}

impl Fixed {
    fn take(fields: &mut Fields<'_>) -> Result<Self, StoredError> {
        let head = fields.u8()?;
        if head & LATER != 0 || head & KIND > MAPPED || (head & KIND == EVENT && head & PACKET_ID != 0) {
            return Err(StoredError::Head(head));
        }
        let arrival_ms = if head & ARRIVAL == 0 {
            None
        } else {
            let [a, b, c, d, e, f] = fields.array()?;
            Some(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
        };
        let packet_id = if head & PACKET_ID == 0 { 0 } else { u16::from_le_bytes(fields.array()?) };
        if head & PACKET_ID != 0 && packet_id == 0 {
            return Err(StoredError::Malformed("packet id 0 is none"));
        }
        Ok(Self { head, arrival_ms, packet_id })
    }

    /// Appends the fixed fields; `head` brings kind and detail, the flags of what follows are set here.
    pub(super) fn put(self, out: &mut Vec<u8>) {
        let arrival = self.arrival_ms.filter(|ms| *ms < 1 << 48);
        let flags = if arrival.is_some() { ARRIVAL } else { 0 } | if self.packet_id != 0 { PACKET_ID } else { 0 };
        out.push(self.head & !(ARRIVAL | PACKET_ID) | flags);
        if let Some(ms) = arrival {
            let [a, b, c, d, e, f, ..] = ms.to_le_bytes();
            out.extend_from_slice(&[a, b, c, d, e, f]);
        }
        if self.packet_id != 0 {
            out.extend_from_slice(&self.packet_id.to_le_bytes());
        }
    }
}

/// Where the fields of a body are.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) fixed: Fixed,
    pub(super) origin: Option<(Range<usize>, u64, u64)>,
    /// The `meta` that only publishes have.
    pub(super) publish: Range<usize>,
    /// Attributes; of a structured publish the index, of a mapped one those that a mapping gave it.
    pub(super) attributes: Range<usize>,
    pub(super) headers: Range<usize>,
    /// Where the payload begins; it goes to the end.
    pub(super) payload: usize,
}

impl Layout {
    /// Finds the fields. Touches neither attributes nor payload.
    pub(super) fn of(body: &[u8]) -> Result<Self, StoredError> {
        let mut fields = Fields::new(body);
        let at = |fields: &Fields<'_>| body.len() - fields.rest.len();
        let mut origin = None;
        if body.first() == Some(&ORIGIN) {
            fields.u8()?;
            let agent = fields.bytes()?;
            text(agent)?;
            let agent = at(&fields) - agent.len()..at(&fields);
            origin = Some((agent, u64::from_le_bytes(fields.array()?), fields.varint()?));
        }
        let fixed = Fixed::take(&mut fields)?;
        let mut layout = Self { fixed, origin, publish: 0..0, attributes: 0..0, headers: 0..0, payload: body.len() };
        let section = |fields: &mut Fields<'_>| {
            let length = fields.bytes()?.len();
            Ok::<_, StoredError>(at(fields) - length..at(fields))
        };
        if fixed.head & KIND == EVENT {
            layout.attributes = section(&mut fields)?;
            if fixed.head & HEADERS != 0 {
                layout.headers = section(&mut fields)?;
            }
            if fixed.head & DATA == 0 && !fields.rest.is_empty() {
                return Err(StoredError::Malformed("there is data where none should be"));
            }
        } else {
            let start = at(&fields);
            MqttPublish::take(&mut fields, 0)?;
            layout.publish = start..at(&fields);
            if matches!(fixed.head & KIND, STRUCTURED | MAPPED) {
                layout.attributes = section(&mut fields)?;
            }
        }
        layout.payload = at(&fields);
        Ok(layout)
    }
}

/// A stored body without origin, taken apart for whoever sends many of them and wants what changes with every event (the
/// arrival, the packet id) apart from what repeats (`meta`: client id, topic, properties, attributes). What [`split`] took
/// apart, [`join`] makes again byte for byte. A field may be changed in between: without `packet_id`, which is of no meaning
/// beyond the agent, the body is a valid one too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split<'a> {
    /// Kind and details of the event, without the flags that say which of the following fields are there.
    pub head: u8,
    /// When the event arrived, in milliseconds since 1970; below 2^48.
    pub arrival_ms: Option<u64>,
    /// The packet id of the publish; 0 where there is none.
    pub packet_id: u16,
    /// All between these and the payload.
    pub meta: &'a [u8],
    /// The event's data or the payload of the publish.
    pub payload: &'a [u8],
}

/// Takes a stored body apart.
///
/// # Errors
/// When the body is malformed or has an origin.
pub fn split(body: &[u8]) -> Result<Split<'_>, StoredError> {
    let layout = Layout::of(body)?;
    if layout.origin.is_some() {
        return Err(StoredError::Malformed("it has an origin already"));
    }
    let Fixed { head, arrival_ms, packet_id } = layout.fixed;
    let start = 1 + if arrival_ms.is_some() { 6 } else { 0 } + if head & PACKET_ID != 0 { 2 } else { 0 };
    Ok(Split {
        head: head & !(ARRIVAL | PACKET_ID),
        arrival_ms,
        packet_id,
        meta: body.get(start..layout.payload).unwrap_or_default(),
        payload: body.get(layout.payload..).unwrap_or_default(),
    })
}

/// Appends the body that was taken apart. It is only as valid as its parts: of parts from a peer, look at the result with
/// [`super::StoredEvent::new`].
pub fn join(out: &mut Vec<u8>, parts: &Split<'_>) {
    out.reserve(9 + parts.meta.len() + parts.payload.len());
    Fixed { head: parts.head, arrival_ms: parts.arrival_ms, packet_id: parts.packet_id }.put(out);
    out.extend_from_slice(parts.meta);
    out.extend_from_slice(parts.payload);
}
