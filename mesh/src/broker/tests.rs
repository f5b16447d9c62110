//! The registry over restarts.

use std::sync::Arc;

use super::{BrokerDefaults, BrokerError, BrokerSettings, Brokers, removal};
use crate::journal::{Options, Refused, Start};
use crate::names::BrokerName;
use crate::storage::{Disk, SimDisk, Storage};

async fn open(storage: &Arc<dyn Storage>) -> Brokers {
    let options = Options { segment_bytes: 64 << 10, max_bytes: 4 << 20, ..Options::default() };
    Brokers::open(storage.clone(), None, BrokerDefaults { options, max_brokers: 2 }).await.expect("opened")
}

fn name(text: &str) -> BrokerName {
    text.parse().expect("a name")
}

#[tokio::test]
async fn brokers_are_opened_again_at_every_start_and_the_default_one_is_always_there() {
    let dir = tempfile::tempdir().expect("folder");
    let storage: Arc<dyn Storage> = Arc::new(Disk::new(dir.path()).expect("folder"));
    let brokers = open(&storage).await;
    assert!(brokers.get(&BrokerName::default()).is_some());
    let mut count = brokers.watch();
    let made = brokers.ensure(&name("site-1/alarms")).await.expect("made");
    assert_eq!(*count.borrow_and_update(), 2);
    let receipt = made.journal().append(|a| a.event(|out| out.push(1))).expect("taken");
    receipt.await.expect("durable");
    brokers.close().await;
    assert!(matches!(brokers.ensure(&name("another")).await, Err(BrokerError::Closed)));

    let brokers = open(&storage).await;
    let names: Vec<_> = brokers.list().iter().map(|b| b.name().to_string()).collect();
    assert_eq!(names, ["default/default", "site-1/alarms"]);
    assert_eq!(brokers.get(&name("site-1/alarms")).map(|b| b.journal().next_offset().0), Some(1));
    assert!(matches!(brokers.ensure(&name("third")).await, Err(BrokerError::TooMany { limit: 2, .. })));
    brokers.close().await;
}

#[tokio::test]
async fn two_who_ask_for_a_broker_at_once_get_the_same() {
    let dir = tempfile::tempdir().expect("folder");
    let storage: Arc<dyn Storage> = Arc::new(Disk::new(dir.path()).expect("folder"));
    let brokers = open(&storage).await;
    let wanted = name("b");
    let (one, other) = tokio::join!(brokers.ensure(&wanted), brokers.ensure(&wanted));
    assert!(Arc::ptr_eq(&one.expect("made"), &other.expect("found")));
    brokers.close().await;
}

#[tokio::test]
async fn the_status_is_what_the_contract_says() {
    let dir = tempfile::tempdir().expect("folder");
    let storage: Arc<dyn Storage> = Arc::new(Disk::new(dir.path()).expect("folder"));
    let brokers = open(&storage).await;
    let broker = brokers.get(&BrokerName::default()).expect("there");
    let consumer = broker.journal().consumer("uplink", Start::Earliest, true);
    broker.journal().append(|a| a.event(|out| out.push(1))).expect("taken").await.expect("durable");
    consumer.flushed().await.expect("durable");
    let mut status = brokers.status();
    assert!(status[0]["bytes"].take().as_u64().is_some_and(|bytes| bytes > 0));
    let consumer = serde_json::json!({
        "name": "uplink", "since": 0, "delivered": 0, "filtered": 0, "dead_lettered": 0, "dropped": {}, "pending": 1,
    });
    assert_eq!(
        status,
        serde_json::json!([{
            "namespace": "default", "name": "default", "first_offset": 0, "next_offset": 1, "bytes": null, "accepted": 1,
            "consumers": [consumer],
        }])
    );
    brokers.close().await;
}

#[tokio::test]
async fn dead_letters_have_a_journal_only_once_there_is_one() {
    let dir = tempfile::tempdir().expect("folder");
    let storage: Arc<dyn Storage> = Arc::new(Disk::new(dir.path()).expect("folder"));
    let brokers = open(&storage).await;
    let broker = brokers.get(&BrokerName::default()).expect("there");
    assert!(broker.existing_dead_letters().await.expect("readable").is_none());
    broker.dead_letters().await.expect("made");
    brokers.close().await;

    let brokers = open(&storage).await;
    let broker = brokers.get(&BrokerName::default()).expect("there");
    assert!(broker.existing_dead_letters().await.expect("readable").is_some());
    brokers.close().await;
}

#[tokio::test]
async fn the_dead_letter_journal_grows_for_a_large_event_and_keeps_what_it_has() {
    let dir = tempfile::tempdir().expect("folder");
    let storage: Arc<dyn Storage> = Arc::new(Disk::new(dir.path()).expect("folder"));
    let brokers = open(&storage).await;
    let broker = brokers.get(&BrokerName::default()).expect("there");
    let dead_letters = broker.dead_letters().await.expect("made");
    let put = async |bytes: usize| {
        let receipt = dead_letters.append(|a| a.event(|out| out.resize(out.len() + bytes, 7)));
        match receipt {
            Ok(receipt) => receipt.await.map(drop),
            Err(refused) => Err(refused),
        }
    };
    put(10_000).await.expect("durable");
    // The largest event that the Broker's own segments of 64 KiB take, and what a dead letter has beside it.
    let large = (32 << 10) + 4000;
    while let Err(refused) = put(large).await {
        assert!(matches!(refused, Refused::TooLarge { .. }), "{refused}");
        assert!(broker.grow_dead_letters(dead_letters), "there is a size that takes it");
    }
    put(10_000).await.expect("durable");
    assert_eq!(dead_letters.next_offset().0, 3);
    brokers.close().await;
    let brokers = open(&storage).await;
    let broker = brokers.get(&BrokerName::default()).expect("there");
    let dead_letters = broker.dead_letters().await.expect("opened");
    let items = dead_letters.reader(crate::journal::Offset(0)).try_next(1 << 20).await.expect("reads");
    assert_eq!(items.len(), 3, "{items:?}");
    brokers.close().await;
}

#[tokio::test]
async fn a_channel_goes_when_nobody_needs_it_and_a_power_cut_leaves_it_whole_or_gone() {
    let disk = SimDisk::new();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let brokers = open(&storage).await;
    let channel = name("channels/default/c");
    let mut unused = removal::Unused::new();
    let mut stays = async |why: &str| {
        for _ in 0..10 {
            removal::look(&brokers.0, &mut unused).await;
        }
        assert!(brokers.get(&channel).is_some(), "{why}");
    };
    let made = brokers.ensure(&channel).await.expect("made");
    made.journal().append(|a| a.event(|out| out.push(1))).expect("taken").await.expect("durable");
    let dead_letters = made.dead_letters().await.expect("made");
    dead_letters.append(|a| a.event(|out| out.push(1))).expect("taken").await.expect("durable");
    let weak = Arc::downgrade(&made);
    let again = || weak.upgrade().expect("there");
    drop(made);
    stays("it has an object").await;
    again().set(BrokerSettings { uplink: false, closed: true, ..BrokerSettings::default() });
    stays("a dead letter waits").await;
    let letters = again().dead_letters().await.expect("there").clone();
    let keeper = super::Broker::keeper(&letters);
    keeper.seek(letters.next_offset());
    keeper.flushed().await.expect("durable");
    stays("somebody has one of its journals").await;
    drop(letters);
    let consumer = again().journal().consumer("a Subscription", Start::Earliest, true);
    consumer.flushed().await.expect("durable");
    stays("a Subscription has a cursor").await;
    again().journal().remove_consumer("a Subscription");
    again().journal().append(|_| {}).expect("taken").await.expect("durable");
    let begun = disk.effects();
    for _ in 0..10 {
        removal::look(&brokers.0, &mut unused).await;
    }
    assert!(brokers.get(&channel).is_none());
    let again = brokers.ensure(&channel).await.expect("there is room for another");
    assert_eq!(again.journal().next_offset().0, 0, "it is a new one");
    brokers.close().await;

    let mut found_gone = 0;
    for instant in begun..=disk.effects() {
        let then = disk.at(instant);
        for found in [then.power_cut_losing_all(), then.power_cut_keeping_all(), then.power_cut(instant as u64)] {
            let storage: Arc<dyn Storage> = Arc::new(found);
            let brokers = open(&storage).await;
            if let Some(whole) = brokers.get(&channel)
                && whole.journal().next_offset().0 > 0
            {
                assert_eq!(whole.journal().next_offset().0, 1, "instant {instant}");
                assert!(whole.existing_dead_letters().await.expect("readable").is_some(), "instant {instant}");
            } else {
                found_gone += 1;
                let new = brokers.ensure(&channel).await.expect("made");
                assert_eq!(new.journal().next_offset().0, 0, "instant {instant}");
                assert!(new.existing_dead_letters().await.expect("readable").is_none(), "instant {instant}");
            }
            brokers.close().await;
        }
    }
    assert!(found_gone > 3, "{found_gone}");
}
