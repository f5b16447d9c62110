//! Which dead letters are meant.

use std::collections::BTreeSet;

use crate::delivery::DeadLetter;
use crate::event::StoredEvent;
use crate::filter::{Dialect, Filter, FilterError};
use crate::journal::Offset;
use crate::names::AgentId;

/// Most letters that can be named one by one.
pub const MAX_NAMED: usize = 256;

/// What dead letters must have in common. All that is given must hold; nothing given means all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// These, by their offset in the dead-letter journal; empty: any.
    pub offsets: BTreeSet<u64>,
    /// Those of this Trigger, `namespace/name`, or of the `uplink`.
    pub trigger: Option<String>,
    /// Those put there at or after this, in milliseconds since 1970. A letter without a time was put there at no known time.
    pub since_ms: Option<u64>,
    /// Those put there before this, in milliseconds since 1970.
    pub until_ms: Option<u64>,
    /// Those whose event this filter wants.
    pub filter: Option<Filter>,
}

impl Selection {
    /// Whether anything was given.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// The filter of attributes with exact values and of a CESQL expression; none where there are neither.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn filter(exact: &[(String, String)], cesql: Option<&str>) -> Result<Option<Filter>, FilterError> {
        if exact.is_empty() && cesql.is_none() {
            return Ok(None);
        }
        let one = |(name, value): &(String, String)| Dialect {
            exact: Some(std::iter::once((name.clone(), value.clone())).collect()),
            ..Dialect::default()
        };
        let mut dialects: Vec<Dialect> = exact.iter().map(one).collect();
        dialects.extend(cesql.map(|cesql| Dialect { cesql: Some(cesql.to_owned()), ..Dialect::default() }));
        Filter::dialects(&dialects).map(Some)
    }

    /// Whether the letter at `offset` is meant.
    pub(super) fn takes(&self, offset: Offset, letter: &DeadLetter, agent: Option<&AgentId>, scratch: &mut String) -> bool {
        let head = &letter.head;
        if !self.offsets.is_empty() && !self.offsets.contains(&offset.0) {
            return false;
        }
        if self.trigger.as_ref().is_some_and(|trigger| *trigger != head.trigger) {
            return false;
        }
        if self.since_ms.is_some_and(|since| head.at_ms.is_none_or(|at| at < since))
            || self.until_ms.is_some_and(|until| head.at_ms.is_none_or(|at| at >= until))
        {
            return false;
        }
        let Some(filter) = &self.filter else { return true };
        event_of(letter, agent).is_some_and(|event| filter.judge(&event, scratch).wanted)
    }

    /// The first letter that can be meant.
    pub(super) fn first(&self) -> Offset {
        Offset(self.offsets.first().copied().unwrap_or(0))
    }

    /// The offset behind the last letter that can be meant.
    pub(super) fn end(&self) -> Offset {
        self.offsets.last().map_or(Offset(u64::MAX), |last| Offset(*last).plus(1))
    }
}

/// The event of a letter as it was in its Broker's journal; none where it cannot be read.
pub(crate) fn event_of<'a>(letter: &'a DeadLetter, agent: Option<&'a AgentId>) -> Option<StoredEvent> {
    let epoch = letter.head.epoch()?;
    StoredEvent::new(letter.body.clone(), epoch, Offset(letter.head.offset), agent).ok()
}
