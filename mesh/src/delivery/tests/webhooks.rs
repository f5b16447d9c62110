//! CloudEvents Web Hooks: consent, rates, 410; and how a subscriber knows us and we it: tokens, certificates.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::sink::{Say, Sink};
use super::world::{World, event, eventually, trigger};
use crate::delivery::{LocalListener, LocalMessage};
use crate::door::ServerTls;

/// A Trigger with annotations.
fn annotated(name: &str, uri: &str, annotations: &[(&str, &str)], rest: &str) -> String {
    let lines: String = annotations.iter().map(|(key, value)| format!("    godwit.dev/{key}: \"{value}\"\n")).collect();
    trigger(name, uri, rest).replace("metadata:\n", &format!("metadata:\n  annotations:\n{lines}"))
}

const HANDSHAKE: &[(&str, &str)] = &[("webhook-handshake", "true"), ("webhook-rate", "600")];

fn consent() -> Say {
    Say::status(200).header("webhook-allowed-origin", "*")
}

fn posts(sink: &Sink) -> usize {
    sink.got().iter().filter(|got| got.method == Method::POST).count()
}

#[tokio::test]
async fn a_subscriber_is_asked_once_and_every_delivery_says_who_we_are() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[consent(), Say::status(202)]).await);
    let world = World::open(dir.path()).await;
    world.apply(&annotated("t", &sink.url, HANDSHAKE, "")).await.expect("applied");
    world.publish(&event("1", "a")).await;
    world.publish(&event("2", "a")).await;
    assert_eq!(world.settled("t", 2).await.done.delivered, 2);
    let got = sink.got();
    let methods: Vec<_> = got.iter().map(|got| got.method.clone()).collect();
    assert_eq!(methods, [Method::OPTIONS, Method::POST, Method::POST]);
    assert!(got.iter().all(|got| got.header("webhook-request-origin") == "127.0.0.1"), "{got:?}");
    assert_eq!(got.first().map(|got| got.header("webhook-request-rate").to_owned()).as_deref(), Some("600"));
    world.close().await;
}

#[tokio::test]
async fn the_rate_that_was_allowed_is_kept() {
    let allowed = consent().header("webhook-allowed-rate", "600");
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[allowed, Say::status(202)]).await);
    let world = World::open(dir.path()).await;
    world.apply(&annotated("t", &sink.url, HANDSHAKE, "")).await.expect("applied");
    let begin = std::time::Instant::now();
    for id in ["1", "2", "3", "4"] {
        world.publish(&event(id, "a")).await;
    }
    assert_eq!(world.settled("t", 4).await.done.delivered, 4);
    assert!(begin.elapsed() >= Duration::from_millis(190), "600 a minute are one in 100 ms: {:?}", begin.elapsed());
    world.close().await;
}

#[tokio::test]
async fn without_consent_nothing_is_sent_and_the_reason_is_shown() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(200)]).await);
    let world = World::open(dir.path()).await;
    world.apply(&annotated("t", &sink.url, HANDSHAKE, "")).await.expect("applied");
    world.publish(&event("1", "a")).await;
    eventually("the refusal is shown", || {
        let status = world.status("t");
        let message = status["last_error"]["message"].as_str().unwrap_or_default().to_owned();
        if message.contains("WebHook-Allowed-Origin") { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    assert_eq!(posts(&sink), 0);
    sink.say(&[consent(), Say::status(202)]);
    assert_eq!(world.settled("t", 1).await.done.delivered, 1, "it is asked again");
    world.close().await;
}

#[tokio::test]
async fn a_subscriber_that_is_gone_gets_nothing_more_until_the_trigger_is_changed_and_no_event_is_lost() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[consent(), Say::status(410)]).await);
    let manifest = annotated("t", &sink.url, HANDSHAKE, "");
    let gone = |status: &Value| status["ready"] == false && status["reason"] == "SubscriberGone";
    let world = World::open(dir.path()).await;
    world.apply(&manifest).await.expect("applied");
    world.publish(&event("1", "a")).await;
    let shown = |world: &World| if gone(&world.status("t")) { Ok(()) } else { Err(world.status("t").to_string()) };
    eventually("it is retired", || shown(&world)).await;
    world.publish(&event("2", "a")).await;
    world.close().await;

    let world = World::open(dir.path()).await;
    world.apply(&manifest).await.expect("applied");
    eventually("it stays so over a restart", || shown(&world)).await;
    assert_eq!(sink.got().len(), 2, "one question, one event: {:?}", sink.got());
    assert_eq!(world.ledger("t").map(|ledger| ledger.pending), Some(2));
    sink.say(&[consent(), Say::status(202)]);
    let changed = annotated("t", &sink.url, &[("webhook-handshake", "true")], "");
    world.apply(&changed).await.expect("applied");
    assert_eq!(world.settled("t", 2).await.done.delivered, 2);
    world.close().await;
}

#[tokio::test]
async fn a_token_goes_along_from_a_file_and_a_password_in_the_url_goes_before() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
    let path = dir.path().join("token");
    std::fs::write(&path, "secret-7\n").expect("written");
    let tokens = BTreeMap::from([("127.0.0.1".to_owned(), path)]);
    let data = tempfile::tempdir().expect("folder");
    let world = World::open_with(data.path(), tokens, LocalListener::none()).await;
    let own = sink.url.replace("http://", "http://user:word@");
    let set = [trigger("t", &sink.url, ""), trigger("u", &own, "")].concat();
    world.apply(&set).await.expect("applied");
    world.publish(&event("1", "a")).await;
    world.settled("t", 1).await;
    world.settled("u", 1).await;
    let mut shown: Vec<String> = sink.got().iter().map(|got| got.header("authorization").to_owned()).collect();
    shown.sort();
    assert_eq!(shown, ["Basic dXNlcjp3b3Jk", "Bearer secret-7"]);
    assert!(!world.triggers.status().to_string().contains("secret-7"));
    world.close().await;
}

/// A sink with a certificate that signs itself: its URL, and the certificate.
async fn secure_sink(dir: &std::path::Path) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("certificate");
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let tls = ServerTls::load(&cert, &key, &[b"http/1.1"]).expect("a pair");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("https://localhost:{}/in", listener.local_addr().expect("bound").port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(stream).await else { return };
                let answer = service_fn(|_| async {
                    let mut response = http::Response::new(http_body_util::Empty::<bytes::Bytes>::new());
                    *response.status_mut() = http::StatusCode::ACCEPTED;
                    Ok::<_, std::convert::Infallible>(response)
                });
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    (url, made.cert.pem())
}

#[tokio::test]
async fn cacerts_of_a_destination_are_trusted_for_it_and_what_is_no_certificate_is_refused() {
    let dir = tempfile::tempdir().expect("folder");
    let (url, pem) = secure_sink(dir.path()).await;
    let data = tempfile::tempdir().expect("folder");
    let world = World::open(data.path()).await;
    let certs =
        |pem: &str| format!("    CACerts: |\n{}", pem.lines().map(|line| format!("      {line}\n")).collect::<String>());
    let strict = "  delivery:\n    retry: 0";
    let wrong = crate::manifest::parse_str("t.yaml", &trigger("wrong", &url, &certs("no certificate")));
    let wrong = wrong.expect_err("no certificate");
    assert_eq!(wrong.field.as_deref(), Some("spec.subscriber.CACerts"), "{wrong}");
    world
        .apply(&[trigger("trusts", &url, &certs(&pem)), trigger("does-not", &url, strict)].concat())
        .await
        .expect("applied");
    world.publish(&event("1", "a")).await;
    assert_eq!(world.settled("trusts", 1).await.done.delivered, 1);
    assert_eq!(world.settled("does-not", 1).await.done.dead_lettered, 1);
    world.close().await;
}

#[tokio::test]
async fn a_trigger_publishes_on_the_own_listener_and_without_one_it_is_not_ready() {
    let dir = tempfile::tempdir().expect("folder");
    let world = World::open(dir.path()).await;
    world.apply(&trigger("t", "mqtt:///out/{type}?qos=1", "")).await.expect("applied");
    assert_eq!(world.status("t")["reason"], "SubscriberNotResolved");
    assert!(world.status("t")["message"].as_str().is_some_and(|why| why.contains("MQTT listener")));
    world.publish(&event("1", "a")).await;
    world.close().await;

    let listener = LocalListener::coming();
    let world = World::open_with(dir.path(), BTreeMap::new(), listener.clone()).await;
    world.apply(&trigger("t", "mqtt:///out/{type}?qos=1", "  delivery:\n    retry: 0")).await.expect("applied");
    assert_eq!(world.status("t")["subscriberUri"], "mqtt:///out/{type}?qos=1");
    let seen: Arc<Mutex<Vec<LocalMessage>>> = Arc::default();
    let kept = Arc::clone(&seen);
    listener.set(Arc::new(move |message| {
        kept.lock().expect("not poisoned").push(message);
        Ok(())
    }));
    assert_eq!(world.settled("t", 1).await.done.delivered, 1);
    let message = seen.lock().expect("not poisoned").pop().expect("one");
    assert_eq!((message.topic.as_str(), message.qos, &*message.payload), ("out/a", 1, &br#"{"n":1.10}"#[..]));
    assert!(message.user_properties.contains(&("id".to_owned(), "1".to_owned())));
    world.close().await;
}
