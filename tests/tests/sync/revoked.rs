//! A token that is revoked while its agent is connected.

use godwit_mesh::door::{Credentials, CredentialsFile};
use godwit_mesh::http::Door;

use crate::pair::{Agent, Gateway, agent_id, arrives, eventually, settings, texts};

#[tokio::test]
async fn an_agent_whose_token_is_revoked_is_cut_off_and_one_with_a_new_token_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let (path, token_file) = (dir.path().join("credentials"), dir.path().join("token"));
    let new_token = || {
        let _ = std::fs::remove_file(&path);
        let mut file = CredentialsFile::open(&path).expect("a new file");
        let token = file.add_token(agent_id().as_str()).expect("made");
        file.save().expect("written");
        token
    };
    std::fs::write(&token_file, new_token()).expect("written");
    let credentials = Credentials::load(&path).expect("valid");
    let door = Door { credentials: Some(credentials.clone()), ..Door::default() };
    let gateway = Gateway::behind(&dir.path().join("gateway"), door).await;
    let settings = godwit_agent::uplink::UplinkSettings { token_file: Some(token_file.clone()), ..settings(gateway.addr) };
    let agent = Agent::with(&dir.path().join("agent"), settings).await;
    agent.publish(0..10).await;
    arrives(&gateway, &texts(0..10)).await;
    // Read again, and nothing has changed for this agent.
    credentials.reload().expect("valid");
    agent.publish(10..20).await;
    arrives(&gateway, &texts(0..20)).await;
    assert_eq!(agent.uplink.status()["connections"], 1);

    let next = new_token();
    credentials.reload().expect("valid");
    let shown = eventually("the agent is cut off", async || {
        let shown = agent.uplink.status();
        (shown["state"] == "down" && shown["error"].as_str().is_some_and(|error| error.contains("401")), shown)
    })
    .await;
    assert_eq!(shown["connections"], 1);
    assert!(gateway.agent()["last_error"].as_str().is_some_and(|error| error.contains("token")), "{}", gateway.agent());
    agent.publish(20..30).await;
    assert_eq!(gateway.payloads().await.len(), 20);

    std::fs::write(&token_file, next).expect("written");
    arrives(&gateway, &texts(0..30)).await;
    agent.stop().await;
    gateway.stop().await;
}
