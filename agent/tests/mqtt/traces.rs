//! Spans of publishes, as a collector gets them.

use godwit_mesh::clock::Clock;
use godwit_mesh::door::ClientTls;
use godwit_mesh::journal::{Done, Options, Policy, Refused, Start};
use godwit_mesh::observe::Spans;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::site::{Plan, Site, packet, puback, publish_v4, publish_v5, pubrec, text};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A collector, and the spans that go to it.
struct Collector {
    spans: Spans,
    stop: CancellationToken,
    export: JoinHandle<()>,
    bodies: mpsc::UnboundedReceiver<Value>,
}

impl Collector {
    async fn new() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", socket.local_addr().expect("an address"));
        let (url, stop) = (Url::parse(&url).expect("a URL"), CancellationToken::new());
        let (tls, clock) = (ClientTls::new(None), Clock::manual(1_800_000_000_000));
        let (spans, export) = Spans::to(&url, "test", "test", tls, clock, stop.clone());
        let (taken, bodies) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                tokio::spawn(collect(stream, taken.clone()));
            }
        });
        Self { spans, stop, export: tokio::spawn(export), bodies }
    }

    /// Everything that has ended.
    async fn spans(mut self) -> Vec<Value> {
        self.stop.cancel();
        self.export.await.expect("the export ends");
        let mut spans = Vec::new();
        while let Ok(body) = self.bodies.try_recv() {
            spans.extend(body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().cloned().unwrap_or_default());
        }
        spans
    }
}

/// Takes what comes on a connection.
async fn collect(mut stream: TcpStream, taken: mpsc::UnboundedSender<Value>) {
    let mut came = Vec::new();
    while stream.read_buf(&mut came).await.is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&came);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        if body.len() == length.parse::<usize>().expect("a number") {
            taken.send(serde_json::from_str(body).expect("JSON")).expect("it is waited for");
            came.clear();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("the socket takes it");
        }
    }
}

fn plan(collector: &Collector) -> Plan {
    Plan { deduplication_ms: Some(60_000), spans: collector.spans.clone(), ..Plan::default() }
}

/// The properties of an event in binary mode.
fn binary(id: &str, trace_parent: &str) -> Vec<u8> {
    let property = |name: &str, value: &str| [&[0x26][..], &text(name), &text(value)].concat();
    let all = [("specversion", "1.0"), ("id", id), ("source", "/s"), ("type", "t"), ("traceparent", trace_parent)];
    all.iter().flat_map(|(name, value)| property(name, value)).collect()
}

fn attribute(span: &Value, key: &str) -> Option<String> {
    let found = span["attributes"].as_array()?.iter().find(|attribute| attribute["key"] == key)?;
    Some(found["value"]["stringValue"].as_str()?.to_owned())
}

#[tokio::test]
async fn a_publish_has_a_span_that_continues_the_trace_it_brings_and_is_stored_as_it_came() {
    let collector = Collector::new().await;
    let site = Site::planned(plan(&collector)).await;
    let (sampled, quiet) = (format!("00-{TRACE}-{PARENT}-01"), format!("00-{TRACE}-{PARENT}-00"));
    let (mut new, _) = site.v5("new", true, &[]).await;
    new.send(&publish_v5("a/b", 1, 1, &binary("1", &sampled), b"x")).await;
    new.expect(&puback(1)).await;
    new.send(&publish_v5("a/b", 2, 2, &binary("2", &quiet), b"x")).await;
    new.expect(&pubrec(2)).await;
    new.send(&publish_v5("$a", 0, 0, &[], b"goes into no Broker")).await;
    new.expect_nothing().await;
    let mut old = site.v4("old").await;
    let event = format!(r#"{{"specversion":"1.0","id":"3","source":"/s","type":"t","traceparent":"{sampled}"}}"#);
    old.send(&[publish_v4("c", 1, 3, event.as_bytes()), publish_v4("c", 1, 4, b"no event")].concat()).await;
    old.expect(&puback(3)).await;
    old.expect(&puback(4)).await;
    let carried: Vec<_> = site.events().await.iter().map(|event| event.to_event().expect("an event")).collect();
    let carried: Vec<_> =
        carried.iter().map(|event| event.get("traceparent").map(|value| value.to_text().into_owned())).collect();
    assert_eq!(carried, [Some(sampled.clone()), Some(quiet), Some(sampled), None]);
    site.stop().await;

    let spans = collector.spans().await;
    assert_eq!(spans.len(), 3, "{spans:?}");
    for span in &spans {
        assert_eq!((&span["name"], &span["kind"]), (&"broker:default.default".into(), &2.into()), "{span}");
        assert_eq!(span["status"], Value::Null, "{span}");
    }
    for (span, id, client) in [(&spans[0], "1", "new"), (&spans[1], "3", "old")] {
        assert_eq!((&span["traceId"], &span["parentSpanId"]), (&TRACE.into(), &PARENT.into()), "{span}");
        assert_eq!(attribute(span, "cloudevents.event_id").as_deref(), Some(id));
        assert_eq!(attribute(span, "cloudevents.event_type").as_deref(), Some("t"));
        assert_eq!(attribute(span, "messaging.client.id").as_deref(), Some(client));
    }
    assert!(spans[2]["traceId"] != TRACE && spans[2]["parentSpanId"].is_null(), "a trace of its own: {}", spans[2]);
    assert_eq!(attribute(&spans[2], "cloudevents.event_id"), None, "it is not known yet");
    assert_eq!(attribute(&spans[2], "messaging.destination.name").as_deref(), Some("c"));
}

#[tokio::test]
async fn the_span_of_a_publish_that_is_not_stored_says_why() {
    let collector = Collector::new().await;
    let options = Options { segment_bytes: 16 << 10, ..Options::default() };
    let site = Site::planned(Plan { options, ..plan(&collector) }).await;
    let (mut client, _) = site.v5("dev", true, &[]).await;
    client.send(&publish_v5("t", 1, 1, &[], &[b'x'; 12_000])).await;
    let refused = client.packet().await;
    assert_eq!((&refused[..4], refused[4] >= 0x80), (&packet(0x40, &[0, 1, 0, 0])[..4], true), "{refused:?}");
    site.stop().await;
    let spans = collector.spans().await;
    assert_eq!(spans.len(), 1, "{spans:?}");
    assert_eq!(spans[0]["status"]["code"], 2, "{spans:?}");
}

#[tokio::test]
async fn a_publish_that_is_tried_again_has_one_span_until_it_is_stored_or_its_client_has_gone() {
    let collector = Collector::new().await;
    let options = Options { segment_bytes: 16 << 10, max_bytes: 64 << 10, policy: Policy::Reject, ..Options::default() };
    let site = Site::planned(Plan { options, ..plan(&collector) }).await;
    let consumer = site.journal.consumer("slow", Start::Earliest, true);
    consumer.flushed().await.expect("durable");
    let full = loop {
        let stored = match site.journal.append(|append| append.event(|out| out.extend([0; 2000]))) {
            Ok(receipt) => receipt.await.map(|_| ()),
            Err(refused) => Err(refused),
        };
        if let Err(refused) = stored {
            break refused;
        }
    };
    assert_eq!(full, Refused::Full);

    let (mut goes, mut stays) = (site.v4("goes").await, site.v4("stays").await);
    for client in [&mut goes, &mut stays] {
        client.send(&publish_v4("t", 1, 7, &[b'x'; 3000])).await;
        client.expect_nothing().await;
    }
    goes.send(&[0xe0, 0]).await;
    goes.expect_end().await;
    site.until("it has left", || site.handle.open_connections() == 1).await;
    let to = site.journal.next_offset();
    consumer.advance(to, &Done { delivered: to.0, ..Done::default() });
    consumer.flushed().await.expect("durable");
    stays.expect(&puback(7)).await;
    site.stop().await;

    let spans = collector.spans().await;
    let said = |span: &Value| (attribute(span, "messaging.client.id").unwrap_or_default(), span["status"]["code"].clone());
    let said: Vec<_> = spans.iter().map(said).collect();
    assert_eq!(said, [("goes".to_owned(), 2.into()), ("stays".to_owned(), Value::Null)], "{spans:?}");
}
