//! Objects come down, are kept, and are reported on.

use std::path::Path;

use godwit_mesh::manifest::{Manifests, parse_str};

use crate::pair::{Agent, Gateway, eventually};

const TRIGGER: &str = r#"
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: { name: local, annotations: { godwit.dev/agents: "" } }
spec: { broker: default, subscriber: { uri: "http://127.0.0.1:9/" } }
"#;

fn set(yaml: &str) -> Manifests {
    Manifests::new(parse_str("test", yaml).expect("valid")).expect("a set")
}

async fn start(dir: &Path, gateway: &Gateway) -> Agent {
    Agent::start(&dir.join("agent"), gateway.addr).await
}

#[tokio::test]
async fn objects_come_down_are_kept_and_reported() {
    let dir = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::start(&dir.path().join("gateway")).await;
    let agent = start(dir.path(), &gateway).await;
    gateway.objects.send_replace(Some(set(TRIGGER)));
    eventually("the report", async || {
        let agent = gateway.agent();
        (
            agent["objects"]["ready"] == true
                && agent["brokers"].is_array()
                && agent["objects"]["revision"] != "0000000000000000",
            agent,
        )
    })
    .await;
    let applied = eventually("the set", async || {
        let applied = agent.applied.lock().expect("not poisoned").clone();
        (applied.last().is_some_and(|set| set.contains("local")), applied)
    })
    .await;
    agent.stop().await;
    let addr = gateway.addr;
    gateway.stop().await;
    // At the next start, with no gateway in sight, they are there.
    let agent = Agent::start(&dir.path().join("agent"), addr).await;
    assert_eq!(agent.applied.lock().expect("not poisoned").first(), applied.last());
}
