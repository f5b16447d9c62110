//! Which events a Trigger wants.
//!
//! A [`Filter`] is compiled once, when its Trigger is applied; one that is not valid is refused then, never skipped later
//! (D29). Evaluation looks at context attributes only, never at the payload, and does not allocate. The dialects of
//! `spec.filters` join as further kinds of [`Node`].

mod attributes;

pub use attributes::FilterError;

use std::collections::BTreeMap;

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
}
