//! What the simulated disk promises.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::{Call, Failure, Fault, SimDisk};
use crate::storage::{Storage, StorageFile};

const SECTOR: usize = 512;

/// A disk with the durable file `a` that has these bytes.
fn with_file(bytes: &[u8]) -> io::Result<(SimDisk, Arc<dyn StorageFile>)> {
    let disk = SimDisk::new();
    let file = disk.open("a", true)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    disk.sync_dir("")?;
    Ok((disk, file))
}

fn fault(call: Call, after: u64, failure: Failure) -> Fault {
    Fault { call: Some(call), after, times: 1, failure }
}

#[test]
fn what_was_synced_is_in_every_state_and_what_was_not_in_some() -> io::Result<()> {
    let (disk, file) = with_file(b"old")?;
    file.write_all_at(b"new", 3)?;
    let found: BTreeSet<_> = disk.crash_states(1).filter_map(|d| d.contents("a")).collect();
    assert_eq!(found, BTreeSet::from([b"old".to_vec(), b"oldnew".to_vec()]));
    file.sync_data()?;
    assert_eq!(disk.crash_states(1).len(), 1);
    assert_eq!(disk.power_cut(7).contents("a").as_deref(), Some(&b"oldnew"[..]));
    Ok(())
}

#[test]
fn a_write_over_three_sectors_is_torn_in_every_way() -> io::Result<()> {
    let (disk, file) = with_file(&[0; 3 * SECTOR])?;
    file.write_all_at(&[1; 3 * SECTOR], 0)?;
    let mut found = BTreeSet::new();
    for seed in 0..20 {
        for state in disk.crash_states(seed) {
            let bytes = state.contents("a").expect("durable");
            assert!(bytes.chunks(SECTOR).all(|s| s.iter().all(|b| *b == s[0])), "torn within a sector: {}", state.story());
            found.insert([bytes[0], bytes[SECTOR], bytes[2 * SECTOR]]);
        }
    }
    assert_eq!(found.len(), 8);
    Ok(())
}

#[test]
fn later_writes_may_overtake_earlier_ones_and_overlapping_ones_stay_in_order() -> io::Result<()> {
    let (disk, file) = with_file(b"....")?;
    file.write_all_at(b"1", 0)?;
    file.write_all_at(b"2", 2)?;
    file.write_all_at(b"33", 2)?;
    let found: BTreeSet<_> = disk.crash_states(0).filter_map(|d| String::from_utf8(d.contents("a")?).ok()).collect();
    assert_eq!(found, ["..2.", "..33", "....", "1.2.", "1.33", "1..."].map(String::from).into());
    Ok(())
}

#[test]
fn a_change_of_length_not_synced_happens_or_not() -> io::Result<()> {
    let (disk, file) = with_file(b"abcdef")?;
    file.set_len(2)?;
    file.allocate(4)?;
    assert_eq!(disk.contents("a").as_deref(), Some(&b"ab\0\0"[..]));
    let found: BTreeSet<_> = disk.crash_states(0).filter_map(|d| d.contents("a")).collect();
    assert_eq!(found, BTreeSet::from([b"abcdef".to_vec(), b"ab".to_vec(), b"ab\0\0".to_vec()]));
    Ok(())
}

#[test]
fn a_renamed_file_has_one_name_and_what_it_replaced_is_old_or_new() -> io::Result<()> {
    let (disk, _) = with_file(b"old")?;
    let file = disk.open("b", true)?;
    file.write_all_at(b"new", 0)?;
    file.sync_data()?;
    disk.sync_dir("")?;
    disk.rename("b", "a")?;
    assert_eq!(disk.paths(), ["a"]);
    let found: BTreeSet<_> = disk.crash_states(0).map(|d| (d.contents("a"), d.contents("b"))).collect();
    let (old, new) = (b"old".to_vec(), b"new".to_vec());
    assert_eq!(found, BTreeSet::from([(Some(old), Some(new.clone())), (Some(new), None)]));
    disk.rename("a", "c")?;
    for state in disk.crash_states(0) {
        let named_new = state.paths().iter().filter(|p| state.contents(p).as_deref() == Some(b"new")).count();
        assert_eq!(named_new, 1, "{}", state.story());
    }
    disk.sync_dir("")?;
    assert!(disk.crash_states(0).all(|d| d.paths() == ["c"]));
    Ok(())
}

#[test]
fn a_name_made_or_removed_without_a_sync_of_the_folder_is_there_or_not() -> io::Result<()> {
    let (disk, _) = with_file(b"x")?;
    disk.make_dir("d/e")?;
    disk.open("d/e/f", true)?.sync_data()?;
    disk.remove("a")?;
    let found: BTreeSet<_> = disk.crash_states(0).map(|d| d.paths()).collect();
    assert_eq!(found.len(), 4);
    disk.sync_dir("d/e")?;
    assert!(disk.crash_states(0).all(|d| d.paths().contains(&"d/e/f".to_owned())));
    assert_eq!(disk.list("d/e")?, ["f"]);
    assert_eq!(disk.list("x").unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(disk.open("x/y", true).unwrap_err().kind(), io::ErrorKind::NotFound);
    Ok(())
}

#[test]
fn after_a_failed_sync_the_bytes_are_read_but_never_certain() -> io::Result<()> {
    let (disk, file) = with_file(b"old")?;
    file.write_all_at(b"new", 0)?;
    disk.inject(fault(Call::Sync, 0, Failure::Io));
    assert!(file.sync_data().is_err());
    file.sync_data()?;
    file.write_all_at(b"!", 3)?;
    file.sync_data()?;
    assert_eq!(disk.contents("a").as_deref(), Some(&b"new!"[..]));
    let found: BTreeSet<_> = disk.crash_states(0).filter_map(|d| d.contents("a")).collect();
    assert_eq!(found, BTreeSet::from([b"old!".to_vec(), b"new!".to_vec()]));
    Ok(())
}

#[test]
fn a_lying_disk_makes_nothing_durable() -> io::Result<()> {
    let disk = SimDisk::new();
    disk.set_lying(true);
    let file = disk.open("a", true)?;
    file.write_all_at(b"x", 0)?;
    file.sync_data()?;
    disk.sync_dir("")?;
    assert!(disk.power_cut_losing_all().paths().is_empty());
    assert_eq!(disk.power_cut_keeping_all().contents("a").as_deref(), Some(&b"x"[..]));
    Ok(())
}

#[test]
fn a_full_disk_takes_what_fits_and_gives_back_what_is_cut() -> io::Result<()> {
    let (disk, file) = with_file(&[1; 4096])?;
    disk.set_capacity(3 * 4096);
    assert_eq!(disk.free_bytes()?, 2 * 4096);
    let error = file.write_all_at(&[2; 3 * 4096], 4096).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!((file.len()?, disk.free_bytes()?), (3 * 4096, 0));
    assert_eq!(file.allocate(4 * 4096).unwrap_err().kind(), io::ErrorKind::StorageFull);
    file.write_all_at(&[3; 4096], 0)?;
    file.set_len(4096)?;
    assert_eq!(disk.free_bytes()?, 2 * 4096);
    file.allocate(2 * 4096)?;
    assert_eq!(disk.free_bytes()?, 4096);
    disk.remove("a")?;
    assert_eq!(disk.free_bytes()?, 3 * 4096);
    Ok(())
}

#[test]
fn calls_fail_when_told_to() -> io::Result<()> {
    let (disk, file) = with_file(b"")?;
    disk.inject(fault(Call::Write, 1, Failure::NoSpace));
    file.write_all_at(b"ab", 0)?;
    assert_eq!(file.write_all_at(b"cdef", 2).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.contents("a").as_deref(), Some(&b"abcd"[..]));
    disk.inject(Fault { call: None, after: 2, times: u64::MAX, failure: Failure::Io });
    file.read_at(&mut [0], 0)?;
    disk.open("a", false)?;
    file.set_len(0)?;
    assert!(disk.open("a", false).is_err() && disk.rename("a", "b").is_err() && disk.sync_dir("").is_err());
    disk.clear_faults();
    disk.rename("a", "b")?;
    Ok(())
}

#[test]
fn the_disk_can_be_taken_back_to_every_earlier_instant() -> io::Result<()> {
    let (disk, file) = with_file(b"")?;
    let start = disk.effects();
    for n in 0..100_u8 {
        file.write_all_at(&[n], n.into())?;
    }
    for n in 0..=100 {
        assert_eq!(disk.at(start + n).contents("a").map(|b| b.len()), Some(n));
    }
    assert_eq!(disk.at(0).paths(), Vec::<String>::new());
    assert_eq!(disk.crash_states(0).len(), 256);
    let lengths: BTreeSet<_> = disk.crash_states(0).filter_map(|d| d.contents("a")).map(|b| b.len()).collect();
    assert!(lengths.contains(&100) && lengths.len() > 5, "{lengths:?}");
    Ok(())
}

#[test]
fn a_state_after_a_cut_is_a_disk_like_any_other() -> io::Result<()> {
    let (disk, file) = with_file(b"one")?;
    file.write_all_at(b"two", 3)?;
    let found = disk.power_cut_losing_all();
    assert!(found.story().contains("write a [3, 6): Lost"), "{}", found.story());
    let again = found.open("a", false)?;
    again.write_all_at(b"new", 3)?;
    found.open("b", true)?.write_all_at(b"b", 0)?;
    assert_eq!(found.crash_states(0).filter_map(|d| d.contents("a")).collect::<BTreeSet<_>>().len(), 2);
    assert_eq!(disk.contents("a").as_deref(), Some(&b"onetwo"[..]));
    Ok(())
}
