//! CONNECT, keep-alive, take-over, wills, the end.

use std::time::Duration;

use godwit_agent::mqtt::Limits;
use godwit_mesh::door::Credentials;

use crate::site::{Client, Plan, Site, connect_v4, connect_v5, packet, properties, puback, publish_v4, subscribe_v4, text};

#[tokio::test]
async fn a_client_of_3_1_is_told_that_its_version_is_not_spoken() {
    let site = Site::new().await;
    let mut client = Client::open(&site).await;
    client.send(&packet(0x10, &[&text("MQIsdp")[..], &[3, 2, 0, 60], &text("old")].concat())).await;
    client.expect(&[0x20, 2, 0, 1]).await;
    client.expect_end().await;
    let mut client = Client::open(&site).await;
    client.send(&packet(0x10, &[&text("MQTT")[..], &[6, 2, 0, 60, 0], &text("new")].concat())).await;
    client.expect(&[0x20, 3, 0, 0x84, 0]).await;
    client.expect_end().await;
}

#[tokio::test]
async fn what_does_not_begin_with_connect_is_closed_without_an_answer() {
    let site = Site::new().await;
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xc0, 0], &[0x30, 3, 0, 1, b'a'], &[0x10, 0xff, 0xff, 0xff, 0xff]] {
        let mut client = Client::open(&site).await;
        client.send(bytes).await;
        client.expect_end().await;
    }
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_let_go() {
    let limits = Limits { connect_timeout: Duration::from_millis(50), ..Limits::default() };
    let site = Site::with_limits(limits).await;
    Client::open(&site).await.expect_end().await;
    let mut half = Client::open(&site).await;
    half.send(&[0x10, 20, 0, 4]).await;
    half.expect_end().await;
    assert_eq!(site.handle.counters().timeouts.get(), 2);
}

#[tokio::test]
async fn a_second_connect_is_a_protocol_error() {
    let site = Site::new().await;
    let (mut client, _) = site.v5("twice", true, &[]).await;
    client.send(&connect_v5("twice", true, 0, &[])).await;
    client.expect_disconnect(0x82).await;
}

#[tokio::test]
async fn a_5_0_client_is_told_what_the_listener_can_do() {
    let site = Site::new().await;
    let (_client, connack) = site.v5("", true, &[0x11, 0, 0, 0, 0]).await;
    let told = &connack[5..];
    let has = |bytes: &[u8]| told.windows(bytes.len()).any(|w| w == bytes);
    assert!(has(&[0x21, 0x04, 0x00]), "receive maximum 1024");
    assert!(has(&[0x25, 0]) && has(&[0x2a, 0]), "neither retained messages nor shared subscriptions");
    assert!(has(&[0x27, 0, 0x10, 0, 0]), "largest packet");
    assert!(has(b"auto-"), "a client id was given");
}

#[tokio::test]
async fn an_empty_client_id_needs_a_clean_session_in_3_1_1() {
    let site = Site::new().await;
    site.v4("").await.expect_nothing().await;
    let mut client = Client::open(&site).await;
    client.send(&connect_v4("", false, 0)).await;
    client.expect(&[0x20, 2, 0, 2]).await;
    client.expect_end().await;
    let mut client = Client::open(&site).await;
    client.send(&connect_v4(&"x".repeat(300), true, 0)).await;
    client.expect(&[0x20, 2, 0, 2]).await;
}

#[tokio::test]
async fn extended_authentication_is_refused_by_its_code() {
    let site = Site::new().await;
    let mut client = Client::open(&site).await;
    client.send(&connect_v5("a", true, 0, &[&[0x15][..], &text("SCRAM")].concat())).await;
    client.expect(&[0x20, 3, 0, 0x8c, 0]).await;
    client.expect_end().await;
}

fn with_login(level: u8, user: &str, password: &str) -> Vec<u8> {
    let none: &[u8] = if level == 5 { &[0] } else { &[] };
    packet(0x10, &[&text("MQTT")[..], &[level, 0xc2, 0, 0], none, &text("a"), &text(user), &text(password)].concat())
}

#[tokio::test]
async fn a_wrong_password_is_refused_by_its_code_and_the_right_one_let_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("credentials");
    let mut file = godwit_mesh::door::CredentialsFile::open(&path).expect("a new file");
    file.set_password("device", b"secret").expect("set");
    file.save().expect("written");
    let credentials = Some(Credentials::load(&path).expect("a credentials file"));
    let site = Site::planned(Plan { credentials, ..Plan::default() }).await;
    for (bytes, answer) in [
        (with_login(4, "device", "wrong"), &[0x20, 2, 0, 4][..]),
        (with_login(5, "device", "wrong"), &[0x20, 3, 0, 0x86, 0]),
        (with_login(4, "nobody", "secret"), &[0x20, 2, 0, 4]),
        (connect_v4("a", true, 0), &[0x20, 2, 0, 5]),
        (connect_v5("a", true, 0, &[]), &[0x20, 3, 0, 0x87, 0]),
    ] {
        let mut client = Client::open(&site).await;
        client.send(&bytes).await;
        client.expect(answer).await;
        client.expect_end().await;
    }
    let mut client = Client::open(&site).await;
    client.send(&with_login(4, "device", "secret")).await;
    client.expect(&[0x20, 2, 0, 0]).await;
    assert_eq!(site.handle.counters().refused_credentials.get(), 5);
}

#[tokio::test]
async fn a_client_whose_credentials_go_or_change_is_disconnected_and_others_are_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("credentials");
    let users = |users: &[(&str, &str)]| {
        let _ = std::fs::remove_file(&path);
        let mut file = godwit_mesh::door::CredentialsFile::open(&path).expect("a new file");
        for (user, password) in users {
            file.set_password(user, password.as_bytes()).expect("set");
        }
        file.save().expect("written");
        std::fs::read_to_string(&path).expect("text")
    };
    let stays = users(&[("stays", "x")]);
    let all = stays.clone() + &users(&[("gone", "x"), ("changed", "x")]);
    std::fs::write(&path, &all).expect("written");
    let credentials = Credentials::load(&path).expect("a credentials file");
    let site = Site::planned(Plan { credentials: Some(credentials.clone()), ..Plan::default() }).await;
    let mut clients = Vec::new();
    for (level, user) in [(5, "stays"), (5, "gone"), (4, "gone"), (5, "changed")] {
        let none: &[u8] = if level == 5 { &[0] } else { &[] };
        let id = text(format!("{user}-{level}"));
        let connect = packet(0x10, &[&text("MQTT")[..], &[level, 0xc2, 0, 0], none, &id, &text(user), &text("x")].concat());
        let mut client = Client::open(&site).await;
        client.send(&connect).await;
        assert_eq!(client.packet().await[3], 0);
        clients.push(client);
    }
    let [stays_on, gone_5, gone_4, changed] = &mut clients[..] else { panic!("four") };
    // Nothing has changed: nobody goes.
    credentials.reload().expect("valid");
    stays_on.expect_nothing().await;
    gone_4.expect_nothing().await;
    std::fs::write(&path, stays + &users(&[("changed", "y")])).expect("written");
    credentials.reload().expect("valid");
    gone_5.expect_disconnect(0x87).await;
    changed.expect_disconnect(0x87).await;
    gone_4.expect_end().await;
    stays_on.expect_nothing().await;
    assert_eq!(site.handle.counters().faults.get(), 0);
}

#[tokio::test]
async fn a_crowd_with_large_wills_takes_no_memory_and_keeps_nobody_with_a_small_one_out() {
    let site = Site::with_limits(Limits { will_bytes: 100 << 10, ..Limits::default() }).await;
    let with_will = |level: u8, id: &str, will: usize| {
        let none: &[u8] = if level == 5 { &[0] } else { &[] };
        let parts =
            [&text("MQTT")[..], &[level, 0x06, 0, 0], none, &text(id), none, &text("gone"), &text(vec![b'x'; will])];
        packet(0x10, &parts.concat())
    };
    let mut crowd = Vec::new();
    let mut refused = 0;
    for n in 0..20 {
        let (level, refusal) = if n % 2 == 0 { (5, 0x97) } else { (4, 3) };
        let mut client = Client::open(&site).await;
        client.send(&with_will(level, &format!("crowd-{n}"), 30 << 10)).await;
        match client.packet().await[3] {
            0 => crowd.push(client),
            code => {
                assert_eq!(code, refusal);
                client.expect_end().await;
                refused += 1;
            }
        }
    }
    assert_eq!((crowd.len(), refused), (3, 17), "as many as there is room for");
    let mut small = Client::open(&site).await;
    small.send(&with_will(4, "small", 20)).await;
    small.expect(&[0x20, 2, 0, 0]).await;
    // Room is given back with the wills.
    for client in &mut crowd {
        client.send(&[0xe0, 0]).await;
        client.expect_end().await;
    }
    let mut next = Client::open(&site).await;
    next.send(&with_will(4, "next", 60 << 10)).await;
    next.expect(&[0x20, 2, 0, 0]).await;
}

#[tokio::test]
async fn a_client_that_is_silent_for_one_and_a_half_keep_alives_is_let_go() {
    let site = Site::new().await;
    let mut client = Client::open(&site).await;
    client.send(&connect_v5("quiet", true, 10, &[])).await;
    assert_eq!(client.packet().await[3], 0);
    site.clock.advance(14_900);
    tokio::time::sleep(Duration::from_millis(700)).await;
    client.expect_nothing().await;
    site.clock.advance(15_100);
    client.expect_disconnect(0x8d).await;
}

#[tokio::test]
async fn keep_alive_0_is_none() {
    let site = Site::new().await;
    let mut client = site.v4("patient").await;
    site.clock.advance(1_000_000_000);
    tokio::time::sleep(Duration::from_millis(700)).await;
    client.expect_nothing().await;
}

#[tokio::test]
async fn a_packet_that_stops_half_way_ends_the_connection() {
    let site = Site::new().await;
    let mut client = site.v4("half").await;
    client.send(&publish_v4("t", 1, 1, b"payload")[..6]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    site.clock.advance(31_000);
    client.expect_end().await;
    assert!(site.stored().await.is_empty());
}

#[tokio::test]
async fn a_second_connection_takes_the_client_id_over() {
    let site = Site::new().await;
    let (mut old, _) = site.v5("one", true, &[]).await;
    let (mut new, _) = site.v5("one", true, &[]).await;
    old.expect_disconnect(0x8e).await;
    new.expect_nothing().await;
    let mut third = site.v4("one").await;
    new.expect_disconnect(0x8e).await;
    third.expect_nothing().await;
    assert_eq!(site.handle.counters().take_overs.get(), 2);
}

#[tokio::test]
async fn session_present_says_whether_there_was_a_session() {
    let site = Site::new().await;
    let connect = |clean, answer: [u8; 4]| {
        let site = &site;
        async move {
            let mut client = Client::open(site).await;
            client.send(&connect_v4("kept", clean, 0)).await;
            client.expect(&answer).await;
            client.send(&[0xe0, 0]).await;
            client.expect_end().await;
        }
    };
    connect(false, [0x20, 2, 0, 0]).await;
    connect(false, [0x20, 2, 1, 0]).await;
    connect(true, [0x20, 2, 0, 0]).await;
    connect(false, [0x20, 2, 0, 0]).await;
    site.clock.advance(7 * 24 * 3600 * 1000 + 1);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    connect(false, [0x20, 2, 0, 0]).await;
}

#[tokio::test]
async fn a_5_0_session_lasts_as_long_as_it_was_asked_to() {
    let site = Site::new().await;
    let expiry = [0x11, 0, 0, 0, 60];
    let (mut client, _) = site.v5("s", false, &expiry).await;
    client.send(&[0xe0, 0]).await;
    client.expect_end().await;
    let (mut client, connack) = site.v5("s", false, &expiry).await;
    assert_eq!(connack[2], 1);
    // DISCONNECT sets the expiry to 0: the session ends with the connection.
    client.send(&packet(0xe0, &[0, 5, 0x11, 0, 0, 0, 0])).await;
    client.expect_end().await;
    let (mut client, connack) = site.v5("s", false, &[]).await;
    assert_eq!(connack[2], 0);
    client.send(&packet(0xe0, &[0, 5, 0x11, 0, 0, 0, 9])).await;
    client.expect_disconnect(0x82).await;
}

fn connect_with_will(id: &str, raw: &[u8]) -> Vec<u8> {
    let flags = 0x02 | 0x04 | 0x08;
    let parts = [
        &text("MQTT")[..],
        &[5, flags, 0, 0],
        &properties(&[0x11, 0, 0, 0, 60]),
        &text(id),
        &properties(raw),
        &text("gone"),
    ];
    packet(0x10, &[&parts.concat()[..], &text("x")].concat())
}

#[tokio::test]
async fn a_will_is_published_when_the_connection_breaks_and_not_after_a_goodbye() {
    let site = Site::new().await;
    let mut watcher = site.v4("watcher").await;
    watcher.send(&subscribe_v4("gone", 1)).await;
    watcher.expect(&[0x90, 3, 0, 1, 1]).await;
    for (end, published) in [(&[0xe0, 0][..], false), (&[0xe0, 1, 4], true), (&[], true), (&[0xf0, 0], true)] {
        let mut client = Client::open(&site).await;
        client.send(&connect_with_will("w", &[])).await;
        assert_eq!(client.packet().await[3], 0);
        client.send(end).await;
        let before = site.stored().await.len();
        drop(client);
        if published {
            watcher.expect(&packet(0x32, &[&text("gone")[..], &[0, 1], b"x"].concat())).await;
            watcher.send(&puback(1)).await;
            watcher.expect_nothing().await;
            assert_eq!(site.stored().await.len(), before + 1);
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        watcher.expect_nothing().await;
    }
}

#[tokio::test]
async fn a_delayed_will_waits_and_is_withdrawn_when_the_client_comes_back() {
    let site = Site::new().await;
    let delay = [0x18, 0, 0, 0, 5];
    for comes_back in [true, false] {
        let mut client = Client::open(&site).await;
        client.send(&connect_with_will("w", &delay)).await;
        assert_eq!(client.packet().await[3], 0);
        drop(client);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(site.stored().await.len(), 0);
        if comes_back {
            let (mut client, _) = site.v5("w", false, &[0x11, 0, 0, 0, 60]).await;
            client.send(&[0xe0, 0]).await;
            client.expect_end().await;
        }
        site.clock.advance(6_000);
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert_eq!(site.stored().await.len(), usize::from(!comes_back));
    }
}

#[tokio::test]
async fn at_the_stop_what_came_is_acknowledged_and_clients_are_told() {
    let site = Site::new().await;
    let (mut client, _) = site.v5("last", true, &[]).await;
    client.send(&crate::site::publish_v5("t", 1, 7, &[], b"x")).await;
    client.expect(&puback(7)).await;
    site.stop().await;
    client.expect_disconnect(0x8b).await;
}

#[tokio::test]
async fn more_connections_than_allowed_are_closed_at_once() {
    let site = Site::with_limits(Limits { max_connections: 1, ..Limits::default() }).await;
    let mut first = site.v4("first").await;
    Client::open(&site).await.expect_end().await;
    first.expect_nothing().await;
    drop(first);
    site.until("the place is free", || site.handle.open_connections() == 0).await;
    site.v4("second").await.expect_nothing().await;
}

#[tokio::test]
async fn a_crowd_that_says_nothing_does_not_keep_a_device_out() {
    let site = Site::with_limits(Limits { max_connections: 3, ..Limits::default() }).await;
    let mut first = site.v4("first").await;
    let mut silent = Client::open(&site).await;
    let mut half = Client::open(&site).await;
    half.send(b"\x10\x20\0\x04MQ").await;
    site.until("all places are taken", || site.handle.open_connections() == 3).await;
    // Each takes the place of the oldest that has not sent a CONNECT.
    let mut second = site.v4("second").await;
    silent.expect_end().await;
    assert_eq!(site.handle.counters().evicted_connections.get(), 1, "the half of a CONNECT came later, and stays");
    let mut third = site.v4("third").await;
    half.expect_end().await;
    Client::open(&site).await.expect_end().await;
    for client in [&mut first, &mut second, &mut third] {
        client.expect_nothing().await;
    }
    let counters = site.handle.counters();
    assert_eq!((counters.evicted_connections.get(), counters.too_many_connections.get()), (2, 1));
}

async fn comes_and_goes(site: &Site, id: &str, present: u8) {
    let mut client = Client::open(site).await;
    client.send(&connect_v4(id, false, 0)).await;
    client.expect(&[0x20, 2, present, 0]).await;
    client.send(&[0xe0, 0]).await;
    client.expect_end().await;
    site.clock.advance(1_000);
}

#[tokio::test]
async fn sessions_of_clients_that_are_away_make_room_and_nobody_is_refused() {
    let site = Site::with_limits(Limits { max_connections: 2, max_sessions: 4, ..Limits::default() }).await;
    let mut subscriber = Client::open(&site).await;
    subscriber.send(&connect_v4("subscriber", false, 0)).await;
    subscriber.expect(&[0x20, 2, 0, 0]).await;
    subscriber.send(&crate::site::subscribe_v4("t", 1)).await;
    subscriber.expect(&[0x90, 3, 0, 1, 1]).await;
    drop(subscriber);
    site.until("it has gone", || site.handle.open_connections() == 0).await;
    site.clock.advance(1_000);
    for n in 0..20 {
        comes_and_goes(&site, &format!("passing-{n}"), 0).await;
    }
    drop(site.v4("clean").await);
    let evicted = || site.handle.counters().evicted_sessions.each_ref().map(godwit_agent::mqtt::Counter::get);
    site.until("enough of them have made room", || evicted()[0] >= 17).await;
    assert_eq!(evicted()[1], 0, "empty ones go first");
    comes_and_goes(&site, "passing-19", 1).await;
    comes_and_goes(&site, "passing-0", 0).await;
    comes_and_goes(&site, "subscriber", 1).await;
}

#[tokio::test]
async fn a_session_that_makes_room_leaves_nothing_in_the_journal() {
    let site = Site::with_limits(Limits { max_connections: 1, max_sessions: 1, ..Limits::default() }).await;
    for (id, n) in [("a", 1), ("b", 2)] {
        let mut client = Client::open(&site).await;
        client.send(&connect_v4(id, false, 0)).await;
        client.expect(&[0x20, 2, 0, 0]).await;
        client.send(&publish_v4("t", 2, n, b"open")).await;
        client.expect(&crate::site::pubrec(n)).await;
        drop(client);
        site.until("it has gone", || site.handle.open_connections() == 0).await;
    }
    site.until("one hand-shake is left", || site.journal.facts(b"q").len() == 1).await;
    assert_eq!(site.stored().await.len(), 2);
    assert_eq!(site.handle.counters().evicted_sessions[1].get(), 1);
}
