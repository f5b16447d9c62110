//! The table of segments: which files there are, what they are called, where their offsets begin.

use std::collections::VecDeque;

use super::Offset;

/// One segment file that holds events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) seq: u64,
    pub(super) first: Offset,
    /// Bytes of the file.
    pub(super) len: u64,
    /// The journal's elapsed time at which the segment was begun, where it has been read already.
    pub(super) begun_ms: Option<u64>,
}

impl Segment {
    pub(super) fn name(&self) -> String {
        format!("seg-{:016x}-{:016x}", self.seq, self.first.0)
    }

    /// The sequence number and first offset that a file name tells.
    pub(super) fn parse(name: &str) -> Option<(u64, Offset)> {
        let (seq, first) = name.strip_prefix("seg-")?.split_once('-')?;
        if seq.len() != 16 || first.len() != 16 {
            return None;
        }
        Some((u64::from_str_radix(seq, 16).ok()?, Offset(u64::from_str_radix(first, 16).ok()?)))
    }
}

/// The segments in order. The last one is being written.
pub(super) type Table = VecDeque<Segment>;

/// The segment that holds `offset`, and the offset at which the next one begins, if there is a next one.
///
/// An offset before the first segment answers with the first.
pub(super) fn find(table: &Table, offset: Offset) -> Option<(&Segment, Option<Offset>)> {
    // Several segments may begin at the same offset, when one of them got no event: the last of them holds it.
    let at = table.partition_point(|s| s.first <= offset).saturating_sub(1);
    let segment = table.get(at)?;
    Some((segment, table.get(at + 1).map(|s| s.first)))
}

/// The name of a file made ready for later.
pub(super) fn spare_name(n: u64) -> String {
    format!("spare-{n:016x}")
}

/// The number that a spare's name tells.
pub(super) fn parse_spare(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("spare-")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_what_is_in_the_file() {
        let segment = Segment { seq: 18, first: Offset(255), len: 0, begun_ms: None };
        assert_eq!(segment.name(), "seg-0000000000000012-00000000000000ff");
        assert_eq!(Segment::parse(&segment.name()), Some((18, Offset(255))));
        for other in ["seg-12-ff", "seg-", "spare-0000000000000001", "lock"] {
            assert_eq!(Segment::parse(other), None, "{other}");
        }
    }

    #[test]
    fn an_offset_is_found_in_the_last_segment_that_begins_at_or_before_it() {
        let segment = |seq, first| Segment { seq, first: Offset(first), len: 0, begun_ms: None };
        let table: Table = [segment(1, 10), segment(2, 20), segment(3, 20)].into();
        let seq = |offset| find(&table, Offset(offset)).map(|(s, next)| (s.seq, next.map(|n| n.0)));
        assert_eq!(seq(5), Some((1, Some(20))));
        assert_eq!(seq(19), Some((1, Some(20))));
        assert_eq!(seq(20), Some((3, None)));
        assert_eq!(find(&Table::new(), Offset(0)), None);
    }
}
