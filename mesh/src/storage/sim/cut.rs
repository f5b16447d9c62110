//! Power cuts: which states of a disk may be found when the power is back.
//!
//! Every change that no sync made certain is kept, lost, or, for a write over several sectors, torn at a sector boundary;
//! each for itself, so that later writes may have overtaken earlier ones. Up to 8 such changes are gone through exhaustively,
//! more are sampled by seed: half the samples follow an order in which real drives lose things, half follow none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::SimDisk;
use super::content::{Content, SECTOR};
use super::state::{Certainty, Change, File, Inode, NameKind, State};

/// Up to so many uncertain changes are gone through exhaustively.
const EXHAUSTIVE_CHANGES: usize = 8;

/// At most about so many states of one instant are gone through; bounds how finely writes are torn.
const EXHAUSTIVE_STATES: usize = 1 << 16;

/// How many states are sampled where there are more changes than can be gone through.
const SAMPLES: usize = 256;

/// A small repeatable random number generator for tests (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n` (0 if `n` is 0).
    pub const fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.roll() % n }
    }

    /// True in `percent` of 100 cases.
    pub const fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn index(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n as u64)).unwrap_or_default()
    }
}

/// What became of one uncertain change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lost,
    Kept,
    /// The first sectors are there.
    Head(u64),
    /// The sectors from this one on are there.
    Tail(u64),
    /// Some sectors are there, chosen by these random bits.
    Scattered(u64),
}

impl Fate {
    const fn keeps(self, sector: u64) -> bool {
        match self {
            Self::Lost => false,
            Self::Kept => true,
            Self::Head(n) => sector < n,
            Self::Tail(n) => sector >= n,
            Self::Scattered(bits) => bits.rotate_right((sector % 64) as u32) & 1 == 1,
        }
    }
}

/// An uncertain change of a state.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    place: Place,
    order: usize,
    /// Sectors that a write touches; 1 for what cannot be torn.
    sectors: u64,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Name(usize),
    File(Inode, usize),
}

/// What may be found, one after another.
#[derive(Debug)]
pub struct CrashStates {
    state: Arc<State>,
    doubts: Vec<Doubt>,
    plan: Plan,
    next: usize,
    total: usize,
}

#[derive(Debug)]
enum Plan {
    /// All combinations of these fates, one list per doubt.
    All(Vec<Vec<Fate>>),
    Sampled(Dice),
}

impl CrashStates {
    pub(super) fn new(state: Arc<State>, seed: u64) -> Self {
        let doubts = state.doubts();
        let (plan, total) = if doubts.len() <= EXHAUSTIVE_CHANGES {
            let fates = all_fates(&doubts, seed);
            let total = fates.iter().map(Vec::len).product();
            (Plan::All(fates), total)
        } else {
            (Plan::Sampled(Dice::new(seed)), SAMPLES)
        };
        Self { state, doubts, plan, next: 0, total }
    }

    /// Whether these are all states there can be (writes over many sectors are torn at some of the possible places).
    #[must_use]
    pub const fn exhaustive(&self) -> bool {
        matches!(self.plan, Plan::All(_))
    }
}

impl Iterator for CrashStates {
    type Item = SimDisk;

    fn next(&mut self) -> Option<SimDisk> {
        if self.next >= self.total {
            return None;
        }
        let mut number = self.next;
        self.next += 1;
        let fates = match &mut self.plan {
            Plan::All(lists) => lists
                .iter()
                .map(|list| {
                    let fate = list[number % list.len()];
                    number /= list.len();
                    fate
                })
                .collect(),
            Plan::Sampled(dice) => sample(&self.doubts, dice),
        };
        Some(found(&self.state, &self.doubts, &fates))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.total - self.next, Some(self.total - self.next))
    }
}

impl ExactSizeIterator for CrashStates {}

/// One state, drawn by `seed`.
pub(super) fn one(state: &State, seed: u64) -> SimDisk {
    let doubts = state.doubts();
    let fates = sample(&doubts, &mut Dice::new(seed));
    found(state, &doubts, &fates)
}

/// The state in which nothing uncertain survived (`kept` false) or all of it did.
pub(super) fn plain(state: &State, kept: bool) -> SimDisk {
    let doubts = state.doubts();
    let fates = vec![if kept { Fate::Kept } else { Fate::Lost }; doubts.len()];
    found(state, &doubts, &fates)
}

/// The fates to go through for each doubt: as many ways of tearing as the number of doubts leaves room for.
fn all_fates(doubts: &[Doubt], seed: u64) -> Vec<Vec<Fate>> {
    let mut each: usize = 4;
    let power = u32::try_from(doubts.len()).unwrap_or(u32::MAX);
    while each < 32 && (each + 1).checked_pow(power).is_some_and(|n| n <= EXHAUSTIVE_STATES) {
        each += 1;
    }
    let mut dice = Dice::new(seed);
    doubts
        .iter()
        .map(|doubt| {
            let mut fates = vec![Fate::Lost, Fate::Kept];
            if doubt.sectors > 1 {
                let cuts = doubt.sectors - 1;
                let heads = (each as u64 - 3).min(cuts);
                fates.push(Fate::Tail(1 + dice.below(cuts)));
                fates.extend((0..heads).map(|i| Fate::Head(1 + i * cuts / heads)));
                while fates.len() < each.min(2 + (1 << doubt.sectors.min(8))) && doubt.sectors > 2 {
                    fates.push(Fate::Scattered(dice.roll()));
                }
            }
            fates
        })
        .collect()
}

fn sample(doubts: &[Doubt], dice: &mut Dice) -> Vec<Fate> {
    let mut fates = vec![Fate::Lost; doubts.len()];
    if doubts.is_empty() {
        return fates;
    }
    match dice.below(8) {
        // Each for itself.
        0..=3 => {
            for (fate, doubt) in fates.iter_mut().zip(doubts) {
                *fate = match dice.below(10) {
                    0..=3 => Fate::Lost,
                    4..=7 => Fate::Kept,
                    _ => torn(doubt, dice),
                };
            }
        }
        // All but one, or one alone.
        4 => {
            fates.fill(Fate::Kept);
            fates[dice.index(doubts.len())] = Fate::Lost;
        }
        5 => fates[dice.index(doubts.len())] = Fate::Kept,
        // A drive that wrote in order up to some instant.
        6 => {
            let mut orders: Vec<usize> = doubts.iter().map(|d| d.order).collect();
            orders.sort_unstable();
            let instant = orders[dice.index(orders.len())];
            for (fate, doubt) in fates.iter_mut().zip(doubts) {
                *fate = match doubt.order.cmp(&instant) {
                    std::cmp::Ordering::Less => Fate::Kept,
                    std::cmp::Ordering::Equal => torn(doubt, dice),
                    std::cmp::Ordering::Greater => Fate::Lost,
                };
            }
        }
        // Files and names apart: some wholly written back, some not at all.
        _ => {
            let bits = dice.roll();
            for (fate, doubt) in fates.iter_mut().zip(doubts) {
                let group = match doubt.place {
                    Place::Name(_) => 0,
                    Place::File(inode, _) => 1 + inode % 63,
                };
                *fate = if bits >> group & 1 == 1 { Fate::Kept } else { Fate::Lost };
            }
        }
    }
    fates
}

fn torn(doubt: &Doubt, dice: &mut Dice) -> Fate {
    if doubt.sectors <= 1 {
        return if dice.chance(50) { Fate::Kept } else { Fate::Lost };
    }
    match dice.below(3) {
        0 => Fate::Scattered(dice.roll()),
        1 => Fate::Tail(1 + dice.below(doubt.sectors - 1)),
        _ => Fate::Head(1 + dice.below(doubt.sectors - 1)),
    }
}

impl State {
    /// The changes that a power cut may undo, of files that may be found after it.
    fn doubts(&self) -> Vec<Doubt> {
        let mut reachable: BTreeSet<Inode> = self.firm_names.values().copied().collect();
        let mut doubts = Vec::new();
        for (i, change) in self.name_changes.iter().enumerate() {
            reachable.insert(change.inode);
            doubts.push(Doubt { place: Place::Name(i), order: change.order, sectors: 1 });
        }
        for inode in reachable {
            let later = self.files.get(&inode).map_or(&[][..], |file| &file.later);
            for (i, later) in later.iter().enumerate().filter(|(_, l)| l.certainty != Certainty::Firm) {
                let sectors = match &later.change {
                    Change::Write { at, data } => (at + data.len() as u64).div_ceil(SECTOR) - at / SECTOR,
                    Change::SetLen(_) | Change::Allocate(_) => 1,
                };
                doubts.push(Doubt { place: Place::File(inode, i), order: later.order, sectors });
            }
        }
        doubts
    }
}

/// The disk as it is found after a power cut with these fates.
fn found(state: &State, doubts: &[Doubt], fates: &[Fate]) -> SimDisk {
    let mut name_fates = vec![Fate::Lost; state.name_changes.len()];
    let mut file_fates: BTreeMap<(Inode, usize), Fate> = BTreeMap::new();
    for (doubt, fate) in doubts.iter().zip(fates) {
        match doubt.place {
            Place::Name(i) => name_fates[i] = *fate,
            Place::File(inode, i) => {
                file_fates.insert((inode, i), *fate);
            }
        }
    }
    let mut after = State {
        dirs: state.dirs.clone(),
        firm_names: state.firm_names.clone(),
        next_inode: state.next_inode,
        ..State::default()
    };
    for (change, _) in state.name_changes.iter().zip(&name_fates).filter(|(_, fate)| **fate == Fate::Kept) {
        change.apply(&mut after.firm_names);
    }
    after.names = after.firm_names.clone();
    for inode in after.names.values() {
        let Some(file) = state.files.get(inode) else { continue };
        let mut firm = file.firm.clone();
        for (i, later) in file.later.iter().enumerate() {
            let fate = file_fates.get(&(*inode, i)).copied().unwrap_or(Fate::Kept);
            survive(&later.change, fate, &mut firm);
        }
        after.files.insert(*inode, File { cache: firm.clone(), firm, later: Vec::new() });
    }
    SimDisk::from_state(after, Some(tell(state, doubts, fates)))
}

/// Applies what is left of a change.
fn survive(change: &Change, fate: Fate, content: &mut Content) {
    match (change, fate) {
        (_, Fate::Lost) => {}
        (Change::Write { at, data }, fate) if fate != Fate::Kept => {
            let first = at / SECTOR;
            let end = at + data.len() as u64;
            for sector in (first..end.div_ceil(SECTOR)).filter(|s| fate.keeps(s - first)) {
                let (from, to) = ((sector * SECTOR).max(*at), ((sector + 1) * SECTOR).min(end));
                let part = usize::try_from(from - at).unwrap_or_default()..usize::try_from(to - at).unwrap_or_default();
                content.write(&data[part], from);
            }
        }
        (change, _) => change.apply(content),
    }
}

/// What the cut did, for whoever must understand a failed test.
fn tell(state: &State, doubts: &[Doubt], fates: &[Fate]) -> Cut {
    let names: BTreeMap<Inode, Arc<str>> = state.names.iter().map(|(name, inode)| (*inode, name.clone())).collect();
    let mut changes: Vec<_> = doubts.iter().zip(fates).map(|(d, f)| (*d, *f)).collect();
    changes.sort_unstable_by_key(|(d, _)| d.order);
    let changes = changes
        .into_iter()
        .map(|(doubt, fate)| {
            let what = match doubt.place {
                Place::Name(i) => What::Name(state.name_changes[i].kind.clone()),
                Place::File(inode, i) => {
                    let change = state.files.get(&inode).map(|file| file.later[i].change.clone());
                    What::File(names.get(&inode).cloned().unwrap_or_else(|| "(removed)".into()), change)
                }
            };
            (what, fate)
        })
        .collect();
    Cut { changes }
}

/// The power cut that a disk has gone through; told in words only if somebody asks.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    changes: Vec<(What, Fate)>,
}

#[derive(Debug, Clone)]
enum What {
    Name(NameKind),
    File(Arc<str>, Option<Change>),
}

impl Cut {
    pub(super) fn tell(&self) -> String {
        let mut text = String::from("power cut:");
        for (what, fate) in &self.changes {
            let done = match what {
                What::Name(NameKind::Create(name)) => format!("create {name}"),
                What::Name(NameKind::Rename { from, to }) => format!("rename {from} to {to}"),
                What::Name(NameKind::Remove(name)) => format!("remove {name}"),
                What::File(name, Some(Change::Write { at, data })) => {
                    format!("write {name} [{at}, {})", at + data.len() as u64)
                }
                What::File(name, Some(Change::SetLen(len))) => format!("set length of {name} to {len}"),
                What::File(name, Some(Change::Allocate(len))) => format!("allocate {len} for {name}"),
                What::File(name, None) => format!("change {name}"),
            };
            let _ = write!(text, "\n  {done}: {fate:?}");
        }
        text
    }
}
