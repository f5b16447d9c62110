//! Peers that mean harm, or are broken: they cost themselves their connection and nobody else anything.

use std::time::Duration;

use godwit_agent::mqtt::Limits;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use tokio::io::AsyncWriteExt;

use crate::site::{
    Client, Site, connect_v4, connect_v5, puback, publish_v4, publish_v5, pubrel, subscribe_v4, subscribe_v5,
};

/// Well-formed packets, to be cut, flipped and mixed.
fn seeds() -> Vec<Vec<u8>> {
    vec![
        connect_v4("x", true, 0),
        connect_v5("x", true, 0, &[0x21, 0, 9]),
        publish_v4("a/b", 1, 1, b"payload"),
        publish_v5("a/b", 2, 2, &[0x23, 0, 1], b"payload"),
        publish_v5("", 0, 0, &[0x23, 0, 1], b""),
        subscribe_v4("a/#", 2),
        subscribe_v5("+/b", 2, &[0x0b, 5]),
        pubrel(2),
        puback(1),
        vec![0xc0, 0],
        vec![0xe0, 0],
        vec![0xf0, 2, 0, 0],
    ]
}

/// What a broken peer may send after CONNECT: mutated packets and garbage.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let packet =
        (0..seeds().len(), any::<prop::sample::Index>(), any::<u8>(), 0..4u8).prop_map(|(seed, at, byte, what)| {
            let mut bytes = seeds().swap_remove(seed);
            let at = at.index(bytes.len());
            match what {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at),
                2 => bytes.insert(at, byte),
                _ => {}
            }
            bytes
        });
    let noise = prop::collection::vec(any::<u8>(), 0..40);
    prop::collection::vec(prop_oneof![4 => packet, 1 => noise], 1..8).prop_map(|parts| parts.concat())
}

#[tokio::test]
async fn garbage_of_any_kind_neither_panics_nor_wedges_the_listener() {
    let limits = Limits { connect_timeout: Duration::from_millis(200), ..Limits::default() };
    let site = Site::with_limits(limits).await;
    let mut good = site.v4("good").await;
    let mut runner = TestRunner::new(Config::default());
    for round in 0..400u16 {
        let bytes = garbage().new_tree(&mut runner).expect("a value").current();
        let mut client = Client::open(&site).await;
        let hello = match round % 3 {
            0 => Vec::new(),
            1 => connect_v4("bad", true, 0),
            _ => connect_v5("bad", true, 0, &[]),
        };
        // The listener may have closed in the middle of it.
        let _ = client.stream.write_all(&[hello, bytes].concat()).await;
        if round % 2 == 0 {
            drop(client);
        } else {
            let _ = client.stream.shutdown().await;
        }
        if round % 20 == 0 {
            good.send(&publish_v4("good", 1, round + 1, b"")).await;
            good.expect(&puback(round + 1)).await;
        }
    }
    site.until("the bad ones are gone", || site.handle.open_connections() == 1).await;
    good.expect_nothing().await;
    good.send(&[0xe0, 0]).await;
    good.expect_end().await;
    site.stop().await;
}

#[tokio::test]
async fn a_thousand_idle_clients_do_not_slow_one_that_works() {
    let site = Site::new().await;
    let mut idle = Vec::new();
    for n in 0..500 {
        idle.push(site.v4(&format!("idle-{n}")).await);
    }
    let mut client = site.v4("busy").await;
    for id in 1..=100 {
        client.send(&publish_v4("t", 1, id, b"x")).await;
        client.expect(&puback(id)).await;
    }
    idle[250].expect_nothing().await;
    assert_eq!(site.handle.open_connections(), 501);
    drop(idle);
    site.until("they have left", || site.handle.open_connections() == 1).await;
}

#[tokio::test]
async fn a_large_packet_that_is_only_promised_costs_no_memory_and_ends() {
    let site = Site::new().await;
    let mut client = site.v4("promise").await;
    client.send(&[0x30, 0xf0, 0xff, 0x3f, 0, 1, b'a']).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    site.clock.advance(29_000);
    client.send(&[1, 2, 3]).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    site.clock.advance(29_000);
    tokio::time::sleep(Duration::from_millis(700)).await;
    client.send(&[4]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    site.clock.advance(31_000);
    client.expect_end().await;
    assert_eq!(site.handle.counters().timeouts.get(), 1);
}

#[tokio::test]
async fn a_crowd_that_stalls_in_large_packets_for_ever_does_not_starve_an_honest_one() {
    let limits = Limits { max_packet_bytes: 1 << 20, partial_bytes: 1 << 20, ..Limits::default() };
    let site = std::sync::Arc::new(Site::with_limits(limits).await);
    let whole = std::sync::Arc::new(publish_v5("t", 1, 7, &[], &vec![b'x'; 900 << 10]));
    let mut crowd = tokio::task::JoinSet::new();
    for n in 0..40 {
        let (site, whole) = (site.clone(), whole.clone());
        crowd.spawn(async move {
            loop {
                let Ok(mut stream) = tokio::net::TcpStream::connect(site.addr).await else { return };
                let _ = stream.write_all(&connect_v5(&format!("crowd-{n}"), true, 0, &[])).await;
                let _ = stream.write_all(&whole[..20 << 10]).await;
                // Until it is thrown out; then it comes back.
                let mut sink = [0; 256];
                while matches!(tokio::io::AsyncReadExt::read(&mut stream, &mut sink).await, Ok(1..)) {}
            }
        });
    }
    site.until("the crowd holds the room", || site.handle.open_connections() >= 40).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (mut honest, _) = site.v5("honest", true, &[]).await;
    let sending = async {
        honest.send(&whole).await;
        honest.expect(&puback(7)).await;
    };
    // 40 before it, a tenth to a fifth of a second each; with two seconds each it would be 80.
    tokio::time::timeout(Duration::from_secs(25), sending).await.expect("its turn comes");
    crowd.shutdown().await;
}

#[tokio::test]
async fn large_packets_in_pieces_share_their_room_and_give_it_up_to_others() {
    let limits = Limits { max_packet_bytes: 1 << 20, partial_bytes: 2 << 20, ..Limits::default() };
    let site = Site::with_limits(limits).await;
    let whole = publish_v5("t", 1, 7, &[], &vec![b'x'; 900 << 10]);
    let mut slow = Vec::new();
    for n in 0..2 {
        let (mut client, _) = site.v5(&format!("slow-{n}"), true, &[]).await;
        client.send(&whole[..300 << 10]).await;
        slow.push(client);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    // What is small needs no room.
    let (mut small, _) = site.v5("small", true, &[]).await;
    small.send(&publish_v5("t", 1, 1, &[], b"small")).await;
    small.expect(&puback(1)).await;
    // What is large waits, and gets the room of those who have had their time.
    let (mut quick, _) = site.v5("quick", true, &[]).await;
    let (head, rest) = whole.split_at(100 << 10);
    quick.send(head).await;
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    site.clock.advance(1_000);
    let sending = async {
        quick.send(rest).await;
        quick.expect(&puback(7)).await;
    };
    tokio::time::timeout(Duration::from_secs(10), sending).await.expect("room was made");
    assert!(site.handle.counters().timeouts.get() >= 1, "one of the slow ones had to go");
    assert_eq!(site.stored().await.len(), 2);
}
