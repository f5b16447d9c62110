//! EventTypes, found in what has passed.
//!
//! Nothing looks at events as they come. Twice a minute the newest few of each Broker are looked at, and the summaries that
//! sealed segments end with: what is frequent is found soon, what is rare when its segment is sealed, and all of it again after a start.
//! Most that are kept of a Broker is [`MOST`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::delivery::Triggers;
use crate::event::StoredEvent;
use crate::journal::{Item, Offset, ReadError, Summary};
use crate::manifest::{Kind, Object};
use crate::names::BrokerName;

/// Most EventTypes of one Broker.
pub const MOST: usize = 200;

/// Most sources of one type; where there are more, the type stands without.
const MOST_SOURCES: usize = 8;

/// Between two looks, in milliseconds.
const LOOK_EVERY_MS: u64 = 30_000;

/// Most events of a Broker that are looked at in one look, and bytes that are read at a time.
const SAMPLE: u64 = 256;
const READ_BYTES: usize = 64 << 10;

/// Most steps over sealed segments in one look.
const MOST_STEPS: usize = 10_000;

/// The types of one Broker, each with its sources; `None`: too many to tell.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    types: BTreeMap<String, Option<BTreeSet<String>>>,
    /// The first event of the segment that had no summary when it was looked at last.
    unsealed: Offset,
    /// Where the newest events were looked at last.
    until: Offset,
}

impl Found {
    /// Notes a type, and a source if that is known.
    fn note(&mut self, ty: &str, source: Option<&str>) {
        let room = self.len() < MOST;
        if ty.is_empty() || (!room && !self.types.contains_key(ty)) {
            return;
        }
        let sources = self.types.entry(ty.to_owned()).or_insert_with(|| Some(BTreeSet::new()));
        let (Some(known), Some(source)) = (sources.as_mut(), source.filter(|source| !source.is_empty())) else { return };
        if known.contains(source) {
            return;
        }
        if room && known.len() < MOST_SOURCES {
            known.insert(source.to_owned());
        } else {
            *sources = None;
        }
    }

    /// How many EventTypes that makes.
    fn len(&self) -> usize {
        self.types.values().map(|sources| sources.as_ref().map_or(1, |sources| sources.len().max(1))).sum()
    }

    /// The EventTypes of a Broker.
    fn objects(&self, broker: &BrokerName) -> Vec<Object> {
        let mut objects = Vec::new();
        for (ty, sources) in &self.types {
            let sources: Vec<Option<&str>> = match sources {
                Some(sources) if !sources.is_empty() => sources.iter().map(|source| Some(source.as_str())).collect(),
                _ => vec![None],
            };
            objects.extend(sources.into_iter().filter_map(|source| object(broker, ty, source)));
        }
        objects
    }
}

/// Looks again and again until `stop` is cancelled.
pub(super) async fn collect(triggers: Triggers, stop: CancellationToken) {
    let mut all: BTreeMap<BrokerName, Found> = BTreeMap::new();
    let clock = triggers.clock().clone();
    loop {
        let brokers = triggers.brokers().list();
        let before = all.len();
        all.retain(|name, _| brokers.iter().any(|broker| broker.name() == name));
        let mut changed = all.len() != before;
        for broker in brokers {
            let found = all.entry(broker.name().clone()).or_default();
            let before = found.types.clone();
            match stop.run_until_cancelled(look(&triggers, &broker, found)).await {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::debug!(broker = %broker.name(), %error, "looking for types of events"),
                None => return,
            }
            changed |= found.types != before;
        }
        if changed {
            triggers.sources().set_types(all.iter().flat_map(|(broker, found)| found.objects(broker)).collect());
        }
        let until = clock.elapsed_ms() + LOOK_EVERY_MS;
        if stop.run_until_cancelled(clock.sleep_until(until)).await.is_none() {
            return;
        }
    }
}

/// Looks at what has come to a Broker since the last look.
async fn look(triggers: &Triggers, broker: &Broker, found: &mut Found) -> Result<(), ReadError> {
    let journal = broker.journal();
    let next = journal.next_offset();
    if next == found.until {
        return Ok(());
    }
    let noted: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let notes = noted.clone();
    let interest = move |summary: &Summary| {
        let mut noted = notes.lock().unwrap_or_else(PoisonError::into_inner);
        noted.extend(summary.types.iter().flatten().take(MOST).cloned());
        false
    };
    let mut sealed = journal.reader(found.unsealed).with_interest(Box::new(interest));
    for _ in 0..MOST_STEPS {
        let items = sealed.try_next(1).await?;
        found.unsealed = sealed.position();
        // The segment that is being written has no summary yet: it is what the reader comes to at last.
        let first = items.iter().find_map(|item| if let Item::Event { offset, .. } = item { Some(*offset) } else { None });
        if let Some(first) = first {
            found.unsealed = first;
        }
        if first.is_some() || items.is_empty() {
            break;
        }
    }
    for ty in noted.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        found.note(ty, None);
    }
    let from = Offset(next.0.saturating_sub(SAMPLE).max(found.until.0));
    let mut newest = journal.reader(from);
    let mut scratch = String::new();
    while newest.position() < next {
        let items = newest.try_next(READ_BYTES).await?;
        if items.is_empty() {
            break;
        }
        for item in items {
            let Item::Event { epoch, offset, body } = item else { continue };
            let Ok(stored) = StoredEvent::new(body, epoch, offset, triggers.brokers().agent()) else { continue };
            let Some(ty) = stored.attribute_text("type", &mut scratch).map(str::to_owned) else { continue };
            found.note(&ty, stored.attribute_text("source", &mut scratch));
        }
    }
    found.until = next;
    Ok(())
}

/// An EventType as somebody might have written it.
fn object(broker: &BrokerName, ty: &str, source: Option<&str>) -> Option<Object> {
    let digest = Sha256::digest(format!("{broker}\n{ty}\n{}", source.unwrap_or_default()));
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let mut attributes = vec![json!({"name": "type", "required": true, "value": ty})];
    attributes.extend(source.map(|source| json!({"name": "source", "required": true, "value": source})));
    let resource = Kind::EventType.resource();
    let value: Value = json!({
        "apiVersion": resource.api_version(),
        "kind": resource.name,
        "metadata": {"name": format!("et-{name}"), "namespace": broker.namespace()},
        "spec": {
            "description": "found in what has passed",
            "reference": {
                "apiVersion": Kind::Broker.resource().api_version(),
                "kind": Kind::Broker.resource().name,
                "name": broker.name(),
                "namespace": broker.namespace(),
            },
            "attributes": attributes,
        },
    });
    Object::from_value("what has passed", "an EventType", value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_by_types_and_by_sources() {
        let mut found = Found::default();
        for n in 0..50 {
            found.note("many.sources", Some(&format!("/client/{n}")));
        }
        assert_eq!(found.len(), 1);
        for n in 0..1000 {
            found.note(&format!("type.{n}"), Some("/s"));
        }
        assert_eq!(found.len(), MOST);
        found.note("many.sources", Some("/more"));
        found.note("", None);
        assert_eq!(found.len(), MOST);
    }

    #[test]
    fn an_event_type_is_an_object_like_any() {
        let mut found = Found::default();
        found.note("a.b", Some("/x"));
        found.note("a.b", Some("/y"));
        found.note("c", None);
        let objects = found.objects(&BrokerName::default());
        assert_eq!(objects.len(), 3);
        let names: BTreeSet<String> = objects.iter().map(|object| object.name().name.clone()).collect();
        assert_eq!(names.len(), 3);
        let sources = objects.iter().filter(|o| o.current()["spec"]["attributes"][1]["value"].is_string()).count();
        assert_eq!(sources, 2);
    }
}
