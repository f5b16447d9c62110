//! Where a state file is, and how a damaged one makes way for an empty one.

use std::cell::RefCell;
use std::io;
use std::panic;
use std::sync::{Arc, Once};

use tracing::warn;

use super::store::FORMAT;
use crate::storage::{Storage, read_exact_at};

/// Damaged files that are kept for a look at them; the oldest goes when there are more.
pub const MAX_DAMAGED: usize = 3;

/// What of a file [`newer`] looks at.
pub(crate) const HEAD_BYTES: usize = 200;

/// The version of redb's format that the head of a file names, once for each of its two commits, if it is a later one than ours. `None`
/// also where they differ, are none that redb is likely to have soon, or do not stand where a commit begins: that is damage.
pub(crate) fn newer(head: &[u8]) -> Option<u8> {
    const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
    // A version, two flags, and nothing.
    let commit = |at: usize| match head.get(at..at + 8)? {
        [version, 0 | 1, 0 | 1, 0 | 1, 0, 0, 0, 0] => Some(*version),
        _ => None,
    };
    let (one, other) = (commit(64)?, commit(192)?);
    (head.starts_with(MAGIC) && one == other && (FORMAT + 1..32).contains(&one)).then_some(one)
}

thread_local! {
    /// The file that this thread is at work on.
    static AT_WORK: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// A file of a storage.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) path: String,
}

impl Place {
    /// The folder of the file.
    pub(super) fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(dir, _)| dir)
    }

    /// The version of redb's format that the file is of, if that is a later one.
    pub(super) fn newer(&self) -> Option<u8> {
        let file = self.storage.open(&self.path, false).ok()?;
        let mut head = [0; HEAD_BYTES];
        read_exact_at(&*file, &mut head, 0).ok()?;
        newer(&head)
    }

    /// Renames the damaged file. Before the folder is synced a power cut leaves it under its old name, and the next start does
    /// the same again.
    ///
    /// # Errors
    /// Whatever the file system answers.
    pub(super) fn put_aside(&self, why: &str) -> io::Result<()> {
        let dir = self.folder();
        let name = self.path.rsplit('/').next().unwrap_or_default();
        let prefix = format!("{name}.damaged-");
        let mut numbers: Vec<u64> =
            self.storage.list(dir)?.iter().filter_map(|file| file.strip_prefix(&prefix)?.parse().ok()).collect();
        numbers.sort_unstable();
        let number = numbers.last().map_or(1, |n| n.saturating_add(1));
        let to = format!("{}.damaged-{number}", self.path);
        self.storage.rename(&self.path, &to)?;
        self.storage.sync_dir(dir)?;
        warn!(path = self.path, why, kept_as = to, "the state file is damaged: set aside, beginning with an empty one");
        let surplus = (numbers.len() + 1).saturating_sub(MAX_DAMAGED);
        for old in numbers.iter().take(surplus) {
            // Found again by the next one if it stays.
            if let Err(e) = self.storage.remove(&format!("{}.damaged-{old}", self.path)) {
                warn!(path = self.path, number = old, error = %e, "could not remove an old damaged state file");
            }
        }
        Ok(())
    }

    /// Does `work` on the file. In a program whose panics end the process (`panic = "abort"`), one in `work` first sets the file
    /// aside: the next start would meet the same damage, and end in the same way.
    pub(super) fn watched<T>(&self, work: impl FnOnce() -> T) -> T {
        static HOOK: Once = Once::new();
        if cfg!(panic = "abort") {
            HOOK.call_once(|| {
                let before = panic::take_hook();
                panic::set_hook(Box::new(move |panic| {
                    before(panic);
                    before_the_end(&panic.to_string());
                }));
            });
        }
        AT_WORK.replace(Some(self.clone()));
        let done = work();
        AT_WORK.take();
        done
    }
}

/// Sets the file aside that this thread is at work on, if there is one.
fn before_the_end(why: &str) {
    if let Some(place) = AT_WORK.take()
        && let Err(error) = place.put_aside(why)
    {
        warn!(path = place.path, %error, "the state file could not be set aside");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::SimDisk;

    #[test]
    fn the_end_of_the_process_sets_aside_what_it_was_at_work_on_and_nothing_else() {
        let disk = SimDisk::new();
        disk.open("state.redb", true).expect("made");
        let place = Place { storage: Arc::new(disk.clone()), path: "state.redb".to_owned() };
        place.watched(|| ());
        before_the_end("a panic elsewhere");
        assert_eq!(disk.paths(), ["state.redb"]);
        place.watched(|| before_the_end("a panic of redb"));
        assert_eq!(disk.paths(), ["state.redb.damaged-1"]);
    }
}
