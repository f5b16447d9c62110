//! Crowds that send half of something, over real sockets; and heads and refusals that need bytes of their own.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{Method, StatusCode};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::tests::{Running, post, read_all, status};
use super::{Body, BoxError, Door, Limits, Request, Router, respond};

/// A request of which the last bytes are missing.
async fn unfinished(server: &Running, head: &str, here: usize) -> TcpStream {
    let mut tcp = server.connect().await;
    tcp.write_all(head.as_bytes()).await.expect("sent");
    tcp.write_all(&vec![b'x'; here]).await.expect("sent");
    tcp
}

const SMALL: &str = "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16000\r\n\r\n";

fn evicted(server: &Running) -> usize {
    let count = server.metric("godwit_http_connections_evicted_total").expect("counted");
    count.parse().expect("a number")
}

/// Waits until at least `count` connections were closed; gives how many.
async fn until_evicted(server: &Running, count: usize) -> usize {
    for _ in 0..400 {
        if evicted(server) >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let gone = evicted(server);
    assert!(gone >= count, "{gone} of {count} within 20 s");
    gone
}

#[tokio::test]
async fn small_bodies_that_stall_share_a_bound_and_the_oldest_goes_first() {
    let server = Running::echo(Limits { unfinished_bytes: 128 << 10, ..Limits::default() }).await;
    let mut crowd = Vec::new();
    for _ in 0..20 {
        crowd.push(unfinished(&server, SMALL, 15_000).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(status(&server.send(&post("honest")).await), "200");
    // Left the lane, each is counted with what waits for it: five or six fit.
    let gone = until_evicted(&server, 12).await;
    assert!(gone <= 16, "{gone}");
    assert_eq!(read_all(&mut crowd[0]).await, "");
    let last = crowd.last_mut().expect("the newest");
    last.write_all(&vec![b'x'; 1_000]).await.expect("still open");
    let mut answer = [0; 12];
    last.read_exact(&mut answer).await.expect("answered");
    assert_eq!(&answer[9..], b"200", "who goes on is served");
}

#[tokio::test]
async fn a_full_house_of_requests_that_stall_keeps_nobody_out() {
    let heads =
        ["POST /echo HTTP/1.1\r\nHost: loc", "GET /echo HTTP/1.1\r\nHost: loc", SMALL, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"];
    for head in heads {
        let server = Running::echo(Limits { connections: 3, ..Limits::default() }).await;
        let mut crowd = Vec::new();
        for _ in 0..3 {
            crowd.push(unfinished(&server, head, 1).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        for _ in 0..2 {
            let answer = server.send(&post("honest")).await;
            assert_eq!(status(&answer), "200", "{head:?}: {answer}");
        }
        let _ = read_all(&mut crowd[0]).await;
    }
}

#[tokio::test]
async fn heads_that_stall_count_too() {
    let server = Running::echo(Limits { unfinished_bytes: 200 << 10, ..Limits::default() }).await;
    for begin in ["POST", "GET"] {
        let before = evicted(&server);
        let mut crowd = Vec::new();
        for _ in 0..10 {
            crowd.push(unfinished(&server, &format!("{begin} /echo HTTP/1.1\r\nX: "), 60 << 10).await);
        }
        until_evicted(&server, before + 7).await;
        assert_eq!(status(&server.send(&post("honest")).await), "200");
    }
}

#[tokio::test]
async fn what_came_fast_buys_a_body_no_silence() {
    let limits = Limits { body_grace: Duration::from_millis(300), ..Limits::default() };
    let server = Running::echo(limits).await;
    let begun = std::time::Instant::now();
    let answer = read_all(&mut unfinished(&server, SMALL, 15_000).await).await;
    assert_eq!(status(&answer), "408", "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn streams_of_http_2_that_stall_count_like_connections() {
    let server = Running::echo(Limits { unfinished_bytes: 256 << 10, ..Limits::default() }).await;
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let tcp = TokioIo::new(server.connect().await);
        let (sender, connection) = http2::handshake::<_, _, Body>(TokioExecutor::new(), tcp).await.expect("HTTP/2");
        crowd.spawn(async move {
            let _ = connection.await;
        });
        for _ in 0..8 {
            let mut sender = sender.clone();
            crowd.spawn(async move {
                let some = Ok::<_, BoxError>(Bytes::from(vec![b'x'; 6_000]));
                let body = Body::stream(stream::iter([some]).chain(stream::pending()));
                let request = http::Request::post("http://localhost/echo").body(body).expect("a request");
                let _ = sender.send_request(request).await;
            });
        }
    }
    // 8 streams of 10 KiB for each connection: there is room for three.
    until_evicted(&server, 4).await;
    assert_eq!(status(&server.send(&post("honest")).await), "200");
    crowd.shutdown().await;
}

#[tokio::test]
async fn answers_of_http_2_that_nobody_takes_count_too() {
    let router = Router::new().route(Method::GET, "/large", |_: Request| async {
        respond::typed(StatusCode::OK, http::HeaderValue::from_static("text/plain"), vec![b'x'; 20_000])
    });
    let limits = Limits { unfinished_bytes: 256 << 10, ..Limits::default() };
    let server = Running::start(router, Door::default(), limits).await;
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let tcp = TokioIo::new(server.connect().await);
        let mut handshake = http2::Builder::new(TokioExecutor::new());
        handshake.initial_stream_window_size(0);
        let (mut sender, connection) = handshake.handshake::<_, Body>(tcp).await.expect("HTTP/2");
        crowd.spawn(async move {
            let _ = connection.await;
        });
        crowd.spawn(async move {
            let mut answers = Vec::new();
            for _ in 0..5 {
                let request = http::Request::get("http://localhost/large").body(Body::empty()).expect("a request");
                answers.push(sender.send_request(request).await);
            }
            std::future::pending::<()>().await;
        });
    }
    // 5 answers of 24 KB for each connection: there is room for two.
    until_evicted(&server, 2).await;
    crowd.shutdown().await;
}

#[tokio::test]
async fn of_idle_connections_of_http_2_only_some_stay() {
    let server = Running::echo(Limits { idle_http2: 2, ..Limits::default() }).await;
    let mut crowd = Vec::new();
    for _ in 0..6 {
        let tcp = TokioIo::new(server.connect().await);
        let (mut sender, connection) = http2::handshake::<_, _, Body>(TokioExecutor::new(), tcp).await.expect("HTTP/2");
        let connection = tokio::spawn(connection);
        let request = http::Request::post("http://localhost/echo").body(Body::full("x")).expect("a request");
        assert_eq!(sender.send_request(request).await.expect("answered").status(), StatusCode::OK);
        tokio::time::sleep(Duration::from_millis(20)).await;
        crowd.push((sender, connection));
    }
    assert_eq!(evicted(&server), 3, "a look is taken as each comes: three were there before the last");
    let open: Vec<bool> = crowd.iter().map(|(_, connection)| !connection.is_finished()).collect();
    assert_eq!(open, [false, false, false, true, true, true]);
}

#[tokio::test]
async fn an_event_of_64_kib_may_be_all_attributes_and_a_larger_head_is_told_why_not() {
    let server = Running::echo(Limits::default()).await;
    let with = |headers: &str| post("x").replace("Host: localhost", &format!("Host: localhost\r\n{headers}X: y"));
    let many: String = (0..200).map(|n| format!("ce-a{n}: {}\r\n", "v".repeat(300))).collect();
    assert_eq!(status(&server.send(&with(&many)).await), "200");
    let long = format!("ce-a: {}\r\n", "v".repeat(100 << 10));
    let too_many: String = (0..300).map(|n| format!("ce-a{n}: v\r\n")).collect();
    for headers in [long, too_many] {
        let answer = server.send(&with(&headers)).await;
        assert_eq!(status(&answer), "431", "{answer}");
        assert!(answer.contains("structured mode"), "{answer}");
    }
}

#[tokio::test]
async fn a_transfer_coding_that_is_not_known_is_answered_501() {
    let server = Running::echo(Limits::default()).await;
    let coded = "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let answer = server.send(coded).await;
    assert_eq!(status(&answer), "501", "{answer}");
    assert!(answer.contains("gzip"), "{answer}");
}

/// A frame of HTTP/2 on stream 1, or 0 for settings.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&len[1..], &[kind, flags, 0, 0, 0, u8::from(kind != 4)], payload].concat()
}

#[tokio::test]
async fn an_answer_before_the_body_is_not_followed_by_a_reset_over_http_2() {
    const RST_STREAM: u8 = 3;
    let router = Router::new().route(Method::POST, "/no", |_: Request| async { respond::empty(StatusCode::NOT_FOUND) });
    let server = Running::start(router, Door::default(), Limits::default()).await;
    let mut tcp = server.connect().await;
    let fields = [(":method", "POST"), (":path", "/no"), (":scheme", "http"), (":authority", "localhost")];
    let head: Vec<u8> = fields
        .iter()
        .flat_map(|(name, value)| {
            let text = |text: &str| [&[u8::try_from(text.len()).expect("short")][..], text.as_bytes()].concat();
            [vec![0], text(name), text(value)].concat()
        })
        .collect();
    let begin = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, &[]), frame(1, 4, &head)].concat();
    tcp.write_all(&begin).await.expect("sent");
    let mut seen = Vec::new();
    let mut sent = false;
    let until_quiet = async {
        loop {
            let mut head = [0; 9];
            let read = tokio::time::timeout(Duration::from_millis(500), tcp.read_exact(&mut head)).await;
            if read.is_err() {
                return;
            }
            read.expect("in time").expect("open");
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            tcp.read_exact(&mut payload).await.expect("whole");
            seen.push(head[3]);
            if head[3] == 1 && !sent {
                // The answer is here, and only now comes the body.
                sent = true;
                tokio::time::sleep(Duration::from_millis(100)).await;
                tcp.write_all(&frame(0, 1, b"late")).await.expect("sent");
            }
        }
    };
    until_quiet.await;
    assert!(seen.contains(&1), "{seen:?}");
    assert!(!seen.contains(&RST_STREAM), "{seen:?}");
}
