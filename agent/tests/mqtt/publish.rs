//! PUBLISH at QoS 0 and 1: what is stored, and when and in which order it is acknowledged.

use std::time::Duration;

use godwit_agent::mqtt::Limits;
use godwit_mesh::journal::{Done, Options, Policy, Start};

use crate::site::{Client, Plan, Site, packet, payload, puback, publish_v4, publish_v5, pubrec, subscribe_v4, text};

#[tokio::test]
async fn a_publish_is_acknowledged_once_it_is_in_the_journal() {
    let site = Site::new().await;
    let mut client = site.v4("dev").await;
    client.send(&publish_v4("a/b", 1, 9, b"{\"t\":1.10}")).await;
    client.expect(&puback(9)).await;
    let events = site.events().await;
    let event = events[0].to_event().expect("an event");
    assert_eq!((event.ty(), event.subject()), ("dev.godwit.mqtt.publish", Some("a/b")));
    assert_eq!(event.source(), "/agents/test/mqtt/dev");
    assert_eq!(event.datacontenttype(), Some("application/json"));
    assert_eq!(event.data(), Some(&payload("{\"t\":1.10}")));
}

#[tokio::test]
async fn many_publishes_are_acknowledged_in_order_and_stored_in_order() {
    let site = Site::new().await;
    let mut client = site.v4("dev").await;
    for round in 0..5u16 {
        let ids: Vec<u16> = (1..=300).map(|n| round * 300 + n).collect();
        let bytes: Vec<u8> = ids.iter().flat_map(|id| publish_v4("t", 1, *id, &id.to_be_bytes())).collect();
        client.send(&bytes).await;
        for id in ids {
            client.expect(&puback(id)).await;
        }
    }
    let stored: Vec<u16> = site.stored().await.iter().map(|(_, p)| u16::from_be_bytes([p[0], p[1]])).collect();
    assert_eq!(stored, (1..=1500).collect::<Vec<_>>());
}

#[tokio::test]
async fn acknowledgements_keep_their_order_over_two_journals_and_two_qos() {
    let site = Site::planned(Plan { two_journals: true, ..Plan::default() }).await;
    let mut client = site.v4("dev").await;
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    for id in 1..=40u16 {
        let (topic, qos) = (if id % 3 == 0 { "other/x" } else { "x" }, if id % 5 == 0 { 2 } else { 1 });
        bytes.extend(publish_v4(topic, qos, id, b"p"));
        expected.push(if qos == 2 { pubrec(id) } else { puback(id) });
    }
    client.send(&bytes).await;
    for packet in expected {
        client.expect(&packet).await;
    }
    assert_eq!(site.stored().await.len(), 27);
}

#[tokio::test]
async fn qos_0_is_stored_and_not_acknowledged() {
    let site = Site::new().await;
    let mut client = site.v4("dev").await;
    client.send(&[publish_v4("a", 0, 0, b"1"), publish_v4("a", 0, 0, b""), publish_v4("b", 1, 3, b"3")].concat()).await;
    client.expect(&puback(3)).await;
    client.expect_nothing().await;
    let stored = site.stored().await;
    assert_eq!(stored.iter().map(|(_, p)| &p[..]).collect::<Vec<_>>(), [&b"1"[..], b"", b"3"]);
    assert!(site.events().await[1].data().is_none(), "no payload, no data");
}

#[tokio::test]
async fn packets_may_come_in_any_pieces() {
    let site = Site::new().await;
    let mut client = site.v4("dev").await;
    let bytes = [publish_v4("t", 1, 1, &[7; 300]), vec![0xc0, 0], publish_v4("t", 1, 2, b"")].concat();
    for byte in &bytes {
        client.send(&[*byte]).await;
        tokio::task::yield_now().await;
    }
    let mut answers = [client.packet().await, client.packet().await, client.packet().await];
    answers.sort();
    assert_eq!(answers, [puback(1), puback(2), vec![0xd0, 0]]);
    let large = vec![9; (1 << 20) - 20];
    client.send(&publish_v4("large", 1, 3, &large)).await;
    client.expect(&puback(3)).await;
    assert_eq!(site.stored().await[2].1, large);
}

#[tokio::test]
async fn a_packet_above_the_limit_ends_the_connection() {
    let site = Site::with_limits(Limits { max_packet_bytes: 1000, ..Limits::default() }).await;
    let (mut client, connack) = site.v5("dev", true, &[]).await;
    assert!(connack.windows(5).any(|w| w == [0x27, 0, 0, 0x03, 0xe8]));
    client.send(&publish_v5("t", 1, 1, &[], &[0; 985])).await;
    client.expect(&puback(1)).await;
    client.send(&publish_v5("t", 1, 2, &[], &[0; 1000])).await;
    client.expect_disconnect(0x95).await;
    assert_eq!(site.stored().await.len(), 1);
}

#[tokio::test]
async fn properties_are_kept_in_order_and_the_topic_alias_is_resolved() {
    let site = Site::new().await;
    let (mut client, _) = site.v5("dev", true, &[]).await;
    let user = [&[0x26][..], &text("k"), &text("v")].concat();
    let raw = [&user[..], &[0x23, 0, 5, 0x02, 0, 0, 0, 60], &[0x03], &text("text/csv"), &user].concat();
    client.send(&publish_v5("long/topic", 1, 1, &raw, b"1")).await;
    client.expect(&puback(1)).await;
    client.send(&publish_v5("", 1, 2, &[0x23, 0, 5], b"2")).await;
    client.expect(&puback(2)).await;
    client
        .send(&[publish_v5("other", 1, 3, &[0x23, 0, 5], b"3"), publish_v5("", 1, 4, &[0x23, 0, 5], b"4")].concat())
        .await;
    client.expect(&puback(3)).await;
    client.expect(&puback(4)).await;
    let stored = site.stored().await;
    let topics: Vec<_> = stored.iter().map(|(topic, _)| &topic[..]).collect();
    assert_eq!(topics, ["long/topic", "long/topic", "other", "other"]);
    let events = site.events().await;
    let kept = [&user[..], &[0x02, 0, 0, 0, 60], &[0x03], &text("text/csv"), &user].concat();
    assert_eq!(events[0].mqtt().expect("a publish").properties, &kept[..]);
    assert_eq!(events[0].to_event().expect("an event").datacontenttype(), Some("text/csv"));
}

#[tokio::test]
async fn topic_aliases_that_were_not_set_or_are_too_high_end_the_connection() {
    let site = Site::new().await;
    for (alias, reason) in [(0u8, 0x94), (9, 0x82), (33, 0x94)] {
        let (mut client, _) = site.v5("dev", true, &[]).await;
        client.send(&publish_v5("", 1, 1, &[0x23, 0, alias], b"")).await;
        client.expect_disconnect(reason).await;
    }
}

#[tokio::test]
async fn topic_names_that_the_standard_forbids_end_the_connection() {
    let limits = Limits { max_topic_bytes: 20, max_topic_levels: 4, ..Limits::default() };
    let site = Site::with_limits(limits).await;
    let too_long = "x".repeat(21);
    for topic in ["", "a/#", "+", "a\0b", "1/2/3/4/5", &too_long] {
        let mut client = site.v4("dev").await;
        client.send(&publish_v4(topic, 1, 1, b"")).await;
        client.expect_end().await;
        let (mut client, _) = site.v5("dev", true, &[]).await;
        client.send(&publish_v5(topic, 1, 1, &[], b"")).await;
        let packet = client.packet().await;
        assert_eq!(packet[0], 0xe0, "{topic:?}");
    }
    let mut client = site.v4("dev").await;
    client.send(&packet(0x32, b"\0\x02\xc3\x28\0\x01")).await;
    client.expect_end().await;
    assert!(site.stored().await.is_empty());
}

#[tokio::test]
async fn a_topic_with_a_dollar_is_nobodys_event() {
    let site = Site::new().await;
    let (mut client, _) = site.v5("dev", true, &[]).await;
    client.send(&publish_v5("$SYS/x", 1, 1, &[], b"")).await;
    client.expect(&packet(0x40, &[0, 1, 0x90, 0])).await;
    let mut old = site.v4("old").await;
    old.send(&publish_v4("$SYS/x", 1, 1, b"")).await;
    old.expect(&puback(1)).await;
    assert!(site.stored().await.is_empty());
    assert_eq!(site.handle.counters().refused_topic.get(), 2);
}

#[tokio::test]
async fn more_open_publishes_than_receive_maximum_end_the_connection() {
    let site = Site::with_limits(Limits { receive_maximum: 3, ..Limits::default() }).await;
    let (mut client, _) = site.v5("dev", true, &[]).await;
    let open: Vec<u8> = (1..=3).flat_map(|id| publish_v5("t", 2, id, &[], b"")).collect();
    client.send(&open).await;
    for id in 1..=3 {
        client.expect(&pubrec(id)).await;
    }
    client.send(&publish_v5("t", 0, 0, &[], b"")).await;
    client.expect_nothing().await;
    client.send(&publish_v5("t", 1, 4, &[], b"")).await;
    client.expect_disconnect(0x93).await;
}

#[tokio::test]
async fn a_client_above_its_rate_is_read_more_slowly() {
    let site = Site::with_limits(Limits { publishes_per_second: Some(10), ..Limits::default() }).await;
    let mut client = site.v4("fast").await;
    client.send(&(1..=15).flat_map(|id| publish_v4("t", 1, id, b"")).collect::<Vec<_>>()).await;
    for id in 1..=10 {
        client.expect(&puback(id)).await;
    }
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(site.stored().await.len(), 10);
    site.clock.advance(600);
    for id in 11..=15 {
        client.expect(&puback(id)).await;
    }
}

/// A journal that refuses more than some tens of kilobytes while its consumer has not read them.
fn small() -> Options {
    Options { segment_bytes: 16 << 10, max_bytes: 64 << 10, policy: Policy::Reject, ..Options::default() }
}

/// Fills the journal of `site` until it refuses; answers how many publishes it took.
async fn fill(site: &Site) -> u64 {
    let (mut client, _) = site.v5("filler", true, &[]).await;
    for n in 0..1000 {
        client.send(&publish_v5("fill", 1, 1, &[], &[0; 2000])).await;
        if client.packet().await != puback(1) {
            return n;
        }
    }
    panic!("never full");
}

#[tokio::test]
async fn a_full_broker_refuses_5_0_clients_by_code_and_makes_3_1_1_clients_wait() {
    let site = Site::planned(Plan { options: small(), ..Plan::default() }).await;
    let consumer = site.journal.consumer("slow", Start::Earliest, true);
    consumer.flushed().await.expect("durable");
    let count = fill(&site).await;

    let (mut new, _) = site.v5("new", true, &[]).await;
    new.send(&publish_v5("t", 1, 5, &[], &[0; 3000])).await;
    new.expect(&packet(0x40, &[0, 5, 0x97, 0])).await;
    new.send(&publish_v5("t", 2, 6, &[], &[0; 3000])).await;
    new.expect(&packet(0x50, &[0, 6, 0x97, 0])).await;
    new.send(&publish_v5("t", 2, 6, &[], &[0; 3000])).await;
    new.expect(&packet(0x50, &[0, 6, 0x97, 0])).await;

    let mut old = site.v4("old").await;
    old.send(&[publish_v4("t", 1, 7, &[1; 3000]), publish_v4("t", 2, 8, &[2; 3000])].concat()).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    old.expect_nothing().await;
    old.send(&publish_v4("t", 1, 9, &[3; 3000])).await;
    old.expect_nothing().await;

    let to = site.journal.next_offset();
    consumer.advance(to, &Done { delivered: to.0, ..Done::default() });
    consumer.flushed().await.expect("durable");
    old.expect(&puback(7)).await;
    old.expect(&pubrec(8)).await;
    old.expect(&puback(9)).await;
    let last = site.journal.next_offset();
    assert_eq!(last.0, count + 3, "each was stored once");
    assert!(site.handle.counters().refused_full.get() >= 4);
}

#[tokio::test]
async fn a_client_that_waits_for_a_full_broker_can_leave_and_be_taken_over() {
    let site = Site::planned(Plan { options: small(), ..Plan::default() }).await;
    let consumer = site.journal.consumer("slow", Start::Earliest, true);
    consumer.flushed().await.expect("durable");
    fill(&site).await;
    let mut old = site.v4("old").await;
    old.send(&publish_v4("t", 1, 7, &[1; 3000])).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let again = site.v4("old").await;
    old.expect_end().await;
    drop(again);
    site.until("all have left", || site.handle.open_connections() == 0).await;
}

#[tokio::test]
async fn a_slow_reader_of_acknowledgements_costs_nobody_else_anything() {
    let limits = Limits { write_timeout: Duration::from_secs(5), ..Limits::default() };
    let site = Site::with_limits(limits).await;
    let mut sink = site.v4("sink").await;
    sink.send(&subscribe_v4("#", 0)).await;
    sink.expect(&[0x90, 3, 0, 1, 0]).await;
    let mut client = Client::open(&site).await;
    client.send(&crate::site::connect_v4("busy", true, 0)).await;
    client.expect(&[0x20, 2, 0, 0]).await;
    // `sink` reads nothing while some ten megabytes are published.
    for n in 0..200u16 {
        let burst: Vec<u8> = (1..=50).flat_map(|id| publish_v4("t", 1, id, &[0; 1000])).collect();
        client.send(&burst).await;
        for id in 1..=50 {
            client.expect(&puback(id)).await;
        }
        if n == 100 {
            site.clock.advance(1_000);
        }
    }
    assert!(site.handle.counters().dropped_deliveries.get() > 0);
    site.until("the slow one is let go", || {
        // Its socket may still take a little of what is due; some time later it takes nothing.
        site.clock.advance(50);
        site.handle.open_connections() == 1
    })
    .await;
}

#[tokio::test]
async fn a_topic_may_be_as_long_as_mqtt_lets_it_and_have_hundreds_of_levels() {
    let site = Site::new().await;
    let (mut client, _) = site.v5("dev", true, &[]).await;
    let (long, deep) = ("x".repeat(65_535), vec!["l"; 256].join("/"));
    client.send(&publish_v5(&long, 1, 1, &[], b"1")).await;
    client.expect(&puback(1)).await;
    client.send(&publish_v5(&deep, 1, 2, &[], b"2")).await;
    client.expect(&puback(2)).await;
    let topics: Vec<_> = site.stored().await.into_iter().map(|(topic, _)| topic).collect();
    assert_eq!(topics, [long.clone(), deep]);
    // What is remembered of them for topic aliases is bounded.
    client.send(&publish_v5(&long, 1, 3, &[0x23, 0, 1], b"")).await;
    client.expect(&puback(3)).await;
    client.send(&publish_v5(&long, 1, 4, &[0x23, 0, 2], b"")).await;
    client.expect(&puback(4)).await;
    client.send(&publish_v5(&long, 1, 5, &[0x23, 0, 3], b"")).await;
    client.expect_disconnect(0x97).await;
}
