//! What the journal promises, against power cuts at every instant of random workloads on a simulated disk.
//!
//! `workload` drives a journal and keeps an account of what may be found after a cut at any instant; `examine` opens what a cut
//! left and compares. Every failure prints the seed, the instant and what the cut did. To run one seed again, and more than the
//! ordinary run does:
//!
//! ```text
//! GODWIT_CRASH_SEED=17 cargo test -p godwit-mesh --test power_cut
//! GODWIT_CRASH_RUNS=1000 cargo test -p godwit-mesh --test power_cut
//! ```

mod account;
mod examine;
mod threaded;
mod workload;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use godwit_mesh::clock::Clock;
use godwit_mesh::journal::{Bare, MIN_SEGMENT_BYTES, Options, Policy};
use godwit_mesh::storage::SimDisk;
use godwit_mesh::storage::sim::{Call, Dice, Failure, Fault};

use account::Account;
use examine::Examiner;
use workload::Workload;

/// The journal's folder on the simulated disk.
const DIR: &str = "brokers/default/default/journal";

/// The seeds to run: `ordinary` of them, or as the environment says.
fn seeds(ordinary: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match (number("GODWIT_CRASH_SEED"), number("GODWIT_CRASH_RUNS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, runs) => 0..runs.unwrap_or(ordinary),
    }
}

/// Runs `test` for each seed on both processors; names the seed that failed.
fn for_each_seed(seeds: std::ops::Range<u64>, test: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let named = NameSeed(seed);
                    test(seed);
                    drop(named);
                }
            });
        }
    });
}

struct NameSeed(u64);

impl Drop for NameSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {0}: run it again with GODWIT_CRASH_SEED={0}", self.0);
        }
    }
}

fn options(dice: &mut Dice) -> Options {
    let policy = if dice.chance(50) { Policy::DropOldest } else { Policy::Reject };
    Options {
        segment_bytes: MIN_SEGMENT_BYTES,
        max_bytes: MIN_SEGMENT_BYTES * (4 + dice.below(5)),
        keep_ms: [0, 50, 1_000_000][usize::try_from(dice.below(3)).expect("small")],
        policy,
        clock: Clock::manual(0),
        ..Options::default()
    }
}

fn begin(disk: &SimDisk, options: &Options) -> (Bare, Account) {
    let journal = Bare::open(Arc::new(disk.clone()), DIR, options.clone()).expect("a new journal");
    let account = Account::new(disk.effects());
    (journal, account)
}

#[test]
fn a_cut_or_kill_at_any_instant_loses_nothing_acknowledged_and_invents_nothing() {
    let cuts = AtomicU64::new(0);
    let range = seeds(40);
    let ordinary = range == (0..40);
    for_each_seed(range, |seed| {
        let mut dice = Dice::new(seed);
        let options = options(&mut dice);
        let disk = SimDisk::new();
        let (mut journal, mut account) = begin(&disk, &options);
        let mut workload = Workload::new(seed, &options);
        for _ in 0..20 + dice.below(60) {
            workload.step(&disk, &mut journal, &mut account);
        }
        drop(journal);
        let mut examiner = Examiner::new(seed, &options);
        for instant in 0..=disk.effects() {
            let then = disk.at(instant);
            // Killed, and the power cut only later.
            examiner.examine(&then.at(0), &account, instant);
            let states = then.crash_states(dice.roll());
            if states.len() <= 4 {
                states.for_each(|found| examiner.examine(&found, &account, instant));
            } else {
                examiner.examine(&then.power_cut_losing_all(), &account, instant);
                examiner.examine(&then.power_cut_keeping_all(), &account, instant);
                for _ in 0..3 {
                    examiner.examine(&then.power_cut(dice.roll()), &account, instant);
                }
            }
        }
        cuts.fetch_add(examiner.cuts(), Ordering::Relaxed);
    });
    let cuts = cuts.into_inner();
    println!("{cuts} power cuts");
    assert!(!ordinary || cuts >= 10_000, "only {cuts} power cuts");
}

#[test]
fn a_disk_that_fails_in_any_call_refuses_and_serves_again() {
    for_each_seed(seeds(6), |seed| {
        let mut dice = Dice::new(seed);
        let options = options(&mut dice);
        for failure in [Failure::NoSpace, Failure::Io] {
            let mut after = 0;
            loop {
                let mut dice = Dice::new(dice.clone().roll());
                let disk = SimDisk::new();
                let (mut journal, mut account) = begin(&disk, &options);
                let times = [1, 2, 5][usize::try_from(after % 3).expect("small")];
                let begun = disk.calls();
                disk.inject(Fault { call: None, after, times, failure });
                let mut workload = Workload::new(seed, &options);
                for _ in 0..40 {
                    workload.step(&disk, &mut journal, &mut account);
                }
                let reached = disk.calls() - begun > after;
                disk.clear_faults();
                workload.must_serve(&disk, &mut journal, &mut account);
                let mut examiner = Examiner::new(seed, &options);
                examiner.compare_live(&journal, &account);
                drop(journal);
                let end = disk.effects();
                for instant in [end, end - dice.index_below(end), end - dice.index_below(end)] {
                    let then = disk.at(instant);
                    examiner.examine(&then.power_cut_losing_all(), &account, instant);
                    examiner.examine(&then.power_cut(dice.roll()), &account, instant);
                }
                if !reached {
                    break;
                }
                after += 1;
            }
        }
    });
}

#[test]
fn after_one_failed_sync_no_instant_shows_what_was_refused_under_a_name_that_is_used_again() {
    for_each_seed(seeds(12), |seed| {
        let mut dice = Dice::new(seed ^ 0x5bd1);
        let options = options(&mut dice);
        let disk = SimDisk::new();
        let (mut journal, mut account) = begin(&disk, &options);
        let mut workload = Workload::new(seed, &options);
        for _ in 0..3 {
            disk.inject(Fault { call: Some(Call::Sync), after: dice.below(12), times: 1, failure: Failure::Io });
            for _ in 0..15 {
                workload.step(&disk, &mut journal, &mut account);
            }
            disk.clear_faults();
        }
        workload.must_serve(&disk, &mut journal, &mut account);
        drop(journal);
        let mut examiner = Examiner::new(seed, &options);
        for instant in 0..=disk.effects() {
            let then = disk.at(instant);
            examiner.examine(&then.power_cut_losing_all(), &account, instant);
            examiner.examine(&then.power_cut_keeping_all(), &account, instant);
            examiner.examine(&then.power_cut(dice.roll()), &account, instant);
        }
    });
}

#[test]
fn a_disk_that_lied_loses_events_but_never_names_two_alike() {
    for_each_seed(seeds(12), |seed| {
        let mut dice = Dice::new(seed ^ 0x11e5);
        let options = options(&mut dice);
        let disk = SimDisk::new();
        let (mut journal, mut account) = begin(&disk, &options);
        let mut workload = Workload::new(seed, &options);
        for _ in 0..dice.below(20) {
            workload.step(&disk, &mut journal, &mut account);
        }
        disk.set_lying(true);
        for _ in 0..30 {
            workload.step(&disk, &mut journal, &mut account);
        }
        drop(journal);
        let mut examiner = Examiner::new(seed, &options);
        let end = disk.effects();
        for _ in 0..60 {
            let instant = dice.index_below(end + 1);
            examiner.examine_after_lies(&disk.at(instant).power_cut(dice.roll()), &account, 3);
        }
    });
}

#[test]
fn a_full_disk_refuses_events_keeps_cursors_moving_and_recovers_when_space_does() {
    for_each_seed(seeds(12), |seed| {
        let mut dice = Dice::new(seed ^ 0xf011);
        let options = Options { max_bytes: 1 << 20, ..options(&mut dice) };
        let disk = SimDisk::new();
        disk.set_capacity(MIN_SEGMENT_BYTES * (6 + dice.below(4)));
        let (mut journal, mut account) = begin(&disk, &options);
        let mut workload = Workload::new(seed, &options);
        for _ in 0..120 {
            workload.step(&disk, &mut journal, &mut account);
        }
        let mut examiner = Examiner::new(seed, &options);
        examiner.compare_live(&journal, &account);
        let end = disk.effects();
        for _ in 0..20 {
            let instant = end - dice.index_below(end);
            examiner.examine(&disk.at(instant).power_cut(dice.roll()), &account, instant);
        }
        disk.set_capacity(u64::MAX);
        workload.must_serve(&disk, &mut journal, &mut account);
        examiner.compare_live(&journal, &account);
    });
}

/// A number below `n` for what is counted in `usize`.
trait IndexBelow {
    fn index_below(&mut self, n: usize) -> usize;
}

impl IndexBelow for Dice {
    fn index_below(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n as u64)).expect("below a usize")
    }
}
