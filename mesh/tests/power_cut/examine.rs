//! Opens what a power cut left and compares it with the account.

use std::collections::BTreeMap;
use std::sync::Arc;

use godwit_mesh::journal::{Bare, DropReason, Item, Options, Policy};
use godwit_mesh::storage::SimDisk;
use godwit_mesh::storage::sim::Dice;

use super::account::{Account, Held};
use super::workload::{Workload, index};
use super::{DIR, IndexBelow};

/// Cuts within recoveries within recoveries.
const MAX_DEPTH: u32 = 3;

pub(crate) struct Examiner {
    seed: u64,
    options: Options,
    dice: Dice,
    cuts: u64,
}

impl Examiner {
    pub(crate) fn new(seed: u64, options: &Options) -> Self {
        Self { seed, options: options.clone(), dice: Dice::new(!seed), cuts: 0 }
    }

    /// How many states were examined.
    pub(crate) fn cuts(&self) -> u64 {
        self.cuts
    }

    /// Opens what was found after a cut at `instant` of the run that `account` tells of; works on with it; cuts the power again.
    pub(crate) fn examine(&mut self, found: &SimDisk, account: &Account, instant: usize) {
        self.go_deep(found, account.may_hold(instant), &format!("instant {instant}: {}", found.story()), 0);
    }

    fn go_deep(&mut self, found: &SimDisk, may_hold: Vec<Arc<Held>>, story: &str, depth: u32) {
        self.cuts += 1;
        let context = format!("seed {}, depth {depth}, {story}", self.seed);
        let mut journal = Bare::open(Arc::new(found.clone()), DIR, self.options.clone()).unwrap_or_else(|e| {
            panic!("a power cut must not keep a journal from opening: {e}\n{}\n{context}", files(found))
        });
        let opened = found.effects();
        let differences: Vec<_> = may_hold.iter().map(|held| self.difference(&journal, held)).collect();
        let Some(i) = differences.iter().position(Option::is_none) else {
            panic!(
                "what was found is none of what it may be:\n{}\n{context}",
                differences.into_iter().flatten().collect::<Vec<_>>().join("\n")
            );
        };
        let held = Arc::clone(&may_hold[i]);
        assert!(held.events.iter().all(|(epoch, _)| *epoch != journal.epoch()), "the epoch is not new\n{context}");
        let mut account = Account::recovered(may_hold, held, opened);
        let mut workload = Workload::new(self.dice.roll(), &self.options);
        for _ in 0..self.dice.below(4) {
            workload.step(found, &mut journal, &mut account);
        }
        if let Some(difference) = self.difference(&journal, account.held()) {
            panic!("after the recovery: {difference}\n{context}");
        }
        drop(journal);
        if depth < MAX_DEPTH && self.dice.chance(30) {
            let instant = self.dice.index_below(found.effects() + 1);
            let again = found.at(instant).power_cut(self.dice.roll());
            let story = format!("{story}\nthen, at instant {instant} ({opened}: open): {}", again.story());
            self.go_deep(&again, account.may_hold(instant), &story, depth + 1);
        }
    }

    /// Compares a journal that is running.
    pub(crate) fn compare_live(&mut self, journal: &Bare, account: &Account) {
        if let Some(difference) = self.difference(journal, account.held()) {
            panic!("seed {}: {difference}", self.seed);
        }
    }

    /// Opens what a lying disk left: nobody knows how much, but all of it must be genuine.
    pub(crate) fn examine_after_lies(&mut self, found: &SimDisk, account: &Account, depth: u32) {
        self.cuts += 1;
        let mut named = account.all_named();
        let mut disk = found.clone();
        let mut story = found.story();
        for _ in 0..depth {
            let context = format!("seed {}, {story}", self.seed);
            let mut journal = Bare::open(Arc::new(disk.clone()), DIR, self.options.clone())
                .unwrap_or_else(|e| panic!("lies must not keep a journal from opening: {e}\n{}\n{context}", files(&disk)));
            assert!(named.keys().all(|(epoch, _)| *epoch != journal.epoch().0), "the epoch is not new\n{context}");
            genuine(&journal, &named).unwrap_or_else(|e| panic!("{e}\n{context}"));
            for n in 0..4_u64 {
                let mut body = self.dice.roll().to_le_bytes().to_vec();
                body.resize(50 * usize::try_from(n).expect("small") + 8, 1);
                journal.event(&body);
                let committed = journal.commit();
                if let Ok(committed) = committed {
                    let before = named.insert((committed.epoch.0, committed.first.0), body.into());
                    assert_eq!(before, None, "a name given twice\n{context}");
                } else {
                    assert_eq!(self.options.policy, Policy::Reject, "{committed:?}\n{}\n{context}", files(&disk));
                }
            }
            genuine(&journal, &named).unwrap_or_else(|e| panic!("afterwards: {e}\n{context}"));
            drop(journal);
            disk.set_lying(true);
            let again = disk.power_cut(self.dice.roll());
            story = format!("{story}\nthen {}", again.story());
            disk = again;
        }
    }

    /// What keeps `journal` from holding `held`, if anything does.
    fn difference(&self, journal: &Bare, held: &Held) -> Option<String> {
        if journal.next().0 != held.events.len() as u64 {
            return Some(format!("next offset {}, {} events", journal.next(), held.events.len()));
        }
        let facts: BTreeMap<_, _> = journal.facts().into_iter().collect();
        if facts != held.facts {
            return Some(format!("facts {facts:?}, not {:?}", held.facts));
        }
        self.difference_of_consumers(journal, held).or_else(|| difference_of_events(journal, held))
    }

    fn difference_of_consumers(&self, journal: &Bare, held: &Held) -> Option<String> {
        let statuses = journal.consumers();
        if statuses.len() != held.consumers.len() {
            return Some(format!("consumers {statuses:?}, not {:?}", held.consumers));
        }
        for status in statuses {
            let Some(cursor) = held.consumers.get(&status.name) else {
                return Some(format!("nobody registered {}", status.name));
            };
            let past = status.cursor.since(status.since);
            let lost = status.done.dropped.get(&DropReason::Retention).copied().unwrap_or(0);
            let overtaken = status.cursor > cursor.to;
            let wrong = [
                ("its beginning moved", status.since != cursor.since),
                (
                    "its ledger does not add up",
                    past != status.done.total() || status.pending != journal.next().since(status.cursor),
                ),
                ("its cursor went back", status.cursor < cursor.to),
                ("its cursor is ahead of what was done", overtaken && (lost == 0 || status.cursor > journal.first())),
                ("it lost what it held", self.options.policy == Policy::Reject && status.holds && lost > 0),
            ];
            if let Some((what, _)) = wrong.iter().find(|(_, wrong)| *wrong) {
                return Some(format!("{what}: {status:?}, committed {cursor:?}, first offset {}", journal.first()));
            }
        }
        None
    }
}

fn difference_of_events(journal: &Bare, held: &Held) -> Option<String> {
    let items = match journal.read_all() {
        Ok(items) => items,
        Err(e) => return Some(format!("reading: {e}")),
    };
    let lineage = journal.lineage();
    let mut at = journal.first();
    for item in items {
        let Item::Event { epoch, offset, body } = item else { return Some(format!("not an event at {at}: {item:?}")) };
        let Some((named_epoch, named_body)) = held.events.get(index(offset)) else {
            return Some(format!("an event at {offset} that nobody appended"));
        };
        if offset != at || epoch != *named_epoch || *body != **named_body {
            return Some(format!("event {epoch} {offset} where {named_epoch} {at} should be, or with other bytes"));
        }
        if lineage.epoch_at(offset) != Some(epoch) {
            return Some(format!("the lineage says {:?} of {epoch} {offset}", lineage.epoch_at(offset)));
        }
        at = at.plus(1);
    }
    (at != journal.next()).then(|| format!("events end at {at}, not {}", journal.next()))
}

/// Every event that can be read was appended, under this name and with these bytes; the ledger adds up.
fn genuine(journal: &Bare, named: &BTreeMap<(u64, u64), Arc<[u8]>>) -> Result<(), String> {
    let mut at = journal.first();
    for item in journal.read_all().map_err(|e| format!("reading: {e}"))? {
        match item {
            Item::Event { epoch, offset, body } => {
                let known = named.get(&(epoch.0, offset.0));
                if offset != at || known.is_none_or(|known| **known != *body) {
                    return Err(format!("event {epoch} {offset} at {at} is not genuine"));
                }
                at = offset.plus(1);
            }
            Item::Skip { from, to, .. } => {
                if from != at || to <= from {
                    return Err(format!("a skip from {from} to {to} at {at}"));
                }
                at = to;
            }
            other => return Err(format!("unexpected {other:?}")),
        }
    }
    for status in journal.consumers() {
        if status.cursor.since(status.since) != status.done.total() || status.cursor > journal.next() {
            return Err(format!("{status:?} does not add up"));
        }
    }
    Ok(())
}

/// The files there are and their lengths, for whoever must understand a failure.
fn files(disk: &SimDisk) -> String {
    let line = |path: String| format!("  {} bytes in {path}", disk.contents(&path).map_or(0, |bytes| bytes.len()));
    disk.paths().into_iter().map(line).collect::<Vec<_>>().join("\n")
}
