//! De-duplication of publishes that are events, by their `source` and `id`.

use std::time::Duration;

use godwit_mesh::journal::{Done, Options, Policy, Start};
use serde_json::Value;

use crate::site::{Client, Plan, Site, connect_v4, packet, puback, pubcomp, publish_v4, publish_v5, pubrec, pubrel, text};

const WINDOW_MS: u64 = 60_000;

fn plan() -> Plan {
    Plan { deduplication_ms: Some(WINDOW_MS), ..Plan::default() }
}

/// An event in binary mode.
fn binary(topic: &str, qos: u8, packet_id: u16, id: &str) -> Vec<u8> {
    let property = |name: &str, value: &str| [&[0x26][..], &text(name), &text(value)].concat();
    let required = [("specversion", "1.0"), ("id", id), ("source", "/s"), ("type", "t")];
    let raw: Vec<u8> = required.iter().flat_map(|(name, value)| property(name, value)).collect();
    publish_v5(topic, qos, packet_id, &raw, b"data")
}

/// The same event in structured mode, as 3.1.1 has it.
fn structured(qos: u8, packet_id: u16, id: &str) -> Vec<u8> {
    let event = format!(r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"t","data":1}}"#);
    publish_v4("t", qos, packet_id, event.as_bytes())
}

fn deduplicated(site: &Site) -> Value {
    site.broker.as_ref().expect("a Broker").status()["deduplicated"].clone()
}

async fn ids(site: &Site) -> Vec<String> {
    site.events().await.iter().map(|event| event.to_event().expect("an event").id().to_owned()).collect()
}

#[tokio::test]
async fn an_event_that_comes_again_is_acknowledged_and_not_stored_in_whatever_mode_it_came() {
    let site = Site::planned(plan()).await;
    let (mut new, _) = site.v5("new", true, &[]).await;
    new.send(&binary("a", 1, 1, "x")).await;
    new.expect(&puback(1)).await;
    new.send(&binary("b", 1, 2, "x")).await;
    new.expect(&puback(2)).await;
    let mut old = site.v4("old").await;
    old.send(&structured(1, 3, "x")).await;
    old.expect(&puback(3)).await;
    old.send(&[structured(0, 0, "x"), structured(0, 0, "y"), structured(1, 4, "y")].concat()).await;
    old.expect(&puback(4)).await;
    assert_eq!(ids(&site).await, ["x", "y"]);
    assert_eq!(deduplicated(&site), 4);

    site.clock.advance(WINDOW_MS + 1);
    old.send(&structured(1, 5, "x")).await;
    old.expect(&puback(5)).await;
    assert_eq!(ids(&site).await, ["x", "y", "x"], "the window is over");
}

#[tokio::test]
async fn acknowledgements_keep_their_order_among_duplicates_and_what_is_no_event_is_always_stored() {
    let site = Site::planned(plan()).await;
    let (mut client, _) = site.v5("dev", true, &[]).await;
    for round in 0..3 {
        let plain = |packet_id| publish_v5("t", 1, packet_id, &[], b"{\"n\":1}");
        let bytes = [
            binary("t", 1, 1, "a"),
            plain(2),
            binary("t", 2, 3, "a"),
            binary("t", 1, 4, "b"),
            plain(5),
            binary("t", 2, 6, "c"),
            binary("t", 1, 7, "c"),
        ];
        client.send(&bytes.concat()).await;
        for answer in [puback(1), puback(2), pubrec(3), puback(4), puback(5), pubrec(6), puback(7)] {
            client.expect(&answer).await;
        }
        client.send(&[pubrel(3), pubrel(6)].concat()).await;
        client.expect(&pubcomp(3)).await;
        client.expect(&pubcomp(6)).await;
        assert_eq!(site.stored().await.len(), 5 + 2 * round);
    }
    assert_eq!(deduplicated(&site), 2 + 5 + 5);
}

#[tokio::test]
async fn an_event_that_two_clients_bring_at_once_is_stored_once_and_both_are_told_when_it_is_durable() {
    let site = Site::planned(plan()).await;
    let (mut one, _) = site.v5("one", true, &[]).await;
    let (mut other, _) = site.v5("other", true, &[]).await;
    for n in 1..=50u16 {
        let event = |packet_id| binary("t", 1, packet_id, &n.to_string());
        let (first, second) = (event(n), event(n));
        tokio::join!(one.send(&first), other.send(&second));
        one.expect(&puback(n)).await;
        assert_eq!(site.journal.next_offset().0, u64::from(n));
        other.expect(&puback(n)).await;
    }
    assert_eq!((site.stored().await.len(), deduplicated(&site)), (50, 50.into()));
}

async fn kept(site: &Site, present: u8) -> Client {
    let mut client = Client::open(site).await;
    client.send(&connect_v4("dev", false, 0)).await;
    client.expect(&[0x20, 2, present, 0]).await;
    client
}

#[tokio::test]
async fn the_hand_shake_of_a_duplicate_is_kept_like_any_other_over_a_crash() {
    let site = Site::planned(plan()).await;
    let mut client = kept(&site, 0).await;
    client.send(&structured(1, 1, "x")).await;
    client.expect(&puback(1)).await;
    client.send(&structured(2, 2, "x")).await;
    client.expect(&pubrec(2)).await;

    let site = site.crash_and_restart().await;
    let mut client = kept(&site, 1).await;
    let mut again = structured(2, 2, "x");
    again[0] |= 0x08;
    client.send(&again).await;
    client.expect(&pubrec(2)).await;
    assert_eq!(site.handle.counters().duplicates.get(), 1, "the hand-shake was open");
    client.send(&pubrel(2)).await;
    client.expect(&pubcomp(2)).await;
    // What the journal has is known again after a start.
    client.send(&structured(2, 2, "x")).await;
    client.expect(&pubrec(2)).await;
    assert_eq!((ids(&site).await, deduplicated(&site)), (vec!["x".to_owned()], 1.into()));
}

#[tokio::test]
async fn what_was_refused_is_no_duplicate_when_it_comes_again_and_waits_for_nobody() {
    let options = Options { segment_bytes: 16 << 10, max_bytes: 64 << 10, policy: Policy::Reject, ..Options::default() };
    let site = Site::planned(Plan { options, ..plan() }).await;
    let consumer = site.journal.consumer("slow", Start::Earliest, true);
    consumer.flushed().await.expect("durable");
    let (mut new, _) = site.v5("new", true, &[]).await;
    loop {
        new.send(&publish_v5("fill", 1, 1, &[], &[0; 2000])).await;
        if new.packet().await != puback(1) {
            break;
        }
    }
    let event = format!(r#"{{"specversion":"1.0","id":"x","source":"/s","type":"t","data":"{}"}}"#, "x".repeat(3000));
    let mut old = site.v4("old").await;
    old.send(&publish_v4("t", 1, 7, event.as_bytes())).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    old.expect_nothing().await;
    // Another who has the same event is refused by code, and does not wait for the first.
    let structured_json = [&[0x03][..], &text("application/cloudevents+json")].concat();
    new.send(&publish_v5("t", 1, 8, &structured_json, event.as_bytes())).await;
    new.expect(&packet(0x40, &[0, 8, 0x97, 0])).await;

    let to = site.journal.next_offset();
    consumer.advance(to, &Done { delivered: to.0, ..Done::default() });
    consumer.flushed().await.expect("durable");
    old.expect(&puback(7)).await;
    new.send(&publish_v5("t", 1, 9, &structured_json, event.as_bytes())).await;
    new.expect(&puback(9)).await;
    assert_eq!(deduplicated(&site), 1);
}
