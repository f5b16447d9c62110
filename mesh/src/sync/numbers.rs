//! Text that repeats but for its numbers: a skeleton, and the numbers that go into it.
//!
//! Telemetry is mostly the same JSON over and over with other numbers in it. Taking the numbers out lets the skeleton be sent
//! once a batch and puts like numbers side by side, which compresses to half. Nothing is parsed as a number: the bytes
//! are cut out and put back, so any text at all comes back as it was.

/// Stands for a number in a skeleton; text that has this byte is not taken apart.
pub(super) const HOLE: u8 = 0;

/// Most numbers of one text; text with more is not taken apart.
const MAX_NUMBERS: usize = 512;

/// Longest text that is taken apart, in bytes.
const MAX_TEXT: usize = 16 << 10;

const fn continues(b: u8) -> bool {
    matches!(b, b'0'..=b'9' | b'.' | b'e' | b'+' | b'-')
}

/// Takes `text` apart: the skeleton is appended to `skeleton`, the numbers to `numbers`. `false`, and nothing appended, if it
/// has no numbers or is not worth it.
pub(super) fn split<'a>(text: &'a [u8], skeleton: &mut Vec<u8>, numbers: &mut Vec<&'a [u8]>) -> bool {
    if text.len() > MAX_TEXT {
        return false;
    }
    let (skeleton_before, numbers_before) = (skeleton.len(), numbers.len());
    let mut rest = text;
    let mut copied_to = 0;
    let mut at = 0;
    while let Some(&b) = rest.first() {
        let begins = b.is_ascii_digit() || (b == b'-' && rest.get(1).is_some_and(u8::is_ascii_digit));
        if !begins {
            if b == HOLE {
                skeleton.truncate(skeleton_before);
                numbers.truncate(numbers_before);
                return false;
            }
            at += 1;
            rest = rest.get(1..).unwrap_or_default();
            continue;
        }
        let len = 1 + rest.iter().skip(1).take_while(|&&b| continues(b)).count();
        let (number, after) = rest.split_at(len);
        skeleton.extend_from_slice(text.get(copied_to..at).unwrap_or_default());
        skeleton.push(HOLE);
        numbers.push(number);
        at += len;
        copied_to = at;
        rest = after;
        if numbers.len() - numbers_before > MAX_NUMBERS {
            break;
        }
    }
    let found = numbers.len() - numbers_before;
    if found == 0 || found > MAX_NUMBERS {
        skeleton.truncate(skeleton_before);
        numbers.truncate(numbers_before);
        return false;
    }
    skeleton.extend_from_slice(text.get(copied_to..).unwrap_or_default());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_leave_holes() {
        let (mut skeleton, mut numbers) = (Vec::new(), Vec::new());
        assert!(split(br#"{"a":-1.50e-3,"b":[0,12]}"#, &mut skeleton, &mut numbers));
        assert_eq!(skeleton, b"{\"a\":\0,\"b\":[\0,\0]}");
        assert_eq!(numbers, [b"-1.50e-3".as_slice(), b"0", b"12"]);
    }

    #[test]
    fn text_without_numbers_or_with_a_hole_is_left_alone() {
        let (mut skeleton, mut numbers) = (Vec::new(), Vec::new());
        assert!(!split(b"on", &mut skeleton, &mut numbers));
        assert!(!split(b"1 \0 2", &mut skeleton, &mut numbers));
        assert!(skeleton.is_empty() && numbers.is_empty());
    }
}
