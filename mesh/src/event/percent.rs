//! Header values of the HTTP binding (section 3.1.3.2): which characters are percent-encoded, and how a value is read.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::error::ValueError;

/// Whether a byte travels as it is: U+0021 to U+007E but `"` and `%`.
fn is_plain(byte: u8) -> bool {
    (0x21..=0x7e).contains(&byte) && byte != b'"' && byte != b'%'
}

/// Whether a value must be percent-encoded to travel in a header.
pub(crate) fn needs_encoding(text: &str) -> bool {
    !text.bytes().all(is_plain)
}

/// The value as a header carries it.
pub(crate) fn encode(text: &str) -> Cow<'_, str> {
    if !needs_encoding(text) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}"); // writing to a String cannot fail
        }
    }
    Cow::Owned(out)
}

/// Reads a header value: a quoted string is unquoted, then exactly one round of percent-decoding is made. A `%` without two
/// hexadecimal digits stands for itself.
pub(crate) fn decode(value: &[u8]) -> Result<String, ValueError> {
    let value = unquoted(value.trim_ascii());
    let mut out = Vec::with_capacity(value.len());
    let mut rest: &[u8] = &value;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%'
            && let [high, low, after @ ..] = after
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            out.push(high << 4 | low);
            rest = after;
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).map_err(|_| ValueError::Utf8)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|n| u8::try_from(n).ok())
}

/// What a quoted string (RFC 9110, section 5.6.4) stands for; anything else stands for itself.
fn unquoted(value: &[u8]) -> Cow<'_, [u8]> {
    let [b'"', inner @ .., b'"'] = value else { return Cow::Borrowed(value) };
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => match bytes.next() {
                Some(&escaped) => out.push(escaped),
                None => return Cow::Borrowed(value), // the closing quote was an escaped one: no quoted string
            },
            b'"' => return Cow::Borrowed(value),
            _ => out.push(byte),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(text: &str) -> Result<String, ValueError> {
        decode(text.as_bytes())
    }

    #[test]
    fn the_examples_of_the_binding_hold_both_ways() {
        assert_eq!(encode("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(decoded("Euro%20%E2%82%AC%20%F0%9F%98%80").as_deref(), Ok("Euro € 😀"));
        assert_eq!(decoded("\"Euro € \\\"x\\\"\"").as_deref(), Ok("Euro € \"x\""));
    }

    #[test]
    fn exactly_one_round_is_decoded() {
        assert_eq!(decoded("%2525").as_deref(), Ok("%25"));
    }

    #[test]
    fn a_lone_percent_sign_stands_for_itself() {
        for text in ["100%", "%", "%4", "%zz", "%%41"] {
            assert_eq!(decoded(text).as_deref(), Ok(text.replace("%41", "A").as_str()));
        }
    }

    #[test]
    fn escapes_that_are_no_utf_8_are_refused() {
        for text in ["%C0%A0", "%FF", "%ED%A0%80", "\u{e9}%C3"] {
            assert_eq!(decoded(text), Err(ValueError::Utf8), "{text}");
        }
    }

    #[test]
    fn what_only_looks_quoted_stands_for_itself() {
        for text in ["\"", "a \"b\"", "\"a\" b \"c\"", "\"a\\\""] {
            assert_eq!(decoded(text).as_deref(), Ok(text));
        }
    }

    proptest! {
        #[test]
        fn every_text_survives_a_header(text in any::<String>()) {
            let header = encode(&text);
            prop_assert!(header.bytes().all(|b| (0x21..=0x7e).contains(&b)));
            prop_assert_eq!(decode(header.as_bytes()), Ok(text));
        }
    }
}
