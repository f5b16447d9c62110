//! Which events a Trigger wants.
//!
//! A [`Filter`] is compiled once, when its Trigger is applied; one that is not valid is refused then, never skipped later
//! (D29). Evaluation looks at context attributes only, never at the payload, and does not allocate. The dialects of
//! `spec.filters` join as further kinds of [`Node`].

mod attributes;

pub use attributes::FilterError;

use std::collections::BTreeMap;

use crate::event::StoredEvent;
use crate::journal::Summary;
use attributes::Attributes;

/// A compiled filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(Node);

/// One dialect of filter, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    /// `filter.attributes`.
    Attributes(Attributes),
}

impl Filter {
    /// Compiles `filter.attributes`: every attribute must have exactly the value given; an empty value asks for any that is
    /// not empty. No attributes: everything is wanted.
    ///
    /// # Errors
    /// When a key cannot be an attribute's name.
    pub fn attributes(attributes: &BTreeMap<String, String>) -> Result<Self, FilterError> {
        Attributes::compile(attributes).map(Node::Attributes).map(Self)
    }

    /// Whether a segment with this summary may hold an event that is wanted.
    #[must_use]
    pub fn wants(&self, summary: &Summary) -> bool {
        match &self.0 {
            Node::Attributes(attributes) => attributes.wants(summary),
        }
    }

    /// Whether the event is wanted. `scratch` is room for what must be derived; its content does not matter.
    #[must_use]
    pub fn matches(&self, event: &StoredEvent, scratch: &mut String) -> bool {
        match &self.0 {
            Node::Attributes(attributes) => attributes.matches(event, scratch),
        }
    }
}
