//! The bytes of one simulated file: sparse blocks, shared between the states that have them in common.
//!
//! Copying a content copies one pointer per 4 KiB, so that thousands of states after a power cut cost little. A block that
//! was never written or allocated takes no space and reads as zeros.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

/// What space is given out in, in bytes.
pub(super) const BLOCK: usize = 4096;

/// What a drive writes whole or not at all, in bytes.
pub(super) const SECTOR: u64 = 512;

/// Longest simulated file in bytes; more is answered with `EFBIG`.
pub(super) const MAX_FILE: u64 = 1 << 30;

type Block = Arc<[u8; BLOCK]>;

static ZEROS: LazyLock<Block> = LazyLock::new(|| Arc::new([0; BLOCK]));

/// The bytes of a file.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    len: u64,
    blocks: Vec<Option<Block>>,
    /// How many of `blocks` take space.
    taken: u64,
}

impl Content {
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// The space taken, in bytes.
    pub(super) const fn used(&self) -> u64 {
        self.taken * BLOCK as u64
    }

    pub(super) fn read(&self, buf: &mut [u8], at: u64) -> usize {
        let end = self.len.min(at.saturating_add(buf.len() as u64));
        if at >= end {
            return 0;
        }
        let mut done = 0;
        for (block, within) in pieces(at..end) {
            let out = &mut buf[done..done + within.len()];
            done += within.len();
            match self.blocks.get(block).and_then(Option::as_ref) {
                Some(bytes) => out.copy_from_slice(&bytes[within]),
                None => out.fill(0),
            }
        }
        done
    }

    pub(super) fn write(&mut self, data: &[u8], at: u64) {
        let end = at + data.len() as u64;
        let mut done = 0;
        for (block, within) in pieces(at..end) {
            let bytes = Arc::make_mut(self.block(block));
            let part = &data[done..done + within.len()];
            done += within.len();
            bytes[within].copy_from_slice(part);
        }
        self.len = self.len.max(end);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let (whole, rest) = (block_of(len), within_block(len));
            let keep = whole + usize::from(rest > 0);
            if keep < self.blocks.len() {
                self.taken -= self.blocks.drain(keep..).flatten().count() as u64;
            }
            if let Some(Some(last)) = self.blocks.get_mut(whole) {
                Arc::make_mut(last)[rest..].fill(0);
            }
        }
        self.len = len;
    }

    pub(super) fn allocate(&mut self, len: u64) {
        for (block, _) in pieces(0..len) {
            self.block(block);
        }
        self.len = self.len.max(len);
    }

    /// How many of the first bytes of a write to `range` fit into `free` more bytes of space.
    pub(super) fn fitting(&self, range: Range<u64>, free: u64) -> u64 {
        let mut blocks = free / BLOCK as u64;
        let mut fit = 0;
        for (block, within) in pieces(range) {
            if self.blocks.get(block).is_none_or(Option::is_none) {
                if blocks == 0 {
                    break;
                }
                blocks -= 1;
            }
            fit += within.len() as u64;
        }
        fit
    }

    fn block(&mut self, index: usize) -> &mut Block {
        if index >= self.blocks.len() {
            self.blocks.resize(index + 1, None);
        }
        let slot = &mut self.blocks[index];
        self.taken += u64::from(slot.is_none());
        slot.get_or_insert_with(|| ZEROS.clone())
    }
}

fn block_of(at: u64) -> usize {
    usize::try_from(at / BLOCK as u64).unwrap_or(usize::MAX)
}

fn within_block(at: u64) -> usize {
    usize::try_from(at % BLOCK as u64).unwrap_or_default()
}

/// The blocks that a range of bytes touches, each with the bytes touched in it.
fn pieces(range: Range<u64>) -> impl Iterator<Item = (usize, Range<usize>)> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        if at >= range.end {
            return None;
        }
        let start = within_block(at);
        let len = (BLOCK - start).min(usize::try_from(range.end - at).unwrap_or(BLOCK));
        let piece = (block_of(at), start..start + len);
        at += len as u64;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_read_as_zeros_and_take_no_space() {
        let mut content = Content::default();
        content.write(b"tail", 3 * BLOCK as u64 - 2);
        assert_eq!((content.len(), content.used()), (3 * BLOCK as u64 + 2, 2 * BLOCK as u64));
        let mut buf = [9; 8];
        assert_eq!(content.read(&mut buf, 3 * BLOCK as u64 - 4), 6);
        assert_eq!(&buf, b"\0\0tail\x09\x09");
        assert_eq!(content.fitting(0..3 * BLOCK as u64, BLOCK as u64), BLOCK as u64);
    }

    #[test]
    fn what_was_cut_off_is_zero_when_the_file_grows_again() {
        let mut content = Content::default();
        content.write(&[7; 2 * BLOCK], 0);
        let before = content.clone();
        content.set_len(10);
        content.allocate(20);
        let mut buf = [1; 20];
        assert_eq!(content.read(&mut buf, 0), 20);
        assert_eq!(buf, [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((content.used(), before.used()), (BLOCK as u64, 2 * BLOCK as u64));
        assert_eq!(before.read(&mut buf, 0), 20);
        assert_eq!(buf, [7; 20]);
    }
}
