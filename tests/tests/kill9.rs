//! Promise: whatever was acknowledged survives `kill -9` of the agent, of the gateway, and of both, at any instant; it is at the
//! gateway once, in order, bytes unchanged.
//!
//! `GODWIT_KILLS` sets the number of kills of each kind (default 100), `GODWIT_LIFE_MS` the longest that a process lives in between
//! (default 350, counted from its ready port).

use std::time::Duration;

use anyhow::Result;
use godwit_tests::lab;
use godwit_tests::load::{Load, Plan};
use godwit_tests::pair::Pair;
use godwit_tests::random;

/// How long everything may take to arrive once the killing is over.
const SETTLE: Duration = Duration::from_secs(60);

fn number(variable: &str, default: u32) -> u32 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn kills() -> u32 {
    number("GODWIT_KILLS", 100)
}

/// Ten clients, three of them at QoS 2.
fn load(pair: &Pair) -> Load {
    let mut plan = Plan::new(pair.agent.mqtt());
    (plan.exact, plan.rate) = (3, 200);
    Load::start(plan)
}

fn killed(what: &str, mut kill: impl FnMut(&mut Pair) -> Result<()>) -> Result<()> {
    lab::run(|lab| {
        let mut pair = Pair::start(lab)?;
        let load = load(&pair);
        let life = Duration::from_millis(u64::from(number("GODWIT_LIFE_MS", 350)));
        for _ in 0..kills() {
            random::sleep(life);
            kill(&mut pair)?;
        }
        let tally = pair.settle(load, SETTLE)?;
        println!("{} kills of {what}: {tally}", kills());
        assert!(tally.acknowledged > 10 * u64::from(kills()), "too little load to prove anything: {tally}");
        Ok(())
    })
}

#[test]
fn nothing_acknowledged_is_lost_when_the_agent_is_killed() -> Result<()> {
    killed("the agent", |pair| {
        pair.agent.kill9()?;
        pair.agent.start().map(drop)
    })
}

#[test]
fn nothing_is_lost_or_doubled_when_the_gateway_is_killed() -> Result<()> {
    killed("the gateway", |pair| {
        pair.gateway.kill9()?;
        pair.gateway.start().map(drop)
    })
}

#[test]
fn nothing_is_lost_or_doubled_when_both_are_killed() -> Result<()> {
    killed("both", |pair| {
        pair.agent.kill9()?;
        random::sleep(Duration::from_millis(20));
        pair.gateway.kill9()?;
        if random::below(2) == 0 {
            pair.agent.start()?;
            random::sleep(Duration::from_millis(20));
            pair.gateway.start()?;
        } else {
            pair.gateway.start()?;
            random::sleep(Duration::from_millis(20));
            pair.agent.start()?;
        }
        Ok(())
    })
}
