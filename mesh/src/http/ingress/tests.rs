//! The ingress with a real journal behind it, request by request.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{ANY, Ingress, Target, passed_through};
use crate::broker::{BrokerDefaults, Brokers};
use crate::clock::Clock;
use crate::http::metrics::Metrics;
use crate::http::ops::Ops;
use crate::http::{Door, Limits, Router, Server, ServerMetrics, cursors, events};
use crate::journal::{Journal, Offset, Options, Start};
use crate::manifest::Kind;
use crate::names::{AgentId, BrokerName};
use crate::storage::Disk;

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

struct Site {
    brokers: Brokers,
    addr: std::net::SocketAddr,
    shutdown: CancellationToken,
    client: Sender,
    _folder: tempfile::TempDir,
}

impl Site {
    async fn start() -> Self {
        Self::with(Options::default(), Clock::manual(1_800_000_000_000)).await
    }

    async fn with(options: Options, clock: Clock) -> Self {
        Self::taking(options, clock, |ingress| ingress).await
    }

    async fn taking(options: Options, clock: Clock, change: impl FnOnce(Ingress) -> Ingress) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let disk = Arc::new(Disk::new(folder.path()).expect("disk"));
        let agent = AgentId::new("boat-7").expect("valid");
        let options = Options { segment_bytes: 1 << 20, max_bytes: 64 << 20, clock: clock.clone(), ..options };
        let defaults = BrokerDefaults { options, ..BrokerDefaults::default() };
        let brokers = Brokers::open(disk, Some(agent), defaults).await.expect("opened");
        let metrics = Metrics::new();
        let router = Ops::new(metrics.clone()).brokers(&brokers).routes(Router::new());
        let router = cursors::routes(events::routes(router, &brokers), &brokers);
        let router = router.ingress(change(Ingress::new(brokers.clone(), clock, &metrics)));
        let limits = Limits { event_bytes: 64 << 10, batch_bytes: 256 << 10, ..Limits::default() };
        let server = Server::bind("127.0.0.1:0".parse().expect("address"), None, limits).await.expect("bound");
        let (addr, shutdown) = (server.local_addr(), CancellationToken::new());
        tokio::spawn(server.serve(router, Door::default(), ServerMetrics::register(&metrics), shutdown.clone()));
        let tcp = TokioIo::new(TcpStream::connect(addr).await.expect("connected"));
        let (client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), tcp).await.expect("h2");
        tokio::spawn(connection);
        Self { brokers, addr, shutdown, client, _folder: folder }
    }

    fn journal(&self) -> Journal {
        self.brokers.get(&BrokerName::default()).expect("always there").journal().clone()
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.addr));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("request");
        let response = self.client.clone().send_request(request).await.expect("answered");
        Answer::of(response).await
    }

    async fn post(&self, headers: &[(&str, &str)], body: &str) -> Answer {
        self.ask(Method::POST, "/", headers, body.to_owned()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], "").await
    }

    /// The events of `default/default` as the tail shows them.
    async fn tail(&self, query: &str) -> Vec<Value> {
        let path = format!("/apis/godwit.dev/v1/namespaces/default/brokers/default/events?{query}");
        let answer = self.get(&path).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    async fn of(response: Response<hyper::body::Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        Self { status: head.status, headers: head.headers, text: String::from_utf8_lossy(&bytes).into_owned() }
    }

    fn header(&self, name: &'static str) -> &str {
        self.headers.get(HeaderName::from_static(name)).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

const BINARY: [(&str, &str); 5] = [
    ("ce-specversion", "1.0"),
    ("ce-id", "1"),
    ("ce-source", "/tests"),
    ("ce-type", "t"),
    ("content-type", "application/json"),
];

#[tokio::test]
async fn d4_d10_a_binary_event_is_stored_as_it_came_with_its_arrival() {
    let site = Site::start().await;
    let more = [("x-request-id", "r1"), ("ce-knativearrivaltime", "2001-01-01T00:00:00Z")];
    let headers: Vec<_> = BINARY.iter().copied().chain(more).collect();
    let answer = site.post(&headers, "{\"a\": 1.10}").await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    assert_eq!(answer.header("allow"), "POST, OPTIONS");
    assert_eq!(site.journal().next_offset(), Offset(1));
    let lines = site.tail("").await;
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["offset"], 0);
    assert_eq!(lines[0]["event"]["id"], "1");
    assert_eq!(lines[0]["event"]["knativearrivaltime"], "2027-01-15T08:00:00.000Z");
}

#[tokio::test]
async fn what_the_door_refuses_says_what_the_ingress_allows_too() {
    let site = Site::start().await;
    let headers: Vec<_> = BINARY.iter().copied().chain([("via", "1.1 proxy")]).collect();
    let answer = site.post(&headers, "{}").await;
    assert_eq!((answer.status, answer.header("allow")), (StatusCode::FORBIDDEN, "POST, OPTIONS"), "{}", answer.text);
}

#[tokio::test]
async fn d4_a_structured_event_keeps_the_bytes_of_its_data() {
    let site = Site::start().await;
    let body = "{\"specversion\":\"1.0\",\"id\":\"7\",\"source\":\"/s\",\"type\":\"t\",\"data\":{\"b\":1.10,\n\"a\":12345678901234567890}}";
    let answer = site.post(&[("content-type", "application/cloudevents+json")], body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    let shown = site.get("/apis/godwit.dev/v1/namespaces/default/brokers/default/events").await.text;
    assert!(shown.contains("{\"b\":1.10, \"a\":12345678901234567890}"), "{shown}");
    assert_eq!(shown.lines().count(), 1);
}

#[tokio::test]
async fn a_batch_is_taken_whole_or_not_at_all() {
    let site = Site::start().await;
    let event = |id: &str| json!({"specversion": "1.0", "id": id, "source": "/s", "type": "t"});
    let batch = [("content-type", "application/cloudevents-batch+json")];
    let answer = site.post(&batch, &json!([event("1"), event("2"), event("3")]).to_string()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    assert_eq!(site.journal().next_offset(), Offset(3));
    let answer = site.post(&batch, &json!([event("4"), event("")]).to_string()).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let mut exhausted = event("6");
    exhausted["knativebrokerttl"] = json!(1);
    let answer = site.post(&batch, &json!([event("5"), exhausted]).to_string()).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text.contains("event 1 of the batch"), "{}", answer.text);
    assert_eq!(site.post(&batch, "[]").await.status, StatusCode::ACCEPTED);
    assert_eq!(site.journal().next_offset(), Offset(3));
    let large = json!([{"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": "x".repeat(70_000)}]);
    assert_eq!(site.post(&batch, &large.to_string()).await.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn d1_d3_d4_each_refusal_has_its_status_and_says_why() {
    let site = Site::start().await;
    let without = |name: &str| BINARY.iter().copied().filter(|(n, _)| *n != name).collect::<Vec<_>>();
    let answer = site.post(&without("ce-id"), "{}").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text.contains("\"id\""), "{}", answer.text);
    assert_eq!(site.post(&[], "hello").await.status, StatusCode::BAD_REQUEST);
    let xml = [("content-type", "application/cloudevents+xml")];
    assert_eq!(site.post(&xml, "<x/>").await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(site.post(&BINARY, &"x".repeat(70_000)).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    let coded = |coding| BINARY.iter().copied().chain([("content-encoding", coding)]).collect::<Vec<_>>();
    assert_eq!(site.post(&coded("gzip"), "{}").await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let ttl: Vec<_> = BINARY.iter().copied().chain([("ce-knativebrokerttl", "1")]).collect();
    assert_eq!(site.post(&ttl, "{}").await.status, StatusCode::BAD_REQUEST);
    let ask = async |method, path| site.ask(method, path, &BINARY, "{}").await;
    assert_eq!(ask(Method::POST, "/default/other").await.status, StatusCode::NOT_FOUND);
    assert_eq!(ask(Method::POST, "/default").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(ask(Method::POST, "/a/b/c").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(ask(Method::POST, "/channels/default/x").await.status, StatusCode::NOT_FOUND);
    assert_eq!(ask(Method::GET, "/favicon.ico").await.status, StatusCode::NOT_FOUND);
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let answer = ask(method, "/default/default").await;
        assert_eq!((answer.status, answer.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "POST, OPTIONS"));
    }
    assert_eq!(site.journal().next_offset(), Offset(0), "nothing of all this was stored");
}

#[tokio::test]
async fn d2_the_webhook_handshake_is_answered() {
    let site = Site::start().await;
    let headers = [("webhook-request-origin", "events.example"), ("webhook-request-rate", "120")];
    let answer = site.ask(Method::OPTIONS, "/default/default", &headers, "").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("allow"), "POST, OPTIONS");
    assert_eq!(answer.header("webhook-allowed-origin"), "*");
    assert_eq!(answer.header("webhook-allowed-rate"), "*");
}

#[tokio::test]
async fn d8_a_broker_counts_the_time_to_live_down() {
    let site = Site::start().await;
    let ttl: Vec<_> = BINARY.iter().copied().chain([("ce-knativebrokerttl", "9")]).collect();
    assert_eq!(site.post(&ttl, "{}").await.status, StatusCode::ACCEPTED);
    assert_eq!(site.tail("").await[0]["event"]["knativebrokerttl"], 8);
}

#[tokio::test]
async fn at_a_gateway_no_sender_says_from_which_agent_an_event_came() {
    let clock = Clock::manual(1_800_000_000_000);
    let site = Site::taking(Options::default(), clock, Ingress::naming_no_agent).await;
    let headers =
        [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t"), ("ce-godwitagent", "boat-9")];
    assert_eq!(site.post(&headers, "x").await.status, StatusCode::ACCEPTED);
    let json = r#"[{"specversion":"1.0","id":"2","source":"/s","type":"t","godwitagent":"boat-9","other":"stays"}]"#;
    let batch = [("content-type", "application/cloudevents-batch+json")];
    assert_eq!(site.post(&batch, json).await.status, StatusCode::ACCEPTED);
    let events = site.tail("from=earliest").await;
    assert_eq!(events.len(), 2);
    for event in &events {
        // The site of this test is an agent's, which names itself.
        assert_ne!(event["event"]["godwitagent"], "boat-9", "{event}");
    }
    assert_eq!(events[1]["event"]["other"], "stays");
}

#[tokio::test]
async fn a_clock_that_is_not_set_tells_no_arrival() {
    let site = Site::with(Options::default(), Clock::manual(0)).await;
    assert_eq!(site.post(&BINARY, "{}").await.status, StatusCode::ACCEPTED);
    assert_eq!(site.tail("").await[0]["event"].get("knativearrivaltime"), None);
}

#[tokio::test]
async fn d5_d6_requests_at_once_are_all_answered_and_all_stored() {
    let site = Site::start().await;
    let answers = futures_util::future::join_all((0..100).map(|_| site.post(&BINARY, "{}"))).await;
    assert!(answers.iter().all(|a| a.status == StatusCode::ACCEPTED));
    assert_eq!(site.journal().next_offset(), Offset(100));
}

#[tokio::test]
async fn pipelined_requests_share_a_sync_and_are_answered_in_order() {
    let site = Site::start().await;
    let one = |path: &str, id: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nce-specversion: 1.0\r\nce-id: {id}\r\nce-source: /s\r\nce-type: t\r\n\
             Content-Length: 200\r\n\r\n{}",
            "x".repeat(200)
        )
    };
    let mut all: String = (0..100).map(|id| one("/", id)).collect();
    all.push_str(&one("/nobody/there", 100));
    all.push_str("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut tcp = TcpStream::connect(site.addr).await.expect("connected");
    let mut commits = site.journal().watch();
    tcp.write_all(all.as_bytes()).await.expect("sent");
    let counted = tokio::spawn(async move {
        let mut n = 0;
        while commits.borrow_and_update().0 < 100 {
            commits.changed().await.expect("open");
            n += 1;
        }
        n
    });
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.expect("answered");
    let statuses: Vec<&str> = answer.split("HTTP/1.1 ").skip(1).filter_map(|a| a.get(..3)).collect();
    let expected: Vec<&str> = std::iter::repeat_n("202", 100).chain(["404", "200"]).collect();
    assert_eq!(statuses, expected);
    assert!(counted.await.expect("ended") < 20, "a hundred events in a few commits");
    let ids: Vec<Value> = site.tail("").await.into_iter().map(|line| line["event"]["id"].clone()).collect();
    assert_eq!(ids, (0..100).map(|n| json!(n.to_string())).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_closed_journal_says_come_again() {
    let site = Site::start().await;
    site.journal().close().await;
    let answer = site.post(&BINARY, "{}").await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
}

#[tokio::test]
async fn a_tail_chooses_by_attribute_offset_and_number() {
    let site = Site::start().await;
    for n in 0..6 {
        let ty = if n % 2 == 0 { "even" } else { "odd" };
        let event = json!({"specversion": "1.0", "id": n.to_string(), "source": "/s", "type": ty});
        let structured = [("content-type", "application/cloudevents+json")];
        assert_eq!(site.post(&structured, &event.to_string()).await.status, StatusCode::ACCEPTED);
    }
    let offsets =
        async |query: &str| site.tail(query).await.iter().map(|l| l["offset"].as_u64().expect("n")).collect::<Vec<_>>();
    assert_eq!(offsets("").await, [0, 1, 2, 3, 4, 5]);
    assert_eq!(offsets("type=odd").await, [1, 3, 5]);
    assert_eq!(offsets("from=3").await, [3, 4, 5]);
    assert_eq!(offsets("from=1&limit=2&type=odd").await, [1, 3]);
    assert_eq!(offsets("from=latest").await, [0; 0]);
    assert_eq!(offsets("limit=0").await, [0; 0]);
    let base = "/apis/godwit.dev/v1/namespaces/default/brokers";
    assert_eq!(site.get(&format!("{base}/default/events?from=x")).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(site.get(&format!("{base}/other/events")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_tail_that_follows_gets_events_as_they_come_and_ends_at_shutdown() {
    let site = Site::start().await;
    let path = "/apis/godwit.dev/v1/namespaces/default/brokers/default/events?follow=true";
    let request = Request::get(format!("http://{}{path}", site.addr)).body(Full::default()).expect("request");
    let mut tail = site.client.clone().send_request(request).await.expect("answered").into_body();
    for id in ["a", "b"] {
        let headers: Vec<_> = BINARY.iter().map(|(n, v)| (*n, if *n == "ce-id" { id } else { v })).collect();
        assert_eq!(site.post(&headers, "{}").await.status, StatusCode::ACCEPTED);
        let line = tail.frame().await.expect("open").expect("a frame").into_data().expect("data");
        let line: Value = serde_json::from_slice(&line).expect("one line");
        assert_eq!(line["event"]["id"], id);
    }
    site.shutdown.cancel();
    while let Some(frame) = tail.frame().await {
        assert!(frame.is_ok_and(|f| f.data_ref().is_none_or(Bytes::is_empty)));
    }
}

#[tokio::test]
async fn a_cursor_is_listed_and_moved_by_hand() {
    let site = Site::start().await;
    for _ in 0..5 {
        assert_eq!(site.post(&BINARY, "{}").await.status, StatusCode::ACCEPTED);
    }
    let name = "trigger/default/lamp/1";
    let consumer = site.journal().consumer(name, Start::Earliest, false);
    consumer.flushed().await.expect("durable");
    let base = "/apis/godwit.dev/v1/namespaces/default/brokers/default/cursors";
    let cursors: Value = serde_json::from_str(&site.get(base).await.text).expect("JSON");
    assert_eq!(cursors["cursors"][0]["name"], name);
    assert_eq!(cursors["cursors"][0]["pending"], 5);
    let moved = async |body: &str| site.ask(Method::POST, &format!("{base}/{name}"), &[], body.to_owned()).await;
    let answer = moved("{\"skip\": 2}").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let status: Value = serde_json::from_str(&answer.text).expect("JSON");
    assert_eq!((&status["cursor"], &status["dropped"]["skipped"], &status["pending"]), (&json!(2), &json!(2), &json!(3)));
    assert_eq!(consumer.cursor(), Offset(2));
    let status: Value = serde_json::from_str(&moved("{\"seek\": \"latest\"}").await.text).expect("JSON");
    assert_eq!((&status["cursor"], &status["pending"]), (&json!(5), &json!(0)));
    let status: Value = serde_json::from_str(&moved("{\"seek\": 1}").await.text).expect("JSON");
    assert_eq!((&status["cursor"], &status["since"]), (&json!(1), &json!(1)));
    assert_eq!(moved("{\"seek\": 99}").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(moved("{\"jump\": 1}").await.status, StatusCode::BAD_REQUEST);
    let answer = site.ask(Method::POST, &format!("{base}/uplink"), &[], "{\"skip\": 1}").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.text.contains(name), "{}", answer.text);
}

#[tokio::test]
async fn a_channel_has_a_tail_and_cursors_of_its_own() {
    let site = Site::start().await;
    let name = BrokerName::channel("default", "default").expect("a name");
    let channel = site.brokers.ensure(&name).await.expect("made");
    let answer = site.ask(Method::POST, "/channels/default/default", &BINARY, "{}").await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    assert_eq!(site.journal().next_offset(), Offset(0), "the Broker of this name has nothing");
    let base = "/apis/godwit.dev/v1/namespaces/default/channels/default";
    let tail = site.get(&format!("{base}/events")).await.text;
    assert_eq!(tail.lines().count(), 1, "{tail}");

    let consumer = channel.journal().consumer("subscription/default/lamp/1", Start::Earliest, false);
    consumer.flushed().await.expect("durable");
    let cursors: Value = serde_json::from_str(&site.get(&format!("{base}/cursors")).await.text).expect("JSON");
    assert_eq!((&cursors["cursors"][0]["name"], &cursors["cursors"][0]["pending"]), (&json!(consumer.name()), &json!(1)));
    let path = format!("{base}/cursors/{}", consumer.name());
    assert_eq!(site.ask(Method::POST, &path, &[], "{\"skip\": 1}").await.status, StatusCode::OK);
    assert_eq!(consumer.cursor(), Offset(1));

    let answer = site.get("/apis/godwit.dev/v1/namespaces/default/channels/none/events").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.text.contains("there is no channel default/none here"), "{}", answer.text);
    let answer = site.get("/apis/godwit.dev/v1/namespaces/default/queues/default/events").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn status_and_metrics_show_the_broker() {
    let site = Site::start().await;
    assert_eq!(site.post(&BINARY, "{}").await.status, StatusCode::ACCEPTED);
    let status: Value = serde_json::from_str(&site.get("/status").await.text).expect("JSON");
    assert_eq!(status["brokers"][0]["accepted"], 1);
    assert_eq!(site.get("/readyz").await.status, StatusCode::OK);
    let answer = site.ask(Method::GET, "/metrics", &[("accept", "application/openmetrics-text")], "").await;
    assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
    let line = "godwit_broker_events_accepted_total{namespace=\"default\",broker=\"default\"} 1\n";
    assert!(answer.text.contains(line), "{}", answer.text);
    assert!(answer.text.contains("godwit_http_ingress_seconds_count 1\n"), "{}", answer.text);
}

#[test]
fn a_path_names_a_broker_or_nothing() {
    assert_eq!(Target::of("/"), Target::Default);
    assert_eq!(Target::of("/default/alarms"), Target::Broker("default", "alarms"));
    for path in ["/default", "/default/", "//alarms", "/a/b/c", "/a/b/"] {
        assert_eq!(Target::of(path), Target::Malformed, "{path}");
    }
    assert_eq!(Target::of("/channels/site/x"), Target::Channel("site", "x"));
    assert_eq!(Target::of("/sequences/site/x"), Target::Flow(Kind::Sequence, "site", "x"));
    assert_eq!(Target::of("/parallels/site/x"), Target::Flow(Kind::Parallel, "site", "x"));
    for path in ["/apis/x", "/status", "/channels/x", "/channels//x", "/channels/a/b/c", "/mqtt", "/mqtt/a/b"] {
        assert_eq!(Target::of(path), Target::Reserved, "{path}");
    }
}

#[test]
fn only_the_named_headers_pass_through() {
    let mut headers = HeaderMap::new();
    for name in ["x-request-id", "knative-x", "x-b3-traceid", "retry-after", "authorization", "x-b4", "cookie"] {
        headers.insert(HeaderName::from_static(name), ANY);
    }
    let mut passed: Vec<&str> = passed_through(&headers).map(|(name, _)| name).collect();
    passed.sort_unstable();
    assert_eq!(passed, ["knative-x", "retry-after", "x-b3-traceid", "x-request-id"]);
}

fn deduplicating(site: &Site, window_ms: u64) {
    let broker = site.brokers.get(&BrokerName::default()).expect("always there");
    broker.set(crate::broker::BrokerSettings { deduplication_ms: Some(window_ms), ..Default::default() });
}

const FIRST: [(&str, &str); 4] = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
const OTHER_SOURCE: [(&str, &str); 4] = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/o"), ("ce-type", "t")];

#[tokio::test]
async fn d7_a_duplicate_is_accepted_and_where_it_is_switched_on_not_stored_again_by_source_and_id() {
    let clock = Clock::manual(1_800_000_000_000);
    let site = Site::with(Options::default(), clock.clone()).await;
    for _ in 0..2 {
        assert_eq!(site.post(&FIRST, "x").await.status, StatusCode::ACCEPTED);
    }
    assert_eq!(site.journal().next_offset(), Offset(2), "off: every event is stored");

    deduplicating(&site, 60_000);
    for _ in 0..3 {
        assert_eq!(site.post(&FIRST, "x").await.status, StatusCode::ACCEPTED);
    }
    assert_eq!(site.journal().next_offset(), Offset(2), "known from the journal's tail");
    assert_eq!(site.post(&OTHER_SOURCE, "x").await.status, StatusCode::ACCEPTED);
    assert_eq!(site.journal().next_offset(), Offset(3), "never by id alone");
    clock.advance(60_001);
    assert_eq!(site.post(&FIRST, "x").await.status, StatusCode::ACCEPTED);
    assert_eq!(site.journal().next_offset(), Offset(4), "the window is over");
    let status = site.ask(Method::GET, "/status", &[], "").await;
    let status: Value = serde_json::from_str(&status.text).expect("JSON");
    assert_eq!(status["brokers"][0]["deduplicated"], 3);
}

#[tokio::test]
async fn d7_duplicates_in_a_batch_and_many_at_once_are_stored_once() {
    let site = Site::start().await;
    deduplicating(&site, 60_000);
    let one = |id: &str| json!({"specversion": "1.0", "id": id, "source": "/s", "type": "t"});
    let batch = Value::Array(vec![one("1"), one("2"), one("1")]).to_string();
    let kind = [("content-type", "application/cloudevents-batch+json")];
    assert_eq!(site.post(&kind, &batch).await.status, StatusCode::ACCEPTED);
    assert_eq!(site.journal().next_offset(), Offset(2));
    let headers = [("ce-specversion", "1.0"), ("ce-id", "9"), ("ce-source", "/s"), ("ce-type", "t")];
    let posts = futures_util::future::join_all((0..20).map(|_| site.post(&headers, "x"))).await;
    assert!(posts.iter().all(|answer| answer.status == StatusCode::ACCEPTED));
    assert_eq!(site.journal().next_offset(), Offset(3));
}

#[tokio::test]
async fn d3_nothing_can_be_posted_to_a_channel_whose_object_is_gone() {
    let site = Site::start().await;
    let name = BrokerName::channel("site", "c").expect("a name");
    let channel = site.brokers.ensure(&name).await.expect("made");
    let post = |path: &'static str| site.ask(Method::POST, path, &BINARY, "{}");
    assert_eq!(post("/channels/site/c").await.status, StatusCode::ACCEPTED);
    channel.set(crate::broker::BrokerSettings { uplink: false, closed: true, ..Default::default() });
    let answer = post("/channels/site/c").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text);
    let answer = post("/sequences/site/none").await;
    assert!(answer.text.contains("there is no Sequence site/none here"), "{}", answer.text);
}
