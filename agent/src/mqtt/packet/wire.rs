//! The data representations of MQTT (5.0, 1.5): integers, strings, binary data. Readers never go past the end they were given.

use super::Fault;

/// The largest variable byte integer.
pub(in crate::mqtt) const MAX_VARINT: usize = 268_435_455;

/// A cursor over bytes from outside.
#[derive(Debug, Clone, Copy)]
pub(in crate::mqtt) struct Wire<'a>(&'a [u8]);

impl<'a> Wire<'a> {
    pub(in crate::mqtt) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What has not been read yet.
    pub(in crate::mqtt) const fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(in crate::mqtt) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `n` bytes.
    pub(in crate::mqtt) fn take(&mut self, n: usize) -> Result<&'a [u8], Fault> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(Fault::malformed("the packet ends too early"))?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(Fault::malformed("the packet ends too early"))?;
        self.0 = tail;
        Ok(*head)
    }

    pub(in crate::mqtt) fn u8(&mut self) -> Result<u8, Fault> {
        self.array::<1>().map(|[b]| b)
    }

    pub(in crate::mqtt) fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    pub(in crate::mqtt) fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_be_bytes)
    }

    /// A variable byte integer of at most four bytes.
    pub(in crate::mqtt) fn varint(&mut self) -> Result<usize, Fault> {
        let mut value = 0usize;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Fault::malformed("a variable byte integer has more than four bytes"))
    }

    /// Binary data with a two-byte length.
    pub(in crate::mqtt) fn binary(&mut self) -> Result<&'a [u8], Fault> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A UTF-8 string: well-formed and without U+0000 (5.0, 1.5.4).
    pub(in crate::mqtt) fn text(&mut self) -> Result<&'a str, Fault> {
        let bytes = self.binary()?;
        let text = std::str::from_utf8(bytes).map_err(|_| Fault::malformed("a string is not UTF-8"))?;
        if bytes.contains(&0) {
            return Err(Fault::malformed("a string holds U+0000"));
        }
        Ok(text)
    }
}

/// Appends a variable byte integer.
pub(in crate::mqtt) fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    debug_assert!(value <= MAX_VARINT);
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0x7f);
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// How many bytes [`put_varint`] would write.
pub(in crate::mqtt) const fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// Appends bytes with a two-byte length; the caller has made sure that they fit.
pub(in crate::mqtt) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes.get(..usize::from(len)).unwrap_or(bytes));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_variable_byte_integer_comes_back_as_it_went(value in 0usize..=MAX_VARINT) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            let mut wire = Wire::new(&out);
            prop_assert_eq!(wire.varint(), Ok(value));
            prop_assert!(wire.is_empty());
        }
    }

    #[test]
    fn a_fifth_continuation_is_malformed() {
        assert!(Wire::new(&[0xff, 0xff, 0xff, 0xff, 0x01]).varint().is_err());
    }

    #[test]
    fn a_string_with_a_zero_or_broken_utf_8_is_malformed() {
        assert_eq!(Wire::new(b"\x00\x02ab").text(), Ok("ab"));
        assert!(Wire::new(b"\x00\x02a\x00").text().is_err());
        assert!(Wire::new(b"\x00\x02\xc0\x80").text().is_err());
        assert!(Wire::new(b"\x00\x03\xed\xa0\x80").text().is_err());
        assert!(Wire::new(b"\x00\x05ab").text().is_err());
    }
}
