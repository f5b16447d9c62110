//! Promise: the journal is one format on every processor: what one agent acknowledged, an agent built for another reads, serves,
//! goes on with and carries to the gateway, after `kill -9`.
//!
//! `GODWIT_AGENTS` names folders (`:` between them), each with a `godwit-agent` for another processor or what starts one; see
//! `cross/test`. They take turns with this machine's own on one data folder. Without it this machine's own agent alone does.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use godwit_tests::events::Entry;
use godwit_tests::lab;
use godwit_tests::load::{Load, Plan, Record};
use godwit_tests::node::{DEFAULT_BROKER, Node};
use godwit_tests::pair::Pair;
use godwit_tests::{audit, binaries};

const LIMIT: Duration = Duration::from_secs(60);

/// The folders of all agents, this machine's own first.
fn agents() -> Result<Vec<PathBuf>> {
    let own = binaries::path("godwit-agent");
    let mut folders = vec![own.parent().context("a program has a folder")?.to_owned()];
    if let Some(others) = std::env::var_os("GODWIT_AGENTS") {
        folders.extend(std::env::split_paths(&others));
    }
    Ok(folders)
}

/// An order in which each of `count` follows each other one at least once.
fn turns(count: usize) -> Vec<usize> {
    let mut turns = vec![0];
    for a in 0..count {
        for b in a + 1..count {
            turns.extend([a, b, a]);
        }
    }
    turns.dedup();
    turns
}

/// Publishes by MQTT at QoS 1 and 2 and by HTTP, data of every form included; gives what the MQTT clients know.
fn publish(agent: &Node, turn: usize) -> Result<Vec<Record>> {
    let mut plan = Plan::new(agent.mqtt());
    (plan.clients, plan.exact, plan.count) = (3, 1, 60);
    plan.name = format!("turn{turn}-");
    let records = Load::start(plan).wait_count(LIMIT)?;
    let forms: [(&str, &[u8]); 4] = [
        ("application/json", br#"{"b": 1.10, "a":12345678901234567890}"#),
        ("text/plain", "Pfuhlschnepfe, \u{1f426}".as_bytes()),
        ("application/octet-stream", &[0, 0xff, 0x80, 0x0a]),
        ("application/octet-stream", &[0x5a; 100_000]),
    ];
    for (number, (content_type, data)) in forms.into_iter().enumerate() {
        let answer = agent.post(DEFAULT_BROKER, &format!("{turn}-{number}"), content_type, data)?;
        ensure!((200..300).contains(&answer.status), "event {number} of turn {turn}: {} {}", answer.status, answer.text());
    }
    Ok(records)
}

/// Checks that `now` begins with all of `before`, each at its offset and in its epoch.
fn goes_on(before: &[Entry], now: &[Entry]) -> Result<()> {
    ensure!(before.len() <= now.len(), "{} events before, {} now", before.len(), now.len());
    let now = now.get(..before.len()).context("as many are there")?;
    audit::same(before, now)?;
    for (a, b) in before.iter().zip(now) {
        ensure!(
            a.offset == b.offset && a.epoch == b.epoch,
            "offset {} of {} became {} of {}",
            a.offset,
            a.epoch,
            b.offset,
            b.epoch
        );
        ensure!(a.event.extensions == b.event.extensions, "extensions differ: {:?} and {:?}", a.event, b.event);
    }
    Ok(())
}

#[test]
fn agents_for_different_processors_take_turns_on_one_journal() -> Result<()> {
    lab::run(|lab| {
        let agents = agents()?;
        let mut pair = Pair::new(lab)?;
        let mut before: Vec<Entry> = Vec::new();
        let mut records = Vec::new();
        for (turn, which) in turns(agents.len()).into_iter().enumerate() {
            let folder = agents.get(which).context("a turn is one of the agents")?;
            let named = || format!("turn {turn}, by {}", folder.display());
            pair.agent.binary = Some(folder.join("godwit-agent"));
            pair.agent.start().with_context(named)?;
            goes_on(&before, &pair.agent.events(DEFAULT_BROKER)?).with_context(named)?;
            records.extend(publish(&pair.agent, turn).with_context(named)?);
            before = pair.agent.events(DEFAULT_BROKER)?;
            pair.agent.kill9()?;
        }
        pair.gateway.start()?;
        pair.agent.start()?;
        goes_on(&before, &pair.agent.events(DEFAULT_BROKER)?)?;
        let tally = pair.settled(&records, LIMIT)?;
        println!("{} agents: {tally}", agents.len());
        Ok(())
    })
}

#[test]
fn each_agent_follows_each_other() {
    let turns = turns(3);
    for a in 0..3 {
        for b in 0..3 {
            assert!(a == b || turns.windows(2).any(|two| two == [a, b]), "{b} never follows {a} in {turns:?}");
        }
    }
}
