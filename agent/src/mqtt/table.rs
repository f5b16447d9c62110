//! The table of sessions: those that hold something, and the bare names of clients that are away and left nothing behind.
//!
//! That a session exists is part of what a client must be told (5.0, 4.1): one that hears "no session" throws away what it has not
//! been acknowledged. So a session outlives its connection even where it holds no subscription and no open hand-shake, but then
//! all that is kept of it is its name and its time, some 80 bytes. When there are more sessions than allowed those of clients that
//! are away make room, the bare ones first, and of each kind the one that has been away for longest.

use std::collections::HashMap;
use std::sync::Arc;

use super::session::Session;

/// A session of which nothing is left but that it exists.
#[derive(Debug, Clone, Copy)]
struct Bare {
    away_since_ms: u64,
    expiry_seconds: u32,
}

impl Bare {
    fn expires_ms(self) -> u64 {
        self.away_since_ms.saturating_add(u64::from(self.expiry_seconds) * 1000)
    }
}

/// All sessions, by client id.
#[derive(Debug, Default)]
pub(super) struct Table {
    held: HashMap<Box<str>, Arc<Session>>,
    bare: HashMap<Box<str>, Bare>,
}

/// How many sessions made room for others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Evicted {
    /// Sessions that held nothing.
    pub(super) bare: usize,
    /// Sessions that held subscriptions, open hand-shakes or a will; they expire now.
    pub(super) holding: usize,
}

impl Table {
    /// Sessions of both kinds.
    pub(super) fn len(&self) -> usize {
        self.held.len() + self.bare.len()
    }

    /// The sessions of connected clients, and those that hold something.
    pub(super) fn held(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.held.values()
    }

    /// Adds a session that was kept elsewhere.
    pub(super) fn insert(&mut self, session: Arc<Session>) {
        self.held.insert(session.client_id.clone(), session);
    }

    /// The session of a client, made if there is none; and whether there was one.
    pub(super) fn enter(&mut self, client_id: &str, now_ms: u64) -> (Arc<Session>, bool) {
        if let Some(session) = self.held.get(client_id) {
            return (Arc::clone(session), true);
        }
        let bare = self.bare.remove(client_id).filter(|bare| bare.expires_ms() > now_ms);
        let session = Session::new(client_id);
        if let Some(bare) = bare {
            let mut state = session.lock();
            (state.away_since_ms, state.expiry_seconds) = (bare.away_since_ms, bare.expiry_seconds);
        }
        self.insert(Arc::clone(&session));
        (session, bare.is_some())
    }

    /// Keeps of a session only that it is there.
    pub(super) fn strip(&mut self, client_id: &str, away_since_ms: u64, expiry_seconds: u32) {
        self.held.remove(client_id);
        self.bare.insert(client_id.into(), Bare { away_since_ms, expiry_seconds });
    }

    /// Forgets a session.
    pub(super) fn remove(&mut self, client_id: &str) {
        self.held.remove(client_id);
    }

    /// Forgets the bare ones that have expired; answers when the next one will.
    pub(super) fn expire_bare(&mut self, now_ms: u64) -> u64 {
        let mut next_ms = u64::MAX;
        self.bare.retain(|_, bare| {
            let kept = bare.expires_ms() > now_ms;
            if kept {
                next_ms = next_ms.min(bare.expires_ms());
            }
            kept
        });
        if self.bare.is_empty() {
            self.bare = HashMap::new();
        }
        next_ms
    }

    /// If there are more than `most`, makes room for some: bare ones are forgotten, others that are away are made to expire.
    pub(super) fn make_room(&mut self, most: usize, now_ms: u64) -> Evicted {
        let ending = |session: &&Arc<Session>| {
            let state = session.lock();
            state.link.is_none() && state.expires_ms() <= now_ms
        };
        let mut evicted = Evicted::default();
        if self.len() <= most {
            return evicted;
        }
        let there = self.len() - self.held.values().filter(ending).count();
        if there <= most {
            return evicted;
        }
        let needed = there - most;
        let mut since: Vec<u64> = self.bare.values().map(|bare| bare.away_since_ms).collect();
        // Some more than needed, so that a crowd of newcomers does not cost a walk through all sessions each.
        evicted.bare = (needed + most / 64).min(since.len());
        if evicted.bare > 0 {
            let (_, &mut newest, _) = since.select_nth_unstable(evicted.bare - 1);
            let older = since.iter().filter(|since_ms| **since_ms < newest).count();
            let mut as_old = evicted.bare - older;
            self.bare.retain(|_, bare| {
                let tie = bare.away_since_ms == newest && as_old > 0;
                as_old -= usize::from(tie);
                bare.away_since_ms >= newest && !tie
            });
        }
        let needed = needed.saturating_sub(evicted.bare);
        if needed > 0 {
            let away = |session: &Arc<Session>| {
                let state = session.lock();
                (state.link.is_none() && state.expires_ms() > now_ms).then_some(state.away_since_ms)
            };
            let mut away: Vec<_> = self.held.values().filter_map(|s| Some((away(s)?, Arc::clone(s)))).collect();
            away.sort_unstable_by_key(|(since_ms, _)| *since_ms);
            for (_, session) in away.into_iter().take(needed) {
                session.lock().expiry_seconds = 0;
                evicted.holding += 1;
            }
        }
        evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(table: &mut Table, name: &str, away_since_ms: u64) {
        let (session, _) = table.enter(name, 0);
        let mut state = session.lock();
        (state.away_since_ms, state.expiry_seconds) = (away_since_ms, 3600);
    }

    #[test]
    fn a_bare_session_is_there_until_it_expires() {
        let mut table = Table::default();
        assert!(!table.enter("a", 0).1);
        table.strip("a", 0, 1);
        assert_eq!((table.len(), table.held().count()), (1, 0));
        assert!(table.enter("a", 999).1);
        table.strip("a", 999, 1);
        assert_eq!(table.expire_bare(1_000), 1_999);
        assert_eq!(table.expire_bare(1_999), u64::MAX);
        assert!(!table.enter("a", 1_999).1);
        table.strip("a", 1_999, 1);
        assert!(!table.enter("a", 5_000).1, "nobody has looked, and it has expired all the same");
    }

    #[test]
    fn who_has_been_away_for_longest_makes_room_and_bare_ones_first() {
        let mut table = Table::default();
        holding(&mut table, "old", 1);
        holding(&mut table, "new", 9);
        for (name, since) in [("b1", 5), ("b2", 6), ("b3", 6)] {
            table.enter(name, 0);
            table.strip(name, since, 3600);
        }
        assert_eq!(table.make_room(5, 10), Evicted::default());
        assert_eq!(table.make_room(3, 10), Evicted { bare: 2, holding: 0 });
        assert!(!table.bare.contains_key("b1"));
        assert_eq!(table.make_room(1, 10), Evicted { bare: 1, holding: 1 });
        let old = table.held.get("old").expect("until it is let go in order").lock().expiry_seconds;
        let new = table.held.get("new").expect("kept").lock().expiry_seconds;
        assert_eq!((old, new), (0, 3600));
        assert_eq!(table.make_room(1, 10), Evicted::default(), "one that ends already is not counted again");
    }
}
