//! What the gateway has of one agent's broker: for each epoch, up to which offset.
//!
//! An epoch is one opening of one journal and its events come in order, so the newest epoch that both know, at the smaller of the
//! two ends, is the last common point. Kept as two facts in the broker's journal: the current span, which changes with
//! every append and is small, and the older ones, which change when an epoch begins. Both are written in the append of the
//! events they speak of.

use godwit_mesh::journal::{Append, Epoch, Journal, Offset};
use godwit_mesh::names::AgentId;
use godwit_mesh::sync::frame::Standing;

/// Epochs remembered for each agent and broker.
const MAX_SPANS: usize = 64;

const SPAN_BYTES: usize = 24;

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

/// What the gateway has of one agent's broker, the current epoch last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Seen(Vec<Span>);

impl Seen {
    /// Reads the facts of `agent`.
    pub(super) fn load(journal: &Journal, agent: &AgentId) -> Self {
        let mut spans = journal.fact(&history_key(agent)).map(|bytes| decode(&bytes)).unwrap_or_default();
        spans.extend(journal.fact(&key(agent)).and_then(|bytes| decode(&bytes).into_iter().next()));
        Self(spans)
    }

    /// The current epoch.
    pub(super) fn current(&self) -> Option<Span> {
        self.0.last().copied()
    }

    /// The last common point with an agent that stands so.
    pub(super) fn common(&self, standing: &Standing) -> Common {
        let mut end = standing.next;
        for &(epoch, first) in standing.lineage.iter().rev() {
            if let Some(at) = self.0.iter().rposition(|span| span.epoch.0 == epoch)
                && let Some(span) = self.0.get(at)
            {
                let forked = at + 1 != self.0.len() || span.end.0 > end;
                return Common { next: Offset(span.end.0.min(end)), forked };
            }
            end = first;
        }
        Common { next: Offset(0), forked: !self.0.is_empty() }
    }

    /// Notes that `[from, to)` is stored under `epoch`; whether the older spans have changed.
    pub(super) fn note(&mut self, epoch: Epoch, from: Offset, to: Offset) -> bool {
        match self.0.iter().rposition(|span| span.epoch == epoch) {
            Some(at) if at + 1 == self.0.len() => {
                if let Some(span) = self.0.last_mut() {
                    span.end = to;
                }
                false
            }
            known => {
                let first = known.map(|at| self.0.remove(at).first);
                self.0.push(Span { epoch, first: first.unwrap_or(from), end: to });
                if self.0.len() > MAX_SPANS {
                    self.0.remove(0);
                }
                true
            }
        }
    }

    /// Writes the facts into the append that stores the events.
    pub(super) fn put(&self, append: &mut Append<'_>, agent: &AgentId, older_too: bool) {
        let Some((current, older)) = self.0.split_last() else { return };
        append.put(&key(agent), &encode(&[*current]));
        if older_too {
            append.put(&history_key(agent), &encode(older));
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
        let spans = seen(&[(1, 0, 5), (u64::MAX, 5, 9)]).0;
        assert_eq!(decode(&encode(&spans)), spans);
    }

    #[test]
    fn only_the_newest_epochs_are_remembered() {
        let mut seen = Seen::default();
        for n in 1..=100 {
            seen.note(Epoch(n), Offset(n), Offset(n + 1));
        }
        assert_eq!(seen.0.len(), MAX_SPANS);
        assert_eq!(seen.0.first().map(|span| span.epoch), Some(Epoch(37)));
    }
}
