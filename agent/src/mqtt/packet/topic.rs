//! Topic names and topic filters (5.0, 4.7).

use super::{Fault, reason};
use crate::mqtt::limits::Limits;

/// Checks a topic name that is UTF-8 already: not empty, no wildcards, within the limits.
///
/// # Errors
/// A fault with reason 0x90.
#[inline]
pub(in crate::mqtt) fn check_name(topic: &str, limits: &Limits) -> Result<(), Fault> {
    let bad = |text| Err(Fault::new(reason::TOPIC_NAME_INVALID, text));
    if topic.is_empty() {
        return bad("the topic name is empty");
    }
    let mut levels = 1;
    for byte in topic.bytes() {
        match byte {
            b'+' | b'#' => return bad("the topic name holds a wildcard"),
            b'/' => levels += 1,
            _ => {}
        }
    }
    if topic.len() > limits.max_topic_bytes || levels > limits.max_topic_levels {
        return bad("the topic name is longer or deeper than this listener takes");
    }
    Ok(())
}

/// Whether a topic filter is well-formed: `#` only as the last level, `+` only as a whole level (5.0, 4.7.1), within the
/// limits.
pub(in crate::mqtt) fn filter_is_valid(filter: &str, limits: &Limits) -> bool {
    if filter.is_empty() || filter.len() > limits.max_filter_bytes {
        return false;
    }
    let mut levels = 0;
    let mut ended = false;
    for level in filter.split('/') {
        levels += 1;
        if ended || (level.len() > 1 && level.contains(['+', '#'])) {
            return false;
        }
        ended = level == "#";
    }
    levels <= limits.max_topic_levels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_name_has_no_wildcards_and_is_not_empty() {
        let limits = Limits { max_topic_levels: 3, max_topic_bytes: 10, ..Limits::default() };
        assert!(check_name("a/b/c", &limits).is_ok());
        assert!(check_name("/", &limits).is_ok());
        for bad in ["", "a/+", "#", "a#b", "a/b/c/d", "abcdefghijk"] {
            assert!(check_name(bad, &limits).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn wildcards_stand_for_whole_levels_and_the_last_one_only_at_the_end() {
        let limits = Limits::default();
        for good in ["#", "+", "a/#", "+/+", "/+", "a//b", "/", "$SYS/#"] {
            assert!(filter_is_valid(good, &limits), "{good:?}");
        }
        for bad in ["", "a#", "#/a", "a/#/b", "a+", "+a/b", "a/b+", "##"] {
            assert!(!filter_is_valid(bad, &limits), "{bad:?}");
        }
    }
}
