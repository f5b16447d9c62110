//! What is in a sealed segment, in its last bytes: a sparse index of offsets, and the types, sources and topics of its events, so
//! that a consumer whose filter wants little can pass a whole segment unread.
//!
//! A footer is derived and nothing depends on it: it is written beside the log, never synced on its own, and where it is
//! missing, torn or of another segment, the segment is simply read.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::Offset;
use super::format::{BATCH_BYTES, Kind, put_bytes, put_varint, take_bytes, take_record, take_varint};
use super::log::footer_bytes;
use super::scan::Scan;
use super::segment::Segment;
use crate::storage::{Storage, StorageFile, read_exact_at};

const MAGIC: [u8; 4] = *b"GwSF";
const HEADER_BYTES: usize = 12;
/// Most different values of one field that a summary lists.
const MAX_VALUES: usize = 64;
/// Most bytes of one field's values.
const MAX_VALUE_BYTES: usize = 1500;
/// Between two entries of the index.
const INDEX_EVERY: u64 = 64 << 10;

/// What a summary lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The events' `type`.
    Type,
    /// The events' `source`.
    Source,
    /// The MQTT topics they came on.
    Topic,
}

/// Notes the [`Field`]s of an event's stored form; see [`super::Options::digest`].
pub type Digest = fn(body: &Bytes, note: &mut dyn FnMut(Field, &str));

/// The values of one field in a segment, or `None` if they are too many to list.
pub type Values = Option<BTreeSet<String>>;

/// What is in one sealed segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// All `type`s.
    pub types: Values,
    /// All `source`s.
    pub sources: Values,
    /// All MQTT topics.
    pub topics: Values,
}

/// A footer as it is read back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) index: Vec<(Offset, u64)>,
    /// Absent where the journal has no digest.
    pub(super) summary: Option<Summary>,
}

fn key(segment: &Segment) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&segment.seq.to_le_bytes()), &segment.first.0.to_le_bytes())
}

fn note(values: &mut Values, value: &str) {
    let Some(set) = values else { return };
    if set.contains(value) {
        return;
    }
    set.insert(value.to_owned());
    if set.len() > MAX_VALUES || set.iter().map(String::len).sum::<usize>() > MAX_VALUE_BYTES {
        *values = None;
    }
}

/// Reads the sealed segment, whose batches begin at `start` and whose offsets end at `until`, and writes its footer.
///
/// # Errors
/// Whatever the file system answers. A damaged segment gets no footer.
pub(super) fn seal(
    storage: &Arc<dyn Storage>,
    dir: &str,
    segment: &Segment,
    start: u64,
    until: Offset,
    digest: Option<Digest>,
) -> io::Result<()> {
    let file = storage.open(&format!("{dir}/{}", segment.name()), false)?;
    let mut scan = Scan::new(Arc::clone(&file), segment.seq, start);
    let mut footer = Footer { index: Vec::new(), summary: None };
    let all = || Some(BTreeSet::new());
    let mut summary = Summary { types: all(), sources: all(), topics: all() };
    let mut next = segment.first;
    while next < until {
        let Some(found) = scan.next()? else { return Ok(()) };
        if found.head.first != next {
            return Ok(());
        }
        if footer.index.last().is_none_or(|(_, at)| found.position >= at + INDEX_EVERY) && found.head.events > 0 {
            footer.index.push((next, found.position));
        }
        next = next.plus(u64::from(found.head.events));
        let mut records = found.records.get(..found.head.events_len as usize).unwrap_or_default();
        while let (Some(digest), Some((kind, mut body))) = (digest, take_record(&mut records)) {
            if kind == Some(Kind::EventWithFact) {
                let _ = take_bytes(&mut body).and_then(|_| take_bytes(&mut body));
            }
            if kind.is_some_and(Kind::is_event) {
                digest(&found.records.slice_ref(body), &mut |field, value| match field {
                    Field::Type => note(&mut summary.types, value),
                    Field::Source => note(&mut summary.sources, value),
                    Field::Topic => note(&mut summary.topics, value),
                });
            }
        }
    }
    footer.summary = digest.map(|_| summary);
    let at = segment.len.saturating_sub(footer_bytes(segment.len));
    if scan.position() + BATCH_BYTES as u64 > at {
        return Ok(());
    }
    let bytes = encode(&footer, segment);
    if bytes.len() as u64 > footer_bytes(segment.len) {
        return Ok(());
    }
    file.write_all_at(&bytes, at)
}

fn encode(footer: &Footer, segment: &Segment) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    put_varint(&mut out, footer.index.len() as u64);
    for (offset, position) in &footer.index {
        put_varint(&mut out, offset.0);
        put_varint(&mut out, *position);
    }
    put_varint(&mut out, u64::from(footer.summary.is_some()));
    if let Some(summary) = &footer.summary {
        for values in [&summary.types, &summary.sources, &summary.topics] {
            put_varint(&mut out, values.as_ref().map_or(0, |set| set.len() as u64 + 1));
            for value in values.iter().flatten() {
                put_bytes(&mut out, value.as_bytes());
            }
        }
    }
    out[..4].copy_from_slice(&MAGIC);
    let len = u32::try_from(out.len()).unwrap_or(u32::MAX);
    out[8..12].copy_from_slice(&len.to_le_bytes());
    let crc = crc32c::crc32c_append(key(segment), &out[8..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The footer of a sealed segment, if it has a sound one.
pub(super) fn read(file: &dyn StorageFile, segment: &Segment) -> Option<Footer> {
    let room = footer_bytes(segment.len);
    let mut bytes = vec![0; usize::try_from(room).ok()?];
    read_exact_at(file, &mut bytes, segment.len.checked_sub(room)?).ok()?;
    decode(&bytes, segment)
}

fn decode(bytes: &[u8], segment: &Segment) -> Option<Footer> {
    if bytes.get(..4)? != MAGIC {
        return None;
    }
    let len = u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?) as usize;
    let whole = bytes.get(..len)?;
    let crc = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?);
    if crc32c::crc32c_append(key(segment), whole.get(8..)?) != crc {
        return None;
    }
    let rest = &mut whole.get(HEADER_BYTES..)?;
    let mut footer = Footer { index: Vec::new(), summary: None };
    for _ in 0..take_varint(rest)? {
        footer.index.push((Offset(take_varint(rest)?), take_varint(rest)?));
    }
    if take_varint(rest)? == 1 {
        let mut values = || -> Option<Values> {
            let Some(n) = take_varint(rest)?.checked_sub(1) else { return Some(None) };
            let mut set = BTreeSet::new();
            for _ in 0..n {
                set.insert(std::str::from_utf8(take_bytes(rest)?).ok()?.to_owned());
            }
            Some(Some(set))
        };
        footer.summary = Some(Summary { types: values()?, sources: values()?, topics: values()? });
    }
    Some(footer)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_footer_is_read_back_and_only_for_its_segment(
            index: Vec<(u64, u64)>, types in proptest::option::of(proptest::collection::btree_set(".*", 0..5)),
        ) {
            let segment = Segment { seq: 3, first: Offset(9), len: 8 << 20, begun_ms: None };
            let summary = Summary { types, sources: None, topics: Some(BTreeSet::new()) };
            let footer = Footer { index: index.into_iter().map(|(o, p)| (Offset(o), p)).collect(), summary: Some(summary) };
            let bytes = encode(&footer, &segment);
            prop_assert_eq!(decode(&bytes, &segment), Some(footer));
            prop_assert_eq!(decode(&bytes, &Segment { seq: 4, ..segment }), None);
        }

        #[test]
        fn no_bytes_make_the_footer_panic(bytes: Vec<u8>) {
            let segment = Segment { seq: 3, first: Offset(9), len: 8 << 20, begun_ms: None };
            let _ = decode(&bytes, &segment);
        }
    }

    #[test]
    fn too_many_values_are_not_listed() {
        let mut values = Some(BTreeSet::new());
        for n in 0..=MAX_VALUES {
            note(&mut values, &format!("type-{n}"));
        }
        assert_eq!(values, None);
    }
}
