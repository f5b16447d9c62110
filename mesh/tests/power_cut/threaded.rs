//! The same promise for the journal as the program uses it, with its writer thread: what a receipt said is durable is found after
//! a cut at any later instant. The thread makes each run a little different; that is wanted here.

use std::sync::Arc;

use godwit_mesh::clock::Clock;
use godwit_mesh::journal::{Done, Item, Journal, MIN_SEGMENT_BYTES, Offset, Options, Refused, Start};
use godwit_mesh::storage::SimDisk;
use godwit_mesh::storage::sim::{Call, Dice, Failure, Fault};

use super::{DIR, IndexBelow, for_each_seed, seeds};

fn options() -> Options {
    Options { segment_bytes: MIN_SEGMENT_BYTES, max_bytes: 1 << 20, clock: Clock::manual(0), ..Options::default() }
}

fn open(disk: &SimDisk, context: &str) -> Journal {
    Journal::open(Arc::new(disk.clone()), DIR, options()).unwrap_or_else(|e| panic!("{e}\n{context}"))
}

async fn bodies(journal: &Journal) -> Vec<Vec<u8>> {
    let mut reader = journal.reader(Offset(0));
    let mut all = Vec::new();
    loop {
        let items = reader.try_next(1 << 16).await.expect("reads");
        if items.is_empty() {
            return all;
        }
        for item in items {
            let Item::Event { body, .. } = item else { panic!("not an event: {item:?}") };
            all.push(body.to_vec());
        }
    }
}

/// What was promised at an instant of the disk: so many events, and the cursor at least there.
struct Promise {
    instant: usize,
    events: usize,
    cursor: Offset,
}

async fn run(seed: u64) {
    let mut dice = Dice::new(seed);
    let disk = SimDisk::new();
    let journal = open(&disk, "a new journal");
    let consumer = journal.consumer("uplink", Start::Earliest, true);
    consumer.flushed().await.expect("registered");
    let mut appended: Vec<Vec<u8>> = Vec::new();
    let mut promises = vec![Promise { instant: disk.effects(), events: 0, cursor: Offset(0) }];
    if dice.chance(50) {
        disk.inject(Fault { call: Some(Call::Write), after: dice.below(30), times: 1, failure: Failure::NoSpace });
    }
    for n in 0..40_u64 {
        let mut receipts = Vec::new();
        for _ in 0..=dice.below(4) {
            let mut body = (seed << 32 | n << 8 | receipts.len() as u64).to_le_bytes().to_vec();
            body.resize(8 + dice.index_below(700), 0x5a);
            let receipt = journal.append(|a| a.event(|out| out.extend_from_slice(&body))).expect("room");
            receipts.push((receipt, body));
        }
        for (receipt, body) in receipts {
            match receipt.await {
                Ok(committed) => {
                    assert_eq!(committed.first, Offset(appended.len() as u64), "seed {seed}: acknowledged in order");
                    appended.push(body);
                }
                Err(refused) => assert_eq!(refused, Refused::DiskFull, "seed {seed}"),
            }
        }
        if dice.chance(20) {
            let to = Offset(appended.len() as u64);
            let done = Done { delivered: to.since(consumer.cursor()), ..Done::default() };
            assert!(consumer.advance(to, &done), "seed {seed}: a move that fits");
            consumer.flushed().await.expect("durable");
        }
        promises.push(Promise { instant: disk.effects(), events: appended.len(), cursor: consumer.cursor() });
    }
    journal.close().await;
    for _ in 0..25 {
        let instant = dice.index_below(disk.effects() + 1);
        let found = disk.at(instant).power_cut(dice.roll());
        let context = format!("seed {seed}, instant {instant}: {}", found.story());
        let again = open(&found, &context);
        let kept = bodies(&again).await;
        let promised = promises.iter().rfind(|p| p.instant <= instant);
        assert!(kept.len() >= promised.map_or(0, |p| p.events), "{} events are left\n{context}", kept.len());
        // What was refused and is found all the same is the last: whatever came after would have overwritten it.
        let genuine = kept.iter().zip(&appended).take_while(|(kept, appended)| kept == appended).count();
        assert!(genuine >= promised.map_or(0, |p| p.events), "other events at {genuine}\n{context}");
        if let Some(promised) = promised {
            let status = again.consumers();
            let [uplink] = &status[..] else { panic!("{status:?}\n{context}") };
            assert!(uplink.cursor >= promised.cursor, "{uplink:?}\n{context}");
            assert_eq!(uplink.done.total() + uplink.pending, again.next_offset().0, "{uplink:?}\n{context}");
        }
        again.append(|a| a.event(|out| out.push(1))).expect("queued").await.unwrap_or_else(|e| panic!("{e}\n{context}"));
        again.close().await;
    }
}

#[test]
fn with_its_thread_too_the_journal_keeps_what_its_receipts_said() {
    for_each_seed(seeds(16), |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(run(seed));
    });
}
