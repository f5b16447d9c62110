//! Unsigned integers in groups of seven bits, the least first; and a cursor over bytes from outside.

use super::SyncError;

/// Appends `n`.
#[allow(clippy::cast_possible_truncation)] // What is pushed last is below 128.
pub(crate) fn put(out: &mut Vec<u8>, mut n: u64) {
    while n > 0x7f {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Maps small negative numbers to small positive ones.
pub(crate) const fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

/// The other way.
pub(crate) const fn unzigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

/// Reads the number at the beginning of `bytes`: its value and length. `None` if more bytes are needed.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<(u64, usize)>, SyncError> {
    let mut n = 0u64;
    for (i, &b) in bytes.iter().enumerate().take(10) {
        if i == 9 && b > 1 {
            break;
        }
        n |= u64::from(b & 0x7f) << (7 * i);
        if b & 0x80 == 0 {
            return Ok(Some((n, i + 1)));
        }
    }
    if bytes.len() < 10 { Ok(None) } else { Err(SyncError::malformed("number", "more than 64 bits")) }
}

/// What is left to read of a byte string.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn number(&mut self) -> Result<u64, SyncError> {
        match read(self.0)? {
            Some((n, len)) => {
                self.0 = self.0.get(len..).unwrap_or_default();
                Ok(n)
            }
            None => Err(SyncError::malformed("columns", "a number is cut off")),
        }
    }

    /// A number that must not exceed `limit`.
    pub(crate) fn count(&mut self, what: &'static str, limit: usize) -> Result<usize, SyncError> {
        let n = self.number()?;
        match usize::try_from(n) {
            Ok(size) if size <= limit => Ok(size),
            _ => Err(SyncError::TooLarge { what, size: n, limit: limit as u64 }),
        }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], SyncError> {
        match self.0.split_at_checked(len) {
            Some((head, rest)) => {
                self.0 = rest;
                Ok(head)
            }
            None => Err(SyncError::malformed("columns", "bytes are cut off")),
        }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, SyncError> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }

    /// Everything up to the next `\n`, which is passed over.
    pub(crate) fn line(&mut self) -> Result<&'a [u8], SyncError> {
        match memchr::memchr(b'\n', self.0) {
            Some(at) => {
                let line = self.take(at)?;
                self.byte()?;
                Ok(line)
            }
            None => Err(SyncError::malformed("columns", "a line is cut off")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_is_read_back(n: u64, rest: Vec<u8>) {
            let mut out = Vec::new();
            put(&mut out, n);
            let len = out.len();
            prop_assert!(len == 10 || read(&out[..len - 1]).expect("no error").is_none());
            out.extend(rest);
            prop_assert_eq!(read(&out).expect("valid"), Some((n, len)));
        }

        #[test]
        fn a_sign_folds_both_ways(n: i64) {
            prop_assert_eq!(unzigzag(zigzag(n)), n);
        }
    }

    #[test]
    fn a_number_of_more_than_64_bits_is_refused() {
        assert!(read(&[0xff; 11]).is_err());
        assert!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]).is_err());
    }
}
