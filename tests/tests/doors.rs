//! Promise: who may not come in stays out, who may comes in, and TLS holds from the device to the gateway.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use godwit_tests::http;
use godwit_tests::keys::{self, Keys};
use godwit_tests::lab;
use godwit_tests::load::{Load, Plan};
use godwit_tests::need;
use godwit_tests::node::{DEFAULT_BROKER, Node};
use godwit_tests::wait::{self, Seen};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn a_listener_beyond_loopback_does_not_start_unprotected_and_says_how_to_mend_it() -> Result<()> {
    lab::run(|lab| {
        let mut agent = Node::agent(lab, "agent-1")?;
        agent.listen(Ipv4Addr::UNSPECIFIED.into());
        let said = agent.start_refused()?;
        assert!(said.contains("insecure") && said.contains("tls"), "{said}");
        agent.set("http.insecure", "true");
        agent.set("mqtt.insecure", "true");
        agent.start()?;
        agent.stop()
    })
}

#[test]
fn passwords_and_tokens_open_mqtt_and_http() -> Result<()> {
    lab::run(|lab| {
        let file = lab.path().join("credentials");
        keys::password(&file, "device", "right")?;
        let token = keys::token(&file, "program")?;
        let mut agent = Node::agent(lab, "agent-1")?;
        agent.set("auth.credentials", &file.display().to_string());
        agent.start()?;
        let mut plan = Plan::new(agent.mqtt());
        (plan.clients, plan.count) = (2, 20);
        let as_user = |plan: &Plan, password: &str| {
            let user = Some(("device".to_owned(), password.to_owned()));
            Load::start(Plan { user, ..plan.clone() }).wait_count(LIMIT)
        };
        assert!(Load::start(plan.clone()).wait_count(LIMIT).is_err(), "nobody");
        assert!(as_user(&plan, "wrong").is_err());
        assert!(as_user(&plan, "right")?.iter().all(|record| record.acknowledged.len() == 20));
        let post = |authorization: Option<&str>| -> Result<u16> {
            let mut headers = vec![("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
            headers.extend(authorization.map(|value| ("authorization", value)));
            Ok(http::request(agent.http(), "POST", "/", &headers, b"")?.status)
        };
        assert_eq!(post(None)?, 401);
        assert_eq!(post(Some("Bearer wrong"))?, 401);
        assert_eq!(post(Some(&format!("Bearer {token}")))?, 202);
        // device:right
        assert_eq!(post(Some("Basic ZGV2aWNlOnJpZ2h0"))?, 202);
        assert_eq!(post(Some("Basic ZGV2aWNlOndyb25n"))?, 401);
        Ok(())
    })
}

#[test]
fn a_page_in_a_browser_cannot_post() -> Result<()> {
    lab::run(|lab| {
        let mut agent = Node::agent(lab, "agent-1")?;
        agent.start()?;
        let post = |name: &str, value: &str| -> Result<u16> {
            let event = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t"), (name, value)];
            Ok(http::request(agent.http(), "POST", "/", &event, b"")?.status)
        };
        assert_eq!(post("origin", "https://evil.example")?, 403);
        assert_eq!(post("host", "evil.example")?, 403);
        assert_eq!(post("host", "localhost:1")?, 202);
        assert_eq!(agent.accepted(DEFAULT_BROKER)?, 1);
        Ok(())
    })
}

#[test]
fn tls_from_the_device_to_the_gateway() -> Result<()> {
    need!("tls_from_the_device_to_the_gateway", "openssl", "mosquitto_pub", "curl");
    lab::run(|lab| {
        let keys = Keys::make(lab, Ipv4Addr::LOCALHOST.into())?;
        let path = |path: &std::path::Path| path.display().to_string();
        let (devices, agents) = (lab.path().join("devices"), lab.path().join("agents"));
        keys::password(&devices, "device", "right")?;
        let token = keys::token(&agents, "agent-1")?;
        let stranger = keys::token(&agents, "agent-2")?;
        let mut gateway = Node::gateway(lab)?;
        gateway.set("http.tls-cert", &path(&keys.certificate));
        gateway.set("http.tls-key", &path(&keys.key));
        gateway.set("auth.credentials", &path(&agents));
        let mut agent = Node::agent(lab, "agent-1")?;
        for section in ["http", "mqtt"] {
            agent.set(&format!("{section}.tls-cert"), &path(&keys.certificate));
            agent.set(&format!("{section}.tls-key"), &path(&keys.key));
        }
        agent.set("auth.credentials", &path(&devices));
        agent.set("gateway.url", &format!("https://{}", gateway.http()));
        agent.set("gateway.ca-file", &path(&keys.authority));
        agent.set("gateway.token-file", &path(&lab.write("token", &stranger)?));
        gateway.start()?;
        agent.start()?;
        let mut publish = Command::new("mosquitto_pub");
        publish.args(["-h", "localhost", "-p", &agent.mqtt().port().to_string(), "-u", "device", "-P", "right", "-q", "1"]);
        publish.args(["-t", "a/b", "-m", "secret"]);
        let plain = publish.output()?;
        assert!(!plain.status.success(), "plain text is not taken");
        godwit_tests::disk::run(publish.arg("--cafile").arg(&keys.authority))?;
        let status = |node: &Node, who: &str| -> Result<serde_json::Value> {
            let url = format!("https://localhost:{}/status", node.http().port());
            let mut curl = Command::new("curl");
            curl.args(["-s", &url, "--cacert"]).arg(&keys.authority).args(["-H", who]);
            Ok(serde_json::from_str(&godwit_tests::disk::run(&mut curl)?)?)
        };
        let bearer = format!("authorization: Bearer {token}");
        // Another agent's token does not open this agent's door.
        std::thread::sleep(Duration::from_secs(2));
        let found = status(&gateway, &bearer)?;
        assert!(!found["brokers"].to_string().contains("\"accepted\":1"), "{found}");
        agent.stop()?;
        agent.set("gateway.token-file", &path(&lab.write("token", &token)?));
        agent.start()?;
        wait::until("the event is at the gateway", LIMIT, || match status(&gateway, &bearer) {
            Ok(found) if found["brokers"].to_string().contains("\"accepted\":1") => Seen::Yes(()),
            other => Seen::NotYet(format!("{other:?}")),
        })?;
        agent.stop()?;
        gateway.stop()
    })
}
