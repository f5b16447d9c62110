//! Channels go when nobody needs them any more: their object is gone, no Subscription has a cursor in them, no dead letter waits, no fact
//! is kept in them (how far a source has come, a hand-shake of MQTT), and nobody works with them. Brokers stay.
//!
//! A mark in the Channel's folder is the decision: before it is durable nothing has changed, after it the Channel is gone, and whatever
//! is left of its files is removed at the next chance, at the latest when a Channel of its name is made again.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::index;
use super::registry::{Broker, Inner, dir};
use crate::names::BrokerName;
use crate::storage::Storage;

/// In so many looks one after the other a Channel must have been without use. At a start the sets of objects come one by one.
const LOOKS: u32 = 6;

/// In how many looks each Channel was found without use.
pub(super) type Unused = BTreeMap<BrokerName, u32>;

/// Removes the Channels that have been without use for long enough.
pub(super) async fn look(inner: &Inner, unused: &mut Unused) {
    let all: Vec<Arc<Broker>> = inner.lock().values().cloned().collect();
    unused.retain(|name, _| all.iter().any(|broker| broker.name() == name));
    for broker in all {
        let name = broker.name().clone();
        if !is_unused(&broker).await {
            unused.remove(&name);
            continue;
        }
        // What is held here is not somebody else's use.
        drop(broker);
        let looks = unused.entry(name.clone()).or_default();
        *looks += 1;
        if *looks >= LOOKS
            && let Err(error) = remove(inner, &name).await
        {
            tracing::warn!(broker = %name, %error, "a Channel that is gone could not be removed from the disk");
        }
    }
}

async fn is_unused(broker: &Broker) -> bool {
    // Looked for first: the account is of what is open.
    is_left(broker) && broker.existing_dead_letters().await.is_ok() && is_left(broker)
}

/// Whether nothing in it is needed, as far as its open journals say.
fn is_left(broker: &Broker) -> bool {
    let journal = broker.journal();
    broker.name().is_channel()
        && broker.settings().closed
        && journal.consumers().is_empty()
        && journal.facts(b"").is_empty()
        && broker.dead_letter_account().is_none_or(|account| account.pending == 0)
}

/// Takes the Channel out if nobody has it, and removes its files.
async fn remove(inner: &Inner, name: &BrokerName) -> io::Result<()> {
    let _making = inner.making.lock().await;
    // Who has registered by now is among the consumers below.
    let flushed = inner.lock().get(name).and_then(|broker| broker.journal().append(|_| {}).ok());
    if let Some(flushed) = flushed {
        let _ = flushed.await;
    }
    let taken = {
        let mut brokers = inner.lock();
        let unused = |broker: &Arc<Broker>| broker.is_free() && is_left(broker);
        // Under the lock: from here on nobody can get it.
        if brokers.get(name).is_some_and(unused) { brokers.remove(name) } else { None }
    };
    let Some(broker) = taken else { return Ok(()) };
    broker.close().await;
    let events = broker.journal().next_offset();
    inner.told();
    let names: Vec<BrokerName> = inner.lock().keys().cloned().collect();
    let (storage, name) = (inner.storage.clone(), name.clone());
    let removed = tokio::task::spawn_blocking(move || {
        decide(&*storage, &name)?;
        clear(&*storage, &name)?;
        index::write(&*storage, names.iter())?;
        forget(&*storage, &name)?;
        tracing::info!(broker = %name, accepted = events.0, "a Channel without object, Subscription and dead letter is removed");
        Ok(())
    });
    removed.await.unwrap_or_else(|e| Err(io::Error::other(e)))
}

/// The Brokers listed, but for those that were to be removed when the power went: they are now. Blocks, as all below.
pub(super) fn there(storage: &dyn Storage) -> io::Result<Vec<BrokerName>> {
    let mut names = index::read(storage)?;
    let mut gone = Vec::new();
    for name in &names {
        if is_decided(storage, name)? {
            clear(storage, name)?;
            gone.push(name.clone());
        }
    }
    if !gone.is_empty() {
        names.retain(|name| !gone.contains(name));
        index::write(storage, names.iter())?;
        gone.iter().try_for_each(|name| forget(storage, name))?;
    }
    Ok(names)
}

/// Removes what is left of a Channel of this name that was removed. Blocks.
pub(super) fn finish(storage: &dyn Storage, name: &BrokerName) -> io::Result<()> {
    if is_decided(storage, name)? {
        clear(storage, name)?;
        forget(storage, name)?;
    }
    Ok(())
}

/// Whether it was decided that the Channel goes.
fn is_decided(storage: &dyn Storage, name: &BrokerName) -> io::Result<bool> {
    match storage.open(&mark(name), false) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

fn decide(storage: &dyn Storage, name: &BrokerName) -> io::Result<()> {
    storage.open(&mark(name), true)?;
    // durable before: the first file that goes must not be missed by a Channel that stays.
    storage.sync_dir(&dir(name))
}

/// Removes its files, but for the mark.
fn clear(storage: &dyn Storage, name: &BrokerName) -> io::Result<()> {
    for folder in ["journal", "dead-letters"].map(|part| format!("{}/{part}", dir(name))) {
        match storage.list(&folder) {
            Ok(files) => files.iter().try_for_each(|file| storage.remove(&format!("{folder}/{file}")))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        }
        // durable before: without the mark, files that come back would be events that come back.
        storage.sync_dir(&folder)?;
    }
    Ok(())
}

/// Removes the mark: the folder is as if there had never been such a Channel.
fn forget(storage: &dyn Storage, name: &BrokerName) -> io::Result<()> {
    storage.remove(&mark(name))?;
    storage.sync_dir(&dir(name))
}

fn mark(name: &BrokerName) -> String {
    format!("{}/removed", dir(name))
}
