//! Promise: garbage, cuts, lies about lengths, slow and idle peers cost nobody else anything: service and memory hold.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;
use godwit_tests::lab;
use godwit_tests::load::{Load, Plan};
use godwit_tests::mqtt;
use godwit_tests::node::{DEFAULT_BROKER, Node};
use godwit_tests::random;
use godwit_tests::wait;

const LIMIT: Duration = Duration::from_secs(20);
/// Memory that a hostile peer may cost for a while, in KiB.
const MEMORY: u64 = 12 << 10;

fn random_bytes(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    getrandom::fill(&mut bytes).expect("the system has random bytes");
    bytes
}

/// Sends bytes on a connection of their own and closes it, or waits for the peer to.
fn throw(to: SocketAddr, bytes: &[u8], wait: bool) {
    let Ok(mut stream) = TcpStream::connect(to) else { return };
    let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
    let _ = stream.write_all(bytes);
    if wait {
        let _ = stream.read(&mut [0; 256]);
    }
}

/// Proper clients are served, quickly and wholly.
fn is_well(agent: &mut Node, name: &str) -> Result<()> {
    let mut plan = Plan::new(agent.mqtt());
    (plan.clients, plan.count) = (2, 50);
    plan.name = name.to_owned();
    let records = Load::start(plan).wait_count(LIMIT)?;
    assert!(records.iter().all(|record| record.acknowledged.len() == 50), "{name}: {records:?}");
    let begun = Instant::now();
    assert_eq!(agent.post(DEFAULT_BROKER, name, "text/plain", b"x")?.status, 202);
    assert!(begun.elapsed() < Duration::from_secs(2), "{name}: {:?}", begun.elapsed());
    Ok(())
}

#[test]
fn garbage_by_mqtt() -> Result<()> {
    lab::run(|lab| {
        let mut agent = Node::agent(lab, "agent-1")?;
        agent.start()?;
        let before = agent.process().pss_kib()?;
        let to = agent.mqtt();
        let mut connect = Vec::new();
        mqtt::connect(&mut connect, "hostile", true, 30, None);
        let mut publish = connect.clone();
        mqtt::publish(&mut publish, "a/b", 1, 1, false, b"payload");
        for _ in 0..300 {
            // Garbage at once, garbage behind a proper CONNECT, and proper packets cut or with a byte changed.
            throw(to, &random_bytes(1 + usize::try_from(random::below(600))?), random::below(4) == 0);
            let mut behind = connect.clone();
            behind.extend(random_bytes(1 + usize::try_from(random::below(300))?));
            throw(to, &behind, random::below(4) == 0);
            let cut = usize::try_from(random::below(publish.len() as u64))?;
            throw(to, publish.get(..cut).unwrap_or_default(), random::below(8) == 0);
            let mut changed = publish.clone();
            let at = usize::try_from(random::below(changed.len() as u64))?;
            changed[at] ^= 1 << random::below(8);
            throw(to, &changed, random::below(4) == 0);
        }
        let before_connect: &[u8] = &[0x32, 7, 0, 1, b'a', 0, 1, b'x', b'y'];
        let too_large: &[u8] = &[0x30, 0xff, 0xff, 0xff, 0x7f];
        let endless_length: &[u8] = &[0x30, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        let empty_packets: &[u8] = &[0x30, 0, 0x40, 0, 0x50, 0, 0x62, 0, 0x70, 0, 0x82, 0, 0xa2, 0, 0xc0, 0];
        let long_properties: &[u8] = &[0x10, 16, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 10, 0xff, 0xff, 0xff, 0x7f, 0, 0];
        for bytes in [before_connect, too_large, endless_length, empty_packets, long_properties] {
            throw(to, bytes, true);
            throw(to, &[connect.as_slice(), bytes].concat(), true);
        }
        is_well(&mut agent, "after")?;
        let after = agent.process().pss_kib()?;
        println!("memory {before} KiB before, {after} KiB after");
        assert!(after < before + MEMORY, "memory went from {before} to {after} KiB");
        agent.stop()
    })
}

#[test]
fn garbage_by_http() -> Result<()> {
    lab::run(|lab| {
        let mut agent = Node::agent(lab, "agent-1")?;
        agent.start()?;
        let before = agent.process().pss_kib()?;
        let to = agent.http();
        let event =
            "POST / HTTP/1.1\r\nhost: localhost\r\nce-id: 1\r\nce-source: /s\r\nce-type: t\r\nce-specversion: 1.0\r\n";
        for _ in 0..200 {
            throw(to, &random_bytes(1 + usize::try_from(random::below(600))?), random::below(4) == 0);
            let mut behind = event.as_bytes().to_vec();
            behind.extend(random_bytes(200));
            throw(to, &behind, random::below(4) == 0);
            throw(to, format!("{event}content-length: 100\r\n\r\ncut").as_bytes(), random::below(8) == 0);
            throw(to, format!("{event}transfer-encoding: chunked\r\n\r\nzz\r\n").as_bytes(), false);
            // HTTP/2: the preface, then garbage.
            let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            preface.extend(random_bytes(100));
            throw(to, &preface, random::below(4) == 0);
        }
        throw(to, format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(1 << 20)).as_bytes(), true);
        throw(to, format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20)).as_bytes(), true);
        throw(to, format!("{event}content-length: 18446744073709551615\r\n\r\n").as_bytes(), true);
        let large = agent.post(DEFAULT_BROKER, "large", "text/plain", &vec![b'x'; 3 << 20]);
        if let Ok(answer) = large {
            assert_eq!(answer.status, 413, "{}", answer.text());
        }
        for path in ["/../etc/passwd", "/default", "/default/none", "/default/default/more", "/%2e%2e/%00"] {
            let status = agent.post(path.trim_start_matches('/'), "1", "text/plain", b"x")?.status;
            assert!((400..=404).contains(&status), "{path}: {status}");
        }
        is_well(&mut agent, "after")?;
        let after = agent.process().pss_kib()?;
        println!("memory {before} KiB before, {after} KiB after");
        assert!(after < before + MEMORY, "memory went from {before} to {after} KiB");
        agent.stop()
    })
}

#[test]
fn slow_peers_are_put_out_and_cost_nobody_anything() -> Result<()> {
    lab::run(|lab| {
        let mut agent = Node::agent(lab, "agent-1")?;
        agent.set("http.header-timeout", "2s");
        agent.set("mqtt.connect-timeout", "2s");
        agent.start()?;
        let begun = Instant::now();
        let connect = |to: SocketAddr, count: usize| -> Vec<TcpStream> {
            (0..count).filter_map(|_| TcpStream::connect(to).ok()).collect()
        };
        let mut http = connect(agent.http(), 100);
        let mut mqtt = connect(agent.mqtt(), 100);
        let head = b"POST / HTTP/1.1\r\nhost: localhost\r\nx-slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        for byte in head.iter().take(8) {
            for stream in &mut http {
                let _ = stream.write_all(&[*byte]);
            }
            for stream in &mut mqtt {
                let _ = stream.write_all(&[if *byte == b'P' { 0x10 } else { 0x80 }]);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        is_well(&mut agent, "meanwhile")?;
        wait::until("the slow ones are put out", Duration::from_secs(8), || {
            let open = http.iter().chain(&mqtt).filter(|stream| is_open(stream)).count();
            if open == 0 { wait::Seen::Yes(()) } else { wait::Seen::NotYet(format!("{open} are open")) }
        })?;
        println!("200 slow connections were put out within {:?}", begun.elapsed());
        is_well(&mut agent, "after")?;
        agent.stop()
    })
}

fn is_open(mut stream: &TcpStream) -> bool {
    let _ = stream.set_nonblocking(true);
    let mut buffer = [0; 512];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn two_thousand_idle_connections_cost_little() -> Result<()> {
    lab::run(|lab| {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, raised)?;
        let mut agent = Node::agent(lab, "agent-1")?;
        agent.start()?;
        is_well(&mut agent, "before")?;
        let before = agent.process().pss_kib()?;
        let mut streams = Vec::new();
        for number in 0..2000 {
            let mut stream = TcpStream::connect(agent.mqtt())?;
            let mut connect = Vec::new();
            mqtt::connect(&mut connect, &format!("idle-{number}"), true, 0, None);
            stream.write_all(&connect)?;
            streams.push(stream);
        }
        for stream in &mut streams {
            stream.set_read_timeout(Some(LIMIT))?;
            let mut answer = [0; 4];
            stream.read_exact(&mut answer)?;
            assert_eq!(answer, [0x20, 2, 0, 0]);
        }
        let after = agent.process().pss_kib()?;
        println!("2,000 idle clients cost {} KiB", after.saturating_sub(before));
        assert!(after < before + (16 << 10), "memory went from {before} to {after} KiB");
        is_well(&mut agent, "among-idle")?;
        drop(streams);
        is_well(&mut agent, "after")?;
        agent.stop()
    })
}
