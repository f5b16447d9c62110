//! LIKE patterns (section 3.4.3): `%` for any characters, `_` for one, `\%` and `\_` for themselves, all else for itself.

use std::fmt::{self, Write as _};

/// Bytes that UTF-8 never has, in the place of the wildcards.
const ANY: u8 = 0xff;
const ONE: u8 = 0xfe;

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    shape: Shape,
    /// The text without wildcards; of a general pattern with [`ANY`] and [`ONE`] in their places.
    bytes: Box<[u8]>,
}

/// The shapes that need no search but one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Exact,
    Prefix,
    Suffix,
    Contains,
    General,
}

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        loop {
            rest = match rest {
                [] => break,
                [b'\\', c @ (b'%' | b'_'), rest @ ..] => {
                    bytes.push(*c);
                    rest
                }
                [b'%', rest @ ..] => {
                    bytes.push(ANY);
                    rest
                }
                [b'_', rest @ ..] => {
                    bytes.push(ONE);
                    rest
                }
                [c, rest @ ..] => {
                    bytes.push(*c);
                    rest
                }
            };
        }
        let literal = |bytes: &[u8]| !bytes.iter().any(|b| matches!(*b, ANY | ONE));
        let (shape, kept) = match &*bytes {
            all if literal(all) => (Shape::Exact, all),
            [ANY, inner @ .., ANY] if literal(inner) => (Shape::Contains, inner),
            [inner @ .., ANY] if literal(inner) => (Shape::Prefix, inner),
            [ANY, inner @ ..] if literal(inner) => (Shape::Suffix, inner),
            all => (Shape::General, all),
        };
        Self { shape, bytes: kept.into() }
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (&*self.bytes, text.as_bytes());
        match self.shape {
            Shape::Exact => text == pattern,
            Shape::Prefix => text.starts_with(pattern),
            Shape::Suffix => text.ends_with(pattern),
            Shape::Contains => memchr::memmem::find(text, pattern).is_some(),
            Shape::General => general(pattern, text),
        }
    }
}

/// Matches from the left. Where it goes wrong it goes on from the last `%`, which takes one character more; what an earlier
/// `%` took never needs to change, so the work is at most the product of the lengths.
fn general(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut last: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(&ANY) => {
                p += 1;
                last = Some((p, t));
            }
            Some(&ONE) => {
                p += 1;
                t += width(*byte);
            }
            Some(wanted) if wanted == byte => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((after, from)) = last else { return false };
                let from = from + text.get(from).map_or(1, |byte| width(*byte));
                (p, t) = (after, from);
                last = Some((after, from));
            }
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|b| *b == ANY)
}

/// How many bytes the character has that begins with this one.
fn width(first: u8) -> usize {
    match first {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    }
}

impl fmt::Display for Pattern {
    /// The pattern as it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(self.shape, Shape::Suffix | Shape::Contains) {
            f.write_char('%')?;
        }
        for part in self.bytes.split_inclusive(|b| matches!(*b, ANY | ONE)) {
            let (literal, wildcard) = match part {
                [literal @ .., ANY] => (literal, "%"),
                [literal @ .., ONE] => (literal, "_"),
                literal => (literal, ""),
            };
            for c in String::from_utf8_lossy(literal).chars() {
                if matches!(c, '%' | '_') {
                    f.write_char('\\')?;
                }
                f.write_char(c)?;
            }
            f.write_str(wildcard)?;
        }
        if matches!(self.shape, Shape::Prefix | Shape::Contains) {
            f.write_char('%')?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn like(text: &str, pattern: &str) -> bool {
        Pattern::new(pattern).matches(text)
    }

    #[test]
    fn wildcards_stand_for_characters_not_bytes() {
        assert!(like("größe", "gr__e"));
        assert!(like("größe", "gr_ße"));
        assert!(!like("größe", "gr____e"));
        assert!(like("日本語", "_本%"));
        assert!(like("a日", "%_日"));
        assert!(!like("日", "__"));
    }

    #[test]
    fn a_backslash_escapes_only_wildcards() {
        assert!(like("50%", r"50\%"));
        assert!(!like("500", r"50\%"));
        assert!(like(r"a\b", r"a\b"));
        assert!(like(r"a\", r"a\"));
        assert!(like(r"a\%", r"a\\%"), "the second backslash escapes the wildcard");
        assert!(like("abc", "%"));
        assert!(like("", "%"));
        assert!(like("", "%%"));
        assert!(!like("", "_"));
    }

    /// What a pattern means, letter by letter.
    fn by_definition(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['\\', c @ ('%' | '_'), rest @ ..] => text.first() == Some(c) && by_definition(rest, &text[1..]),
            ['%', rest @ ..] => (0..=text.len()).any(|n| by_definition(rest, &text[n..])),
            ['_', rest @ ..] => !text.is_empty() && by_definition(rest, &text[1..]),
            [c, rest @ ..] => text.first() == Some(c) && by_definition(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn matching_is_as_defined(pattern in "[ab%_é\\\\]{0,8}", text in "[abé%\\\\]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(like(&text, &pattern), by_definition(&chars(&pattern), &chars(&text)));
        }

        #[test]
        fn a_pattern_is_shown_as_it_was_written(pattern in "[ab%_é\\\\]{0,8}") {
            let compiled = Pattern::new(&pattern);
            prop_assert_eq!(Pattern::new(&compiled.to_string()), compiled);
        }
    }
}
