//! Numbers and byte strings of the stored form. Reading never panics and never reads past the end.

use super::StoredError;

pub(super) fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n.to_le_bytes()[0] | 0x80);
        n >>= 7;
    }
    out.push(n.to_le_bytes()[0]);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes what `write` appends with its length in front, without a second buffer.
pub(super) fn put_section(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    let end = out.len();
    put_varint(out, (end - start) as u64);
    let length_bytes = out.len() - end;
    if let Some(section) = out.get_mut(start..) {
        section.rotate_right(length_bytes);
    }
}

/// Reads fields from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn u8(&mut self) -> Result<u8, StoredError> {
        let (first, rest) = self.rest.split_first().ok_or(StoredError::Malformed("it ends too early"))?;
        self.rest = rest;
        Ok(*first)
    }

    #[inline]
    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], StoredError> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(StoredError::Malformed("it ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], StoredError> {
        self.take(N)?.try_into().map_err(|_| StoredError::Malformed("it ends too early"))
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, StoredError> {
        // Most numbers are the length of something short.
        if let [byte @ 0..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            n |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(StoredError::Malformed("a number has more than 64 bits"))
    }

    #[inline]
    pub(super) fn length(&mut self) -> Result<usize, StoredError> {
        usize::try_from(self.varint()?).map_err(|_| StoredError::Malformed("a length is too large"))
    }

    #[inline]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], StoredError> {
        let length = self.length()?;
        self.take(length)
    }

    #[inline]
    pub(super) fn text(&mut self) -> Result<&'a str, StoredError> {
        text(self.bytes()?)
    }
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, StoredError> {
    std::str::from_utf8(bytes).map_err(|_| StoredError::Malformed("a text is not UTF-8"))
}
