//! Events that the gateway refuses for good: dead letters at the agent, once each.

use godwit_mesh::delivery::DeadLetter;
use godwit_mesh::journal::{ConsumerStatus, Item, Offset};
use godwit_mesh::names::BrokerName;

use crate::histories::copy;
use crate::pair::{Agent, Gateway, arrives, eventually, settings, texts};

/// No event at all: an agent's ingress never stores it, and no gateway takes it.
const BAD: &[u8] = b"\xffnot an event";

async fn publish_bad(agent: &Agent) {
    let broker = agent.brokers.ensure(&BrokerName::default()).await.expect("a broker");
    let appended = broker.journal().append(|append| append.event(|out| out.extend_from_slice(BAD)));
    appended.expect("taken").await.expect("durable");
}

async fn dead_letters(agent: &Agent) -> Vec<DeadLetter> {
    let broker = agent.brokers.get(&BrokerName::default()).expect("there");
    let Some(journal) = broker.existing_dead_letters().await.expect("readable") else { return Vec::new() };
    let items = journal.reader(Offset(0)).try_next(1 << 20).await.expect("reads");
    let letter = |item| match item {
        Item::Event { body, .. } => DeadLetter::decode(&body).expect("a dead letter"),
        other => panic!("{other:?}"),
    };
    items.into_iter().map(letter).collect()
}

/// All 21 events accounted for: 20 delivered and one a dead letter, which is there once.
async fn settled(agent: &Agent) {
    let consumer: ConsumerStatus = eventually("the account", async || {
        let consumer = agent.consumer();
        (consumer.cursor == Offset(21) && consumer.pending == 0, consumer)
    })
    .await;
    let done = &consumer.done;
    assert_eq!((done.delivered, done.dead_lettered, done.total()), (20, 1, 21), "{consumer:?}");
    let dead = dead_letters(agent).await;
    let [letter] = dead.as_slice() else { panic!("one dead letter, not {dead:?}") };
    assert_eq!((letter.head.trigger.as_str(), letter.head.offset, &letter.body[..]), ("uplink", 10, BAD));
    assert!(!letter.head.message.is_empty(), "{:?}", letter.head);
    let broker = agent.brokers.get(&BrokerName::default()).expect("there");
    let epoch = broker.journal().lineage().epoch_at(Offset(10));
    assert_eq!(letter.head.epoch(), epoch);
}

#[tokio::test]
async fn a_refused_event_is_one_dead_letter_whatever_is_lost_after_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let (home, before) = (dir.path().join("agent"), dir.path().join("before"));
    let journal = "brokers/default/default/journal";
    // The journal as it is before anything is sent.
    let agent = Agent::with(&home, godwit_agent::uplink::UplinkSettings::default()).await;
    agent.publish(0..10).await;
    publish_bad(&agent).await;
    agent.publish(10..20).await;
    agent.stop().await;
    copy(&home.join(journal), &before);

    let gateway = Gateway::start(&dir.path().join("gateway")).await;
    let agent = Agent::with(&home, settings(gateway.addr)).await;
    arrives(&gateway, &texts(0..20)).await;
    settled(&agent).await;
    let head = dead_letters(&agent).await.remove(0).head;
    assert_eq!(head.destination, format!("http://{}", gateway.addr));
    agent.stop().await;

    // The cursor was lost after the dead letter: the gateway's position is past the event.
    copy(&before, &home.join(journal));
    let agent = Agent::with(&home, settings(gateway.addr)).await;
    settled(&agent).await;
    agent.stop().await;
    gateway.stop().await;

    // The cursor and the position were lost: the event is sent and refused again.
    copy(&before, &home.join(journal));
    let gateway = Gateway::start(&dir.path().join("another")).await;
    let agent = Agent::with(&home, settings(gateway.addr)).await;
    arrives(&gateway, &texts(0..20)).await;
    settled(&agent).await;
    agent.stop().await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_refusal_whose_answer_was_lost_is_told_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let (home, before) = (dir.path().join("agent"), dir.path().join("before"));
    let agent = Agent::with(&home, godwit_agent::uplink::UplinkSettings::default()).await;
    agent.publish(0..10).await;
    publish_bad(&agent).await;
    agent.publish(10..20).await;
    agent.stop().await;
    copy(&home, &before);
    let gateway = Gateway::start(&dir.path().join("gateway")).await;
    let agent = Agent::with(&home, settings(gateway.addr)).await;
    settled(&agent).await;
    agent.stop().await;

    // As if no answer had come: neither cursor nor dead letter, and the gateway's position is past the event, over its restarts.
    for _ in 0..2 {
        copy(&before, &home);
        let agent = Agent::with(&home, settings(gateway.addr)).await;
        settled(&agent).await;
        agent.stop().await;
    }
    gateway.stop().await;
    let gateway = Gateway::start(&dir.path().join("gateway")).await;
    copy(&before, &home);
    let agent = Agent::with(&home, settings(gateway.addr)).await;
    settled(&agent).await;
    arrives(&gateway, &texts(0..20)).await;

    // Where no dead-letter journal takes it, it is dropped by name.
    agent.stop().await;
    copy(&before, &home);
    std::fs::write(home.join("brokers/default/default/dead-letters"), b"").expect("written");
    let agent = Agent::with(&home, settings(gateway.addr)).await;
    let consumer = eventually("the account", async || (agent.consumer().pending == 0, agent.consumer())).await;
    let refused = consumer.done.dropped.get(&godwit_mesh::journal::DropReason::Refused).copied();
    assert_eq!((consumer.done.delivered, consumer.done.dead_lettered, refused), (20, 0, Some(1)), "{consumer:?}");
    agent.stop().await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_refused_event_that_no_dead_letter_journal_takes_is_dropped_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let home = dir.path().join("agent");
    let agent = Agent::with(&home, godwit_agent::uplink::UplinkSettings::default()).await;
    agent.publish(0..1).await;
    publish_bad(&agent).await;
    agent.stop().await;
    // A file where the folder would be: the journal cannot be made.
    std::fs::write(home.join("brokers/default/default/dead-letters"), b"").expect("written");
    let gateway = Gateway::start(&dir.path().join("gateway")).await;
    let agent = Agent::start(&home, gateway.addr).await;
    let consumer = eventually("the account", async || (agent.consumer().pending == 0, agent.consumer())).await;
    let refused = consumer.done.dropped.get(&godwit_mesh::journal::DropReason::Refused).copied();
    assert_eq!((consumer.done.delivered, consumer.done.dead_lettered, refused), (1, 0, Some(1)), "{consumer:?}");
    agent.stop().await;
    gateway.stop().await;
}
