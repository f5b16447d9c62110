//! QoS 2: once, across reconnect and crash.

use crate::site::{Client, Plan, Site, connect_v4, packet, pubcomp, publish_v4, publish_v5, pubrec, pubrel, subscribe_v4};

async fn kept(site: &Site, id: &str, present: u8) -> Client {
    let mut client = Client::open(site).await;
    client.send(&connect_v4(id, false, 0)).await;
    client.expect(&[0x20, 2, present, 0]).await;
    client
}

fn again(mut publish: Vec<u8>) -> Vec<u8> {
    publish[0] |= 0x08;
    publish
}

#[tokio::test]
async fn a_publish_sent_again_on_the_same_connection_is_stored_once() {
    let site = Site::new().await;
    let mut client = site.v4("dev").await;
    let publish = publish_v4("t", 2, 5, b"once");
    client.send(&[publish.clone(), again(publish.clone())].concat()).await;
    client.expect(&pubrec(5)).await;
    client.expect(&pubrec(5)).await;
    client.send(&again(publish)).await;
    client.expect(&pubrec(5)).await;
    client.send(&pubrel(5)).await;
    client.expect(&pubcomp(5)).await;
    client.send(&pubrel(5)).await;
    client.expect(&pubcomp(5)).await;
    assert_eq!(site.stored().await.len(), 1);
    // The id is free again: the same bytes are a new publish.
    client.send(&publish_v4("t", 2, 5, b"twice")).await;
    client.expect(&pubrec(5)).await;
    assert_eq!(site.stored().await.len(), 2);
}

#[tokio::test]
async fn a_publish_sent_again_after_a_reconnect_is_stored_once() {
    let site = Site::new().await;
    let mut client = kept(&site, "dev", 0).await;
    client.send(&publish_v4("t", 2, 5, b"once")).await;
    client.expect(&pubrec(5)).await;
    drop(client);
    let mut client = kept(&site, "dev", 1).await;
    client.send(&again(publish_v4("t", 2, 5, b"once"))).await;
    client.expect(&pubrec(5)).await;
    client.send(&pubrel(5)).await;
    client.expect(&pubcomp(5)).await;
    assert_eq!(site.stored().await.len(), 1);
    assert_eq!(site.handle.counters().duplicates.get(), 1);
}

#[tokio::test]
async fn a_publish_sent_again_after_a_crash_is_stored_once() {
    let site = Site::planned(Plan { two_journals: true, ..Plan::default() }).await;
    let mut client = kept(&site, "dev", 0).await;
    client.send(&[publish_v4("t", 2, 5, b"once"), publish_v4("other/t", 2, 6, b"elsewhere")].concat()).await;
    client.expect(&pubrec(5)).await;
    client.expect(&pubrec(6)).await;
    let site = site.crash_and_restart().await;
    let mut client = kept(&site, "dev", 1).await;
    client.send(&[again(publish_v4("t", 2, 5, b"once")), again(publish_v4("other/t", 2, 6, b"elsewhere"))].concat()).await;
    client.expect(&pubrec(5)).await;
    client.expect(&pubrec(6)).await;
    client.send(&[pubrel(5), pubrel(6)].concat()).await;
    client.expect(&pubcomp(5)).await;
    client.expect(&pubcomp(6)).await;
    assert_eq!(site.stored().await.len(), 1);
    // PUBREL is durable: after another crash the id is free.
    let site = site.crash_and_restart().await;
    let mut client = kept(&site, "dev", 0).await;
    client.send(&pubrel(5)).await;
    client.expect(&pubcomp(5)).await;
    client.send(&publish_v4("t", 2, 5, b"new")).await;
    client.expect(&pubrec(5)).await;
    assert_eq!(site.stored().await.len(), 2);
}

#[tokio::test]
async fn a_clean_start_forgets_open_handshakes_also_for_after_a_crash() {
    let site = Site::new().await;
    let mut client = kept(&site, "dev", 0).await;
    client.send(&publish_v4("t", 2, 5, b"first")).await;
    client.expect(&pubrec(5)).await;
    drop(client);
    drop(site.v4("dev").await);
    assert!(site.journal.facts(b"q").is_empty());
    let site = site.crash_and_restart().await;
    let mut client = kept(&site, "dev", 0).await;
    client.send(&publish_v4("t", 2, 5, b"second")).await;
    client.expect(&pubrec(5)).await;
    assert_eq!(site.stored().await.len(), 2);
}

#[tokio::test]
async fn a_session_that_ends_with_its_connection_leaves_no_facts() {
    let site = Site::new().await;
    let mut client = site.v4("dev").await;
    client.send(&publish_v4("t", 2, 5, b"")).await;
    client.expect(&pubrec(5)).await;
    assert!(site.journal.facts(b"q").is_empty());
    let (mut client, _) = site.v5("new", false, &[0x11, 0, 0, 0, 9]).await;
    client.send(&publish_v5("t", 2, 5, &[], b"")).await;
    client.expect(&pubrec(5)).await;
    assert_eq!(site.journal.facts(b"q").len(), 1);
    client.send(&packet(0xe0, &[0, 5, 0x11, 0, 0, 0, 0])).await;
    client.expect_end().await;
    site.until("the fact is gone", || site.journal.facts(b"q").is_empty()).await;
}

#[tokio::test]
async fn the_handshakes_of_a_client_that_stays_away_expire() {
    let site = Site::new().await;
    let (mut client, _) = site.v5("dev", false, &[0x11, 0, 0, 0, 60]).await;
    client.send(&publish_v5("t", 2, 5, &[], b"")).await;
    client.expect(&pubrec(5)).await;
    let site = site.crash_and_restart().await;
    assert_eq!(site.journal.facts(b"q").len(), 1);
    site.clock.advance(59_000);
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    assert_eq!(site.journal.facts(b"q").len(), 1);
    site.clock.advance(2_000);
    site.until("the fact is gone", || site.journal.facts(b"q").is_empty()).await;
    let (_client, connack) = site.v5("dev", false, &[]).await;
    assert_eq!(connack[2], 0);
}

#[tokio::test]
async fn a_5_0_client_is_told_that_a_packet_id_is_not_known() {
    let site = Site::new().await;
    let (mut client, _) = site.v5("dev", true, &[]).await;
    client.send(&pubrel(77)).await;
    client.expect(&packet(0x70, &[0, 77, 0x92, 0])).await;
}

#[tokio::test]
async fn a_take_over_in_the_middle_of_publishing_stores_each_publish_once() {
    let site = Site::new().await;
    let all: Vec<u8> = (1..=200).flat_map(|id| publish_v4("t", 2, id, &id.to_be_bytes())).collect();
    let mut first = kept(&site, "dev", 0).await;
    first.send(&all).await;
    for _ in 0..5 {
        // Perhaps nothing, perhaps some, perhaps all has been appended when the next one takes over.
        let mut next = kept(&site, "dev", 1).await;
        next.send(&(1..=200).flat_map(|id| again(publish_v4("t", 2, id, &id.to_be_bytes()))).collect::<Vec<_>>()).await;
        first = next;
    }
    for id in 1..=200 {
        first.expect(&pubrec(id)).await;
    }
    assert_eq!(site.stored().await.len(), 200);
}

/// A client with a subscription and an open hand-shake, and then a crash.
async fn with_a_subscription_and_a_crash(site: Site) -> Site {
    let mut client = kept(&site, "dev", 0).await;
    client.send(&publish_v4("t", 2, 5, b"once")).await;
    client.expect(&pubrec(5)).await;
    client.send(&subscribe_v4("z", 1)).await;
    client.expect(&[0x90, 3, 0, 1, 1]).await;
    assert_eq!(site.journal.facts(b"n").len(), 1, "durable before SUBACK");
    site.crash_and_restart().await
}

#[tokio::test]
async fn a_session_whose_subscriptions_are_gone_is_not_said_to_be_present_and_what_is_sent_again_is_stored_once() {
    let site = with_a_subscription_and_a_crash(Site::new().await).await;
    // The first connection breaks before it could send anything again.
    drop(kept(&site, "dev", 0).await);
    let mut client = kept(&site, "dev", 0).await;
    client.send(&again(publish_v4("t", 2, 5, b"once"))).await;
    client.expect(&pubrec(5)).await;
    client.send(&pubrel(5)).await;
    client.expect(&pubcomp(5)).await;
    assert_eq!(site.stored().await.len(), 1);
    drop(client);
    kept(&site, "dev", 1).await;
}

#[tokio::test]
async fn what_a_client_publishes_that_has_forgotten_is_not_taken_for_what_it_had_published_before() {
    let site = with_a_subscription_and_a_crash(Site::new().await).await;
    let mut client = kept(&site, "dev", 0).await;
    client.send(&publish_v4("t", 2, 5, b"another")).await;
    client.expect(&pubrec(5)).await;
    client.send(&again(publish_v4("t", 2, 5, b"another"))).await;
    client.expect(&pubrec(5)).await;
    assert_eq!(site.stored().await.len(), 2);
    let site = site.crash_and_restart().await;
    let mut client = kept(&site, "dev", 0).await;
    client.send(&again(publish_v4("t", 2, 5, b"another"))).await;
    client.expect(&pubrec(5)).await;
    client.send(&pubrel(5)).await;
    client.expect(&pubcomp(5)).await;
    assert_eq!(site.stored().await.len(), 2);
}

#[tokio::test]
async fn what_replaces_a_left_over_publish_in_another_journal_leaves_no_fact_behind() {
    let plan = Plan { two_journals: true, ..Plan::default() };
    let site = with_a_subscription_and_a_crash(Site::planned(plan).await).await;
    let mut client = kept(&site, "dev", 0).await;
    client.send(&publish_v4("other/t", 2, 5, b"another")).await;
    client.expect(&pubrec(5)).await;
    site.until("the old fact is gone", || site.journal.facts(b"q").is_empty()).await;
}

#[tokio::test]
async fn what_is_not_asked_for_in_a_minute_is_forgotten() {
    let site = with_a_subscription_and_a_crash(Site::new().await).await;
    let client = kept(&site, "dev", 0).await;
    site.clock.advance(61_000);
    drop(client);
    site.until("the fact is gone", || site.journal.facts(b"q").is_empty()).await;
    kept(&site, "dev", 1).await;
}

#[tokio::test]
async fn a_session_that_ends_takes_the_note_of_its_subscriptions_with_it() {
    let site = with_a_subscription_and_a_crash(Site::new().await).await;
    drop(site.v4("dev").await);
    assert!(site.journal.facts(b"n").is_empty());
    assert!(site.journal.facts(b"q").is_empty());
    let mut client = kept(&site, "dev", 0).await;
    client.send(&subscribe_v4("z", 1)).await;
    client.expect(&[0x90, 3, 0, 1, 1]).await;
    let site = site.crash_and_restart().await;
    site.until("nothing else is left of it", || site.journal.facts(b"n").is_empty()).await;
    kept(&site, "dev", 0).await;
}
