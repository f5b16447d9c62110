//! The rules of the CloudEvents type system (CloudEvents 1.0.2, sections 3.1 "Naming conventions" and "Type system").
//! All checks look at the text as it is and allocate nothing.

use super::error::{EventError, ValueError};

/// Longest attribute name in bytes. The specification advises 20 and demands no limit.
const MAX_NAME_BYTES: usize = 255;

/// Checks the name of a context attribute: `a-z` and `0-9`, not empty, not `data`.
///
/// # Errors
/// [`EventError::Name`].
pub fn check_attribute_name(name: &str) -> Result<(), EventError> {
    if is_attribute_name(name) { Ok(()) } else { Err(EventError::name(name)) }
}

pub(crate) fn is_attribute_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name != "data"
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// Checks a String: no control characters (U+0000-1F, U+007F-9F) and no noncharacters.
///
/// # Errors
/// [`ValueError::Character`] with the first one that must not be there.
pub fn check_string(text: &str) -> Result<(), ValueError> {
    if text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Ok(());
    }
    match text.chars().find(|&c| is_forbidden(c)) {
        Some(c) => Err(ValueError::Character { code: c.into() }),
        None => Ok(()),
    }
}

/// Whether a String must not hold this character.
pub(crate) fn is_forbidden(c: char) -> bool {
    let code = u32::from(c);
    c.is_control() || (0xFDD0..=0xFDEF).contains(&code) || (code & 0xFFFE) == 0xFFFE
}

pub(crate) fn check_required(text: &str) -> Result<(), ValueError> {
    if text.is_empty() { Err(ValueError::Empty) } else { check_string(text) }
}

/// Checks an absolute URI: a scheme and a colon, then anything that a String may hold. What follows is not judged further,
/// because senders differ in what they escape, and a broker need not resolve it.
pub(crate) fn check_uri(text: &str) -> Result<(), ValueError> {
    check_required(text)?;
    if has_scheme(text) { Ok(()) } else { Err(ValueError::Uri) }
}

/// Whether the text begins with a URI scheme (RFC 3986, section 3.1).
pub(crate) fn has_scheme(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    })
}

/// Checks an RFC 3339 timestamp (section 5.6), a leap second included.
///
/// # Errors
/// [`ValueError::Timestamp`].
pub fn check_timestamp(text: &str) -> Result<(), ValueError> {
    timestamp(text.as_bytes()).ok_or(ValueError::Timestamp)
}

fn timestamp(bytes: &[u8]) -> Option<()> {
    let (year, rest) = number(bytes, 4)?;
    let (month, rest) = number(after(rest, b"-")?, 2)?;
    let (day, rest) = number(after(rest, b"-")?, 2)?;
    let (hour, rest) = number(after(rest, b"Tt")?, 2)?;
    let (minute, rest) = number(after(rest, b":")?, 2)?;
    let (second, mut rest) = number(after(rest, b":")?, 2)?;
    if let Some(fraction) = after(rest, b".") {
        let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        rest = fraction.get(digits..)?;
    }
    let zone_holds = match rest {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', zone @ ..] => {
            let (hours, zone) = number(zone, 2)?;
            let (minutes, end) = number(after(zone, b":")?, 2)?;
            hours < 24 && minutes < 60 && end.is_empty()
        }
        _ => false,
    };
    let date_holds = (1..=12).contains(&month) && day >= 1 && day <= days_in(year, month);
    (zone_holds && date_holds && hour < 24 && minute < 60 && second <= 60).then_some(())
}

fn number(bytes: &[u8], digits: usize) -> Option<(u32, &[u8])> {
    let (text, rest) = bytes.split_at_checked(digits)?;
    let mut n = 0;
    for byte in text {
        n = n * 10 + char::from(*byte).to_digit(10)?;
    }
    Some((n, rest))
}

fn after<'a>(bytes: &'a [u8], one_of: &[u8]) -> Option<&'a [u8]> {
    let (first, rest) = bytes.split_first()?;
    one_of.contains(first).then_some(rest)
}

fn days_in(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_those_of_rfc_3339() {
        for good in [
            "2018-04-05T17:31:00Z",
            "2018-04-05t17:31:00z",
            "2018-04-05T17:31:00.123456789123+02:00",
            "1990-12-31T23:59:60Z",
            "2024-02-29T00:00:00-23:59",
        ] {
            assert_eq!(check_timestamp(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "2018-04-05",
            "2018-04-05 17:31:00Z",
            "2018-04-05T17:31:00",
            "2018-04-05T17:31:00.Z",
            "2023-02-29T00:00:00Z",
            "2018-13-05T17:31:00Z",
            "2018-04-05T24:00:00Z",
            "2018-04-05T17:31:00+2:00",
            "2018-04-05T17:31:00Zx",
            "20 8-04-05T17:31:00Z",
            "２018-04-05T17:31:00Z",
        ] {
            assert_eq!(check_timestamp(bad), Err(ValueError::Timestamp), "{bad}");
        }
    }

    #[test]
    fn strings_hold_no_control_characters_and_no_noncharacters() {
        assert_eq!(check_string("Euro € 😀 \u{ad}\u{feff}"), Ok(()));
        for bad in ['\0', '\n', '\u{1f}', '\u{7f}', '\u{9f}', '\u{fdd0}', '\u{fffe}', '\u{1ffff}', '\u{10ffff}'] {
            assert_eq!(check_string(&format!("a{bad}")), Err(ValueError::Character { code: bad.into() }));
        }
    }

    #[test]
    fn a_name_is_lower_case_letters_and_digits() {
        assert!(is_attribute_name("a1") && is_attribute_name("1"));
        for bad in ["", "A", "a-b", "a_b", "ä", "data", "data_base64"] {
            assert!(!is_attribute_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_uri_has_a_scheme() {
        assert_eq!(check_uri("urn:x"), Ok(()));
        assert_eq!(check_uri("/x:y"), Err(ValueError::Uri));
        assert_eq!(check_uri(""), Err(ValueError::Empty));
    }
}
