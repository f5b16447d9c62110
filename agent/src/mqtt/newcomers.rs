//! Connections that have not sent their CONNECT yet, the oldest first: with all places taken it is they who make room.
//!
//! Opening a connection costs a peer nothing. Whoever opens as many as there may be and says nothing would otherwise keep every
//! device out until the time for CONNECT is over, again and again. An honest one is done in a moment, long before thousands have
//! come after it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The newcomers of a listener.
#[derive(Debug, Default)]
pub(super) struct Newcomers(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    by_age: BTreeMap<u64, oneshot::Sender<()>>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Newcomer<'a> {
    all: &'a Newcomers,
    number: u64,
}

impl Newcomers {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one. It must go when the receiver resolves.
    pub(super) fn add(&self) -> (u64, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.by_age.insert(number, sender);
        (number, receiver)
    }

    /// What takes it off again.
    pub(super) const fn guard(&self, number: u64) -> Newcomer<'_> {
        Newcomer { all: self, number }
    }

    /// Has the oldest go; `false` if there is none.
    pub(super) fn evict(&self) -> bool {
        // Dropping the sender tells it.
        self.lock().by_age.pop_first().is_some()
    }
}

impl Drop for Newcomer<'_> {
    fn drop(&mut self) {
        self.all.lock().by_age.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_who_has_been_met_stays() {
        let newcomers = Newcomers::default();
        let (first, mut first_goes) = newcomers.add();
        let (_second, mut second_goes) = newcomers.add();
        let (_third, mut third_goes) = newcomers.add();
        let goes = |receiver: &mut oneshot::Receiver<()>| receiver.try_recv() == Err(oneshot::error::TryRecvError::Closed);
        drop(newcomers.guard(first));
        assert!(newcomers.evict());
        assert!(goes(&mut first_goes), "it has been taken off");
        assert!(goes(&mut second_goes));
        assert!(!goes(&mut third_goes));
        assert!(newcomers.evict());
        assert!(!newcomers.evict(), "nobody is left");
    }
}
