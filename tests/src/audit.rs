//! Comparing what clients were promised with what a broker holds.

use std::collections::{HashMap, HashSet};
use std::fmt;

use anyhow::{Result, ensure};

use crate::events::Entry;
use crate::load::{self, Record};

/// What an audit counted; it fails rather than count a broken promise.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Events in the broker.
    pub events: u64,
    /// Acknowledged publishes; each is among the events.
    pub acknowledged: u64,
    /// Events that are there a second time because their QoS 1 client sent them again.
    pub resent: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events, acknowledged, resent } = self;
        write!(f, "{acknowledged} acknowledged, 0 lost; {events} events, {resent} of them sent twice by their clients")
    }
}

/// Checks that `entries` hold every acknowledged publish with its exact bytes, in each client's order, none invented, none
/// stored twice, and QoS 2 publishes exactly once.
///
/// # Errors
/// The first promise that is broken, with numbers.
pub fn against_clients(records: &[Record], entries: &[Entry]) -> Result<Tally> {
    stored_once(entries)?;
    let clients: HashMap<&str, &Record> = records.iter().map(|record| (record.client.as_str(), record)).collect();
    let mut seen: HashMap<&str, HashSet<u64>> = HashMap::new();
    let mut newest: HashMap<&str, u64> = HashMap::new();
    let mut tally = Tally::default();
    for entry in entries {
        let data = entry.event.data()?;
        let Some((client, number)) = load::read_payload(&data) else { continue };
        let Some((name, record)) = clients.get_key_value(client.as_str()) else { continue };
        tally.events += 1;
        ensure!(number < record.published, "{name} never sent number {number}, but it is at offset {}", entry.offset);
        ensure!(data == load::payload(name, number, record.size), "the bytes of {name}'s number {number} were changed");
        if !seen.entry(name).or_default().insert(number) {
            ensure!(!record.exact, "{name}'s number {number} (QoS 2) is there twice, again at offset {}", entry.offset);
            tally.resent += 1;
            continue;
        }
        let before = newest.insert(name, number);
        ensure!(before.is_none_or(|before| before < number), "{name}: number {number} came after {before:?}");
    }
    for record in records {
        let there = seen.get(record.client.as_str());
        let lost: Vec<u64> =
            record.acknowledged.iter().filter(|n| there.is_none_or(|there| !there.contains(n))).copied().collect();
        ensure!(
            lost.is_empty(),
            "{}: {} of {} acknowledged publishes are lost, the first: {:?}",
            record.client,
            lost.len(),
            record.acknowledged.len(),
            lost.get(..lost.len().min(10))
        );
        ensure!(record.out_of_order == 0, "{}: {} acknowledgements out of order", record.client, record.out_of_order);
        tally.acknowledged += record.acknowledged.len() as u64;
    }
    Ok(tally)
}

/// Checks a broker that let its oldest go: of every client's acknowledged publishes those from some number on are there, in order,
/// with their exact bytes, without a hole.
///
/// # Errors
/// The first promise that is broken, with numbers.
pub fn newest_kept(records: &[Record], entries: &[Entry]) -> Result<()> {
    stored_once(entries)?;
    for record in records {
        let mut there = HashSet::new();
        for entry in entries {
            let data = entry.event.data()?;
            let Some((client, number)) = load::read_payload(&data).filter(|(client, _)| *client == record.client) else {
                continue;
            };
            ensure!(
                data == load::payload(&client, number, record.size),
                "the bytes of {client}'s number {number} were changed"
            );
            there.insert(number);
        }
        let oldest = there.iter().min().copied().unwrap_or(u64::MAX);
        let lost: Vec<&u64> = record.acknowledged.iter().filter(|n| **n >= oldest && !there.contains(n)).collect();
        ensure!(
            lost.is_empty(),
            "{}: {} acknowledged publishes are missing among newer ones: {lost:?}",
            record.client,
            lost.len()
        );
        ensure!(!there.is_empty(), "{}: nothing is left", record.client);
    }
    Ok(())
}

/// Checks that no event is there twice by source and id, which name an agent's journal offset, and that offsets ascend.
///
/// # Errors
/// With the first that is.
pub fn stored_once(entries: &[Entry]) -> Result<()> {
    let mut names = HashMap::with_capacity(entries.len());
    let mut last = None;
    for entry in entries {
        ensure!(last.is_none_or(|last| last < entry.offset), "offset {} came after {last:?}", entry.offset);
        last = Some(entry.offset);
        let before = names.insert((&entry.event.source, &entry.event.id), entry.offset);
        ensure!(
            before.is_none(),
            "{} {} is stored twice, at offsets {before:?} and {}",
            entry.event.source,
            entry.event.id,
            entry.offset
        );
    }
    Ok(())
}

/// Checks that `gateway` holds exactly the events of `agent`, in the same order, ids and bytes unchanged.
///
/// # Errors
/// With the first difference.
pub fn same(agent: &[Entry], gateway: &[Entry]) -> Result<()> {
    stored_once(gateway)?;
    for (at, (here, there)) in agent.iter().zip(gateway).enumerate() {
        let (a, b) = (&here.event, &there.event);
        ensure!(
            a.id == b.id && a.source == b.source,
            "place {at}: the agent has {} {} at offset {}, the gateway {} {} at offset {}",
            a.source,
            a.id,
            here.offset,
            b.source,
            b.id,
            there.offset
        );
        ensure!(a.data()? == b.data()?, "the bytes of {} {} differ at the gateway", a.source, a.id);
        ensure!(
            a.ty == b.ty && a.subject == b.subject && a.time == b.time && a.datacontenttype == b.datacontenttype,
            "attributes differ: {a:?} and {b:?}"
        );
    }
    ensure!(agent.len() == gateway.len(), "{} events at the agent, {} at the gateway", agent.len(), gateway.len());
    Ok(())
}
