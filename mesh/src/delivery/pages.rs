//! What was read of journals last, for all Triggers of the process: whoever needs an event that another has just read need not go to
//! the disk. Bounded in bytes, whatever the Triggers do; empty again when nobody has looked for a while.
//!
//! What a Broker's feed reads and what Triggers read that are behind are kept apart, so that those behind do not drive out what
//! everybody waits for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::journal::{DropReason, Epoch, Item, Offset};

/// Most bytes of each kind. The newest page is kept, however large it is.
const MOST_BYTES: usize = 512 << 10;
/// After this time without a look they are forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(2);
/// Larger pages are not copied together.
const COPY_BYTES: usize = 256 << 10;

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A Broker's feed.
    Feed,
    /// A Trigger by itself: its number. A page from which its filter has left out whole segments is of use to it alone.
    Behind(u64),
}

/// A piece of a journal: items that cover `[from, to)` without a gap.
#[derive(Debug)]
pub(crate) struct Page {
    journal: u64,
    owner: Owner,
    /// Whether whole segments were left out for its owner.
    private: bool,
    pub(crate) from: Offset,
    pub(crate) to: Offset,
    items: Vec<Item>,
    bytes: usize,
}

/// What a page says of one offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Look {
    Event(Epoch, Bytes),
    /// It cannot be read any more.
    Lost(DropReason),
    /// It is on no page.
    Absent,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pages(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    fed: Ring,
    behind: Ring,
    looked: Option<Instant>,
}

#[derive(Debug, Default)]
struct Ring {
    pages: VecDeque<Arc<Page>>,
    bytes: usize,
}

impl Pages {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what was read of `journal` from `from` on.
    pub(crate) fn add(&self, journal: u64, owner: Owner, from: Offset, items: Vec<Item>) -> Option<Arc<Page>> {
        let page = Arc::new(Page::new(journal, owner, from, items)?);
        let mut kept = self.lock();
        kept.looked = Some(Instant::now());
        let ring = if owner == Owner::Feed { &mut kept.fed } else { &mut kept.behind };
        ring.bytes += page.bytes;
        ring.pages.push_back(page.clone());
        while ring.bytes > MOST_BYTES
            && ring.pages.len() > 1
            && let Some(oldest) = ring.pages.pop_front()
        {
            ring.bytes -= oldest.bytes;
        }
        Some(page)
    }

    /// The page that has `offset`, if there is one that `number` may read.
    pub(crate) fn find(&self, journal: u64, offset: Offset, number: u64) -> Option<Arc<Page>> {
        let mut kept = self.lock();
        let has = |page: &&Arc<Page>| {
            page.journal == journal
                && (page.from..page.to).contains(&offset)
                && (!page.private || page.owner == Owner::Behind(number))
        };
        let found = kept.fed.pages.iter().rev().chain(kept.behind.pages.iter().rev()).find(has).cloned();
        if found.is_some() {
            kept.looked = Some(Instant::now());
        }
        found
    }

    /// What is known of one event.
    pub(crate) fn look(&self, journal: u64, offset: Offset, number: u64) -> Look {
        self.find(journal, offset, number).map_or(Look::Absent, |page| page.look(offset))
    }

    /// Forgets everything if nobody has looked for a while. True when nothing is kept.
    pub(crate) fn forget_old(&self) -> bool {
        let mut kept = self.lock();
        if kept.looked.is_some_and(|at| at.elapsed() >= FORGET_AFTER) {
            *kept = Kept::default();
        }
        kept.looked.is_none()
    }
}

impl Page {
    fn new(journal: u64, owner: Owner, from: Offset, mut items: Vec<Item>) -> Option<Self> {
        let to = end(items.last()?);
        let bodies: usize = items.iter().map(|item| if let Item::Event { body, .. } = item { body.len() } else { 0 }).sum();
        if bodies <= COPY_BYTES {
            // Their own bytes and no more: what they were read from may be a large buffer.
            let mut all = BytesMut::with_capacity(bodies);
            for item in &mut items {
                if let Item::Event { body, .. } = item {
                    all.extend_from_slice(body);
                    *body = all.split().freeze();
                }
            }
        }
        items.shrink_to_fit();
        let private = items.iter().any(|item| matches!(item, Item::Unwanted { .. }));
        let bytes = bodies + items.len() * size_of::<Item>();
        Some(Self { journal, owner, private, from, to, items, bytes })
    }

    /// The items from the one that covers `from` on.
    pub(crate) fn items(&self, from: Offset) -> &[Item] {
        self.items.get(self.items.partition_point(|item| end(item) <= from)..).unwrap_or_default()
    }

    fn look(&self, offset: Offset) -> Look {
        match self.items(offset).first() {
            Some(Item::Event { epoch, offset: at, body }) if *at == offset => Look::Event(*epoch, body.clone()),
            Some(Item::Skip { reason, .. }) => Look::Lost(*reason),
            _ => Look::Absent,
        }
    }
}

fn end(item: &Item) -> Offset {
    match item {
        Item::Event { offset, .. } => offset.plus(1),
        Item::Skip { to, .. } | Item::Unwanted { to, .. } => *to,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(offset: u64, size: usize) -> Item {
        Item::Event { epoch: Epoch(1), offset: Offset(offset), body: Bytes::from(vec![b'x'; size]) }
    }

    #[test]
    fn what_one_has_read_another_finds_and_the_oldest_gives_way() {
        let pages = Pages::default();
        let lost = Item::Skip { from: Offset(2), to: Offset(5), reason: DropReason::Quarantined };
        pages.add(1, Owner::Feed, Offset(0), vec![event(0, 10), event(1, 20), lost]);
        assert_eq!(pages.look(1, Offset(1), 7), Look::Event(Epoch(1), Bytes::from(vec![b'x'; 20])));
        assert_eq!(pages.look(1, Offset(4), 7), Look::Lost(DropReason::Quarantined));
        assert_eq!(pages.look(1, Offset(5), 7), Look::Absent);
        assert_eq!(pages.look(2, Offset(1), 7), Look::Absent, "another journal");
        pages.add(1, Owner::Behind(3), Offset(900), vec![event(900, MOST_BYTES)]);
        assert_ne!(pages.look(1, Offset(1), 7), Look::Absent, "those behind do not drive out what the feed has read");
        assert_ne!(pages.look(1, Offset(900), 7), Look::Absent);
        pages.add(1, Owner::Feed, Offset(5), vec![event(5, MOST_BYTES)]);
        assert_eq!(pages.look(1, Offset(1), 7), Look::Absent);
        assert_ne!(pages.look(1, Offset(5), 7), Look::Absent, "however large it is");
    }

    #[test]
    fn what_was_left_out_for_one_filter_is_no_answer_to_another() {
        let pages = Pages::default();
        let unwanted = Item::Unwanted { from: Offset(0), to: Offset(9) };
        pages.add(1, Owner::Behind(3), Offset(0), vec![unwanted, event(9, 1)]);
        assert!(pages.find(1, Offset(4), 3).is_some());
        assert!(pages.find(1, Offset(4), 4).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_when_nobody_has_looked_for_a_while() {
        let pages = Pages::default();
        pages.add(1, Owner::Feed, Offset(0), vec![event(0, 10)]);
        assert!(!pages.forget_old());
        tokio::time::advance(FORGET_AFTER).await;
        assert!(pages.forget_old());
        assert_eq!(pages.look(1, Offset(0), 1), Look::Absent);
    }
}
