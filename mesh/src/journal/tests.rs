//! The journal as a whole, on a real file system.

use std::sync::Arc;

use tempfile::TempDir;

use super::damage::tests::logged;
use super::*;
use crate::clock::Clock;
use crate::storage::sim::{Call, Failure, Fault};
use crate::storage::{Disk, SimDisk, Storage};

struct Bench {
    folder: TempDir,
    options: Options,
}

impl Bench {
    fn new(options: Options) -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), options }
    }

    fn small() -> Self {
        Self::new(Options { segment_bytes: 16 << 10, max_bytes: 64 << 10, clock: Clock::manual(0), ..Options::default() })
    }

    fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(Disk::new(self.folder.path()).expect("a disk"))
    }

    fn open(&self) -> Journal {
        Journal::open(self.storage(), "journal", self.options.clone()).expect("opens")
    }
}

async fn append(journal: &Journal, body: &[u8]) -> Result<Committed, Refused> {
    loop {
        match journal.append(|a| a.event(|out| out.extend_from_slice(body))) {
            Ok(receipt) => return receipt.await,
            Err(Refused::Busy) => journal.room().await,
            Err(refused) => return Err(refused),
        }
    }
}

async fn read_all(journal: &Journal, from: u64) -> Vec<Item> {
    let mut reader = journal.reader(Offset(from));
    let mut all = Vec::new();
    loop {
        let items = reader.try_next(1000).await.expect("reads");
        if items.is_empty() {
            return all;
        }
        all.extend(items);
    }
}

fn bodies(items: &[Item]) -> Vec<(u64, Vec<u8>)> {
    let event = |item: &Item| match item {
        Item::Event { offset, body, .. } => Some((offset.0, body.to_vec())),
        _ => None,
    };
    items.iter().filter_map(event).collect()
}

#[tokio::test]
async fn what_was_appended_is_read_back_in_order_over_restarts_and_segments() {
    let bench = Bench::new(Options { segment_bytes: 16 << 10, max_bytes: 1 << 20, ..Options::default() });
    let mut expected = Vec::new();
    for start in 0..4_u64 {
        let journal = bench.open();
        for n in 0..50_u64 {
            let body = vec![u8::try_from(n).expect("small"); 300];
            let committed = append(&journal, &body).await.expect("durable");
            assert_eq!(committed.first, Offset(start * 50 + n));
            assert_eq!(committed.epoch, journal.epoch());
            expected.push((committed.first.0, body));
        }
        assert_eq!(bodies(&read_all(&journal, 0).await), expected);
        assert_eq!(bodies(&read_all(&journal, 77).await), &expected[77.min(expected.len())..]);
        assert_eq!(journal.lineage().0.len() as u64, start + 1);
        journal.close().await;
        assert_eq!(append(&journal, b"x").await, Err(Refused::Closed));
    }
}

#[tokio::test]
async fn many_appends_share_a_commit_and_a_reader_waits_for_them() {
    let bench = Bench::new(Options::default());
    let journal = bench.open();
    let mut reader = journal.reader(Offset(0));
    let reading = tokio::spawn(async move {
        let mut seen = 0;
        while seen < 1000 {
            seen += reader.next(1 << 20).await.expect("reads").len();
        }
        seen
    });
    let receipts: Vec<_> = (0..1000_u32)
        .map(|n| journal.append(|a| a.event(|out| out.extend_from_slice(&n.to_le_bytes()))).expect("queued"))
        .collect();
    let shared = receipts.windows(2).filter(|pair| pair[0].same_commit(&pair[1])).count();
    assert!(shared > 500, "{shared} of 999 neighbours went together");
    for (n, receipt) in receipts.into_iter().enumerate() {
        assert_eq!(receipt.await.expect("durable").first, Offset(n as u64));
    }
    assert_eq!(reading.await.expect("reads"), 1000);
}

#[tokio::test]
async fn facts_cursors_and_the_ledger_survive_a_restart() {
    let bench = Bench::small();
    let journal = bench.open();
    let consumer = journal.consumer("uplink", Start::Earliest, true);
    for n in 0..10_u8 {
        journal.append(|a| a.event_with_fact(&[b'q', n], &[n], |out| out.push(n))).expect("queued").await.expect("durable");
    }
    journal.append(|a| a.delete(&[b'q', 3])).expect("queued").await.expect("durable");
    let done = Done { delivered: 4, filtered: 2, ..Done::default() };
    assert!(consumer.advance(Offset(6), &done));
    assert!(!consumer.advance(Offset(8), &done), "an account that does not fit");
    consumer.flushed().await.expect("durable");
    journal.close().await;
    drop((consumer, journal));

    let journal = bench.open();
    assert_eq!(journal.facts(b"q").len(), 9);
    assert_eq!(journal.fact(&[b'q', 4]), Some(vec![4]));
    assert_eq!(journal.fact(&[b'q', 3]), None);
    let consumer = journal.consumer("uplink", Start::Next, true);
    assert_eq!(consumer.cursor(), Offset(6));
    let [status] = &journal.consumers()[..] else { panic!("one consumer") };
    assert_eq!((status.since, status.pending, status.done.clone()), (Offset(0), 4, done));
    consumer.seek(Offset(2));
    consumer.flushed().await.expect("durable");
    assert_eq!((journal.consumers()[0].since, consumer.cursor()), (Offset(2), Offset(2)));
}

#[tokio::test]
async fn the_oldest_makes_room_and_its_loss_is_counted() {
    let bench = Bench::small();
    let journal = bench.open();
    let consumer = journal.consumer("slow", Start::Earliest, true);
    for _ in 0..400 {
        append(&journal, &[7; 300]).await.expect("durable");
    }
    assert!(journal.bytes() <= 64 << 10, "{}", journal.bytes());
    let first = journal.first_offset();
    assert!(first > Offset(0));
    let [status] = &journal.consumers()[..] else { panic!("one consumer") };
    assert_eq!(status.done.dropped[&DropReason::Retention], first.0);
    assert_eq!(consumer.cursor(), first);
    assert_eq!(status.done.total() + status.pending, 400);
    let items = read_all(&journal, 0).await;
    assert_eq!(items[0], Item::Skip { from: Offset(0), to: first, reason: DropReason::Retention });
    assert_eq!(bodies(&items).len() as u64, 400 - first.0);
    journal.close().await;
    drop((consumer, journal));
    let [status] = &bench.open().consumers()[..] else { panic!("one consumer") };
    assert_eq!(status.done.total() + status.pending, 400);
}

#[tokio::test]
async fn under_reject_a_full_journal_refuses_until_its_consumers_catch_up() {
    let mut bench = Bench::small();
    bench.options.policy = Policy::Reject;
    let mut journal = bench.open();
    let mut consumer = journal.consumer("uplink", Start::Earliest, true);
    let mut accepted = 0_u64;
    for round in 0..5 {
        loop {
            match append(&journal, &[7; 300]).await {
                Ok(_) => accepted += 1,
                Err(refused) => {
                    assert_eq!(refused, Refused::Full);
                    break;
                }
            }
        }
        assert!(journal.bytes() <= 64 << 10, "{}", journal.bytes());
        let [status] = &journal.consumers()[..] else { panic!("one consumer") };
        assert_eq!(status.done.dropped.len(), 0);
        assert_eq!(status.pending + status.done.total(), accepted, "round {round}");
        // Restarts and control records go on working while it is full.
        for n in 0..200_u8 {
            journal.append(|a| a.put(b"fact", &[n; 100])).expect("queued").await.expect("durable");
        }
        for _ in 0..3 {
            journal.close().await;
            drop((consumer, journal));
            journal = bench.open();
            consumer = journal.consumer("uplink", Start::Earliest, true);
        }
        assert_eq!(append(&journal, &[7; 300]).await, Err(Refused::Full));
        let (from, to) = (consumer.cursor(), journal.next_offset());
        assert!(consumer.advance(to, &Done { delivered: to.since(from), ..Done::default() }));
        consumer.flushed().await.expect("durable");
    }
    assert!(accepted > 200, "{accepted}");
}

#[tokio::test]
async fn flipped_bits_cost_the_events_they_hit_and_no_other() {
    let bench = Bench::new(Options { segment_bytes: 64 << 10, max_bytes: 1 << 20, ..Options::default() });
    let journal = bench.open();
    for n in 0..100_u8 {
        append(&journal, &[n; 500]).await.expect("durable");
    }
    journal.close().await;
    drop(journal);
    let dir = bench.folder.path().join("journal");
    let hit = std::fs::read_dir(&dir).expect("list").map(|entry| entry.expect("entry").path()).find_map(|path| {
        let bytes = std::fs::read(&path).expect("read");
        let at = bytes.windows(500).position(|w| w == [40; 500])?;
        Some((path, bytes, at))
    });
    let (path, mut bytes, at) = hit.expect("event 40 is somewhere");
    bytes[at + 9] ^= 4;
    std::fs::write(&path, bytes).expect("write");
    let journal = bench.open();
    assert_eq!(journal.next_offset(), Offset(100));
    let items = read_all(&journal, 0).await;
    assert_eq!(items[40], Item::Skip { from: Offset(40), to: Offset(41), reason: DropReason::Quarantined });
    assert_eq!(bodies(&items).len(), 99);
}

#[tokio::test]
async fn what_all_have_passed_is_kept_for_a_while_and_then_goes() {
    let mut bench =
        Bench::new(Options { segment_bytes: 16 << 10, max_bytes: 1 << 20, clock: Clock::manual(0), ..Options::default() });
    bench.options.keep_ms = 1000;
    let mut log = Log::open(bench.storage(), "journal", bench.options.clone()).expect("opens");
    let mut batch = Batch::default();
    for _ in 0..100 {
        super::format::put_record(&mut batch.bytes, super::format::Kind::Event, |out| out.extend_from_slice(&[1; 500]));
        batch.events = 1;
        log.commit(&mut batch).expect("durable");
        batch.clear(0);
    }
    let first = |log: &Log| super::log::lock(&log.view).state.first;
    log.maintain();
    assert_eq!(first(&log), Offset(0));
    bench.options.clock.advance(2000);
    log.maintain();
    assert!(first(&log) > Offset(50), "{}", first(&log));
}

#[test]
fn few_events_do_not_outlive_their_age_limit_by_waiting_for_a_full_segment() {
    let bench = Bench::new(Options { max_age_ms: Some(1000), clock: Clock::manual(0), ..Options::default() });
    let mut log = Log::open(bench.storage(), "journal", bench.options.clone()).expect("opens");
    let mut batch = Batch::default();
    super::format::put_record(&mut batch.bytes, super::format::Kind::Event, |out| out.extend_from_slice(&[1; 50]));
    batch.events = 1;
    log.commit(&mut batch).expect("durable");
    let view = |log: &Log| {
        let view = super::log::lock(&log.view);
        (view.state.first, view.table.len())
    };
    bench.options.clock.advance(900);
    log.maintain();
    assert_eq!(view(&log), (Offset(0), 1));
    for _ in 0..3 {
        bench.options.clock.advance(1000);
        log.maintain();
    }
    assert_eq!(view(&log), (Offset(1), 1), "the event is gone, and an empty segment is not ended again");
}

#[test]
fn an_append_that_panics_leaves_nothing_behind() {
    let bench = Bench::small();
    let journal = bench.open();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = journal.append(|a| {
            a.event(|out| out.push(1));
            panic!("a bug in an encoder");
        });
    }));
    assert!(panicked.is_err());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let items = runtime.block_on(async {
        append(&journal, b"next").await.expect("durable");
        read_all(&journal, 0).await
    });
    assert_eq!(bodies(&items), [(0, b"next".to_vec())]);
}

#[tokio::test]
async fn a_reader_passes_segments_that_hold_nothing_it_wants() {
    let digest: Digest = |body, note| note(Field::Type, if body[0] == 1 { "one" } else { "other" });
    let bench =
        Bench::new(Options { segment_bytes: 64 << 10, max_bytes: 4 << 20, digest: Some(digest), ..Options::default() });
    let mut log = Log::open(bench.storage(), "journal", bench.options.clone()).expect("opens");
    let mut batch = Batch::default();
    for n in 0..1000_u32 {
        let kind = u8::from(n == 500);
        super::format::put_record(&mut batch.bytes, super::format::Kind::Event, |out| out.extend_from_slice(&[kind; 500]));
        batch.events = 1;
        log.commit(&mut batch).expect("durable");
        batch.clear(0);
        if let Some(seal) = log.take_unsealed() {
            seal();
        }
    }
    drop(log);
    let journal = bench.open();
    let mut reader = journal
        .reader(Offset(3))
        .with_interest(Box::new(|summary| summary.types.as_ref().is_none_or(|t| t.contains("one"))));
    let (mut read, mut passed, mut next) = (Vec::new(), 0, Offset(3));
    while next < Offset(1000) {
        for item in reader.try_next(1 << 20).await.expect("reads") {
            match item {
                Item::Event { offset, .. } => {
                    assert_eq!(offset, next);
                    read.push(offset.0);
                    next = offset.plus(1);
                }
                Item::Unwanted { from, to } => {
                    assert_eq!(from, next);
                    passed += to.since(from);
                    next = to;
                }
                Item::Skip { .. } => panic!("nothing is lost"),
            }
        }
    }
    assert!(read.contains(&500) && passed > 700, "{} read, {passed} passed", read.len());
}

#[tokio::test]
async fn with_another_segment_size_no_more_is_given_up_than_room_is_needed_for() {
    let mut bench = Bench::small();
    bench.options.max_bytes = 160 << 10;
    let journal = bench.open();
    for _ in 0..500 {
        append(&journal, &[7; 300]).await.expect("durable");
    }
    journal.close().await;
    let kept = journal.next_offset().since(journal.first_offset());
    drop(journal);

    // No file is of the new size, so none of them can be used again.
    bench.options.segment_bytes = 20 << 10;
    let journal = bench.open();
    for _ in 0..60 {
        append(&journal, &[8; 300]).await.expect("durable");
    }
    let still = journal.next_offset().since(journal.first_offset());
    assert!(still > kept / 2, "{still} of {kept} events are left after a change of the segment size");
}

/// Where the bytes of an event of `n`s are on the disk: path, content, position.
fn find_event(bench: &Bench, n: u8) -> (std::path::PathBuf, Vec<u8>, usize) {
    let dir = bench.folder.path().join("journal");
    let hit = std::fs::read_dir(&dir).expect("list").map(|entry| entry.expect("entry").path()).find_map(|path| {
        let bytes = std::fs::read(&path).expect("read");
        let at = bytes.windows(500).position(|w| w == [n; 500])?;
        Some((path, bytes, at))
    });
    hit.expect("the event is somewhere")
}

/// A journal of 100 events, each in a batch of its own, with a bit of event 40 flipped; opened again and read, with what is logged.
fn damaged(segments_before: usize) -> (String, Vec<Item>) {
    let bench = Bench::new(Options { segment_bytes: 64 << 10, max_bytes: 1 << 20, ..Options::default() });
    let mut bare = Bare::open(bench.storage(), "journal", bench.options.clone()).expect("opens");
    for n in 0..100_u8 {
        bare.event(&[n; 500]);
        bare.commit().expect("durable");
    }
    drop(bare);
    let (path, mut bytes, at) = find_event(&bench, 40);
    bytes[at + 9] ^= 4;
    std::fs::write(&path, bytes).expect("write");
    for _ in 0..segments_before {
        drop(Bare::open(bench.storage(), "journal", bench.options.clone()).expect("opens"));
    }
    let mut items = Vec::new();
    let text = logged(|| {
        let bare = Bare::open(bench.storage(), "journal", bench.options.clone()).expect("opens");
        items = bare.read_all().expect("reads");
        assert_eq!(bare.read_all().expect("reads"), items);
    });
    (text, items)
}

#[test]
fn damage_that_recovery_meets_is_logged_once_with_its_place_and_its_count() {
    let (text, items) = damaged(0);
    assert_eq!(items[40], Item::Skip { from: Offset(40), to: Offset(41), reason: DropReason::Quarantined });
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("damage")).collect();
    let [line] = lines.as_slice() else { panic!("one line, not {text}") };
    for part in ["WARN", "seg-", "at=", "bytes=5", "from=40", "to=41", "events=1", "dropped_quarantined"] {
        assert!(line.contains(part), "{part} is not in: {line}");
    }
}

#[test]
fn damage_that_a_reader_meets_first_is_logged_once_however_many_come_by() {
    // Two starts later the damage lies behind the base of the recovery.
    let (text, items) = damaged(2);
    assert_eq!(items[40], Item::Skip { from: Offset(40), to: Offset(41), reason: DropReason::Quarantined });
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("damage")).collect();
    let [line] = lines.as_slice() else { panic!("one line, not {text}") };
    for part in ["seg-", "at=", "bytes=5", "from=40", "to=41", "events=1", "dropped_quarantined"] {
        assert!(line.contains(part), "{part} is not in: {line}");
    }
}

#[test]
fn an_unfinished_batch_at_the_end_is_cut_and_that_is_logged() {
    let bench = Bench::new(Options { segment_bytes: 64 << 10, max_bytes: 1 << 20, ..Options::default() });
    let mut bare = Bare::open(bench.storage(), "journal", bench.options.clone()).expect("opens");
    for n in 0..10_u8 {
        bare.event(&[n; 500]);
        bare.commit().expect("durable");
    }
    drop(bare);
    let (path, mut bytes, at) = find_event(&bench, 9);
    bytes[at + 200..at + 500].fill(0);
    std::fs::write(&path, bytes).expect("write");
    let text = logged(|| {
        let bare = Bare::open(bench.storage(), "journal", bench.options.clone()).expect("opens");
        assert_eq!(bare.next(), Offset(9));
    });
    assert!(text.contains("an unfinished batch at the end is cut"), "{text}");
    let again = logged(|| drop(Bare::open(bench.storage(), "journal", bench.options.clone()).expect("opens")));
    assert!(!again.contains("unfinished"), "{again}");
}

#[test]
fn a_segment_that_the_disk_does_not_give_is_skipped_after_three_tries_and_that_is_logged() {
    let disk = SimDisk::new();
    let options = Options { segment_bytes: 64 << 10, max_bytes: 1 << 20, clock: Clock::manual(0), ..Options::default() };
    let mut bare = Bare::open(Arc::new(disk.clone()), "journal", options).expect("opens");
    for n in 0..10_u8 {
        bare.event(&[n; 500]);
        bare.commit().expect("durable");
    }
    disk.inject(Fault { call: Some(Call::Read), after: 0, times: 3, failure: Failure::Io });
    let mut core = bare.core();
    let mut items = Vec::new();
    let text = logged(|| {
        assert!(core.read(Offset(0), 1 << 20).is_err());
        assert!(core.read(Offset(0), 1 << 20).is_err());
        items = core.read(Offset(0), 1 << 20).expect("given up").0;
    });
    assert_eq!(items, [Item::Skip { from: Offset(0), to: Offset(10), reason: DropReason::Quarantined }]);
    for part in ["WARN", "seg-", "events=10", "dropped_quarantined", "3 tries"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[test]
fn a_segment_whose_head_cannot_be_read_is_not_taken_for_a_free_one() {
    let disk = SimDisk::new();
    let options = Options { segment_bytes: 64 << 10, max_bytes: 1 << 20, clock: Clock::manual(0), ..Options::default() };
    let mut bare = Bare::open(Arc::new(disk.clone()), "journal", options.clone()).expect("opens");
    for n in 0..10_u8 {
        bare.event(&[n; 500]);
        bare.commit().expect("durable");
    }
    drop(bare);
    // The head, and the search for batches behind it, fail once each: by the next read the medium answers again.
    disk.inject(Fault { call: Some(Call::Read), after: 0, times: 2, failure: Failure::Io });
    let bare = Bare::open(Arc::new(disk.clone()), "journal", options).expect("opens");
    assert_eq!(bare.next(), Offset(10), "what was acknowledged is still there");
    assert_eq!(bare.read_all().expect("reads").len(), 10);
}

#[tokio::test]
async fn what_is_noted_beyond_a_cursor_lives_with_it_and_goes_when_it_moves_back() {
    let bench = Bench::small();
    let journal = bench.open();
    let consumer = journal.consumer("t", Start::Earliest, false);
    for n in 0..10_u8 {
        append(&journal, &[n]).await.expect("durable");
    }
    let done = |n: u64| Done { delivered: n, ..Done::default() };
    let advance = |from: u64, to: u64, note: &[u8]| {
        consumer.advance_noting(Offset(from), Offset(to), &done(to - from), Some(note.to_vec()))
    };
    assert!(advance(0, 0, b"without a move"));
    assert!(advance(0, 3, b"5, 7"));
    assert!(!advance(0, 4, b"of another past"), "the cursor is elsewhere");
    assert_eq!(consumer.ahead().as_deref(), Some(&b"5, 7"[..]));
    consumer.flushed().await.expect("durable");
    journal.close().await;
    drop((consumer, journal));

    let journal = bench.open();
    let consumer = journal.consumer("t", Start::Earliest, false);
    assert_eq!((consumer.cursor(), consumer.ahead().as_deref()), (Offset(3), Some(&b"5, 7"[..])));
    consumer.seek(Offset(4));
    consumer.flushed().await.expect("durable");
    assert!(consumer.ahead().is_some(), "forward: what is finished stays finished");
    let mut moved = journal.watch_moved();
    moved.mark_unchanged();
    consumer.seek(Offset(1));
    assert!(moved.has_changed().expect("open"));
    consumer.flushed().await.expect("durable");
    assert_eq!(consumer.ahead(), None, "back: all of it is to be done");
    assert!(consumer.advance_noting(Offset(1), Offset(1), &done(0), Some(b"2".to_vec())));
    assert!(consumer.advance_noting(Offset(1), Offset(3), &done(2), Some(Vec::new())));
    consumer.flushed().await.expect("durable");
    assert_eq!(consumer.ahead(), None);
    assert!(consumer.advance_noting(Offset(3), Offset(3), &done(0), Some(b"5".to_vec())));
    consumer.flushed().await.expect("durable");
    journal.remove_consumer("t");
    append(&journal, b"x").await.expect("durable");
    assert_eq!(journal.facts(b"a"), []);
}

#[tokio::test]
async fn segments_grow_while_the_journal_is_open_and_what_is_held_stays() {
    let mut bench = Bench::small();
    bench.options.max_bytes = 1 << 20;
    let journal = bench.open();
    append(&journal, &[1; 3000]).await.expect("durable");
    let large = vec![2; 20_000];
    assert!(matches!(append(&journal, &large).await, Err(Refused::TooLarge { .. })));
    journal.set_options(Options { segment_bytes: 64 << 10, ..bench.options.clone() });
    append(&journal, &large).await.expect("durable in a larger segment");
    append(&journal, &[3; 3000]).await.expect("durable");
    let expected = vec![(0, vec![1; 3000]), (1, large), (2, vec![3; 3000])];
    assert_eq!(bodies(&read_all(&journal, 0).await), expected);
    journal.close().await;
    drop(journal);
    // The next start has small segments again, and reads the large ones.
    let journal = bench.open();
    assert_eq!(bodies(&read_all(&journal, 0).await), expected);
    append(&journal, &[4; 3000]).await.expect("durable");
}

#[tokio::test]
async fn a_journal_on_a_full_disk_says_how_much_it_lacks_until_there_is_room() {
    let disk = SimDisk::new();
    disk.set_capacity(40 << 10);
    let options = Options { segment_bytes: 16 << 10, max_bytes: 1 << 20, ..Options::default() };
    let journal = Journal::open(Arc::new(disk.clone()), "journal", options).expect("one segment fits");
    assert_eq!(append(&journal, &[1; 300]).await, Err(Refused::DiskFull), "two more do not");
    assert_eq!(journal.lacks_room(), Some(16 << 10));
    disk.set_capacity(1 << 20);
    append(&journal, &[1; 300]).await.expect("durable");
    assert_eq!(journal.lacks_room(), None);
}
