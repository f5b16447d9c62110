//! Who has subscribed to what: a trie of topic levels.
//!
//! `+` stands for one level, `#` for this level and all below; neither stands for a first level that begins with `$`
//! (5.0, 4.7.2). One subscriber gets a message once, at the highest QoS of its matching subscriptions, with the identifiers
//! of all of them (5.0, 3.3.4).

use std::collections::HashMap;
use std::sync::Arc;

use super::session::Session;

/// What a subscription asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) qos: u8,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
    /// 0 is none.
    pub(super) identifier: u32,
}

#[derive(Debug)]
struct Subscription {
    session: Arc<Session>,
    options: Options,
}

#[derive(Debug, Default)]
struct Node {
    levels: HashMap<Box<str>, Node>,
    any: Option<Box<Node>>,
    /// Filters that end here.
    here: Vec<Subscription>,
    /// Filters that end here with `#`.
    below: Vec<Subscription>,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.levels.is_empty() && self.any.is_none() && self.here.is_empty() && self.below.is_empty()
    }
}

/// All subscriptions of a listener.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    root: Node,
    count: usize,
}

/// One subscriber that a message goes to.
#[derive(Debug)]
pub(super) struct Match {
    pub(super) session: Arc<Session>,
    pub(super) qos: u8,
    pub(super) retain_as_published: bool,
    pub(super) identifiers: Vec<u32>,
}

impl Subscriptions {
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// Adds a subscription, or changes the one with the same filter. The filter is valid.
    pub(super) fn insert(&mut self, filter: &str, session: &Arc<Session>, options: Options) {
        let mut node = &mut self.root;
        let mut below = false;
        for level in filter.split('/') {
            match level {
                "#" => below = true,
                "+" => node = node.any.get_or_insert_default(),
                level => node = node.levels.entry(level.into()).or_default(),
            }
        }
        let list = if below { &mut node.below } else { &mut node.here };
        match list.iter_mut().find(|s| Arc::ptr_eq(&s.session, session)) {
            Some(held) => held.options = options,
            None => {
                list.push(Subscription { session: Arc::clone(session), options });
                self.count += 1;
            }
        }
    }

    /// Removes a subscription; answers whether there was one.
    pub(super) fn remove(&mut self, filter: &str, session: &Arc<Session>) -> bool {
        let removed = Self::remove_from(&mut self.root, Some(filter), session);
        self.count -= usize::from(removed);
        removed
    }

    fn remove_from(node: &mut Node, rest: Option<&str>, session: &Arc<Session>) -> bool {
        let take = |list: &mut Vec<Subscription>| {
            let at = list.iter().position(|s| Arc::ptr_eq(&s.session, session));
            at.map(|at| list.swap_remove(at)).is_some()
        };
        let Some(rest) = rest else { return take(&mut node.here) };
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        match level {
            "#" => take(&mut node.below),
            "+" => {
                let Some(child) = &mut node.any else { return false };
                let removed = Self::remove_from(child, rest, session);
                if child.is_empty() {
                    node.any = None;
                }
                removed
            }
            level => {
                let Some(child) = node.levels.get_mut(level) else { return false };
                let removed = Self::remove_from(child, rest, session);
                if child.is_empty() {
                    node.levels.remove(level);
                }
                removed
            }
        }
    }

    /// The subscribers of `topic`. `publisher` is who published it, for No Local.
    pub(super) fn matches(&self, topic: &str, publisher: Option<&Arc<Session>>) -> Vec<Match> {
        let mut found = Vec::new();
        Self::walk(&self.root, Some(topic), topic.starts_with('$'), &mut |subscription| {
            let options = subscription.options;
            if options.no_local && publisher.is_some_and(|p| Arc::ptr_eq(p, &subscription.session)) {
                return;
            }
            let position = found.iter().position(|m: &Match| Arc::ptr_eq(&m.session, &subscription.session));
            if position.is_none() {
                found.push(Match {
                    session: Arc::clone(&subscription.session),
                    qos: 0,
                    retain_as_published: false,
                    identifiers: Vec::new(),
                });
            }
            let at = position.unwrap_or(found.len() - 1);
            if let Some(entry) = found.get_mut(at) {
                entry.qos = entry.qos.max(options.qos);
                entry.retain_as_published |= options.retain_as_published;
                if options.identifier != 0 {
                    entry.identifiers.push(options.identifier);
                }
            }
        });
        found
    }

    fn walk(node: &Node, rest: Option<&str>, no_wildcard: bool, found: &mut impl FnMut(&Subscription)) {
        if !no_wildcard {
            node.below.iter().for_each(&mut *found);
        }
        let Some(rest) = rest else {
            node.here.iter().for_each(found);
            return;
        };
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        if let Some(child) = node.levels.get(level) {
            Self::walk(child, rest, false, found);
        }
        if let (Some(child), false) = (&node.any, no_wildcard) {
            Self::walk(child, rest, false, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: Options = Options { qos: 0, no_local: false, retain_as_published: false, identifier: 0 };

    /// The standard's rule, level by level, without a trie.
    fn matches_by_definition(filter: &str, topic: &str) -> bool {
        if topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
            return false;
        }
        let (mut filters, mut topics) = (filter.split('/'), topic.split('/'));
        loop {
            match (filters.next(), topics.next()) {
                (Some("#"), _) | (None, None) => return true,
                (Some("+"), Some(_)) => {}
                (Some(f), Some(t)) if f == t => {}
                _ => return false,
            }
        }
    }

    #[test]
    fn the_examples_of_the_standard_hold() {
        let cases = [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "a/b", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
        ];
        for (filter, topic, expected) in cases {
            let session = Session::for_test("c");
            let mut subscriptions = Subscriptions::default();
            subscriptions.insert(filter, &session, PLAIN);
            assert_eq!(!subscriptions.matches(topic, None).is_empty(), expected, "{filter} {topic}");
            assert!(subscriptions.remove(filter, &session));
            assert!(subscriptions.root.is_empty() && subscriptions.len() == 0);
        }
    }

    #[test]
    fn overlapping_subscriptions_make_one_delivery_with_the_best_of_all() {
        let (one, two) = (Session::for_test("one"), Session::for_test("two"));
        let mut subscriptions = Subscriptions::default();
        subscriptions.insert("a/+", &one, Options { identifier: 3, ..PLAIN });
        subscriptions.insert("a/#", &one, Options { qos: 2, identifier: 4, retain_as_published: true, ..PLAIN });
        subscriptions.insert("a/b", &two, Options { no_local: true, ..PLAIN });
        let found = subscriptions.matches("a/b", Some(&two));
        assert_eq!(found.len(), 1);
        let mut identifiers = found[0].identifiers.clone();
        identifiers.sort_unstable();
        assert_eq!((found[0].qos, found[0].retain_as_published, identifiers), (2, true, vec![3, 4]));
        assert_eq!(subscriptions.matches("a/b", Some(&one)).len(), 2);
        subscriptions.insert("a/b", &two, PLAIN);
        assert_eq!((subscriptions.matches("a/b", Some(&two)).len(), subscriptions.len()), (2, 3));
    }

    proptest! {
        #[test]
        fn the_trie_matches_as_the_definition_does(
            filters in proptest::collection::vec("(\\$|[ab+]?)(/[ab+]?){0,3}(/#)?", 1..6), topic in "\\$?[ab]?(/[ab]?){0,4}",
        ) {
            let mut subscriptions = Subscriptions::default();
            let session = Session::for_test("c");
            let filters: Vec<_> = filters.iter().filter(|f| !f.is_empty()).collect();
            for filter in &filters {
                subscriptions.insert(filter, &session, PLAIN);
            }
            let expected = filters.iter().any(|filter| matches_by_definition(filter, &topic));
            prop_assert_eq!(!subscriptions.matches(&topic, None).is_empty(), expected, "{:?} {}", filters, topic);
            for filter in &filters {
                subscriptions.remove(filter, &session);
            }
            prop_assert!(subscriptions.root.is_empty());
        }
    }
}
