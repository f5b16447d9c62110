//! The bodies of a batch, split so that like stands by like: one byte string, several columns, each cheap to compress.
//!
//! A body is taken as a head (attributes, topic, …) and a payload. Heads differ little from one another: each is an earlier
//! one with a few bytes patched. The six bytes after a head's first one (where the stored form keeps the arrival time) are a
//! number, sent as the difference from the one before. Payloads are [skeletons and numbers](super::numbers). None of this has
//! to be so for bodies to come back as they were: whatever does not fit the picture is sent as it is.
//!
//! Columns in order, counts implied by those before:
//! 1. head codes: `0` new head, `1` new head with an arrival, `2+2k` the k-th new head, `3+2k` the same, patched;
//! 2. new heads: length, bytes (without arrival); 3. patches: counts, then places, then bytes; 4. arrival differences;
//! 5. payload codes: `0` as it is, `k+1` the k-th skeleton, new if it is one more than there are;
//! 6. lengths of payloads as they are, then those; 7. new skeletons: lengths, then bytes;
//! 8. per skeleton, per hole: (`1` if it varies else `0`, left out where the skeleton is used once), then its numbers, each ended
//!    by `\n`, an empty one meaning the same as the last.

use std::collections::HashMap;

use bytes::Bytes;

use super::SyncError;
use super::limits::MAX_EVENTS;
use super::numbers::{self, HOLE};
use super::varint::{Cursor, put, unzigzag, zigzag};

/// Where the arrival lies in a head.
const ARRIVAL: std::ops::Range<usize> = 1..7;

/// Heads in the table of a batch.
const MAX_HEADS: usize = 64;

/// Most bytes patched in a head; more, and it is sent whole.
const MAX_PATCHES: usize = 4;

/// Most numbers of a batch; bounds what a receiver must remember.
const MAX_NUMBERS: usize = 1 << 18;

/// Bodies as they came out of their columns, end to end in one buffer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bodies {
    bytes: Bytes,
    ends: Vec<usize>,
}

impl Bodies {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all of them.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The body at `index`, sharing the buffer.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Bytes> {
        let end = *self.ends.get(index)?;
        let begin = index.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        Some(self.bytes.slice(begin..end))
    }
}

/// Splits bodies, each given as head and payload, and appends the columns to `out`. `arrival` is where differences of arrivals
/// start, and is moved on.
pub fn encode<'a>(bodies: impl Iterator<Item = (&'a [u8], &'a [u8])>, arrival: &mut u64, out: &mut Vec<u8>) {
    let mut heads = Heads::default();
    let mut payloads = Payloads::default();
    for (head, payload) in bodies {
        heads.add(head, arrival);
        payloads.add(payload);
    }
    heads.finish(out);
    payloads.finish(out);
}

#[derive(Default)]
struct Heads {
    table: Vec<Vec<u8>>,
    exact: HashMap<Vec<u8>, usize>,
    last: usize,
    scratch: Vec<u8>,
    codes: Vec<u8>,
    new: Vec<u8>,
    patch_counts: Vec<u8>,
    patch_places: Vec<u8>,
    patch_bytes: Vec<u8>,
    arrivals: Vec<u8>,
}

impl Heads {
    fn add(&mut self, head: &[u8], arrival: &mut u64) {
        self.scratch.clear();
        let timed = match (head.first(), head.get(ARRIVAL), head.get(ARRIVAL.end..)) {
            (Some(&first), Some(time), Some(rest)) => {
                let now = six_bytes(time);
                put(&mut self.arrivals, zigzag(now.wrapping_sub(*arrival).cast_signed()));
                *arrival = now;
                self.scratch.push(first);
                self.scratch.extend_from_slice(rest);
                true
            }
            _ => {
                self.scratch.extend_from_slice(head);
                false
            }
        };
        // Only heads with an arrival are in the table.
        if timed {
            if let Some(&k) = self.exact.get(&self.scratch) {
                self.last = k;
                return put(&mut self.codes, 2 + 2 * k as u64);
            }
            if let Some((k, patches)) = self.nearest() {
                self.last = k;
                put(&mut self.codes, 3 + 2 * k as u64);
                put(&mut self.patch_counts, patches.len() as u64);
                for (place, byte) in patches {
                    put(&mut self.patch_places, place as u64);
                    self.patch_bytes.push(byte);
                }
                return;
            }
        }
        self.codes.push(u8::from(timed));
        put(&mut self.new, self.scratch.len() as u64);
        self.new.extend_from_slice(&self.scratch);
        if timed && self.table.len() < MAX_HEADS {
            self.last = self.table.len();
            self.exact.insert(self.scratch.clone(), self.last);
            self.table.push(self.scratch.clone());
        }
    }

    /// A head of the same length that differs in few bytes: the one used last if it will do, else the first that will.
    fn nearest(&self) -> Option<(usize, Vec<(usize, u8)>)> {
        let near = |k: usize| {
            let known = self.table.get(k).filter(|known| known.len() == self.scratch.len())?;
            let mut patches = Vec::new();
            for (place, (a, b)) in known.iter().zip(&self.scratch).enumerate() {
                if a != b {
                    if patches.len() == MAX_PATCHES {
                        return None;
                    }
                    patches.push((place, *b));
                }
            }
            Some((k, patches))
        };
        near(self.last).or_else(|| (0..self.table.len()).find_map(near))
    }

    fn finish(self, out: &mut Vec<u8>) {
        for column in [self.codes, self.new, self.patch_counts, self.patch_places, self.patch_bytes, self.arrivals] {
            out.extend_from_slice(&column);
        }
    }
}

#[derive(Default)]
struct Payloads<'a> {
    known: HashMap<Vec<u8>, usize>,
    scratch: Vec<u8>,
    /// Numbers by skeleton, text after text.
    numbers: Vec<(usize, Vec<&'a [u8]>)>,
    found: Vec<&'a [u8]>,
    count: usize,
    tried: usize,
    codes: Vec<u8>,
    plain_lengths: Vec<u8>,
    plain: Vec<&'a [u8]>,
    skeleton_lengths: Vec<u8>,
    skeletons: Vec<u8>,
}

impl<'a> Payloads<'a> {
    fn add(&mut self, payload: &'a [u8]) {
        // Text whose skeletons hardly ever repeat only costs time here.
        let pays = self.tried < 16 || self.known.len() * 4 < self.tried * 3;
        self.scratch.clear();
        self.found.clear();
        if !pays || self.count > MAX_NUMBERS / 2 || !numbers::split(payload, &mut self.scratch, &mut self.found) {
            self.codes.push(0);
            put(&mut self.plain_lengths, payload.len() as u64);
            self.plain.push(payload);
            return;
        }
        self.tried += 1;
        self.count += self.found.len();
        let k = match self.known.get(&self.scratch) {
            Some(&k) => k,
            None => {
                let k = self.known.len();
                put(&mut self.skeleton_lengths, self.scratch.len() as u64);
                self.skeletons.extend_from_slice(&self.scratch);
                self.known.insert(self.scratch.clone(), k);
                self.numbers.push((self.found.len(), Vec::new()));
                k
            }
        };
        put(&mut self.codes, k as u64 + 1);
        if let Some((_, numbers)) = self.numbers.get_mut(k) {
            numbers.extend_from_slice(&self.found);
        }
    }

    fn finish(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.codes);
        out.extend_from_slice(&self.plain_lengths);
        for payload in self.plain {
            out.extend_from_slice(payload);
        }
        out.extend_from_slice(&self.skeleton_lengths);
        out.extend_from_slice(&self.skeletons);
        for (holes, numbers) in self.numbers {
            let used_once = numbers.len() == holes;
            for hole in 0..holes {
                let column = || numbers.iter().skip(hole).step_by(holes);
                let first = column().next().copied().unwrap_or_default();
                let varies = column().any(|number| *number != first);
                if !used_once {
                    out.push(u8::from(varies));
                }
                let mut last: &[u8] = &[];
                for number in column().take(if varies { usize::MAX } else { 1 }) {
                    if *number != last {
                        out.extend_from_slice(number);
                        last = number;
                    }
                    out.push(b'\n');
                }
            }
        }
    }
}

/// Puts `count` bodies together again, of at most `max_bytes` in all. `arrival` as in [`encode`].
///
/// # Errors
/// When the columns are cut off, refer to what was not sent, or are too large.
pub fn decode(columns: &[u8], count: usize, arrival: &mut u64, max_bytes: usize) -> Result<Bodies, SyncError> {
    SyncError::check("number of events", count, MAX_EVENTS)?;
    let mut cursor = Cursor(columns);
    let heads = OpenHeads::read(&mut cursor, count)?;
    let payloads = OpenPayloads::read(&mut cursor, count)?;
    let mut bytes = Vec::with_capacity((columns.len() * 2).min(max_bytes));
    let mut ends = Vec::with_capacity(count);
    let (mut heads, mut payloads) = (heads, payloads);
    for _ in 0..count {
        heads.next(&mut bytes, arrival, max_bytes)?;
        payloads.next(&mut bytes, max_bytes)?;
        ends.push(bytes.len());
    }
    Ok(Bodies { bytes: bytes.into(), ends })
}

fn room(bytes: &[u8], more: usize, max_bytes: usize) -> Result<(), SyncError> {
    SyncError::check("bodies of a frame", bytes.len().saturating_add(more), max_bytes)
}

fn absent(what: &'static str) -> SyncError {
    SyncError::malformed("columns", what)
}

struct OpenHeads<'a> {
    codes: std::vec::IntoIter<u64>,
    new: std::vec::IntoIter<&'a [u8]>,
    table: Vec<&'a [u8]>,
    patch_counts: std::vec::IntoIter<usize>,
    places: std::vec::IntoIter<u64>,
    patch_bytes: std::slice::Iter<'a, u8>,
    arrivals: std::vec::IntoIter<i64>,
}

impl<'a> OpenHeads<'a> {
    fn read(cursor: &mut Cursor<'a>, count: usize) -> Result<Self, SyncError> {
        let codes = (0..count).map(|_| cursor.number()).collect::<Result<Vec<_>, _>>()?;
        let mut new = Vec::new();
        for _ in codes.iter().filter(|&&code| code < 2) {
            let len = cursor.count("head", usize::MAX)?;
            new.push(cursor.take(len)?);
        }
        let patched = codes.iter().filter(|&&code| code > 2 && code % 2 == 1).count();
        let patch_counts =
            (0..patched).map(|_| cursor.count("number of patches", MAX_PATCHES)).collect::<Result<Vec<_>, _>>()?;
        let patches = patch_counts.iter().sum();
        let places = (0..patches).map(|_| cursor.number()).collect::<Result<Vec<_>, _>>()?;
        let patch_bytes = cursor.take(patches)?.iter();
        let timed = codes.iter().filter(|&&code| code > 0).count();
        let arrivals = (0..timed).map(|_| cursor.number().map(unzigzag)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            codes: codes.into_iter(),
            new: new.into_iter(),
            table: Vec::new(),
            patch_counts: patch_counts.into_iter(),
            places: places.into_iter(),
            patch_bytes,
            arrivals: arrivals.into_iter(),
        })
    }

    fn next(&mut self, out: &mut Vec<u8>, arrival: &mut u64, max_bytes: usize) -> Result<(), SyncError> {
        let code = self.codes.next().ok_or_else(|| absent("a head is missing"))?;
        let head = if code < 2 {
            let head = self.new.next().ok_or_else(|| absent("a new head is missing"))?;
            if code == 1 && self.table.len() < MAX_HEADS {
                self.table.push(head);
            }
            head
        } else {
            let k = usize::try_from((code - 2) / 2).unwrap_or(usize::MAX);
            self.table.get(k).copied().ok_or_else(|| absent("a head is meant that was not sent"))?
        };
        room(out, head.len() + ARRIVAL.len(), max_bytes)?;
        let begin = out.len();
        out.extend_from_slice(head);
        if code > 2 && code % 2 == 1 {
            for _ in 0..self.patch_counts.next().unwrap_or_default() {
                let place = self.places.next().and_then(|place| usize::try_from(place).ok());
                let spot = place.and_then(|place| out.get_mut(begin..)?.get_mut(place));
                match (spot, self.patch_bytes.next()) {
                    (Some(spot), Some(byte)) => *spot = *byte,
                    _ => return Err(absent("a patch lies outside its head")),
                }
            }
        }
        if code > 0 {
            let difference = self.arrivals.next().ok_or_else(|| absent("an arrival is missing"))?;
            *arrival = arrival.wrapping_add(difference.cast_unsigned());
            let after_first = begin + ARRIVAL.start;
            if out.len() < after_first {
                return Err(absent("a head with an arrival is empty"));
            }
            out.splice(after_first..after_first, arrival.to_le_bytes().into_iter().take(ARRIVAL.len()));
        }
        Ok(())
    }
}

enum Column<'a> {
    Same(&'a [u8]),
    Varies(std::vec::IntoIter<&'a [u8]>, &'a [u8]),
}

struct OpenPayloads<'a> {
    codes: std::vec::IntoIter<u64>,
    plain: std::vec::IntoIter<&'a [u8]>,
    skeletons: Vec<(&'a [u8], Vec<Column<'a>>)>,
}

impl<'a> OpenPayloads<'a> {
    fn read(cursor: &mut Cursor<'a>, count: usize) -> Result<Self, SyncError> {
        let codes = (0..count).map(|_| cursor.number()).collect::<Result<Vec<_>, _>>()?;
        let mut uses: Vec<usize> = Vec::new();
        for &code in codes.iter().filter(|&&code| code > 0) {
            let k = usize::try_from(code - 1).unwrap_or(usize::MAX);
            if k == uses.len() {
                uses.push(0);
            }
            *uses.get_mut(k).ok_or_else(|| absent("a skeleton is meant that was not sent"))? += 1;
        }
        let mut lengths = |n: usize| (0..n).map(|_| cursor.count("length", usize::MAX)).collect::<Result<Vec<_>, _>>();
        let plain_lengths = lengths(codes.iter().filter(|&&code| code == 0).count())?;
        let plain = plain_lengths.into_iter().map(|len| cursor.take(len)).collect::<Result<Vec<_>, _>>()?;
        let mut lengths = |n: usize| (0..n).map(|_| cursor.count("length", usize::MAX)).collect::<Result<Vec<_>, _>>();
        let skeleton_lengths = lengths(uses.len())?;
        let texts = skeleton_lengths.into_iter().map(|len| cursor.take(len)).collect::<Result<Vec<_>, _>>()?;
        let mut total = 0;
        let mut skeletons = Vec::with_capacity(texts.len());
        for (text, uses) in texts.into_iter().zip(uses) {
            let mut columns = Vec::new();
            for _ in memchr::memchr_iter(HOLE, text) {
                let varies = uses > 1 && cursor.byte()? != 0;
                total += if varies { uses } else { 1 };
                SyncError::check("number of numbers", total, MAX_NUMBERS)?;
                let first = cursor.line()?;
                if first.is_empty() {
                    // An expansion that costs nothing to ask for must give at least a byte, or the limit would not bound it.
                    return Err(absent("a number is empty"));
                }
                columns.push(if varies {
                    let mut numbers = vec![first];
                    for _ in 1..uses {
                        numbers.push(cursor.line()?);
                    }
                    Column::Varies(numbers.into_iter(), first)
                } else {
                    Column::Same(first)
                });
            }
            if columns.is_empty() {
                return Err(absent("a skeleton has no hole"));
            }
            skeletons.push((text, columns));
        }
        if !cursor.0.is_empty() {
            return Err(absent("bytes are left over"));
        }
        Ok(Self { codes: codes.into_iter(), plain: plain.into_iter(), skeletons })
    }

    fn next(&mut self, out: &mut Vec<u8>, max_bytes: usize) -> Result<(), SyncError> {
        let code = self.codes.next().ok_or_else(|| absent("a payload is missing"))?;
        if code == 0 {
            let payload = self.plain.next().ok_or_else(|| absent("a payload is missing"))?;
            room(out, payload.len(), max_bytes)?;
            out.extend_from_slice(payload);
            return Ok(());
        }
        let k = usize::try_from(code - 1).unwrap_or(usize::MAX);
        let (text, columns) = self.skeletons.get_mut(k).ok_or_else(|| absent("a skeleton is missing"))?;
        let mut columns = columns.iter_mut();
        for (i, piece) in text.split(|&b| b == HOLE).enumerate() {
            if i > 0 {
                let number = match columns.next() {
                    Some(Column::Same(number)) => number,
                    Some(Column::Varies(numbers, last)) => {
                        let number = numbers.next().filter(|number| !number.is_empty()).unwrap_or(last);
                        *last = number;
                        number
                    }
                    None => return Err(absent("a number is missing")),
                };
                room(out, number.len(), max_bytes)?;
                out.extend_from_slice(number);
            }
            room(out, piece.len(), max_bytes)?;
            out.extend_from_slice(piece);
        }
        Ok(())
    }
}

/// Six bytes, the least significant first.
fn six_bytes(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(bodies: &[(Vec<u8>, usize)]) {
        let (mut out, mut sent, mut got) = (Vec::new(), 77, 77);
        encode(bodies.iter().map(|(b, at)| b.split_at(*at)), &mut sent, &mut out);
        let opened = decode(&out, bodies.len(), &mut got, 1 << 24).expect("opens");
        // The differences are taken modulo 2^48: only those bits are in a body.
        assert_eq!(sent & 0xffff_ffff_ffff, got & 0xffff_ffff_ffff);
        for (i, (body, _)) in bodies.iter().enumerate() {
            assert_eq!(opened.get(i).expect("there"), body, "body {i}");
        }
        assert_eq!(opened.len(), bodies.len());
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            (any::<i16>(), any::<i32>()).prop_map(|(a, b)| format!("{{\"x\":{a},\"y\":[{b}.{a}e-05,true]}}").into_bytes()),
            (any::<u8>(), any::<u32>()).prop_map(|(a, b)| format!("t {a} {b}").into_bytes()),
            proptest::collection::vec(any::<u8>(), 0..40),
        ]
    }

    proptest! {
        #[test]
        fn bodies_come_back_byte_for_byte(bodies in proptest::collection::vec(
            (prop_oneof![proptest::collection::vec(any::<u8>(), 0..20), proptest::collection::vec(0u8..3, 9..11)], text(), any::<proptest::sample::Index>()), 0..60)) {
            let bodies: Vec<(Vec<u8>, usize)> = bodies.into_iter().map(|(head, payload, cut)| {
                let mut body = head;
                let at = if payload.len() % 5 == 0 { cut.index(body.len() + payload.len() + 1) } else { body.len() };
                body.extend(payload);
                (body, at)
            }).collect();
            round_trip(&bodies);
        }

        #[test]
        fn garbage_never_panics_nor_passes_the_limit(columns: Vec<u8>, count in 0usize..50) {
            if let Ok(bodies) = decode(&columns, count, &mut 0, 1000) {
                prop_assert!(bodies.total_bytes() <= 1000);
            }
        }
    }

    #[test]
    fn more_kinds_of_heads_than_the_table_holds_come_back() {
        let bodies: Vec<(Vec<u8>, usize)> = (0..300u32)
            .map(|n| (format!("k123456client-{:x}/t|{{\"v\":{n}}}", n.wrapping_mul(2_654_435_761)).into_bytes(), 20))
            .collect();
        round_trip(&bodies);
    }

    #[test]
    fn a_number_before_the_rest_of_its_skeleton_counts_against_the_limit() {
        // One event without arrival and head; a skeleton of a hole and 899 bytes, and a number of 800.
        let mut columns = vec![0, 0, 1];
        put(&mut columns, 900);
        columns.push(HOLE);
        columns.extend([b'x'; 899]);
        columns.extend([b'1'; 800]);
        columns.push(b'\n');
        assert!(matches!(decode(&columns, 1, &mut 0, 1000), Err(SyncError::TooLarge { .. })));
        assert_eq!(decode(&columns, 1, &mut 0, 1699).expect("fits").total_bytes(), 1699);
    }

    #[test]
    fn a_skeleton_cannot_be_blown_up_past_the_limit() {
        // One event in columns: no arrival, no head; skeleton 0, 60,000 uses of a skeleton of 1,000 bytes.
        let n = 60_000;
        let mut columns = vec![0; n];
        columns.extend(vec![0; n]);
        columns.extend(vec![1; n]);
        put(&mut columns, 1000);
        columns.extend([b'x'; 999]);
        columns.push(HOLE);
        columns.extend(b"\x001\n");
        assert!(matches!(decode(&columns, n, &mut 0, 1 << 20), Err(SyncError::TooLarge { .. })));
    }
}
