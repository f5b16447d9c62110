//! The bytes on disk: segment head, batch, record. `docs/journal.md` explains them; this file is the only one that knows them.
//!
//! Every checksum is CRC-32C over a key and the bytes. The key names the place: epoch, segment, position in the file and first
//! offset. Segments are recycled, so old bytes lie where new ones will; keyed like this they can never pass for new ones.

use super::{Epoch, Offset};

/// The version of the format that this program writes.
pub(super) const VERSION: u8 = 1;
const HEAD_MAGIC: [u8; 7] = *b"GODWITJ";
const BATCH_MAGIC: [u8; 4] = *b"\xf5GwB";
/// Bytes of a segment head; the snapshot follows.
pub(super) const HEAD_BYTES: usize = 80;
/// Bytes of a batch header; the records follow.
pub(super) const BATCH_BYTES: usize = 48;
/// Bytes of a record header: length (24 bits) and kind (8 bits).
pub(super) const RECORD_BYTES: usize = 4;
/// Longest record body in bytes.
pub(super) const MAX_RECORD: usize = (1 << 24) - 1;

/// The first bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) seq: u64,
    pub(super) epoch: Epoch,
    pub(super) first: Offset,
    /// The journal's elapsed time when the segment was begun.
    pub(super) elapsed_ms: u64,
    pub(super) snapshot_len: u32,
    pub(super) snapshot_crc: u32,
}

/// What the first bytes of a segment turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeadRead {
    Valid(Head),
    /// A segment of a later format.
    Version(u8),
    /// Zeros, or an old segment's head: the file was made ready and never begun.
    Unused,
    /// Neither: the head was damaged.
    Damaged,
}

fn key(epoch: Epoch, seq: u64, position: u64, first: Offset) -> u32 {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&epoch.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&seq.to_le_bytes());
    bytes[16..24].copy_from_slice(&position.to_le_bytes());
    bytes[24..].copy_from_slice(&first.0.to_le_bytes());
    crc32c::crc32c(&bytes)
}

/// The keyed checksum of a snapshot.
pub(super) fn snapshot_crc(epoch: Epoch, seq: u64, first: Offset, snapshot: &[u8]) -> u32 {
    crc32c::crc32c_append(key(epoch, seq, HEAD_BYTES as u64, first), snapshot)
}

/// The sum of a head: its version, and all behind the sum.
fn head_crc(head: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&head[7..8]), &head[16..HEAD_BYTES])
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

impl Head {
    pub(super) fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        out[..7].copy_from_slice(&HEAD_MAGIC);
        out[7] = VERSION;
        out[16..24].copy_from_slice(&self.seq.to_le_bytes());
        out[24..32].copy_from_slice(&self.epoch.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.first.0.to_le_bytes());
        out[40..48].copy_from_slice(&self.elapsed_ms.to_le_bytes());
        out[48..52].copy_from_slice(&self.snapshot_len.to_le_bytes());
        out[52..56].copy_from_slice(&self.snapshot_crc.to_le_bytes());
        let crc = head_crc(&out);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the head of the segment that its name says is `seq`.
    pub(super) fn decode(bytes: &[u8], seq: u64) -> HeadRead {
        let Some(bytes) = bytes.get(..HEAD_BYTES) else { return HeadRead::Unused };
        if bytes.iter().all(|b| *b == 0) {
            return HeadRead::Unused;
        }
        if bytes[..7] != HEAD_MAGIC {
            return HeadRead::Damaged;
        }
        // Every version keeps this sum in this place, so that a flipped bit is not taken for a newer program's file.
        if u32_at(bytes, 8) != Some(head_crc(bytes)) {
            return HeadRead::Damaged;
        }
        if bytes[7] != VERSION {
            return HeadRead::Version(bytes[7]);
        }
        let parse = || {
            Some(Self {
                seq: u64_at(bytes, 16)?,
                epoch: Epoch(u64_at(bytes, 24)?),
                first: Offset(u64_at(bytes, 32)?),
                elapsed_ms: u64_at(bytes, 40)?,
                snapshot_len: u32_at(bytes, 48)?,
                snapshot_crc: u32_at(bytes, 52)?,
            })
        };
        match parse() {
            None => HeadRead::Damaged,
            Some(head) if head.seq != seq => HeadRead::Unused,
            Some(head) => HeadRead::Valid(head),
        }
    }
}

/// The header of a batch: what one group commit wrote, whole or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchHead {
    /// Bytes of the batch, this header included.
    pub(super) len: u32,
    /// Bytes of the records that came with events; the control records behind them are applied first.
    pub(super) events_len: u32,
    pub(super) events: u32,
    pub(super) first: Offset,
    pub(super) epoch: Epoch,
    pub(super) elapsed_ms: u64,
}

impl BatchHead {
    /// Fills in the header of `batch`, whose first [`BATCH_BYTES`] are room for it.
    pub(super) fn seal(&self, batch: &mut [u8], seq: u64, position: u64) {
        batch[..4].copy_from_slice(&BATCH_MAGIC);
        batch[8..12].copy_from_slice(&self.len.to_le_bytes());
        batch[12..16].copy_from_slice(&self.events_len.to_le_bytes());
        batch[16..20].copy_from_slice(&self.events.to_le_bytes());
        batch[20..24].fill(0);
        batch[24..32].copy_from_slice(&self.first.0.to_le_bytes());
        batch[32..40].copy_from_slice(&self.epoch.0.to_le_bytes());
        batch[40..48].copy_from_slice(&self.elapsed_ms.to_le_bytes());
        let crc = crc32c::crc32c_append(key(self.epoch, seq, position, self.first), &batch[8..]);
        batch[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a header without checking its sum: enough to know how many bytes to read.
    pub(super) fn peek(bytes: &[u8]) -> Option<Self> {
        if bytes.get(..4)? != BATCH_MAGIC {
            return None;
        }
        let head = Self {
            len: u32_at(bytes, 8)?,
            events_len: u32_at(bytes, 12)?,
            events: u32_at(bytes, 16)?,
            first: Offset(u64_at(bytes, 24)?),
            epoch: Epoch(u64_at(bytes, 32)?),
            elapsed_ms: u64_at(bytes, 40)?,
        };
        let fits = head.len as usize >= BATCH_BYTES && head.events_len as usize <= head.len as usize - BATCH_BYTES;
        fits.then_some(head)
    }

    /// Checks the whole batch at the start of `bytes`, which lies at `position` of segment `seq`.
    pub(super) fn check(bytes: &[u8], seq: u64, position: u64) -> Option<Self> {
        let head = Self::peek(bytes)?;
        let batch = bytes.get(..head.len as usize)?;
        let crc = crc32c::crc32c_append(key(head.epoch, seq, position, head.first), &batch[8..]);
        (u32_at(bytes, 4)? == crc).then_some(head)
    }

    /// The position in `bytes` of the next thing that may be a batch, at or after `from`.
    pub(super) fn find(bytes: &[u8], from: usize) -> Option<usize> {
        memchr::memmem::find(bytes.get(from..)?, &BATCH_MAGIC).map(|at| from + at)
    }
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Event = 1,
    EventWithFact = 2,
    Put = 3,
    Delete = 4,
    Consumer = 5,
    ConsumerGone = 6,
    Move = 7,
    Seek = 8,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Event,
        Self::EventWithFact,
        Self::Put,
        Self::Delete,
        Self::Consumer,
        Self::ConsumerGone,
        Self::Move,
        Self::Seek,
    ];

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == code)
    }

    pub(super) fn is_event(self) -> bool {
        matches!(self, Self::Event | Self::EventWithFact)
    }
}

/// Appends one record whose body `write` adds to the buffer.
///
/// A body over [`MAX_RECORD`] cannot be said in 24 bits; an append is refused long before (see `Options::max_append`).
pub(super) fn put_record(out: &mut Vec<u8>, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; RECORD_BYTES]);
    write(out);
    let len = out.len() - at - RECORD_BYTES;
    let len = u32::try_from(len.min(MAX_RECORD)).unwrap_or(0);
    out[at..at + RECORD_BYTES].copy_from_slice(&(len | (kind as u32) << 24).to_le_bytes());
}

/// Takes the record at the start of `bytes`. `None` at the end or where the bytes are no record; a kind that this program
/// does not know is skipped, as a later version may have added it.
pub(super) fn take_record<'a>(bytes: &mut &'a [u8]) -> Option<(Option<Kind>, &'a [u8])> {
    let head = u32_at(bytes, 0)?;
    let len = (head & 0x00ff_ffff) as usize;
    let body = bytes.get(RECORD_BYTES..RECORD_BYTES + len)?;
    *bytes = &bytes[RECORD_BYTES + len..];
    Some((Kind::from_code((head >> 24) as u8), body))
}

/// Appends an unsigned integer, 7 bits a byte, least significant first.
#[expect(clippy::cast_possible_truncation, reason = "the low byte is what is meant")]
pub(super) fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n as u8) | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Takes what [`put_varint`] wrote.
pub(super) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut n = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        n |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

/// Appends a length and the bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes what [`put_bytes`] wrote.
pub(super) fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take_varint(bytes)?).ok()?;
    let taken = bytes.get(..len)?;
    *bytes = &bytes[len..];
    Some(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head() -> Head {
        Head { seq: 7, epoch: Epoch(9), first: Offset(11), elapsed_ms: 13, snapshot_len: 17, snapshot_crc: 19 }
    }

    #[test]
    fn a_head_is_read_back_and_known_by_its_name() {
        let bytes = head().encode();
        assert_eq!(Head::decode(&bytes, 7), HeadRead::Valid(head()));
        assert_eq!(Head::decode(&bytes, 8), HeadRead::Unused, "an old head under a new name");
        assert_eq!(Head::decode(&[0; HEAD_BYTES], 7), HeadRead::Unused);
        let mut later = bytes;
        later[7] = 2;
        assert_eq!(Head::decode(&later, 7), HeadRead::Damaged, "a flipped bit is no newer version");
        let crc = head_crc(&later);
        later[8..12].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Head::decode(&later, 7), HeadRead::Version(2));
        for at in (7..12).chain(16..HEAD_BYTES) {
            let mut bad = bytes;
            bad[at] ^= 1;
            assert_eq!(Head::decode(&bad, 7), HeadRead::Damaged, "byte {at}");
        }
    }

    #[test]
    fn a_batch_is_valid_only_where_it_was_written() {
        let mut batch = vec![0; BATCH_BYTES];
        put_record(&mut batch, Kind::Event, |out| out.extend_from_slice(b"payload"));
        let len = u32::try_from(batch.len()).expect("small");
        let head = BatchHead { len, events_len: len - 48, events: 1, first: Offset(5), epoch: Epoch(6), elapsed_ms: 7 };
        head.seal(&mut batch, 3, 4096);
        assert_eq!(BatchHead::check(&batch, 3, 4096), Some(head));
        assert_eq!(BatchHead::check(&batch, 4, 4096), None, "another segment");
        assert_eq!(BatchHead::check(&batch, 3, 4097), None, "another position");
        for bit in 0..batch.len() * 8 {
            let mut bad = batch.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(BatchHead::check(&bad, 3, 4096), None, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn a_varint_is_read_back(n: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, n);
            let mut rest = &out[..];
            prop_assert_eq!(take_varint(&mut rest), Some(n));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn no_bytes_make_the_decoders_panic(bytes: Vec<u8>) {
            let _ = Head::decode(&bytes, 1);
            let _ = BatchHead::check(&bytes, 1, 2);
            let mut rest = &bytes[..];
            while take_record(&mut rest).is_some() {}
            let mut rest = &bytes[..];
            while take_bytes(&mut rest).is_some() {}
        }
    }
}
