//! The gateway's start, in this process.

use std::path::Path;

use godwit_gateway::Gateway;
use godwit_gateway::config::Config;
use godwit_mesh::config::Loader;
use godwit_mesh::process::Daemon;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const GOOD: &str = "apiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata: {name: x}\n\
    spec: {broker: default, subscriber: {uri: 'http://127.0.0.1:9/'}}\n";

async fn start(dir: &Path) -> Gateway {
    let set = |key: &str| dir.join(key).display().to_string();
    let loader = Loader::new()
        .flag("gateway.data-dir", "", Some(set("data")))
        .flag("gateway.manifests", "", Some(set("manifests")))
        .flag("http.listen", "", Some("127.0.0.1:0"));
    let (config, _) = loader.finish::<Config>().expect("a configuration");
    Gateway::start(config).await.expect("starts")
}

async fn ask(gateway: &Gateway, request: &str) -> String {
    let mut tcp = TcpStream::connect(gateway.address()).await.expect("connected");
    tcp.write_all(format!("{request}\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).await.expect("sent");
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.expect("answered");
    answer
}

async fn triggers(gateway: &Gateway) -> usize {
    let answer = ask(gateway, "GET /status HTTP/1.1").await;
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let status: serde_json::Value = serde_json::from_str(body).expect("JSON");
    status["triggers"].as_array().expect("an array").len()
}

#[tokio::test]
async fn a_wrong_folder_of_manifests_does_not_keep_it_from_starting() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("manifests/x.yaml");
    // None was ever good, not even a folder is there.
    let mut gateway = start(dir.path()).await;
    assert_eq!(triggers(&gateway).await, 0);
    let ready = ask(&gateway, "GET /readyz HTTP/1.1").await;
    assert!(ready.contains("200 OK") && ready.contains("degraded: manifests: "), "{ready}");
    std::fs::create_dir(dir.path().join("manifests")).expect("made");
    std::fs::write(&file, GOOD).expect("written");
    gateway.reload().await;
    assert_eq!(triggers(&gateway).await, 1);
    assert!(ask(&gateway, "GET /readyz HTTP/1.1").await.ends_with("\r\n\r\nready\n"));
    gateway.stop().await;
    // It was good, and is broken while the gateway is down.
    std::fs::write(&file, GOOD.replace("broker", "brokre")).expect("written");
    let gateway = start(dir.path()).await;
    assert_eq!(triggers(&gateway).await, 1);
    let ready = ask(&gateway, "GET /readyz HTTP/1.1").await;
    assert!(ready.contains("200 OK") && ready.contains("degraded: manifests: "), "{ready}");
    let status = ask(&gateway, "GET /status HTTP/1.1").await;
    assert!(status.contains("brokre") && status.contains("\"running\":\"kept\""), "{status}");
    gateway.stop().await;
}

#[tokio::test]
async fn what_a_proxy_on_this_machine_passes_on_changes_nothing_and_is_no_agent() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("manifests")).expect("made");
    let gateway = start(dir.path()).await;
    let event = "Content-Length: 0\r\nce-specversion: 1.0\r\nce-id: 1\r\nce-source: /s\r\nce-type: t";
    let post = format!("POST / HTTP/1.1\r\n{event}");
    assert!(ask(&gateway, &post).await.contains("202 Accepted"));
    let down = "GET /sync/v1/agents/a/down?revision=1 HTTP/1.1";
    assert!(ask(&gateway, down).await.contains("204 No Content"));
    for header in ["Forwarded: for=192.0.2.1", "X-Forwarded-For: 192.0.2.1", "Via: 1.1 proxy", "x-real-ip: 192.0.2.1"] {
        let create = "POST /apis/eventing.knative.dev/v1/namespaces/default/triggers HTTP/1.1";
        let delete = "DELETE /apis/eventing.knative.dev/v1/namespaces/default/triggers/x HTTP/1.1";
        for request in [&*post, down, "POST /sync/v1/agents/a/up HTTP/1.1", create, delete] {
            let answer = ask(&gateway, &format!("{request}\r\n{header}")).await;
            assert!(answer.contains("403 Forbidden") && answer.contains("auth.credentials"), "{request}: {answer}");
        }
    }
    // Nor does a page from elsewhere change an object.
    let patch = "PATCH /apis/eventing.knative.dev/v1/namespaces/default/triggers/x HTTP/1.1\r\nOrigin: http://example.com";
    assert!(ask(&gateway, patch).await.contains("403 Forbidden"));
    assert!(ask(&gateway, "GET /healthz HTTP/1.1\r\nVia: 1.1 proxy").await.contains("200 OK"));
    gateway.stop().await;
}
