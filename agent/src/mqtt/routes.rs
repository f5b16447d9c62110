//! Which journal a topic goes to.
//!
//! Without a source mapping everything goes to the broker `default/default`: the filter `#`, which by MQTT's own rule does not
//! stand for topics that begin with `$`. Mappings by manifest are to give another choice.

use std::fmt;
use std::sync::Arc;

use godwit_mesh::journal::Journal;

/// Chooses one of the journals for a topic, by its index; `None` where no mapping wants the topic.
pub type Choose = Arc<dyn Fn(&str) -> Option<usize> + Send + Sync>;

/// The journals that publishes go to, and the choice among them.
#[derive(Clone)]
pub struct Routes {
    journals: Vec<Journal>,
    choose: Choose,
}

impl Routes {
    /// Everything to one journal.
    #[must_use]
    pub fn all_to(journal: Journal) -> Self {
        Self::new(vec![journal], Arc::new(|_| Some(0)))
    }

    /// Several journals and a choice among them. All journals that may hold hand-shakes of earlier runs must be given, also
    /// those that `choose` no longer names.
    #[must_use]
    pub fn new(journals: Vec<Journal>, choose: Choose) -> Self {
        Self { journals, choose }
    }

    /// Where a topic goes: the journal and its index.
    #[inline]
    pub(super) fn of(&self, topic: &str) -> Option<(usize, &Journal)> {
        let index = (self.choose)(topic)?;
        Some((index, self.journals.get(index)?))
    }

    pub(super) fn journal(&self, index: usize) -> Option<&Journal> {
        self.journals.get(index)
    }

    pub(super) fn journals(&self) -> impl Iterator<Item = &Journal> {
        self.journals.iter()
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Routes to {} journals", self.journals.len())
    }
}
