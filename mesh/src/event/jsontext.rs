//! Whether bytes are JSON (RFC 8259), found without an allocation and without building anything: asked of every plain MQTT
//! payload before it is acknowledged.

/// Nesting deeper than this is not taken for JSON; common parsers stop at 128.
const MAX_DEPTH: usize = 256;

/// Whether `bytes` are one JSON text, white space around it included.
pub(crate) fn is_json(bytes: &[u8]) -> bool {
    let mut scan = Scan { bytes, at: 0 };
    let mut nesting = Nesting { objects: [0; MAX_DEPTH / 64], depth: 0, in_object: false };
    if !scan.value(&mut nesting) {
        return false;
    }
    while nesting.depth > 0 {
        if !scan.member(&mut nesting) {
            return false;
        }
    }
    scan.skip_space();
    // Outside of strings only ASCII has been let through; inside, any byte: so all of it is looked at once.
    scan.at == bytes.len() && std::str::from_utf8(bytes).is_ok()
}

/// Which of the open brackets are braces.
struct Nesting {
    objects: [u64; MAX_DEPTH / 64],
    depth: usize,
    /// Whether the innermost is one.
    in_object: bool,
}

impl Nesting {
    fn open(&mut self, object: bool) -> bool {
        let Some(word) = self.objects.get_mut(self.depth / 64) else { return false };
        let bit = 1 << (self.depth % 64);
        *word = *word & !bit | if object { bit } else { 0 };
        self.depth += 1;
        self.in_object = object;
        true
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        let last = self.depth.saturating_sub(1);
        self.in_object = self.objects.get(last / 64).is_some_and(|word| word & (1 << (last % 64)) != 0);
    }
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    #[inline]
    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// A value; of an object or array that is not empty only the beginning, up to its first value that is none of these.
    fn value(&mut self, nesting: &mut Nesting) -> bool {
        loop {
            self.skip_space();
            let Some(byte) = self.peek() else { return false };
            self.at += 1;
            match byte {
                b'"' => return self.string(),
                b'{' => {
                    self.skip_space();
                    if self.take(b'}') {
                        return true;
                    }
                    if !nesting.open(true) || !self.key() {
                        return false;
                    }
                }
                b'[' => {
                    self.skip_space();
                    if self.take(b']') {
                        return true;
                    }
                    if !nesting.open(false) {
                        return false;
                    }
                }
                b'-' | b'0'..=b'9' => {
                    self.at -= 1;
                    return self.number();
                }
                b't' => return self.word(b"rue"),
                b'f' => return self.word(b"alse"),
                b'n' => return self.word(b"ull"),
                _ => return false,
            }
        }
    }

    /// What follows a value inside of an object or array: its end, or a comma and the next value.
    #[inline]
    fn member(&mut self, nesting: &mut Nesting) -> bool {
        self.skip_space();
        let next = self.peek();
        self.at += 1;
        match next {
            Some(b',') if nesting.in_object => {
                self.skip_space();
                self.key() && self.value(nesting)
            }
            Some(b',') => self.value(nesting),
            Some(b'}') if nesting.in_object => {
                nesting.close();
                true
            }
            Some(b']') if !nesting.in_object => {
                nesting.close();
                true
            }
            _ => false,
        }
    }

    fn key(&mut self) -> bool {
        if !(self.take(b'"') && self.string()) {
            return false;
        }
        self.skip_space();
        self.take(b':')
    }

    fn word(&mut self, rest: &[u8]) -> bool {
        let there = self.bytes.get(self.at..).is_some_and(|bytes| bytes.starts_with(rest));
        self.at += rest.len();
        there
    }

    /// Skips digits; whether there were any.
    #[inline]
    fn digits(&mut self) -> bool {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let count = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        self.at += count;
        count > 0
    }

    fn number(&mut self) -> bool {
        self.take(b'-');
        if !self.take(b'0') && !self.digits() {
            return false;
        }
        let mut next = self.peek();
        if next == Some(b'.') {
            self.at += 1;
            if !self.digits() {
                return false;
            }
            next = self.peek();
        }
        if matches!(next, Some(b'e' | b'E')) {
            self.at += 1;
            let _sign = self.take(b'+') || self.take(b'-');
            return self.digits();
        }
        true
    }

    /// The rest of a string whose opening quote has been taken.
    fn string(&mut self) -> bool {
        loop {
            self.skip_plain();
            let Some(byte) = self.peek() else { return false };
            self.at += 1;
            match byte {
                b'"' => return true,
                b'\\' => {
                    let Some(escape) = self.peek() else { return false };
                    self.at += 1;
                    let holds = match escape {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => true,
                        b'u' => {
                            let digits = self.bytes.get(self.at..self.at + 4);
                            self.at += 4;
                            digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
                        }
                        _ => false,
                    };
                    if !holds {
                        return false;
                    }
                }
                0..0x20 => return false,
                _ => {}
            }
        }
    }

    /// Skips eight bytes at a time while none of them is a quote, a backslash or a control character.
    fn skip_plain(&mut self) {
        const ONES: u64 = u64::MAX / 255;
        const HIGHS: u64 = ONES << 7;
        while let Some(Ok(chunk)) = self.bytes.get(self.at..self.at + 8).map(<[u8; 8]>::try_from) {
            let word = u64::from_le_bytes(chunk);
            let zero_where = |byte: u8| {
                let x = word ^ (ONES * u64::from(byte));
                x.wrapping_sub(ONES) & !x & HIGHS
            };
            let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
            if zero_where(b'"') | zero_where(b'\\') | control != 0 {
                return;
            }
            self.at += 8;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What serde_json thinks of it.
    fn reference(bytes: &[u8]) -> bool {
        std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
    }

    #[test]
    fn json_is_told_from_what_is_nearly_json() {
        let good: [&[u8]; 12] = [
            b" {} ",
            b"[]",
            b"[[],{}]",
            b"23.5",
            b"-0",
            b"1e+9",
            b"\"a\\u00e9\\n\"",
            b"{\"a\":[1,2,{\"b\":null}],\"c\":true}",
            b"\ttrue\r\n",
            "\"é, longer than eight bytes €\"".as_bytes(),
            b"[1 , 2]",
            b"12345678901234567890.10",
        ];
        for text in good {
            assert!(is_json(text) && reference(text), "{}", String::from_utf8_lossy(text));
        }
        let bad: [&[u8]; 22] = [
            b"",
            b" ",
            b"{",
            b"[1,]",
            b"{\"a\"}",
            b"{a:1}",
            b"01",
            b"1.",
            b".5",
            b"+1",
            b"tru",
            b"nulll",
            b"\"a",
            b"\"\x01\"",
            b"\"\\x\"",
            b"\"\\u12\"",
            b"{\"a\":1,}",
            b"1 2",
            b"[1}",
            b"\"\xff\"",
            b"{} x",
            b"-",
        ];
        for text in bad {
            assert!(!is_json(text) && !reference(text), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn nesting_ends_somewhere_and_needs_no_stack() {
        let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
        assert!(is_json(nested(MAX_DEPTH).as_bytes()));
        assert!(!is_json(nested(1_000_000).as_bytes()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_as_serde_json_does(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(is_json(&bytes), reference(&bytes));
        }

        #[test]
        fn text_of_json_characters_is_judged_as_serde_json_does(text in "[\\[\\]{}:,\"\\\\ue0-9tfnalrs .+\\-Eé]{0,24}") {
            prop_assert_eq!(is_json(text.as_bytes()), reference(text.as_bytes()));
        }
    }
}
