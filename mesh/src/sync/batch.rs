//! Batches: what the sender of a broker puts into events frames, and what the receiver takes out.
//!
//! A frame covers its range of offsets wholly, by events and skips. Both ends remember, per broker and stream, where the last
//! frame ended, so that a frame which simply goes on names neither epoch nor offset.

use std::collections::HashMap;

use super::SyncError;
use super::columns::{self, Bodies};
use super::frame::{Events, Frame};
use super::limits::{MAX_BROKERS, MAX_EVENTS, MAX_SKIPS};
use crate::event;
use crate::journal::{DropReason, Epoch, Item, Lineage, Offset};

/// Why an offset comes without its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SkipReason {
    /// The uplink does not want it.
    Filtered,
    /// It was dropped at the agent.
    Dropped(DropReason),
    /// For a reason that this version does not know.
    Other(u8),
}

impl SkipReason {
    /// The reason's number on the wire: 0 filtered, else the code of the drop reason.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Filtered => 0,
            Self::Dropped(reason) => reason as u8,
            Self::Other(code) => code,
        }
    }

    /// The reason with this number.
    #[must_use]
    pub fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Filtered,
            code => DropReason::from_code(code).map_or(Self::Other(code), Self::Dropped),
        }
    }

    /// The reason's name as shown to people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Filtered => "filtered",
            Self::Dropped(reason) => reason.name(),
            Self::Other(_) => "other",
        }
    }
}

/// Offsets `[from, to)` that come without events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skip {
    /// The first.
    pub from: Offset,
    /// The one after the last.
    pub to: Offset,
    /// Why.
    pub reason: SkipReason,
}

/// The sender's end of one broker on one stream.
#[derive(Debug)]
pub struct BatchWriter {
    broker: u32,
    epoch: Option<Epoch>,
    next: Option<Offset>,
    arrival: Option<u64>,
    columns: Vec<u8>,
}

/// What a frame covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// How many of the items are in it, from the first on.
    pub items: usize,
    /// Its first offset.
    pub from: Offset,
    /// The offset after its last.
    pub to: Offset,
}

impl BatchWriter {
    /// For the broker that this connection calls `broker`.
    #[must_use]
    pub const fn new(broker: u32) -> Self {
        Self { broker, epoch: None, next: None, arrival: None, columns: Vec::new() }
    }

    /// The broker's number.
    #[must_use]
    pub const fn broker(&self) -> u32 {
        self.broker
    }

    /// Appends a frame to `out` with the first of `items`, which cover offsets without a gap: as many as are of one epoch, which
    /// is that of its last offset in `lineage`. Bodies go as they are, but for the packet id, which means nothing beyond the agent.
    pub fn frame(&mut self, items: &[Item], lineage: &Lineage, urgent: bool, out: &mut Vec<u8>) -> Option<Sent> {
        let first = range(items.first()?).0;
        let (mut epoch, mut to, mut used) = (None, first, 0);
        let mut skips: Vec<(u32, u64, u8)> = Vec::new();
        let mut since_skip = 0u32;
        let mut pieces = Pieces::default();
        for item in items {
            let (_, end) = range(item);
            let theirs = match item {
                Item::Event { epoch, .. } => Some(*epoch),
                _ => lineage.epoch_at(Offset(end.0.saturating_sub(1))),
            };
            let full = pieces.list.len() == MAX_EVENTS || skips.len() == MAX_SKIPS;
            if used > 0 && (theirs != epoch || full) {
                break;
            }
            epoch = theirs;
            let reason = match item {
                Item::Event { body, .. } => {
                    pieces.add(body);
                    since_skip += 1;
                    None
                }
                Item::Skip { reason, .. } => Some(SkipReason::Dropped(*reason).code()),
                Item::Unwanted { .. } => Some(SkipReason::Filtered.code()),
            };
            if let Some(reason) = reason {
                skips.push((since_skip, end.since(to), reason));
                since_skip = 0;
            }
            to = end;
            used += 1;
        }
        self.columns.clear();
        let base = self.arrival.is_none().then_some(0);
        let mut arrival = self.arrival.unwrap_or(0);
        columns::encode(pieces.iter(), &mut arrival, &mut self.columns);
        let events = Events {
            broker: self.broker,
            count: (pieces.list.len() != 1).then_some(u32::try_from(pieces.list.len()).unwrap_or(u32::MAX)),
            columns: &self.columns,
            epoch: if epoch == self.epoch { None } else { epoch.map(|epoch| epoch.0) },
            from: (self.next != Some(first)).then_some(first.0),
            arrival: base,
            skips,
            urgent,
        };
        Frame::Events(events).encode(out);
        (self.epoch, self.next, self.arrival) = (epoch, Some(to), Some(arrival));
        if self.columns.capacity() > 256 << 10 {
            self.columns = Vec::new();
        }
        Some(Sent { items: used, from: first, to })
    }
}

/// Heads and payloads of a batch. Heads without a packet id are made anew in one buffer; all else is borrowed.
#[derive(Default)]
struct Pieces<'a> {
    heads: Vec<u8>,
    list: Vec<(Head<'a>, &'a [u8])>,
}

enum Head<'a> {
    Made(std::ops::Range<usize>),
    AsItIs(&'a [u8]),
}

impl<'a> Pieces<'a> {
    fn add(&mut self, body: &'a [u8]) {
        let piece = match event::split(body) {
            Ok(parts) => {
                let begin = self.heads.len();
                event::join(&mut self.heads, &event::Split { packet_id: 0, payload: &[], ..parts });
                (Head::Made(begin..self.heads.len()), parts.payload)
            }
            // Not for us to judge: the gateway refuses what it cannot read.
            Err(_) => (Head::AsItIs(body), &[][..]),
        };
        self.list.push(piece);
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.list.iter().map(|(head, payload)| match head {
            Head::Made(range) => (self.heads.get(range.clone()).unwrap_or_default(), *payload),
            Head::AsItIs(head) => (*head, *payload),
        })
    }
}

/// The offsets that an item covers.
pub fn range(item: &Item) -> (Offset, Offset) {
    match item {
        Item::Event { offset, .. } => (*offset, offset.plus(1)),
        Item::Skip { from, to, .. } | Item::Unwanted { from, to } => (*from, *to),
    }
}

/// An events frame, opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The broker's number on this connection.
    pub broker: u32,
    /// The epoch of the events, and of the last offset.
    pub epoch: Epoch,
    /// The first offset.
    pub from: Offset,
    /// The offset after the last.
    pub to: Offset,
    /// Offsets without events, in order.
    pub skips: Vec<Skip>,
    /// The bodies of all others, in order.
    pub bodies: Bodies,
    /// Whether the sender waits for the answer.
    pub urgent: bool,
}

impl Batch {
    /// The events with their offsets, in order.
    pub fn events(&self) -> impl Iterator<Item = (Offset, bytes::Bytes)> {
        let mut at = self.from;
        let mut skips = self.skips.iter().peekable();
        (0..self.bodies.len()).filter_map(move |i| {
            while let Some(skip) = skips.next_if(|skip| skip.from == at) {
                at = skip.to;
            }
            let offset = at;
            at = at.plus(1);
            Some((offset, self.bodies.get(i)?))
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Track {
    epoch: Epoch,
    next: Offset,
    arrival: u64,
}

/// The receiver's end of one stream.
#[derive(Debug, Default)]
pub struct BatchReader {
    tracks: HashMap<u32, Track>,
}

impl BatchReader {
    /// A reader at the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens an events frame, whose bodies may have `max_bytes` in all.
    ///
    /// # Errors
    /// When it goes on from a frame that never came, when its columns are malformed, or when it covers more offsets than there are.
    pub fn open(&mut self, events: &Events<'_>, max_bytes: usize) -> Result<Batch, SyncError> {
        let bad = |why: &str| SyncError::malformed("events", why);
        let track = self.tracks.get(&events.broker);
        let epoch = events.epoch.map(Epoch).or(track.map(|t| t.epoch)).ok_or_else(|| bad("the first names no epoch"))?;
        let from = events.from.map(Offset).or(track.map(|t| t.next)).ok_or_else(|| bad("the first names no offset"))?;
        let mut arrival = events.arrival.or(track.map(|t| t.arrival)).ok_or_else(|| bad("the first names no arrival"))?;
        let count = events.count.unwrap_or(1);
        let bodies = columns::decode(events.columns, count as usize, &mut arrival, max_bytes)?;
        let mut at = from.0;
        let mut left = count;
        let mut skips = Vec::with_capacity(events.skips.len());
        for &(after, how_many, reason) in &events.skips {
            left = left.checked_sub(after).ok_or_else(|| bad("a skip comes after more events than there are"))?;
            let begin = at.checked_add(u64::from(after)).ok_or_else(|| bad("offsets overflow"))?;
            at = begin.checked_add(how_many).ok_or_else(|| bad("offsets overflow"))?;
            if how_many > 0 {
                skips.push(Skip { from: Offset(begin), to: Offset(at), reason: SkipReason::from_code(reason) });
            }
        }
        let to = Offset(at.checked_add(u64::from(left)).ok_or_else(|| bad("offsets overflow"))?);
        if !self.tracks.contains_key(&events.broker) {
            SyncError::check("number of brokers", self.tracks.len() + 1, MAX_BROKERS)?;
        }
        self.tracks.insert(events.broker, Track { epoch, next: to, arrival });
        Ok(Batch { broker: events.broker, epoch, from, to, skips, bodies, urgent: events.urgent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn event(epoch: u64, offset: u64, body: &'static [u8]) -> Item {
        Item::Event { epoch: Epoch(epoch), offset: Offset(offset), body: Bytes::from_static(body) }
    }

    fn lineage() -> Lineage {
        Lineage(vec![(Epoch(1), Offset(0)), (Epoch(2), Offset(12))])
    }

    /// Sends items as frames and opens them.
    fn through(items: &[Item]) -> Vec<Batch> {
        let (mut writer, mut reader, mut rest, mut batches) = (BatchWriter::new(3), BatchReader::new(), items, Vec::new());
        loop {
            let mut out = Vec::new();
            let Some(sent) = writer.frame(rest, &lineage(), false, &mut out) else { return batches };
            let Frame::Events(events) = Frame::from_agent(&out).expect("a frame") else { panic!("events") };
            batches.push(reader.open(&events, 10_000).expect("opens"));
            rest = &rest[sent.items..];
        }
    }

    #[test]
    fn a_frame_covers_its_range_by_events_and_skips() {
        let items = [
            Item::Skip { from: Offset(2), to: Offset(5), reason: DropReason::Retention },
            event(1, 5, b"hhone"),
            event(1, 6, b"hhtwo 2"),
            Item::Unwanted { from: Offset(7), to: Offset(9) },
            event(1, 9, b"hhthree"),
        ];
        let batches = through(&items);
        let [batch] = batches.as_slice() else { panic!("{batches:?}") };
        assert_eq!((batch.epoch, batch.from, batch.to), (Epoch(1), Offset(2), Offset(10)));
        let events: Vec<_> = batch.events().map(|(offset, body)| (offset.0, body)).collect();
        assert_eq!(events, [(5, Bytes::from("hhone")), (6, Bytes::from("hhtwo 2")), (9, Bytes::from("hhthree"))]);
        assert_eq!(batch.skips.len(), 2);
    }

    #[test]
    fn a_frame_is_of_one_epoch() {
        let items = [
            event(1, 10, b"a"),
            Item::Skip { from: Offset(11), to: Offset(14), reason: DropReason::Quarantined },
            event(2, 14, b"b"),
        ];
        let batches = through(&items);
        let ranges: Vec<_> = batches.iter().map(|b| (b.epoch.0, b.from.0, b.to.0, b.bodies.len())).collect();
        assert_eq!(ranges, [(1, 10, 11, 1), (2, 11, 15, 1)]);
    }

    #[test]
    fn a_frame_that_goes_on_from_nothing_is_refused() {
        let events = Events { columns: &[], count: Some(0), ..Events::default() };
        assert!(BatchReader::new().open(&events, 100).is_err());
    }

    #[test]
    fn offsets_beyond_the_last_are_refused() {
        let events = Events {
            count: Some(0),
            epoch: Some(1),
            from: Some(5),
            arrival: Some(0),
            skips: vec![(0, u64::MAX, 1)],
            ..Events::default()
        };
        assert!(BatchReader::new().open(&events, 100).is_err());
    }
}
