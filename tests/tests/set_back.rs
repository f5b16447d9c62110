//! Promise: a disk that was set back loses nothing new and doubles nothing old: an agent's folder restored from an old copy, one
//! cloned to two agents, a gateway's restored, and a segment with flipped bits.

use std::time::Duration;

use anyhow::{Context as _, Result};
use godwit_tests::audit;
use godwit_tests::disk;
use godwit_tests::lab;
use godwit_tests::load::{Load, Plan, Record};
use godwit_tests::node::{DEFAULT_BROKER, Node};
use godwit_tests::pair::Pair;
use godwit_tests::wait;

const LIMIT: Duration = Duration::from_secs(20);

/// Four clients publish `count` events each.
fn publish(agent: &Node, name: &str, count: u64) -> Result<Vec<Record>> {
    let mut plan = Plan::new(agent.mqtt());
    (plan.clients, plan.count) = (4, count);
    plan.name = name.to_owned();
    Load::start(plan).wait_count(LIMIT)
}

#[test]
fn an_agent_restored_from_an_old_copy() -> Result<()> {
    lab::run(|lab| {
        let mut pair = Pair::start(lab)?;
        let mut records = publish(&pair.agent, "before", 200)?;
        pair.arrived(LIMIT)?;
        pair.agent.stop()?;
        let copy = lab.path().join("copy");
        disk::copy(&pair.agent.data(), &copy)?;
        pair.agent.start()?;
        records.extend(publish(&pair.agent, "lost", 200)?);
        pair.arrived(LIMIT)?;
        pair.agent.kill9()?;
        disk::copy(&copy, &pair.agent.data())?;
        pair.agent.start()?;
        records.extend(publish(&pair.agent, "after", 300)?);
        let expected = 4 * (200 + 200 + 300);
        pair.gateway.wait_accepted(DEFAULT_BROKER, expected, LIMIT)?;
        let tally = audit::against_clients(&records, &pair.gateway.events(DEFAULT_BROKER)?)?;
        assert_eq!(tally.events, expected, "nothing old is there twice");
        Ok(())
    })
}

#[test]
fn an_agent_cloned_to_two_boards() -> Result<()> {
    lab::run(|lab| {
        let mut pair = Pair::start(lab)?;
        let mut records = publish(&pair.agent, "both", 200)?;
        pair.arrived(LIMIT)?;
        pair.agent.stop()?;
        let mut clone = Node::agent(lab, "clone")?;
        clone.set("agent.id", "agent-1");
        clone.uplink(pair.relay.address());
        disk::copy(&pair.agent.data(), &clone.data())?;
        pair.agent.start()?;
        records.extend(publish(&pair.agent, "first", 200)?);
        pair.arrived(LIMIT)?;
        clone.start()?;
        records.extend(publish(&clone, "second", 200)?);
        // The first goes on as if nobody else were there.
        records.extend(publish(&pair.agent, "third", 200)?);
        wait::until("the first agent's events arrive", LIMIT, || {
            let entries = pair.gateway.events(DEFAULT_BROKER).unwrap_or_default();
            let there = entries.iter().filter(|e| e.event.source.contains("third")).count();
            if there == 800 { wait::Seen::Yes(()) } else { wait::Seen::NotYet(there.to_string()) }
        })?;
        // With the first gone, what only the clone has comes too.
        pair.agent.stop()?;
        pair.gateway.wait_accepted(DEFAULT_BROKER, 3200, LIMIT)?;
        let tally = audit::against_clients(&records, &pair.gateway.events(DEFAULT_BROKER)?)?;
        assert_eq!(tally.events, 3200, "nothing is there twice");
        Ok(())
    })
}

#[test]
fn a_gateway_restored_from_an_old_copy() -> Result<()> {
    lab::run(|lab| {
        let mut pair = Pair::start(lab)?;
        let mut records = publish(&pair.agent, "before", 200)?;
        pair.arrived(LIMIT)?;
        pair.gateway.stop()?;
        let copy = lab.path().join("copy");
        disk::copy(&pair.gateway.data(), &copy)?;
        pair.gateway.start()?;
        records.extend(publish(&pair.agent, "between", 300)?);
        pair.arrived(LIMIT)?;
        pair.gateway.kill9()?;
        disk::copy(&copy, &pair.gateway.data())?;
        pair.gateway.start()?;
        records.extend(publish(&pair.agent, "after", 200)?);
        println!("{}", pair.settled(&records, LIMIT)?);
        Ok(())
    })
}

#[test]
fn a_segment_with_flipped_bits() -> Result<()> {
    lab::run(|lab| {
        let mut pair = Pair::new(lab)?;
        pair.agent.start()?;
        let records = publish(&pair.agent, "load", 1000)?;
        pair.agent.kill9()?;
        let journal = pair.agent.journal(DEFAULT_BROKER);
        let (segment, at) = find(&journal, b"\"n\":\"000000000300\",\"c\":\"load-1\"")?;
        let mut bytes = std::fs::read(&segment)?;
        *bytes.get_mut(at + 5).context("inside the file")? ^= 0x10;
        std::fs::write(&segment, bytes)?;
        pair.agent.start()?;
        let kept = pair.agent.events(DEFAULT_BROKER)?;
        audit::stored_once(&kept)?;
        let gone = 4000 - kept.len();
        // One commit of four clients with 20 in flight each.
        assert!((1..=80).contains(&gone), "{gone} events are gone with one flipped bit");
        let last = kept.last().context("events")?.offset;
        assert_eq!(last, 3999, "the offsets behind the damage stay");
        pair.gateway.start()?;
        pair.gateway.wait_accepted(DEFAULT_BROKER, kept.len() as u64, LIMIT)?;
        publish(&pair.agent, "after", 50)?;
        pair.gateway.wait_accepted(DEFAULT_BROKER, kept.len() as u64 + 200, LIMIT)?;
        audit::same(&pair.agent.events(DEFAULT_BROKER)?, &pair.gateway.events(DEFAULT_BROKER)?)?;
        assert!(records.iter().all(|record| record.acknowledged.len() == 1000));
        let uplink = pair.agent.consumer(DEFAULT_BROKER, "uplink")?;
        let counted = uplink["dropped"]["quarantined"].as_u64();
        assert_eq!(counted, Some(gone as u64), "the ledger counts what was quarantined: {uplink}");
        println!("{gone} of 4000 events quarantined with one flipped bit");
        Ok(())
    })
}

/// The file below `folder` that has `needle`, and where.
fn find(folder: &std::path::Path, needle: &[u8]) -> Result<(std::path::PathBuf, usize)> {
    for file in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = file?.path();
        if path.is_file()
            && let Some(at) = std::fs::read(&path)?.windows(needle.len()).position(|w| w == needle)
        {
            return Ok((path, at));
        }
    }
    anyhow::bail!("no file in {} has the event", folder.display())
}
