//! Promise: a wrong wall clock spoils nothing: started in 1970, a year forward, and back; ids, order, retention by age and sync stay
//! right, and an event has no time rather than a wrong one.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Result;
use godwit_tests::audit;
use godwit_tests::faketime::{self, Clock};
use godwit_tests::lab;
use godwit_tests::load::{Load, Plan, Record};
use godwit_tests::node::{DEFAULT_BROKER, Node};
use godwit_tests::pair::Pair;
use godwit_tests::skip;

const LIMIT: Duration = Duration::from_secs(20);

fn publish(agent: &Node, name: &str) -> Result<Vec<Record>> {
    let mut plan = Plan::new(agent.mqtt());
    (plan.clients, plan.count) = (2, 100);
    plan.name = name.to_owned();
    Load::start(plan).wait_count(LIMIT)
}

#[test]
fn a_clock_that_begins_in_1970_and_jumps() -> Result<()> {
    if faketime::library().is_none() {
        skip::skip("a_clock_that_begins_in_1970_and_jumps", "needs libfaketime");
        return Ok(());
    }
    lab::run(|lab| {
        let mut pair = Pair::new(lab)?;
        // Younger than all that follows takes, older than none of it: only a jump of the wall clock could make them old.
        pair.agent.set("storage.max-age", "1h");
        pair.agent.set("storage.keep", "1h");
        let clock = Clock::give(&mut pair.agent, lab.path(), "1970-01-01 00:00:05")?;
        pair.gateway.start()?;
        pair.agent.start()?;
        let mut records = publish(&pair.agent, "unset")?;
        pair.arrived(LIMIT)?;
        clock.set("2030-05-01 12:00:00")?;
        records.extend(publish(&pair.agent, "right")?);
        clock.set("2031-05-01 12:00:00")?;
        records.extend(publish(&pair.agent, "year")?);
        clock.set("2030-05-01 12:00:30")?;
        records.extend(publish(&pair.agent, "back")?);
        pair.arrived(LIMIT)?;
        pair.agent.kill9()?;
        clock.set("1970-01-01 00:00:05")?;
        pair.agent.start()?;
        records.extend(publish(&pair.agent, "again")?);
        println!("{}", pair.settled(&records, LIMIT)?);
        let entries = pair.gateway.events(DEFAULT_BROKER)?;
        assert_eq!(entries.len(), 1000, "nothing grew old by a jump");
        let ids: HashSet<&str> = entries.iter().map(|entry| entry.event.id.as_str()).collect();
        assert_eq!(ids.len(), 1000, "ids are their own");
        audit::stored_once(&entries)?;
        for entry in &entries {
            let time = entry.event.time.as_deref();
            let expected =
                ["unset", "right", "year", "back", "again"].iter().find(|name| entry.event.source.contains(*name));
            let right = match expected {
                Some(&"unset" | &"again") => time.is_none(),
                Some(&"right" | &"back") => time.is_some_and(|time| time.starts_with("2030-05-01T1")),
                _ => time.is_some_and(|time| time.starts_with("2031-05-01T1")),
            };
            assert!(right, "{}: time {time:?}", entry.event.source);
        }
        Ok(())
    })
}
