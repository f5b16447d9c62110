//! What the records of a journal add up to: consumers with their ledger, facts, lineage. A snapshot of it stands at the head of
//! each segment, so that a start reads one segment and no more.
//!
//! Invariant, for each consumer: `cursor - since = done.total()`. Every change keeps it, whatever the record says.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::format::{Kind, put_bytes, put_record, put_varint, take_bytes, take_record, take_varint};
use super::{ConsumerStatus, Done, DropReason, Epoch, Lineage, Offset};

/// Most epochs that a lineage keeps; the oldest go first.
const MAX_EPOCHS: usize = 1024;

/// One consumer as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConsumerState {
    pub(super) name: String,
    pub(super) since: Offset,
    pub(super) cursor: Offset,
    pub(super) holds: bool,
    pub(super) done: Done,
}

/// A cursor's step: from where, to where, and what became of the events between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) from: Offset,
    pub(super) to: Offset,
    pub(super) done: Done,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) consumers: BTreeMap<u32, ConsumerState>,
    pub(super) facts: BTreeMap<Box<[u8]>, Box<[u8]>>,
    /// Bytes of all facts, keys and values.
    pub(super) fact_bytes: usize,
    pub(super) lineage: Lineage,
    /// The offset that the next event gets.
    pub(super) next: Offset,
    /// The oldest segment that is kept; those below are free.
    pub(super) first_seq: u64,
    /// The first offset of that segment.
    pub(super) first: Offset,
    pub(super) elapsed_ms: u64,
}

impl State {
    /// Applies a batch: first the control records behind the events, then what came with the events.
    pub(super) fn apply_batch(&mut self, records: &[u8], events_len: usize, events: u32, epoch: Epoch, elapsed_ms: u64) {
        let (with_events, control) = records.split_at(events_len.min(records.len()));
        self.apply_records(control);
        if events > 0 {
            self.enter_epoch(epoch);
        }
        self.apply_records(with_events);
        self.next = self.next.plus(u64::from(events));
        self.elapsed_ms = self.elapsed_ms.max(elapsed_ms);
    }

    /// Applies records one after the other; events count for nothing here but the facts that came with them.
    pub(super) fn apply_records(&mut self, mut records: &[u8]) {
        while let Some((kind, body)) = take_record(&mut records) {
            if let Some(kind) = kind {
                // A body that does not parse is a record of a later version: its sum was right, so it is not damage.
                let _ = self.apply(kind, body);
            }
        }
    }

    fn apply(&mut self, kind: Kind, mut body: &[u8]) -> Option<()> {
        let body = &mut body;
        match kind {
            Kind::Event => {}
            Kind::EventWithFact | Kind::Put => {
                let key = take_bytes(body)?;
                let value = take_bytes(body)?;
                self.put_fact(key, value);
            }
            Kind::Delete => self.delete_fact(take_bytes(body)?),
            Kind::Consumer => {
                let id = u32::try_from(take_varint(body)?).ok()?;
                let since = Offset(take_varint(body)?);
                let holds = take_varint(body)? != 0;
                let name = std::str::from_utf8(take_bytes(body)?).ok()?.to_owned();
                let fresh = ConsumerState { name, since, cursor: since, holds, done: Done::default() };
                self.consumers.entry(id).and_modify(|c| c.holds = holds).or_insert(fresh);
            }
            Kind::ConsumerGone => {
                self.consumers.remove(&u32::try_from(take_varint(body)?).ok()?);
            }
            Kind::Move => {
                let (id, step) = take_move(body)?;
                if let Some(consumer) = self.consumers.get_mut(&id) {
                    consumer.advance(&step);
                }
            }
            Kind::Seek => {
                let id = u32::try_from(take_varint(body)?).ok()?;
                let to = Offset(take_varint(body)?);
                if let Some(consumer) = self.consumers.get_mut(&id) {
                    consumer.seek(to);
                }
            }
        }
        Some(())
    }

    /// Everything below `first`, which begins segment `seq`, is given up: who had not read it has its loss counted.
    pub(super) fn trim(&mut self, seq: u64, first: Offset) {
        self.first_seq = self.first_seq.max(seq);
        self.first = self.first.max(first);
        for consumer in self.consumers.values_mut() {
            let lost = first.since(consumer.cursor);
            if lost > 0 {
                *consumer.done.dropped.entry(DropReason::Retention).or_default() += lost;
                consumer.cursor = first;
            }
        }
    }

    /// Begins a new epoch at the next offset. One that had no events leaves no trace: no event bears its name.
    pub(super) fn enter_epoch(&mut self, epoch: Epoch) {
        match self.lineage.0.last() {
            Some((last, _)) if *last == epoch => return,
            Some((_, first)) if *first == self.next => {
                self.lineage.0.pop();
            }
            _ => {}
        }
        self.lineage.0.push((epoch, self.next));
        if self.lineage.0.len() > MAX_EPOCHS {
            self.lineage.0.remove(0);
        }
    }

    fn put_fact(&mut self, key: &[u8], value: &[u8]) {
        self.fact_bytes += key.len() + value.len();
        if let Some(old) = self.facts.insert(key.into(), value.into()) {
            self.fact_bytes -= key.len() + old.len();
        }
    }

    fn delete_fact(&mut self, key: &[u8]) {
        if let Some(old) = self.facts.remove(key) {
            self.fact_bytes -= key.len() + old.len();
        }
    }

    /// The facts whose key begins with `prefix`.
    pub(super) fn facts(&self, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.facts
            .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect()
    }

    /// The ledger, for people.
    pub(super) fn statuses(&self) -> Vec<ConsumerStatus> {
        let mut all: Vec<_> = self
            .consumers
            .values()
            .map(|c| ConsumerStatus {
                name: c.name.clone(),
                since: c.since,
                cursor: c.cursor,
                done: c.done.clone(),
                pending: self.next.since(c.cursor),
                holds: c.holds,
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The snapshot: numbers first, then the same records that brought the state about.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.fact_bytes + 32 * self.consumers.len());
        for n in [self.next.0, self.first_seq, self.first.0, self.elapsed_ms, self.lineage.0.len() as u64] {
            put_varint(&mut out, n);
        }
        for (epoch, first) in &self.lineage.0 {
            out.extend_from_slice(&epoch.0.to_le_bytes());
            put_varint(&mut out, first.0);
        }
        for (id, c) in &self.consumers {
            put_consumer(&mut out, *id, &c.name, c.since, c.holds);
            put_move(&mut out, *id, &Move { from: c.since, to: c.cursor, done: c.done.clone() });
        }
        for (key, value) in &self.facts {
            put_record(&mut out, Kind::Put, |out| {
                put_bytes(out, key);
                put_bytes(out, value);
            });
        }
        out
    }

    /// Reads what [`State::encode`] wrote.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        let mut state = Self { next: Offset(take_varint(bytes)?), first_seq: take_varint(bytes)?, ..Self::default() };
        state.first = Offset(take_varint(bytes)?);
        state.elapsed_ms = take_varint(bytes)?;
        for _ in 0..take_varint(bytes)? {
            let (epoch, rest) = bytes.split_first_chunk::<8>()?;
            *bytes = rest;
            state.lineage.0.push((Epoch(u64::from_le_bytes(*epoch)), Offset(take_varint(bytes)?)));
        }
        state.apply_records(bytes);
        Some(state)
    }
}

impl ConsumerState {
    /// Takes a step. Where retention was faster, what the step says of the overtaken part has been counted already.
    fn advance(&mut self, step: &Move) {
        if step.to <= self.cursor {
            return;
        }
        let mut done = step.done.clone();
        let mut over = done.total().saturating_sub(step.to.since(self.cursor));
        let mut cut = |n: &mut u64| {
            let less = over.min(*n);
            *n -= less;
            over -= less;
        };
        if let Some(n) = done.dropped.get_mut(&DropReason::Retention) {
            cut(n);
        }
        cut(&mut done.filtered);
        cut(&mut done.delivered);
        cut(&mut done.dead_lettered);
        done.dropped.values_mut().for_each(&mut cut);
        let unsaid = step.to.since(self.cursor).saturating_sub(done.total());
        if unsaid > 0 {
            *done.dropped.entry(DropReason::Skipped).or_default() += unsaid;
        }
        done.dropped.retain(|_, n| *n > 0);
        self.done.add(&done);
        self.cursor = step.to;
    }

    /// A move by hand. Forward, what is passed counts as skipped; backward, the ledger begins anew at the new place.
    fn seek(&mut self, to: Offset) {
        if to < self.cursor {
            self.since = to;
            self.cursor = to;
            self.done = Done::default();
        } else if to > self.cursor {
            *self.done.dropped.entry(DropReason::Skipped).or_default() += to.since(self.cursor);
            self.cursor = to;
        }
    }
}

pub(super) fn put_consumer(out: &mut Vec<u8>, id: u32, name: &str, since: Offset, holds: bool) {
    put_record(out, Kind::Consumer, |out| {
        put_varint(out, u64::from(id));
        put_varint(out, since.0);
        put_varint(out, u64::from(holds));
        put_bytes(out, name.as_bytes());
    });
}

pub(super) fn put_move(out: &mut Vec<u8>, id: u32, step: &Move) {
    put_record(out, Kind::Move, |out| {
        put_varint(out, u64::from(id));
        let done = &step.done;
        for n in [step.from.0, step.to.0, done.delivered, done.filtered, done.dead_lettered, done.dropped.len() as u64] {
            put_varint(out, n);
        }
        for (reason, n) in &done.dropped {
            out.push(*reason as u8);
            put_varint(out, *n);
        }
    });
}

fn take_move(body: &mut &[u8]) -> Option<(u32, Move)> {
    let id = u32::try_from(take_varint(body)?).ok()?;
    let from = Offset(take_varint(body)?);
    let to = Offset(take_varint(body)?);
    let mut done = Done {
        delivered: take_varint(body)?,
        filtered: take_varint(body)?,
        dead_lettered: take_varint(body)?,
        dropped: BTreeMap::new(),
    };
    for _ in 0..take_varint(body)? {
        let (code, rest) = body.split_first()?;
        *body = rest;
        let n = take_varint(body)?;
        // A reason that a later version added is still a loss to be shown.
        *done.dropped.entry(DropReason::from_code(*code).unwrap_or(DropReason::Skipped)).or_default() += n;
    }
    Some((id, Move { from, to, done }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_consumer() -> State {
        let mut state = State { next: Offset(100), ..State::default() };
        let mut records = Vec::new();
        put_consumer(&mut records, 1, "uplink", Offset(10), true);
        state.apply_records(&records);
        state
    }

    fn step(from: u64, to: u64, done: Done) -> Vec<u8> {
        let mut out = Vec::new();
        put_move(&mut out, 1, &Move { from: Offset(from), to: Offset(to), done });
        out
    }

    #[test]
    fn a_move_that_retention_overtook_counts_each_event_once() {
        let mut state = with_consumer();
        state.trim(3, Offset(30));
        state.apply_records(&step(10, 50, Done { delivered: 30, filtered: 10, ..Done::default() }));
        let c = &state.consumers[&1];
        assert_eq!((c.cursor, c.done.total()), (Offset(50), 40));
        assert_eq!(c.done.dropped[&DropReason::Retention], 20);
        state.apply_records(&step(10, 45, Done { delivered: 35, ..Done::default() }));
        assert_eq!(state.consumers[&1].done.total(), 40, "an old step changes nothing");
    }

    #[test]
    fn a_seek_back_begins_the_ledger_anew_and_one_forward_counts_skips() {
        let mut state = with_consumer();
        state.apply_records(&step(10, 20, Done { delivered: 10, ..Done::default() }));
        let seek = |to: u64| {
            let mut out = Vec::new();
            put_record(&mut out, Kind::Seek, |out| {
                put_varint(out, 1);
                put_varint(out, to);
            });
            out
        };
        state.apply_records(&seek(25));
        assert_eq!(state.consumers[&1].done.dropped[&DropReason::Skipped], 5);
        state.apply_records(&seek(12));
        let c = &state.consumers[&1];
        assert_eq!((c.since, c.cursor, c.done.total()), (Offset(12), Offset(12), 0));
    }

    #[test]
    fn an_epoch_without_events_leaves_no_trace() {
        let mut state = State::default();
        state.enter_epoch(Epoch(1));
        state.enter_epoch(Epoch(2));
        state.apply_batch(&[], 0, 5, Epoch(2), 0);
        state.enter_epoch(Epoch(3));
        assert_eq!(state.lineage.0, [(Epoch(2), Offset(0)), (Epoch(3), Offset(5))]);
        assert_eq!(state.lineage.epoch_at(Offset(4)), Some(Epoch(2)));
    }

    proptest! {
        #[test]
        fn a_snapshot_is_read_back(facts: Vec<(Vec<u8>, Vec<u8>)>, delivered in 0..50_u64, lost in 0..40_u64) {
            let mut state = with_consumer();
            state.enter_epoch(Epoch(77));
            state.apply_records(&step(10, 10 + delivered, Done { delivered, ..Done::default() }));
            state.trim(1, Offset(10 + lost));
            for (key, value) in &facts {
                state.put_fact(key, value);
            }
            prop_assert_eq!(State::decode(&state.encode()), Some(state));
        }

        #[test]
        fn no_records_break_the_ledger(bytes: Vec<u8>, moves: Vec<(u64, u64, u64, u64)>) {
            let mut state = with_consumer();
            state.apply_records(&bytes);
            for (from, to, delivered, filtered) in moves {
                let (from, to) = (from % 200, to % 200);
                state.apply_records(&step(from, to, Done { delivered: delivered % 99, filtered: filtered % 99, ..Done::default() }));
            }
            for c in state.consumers.values() {
                prop_assert_eq!(c.cursor.since(c.since), c.done.total());
            }
        }
    }
}
