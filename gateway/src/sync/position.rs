//! What the gateway has of one agent's broker: for each epoch, up to which offset.
//!
//! An epoch is one opening of one journal and its events come in order, so the newest epoch that both know, at the smaller of the
//! two ends, is the last common point. Kept as two facts in the broker's journal: the current span, which changes with
//! every append and is small, and the older ones, which change when an epoch begins. Both are written in the append of the
//! events they speak of. So is a third, the events that were refused for good: the position passes them, so if the answer that says so
//! is lost, the agent must still be told when it comes back.

use std::sync::Arc;

use godwit_mesh::journal::{Append, Epoch, Journal, Offset};
use godwit_mesh::names::AgentId;
use godwit_mesh::sync::frame::Standing;

/// Epochs remembered for each agent and broker.
const MAX_SPANS: usize = 64;

const SPAN_BYTES: usize = 24;

/// Refused events remembered for each agent and broker, the newest: more than are on their way at a time, for they are large, or
/// made by no agent of ours.
const MAX_REFUSALS: usize = 256;

/// Bytes kept of the reason for a refusal.
const MAX_WHY_BYTES: usize = 160;

/// What is stored of one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) epoch: Epoch,
    /// The first offset stored under it.
    pub(super) first: Offset,
    /// The offset after the last one stored under it.
    pub(super) end: Offset,
}

/// Where an agent's broker goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Common {
    /// The offset that comes next.
    pub(super) next: Offset,
    /// Whether the gateway has something that is not in the agent's lineage.
    pub(super) forked: bool,
}

/// An event that was refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) epoch: Epoch,
    pub(super) offset: Offset,
    pub(super) why: Arc<str>,
}

/// What the gateway has of one agent's broker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Seen {
    /// The current epoch last.
    spans: Vec<Span>,
    /// In the order in which they were refused.
    refusals: Vec<Refusal>,
}

impl Seen {
    /// Reads the facts of `agent`.
    pub(super) fn load(journal: &Journal, agent: &AgentId) -> Self {
        let mut spans = journal.fact(&history_key(agent)).map(|bytes| decode(&bytes)).unwrap_or_default();
        spans.extend(journal.fact(&key(agent)).and_then(|bytes| decode(&bytes).into_iter().next()));
        let refusals = journal.fact(&refusals_key(agent)).map(|bytes| decode_refusals(&bytes)).unwrap_or_default();
        Self { spans, refusals }
    }

    /// Notes that an event is refused for good.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refusals.push(refusal);
        if self.refusals.len() > MAX_REFUSALS {
            self.refusals.remove(0);
        }
    }

    /// The refusals before `next` that an agent which stands so may not have heard of.
    pub(super) fn unheard(&self, standing: &Standing, next: Offset) -> Vec<(u64, String)> {
        let of_its_own = |refusal: &Refusal| {
            let under = standing.lineage.iter().rev().find(|(_, first)| *first <= refusal.offset.0);
            under.is_some_and(|(epoch, _)| *epoch == refusal.epoch.0)
        };
        let open = standing.cursor..next.0;
        let unheard = self.refusals.iter().filter(|refusal| open.contains(&refusal.offset.0) && of_its_own(refusal));
        unheard.map(|refusal| (refusal.offset.0, refusal.why.to_string())).collect()
    }

    /// Forgets the refusals that an agent which stands so has heard of. They go from the journal with the next refusal.
    pub(super) fn heard(&mut self, standing: &Standing) {
        self.refusals.retain(|refusal| refusal.offset.0 >= standing.cursor);
    }

    /// The current epoch.
    pub(super) fn current(&self) -> Option<Span> {
        self.spans.last().copied()
    }

    /// The last common point with an agent that stands so.
    pub(super) fn common(&self, standing: &Standing) -> Common {
        let mut end = standing.next;
        for &(epoch, first) in standing.lineage.iter().rev() {
            if let Some(at) = self.spans.iter().rposition(|span| span.epoch.0 == epoch)
                && let Some(span) = self.spans.get(at)
            {
                let forked = at + 1 != self.spans.len() || span.end.0 > end;
                return Common { next: Offset(span.end.0.min(end)), forked };
            }
            end = first;
        }
        Common { next: Offset(0), forked: !self.spans.is_empty() }
    }

    /// Notes that `[from, to)` is stored under `epoch`; whether the older spans have changed.
    pub(super) fn note(&mut self, epoch: Epoch, from: Offset, to: Offset) -> bool {
        match self.spans.iter().rposition(|span| span.epoch == epoch) {
            Some(at) if at + 1 == self.spans.len() => {
                if let Some(span) = self.spans.last_mut() {
                    span.end = to;
                }
                false
            }
            known => {
                let first = known.map(|at| self.spans.remove(at).first);
                self.spans.push(Span { epoch, first: first.unwrap_or(from), end: to });
                if self.spans.len() > MAX_SPANS {
                    self.spans.remove(0);
                }
                true
            }
        }
    }

    /// Writes the facts into the append that stores the events.
    pub(super) fn put(&self, append: &mut Append<'_>, agent: &AgentId, older_too: bool, refusals_too: bool) {
        let Some((current, older)) = self.spans.split_last() else { return };
        append.put(&key(agent), &encode(&[*current]));
        if older_too {
            append.put(&history_key(agent), &encode(older));
        }
        if refusals_too {
            append.put(&refusals_key(agent), &encode_refusals(&self.refusals));
        }
    }
}

/// The agents that have a position in this journal.
pub(super) fn agents(journal: &Journal) -> impl Iterator<Item = AgentId> {
    let facts = journal.facts(b"p");
    facts.into_iter().filter_map(|(key, _)| AgentId::new(std::str::from_utf8(key.get(1..)?).ok()?).ok())
}

fn key(agent: &AgentId) -> Vec<u8> {
    [b"p", agent.as_str().as_bytes()].concat()
}

/// No agent's name has a zero byte.
fn history_key(agent: &AgentId) -> Vec<u8> {
    [b"p", agent.as_str().as_bytes(), b"\0h"].concat()
}

fn refusals_key(agent: &AgentId) -> Vec<u8> {
    [b"p", agent.as_str().as_bytes(), b"\0r"].concat()
}

/// One after the other: epoch, offset, length of the reason (2 bytes), reason.
fn encode_refusals(refusals: &[Refusal]) -> Vec<u8> {
    let mut out = Vec::new();
    for refusal in refusals {
        let end = (0..=MAX_WHY_BYTES.min(refusal.why.len())).rev().find(|&at| refusal.why.is_char_boundary(at));
        let why = refusal.why.get(..end.unwrap_or_default()).unwrap_or_default();
        let length = u16::try_from(why.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&refusal.epoch.0.to_be_bytes());
        out.extend_from_slice(&refusal.offset.0.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(why.as_bytes());
    }
    out
}

/// Refusals as they were kept, as far as they can be read.
fn decode_refusals(mut bytes: &[u8]) -> Vec<Refusal> {
    let mut take = || {
        let (epoch, rest) = bytes.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (why, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        bytes = rest;
        Some(Refusal {
            epoch: Epoch(u64::from_be_bytes(*epoch)),
            offset: Offset(u64::from_be_bytes(*offset)),
            why: String::from_utf8_lossy(why).into(),
        })
    };
    std::iter::from_fn(&mut take).collect()
}

fn encode(spans: &[Span]) -> Vec<u8> {
    spans.iter().flat_map(|span| [span.epoch.0, span.first.0, span.end.0]).flat_map(u64::to_be_bytes).collect()
}

/// Spans as they were kept; bytes that are no whole span (of a later version, behind those we know) are ignored.
fn decode(bytes: &[u8]) -> Vec<Span> {
    bytes
        .chunks_exact(SPAN_BYTES)
        .filter_map(|bytes| {
            let mut numbers = bytes.chunks_exact(8).filter_map(|b| b.try_into().ok()).map(u64::from_be_bytes);
            Some(Span { epoch: Epoch(numbers.next()?), first: Offset(numbers.next()?), end: Offset(numbers.next()?) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(lineage: &[(u64, u64)], next: u64) -> Standing {
        Standing { lineage: lineage.to_vec(), next, ..Standing::default() }
    }

    fn seen(spans: &[(u64, u64, u64)]) -> Seen {
        let mut seen = Seen::default();
        for &(epoch, from, to) in spans {
            seen.note(Epoch(epoch), Offset(from), Offset(to));
        }
        seen
    }

    fn common(seen: &Seen, lineage: &[(u64, u64)], next: u64) -> (u64, bool) {
        let common = seen.common(&standing(lineage, next));
        (common.next.0, common.forked)
    }

    #[test]
    fn a_cut_link_and_a_restart_go_on_where_they_were() {
        let seen = seen(&[(1, 0, 40)]);
        assert_eq!(common(&seen, &[(1, 0)], 50), (40, false));
        assert_eq!(common(&seen, &[(1, 0), (2, 50)], 60), (40, false));
    }

    #[test]
    fn a_rewound_disk_goes_on_at_the_end_of_what_it_has_in_common() {
        let seen = seen(&[(1, 0, 40), (2, 40, 100)]);
        assert_eq!(common(&seen, &[(1, 0), (2, 40), (3, 70)], 75), (70, true));
        assert_eq!(common(&seen, &[(1, 0), (4, 30)], 35), (30, true));
    }

    #[test]
    fn a_branch_left_and_come_back_to_is_not_stored_twice() {
        let mut seen = seen(&[(1, 0, 50), (2, 50, 60)]);
        // The clone came, then the first one again.
        assert_eq!(common(&seen, &[(1, 0), (3, 50)], 70), (50, true));
        assert!(seen.note(Epoch(3), Offset(50), Offset(70)));
        assert_eq!(common(&seen, &[(1, 0), (2, 50)], 65), (60, true));
        assert!(seen.note(Epoch(2), Offset(60), Offset(65)));
        assert_eq!(seen.current(), Some(Span { epoch: Epoch(2), first: Offset(50), end: Offset(65) }));
        assert_eq!(common(&seen, &[(1, 0), (2, 50)], 65), (65, false));
    }

    #[test]
    fn a_new_gateway_wants_all_and_a_new_disk_forks() {
        assert_eq!(common(&Seen::default(), &[(1, 0)], 9), (0, false));
        assert_eq!(common(&seen(&[(1, 0, 5)]), &[(8, 0)], 9), (0, true));
    }

    #[test]
    fn what_is_kept_is_read_back() {
        let spans = seen(&[(1, 0, 5), (u64::MAX, 5, 9)]).spans;
        assert_eq!(decode(&encode(&spans)), spans);
        let refusals = [refusal(1, 3, "no event"), refusal(2, 8, "")];
        let bytes = encode_refusals(&refusals);
        assert_eq!(decode_refusals(&bytes), refusals);
        assert_eq!(decode_refusals(&bytes[..bytes.len() - 1]), refusals[..1]);
        let long = decode_refusals(&encode_refusals(&[refusal(1, 1, &"ä".repeat(500))]));
        assert_eq!(long[0].why.len(), MAX_WHY_BYTES);
    }

    fn refusal(epoch: u64, offset: u64, why: &str) -> Refusal {
        Refusal { epoch: Epoch(epoch), offset: Offset(offset), why: why.into() }
    }

    #[test]
    fn an_agent_is_told_of_the_refusals_that_it_may_not_have_heard_of_and_of_no_others() {
        let mut seen = seen(&[(1, 0, 10), (2, 10, 30)]);
        for (epoch, offset) in [(1, 4), (1, 8), (2, 12), (2, 25)] {
            seen.refuse(refusal(epoch, offset, "no"));
        }
        let offsets = |seen: &Seen, standing: &Standing, next: u64| -> Vec<u64> {
            seen.unheard(standing, Offset(next)).into_iter().map(|(offset, _)| offset).collect()
        };
        let mut agent = standing(&[(1, 0), (2, 10)], 40);
        agent.cursor = 5;
        assert_eq!(offsets(&seen, &agent, 30), [8, 12, 25]);
        assert_eq!(offsets(&seen, &agent, 20), [8, 12]);
        // On a disk that was set back and went another way, 12 is another event.
        let mut other = standing(&[(1, 0), (9, 10)], 40);
        other.cursor = 5;
        assert_eq!(offsets(&seen, &other, 30), [8]);
        seen.heard(&agent);
        agent.cursor = 0;
        assert_eq!(offsets(&seen, &agent, 30), [8, 12, 25]);
        for offset in 100..1000 {
            seen.refuse(refusal(2, offset, "no"));
        }
        assert_eq!(seen.refusals.len(), MAX_REFUSALS);
    }

    #[test]
    fn only_the_newest_epochs_are_remembered() {
        let mut seen = Seen::default();
        for n in 1..=100 {
            seen.note(Epoch(n), Offset(n), Offset(n + 1));
        }
        assert_eq!(seen.spans.len(), MAX_SPANS);
        assert_eq!(seen.spans.first().map(|span| span.epoch), Some(Epoch(37)));
    }
}
