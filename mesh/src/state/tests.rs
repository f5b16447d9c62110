//! What the state promises.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::OnceLock;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;
use crate::storage::SimDisk;
use crate::storage::sim::{Call, Failure as DiskFailure, Fault};

const SETTINGS: Table<Setting> = Table::new("settings");
const NUMBERS: Table<u64> = Table::new("numbers");

thread_local! {
    /// Panics of redb on this thread.
    pub(super) static PANICS: Cell<u32> = const { Cell::new(0) };
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Setting {
    text: String,
}

fn setting(text: &str) -> Setting {
    Setting { text: text.to_owned() }
}

fn state(disk: &SimDisk) -> State {
    State::open(Arc::new(disk.clone()), "state.redb").expect("opened")
}

#[test]
fn what_was_put_is_found_by_key_and_by_prefix() -> Result<(), StateError> {
    let disk = SimDisk::new();
    let state = state(&disk);
    assert_eq!(state.get(SETTINGS, b"a")?, None);
    assert_eq!(state.scan(SETTINGS, b"")?, []);
    state.put(SETTINGS, b"a/1", &setting("one"))?;
    state.apply(&[
        SETTINGS.put(b"a/2", &setting("two"))?,
        SETTINGS.put(b"b", &setting("three"))?,
        NUMBERS.put(b"n", &7)?,
        SETTINGS.delete(b"a/1"),
        SETTINGS.delete(b"absent"),
    ])?;
    assert_eq!(state.scan(SETTINGS, b"a/")?, [(b"a/2".to_vec(), setting("two"))]);
    assert_eq!(state.scan(SETTINGS, b"")?.len(), 2);
    state.delete(SETTINGS, b"b")?;
    drop(state);
    let again = self::state(&disk);
    assert_eq!((again.get(SETTINGS, b"b")?, again.get(NUMBERS, b"n")?), (None, Some(7)));
    Ok(())
}

#[test]
fn too_long_keys_and_values_of_another_type_are_named() -> Result<(), StateError> {
    let state = state(&SimDisk::new());
    assert!(matches!(SETTINGS.put(&[0; MAX_KEY], &setting("")), Err(StateError::TooLarge { what: "key", .. })));
    state.put(NUMBERS, b"n", &7)?;
    let other: Table<Setting> = Table::new("numbers");
    let error = state.get(other, b"n").expect_err("a number is no setting");
    assert!(error.to_string().contains("table numbers, key \"n\""), "{error}");
    Ok(())
}

const MAX_KEY: usize = super::super::MAX_KEY_BYTES + 1;

#[test]
fn a_file_of_a_later_format_is_refused_and_left_as_it_is() -> Result<(), StateError> {
    let disk = SimDisk::new();
    state(&disk).put(NUMBERS, b"n", &7)?;
    let file = disk.open("state.redb", false).expect("there");
    let mut head = [0; super::super::HEAD_BYTES];
    crate::storage::read_exact_at(&*file, &mut head, 0).expect("read");
    assert_eq!((head[64], head[192]), (FORMAT, FORMAT));
    for at in [64, 192] {
        file.write_all_at(&[FORMAT + 1], at).expect("written");
        head[usize::try_from(at).expect("small")] = FORMAT + 1;
    }
    assert_eq!(super::super::newer(&head), Some(FORMAT + 1));
    head[69] = 7;
    assert_eq!(super::super::newer(&head), None, "what stands beside it is damaged");
    let refused = State::open(Arc::new(disk.clone()), "state.redb").map(|_| ()).expect_err("a later one");
    assert!(matches!(refused, StateError::Version { found, .. } if found == FORMAT + 1), "{refused}");
    assert_eq!(disk.paths(), ["state.redb"]);
    // One head only is damage.
    file.write_all_at(&[FORMAT], 64).expect("written");
    state(&disk).put(NUMBERS, b"n", &8)?;
    Ok(())
}

#[test]
fn a_damaged_file_is_set_aside_and_few_of_them_are_kept() -> Result<(), StateError> {
    let disk = SimDisk::new();
    for n in 0..5_u64 {
        let state = state(&disk);
        assert_eq!(state.get(NUMBERS, b"n")?, None);
        assert_eq!(state.set_aside(), n.min(1));
        state.put(NUMBERS, b"n", &n)?;
        drop(state);
        disk.open("state.redb", false).expect("there").write_all_at(&[0xa5; 64], 0).expect("written");
    }
    assert_eq!(disk.paths(), ["state.redb", "state.redb.damaged-2", "state.redb.damaged-3", "state.redb.damaged-4"]);
    Ok(())
}

#[test]
fn damage_anywhere_costs_no_start_and_no_call() {
    let disk = SimDisk::new();
    let state = state(&disk);
    for n in 0..200_u64 {
        state.put(NUMBERS, &n.to_be_bytes(), &n).expect("put");
    }
    drop(state);
    let bytes = disk.contents("state.redb").expect("there");
    for at in (0..bytes.len()).step_by(997) {
        let copy = disk.power_cut_keeping_all();
        let file = copy.open("state.redb", false).expect("there");
        file.write_all_at(&[0xff; 300], at as u64).expect("written");
        let state = self::state(&copy);
        for n in 0..200_u64 {
            state.get(NUMBERS, &n.to_be_bytes()).expect("found or not");
        }
        state.put(NUMBERS, b"new", &1).expect("put");
        assert_eq!(state.get(NUMBERS, b"new").expect("read"), Some(1));
    }
    for len in (0..bytes.len() as u64).step_by(4096) {
        let copy = disk.power_cut_keeping_all();
        copy.open("state.redb", false).expect("there").set_len(len).expect("cut");
        let state = self::state(&copy);
        state.put(NUMBERS, b"new", &1).expect("put");
        assert_eq!(state.get(NUMBERS, b"new").expect("read"), Some(1));
    }
}

#[test]
fn after_an_error_of_the_disk_the_next_call_works() -> Result<(), StateError> {
    for call in [Call::Write, Call::Sync, Call::SetLen, Call::Read, Call::Open, Call::SyncDir] {
        for after in 0..6 {
            let disk = SimDisk::new();
            let before = state(&disk);
            before.put(NUMBERS, b"before", &1)?;
            drop(before);
            disk.inject(Fault { call: Some(call), after, times: 1, failure: DiskFailure::Io });
            let state = state(&disk);
            let mut last = None;
            for n in 0..20 {
                if state.put(NUMBERS, b"n", &n).is_ok() {
                    last = Some(n);
                } else {
                    // Made or not: not known, as the error says.
                    let found = state.get(NUMBERS, b"n")?;
                    assert!(found == last || found == Some(n), "{call:?} {after}: {found:?} after {last:?}");
                    last = found;
                }
            }
            disk.clear_faults();
            assert_eq!(last, Some(19), "{call:?} {after}");
            for found in (0..8).map(|seed| disk.power_cut(seed)) {
                let again = self::state(&found);
                assert_eq!(again.set_aside(), 0, "{call:?} {after}: {}", found.story());
                assert_eq!((again.get(NUMBERS, b"before")?, again.get(NUMBERS, b"n")?), (Some(1), Some(19)));
            }
        }
    }
    Ok(())
}

#[test]
fn a_full_disk_refuses_changes_and_still_lets_read() -> Result<(), StateError> {
    let disk = SimDisk::new();
    let state = state(&disk);
    state.put(SETTINGS, b"kept", &setting("kept"))?;
    disk.set_capacity(disk.used());
    let large = setting(&"x".repeat(300_000));
    let error = state.put(SETTINGS, b"large", &large).expect_err("no room");
    assert!(matches!(&error, StateError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull), "{error}");
    assert_eq!(state.get(SETTINGS, b"kept")?, Some(setting("kept")));
    // A start on a full disk, after a power cut, reads what there is.
    for found in disk.crash_states(1) {
        found.set_capacity(found.used());
        let again = self::state(&found);
        assert_eq!(again.get(SETTINGS, b"kept")?, Some(setting("kept")), "{}", found.story());
    }
    disk.set_capacity(u64::MAX);
    state.put(SETTINGS, b"large", &large)?;
    assert_eq!(state.get(SETTINGS, b"large")?, Some(large));
    Ok(())
}

/// Commits acknowledged and the last one tried, replayed at every instant of the disk.
#[test]
fn a_power_cut_at_any_instant_leaves_the_last_commit_or_the_one_being_made() -> Result<(), StateError> {
    let disk = SimDisk::new();
    let state = state(&disk);
    // The disk's instant after each commit, and what the table then held.
    let mut commits = vec![(disk.effects(), BTreeMap::new())];
    for n in 0..40_u64 {
        let mut held = commits.last().map(|(_, held)| held.clone()).unwrap_or_default();
        let key = (n * 7 % 11).to_be_bytes().to_vec();
        if n % 5 == 4 {
            state.delete(NUMBERS, &key)?;
            held.remove(&key);
        } else {
            state.apply(&[NUMBERS.put(&key, &n)?, NUMBERS.put(b"last", &n)?])?;
            held.insert(key, n);
            held.insert(b"last".to_vec(), n);
        }
        commits.push((disk.effects(), held));
    }
    let mut cuts = 0_u64;
    for instant in 0..=disk.effects() {
        let done = commits.iter().rposition(|(at, _)| *at <= instant);
        let then = disk.at(instant);
        let states = [then.power_cut_losing_all(), then.power_cut_keeping_all(), then.power_cut(instant as u64)];
        for found in states {
            cuts += 1;
            let after = self::state(&found);
            let rows: BTreeMap<_, _> = after.scan(NUMBERS, b"")?.into_iter().collect();
            assert_eq!(after.set_aside(), 0, "instant {instant}: {}", found.story());
            let may = [done, Some(done.map_or(0, |d| d + 1))].into_iter().flatten().filter_map(|i| commits.get(i));
            assert!(may.into_iter().any(|(_, held)| *held == rows), "instant {instant}: {rows:?}: {}", found.story());
        }
    }
    assert!(cuts > 300, "{cuts}");
    Ok(())
}

/// A file that has been written to and taken from for a while.
fn used() -> &'static SimDisk {
    static USED: OnceLock<SimDisk> = OnceLock::new();
    USED.get_or_init(|| {
        let disk = SimDisk::new();
        let state = state(&disk);
        for n in 0..200_u16 {
            state.put(SETTINGS, &n.to_be_bytes(), &setting(&"x".repeat(usize::from(n) * 37 % 3000))).expect("put");
            if n % 3 == 0 {
                state.delete(SETTINGS, &(n / 2).to_be_bytes()).expect("gone");
            }
        }
        drop(state);
        disk
    })
}

/// Where the damage begins, as a share of the file or of its first two pages; how long it is; what is there now.
fn damage() -> impl Strategy<Value = (bool, f64, usize, u8)> {
    (any::<bool>(), 0.0..1.0, prop_oneof![1..=1_usize, 1..=8_usize, 1..=64_usize, 1..=5000_usize], 0..4_u8)
}

proptest! {
    /// The shipped agent cannot catch a panic: there must be none.
    #[test]
    fn redb_does_not_panic_on_a_damaged_file(
        damages in proptest::collection::vec(damage(), 1..4), cut in proptest::option::weighted(0.1, 0.0..1.0), seed: u64,
    ) {
        let disk = used().power_cut_keeping_all();
        let file = disk.open("state.redb", false).expect("there");
        let bytes = disk.contents("state.redb").expect("there");
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let share = |of: usize, share: f64| (of as f64 * share) as usize;
        for (early, at, len, kind) in damages {
            let at = share(if early { 8192 } else { bytes.len() }, at);
            let len = len.min(bytes.len() - at);
            let from = share(bytes.len() - len, (seed % 1000) as f64 / 1000.0);
            let junk = match kind {
                0 => vec![0; len],
                1 => vec![0xff; len],
                2 => bytes[from..from + len].to_vec(),
                _ => bytes[at..at + len].iter().zip(seed.to_le_bytes().iter().cycle()).map(|(old, new)| old ^ new).collect(),
            };
            file.write_all_at(&junk, at as u64).expect("written");
        }
        if let Some(cut) = cut {
            file.set_len(share(bytes.len(), cut) as u64).expect("cut");
        }
        PANICS.set(0);
        let state = state(&disk);
        for n in (0..200_u16).step_by(7) {
            state.get(SETTINGS, &n.to_be_bytes()).expect("found or not");
        }
        state.scan(SETTINGS, b"").expect("found or not");
        for n in 0..20_u16 {
            state.put(SETTINGS, &n.to_be_bytes(), &setting("y")).expect("put");
            state.delete(SETTINGS, &(n * 7).to_be_bytes()).expect("deleted");
        }
        prop_assert_eq!(PANICS.get(), 0);
    }
}
