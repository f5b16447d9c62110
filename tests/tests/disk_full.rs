//! Promise: a full disk loses nothing that was acknowledged. Under `reject` new events are refused until there is room; under
//! `drop-oldest` service goes on and what was dropped is counted; in both it resumes by itself when there is space.

use std::time::Duration;

use anyhow::Result;
use godwit_tests::audit;
use godwit_tests::disk::Disk;
use godwit_tests::lab::{self, Lab};
use godwit_tests::load::{Load, Plan};
use godwit_tests::need;
use godwit_tests::node::{DEFAULT_BROKER, Node};
use godwit_tests::wait::{self, Seen};

const LIMIT: Duration = Duration::from_secs(20);

/// An agent on a disk of its own, with small segments and a limit far above what the disk holds.
fn agent_on(lab: &Lab, disk: &Disk, policy: &str) -> Result<Node> {
    let mut agent = Node::agent(lab, "agent-1")?;
    agent.keep_data_at(disk.path());
    agent.set("storage.policy", policy);
    agent.set("storage.segment-bytes", "1MiB");
    agent.set("storage.max-bytes", "1GiB");
    Ok(agent)
}

fn load(agent: &Node, name: &str) -> Load {
    let mut plan = Plan::new(agent.mqtt());
    (plan.clients, plan.rate, plan.size) = (5, 400, 1000);
    plan.name = name.to_owned();
    Load::start(plan)
}

/// Waits until no acknowledgement has come for a second.
fn until_still(load: &Load) -> Result<u64> {
    let mut last = (load.acknowledged(), std::time::Instant::now());
    wait::until("acknowledgements stop", LIMIT, || {
        let now = load.acknowledged();
        if now != last.0 {
            last = (now, std::time::Instant::now());
        }
        if last.1.elapsed() > Duration::from_secs(1) { Seen::Yes(now) } else { Seen::NotYet(now.to_string()) }
    })
}

/// Posts until the last corner of the last segment is full, and is then refused by the status for it.
fn refused(agent: &Node) -> Result<()> {
    for number in 0..100 {
        let answer = agent.post(DEFAULT_BROKER, &format!("full-{number}"), "text/plain", &[b'x'; 60_000])?;
        if answer.status != 202 {
            assert_eq!(answer.status, 507, "{}", answer.text());
            return Ok(());
        }
    }
    panic!("6 MB were stored on a full disk");
}

fn rejects_and_resumes(disk: &Disk, lab: &Lab) -> Result<()> {
    let mut agent = agent_on(lab, disk, "reject")?;
    agent.start()?;
    let load = load(&agent, "load");
    wait::at_least("publishes are acknowledged", LIMIT, 100, || Ok(load.acknowledged()))?;
    let ballast = disk.fill(2 << 20)?;
    let stuck = until_still(&load)?;
    refused(&agent)?;
    assert!(agent.status().is_ok(), "a full disk does not stop /status");
    std::fs::remove_file(ballast)?;
    wait::at_least("acknowledgements go on by themselves", LIMIT, stuck + 500, || Ok(load.acknowledged()))?;
    let records = load.finish(LIMIT)?;
    println!("{}", audit::against_clients(&records, &agent.events(DEFAULT_BROKER)?)?);
    agent.kill9()?;
    agent.start()?;
    audit::against_clients(&records, &agent.events(DEFAULT_BROKER)?)?;
    Ok(())
}

#[test]
fn reject_on_a_full_tmpfs_refuses_and_resumes() -> Result<()> {
    need!("reject_on_a_full_tmpfs_refuses_and_resumes", root, "mount");
    lab::run(|lab| rejects_and_resumes(&Disk::tmpfs(lab, "disk", 48)?, lab))
}

#[test]
fn reject_on_a_full_ext4_refuses_and_resumes() -> Result<()> {
    need!("reject_on_a_full_ext4_refuses_and_resumes", root, "losetup", "mkfs.ext4");
    lab::run(|lab| rejects_and_resumes(&Disk::ext4(lab, "disk", 64)?, lab))
}

#[test]
fn drop_oldest_on_a_full_disk_goes_on_and_counts_what_it_dropped() -> Result<()> {
    need!("drop_oldest_on_a_full_disk_goes_on_and_counts_what_it_dropped", root, "mount");
    lab::run(|lab| {
        let disk = Disk::tmpfs(lab, "disk", 48)?;
        let mut agent = agent_on(lab, &disk, "drop-oldest")?;
        agent.start()?;
        let load = load(&agent, "load");
        wait::at_least("publishes are acknowledged", LIMIT, 6000, || Ok(load.acknowledged()))?;
        let ballast = disk.fill(2 << 20)?;
        let now = load.acknowledged();
        wait::at_least("acknowledgements go on", LIMIT, now + 6000, || Ok(load.acknowledged()))?;
        std::fs::remove_file(ballast)?;
        load.finish(LIMIT)?;
        let kept = agent.events(DEFAULT_BROKER)?;
        audit::stored_once(&kept)?;
        let (accepted, kept) = (agent.accepted(DEFAULT_BROKER)?, kept.len() as u64);
        assert!(kept < accepted, "the disk is too small to hold all {accepted}");
        let uplink = agent.consumer(DEFAULT_BROKER, "uplink")?;
        let dropped: u64 =
            uplink["dropped"].as_object().map_or(0, |d| d.values().filter_map(serde_json::Value::as_u64).sum());
        assert_eq!(dropped + uplink["pending"].as_u64().unwrap_or(0), accepted, "the ledger adds up: {uplink}");
        assert_eq!(dropped, accepted - kept, "all that is gone is counted: {uplink}");
        println!("{accepted} accepted, {kept} kept, {dropped} dropped and counted");
        Ok(())
    })
}

#[test]
fn reject_at_the_configured_limit_waits_for_the_gateway() -> Result<()> {
    lab::run(|lab| {
        let mut gateway = Node::gateway(lab)?;
        let mut agent = Node::agent(lab, "agent-1")?;
        agent.set("storage.policy", "reject");
        agent.set("storage.segment-bytes", "1MiB");
        agent.set("storage.max-bytes", "4MiB");
        agent.uplink(gateway.http());
        agent.start()?;
        let load = load(&agent, "load");
        let stuck = until_still(&load)?;
        refused(&agent)?;
        gateway.start()?;
        wait::at_least("room is made by delivery", LIMIT, stuck + 2000, || Ok(load.acknowledged()))?;
        let records = load.finish(LIMIT)?;
        gateway.wait_accepted(DEFAULT_BROKER, agent.accepted(DEFAULT_BROKER)?, LIMIT)?;
        println!("{}", audit::against_clients(&records, &gateway.events(DEFAULT_BROKER)?)?);
        Ok(())
    })
}

/// An agent with nothing set that has to do with room, on a disk smaller than anybody would choose: it takes events, lets the oldest
/// go, loses nothing it acknowledged to a kill, and brings what is left to the gateway.
fn works_on_a_very_small(disk: &Disk, lab: &Lab) -> Result<()> {
    let mut gateway = Node::gateway(lab)?;
    let mut agent = Node::agent(lab, "agent-1")?;
    agent.keep_data_at(disk.path());
    agent.uplink(gateway.http());
    agent.start()?;
    assert_eq!(agent.get("/readyz")?.status, 200, "ready before the first event");
    let load = load(&agent, "load");
    // Twice what the disk holds: 1,100 bytes an event.
    let enough = 2 * disk.bytes()? / 1100;
    wait::at_least("publishes are acknowledged", LIMIT * 3, enough / 2, || Ok(load.acknowledged()))?;
    agent.kill9()?;
    agent.start()?;
    let now = load.acknowledged();
    wait::at_least("acknowledgements go on", LIMIT * 3, now + enough / 2, || Ok(load.acknowledged()))?;
    let records = load.finish(LIMIT)?;
    agent.kill9()?;
    agent.start()?;
    assert_eq!(agent.get("/readyz")?.status, 200);
    let entries = agent.events(DEFAULT_BROKER)?;
    audit::newest_kept(&records, &entries)?;
    let (accepted, kept) = (agent.accepted(DEFAULT_BROKER)?, entries.len() as u64);
    let uplink = agent.consumer(DEFAULT_BROKER, "uplink")?;
    assert_eq!(uplink["pending"].as_u64(), Some(kept), "{uplink}");
    assert_eq!(uplink["dropped"]["retention"].as_u64(), Some(accepted - kept), "all that is gone is counted: {uplink}");
    assert!(kept * 1100 > disk.bytes()? / 6, "{kept} events are few for a disk of this size");
    gateway.start()?;
    gateway.wait_accepted(DEFAULT_BROKER, kept, LIMIT)?;
    audit::same(&entries, &gateway.events(DEFAULT_BROKER)?)?;
    println!("{accepted} accepted, {kept} kept and drained, {} dropped and counted", accepted - kept);
    Ok(())
}

#[test]
fn a_tmpfs_of_16_mib_is_enough_for_an_agent() -> Result<()> {
    need!("a_tmpfs_of_16_mib_is_enough_for_an_agent", root, "mount");
    lab::run(|lab| works_on_a_very_small(&Disk::tmpfs(lab, "disk", 16)?, lab))
}

#[test]
fn an_ext4_of_24_mib_is_enough_for_an_agent() -> Result<()> {
    need!("an_ext4_of_24_mib_is_enough_for_an_agent", root, "losetup", "mkfs.ext4");
    lab::run(|lab| works_on_a_very_small(&Disk::ext4(lab, "disk", 24)?, lab))
}

#[test]
fn an_agent_whose_segments_do_not_fit_the_disk_says_so_and_what_they_need() -> Result<()> {
    need!("an_agent_whose_segments_do_not_fit_the_disk_says_so_and_what_they_need", root, "mount");
    lab::run(|lab| {
        let disk = Disk::tmpfs(lab, "disk", 24)?;
        let mut agent = agent_on(lab, &disk, "drop-oldest")?;
        agent.set("storage.segment-bytes", "8MiB");
        agent.start()?;
        let answer = agent.post(DEFAULT_BROKER, "one", "text/plain", b"x")?;
        assert_eq!(answer.status, 507, "{}", answer.text());
        let answer = agent.get("/readyz")?;
        assert_eq!(answer.status, 503, "{}", answer.text());
        for part in ["default/default refuses events", "8388608 bytes", "storage.segment-bytes"] {
            assert!(answer.text().contains(part), "{part} is not in: {}", answer.text());
        }
        assert!(agent.process().last_lines().contains("the disk is full"), "{}", agent.process().last_lines());
        Ok(())
    })
}
