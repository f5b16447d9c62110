//! Applying a set of Triggers.
//!
//! It has two halves. The first may fail and changes nothing that runs: it checks the set against the others, makes Brokers, and
//! makes the new Triggers' uids and cursors durable. The second cannot fail: it puts the set in the place of the owner's last one
//! and starts, replaces and ends tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thiserror::Error;

use super::ahead::Buried;
use super::dead_letter::Mark;
use super::dispatcher::Dispatcher;
use super::identity::{self, Identity};
use super::live::{Live, consumer_name};
use super::plan::Plan;
use super::retired;
use super::store::append;
use super::triggers::{Entry, Inner, Owner, Table};
use crate::broker::{Broker, BrokerError, BrokerSettings};
use crate::journal::{Refused, Start};
use crate::manifest::{BrokerObject, Manifests, ObjectKey, TriggerSpec};
use crate::names::BrokerName;

/// Why a set was not applied. Nothing of it runs; what ran before goes on.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// Another owner brought an object of this name.
    #[error("{object}: metadata.name: the name is held by {holder}; delete it there, or choose another name")]
    Held {
        /// Kind, namespace and name.
        object: String,
        /// Who holds it.
        holder: String,
    },
    /// A Trigger cannot move to another Broker (D27).
    #[error("{trigger}: {field}: cannot change from {from} to {to}; delete the object first, or choose another name")]
    BrokerChanged {
        /// The Trigger, or Subscription.
        trigger: String,
        /// The field that names it.
        field: &'static str,
        /// Its Broker.
        from: String,
        /// The Broker in the new set.
        to: String,
    },
    /// A Broker could not be made.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The Triggers' uids or cursors could not be kept.
    #[error("keeping the Triggers of broker {broker}: {source}")]
    Keep {
        /// The Broker whose journal refused.
        broker: BrokerName,
        /// Why.
        source: Refused,
    },
    /// The system has no random numbers for a uid.
    #[error("no random numbers to be had for a uid: {0}")]
    Random(#[from] getrandom::Error),
    /// The process is stopping.
    #[error("delivery is stopping")]
    Stopping,
}

impl Inner {
    pub(super) async fn apply(&self, owner: Owner, set: Manifests, revision: u64, forget: bool) -> Result<(), ApplyError> {
        let _applying = self.applying.lock().await;
        if self.stop.is_cancelled() {
            return Err(ApplyError::Stopping);
        }
        self.check(owner, &set)?;
        for broker in set.brokers().filter(|b| b.foreign_class.is_none()) {
            self.context.brokers.ensure(&broker.name).await?;
        }
        let (plans, identities) = self.keep(owner, &set).await?;
        if forget {
            self.forget(owner, &set).await;
        }
        self.run(owner, revision, set, forget, plans, &identities);
        self.changes.send_modify(|n| *n += 1);
        Ok(())
    }

    /// Refuses names that others hold, and Triggers that would change their Broker.
    pub(super) fn check(&self, owner: Owner, set: &Manifests) -> Result<(), ApplyError> {
        let table = self.table();
        for object in set.objects() {
            let holds = |other: &Manifests| other.objects().any(|o| o.kind() == object.kind() && o.name() == object.name());
            let holder = table.sets.iter().find(|(other, (_, brought))| **other != owner && holds(brought));
            if let Some((holder, _)) = holder {
                return Err(ApplyError::Held { object: object.to_string(), holder: holder.to_string() });
            }
        }
        let kept: BTreeMap<ObjectKey, (BrokerName, Identity)> = self
            .context
            .brokers
            .list()
            .iter()
            .flat_map(|b| Identity::all(b.journal()).into_iter().map(|(key, id)| (key, (b.name().clone(), id))))
            .collect();
        for trigger in set.triggers() {
            let key = trigger.key();
            let running = table.entries.get(&key).map(|entry| entry.plan.broker.clone());
            let kept = kept.get(&key);
            if let Some((_, id)) = kept.filter(|(_, id)| id.owner != owner.name()) {
                return Err(ApplyError::Held { object: key.to_string(), holder: id.owner.clone() });
            }
            let from = running.or_else(|| kept.map(|(broker, _)| broker.clone()));
            if let Some(from) = from.filter(|from| *from != trigger.broker) {
                return Err(ApplyError::BrokerChanged {
                    trigger: key.to_string(),
                    field: if trigger.broker.is_channel() { "spec.channel" } else { "spec.broker" },
                    from: from.to_string(),
                    to: trigger.broker.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Makes uids and cursors of the set's Triggers durable, where their Brokers are there.
    async fn keep(&self, owner: Owner, set: &Manifests) -> Result<(Vec<Plan>, BTreeMap<ObjectKey, Identity>), ApplyError> {
        let objects: BTreeMap<&BrokerName, &BrokerObject> = set.brokers().map(|b| (&b.name, b)).collect();
        let others = self.broker_objects(Some(owner));
        let plans: Vec<Plan> = set
            .triggers()
            .map(|t| Plan::new(t, objects.get(&t.broker).copied().or_else(|| others.get(&t.broker))))
            .collect();
        let mut identities = BTreeMap::new();
        let mut brokers: BTreeMap<BrokerName, Arc<Broker>> = BTreeMap::new();
        for plan in &plans {
            let key = plan.key();
            let known = self.table().entries.get(&key).map(|entry| entry.live.uid.clone());
            let broker = self.context.brokers.get(&plan.broker);
            let kept = broker.as_ref().and_then(|b| Identity::find(b.journal(), &key));
            let identity = match (kept, known) {
                (Some(kept), _) => kept,
                (None, Some(uid)) => Identity { uid, owner: owner.name().to_owned() },
                (None, None) => {
                    let drawn = self.draw(owner, set, &key)?;
                    if let Some(broker) = &broker {
                        append(broker.journal(), |append| append.put(&identity::key(&key), &drawn.encode()))
                            .await
                            .map_err(|source| ApplyError::Keep { broker: plan.broker.clone(), source })?;
                    }
                    drawn
                }
            };
            identities.insert(key, identity);
            if let Some(broker) = broker {
                brokers.insert(plan.broker.clone(), broker);
            }
        }
        for plan in &plans {
            let key = plan.key();
            let (Some(broker), Some(identity)) = (brokers.get(&plan.broker), identities.get(&key)) else { continue };
            let name = consumer_name(&key, &identity.uid);
            let _registered = broker.journal().consumer(&name, plan.start(), plan.hold);
        }
        for (name, broker) in brokers {
            // durable before: after this, no event may pass the new Triggers by.
            append(broker.journal(), |_| {}).await.map_err(|source| ApplyError::Keep { broker: name, source })?;
        }
        Ok((plans, identities))
    }

    /// The identity of a new Trigger. Its uid is that of the object where the API has given it one.
    fn draw(&self, owner: Owner, set: &Manifests, key: &ObjectKey) -> Result<Identity, getrandom::Error> {
        let given = set.triggers().find(|t| t.key() == *key).and_then(|t| t.uid.clone()).filter(|_| owner == Owner::Api);
        match given {
            Some(uid) => Ok(Identity { uid, owner: owner.name().to_owned() }),
            None => Identity::draw(owner),
        }
    }

    /// Ends and forgets the Triggers that `owner` brought and `set` does not have.
    async fn forget(&self, owner: Owner, set: &Manifests) {
        let stay: BTreeSet<ObjectKey> = set.triggers().map(TriggerSpec::key).collect();
        let gone: Vec<Entry> = {
            let mut table = self.table();
            let names: Vec<_> = table
                .entries
                .values()
                .filter(|entry| entry.live.owner == owner && !stay.contains(&entry.live.key))
                .map(|entry| entry.live.key.clone())
                .collect();
            names.iter().filter_map(|key| table.entries.remove(key)).collect()
        };
        for entry in gone {
            // Nobody waits for what it was about: it ends where it stands.
            entry.task.abort();
            let _ = entry.task.await;
            if let Some(broker) = self.context.brokers.get(&entry.plan.broker) {
                forget_one(&broker, &entry.live.key, &entry.live.uid).await;
            }
        }
        if owner == Owner::Api {
            // What the API holds is deleted one by one. A set that lacks more than that lost it to a damaged file: those Triggers
            // go on where they stood when they are applied again.
            return;
        }
        for broker in self.context.brokers.list() {
            for (key, identity) in Identity::all(broker.journal()) {
                if identity.owner == owner.name() && !stay.contains(&key) {
                    forget_one(&broker, &key, &identity.uid).await;
                }
            }
        }
    }

    /// Puts the set in place and starts or replaces tasks. Cannot fail.
    fn run(
        &self,
        owner: Owner,
        revision: u64,
        set: Manifests,
        forget: bool,
        plans: Vec<Plan>,
        identities: &BTreeMap<ObjectKey, Identity>,
    ) {
        {
            let mut table = self.table();
            if forget {
                table.older.remove(&owner)
            } else {
                table.older.insert(owner)
            };
            table.sets.insert(owner, (revision, set));
        }
        let objects = self.broker_objects(None);
        for broker in self.context.brokers.list() {
            // A Broker goes on without an object; a Channel is nobody's then.
            let closed = broker.name().is_channel();
            let none = || BrokerSettings { uplink: !closed, closed, ..BrokerSettings::default() };
            broker.set(objects.get(broker.name()).map_or_else(none, BrokerObject::settings));
        }
        self.context.brokers.share();
        let mut table = self.table();
        for plan in plans {
            let Some(identity) = identities.get(&plan.key()) else { continue };
            self.start(&mut table, plan, owner, &identity.uid);
        }
        // What a Broker lends to its Triggers may have changed for other owners' too.
        let lent: Vec<_> = table
            .sets
            .values()
            .flat_map(|(_, set)| set.triggers())
            .filter_map(|trigger| {
                let entry = table.entries.get(&trigger.key())?;
                let plan = Plan::new(trigger, objects.get(&trigger.broker));
                (*entry.plan != plan).then(|| (plan, entry.live.owner, entry.live.uid.clone()))
            })
            .collect();
        for (plan, owner, uid) in lent {
            self.start(&mut table, plan, owner, &uid);
        }
    }

    /// Starts a task, or replaces one whose plan has changed. The new one begins when the old one has ended, at its cursor.
    fn start(&self, table: &mut Table, plan: Plan, owner: Owner, uid: &str) {
        let key = plan.key();
        let old = match table.entries.remove(&key) {
            Some(entry) if *entry.plan == plan && entry.live.uid == uid => {
                table.entries.insert(key, entry);
                return;
            }
            old => old,
        };
        let plan = Arc::new(plan);
        let live = Arc::new(Live::new(key.clone(), owner, uid.to_owned(), self.changes.clone()));
        live.resolved(&plan.resolve(&self.context.brokers, &self.context.settings), &self.context.settings.address);
        let stop = self.stop.child_token();
        let dispatcher = Dispatcher::new(self.context.clone(), plan.clone(), live.clone(), stop.clone());
        let task = self.tasks.spawn(async move {
            if let Some(old) = old {
                old.stop.cancel();
                let _ = old.task.await;
            }
            dispatcher.run().await;
        });
        table.entries.insert(key, Entry { plan, live, stop, task });
    }

    /// Registers the Triggers that waited for a Broker, from its first event on, before anyone can append to it.
    pub(super) fn greet(&self, broker: &Arc<Broker>) {
        for entry in self.table().entries.values().filter(|entry| entry.plan.broker == *broker.name()) {
            let identity = Identity { uid: entry.live.uid.clone(), owner: entry.live.owner.name().to_owned() };
            let key = identity::key(&entry.live.key);
            // Not awaited: it is durable with, or before, the first event. A refusal means that the disk is gone.
            if let Err(error) = broker.journal().append(|append| append.put(&key, &identity.encode())) {
                tracing::warn!(trigger = %entry.live.key, broker = %broker.name(), %error, "the Trigger's uid is not kept");
            }
            let _registered = broker.journal().consumer(&entry.live.consumer(), Start::Earliest, entry.plan.hold);
        }
    }

    /// The Brokers' objects that are applied, but for one owner's.
    fn broker_objects(&self, but: Option<Owner>) -> BTreeMap<BrokerName, BrokerObject> {
        let table = self.table();
        let sets = table.sets.iter().filter(|(owner, _)| Some(**owner) != but);
        sets.flat_map(|(_, (_, set))| set.brokers()).map(|b| (b.name.clone(), b.clone())).collect()
    }
}

/// Removes a Trigger's cursor, uid and last mark.
async fn forget_one(broker: &Broker, of: &ObjectKey, uid: &str) {
    let (journal, consumer) = (broker.journal(), consumer_name(of, uid));
    let waiting = journal.consumers().iter().find(|c| c.name == consumer).map(|c| journal.next_offset().since(c.cursor));
    if let Some(events @ 1..) = waiting {
        tracing::warn!(trigger = %of, broker = %broker.name(), events,
            "a Trigger was removed that had not come to the end: what it would have sent of these is not sent");
    }
    journal.remove_consumer(&consumer);
    let key = identity::key(of);
    let gone = retired::key(uid);
    let forgotten = append(broker.journal(), |append| {
        append.delete(&key);
        append.delete(&gone);
    })
    .await;
    if let Err(error) = forgotten {
        tracing::warn!(trigger = %of, broker = %broker.name(), %error, "a removed Trigger's uid stays behind");
    }
    if let Ok(Some(dead_letters)) = broker.existing_dead_letters().await {
        // A mark that stays behind is never looked at again: its uid is gone.
        let _ = append(dead_letters, |append| {
            append.delete(&Mark::key(uid));
            append.delete(&Buried::key(uid));
        })
        .await;
    }
}
