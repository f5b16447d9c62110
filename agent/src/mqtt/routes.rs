//! Which journal a topic goes to, and what the publish becomes on the way.
//!
//! Without a MqttSource everything goes to the broker `default/default`: the filter `#`, which by MQTT's own rule does not
//! stand for topics that begin with `$`. With any, only what one of their topic filters matches becomes an event. A publish becomes
//! one event: where several filters match, the one that says more of the topic has it, looked at level by level from the left (a
//! name before `+`, `+` before `#`).
//!
//! A [`Table`] never changes; another takes its place as a whole, between two reads of a connection.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use godwit_mesh::broker::Broker;
use godwit_mesh::event::{MqttPublish, encode_publish};
use godwit_mesh::journal::{Journal, WeakJournal};

use super::mapping::Mapping;

/// The table in force. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct Routes(Arc<RwLock<Arc<Table>>>);

/// One way that publishes go.
#[derive(Debug, Clone)]
pub struct Route {
    /// Where to.
    pub journal: Journal,
    /// The Broker whose journal it is, if it is one's: it may ask that no event is stored twice.
    pub broker: Option<Arc<Broker>>,
    /// What they become; `None`: what they become without a MqttSource.
    pub mapping: Option<Arc<Mapping>>,
}

/// All ways, and which topic goes which.
pub struct Table {
    routes: Vec<Route>,
    /// Topic filters with their route, in the order in which they are to be tried.
    filters: Vec<(String, usize)>,
    /// The filters whose first level is a name, by it; and the others.
    named: HashMap<String, Vec<usize>>,
    wild: Vec<usize>,
    /// Journals that may hold hand-shakes of earlier runs; a Channel among them may be removed.
    kept: Vec<WeakJournal>,
}

impl Routes {
    /// Everything the same way.
    #[must_use]
    pub fn all_to(route: Route) -> Self {
        Self::new(Table::new([route.journal.clone()], vec![(vec!["#".to_owned()], route)]))
    }

    /// This table, until another takes its place.
    #[must_use]
    pub fn new(table: Table) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(table))))
    }

    /// Puts another table in force. What a connection is just reading goes by the one before.
    pub fn replace(&self, table: Table) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    /// The table as it is now.
    pub(super) fn now(&self) -> Arc<Table> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Route {
    /// Into a Broker.
    #[must_use]
    pub fn to(broker: Arc<Broker>, mapping: Option<Arc<Mapping>>) -> Self {
        Self { journal: broker.journal().clone(), broker: Some(broker), mapping }
    }

    /// Into a journal that is no Broker's.
    #[must_use]
    pub fn to_journal(journal: Journal) -> Self {
        Self { journal, broker: None, mapping: None }
    }

    /// Appends the stored form of a publish that goes this way.
    #[inline]
    pub(super) fn encode(&self, out: &mut Vec<u8>, publish: &MqttPublish<'_>, arrival_ms: Option<u64>) {
        match &self.mapping {
            Some(mapping) => mapping.encode(out, publish, arrival_ms),
            None => encode_publish(out, publish, arrival_ms),
        }
    }
}

impl Table {
    /// Routes, each with its topic filters. `kept` are all journals that may hold hand-shakes of earlier runs, also those that no
    /// route names any more. Of two routes with the same filter the first has it.
    #[must_use]
    pub fn new(kept: impl IntoIterator<Item = Journal>, routes: Vec<(Vec<String>, Route)>) -> Self {
        let mut filters = Vec::new();
        let mut ways = Vec::with_capacity(routes.len());
        for (i, (topics, route)) in routes.into_iter().enumerate() {
            filters.extend(topics.into_iter().map(|topic| (topic, i)));
            ways.push(route);
        }
        filters.sort_by_key(|(filter, _)| precedence(filter));
        let mut named: HashMap<String, Vec<usize>> = HashMap::new();
        let mut wild = Vec::new();
        for (at, (filter, _)) in filters.iter().enumerate() {
            match filter.split('/').next().unwrap_or_default() {
                "+" | "#" => wild.push(at),
                first => named.entry(first.to_owned()).or_default().push(at),
            }
        }
        let kept = kept.into_iter().map(|journal| journal.downgrade()).collect();
        Self { routes: ways, filters, named, wild, kept }
    }

    /// Where a topic goes: the route and its index.
    #[inline]
    pub(super) fn of(&self, topic: &str) -> Option<(usize, &Route)> {
        let first = topic.split('/').next().unwrap_or_default();
        let matching = |at: &&usize| self.filters.get(**at).is_some_and(|(filter, _)| matches(filter, topic));
        // A filter that begins with a name comes before all that do not.
        let named = self.named.get(first).into_iter().flatten().find(matching);
        let at = named.or_else(|| self.wild.iter().find(matching))?;
        let (_, index) = self.filters.get(*at)?;
        Some((*index, self.routes.get(*index)?))
    }

    pub(super) fn route(&self, index: usize) -> Option<&Route> {
        self.routes.get(index)
    }

    pub(super) fn journals(&self) -> impl Iterator<Item = Journal> + Clone {
        self.kept.iter().filter_map(WeakJournal::upgrade)
    }
}

/// What a filter is sorted by: less comes first.
fn precedence(filter: &str) -> Vec<u8> {
    let rank = |level| match level {
        "#" => 2,
        "+" => 1,
        _ => 0,
    };
    filter.split('/').map(rank).collect()
}

/// Whether a topic filter stands for a topic (4.7.1).
fn matches(filter: &str, topic: &str) -> bool {
    if filter == "#" {
        return true;
    }
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} routes by {} topic filters", self.routes.len(), self.filters.len())
    }
}

#[cfg(test)]
mod tests {
    use godwit_mesh::journal::Options;
    use godwit_mesh::storage::Disk;

    use super::*;

    #[test]
    fn filters_stand_for_topics_as_mqtt_says() {
        for (filter, topic, wanted) in [
            ("#", "a/b", true),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/#", "ab", false),
            ("a/+", "a/b", true),
            ("a/+", "a", false),
            ("a/+", "a/b/c", false),
            ("+/+", "/x", true),
            ("+", "/x", false),
            ("a/b", "a/b", true),
            ("a/b", "a/b/", false),
        ] {
            assert_eq!(matches(filter, topic), wanted, "{filter} {topic}");
        }
    }

    #[test]
    fn of_several_filters_the_one_that_says_more_has_the_topic() {
        let dir = tempfile::tempdir().expect("a folder");
        let storage = Arc::new(Disk::new(dir.path()).expect("a folder"));
        let journal =
            Journal::open(storage, "j", Options { segment_bytes: 256 << 10, ..Options::default() }).expect("a journal");
        let way = |topics: &[&str]| {
            let topics = topics.iter().map(|t| (*t).to_owned()).collect();
            (topics, Route::to_journal(journal.clone()))
        };
        let table =
            Table::new(Vec::new(), vec![way(&["plant/#", "x"]), way(&["plant/+/alarm", "+/3"]), way(&["plant/3/#"])]);
        let of = |topic| table.of(topic).map(|(index, _)| index);
        assert_eq!(of("plant/1/flow"), Some(0));
        assert_eq!(of("plant/1/alarm"), Some(1));
        assert_eq!(of("plant/3/alarm"), Some(2));
        assert_eq!(of("plant"), Some(0));
        assert_eq!(of("x"), Some(0));
        assert_eq!(of("y/3"), Some(1));
        assert_eq!(of("y/4"), None);
        assert_eq!(of("x/y"), None);
    }
}
