//! Promise: whatever becomes of the link, every acknowledged event reaches the gateway, once, in order, bytes unchanged; and the
//! agent notices by itself that a silent link is dead.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use godwit_tests::lab;
use godwit_tests::load::{Load, Plan};
use godwit_tests::node::DEFAULT_BROKER;
use godwit_tests::pair::Pair;
use godwit_tests::random;
use godwit_tests::relay::Way;
use godwit_tests::wait;

const SETTLE: Duration = Duration::from_secs(30);

/// How long an agent may take to connect again once its link has gone: half a second at most by its own clock.
const AGAIN: Duration = Duration::from_secs(5);

/// Five clients at a pace that keeps the link busy without being all that the machine does.
fn load(pair: &Pair) -> Load {
    let mut plan = Plan::new(pair.agent.mqtt());
    (plan.clients, plan.rate) = (5, 300);
    Load::start(plan)
}

#[test]
fn a_link_that_is_cut_in_the_middle_of_batches() -> Result<()> {
    lab::run(|lab| {
        let pair = Pair::start(lab)?;
        let load = load(&pair);
        for _ in 0..20 {
            random::sleep(Duration::from_millis(300));
            pair.relay.cut();
        }
        println!("20 cuts: {}", pair.settle(load, SETTLE)?);
        Ok(())
    })
}

#[test]
fn a_link_that_is_cut_after_the_commit_but_before_the_answer() -> Result<()> {
    lab::run(|lab| {
        let pair = Pair::start(lab)?;
        let load = load(&pair);
        let mut connections = 0;
        for _ in 0..8 {
            // At once, since each connection brings events further: waits that grow would be over the limit after some.
            wait::at_least("a connection is opened", AGAIN, connections + 1, || Ok(pair.relay.connections()))?;
            connections = pair.relay.connections();
            // Only answers on the new connection count from here on: it carries events, what is held back is no welcome.
            let answered = || {
                let uplink = pair.agent.consumer(DEFAULT_BROKER, "uplink")?;
                uplink["delivered"].as_u64().with_context(|| format!("no delivered in {uplink}"))
            };
            // The first time the uplink may not have registered yet.
            let before = wait::at_least("the uplink is there", SETTLE, 0, answered)?;
            wait::at_least("answers come", SETTLE, before + 50, answered)?;
            pair.relay.hold(Way::Down, true);
            // What is stored from here on has an answer that never arrives. With its window full already the agent sends nothing
            // more: then it is that whose answers are lost.
            let before = pair.gateway.accepted(DEFAULT_BROKER)?;
            let _ = pair.gateway.wait_accepted(DEFAULT_BROKER, before + 20, Duration::from_secs(1));
            pair.relay.cut();
            pair.relay.hold(Way::Down, false);
        }
        println!("8 answers lost: {}", pair.settle(load, SETTLE)?);
        Ok(())
    })
}

#[test]
fn a_link_that_is_gone_for_long_and_comes_back() -> Result<()> {
    lab::run(|lab| {
        let pair = Pair::start(lab)?;
        let load = load(&pair);
        pair.gateway.wait_accepted(DEFAULT_BROKER, 50, SETTLE)?;
        pair.relay.refuse(true);
        pair.relay.cut();
        std::thread::sleep(Duration::from_secs(5));
        let (here, there) = (pair.agent.accepted(DEFAULT_BROKER)?, pair.gateway.accepted(DEFAULT_BROKER)?);
        assert!(here > there + 1000, "the agent went on alone: {here} against {there}");
        pair.relay.refuse(false);
        println!("5 s without a link: {}", pair.settle(load, SETTLE)?);
        Ok(())
    })
}

#[test]
fn a_link_that_flaps() -> Result<()> {
    lab::run(|lab| {
        let pair = Pair::start(lab)?;
        let load = load(&pair);
        for _ in 0..12 {
            pair.relay.refuse(true);
            pair.relay.cut();
            random::sleep(Duration::from_millis(300));
            pair.relay.refuse(false);
            random::sleep(Duration::from_millis(400));
        }
        println!("12 flaps: {}", pair.settle(load, SETTLE)?);
        Ok(())
    })
}

#[test]
fn a_link_that_falls_silent_is_given_up_within_three_heartbeats() -> Result<()> {
    lab::run(|lab| {
        let pair = Pair::start(lab)?;
        let load = load(&pair);
        pair.gateway.wait_accepted(DEFAULT_BROKER, 50, SETTLE)?;
        let before = pair.relay.connections();
        pair.relay.black_hole(true);
        let begun = Instant::now();
        // The heartbeat is 1 s here; half a second is for the first backoff, as much for a slow machine.
        wait::at_least("another connection is tried", Duration::from_millis(4000), before + 1, || {
            Ok(pair.relay.connections())
        })?;
        let noticed = begun.elapsed();
        std::thread::sleep(Duration::from_secs(1));
        pair.relay.cut();
        pair.relay.black_hole(false);
        println!("noticed after {noticed:?}: {}", pair.settle(load, SETTLE)?);
        Ok(())
    })
}

#[test]
fn a_link_with_two_seconds_delay_and_five_percent_loss() -> Result<()> {
    lab::run(|lab| {
        let mut pair = Pair::new(lab)?;
        pair.agent.set("gateway.heartbeat", "10s");
        pair.relay.delay(Duration::from_secs(1));
        pair.relay.stall(5);
        pair.gateway.start()?;
        pair.agent.start()?;
        let load = load(&pair);
        std::thread::sleep(Duration::from_secs(8));
        println!("2 s round trips: {}", pair.settle(load, SETTLE)?);
        assert!(pair.relay.connections() < 4, "{} connections: the delay was taken for a cut", pair.relay.connections());
        Ok(())
    })
}

#[test]
fn a_link_of_two_kilobits_each_second_with_two_seconds_delay() -> Result<()> {
    lab::run(|lab| {
        let mut pair = Pair::new(lab)?;
        pair.agent.set("gateway.heartbeat", "30s");
        pair.relay.delay(Duration::from_secs(1));
        pair.relay.rate(250);
        pair.gateway.start()?;
        pair.agent.start()?;
        let mut plan = Plan::new(pair.agent.mqtt());
        (plan.clients, plan.rate, plan.count, plan.size) = (1, 2, 40, 64);
        let records = Load::start(plan).wait_count(Duration::from_secs(40))?;
        let begun = Instant::now();
        let tally = pair.settled(&records, Duration::from_secs(60))?;
        println!("2 kbit/s: {tally}; the last came {:?} after the first 20 s", begun.elapsed());
        assert!(pair.relay.connections() < 4, "{} connections: slowness was taken for a cut", pair.relay.connections());
        Ok(())
    })
}
