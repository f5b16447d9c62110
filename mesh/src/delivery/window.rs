//! The events of a Trigger between its cursor and where it has read: which are outstanding, which are finished, and how far the
//! cursor may go.
//!
//! Events may finish in any order, the cursor moves in order. What is finished beyond the cursor is told by [`Window::ahead`], to be
//! kept beside the cursor: after a crash a new window begins with it, and does none of it again. Only events that somebody wanted have
//! a place here; between them lies what the filter did not want, and ranges that could not be read.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::journal::{Done, DropReason, Offset};

/// The first byte of what [`Window::ahead`] tells.
const VERSION: u8 = 1;

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Delivered,
    DeadLettered,
    Dropped(DropReason),
}

impl Outcome {
    fn code(self) -> u8 {
        match self {
            Self::Delivered => 0,
            Self::DeadLettered => 1,
            Self::Dropped(reason) => 16 + reason as u8,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Delivered),
            1 => Some(Self::DeadLettered),
            code => code.checked_sub(16).and_then(DropReason::from_code).map(Self::Dropped),
        }
    }

    fn count(self, done: &mut Done, n: u64) {
        match self {
            Self::Delivered => done.delivered += n,
            Self::DeadLettered => done.dead_lettered += n,
            Self::Dropped(reason) => *done.dropped.entry(reason).or_default() += n,
        }
    }
}

/// One wanted event.
#[derive(Debug)]
struct Slot {
    offset: Offset,
    /// Its key, if its order among others of the same key counts.
    key: Option<u64>,
    done: Option<Outcome>,
}

/// A step that the cursor may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) from: Offset,
    pub(crate) to: Offset,
    pub(crate) done: Done,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Window {
    base: Offset,
    read_to: Offset,
    /// Most wanted events.
    limit: usize,
    slots: VecDeque<Slot>,
    /// Wanted events that are not finished.
    open: usize,
    /// Ranges that cannot be read, in order.
    lost: VecDeque<(Offset, Offset, DropReason)>,
    /// Unfinished events of each key, in order; only the first of them may be outstanding.
    keys: HashMap<u64, VecDeque<Offset>>,
}

impl Window {
    /// A window at the cursor for at most `limit` wanted events. `ahead` is what is finished already.
    pub(crate) fn new(cursor: Offset, limit: usize, ahead: &BTreeMap<Offset, Outcome>) -> Self {
        let slot = |(offset, outcome): (&Offset, &Outcome)| Slot { offset: *offset, key: None, done: Some(*outcome) };
        Self {
            base: cursor,
            read_to: cursor,
            limit: limit.max(1),
            slots: ahead.range(cursor..).map(slot).collect(),
            open: 0,
            lost: VecDeque::new(),
            keys: HashMap::new(),
        }
    }

    /// The cursor as this window knows it.
    pub(crate) fn base(&self) -> Offset {
        self.base
    }

    /// Events that are not finished.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Most wanted events.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// How many more events there is room for. What was finished before a crash does not hinder reading on.
    pub(crate) fn room(&self) -> usize {
        if self.open == 0 { self.limit } else { self.limit.saturating_sub(self.slots.len()) }
    }

    /// Whether an event is in the window and not finished.
    pub(crate) fn is_open(&self, offset: Offset) -> bool {
        self.at(offset).is_some_and(|i| self.slots.get(i).is_some_and(|slot| slot.done.is_none()))
    }

    fn at(&self, offset: Offset) -> Option<usize> {
        self.slots.binary_search_by_key(&offset, |slot| slot.offset).ok()
    }

    /// Everything below `to` has been looked at: what has no place here is not wanted.
    pub(crate) fn pass(&mut self, to: Offset) {
        self.read_to = self.read_to.max(to);
    }

    /// Takes in a wanted event. True where it may go now, false where it waits for one of its key, or is finished already.
    pub(crate) fn accept(&mut self, offset: Offset, key: Option<u64>) -> bool {
        self.pass(offset.plus(1));
        let Err(i) = self.slots.binary_search_by_key(&offset, |slot| slot.offset) else { return false };
        if offset < self.base {
            return false;
        }
        self.slots.insert(i, Slot { offset, key, done: None });
        self.open += 1;
        let Some(key) = key else { return true };
        let queue = self.keys.entry(key).or_default();
        queue.push_back(offset);
        queue.len() == 1
    }

    /// Notes a range that cannot be read.
    pub(crate) fn lose(&mut self, from: Offset, to: Offset, reason: DropReason) {
        let from = from.max(self.base).max(self.lost.back().map_or(Offset(0), |(_, end, _)| *end));
        if from < to {
            self.lost.push_back((from, to, reason));
        }
        self.pass(to);
    }

    /// An event is finished. The next of its key, if one waited for it, may go now.
    pub(crate) fn finish(&mut self, offset: Offset, outcome: Outcome) -> Option<Offset> {
        let i = self.at(offset)?;
        let slot = self.slots.get_mut(i).filter(|slot| slot.done.is_none())?;
        slot.done = Some(outcome);
        let key = slot.key;
        self.open -= 1;
        self.leave(offset, key)
    }

    fn leave(&mut self, offset: Offset, key: Option<u64>) -> Option<Offset> {
        let key = key?;
        let queue = self.keys.get_mut(&key)?;
        let first = queue.front() == Some(&offset);
        queue.retain(|other| *other != offset);
        let next = queue.front().copied();
        if next.is_none() {
            self.keys.remove(&key);
        }
        next.filter(|_| first)
    }

    /// How far the cursor may go. Nothing changes before [`Window::settle`].
    pub(crate) fn step(&self) -> Option<Step> {
        let first_open = self.slots.iter().find(|slot| slot.done.is_none()).map_or(self.read_to, |slot| slot.offset);
        let to = first_open.min(self.read_to);
        if to <= self.base {
            return None;
        }
        let mut done = Done::default();
        let mut counted = 0;
        for slot in self.slots.iter().take_while(|slot| slot.offset < to) {
            if let Some(outcome) = slot.done {
                outcome.count(&mut done, 1);
                counted += 1;
            }
        }
        for (from, end, reason) in self.lost.iter().take_while(|(from, ..)| *from < to) {
            let n = (*end).min(to).since((*from).max(self.base));
            Outcome::Dropped(*reason).count(&mut done, n);
            counted += n;
        }
        // A place inside a lost range was finished before the range was lost: it counts once, as what became of it.
        let total = to.since(self.base);
        if counted > total {
            let (mut over, mut kept) = (counted - total, BTreeMap::new());
            for (reason, n) in &done.dropped {
                let less = over.min(*n);
                over -= less;
                if *n > less {
                    kept.insert(*reason, *n - less);
                }
            }
            done.dropped = kept;
            counted = total;
        }
        done.filtered = total - counted;
        Some(Step { from: self.base, to, done })
    }

    /// The cursor has taken the step.
    pub(crate) fn settle(&mut self, to: Offset) {
        self.base = to;
        while self.slots.front().is_some_and(|slot| slot.offset < to) {
            self.slots.pop_front();
        }
        while self.lost.front().is_some_and(|(_, end, _)| *end <= to) {
            self.lost.pop_front();
        }
    }

    /// The cursor was moved forward by somebody else. What lies behind it now is none of ours any more; those that waited for one
    /// of its key may go.
    pub(crate) fn forward(&mut self, to: Offset) -> Vec<Offset> {
        let mut free = Vec::new();
        while self.slots.front().is_some_and(|slot| slot.offset < to)
            && let Some(slot) = self.slots.pop_front()
        {
            if slot.done.is_none() {
                self.open -= 1;
                free.extend(self.leave(slot.offset, slot.key));
            }
        }
        free.retain(|offset| *offset >= to);
        self.pass(to);
        self.settle(to);
        free
    }

    /// What is finished beyond where the cursor can go, for [`Window::read_ahead`]. Empty: nothing.
    pub(crate) fn ahead(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut run: Option<(Offset, Offset, Outcome)> = None;
        let mut at = Offset(0);
        let mut put = |(from, to, outcome): (Offset, Offset, Outcome)| {
            if out.is_empty() {
                out.push(VERSION);
            }
            put_varint(&mut out, from.since(at));
            put_varint(&mut out, to.since(from));
            out.push(outcome.code());
            at = to;
        };
        let limit = self.step().map_or(self.base, |step| step.to);
        for slot in self.slots.iter().skip_while(|slot| slot.offset < limit) {
            let Some(outcome) = slot.done else { continue };
            match &mut run {
                Some((_, to, same)) if *to == slot.offset && *same == outcome => *to = to.plus(1),
                _ => {
                    if let Some(run) = run.replace((slot.offset, slot.offset.plus(1), outcome)) {
                        put(run);
                    }
                }
            }
        }
        if let Some(run) = run {
            put(run);
        }
        out
    }

    /// Reads what [`Window::ahead`] told; at most `limit` events of it, the oldest.
    pub(crate) fn read_ahead(bytes: &[u8], limit: usize) -> BTreeMap<Offset, Outcome> {
        let mut all = BTreeMap::new();
        let Some((&VERSION, mut rest)) = bytes.split_first() else { return all };
        let mut at = Offset(0);
        while let (Some(gap), Some(n)) = (take_varint(&mut rest), take_varint(&mut rest)) {
            let Some((code, more)) = rest.split_first() else { break };
            rest = more;
            at = at.plus(gap);
            // A code that a later version added: done again rather than lost.
            if let Some(outcome) = Outcome::from_code(*code) {
                let room = limit - all.len();
                all.extend((0..n).take(room).map(|i| (at.plus(i), outcome)));
                if all.len() >= limit {
                    break;
                }
            }
            at = at.plus(n);
        }
        all
    }
}

fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n.to_le_bytes()[0] | 0x80);
        n >>= 7;
    }
    out.push(n.to_le_bytes()[0]);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let (mut n, mut shift) = (0_u64, 0);
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        n |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(n);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(cursor: u64, limit: usize) -> Window {
        Window::new(Offset(cursor), limit, &BTreeMap::new())
    }

    #[test]
    fn the_cursor_waits_for_the_first_that_is_not_finished_and_then_passes_all() {
        let mut w = window(10, 4);
        for offset in [11, 12, 15] {
            assert!(w.accept(Offset(offset), None));
        }
        assert_eq!(
            w.step(),
            Some(Step { from: Offset(10), to: Offset(11), done: Done { filtered: 1, ..Done::default() } })
        );
        w.settle(Offset(11));
        w.finish(Offset(12), Outcome::Delivered);
        w.finish(Offset(15), Outcome::DeadLettered);
        assert_eq!(w.step(), None);
        let ahead = Window::read_ahead(&w.ahead(), 100);
        assert_eq!(ahead, [(Offset(12), Outcome::Delivered), (Offset(15), Outcome::DeadLettered)].into());
        w.finish(Offset(11), Outcome::Dropped(DropReason::Expired));
        let done = Done { delivered: 1, filtered: 2, dead_lettered: 1, dropped: [(DropReason::Expired, 1)].into() };
        assert_eq!(w.step(), Some(Step { from: Offset(11), to: Offset(16), done }));
        w.settle(Offset(16));
        assert!(w.ahead().is_empty());
    }

    #[test]
    fn what_was_finished_before_a_crash_is_not_done_again_and_does_not_hinder_reading() {
        let ahead = [(Offset(3), Outcome::Delivered), (Offset(5), Outcome::Delivered)].into();
        let mut w = Window::new(Offset(2), 1, &ahead);
        assert_eq!(w.room(), 1, "however little the limit is now");
        assert!(w.accept(Offset(2), None));
        assert_eq!(w.room(), 0);
        assert!(!w.accept(Offset(3), None), "finished");
        w.finish(Offset(2), Outcome::Delivered);
        let step = w.step().expect("a step");
        assert_eq!(
            (step.to, step.done.delivered),
            (Offset(4), 2),
            "5 is finished, and whether 4 was wanted is not known yet"
        );
    }

    #[test]
    fn events_of_one_key_go_one_after_the_other() {
        let mut w = window(0, 8);
        assert!(w.accept(Offset(0), Some(7)));
        assert!(!w.accept(Offset(1), Some(7)));
        assert!(w.accept(Offset(2), Some(8)));
        assert!(!w.accept(Offset(3), Some(7)));
        assert_eq!(w.finish(Offset(2), Outcome::Delivered), None);
        assert_eq!(w.finish(Offset(0), Outcome::Delivered), Some(Offset(1)));
        assert_eq!(w.forward(Offset(2)), [Offset(3)], "the one before it is passed by");
    }

    #[test]
    fn what_cannot_be_read_is_dropped_and_what_the_cursor_was_moved_past_is_none_of_ours() {
        let mut w = window(0, 8);
        w.accept(Offset(1), None);
        w.lose(Offset(2), Offset(6), DropReason::Quarantined);
        w.accept(Offset(7), None);
        assert!(w.forward(Offset(4)).is_empty());
        assert_eq!((w.base(), w.open()), (Offset(4), 1));
        let step = w.step().expect("a step");
        assert_eq!((step.to, step.done.filtered), (Offset(7), 1));
        assert_eq!(step.done.dropped, [(DropReason::Quarantined, 2)].into());
        assert_eq!(w.finish(Offset(1), Outcome::Delivered), None, "too late");
    }

    fn index(offset: u64) -> usize {
        usize::try_from(offset).expect("small")
    }

    #[derive(Debug, Clone)]
    enum Act {
        Read { wanted: bool, key: Option<u64> },
        Lose(u64),
        Finish(prop::sample::Index, u8),
        Settle,
        Crash,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            6 => (any::<bool>(), prop::option::of(0..3_u64)).prop_map(|(wanted, key)| Act::Read { wanted, key }),
            1 => (1..4_u64).prop_map(Act::Lose),
            6 => (any::<prop::sample::Index>(), 0..3_u8).prop_map(|(which, how)| Act::Finish(which, how)),
            3 => Just(Act::Settle),
            1 => Just(Act::Crash),
        ]
    }

    proptest! {
        /// Against a plain list of what became of each offset.
        #[test]
        fn every_event_counts_once_in_order_and_over_crashes(acts in prop::collection::vec(act(), 1..200), limit in 1..9_usize) {
            // The journal: for each offset whether it is wanted and its key, or lost; the same after a crash.
            let mut journal: Vec<Result<Option<Option<u64>>, DropReason>> = Vec::new();
            let mut finished: BTreeMap<u64, Outcome> = BTreeMap::new();
            let (mut cursor, mut total) = (0_u64, Done::default());
            let mut kept = Vec::new();
            let (mut w, mut at) = (window(0, limit), 0_usize);
            let mut free: Vec<Offset> = Vec::new();
            let take = |w: &mut Window, at: &mut usize, free: &mut Vec<Offset>, journal: &[Result<Option<Option<u64>>, DropReason>]| {
                while *at < journal.len() && w.room() > 0 {
                    let offset = Offset(*at as u64);
                    match journal[*at] {
                        Ok(Some(key)) => if w.accept(offset, key) { free.push(offset) },
                        Ok(None) => w.pass(offset.plus(1)),
                        Err(reason) => w.lose(offset, offset.plus(1), reason),
                    }
                    *at += 1;
                }
            };
            for act in acts {
                match act {
                    Act::Read { wanted, key } => journal.push(Ok(wanted.then_some(key))),
                    Act::Lose(n) => journal.extend((0..n).map(|_| Err(DropReason::Quarantined))),
                    Act::Finish(which, how) => if !free.is_empty() {
                        let offset = free.remove(which.index(free.len()));
                        let outcome = [Outcome::Delivered, Outcome::DeadLettered, Outcome::Dropped(DropReason::Expired)][usize::from(how)];
                        // Nothing of its key may be under way before it.
                        if let Ok(Some(Some(key))) = journal[index(offset.0)] {
                            for (earlier, entry) in journal.iter().enumerate().take(index(offset.0)).skip(index(cursor)) {
                                prop_assert!(*entry != Ok(Some(Some(key))) || finished.contains_key(&(earlier as u64)));
                            }
                        }
                        prop_assert!(w.is_open(offset));
                        prop_assert!(finished.insert(offset.0, outcome).is_none(), "done twice");
                        free.extend(w.finish(offset, outcome));
                    },
                    Act::Settle => {
                        let ahead = w.ahead();
                        if let Some(step) = w.step() {
                            prop_assert_eq!(step.from.0, cursor);
                            prop_assert_eq!(step.done.total(), step.to.since(step.from));
                            cursor = step.to.0;
                            total.add(&step.done);
                            w.settle(step.to);
                            prop_assert_eq!(&w.ahead(), &ahead, "what is kept with the step holds after it");
                        }
                        kept = ahead;
                    }
                    Act::Crash => {
                        let ahead = Window::read_ahead(&kept, 1000);
                        // What finished since the last commit is done again.
                        finished.retain(|offset, _| *offset < cursor || ahead.contains_key(&Offset(*offset)));
                        w = Window::new(Offset(cursor), limit, &ahead);
                        at = index(cursor);
                        free.clear();
                    }
                }
                take(&mut w, &mut at, &mut free, &journal);
                prop_assert!(w.open() <= limit);
            }
            // Everything ends.
            loop {
                take(&mut w, &mut at, &mut free, &journal);
                let Some(offset) = free.pop() else { break };
                prop_assert!(finished.insert(offset.0, Outcome::Delivered).is_none());
                free.extend(w.finish(offset, Outcome::Delivered));
                if let Some(step) = w.step() {
                    total.add(&step.done);
                    w.settle(step.to);
                }
            }
            if let Some(step) = w.step() {
                total.add(&step.done);
                w.settle(step.to);
            }
            let mut expected = Done::default();
            for (offset, entry) in journal.iter().enumerate() {
                match entry {
                    Ok(Some(_)) => finished[&(offset as u64)].count(&mut expected, 1),
                    Ok(None) => expected.filtered += 1,
                    Err(reason) => Outcome::Dropped(*reason).count(&mut expected, 1),
                }
            }
            prop_assert_eq!(w.base().0, journal.len() as u64);
            prop_assert_eq!(total, expected);
        }

        #[test]
        fn no_bytes_break_the_reader(bytes: Vec<u8>) {
            prop_assert!(Window::read_ahead(&bytes, 10).len() <= 10);
        }
    }
}
