//! The account of what a journal has promised, and so of what may be found after a power cut at any instant.

use std::collections::BTreeMap;
use std::sync::Arc;

use godwit_mesh::journal::{Epoch, Offset};

/// An event's name and bytes. Its offset is its place in [`Held::events`].
pub(crate) type Named = (Epoch, Arc<[u8]>);

/// What a journal holds, but for retention.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Held {
    /// Every event ever appended, by offset.
    pub(crate) events: Vec<Named>,
    pub(crate) facts: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) consumers: BTreeMap<String, Cursor>,
}

/// A consumer, but for retention.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cursor {
    pub(crate) id: u32,
    pub(crate) since: Offset,
    /// The last cursor that was committed.
    pub(crate) to: Offset,
}

/// One commit that was tried.
#[derive(Debug)]
struct Attempt {
    /// The disk's instants before and after.
    began: usize,
    ended: usize,
    /// It was made durable, as the journal said.
    durable: bool,
    /// What the journal holds if it is there.
    held: Arc<Held>,
}

/// All commits of one run of a journal.
#[derive(Debug)]
pub(crate) struct Account {
    /// The instant at which the journal was open.
    opened: usize,
    /// What might be found before that.
    before: Vec<Arc<Held>>,
    /// What was found.
    base: Arc<Held>,
    attempts: Vec<Attempt>,
}

impl Account {
    /// Of a journal that began empty and was open at this instant.
    pub(crate) fn new(opened: usize) -> Self {
        let base = Arc::<Held>::default();
        Self { opened, before: vec![Arc::clone(&base)], base, attempts: Vec::new() }
    }

    /// Of a journal that was recovered: it might hold any of `before`, and was open at the instant `opened` with `base`.
    pub(crate) fn recovered(before: Vec<Arc<Held>>, base: Arc<Held>, opened: usize) -> Self {
        Self { opened, before, base, attempts: Vec::new() }
    }

    /// What is durable now.
    pub(crate) fn held(&self) -> &Arc<Held> {
        self.attempts.iter().rfind(|a| a.durable).map_or(&self.base, |a| &a.held)
    }

    /// Enters a commit: between the instants `began` and `ended` the journal tried to come to hold `held`.
    pub(crate) fn enter(&mut self, began: usize, ended: usize, durable: bool, held: Held) {
        self.attempts.push(Attempt { began, ended, durable, held: Arc::new(held) });
    }

    /// What may be found after a power cut at this instant: what was durable then, or the same with one commit that was being
    /// made or had been refused since.
    pub(crate) fn may_hold(&self, instant: usize) -> Vec<Arc<Held>> {
        if instant < self.opened {
            return self.before.clone();
        }
        let last = self.attempts.iter().rposition(|a| a.durable && a.ended <= instant);
        let base = last.and_then(|i| self.attempts.get(i)).map_or(&self.base, |a| &a.held);
        let since = self.attempts.iter().skip(last.map_or(0, |i| i + 1));
        let tried = since.take_while(|a| a.began < instant).map(|a| Arc::clone(&a.held));
        std::iter::once(Arc::clone(base)).chain(tried).collect()
    }

    /// Every event that ever had a name, in any attempt.
    pub(crate) fn all_named(&self) -> BTreeMap<(u64, u64), Arc<[u8]>> {
        let held = self.attempts.iter().map(|a| &a.held).chain(&self.before).chain([&self.base]);
        let named = held.flat_map(|h| h.events.iter().enumerate());
        named.map(|(offset, (epoch, body))| ((epoch.0, offset as u64), Arc::clone(body))).collect()
    }
}
