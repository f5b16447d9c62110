//! Random work on a journal: events small and large, some with facts, facts alone, cursors, idle times.

use std::sync::Arc;

use godwit_mesh::clock::Clock;
use godwit_mesh::journal::{Bare, Done, DropReason, Offset, Options, Refused};
use godwit_mesh::storage::SimDisk;
use godwit_mesh::storage::sim::Dice;

use super::DIR;
use super::account::{Account, Cursor, Held};

pub(crate) struct Workload {
    dice: Dice,
    clock: Clock,
    counter: u64,
}

impl Workload {
    pub(crate) fn new(seed: u64, options: &Options) -> Self {
        Self { dice: Dice::new(seed.wrapping_mul(31)), clock: options.clock.clone(), counter: seed << 32 }
    }

    /// Does one thing and enters it into the account.
    pub(crate) fn step(&mut self, disk: &SimDisk, journal: &mut Bare, account: &mut Account) {
        self.clock.advance(self.dice.below(20));
        if self.dice.chance(15) {
            // A failure has no consequence but that there is no spare.
            let _ = journal.idle();
            return;
        }
        let mut events = Vec::new();
        let mut held = (**account.held()).clone();
        if self.dice.chance(75) {
            for _ in 0..=self.dice.below(5) {
                events.push(self.body(disk));
            }
        }
        self.cursors(journal, &mut held);
        if self.dice.chance(40) || events.is_empty() {
            self.facts(journal, &mut held);
        }
        let _ = self.commit(disk, journal, account, held, &events);
    }

    /// The disk is sound again: events must be taken, at the second try at the latest.
    pub(crate) fn must_serve(&mut self, disk: &SimDisk, journal: &mut Bare, account: &mut Account) {
        for round in 0..3 {
            let body = self.body(disk);
            // Nobody holds events back any more.
            let mut held = (**account.held()).clone();
            for (name, cursor) in &mut held.consumers {
                let from = journal.consumers().iter().find(|c| c.name == *name).expect("registered").cursor;
                let done = Done { delivered: journal.next().since(from), ..Done::default() };
                journal.step(cursor.id, from, journal.next(), &done);
                cursor.to = journal.next();
            }
            self.commit(disk, journal, account, held, &[]).expect("control records");
            let held = (**account.held()).clone();
            self.commit(disk, journal, account, held, &[body])
                .unwrap_or_else(|e| panic!("the disk is sound, round {round}: {e}"));
        }
    }

    fn commit(
        &mut self,
        disk: &SimDisk,
        journal: &mut Bare,
        account: &mut Account,
        mut held: Held,
        events: &[Arc<[u8]>],
    ) -> Result<(), Refused> {
        for body in events {
            if self.dice.chance(10) {
                let key = vec![b'q', u8::try_from(self.dice.below(4)).expect("small")];
                journal.event_with_fact(&key, &body[..8], body);
                held.facts.insert(key, body[..8].to_vec());
            } else {
                journal.event(body);
            }
        }
        let (began, before) = (disk.effects(), journal.next());
        let outcome = journal.commit();
        // What a failed sync leaves on the disk bears the epoch of the segment that it was written to.
        let epoch = outcome.as_ref().map_or(journal.epoch(), |committed| committed.epoch);
        held.events.extend(events.iter().map(|body| (epoch, Arc::clone(body))));
        if let Ok(committed) = &outcome {
            assert_eq!(committed.first, before, "offsets are dense");
            assert_eq!(journal.next(), before.plus(events.len() as u64));
        } else {
            assert_eq!(journal.next(), before, "nothing refused is readable");
        }
        account.enter(began, disk.effects(), outcome.is_ok(), held);
        outcome.map(|_| ())
    }

    /// An event's bytes: a number that no other has, then anything; now and then what looks like a part of the journal itself.
    fn body(&mut self, disk: &SimDisk) -> Arc<[u8]> {
        self.counter += 1;
        let mut body = self.counter.to_le_bytes().to_vec();
        if self.dice.chance(5) {
            let segments: Vec<_> = disk.paths().into_iter().filter(|path| path.starts_with(DIR)).collect();
            let path = segments.get(usize::try_from(self.dice.below(segments.len() as u64)).unwrap_or(0));
            let bytes = path.and_then(|path| disk.contents(path)).unwrap_or_default();
            body.extend(bytes.iter().take(1500));
            return body.into();
        }
        let len = match self.dice.below(10) {
            0 => 0,
            1..=7 => 20 + self.dice.below(380),
            _ => self.dice.below(1400),
        };
        let filler = self.dice.roll();
        body.extend((0..len).map(|i| (filler >> (i % 57)).to_le_bytes()[0]));
        body.into()
    }

    fn facts(&mut self, journal: &mut Bare, held: &mut Held) {
        let key = vec![b'p', u8::try_from(self.dice.below(5)).expect("small")];
        if self.dice.chance(25) {
            journal.delete(&key);
            held.facts.remove(&key);
        } else {
            let value = self.dice.roll().to_le_bytes().to_vec();
            journal.put(&key, &value);
            held.facts.insert(key, value);
        }
    }

    /// Registers a consumer, or moves some.
    fn cursors(&mut self, journal: &mut Bare, held: &mut Held) {
        let id = u32::try_from(1 + held.consumers.len()).expect("few");
        if id <= 3 && self.dice.chance(30) {
            let name = format!("consumer-{id}");
            let since = if self.dice.chance(50) { journal.first() } else { journal.next() };
            journal.register(id, &name, since, id == 1);
            held.consumers.insert(name, Cursor { id, since, to: since });
            return;
        }
        for status in journal.consumers() {
            if self.dice.chance(60) {
                continue;
            }
            let n = self.dice.below(status.pending + 1);
            if n == 0 {
                continue;
            }
            let to = status.cursor.plus(n);
            journal.step(held.consumers[&status.name].id, status.cursor, to, &self.done(n));
            held.consumers.get_mut(&status.name).expect("registered").to = to;
        }
    }

    fn done(&mut self, n: u64) -> Done {
        let delivered = self.dice.below(n + 1);
        let filtered = self.dice.below(n - delivered + 1);
        let mut done = Done { delivered, filtered, ..Done::default() };
        let rest = n - delivered - filtered;
        if rest > 0 && self.dice.chance(50) {
            done.dropped.insert(DropReason::Expired, rest);
        } else {
            done.dead_lettered = rest;
        }
        done
    }
}

/// An offset as an index.
pub(crate) fn index(offset: Offset) -> usize {
    usize::try_from(offset.0).expect("few events")
}
