//! Live subscriptions.

use godwit_agent::mqtt::Limits;

use crate::site::{
    Client, Site, packet, properties, puback, pubcomp, publish_v4, publish_v5, pubrec, pubrel, subscribe_v4, subscribe_v5,
    text,
};

async fn subscribed(site: &Site, id: &str, filter: &str, options: u8, raw: &[u8]) -> Client {
    let (mut client, _) = site.v5(id, true, &[]).await;
    client.send(&subscribe_v5(filter, options, raw)).await;
    client.expect(&packet(0x90, &[0, 1, 0, options & 3])).await;
    client
}

#[tokio::test]
async fn a_subscriber_gets_the_publish_unaltered() {
    let site = Site::new().await;
    let mut new = subscribed(&site, "new", "a/+", 1, &[0x0b, 9]).await;
    let mut old = site.v4("old").await;
    old.send(&subscribe_v4("#", 0)).await;
    old.expect(&[0x90, 3, 0, 1, 0]).await;
    let user = |k: &str, v: &str| [&[0x26][..], &text(k), &text(v)].concat();
    let raw = [&user("z", "1")[..], &[0x01, 1], &user("a", "2"), &[0x03], &text("text/plain"), &user("z", "1")].concat();
    let with_alias = [&raw[..], &[0x23, 0, 1]].concat();
    let (mut publisher, _) = site.v5("p", true, &[]).await;
    publisher.send(&publish_v5("a/b", 1, 3, &with_alias, b"1.10")).await;
    publisher.expect(&puback(3)).await;
    let expected = [&text("a/b")[..], &[0, 1], &properties(&[&raw[..], &[0x0b, 9]].concat()), b"1.10"].concat();
    new.expect(&packet(0x32, &expected)).await;
    new.send(&puback(1)).await;
    old.expect(&publish_v4("a/b", 0, 0, b"1.10")).await;
}

#[tokio::test]
async fn qos_2_goes_down_with_its_whole_handshake() {
    let site = Site::new().await;
    let mut client = subscribed(&site, "s", "t", 2, &[]).await;
    let (mut publisher, _) = site.v5("p", true, &[]).await;
    publisher.send(&publish_v5("t", 2, 3, &[], b"x")).await;
    publisher.expect(&pubrec(3)).await;
    client.expect(&packet(0x34, &[&text("t")[..], &[0, 1, 0], b"x"].concat())).await;
    client.send(&pubrec(1)).await;
    client.expect(&pubrel(1)).await;
    client.send(&pubcomp(1)).await;
    client.send(&pubrec(1)).await;
    client.expect(&packet(0x62, &[0, 1, 0x92, 0])).await;
}

#[tokio::test]
async fn no_local_and_retain_as_published_are_kept() {
    let site = Site::new().await;
    let mut client = subscribed(&site, "s", "t", 0x04, &[]).await;
    let mut as_published = subscribed(&site, "r", "t", 0x08, &[]).await;
    let mut plain = subscribed(&site, "q", "t", 0, &[]).await;
    let mut retained = publish_v5("t", 0, 0, &[], b"x");
    retained[0] |= 1;
    client.send(&retained).await;
    as_published.expect(&retained).await;
    plain.expect(&publish_v5("t", 0, 0, &[], b"x")).await;
    client.expect_nothing().await;
}

#[tokio::test]
async fn overlapping_subscriptions_give_one_copy_with_all_identifiers() {
    let site = Site::new().await;
    let mut client = subscribed(&site, "s", "a/#", 0, &[0x0b, 1]).await;
    client.send(&subscribe_v5("a/b", 0, &[0x0b, 2])).await;
    client.expect(&[0x90, 4, 0, 1, 0, 0]).await;
    site.v4("p").await.send(&publish_v4("a/b", 0, 0, b"x")).await;
    let got = client.packet().await;
    assert!(got.windows(4).any(|w| w == [0x0b, 1, 0x0b, 2] || w == [0x0b, 2, 0x0b, 1]), "{got:?}");
    client.expect_nothing().await;
}

#[tokio::test]
async fn unsubscribed_is_unsubscribed() {
    let site = Site::new().await;
    let mut client = subscribed(&site, "s", "a", 0, &[]).await;
    client.send(&packet(0xa2, &[&[0, 7, 0][..], &text("a"), &text("never")].concat())).await;
    client.expect(&packet(0xb0, &[0, 7, 0, 0, 0x11])).await;
    let mut old = site.v4("p").await;
    old.send(&packet(0xa2, &[&[0, 8][..], &text("x")].concat())).await;
    old.expect(&[0xb0, 2, 0, 8]).await;
    old.send(&publish_v4("a", 1, 1, b"x")).await;
    old.expect(&puback(1)).await;
    client.expect_nothing().await;
}

#[tokio::test]
async fn what_is_not_offered_is_refused_by_its_code() {
    let site = Site::with_limits(Limits { max_subscriptions: 1, ..Limits::default() }).await;
    let (mut client, _) = site.v5("s", true, &[]).await;
    for (filter, code) in [("$share/g/a", 0x9e), ("a#", 0x8f), ("a", 0), ("b", 0x97), ("a", 0)] {
        client.send(&subscribe_v5(filter, 0, &[])).await;
        client.expect(&packet(0x90, &[0, 1, 0, code])).await;
    }
    let mut old = site.v4("o").await;
    for (filter, code) in [("$share/g/a", 0x80), ("a#", 0x80), ("a", 0)] {
        old.send(&subscribe_v4(filter, 0)).await;
        old.expect(&[0x90, 3, 0, 1, code]).await;
    }
}

#[tokio::test]
async fn malformed_subscribes_end_the_connection() {
    let site = Site::new().await;
    for bytes in [
        subscribe_v5("a", 0x40, &[]),
        subscribe_v5("a", 3, &[]),
        subscribe_v5("a", 0x30, &[]),
        subscribe_v5("a", 0, &[0x0b, 0]),
        packet(0x82, &[0, 1, 0]),
        packet(0x80, &[&[0, 1, 0][..], &text("a"), &[0]].concat()),
    ] {
        let (mut client, _) = site.v5("s", true, &[]).await;
        client.send(&bytes).await;
        assert_eq!(client.packet().await[0], 0xe0, "{bytes:?}");
        client.expect_end().await;
    }
}

#[tokio::test]
async fn a_subscriber_with_a_small_packet_limit_or_window_is_respected() {
    let site = Site::new().await;
    let (mut client, _) = site.v5("s", true, &[0x27, 0, 0, 0, 20, 0x21, 0, 1]).await;
    client.send(&subscribe_v5("t", 1, &[])).await;
    client.expect(&[0x90, 4, 0, 1, 0, 1]).await;
    let mut publisher = site.v4("p").await;
    for (id, payload) in [(1, &b"a"[..]), (2, &[0; 30]), (3, b"b")] {
        publisher.send(&publish_v4("t", 1, id, payload)).await;
        publisher.expect(&puback(id)).await;
    }
    client.expect(&packet(0x32, &[&text("t")[..], &[0, 1, 0], b"a"].concat())).await;
    client.expect_nothing().await;
    client.send(&puback(1)).await;
    client.expect(&packet(0x32, &[&text("t")[..], &[0, 2, 0], b"b"].concat())).await;
    assert_eq!(site.handle.counters().dropped_deliveries.get(), 1);
}

#[tokio::test]
async fn subscriptions_outlive_the_connection_with_their_session() {
    let site = Site::new().await;
    let expiry = [0x11, 0, 0, 0, 60];
    let (mut client, _) = site.v5("s", false, &expiry).await;
    client.send(&subscribe_v5("t", 0, &[])).await;
    client.expect(&[0x90, 4, 0, 1, 0, 0]).await;
    drop(client);
    site.until("it is away", || site.handle.open_connections() == 0).await;
    let mut publisher = site.v4("p").await;
    publisher.send(&publish_v4("t", 1, 1, b"missed")).await;
    publisher.expect(&puback(1)).await;
    let (mut client, connack) = site.v5("s", false, &expiry).await;
    assert_eq!(connack[2], 1);
    publisher.send(&publish_v4("t", 1, 2, b"seen")).await;
    publisher.expect(&puback(2)).await;
    client.expect(&publish_v5("t", 0, 0, &[], b"seen")).await;
    let (mut client, _) = site.v5("s", true, &expiry).await;
    publisher.send(&publish_v4("t", 1, 3, b"x")).await;
    publisher.expect(&puback(3)).await;
    client.expect_nothing().await;
}
