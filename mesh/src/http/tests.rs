//! The server as its peers see it, over real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use super::{Body, Door, Limits, Request, Response, Router, Server, ServerMetrics, respond};
use crate::door::{ClientTls, Credentials, CredentialsFile, HostRule, ServerTls};

/// A server that runs until the end of its test.
pub(super) struct Running {
    addr: SocketAddr,
    metrics: Metrics,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    pub(super) async fn start(router: Router, door: Door, limits: Limits) -> Self {
        let metrics = Metrics::new();
        let server = Server::bind("127.0.0.1:0".parse().expect("address"), None, limits).await.expect("a free port");
        let (addr, shutdown) = (server.local_addr(), CancellationToken::new());
        let task = tokio::spawn(server.serve(router, door, ServerMetrics::register(&metrics), shutdown.clone()));
        Self { addr, metrics, shutdown, task }
    }

    pub(super) async fn echo(limits: Limits) -> Self {
        Self::start(echo(), Door::default(), limits).await
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.expect("connected")
    }

    /// Sends bytes on a new connection and returns all that comes until the server closes it.
    pub(super) async fn send(&self, bytes: &str) -> String {
        let mut tcp = self.connect().await;
        tcp.write_all(bytes.as_bytes()).await.expect("sent");
        read_all(&mut tcp).await
    }

    pub(super) fn metric(&self, line: &str) -> Option<String> {
        let text = self.metrics.render(super::metrics::Format::Prometheus);
        text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' ').map(str::to_owned))
    }
}

pub(super) async fn read_all(tcp: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), tcp.read_to_end(&mut bytes)).await;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    match read.unwrap_or_else(|_| panic!("not closed within 20 s; so far: {text}")) {
        // A server that refuses a body may reset the connection after its answer.
        Ok(_) | Err(_) => text,
    }
}

pub(super) fn echo() -> Router {
    Router::new()
        .route(Method::POST, "/echo", |mut request: Request| async move {
            let limit = request.limits().event_bytes;
            match request.bytes(limit).await {
                Ok(bytes) => Response::new(Body::full(bytes)),
                Err(why) => why.response(),
            }
        })
        .route(Method::GET, "/wait", |request: Request| async move {
            request.shutdown().cancelled().await;
            respond::text(StatusCode::OK, "shut down")
        })
        .open(Method::GET, "/healthz", |_| async { respond::text(StatusCode::OK, "ok") })
}

pub(super) fn post(body: &str) -> String {
    format!("POST /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

pub(super) fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

#[tokio::test]
async fn a_body_comes_back_and_a_chunked_one_too() {
    let server = Running::echo(Limits::default()).await;
    let answer = server.send(&post("hello")).await;
    assert_eq!(status(&answer), "200");
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    let chunked = "POST /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n4\r\ndefg\r\n1\r\nh\r\n0\r\n\r\n";
    let answer = server.send(chunked).await;
    assert!(answer.ends_with("\r\n\r\nabcdefgh"), "{answer}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Running::echo(Limits::default()).await;
    let one = post("one").replace("Connection: close\r\n", "");
    let answer = server.send(&format!("{one}{}", post("two"))).await;
    let (first, second) = (answer.find("one").expect("first"), answer.find("two").expect("second"));
    assert!(first < second, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2);
}

#[tokio::test]
async fn an_answer_does_not_wait_for_the_rest_of_the_next_request() {
    let server = Running::echo(Limits::default()).await;
    let one = post("one").replace("Connection: close\r\n", "");
    let mut tcp = server.connect().await;
    tcp.write_all(format!("{one}POST /echo HT").as_bytes()).await.expect("sent");
    let mut answer = [0; 512];
    let read = tokio::time::timeout(Duration::from_secs(5), tcp.read(&mut answer)).await;
    assert!(read.expect("answered at once").expect("open") > 0);
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_allowed_say_so() {
    let server = Running::echo(Limits::default()).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let answer = server.send(&get("/nothing")).await;
    assert_eq!(status(&answer), "404", "{answer}");
    let answer = server.send(&get("/echo")).await;
    assert_eq!(status(&answer), "405", "{answer}");
    assert!(answer.contains("\r\nallow: POST\r\n"), "{answer}");
    assert_eq!(server.metric("godwit_http_requests_total{class=\"4xx\"}").as_deref(), Some("2"));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_answered_413_told_or_not() {
    let limits = Limits { event_bytes: 1, ..Limits::default() }; // raised to the least that is lawful
    let server = Running::echo(limits).await;
    let answer = server.send(&post(&"x".repeat(64 << 10))).await;
    assert_eq!(status(&answer), "200", "64 KiB must always pass");
    let answer = server.send(&post(&"x".repeat((64 << 10) + 1))).await;
    assert_eq!(status(&answer), "413");
    assert!(answer.contains("65536"), "{answer}");
    let chunk = format!("8000\r\n{}\r\n", "y".repeat(0x8000));
    let head = "POST /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = server.send(&format!("{head}{}0\r\n\r\n", chunk.repeat(3))).await;
    assert_eq!(status(&answer), "413");
}

#[tokio::test]
async fn a_client_that_expects_100_is_refused_before_it_sends() {
    let server = Running::echo(Limits::default()).await;
    let head = "POST /echo HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n";
    let answer = server.send(head).await;
    assert_eq!(status(&answer), "413", "{answer}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = Running::echo(Limits { header_bytes: 8 << 10, ..Limits::default() }).await;
    let head = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(20 << 10));
    assert_eq!(status(&server.send(&head).await), "431");
}

#[tokio::test]
async fn garbage_is_answered_400_and_costs_nobody_else_anything() {
    let server = Running::echo(Limits::default()).await;
    assert_eq!(status(&server.send("\u{1}\u{2}\u{3} nonsense\r\n\r\n").await), "400");
    assert_eq!(status(&server.send(&post("still here")).await), "200");
}

#[tokio::test]
async fn a_head_that_dribbles_is_cut() {
    let limits = Limits { header_time: Duration::from_millis(100), ..Limits::default() };
    let server = Running::echo(limits).await;
    let mut tcp = server.connect().await;
    tcp.write_all(b"POST /echo HTTP/1.1\r\nHost: loc").await.expect("sent");
    assert_eq!(read_all(&mut tcp).await, "");
    assert_eq!(server.metric("godwit_http_connections_overdue_total").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_body_that_dribbles_is_answered_408() {
    let limits = Limits { body_grace: Duration::from_millis(200), body_rate: 1 << 20, ..Limits::default() };
    let server = Running::echo(limits).await;
    let mut tcp = server.connect().await;
    tcp.write_all(post("0123456789").trim_end_matches('9').as_bytes()).await.expect("sent");
    let answer = read_all(&mut tcp).await;
    assert_eq!(status(&answer), "408", "{answer}");
}

/// The head of a large request, and the first bytes of its body.
async fn begin_large(server: &Running, bytes: usize) -> TcpStream {
    let mut tcp = server.connect().await;
    let head = format!("POST /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {bytes}\r\n\r\n");
    tcp.write_all(head.as_bytes()).await.expect("sent");
    tcp.write_all(&vec![b'x'; 40 << 10]).await.expect("sent");
    tcp
}

#[tokio::test]
async fn slow_large_bodies_share_their_room_and_give_it_up_to_others() {
    let limits = Limits { batch_bytes: 1 << 20, bodies_bytes: 2 << 20, ..Limits::default() };
    let server = Running::echo(limits).await;
    // Two have all the room; they dribble on, so that no limit of pace speaks against them.
    let mut slow = Vec::new();
    for _ in 0..2 {
        slow.push(begin_large(&server, 1 << 20).await);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let small = server.send(&post("small")).await;
    assert_eq!(status(&small), "200", "a small body needs no room: {small}");
    let mut third = begin_large(&server, 100 << 10).await;
    third.write_all(&vec![b'x'; 60 << 10]).await.expect("sent");
    let dribble = tokio::spawn(async move {
        loop {
            for tcp in &mut slow {
                let _ = tcp.write_all(b"x").await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let answer = read_all(&mut third).await;
    assert_eq!(status(&answer), "200", "who is quick gets the room of who is slow");
    dribble.abort();
}

#[tokio::test]
async fn a_body_that_finds_no_room_is_answered_503() {
    let room_wait = Duration::from_millis(50);
    let limits = Limits { batch_bytes: 1 << 20, bodies_bytes: 1 << 20, room_wait, ..Limits::default() };
    let server = Running::echo(limits).await;
    // The first one has all the room and keeps coming, so that it need not give it up.
    let mut first = begin_large(&server, 1 << 20).await;
    let coming = tokio::spawn(async move {
        loop {
            first.write_all(&vec![b'x'; 50 << 10]).await.expect("taken");
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let answer = read_all(&mut begin_large(&server, 1 << 20).await).await;
    assert_eq!(status(&answer), "503", "{answer}");
    assert!(answer.contains("retry-after"), "{answer}");
    coming.abort();
}

#[tokio::test]
async fn a_crowd_that_stalls_in_large_bodies_for_ever_does_not_starve_an_honest_one() {
    let limits = Limits { batch_bytes: 1 << 20, bodies_bytes: 1 << 20, ..Limits::default() };
    let server = std::sync::Arc::new(Running::echo(limits).await);
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let server = server.clone();
        crowd.spawn(async move {
            loop {
                // Until it is thrown out; then it comes back.
                let mut tcp = begin_large(&server, 1 << 20).await;
                let mut sink = [0; 256];
                while matches!(tcp.read(&mut sink).await, Ok(1..)) {}
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut honest = server.connect().await;
    let body = "x".repeat(1 << 20);
    // 40 before it, a tenth to a fifth of a second each; with two seconds each it would be 80, and it would be sent away.
    honest.write_all(post(&body).as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), honest.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "not answered");
    assert_eq!(answer.get(9..12), Some(&b"200"[..]), "{}", String::from_utf8_lossy(&answer[..answer.len().min(300)]));
    crowd.shutdown().await;
}

#[tokio::test]
async fn who_only_promises_a_large_body_does_not_stand_in_line() {
    let limits = Limits { batch_bytes: 1 << 20, bodies_bytes: 1 << 20, room_wait: Duration::ZERO, ..Limits::default() };
    let server = Running::echo(limits).await;
    let mut crowd = Vec::new();
    for _ in 0..5 {
        let mut tcp = server.connect().await;
        let head = "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048576\r\n\r\nxxx";
        tcp.write_all(head.as_bytes()).await.expect("sent");
        crowd.push(tcp);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(status(&server.send(&post(&"x".repeat(900 << 10))).await), "200");
}

#[tokio::test]
async fn a_token_that_is_revoked_is_refused_on_an_open_connection_and_long_answers_end() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("credentials");
    let mut file = CredentialsFile::open(&path).expect("absent is empty");
    let token = file.add_token("boat").expect("made");
    file.save().expect("saved");
    let credentials = Credentials::load(&path).expect("valid");
    let router = echo().route(Method::GET, "/long", |request: Request| async move {
        request.revoked().await;
        respond::text(StatusCode::OK, "revoked")
    });
    let door = Door { credentials: Some(credentials.clone()), ..Door::default() };
    let server = Running::start(router, door, Limits::default()).await;
    let authorization = format!("Host: localhost\r\nAuthorization: Bearer {token}");
    let mut long = server.connect().await;
    let get = format!("GET /long HTTP/1.1\r\n{authorization}\r\nConnection: close\r\n\r\n");
    long.write_all(get.as_bytes()).await.expect("sent");
    let mut tcp = server.connect().await;
    let request = post("x").replace("Host: localhost", &authorization);
    let mut answer = [0; 512];
    tcp.write_all(request.replace("Connection: close\r\n", "").as_bytes()).await.expect("sent");
    let n = tcp.read(&mut answer).await.expect("answered");
    assert_eq!(answer.get(9..12), Some(&b"200"[..]), "{}", String::from_utf8_lossy(&answer[..n]));
    credentials.reload().expect("the same");
    std::fs::write(&path, "").expect("emptied");
    credentials.reload().expect("valid");
    assert!(read_all(&mut long).await.ends_with("revoked\n"));
    tcp.write_all(request.as_bytes()).await.expect("sent");
    assert_eq!(status(&read_all(&mut tcp).await), "401");
}

#[tokio::test]
async fn without_credentials_what_a_proxy_passes_on_changes_nothing() {
    let server = Running::echo(Limits::default()).await;
    let with = |header: &str| post("x").replace("Host: localhost", &format!("Host: localhost\r\n{header}"));
    for header in ["Forwarded: for=192.0.2.1", "X-Forwarded-For: 192.0.2.1", "Via: 1.1 proxy"] {
        let answer = server.send(&with(header)).await;
        assert_eq!(status(&answer), "403", "{answer}");
        assert!(answer.contains("auth.credentials"), "{answer}");
    }
    assert_eq!(status(&server.send(&with("X-Forward: x")).await), "200");
    let get = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nVia: 1.1 proxy\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&server.send(get).await), "200");
    let open = Running::start(echo(), Door { open_to_proxies: true, ..Door::default() }, Limits::default()).await;
    assert_eq!(status(&open.send(&with("Via: 1.1 proxy")).await), "200", "insecure = true says so");
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_that_is_answered_is_not() {
    let limits = Limits { idle: Duration::from_millis(100), ..Limits::default() };
    let server = Running::echo(limits).await;
    let (mut silent, mut done, mut waiting) = (server.connect().await, server.connect().await, server.connect().await);
    done.write_all(post("x").replace("Connection: close\r\n", "").as_bytes()).await.expect("sent");
    waiting.write_all(b"GET /wait HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.expect("sent");
    assert_eq!(read_all(&mut silent).await, "");
    assert_eq!(status(&read_all(&mut done).await), "200");
    server.shutdown.cancel();
    let answer = read_all(&mut waiting).await;
    assert!(answer.ends_with("shut down\n"), "{answer}");
    server.task.await.expect("ended");
}

#[tokio::test]
async fn a_full_house_gives_a_newcomer_the_place_of_the_idlest() {
    let server = Running::echo(Limits { connections: 2, ..Limits::default() }).await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    let mut idle = server.connect().await;
    while server.metric("godwit_http_connections").as_deref() != Some("2") {
        tokio::task::yield_now().await;
    }
    // The head of the request must have been read, or the busy one is the idlest.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(status(&server.send(&post("new")).await), "200");
    assert_eq!(read_all(&mut idle).await, "");
    let mut other = server.connect().await;
    other.write_all(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.send(&post("none is idle")).await, "");
    assert_eq!(server.metric("godwit_http_connections_refused_total").as_deref(), Some("1"));
}

#[tokio::test]
async fn what_changes_things_must_come_from_here() {
    let hosts = HostRule::new(None, &["boat.local".to_owned()]);
    let server = Running::start(echo(), Door { hosts, ..Door::default() }, Limits::default()).await;
    let with = |header: &str| post("x").replace("Host: localhost", header);
    assert_eq!(status(&server.send(&with("Host: boat.local:80")).await), "200");
    let answer = server.send(&with("Host: evil.example")).await;
    assert_eq!(status(&answer), "403");
    assert!(answer.contains("allowed-hosts"), "{answer}");
    let answer = server.send(&with("Host: localhost\r\nOrigin: http://evil.example")).await;
    assert_eq!(status(&answer), "403", "{answer}");
    assert_eq!(status(&server.send(&with("Host: localhost\r\nOrigin: http://localhost")).await), "200");
    let get = "GET /healthz HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&server.send(get).await), "200", "reading needs no host of ours");
}

#[tokio::test]
async fn d9_with_credentials_only_health_checks_come_in_without() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("credentials");
    let mut file = CredentialsFile::open(&path).expect("absent is empty");
    file.set_password("ada", b"love:lace").expect("set");
    let token = file.add_token("boat").expect("made");
    file.save().expect("saved");
    let door = Door { credentials: Some(Credentials::load(&path).expect("valid")), ..Door::default() };
    let server = Running::start(echo(), door, Limits::default()).await;
    let with = |header: &str| post("x").replace("Host: localhost", &format!("Host: localhost\r\nAuthorization: {header}"));
    let answer = server.send(&post("x")).await;
    assert_eq!(status(&answer), "401");
    assert!(answer.contains("www-authenticate: Bearer"), "{answer}");
    assert_eq!(status(&server.send(&with(&format!("Bearer {token}"))).await), "200");
    assert_eq!(status(&server.send(&with("Bearer gwt_wrong")).await), "401");
    assert_eq!(status(&server.send(&with("Basic YWRhOmxvdmU6bGFjZQ==")).await), "200");
    assert_eq!(status(&server.send(&with("Basic YWRhOndyb25n")).await), "401");
    assert_eq!(status(&server.send(&with("Digest x")).await), "401");
    assert_eq!(status(&server.send(&with("nonsense")).await), "401");
    let health = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&server.send(health).await), "200");
}

#[tokio::test]
async fn shutdown_cuts_what_does_not_end_in_time() {
    let router = Router::new().route(Method::GET, "/stuck", |_| std::future::pending::<Response>());
    let limits = Limits { drain: Duration::from_millis(100), ..Limits::default() };
    let server = Running::start(router, Door::default(), limits).await;
    let mut stuck = server.connect().await;
    stuck.write_all(b"GET /stuck HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.shutdown.cancel();
    server.task.await.expect("ended");
    assert_eq!(read_all(&mut stuck).await, "");
    assert!(TcpStream::connect(server.addr).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn over_tls_both_versions_of_http_come_in_and_plain_text_does_not() {
    let folder = tempfile::tempdir().expect("folder");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("certificate");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let tls = ServerTls::load(&cert, &key, &[b"h2", b"http/1.1"]).expect("a pair");
    let address = "127.0.0.1:0".parse().expect("address");
    let server = Server::bind(address, Some(tls), Limits::default()).await.expect("a free port");
    let (addr, shutdown) = (server.local_addr(), CancellationToken::new());
    let metrics = ServerMetrics::register(&Metrics::new());
    let task = tokio::spawn(server.serve(echo(), Door::default(), metrics, shutdown.clone()));
    let roots = ClientTls::new(Some(&cert));
    let connect = async |alpn: &[&[u8]]| {
        let tcp = TcpStream::connect(addr).await.expect("connected");
        let connector = tokio_rustls::TlsConnector::from(roots.config(alpn).expect("roots"));
        connector.connect("localhost".try_into().expect("name"), tcp).await.expect("trusted")
    };

    let mut old = connect(&[b"http/1.1"]).await;
    old.write_all(post("over TLS").as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let _ = old.read_to_end(&mut answer).await; // the server ends with a plain close
    assert!(answer.ends_with(b"\r\n\r\nover TLS"), "{}", String::from_utf8_lossy(&answer));

    let new = TokioIo::new(connect(&[b"h2"]).await);
    let (mut sender, connection) = http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), new).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let request = http::Request::post("https://localhost/echo").body(Full::from("by h2")).expect("request");
    let answer = sender.send_request(request).await.expect("answered");
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.into_body().collect().await.expect("a body").to_bytes(), "by h2");

    let mut plain = TcpStream::connect(addr).await.expect("connected");
    plain.write_all(post("in the clear").as_bytes()).await.expect("sent");
    assert!(!read_all(&mut plain).await.contains("HTTP"));
    drop(sender);
    shutdown.cancel();
    task.await.expect("ended");
    let _ = connection.await;
}
