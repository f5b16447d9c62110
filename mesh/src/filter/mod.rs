//! Which events a Trigger wants.
//!
//! A [`Filter`] is compiled once, when its Trigger is applied; one that is not valid is refused then, never skipped later
//! (D29). Evaluation looks at context attributes only, never at the payload, and does not allocate once its buffer has grown.
//!
//! A filter never fails: a CESQL expression that meets an error, or whose value is no Boolean, does not hold, and is counted
//! in the [`Verdict`].

mod attributes;
pub mod cesql;
mod dialect;
mod explain;
mod texts;

pub use dialect::{Dialect, MAX_NESTED, MAX_PARTS};
pub use explain::Explanation;

use std::collections::BTreeMap;

use thiserror::Error;

use crate::event::StoredEvent;
use crate::journal::{Summary, Values};
use attributes::Attributes;
use cesql::Expression;
use texts::Texts;

/// A filter that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {why}")]
pub struct FilterError {
    /// The path of the part that is wrong, within what was to be compiled: `[0].any[1].prefix[Type]`.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

/// What a filter says of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the event is wanted.
    pub wanted: bool,
    /// How many expressions met an error, or had a value that is no Boolean.
    pub faults: u32,
}

/// A compiled filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(Node);

/// One dialect of filter, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    /// `filter.attributes`.
    Attributes(Attributes),
    /// `exact`, `prefix`, `suffix`.
    Texts(Texts),
    /// `all`, and the list `filters` itself.
    All(Box<[Node]>),
    Any(Box<[Node]>),
    Not(Box<Node>),
    Cesql(Box<Expression>),
}

impl Filter {
    /// Everything is wanted.
    #[must_use]
    pub fn all() -> Self {
        Self(Node::All(Box::default()))
    }

    /// Compiles `filter.attributes`: every attribute must have exactly the value given; an empty value asks for any that is
    /// not empty. No attributes: everything is wanted.
    ///
    /// # Errors
    /// When a key cannot be an attribute's name.
    pub fn attributes(attributes: &BTreeMap<String, String>) -> Result<Self, FilterError> {
        Attributes::compile(attributes).map(Node::Attributes).map(Self)
    }

    /// Compiles `filters`: all of them must hold. None: everything is wanted.
    ///
    /// # Errors
    /// The first thing that is wrong in any of them.
    pub fn dialects(filters: &[Dialect]) -> Result<Self, FilterError> {
        dialect::compile(filters).map(Self)
    }

    /// Whether a segment with this summary may hold an event that is wanted.
    #[must_use]
    pub fn wants(&self, summary: &Summary) -> bool {
        self.0.wants(summary)
    }

    /// What the filter says of an event. `scratch` is room for what must be derived; its content does not matter.
    #[must_use]
    pub fn judge(&self, event: &StoredEvent, scratch: &mut String) -> Verdict {
        let mut faults = 0;
        let wanted = self.0.holds(event, scratch, &mut faults);
        Verdict { wanted, faults }
    }

    /// The same in words: which part decided, and why.
    #[must_use]
    pub fn explain(&self, event: &StoredEvent) -> Explanation {
        explain::explain(&self.0, event)
    }
}

impl Node {
    /// The parts of `all` and `any` are asked in the order in which they are written, until one decides.
    fn holds(&self, event: &StoredEvent, scratch: &mut String, faults: &mut u32) -> bool {
        match self {
            Self::Attributes(attributes) => attributes.matches(event, scratch),
            Self::Texts(texts) => texts.matches(event, scratch),
            Self::All(parts) => parts.iter().all(|part| part.holds(event, scratch, faults)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(event, scratch, faults)),
            Self::Not(part) => !part.holds(event, scratch, faults),
            Self::Cesql(expression) => expression.test(event, scratch).unwrap_or_else(|_| {
                *faults += 1;
                false
            }),
        }
    }

    fn wants(&self, summary: &Summary) -> bool {
        match self {
            Self::Attributes(attributes) => attributes.wants(summary),
            Self::Texts(texts) => texts.wants(summary),
            Self::All(parts) => parts.iter().all(|part| part.wants(summary)),
            Self::Any(parts) => parts.iter().any(|part| part.wants(summary)),
            // What holds for no event of a segment must be known to be so, and a summary only says what may be there.
            Self::Not(_) => true,
            Self::Cesql(expression) => {
                let may_be = |attribute, values| {
                    expression.required(attribute).is_none_or(|wanted| some(values, |value| value == wanted))
                };
                may_be("type", &summary.types) && may_be("source", &summary.sources)
            }
        }
    }
}

/// Whether a summary may list a value that holds.
fn some(values: &Values, holds: impl Fn(&str) -> bool) -> bool {
    values.as_ref().is_none_or(|values| values.iter().any(|value| value == crate::broker::UNTOLD || holds(value)))
}
