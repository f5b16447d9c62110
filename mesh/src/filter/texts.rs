//! `exact`, `prefix` and `suffix`: the texts of attributes, letter for letter.

use std::collections::BTreeMap;

use super::attributes::is_name;
use super::{FilterError, some};
use crate::event::StoredEvent;
use crate::journal::Summary;

/// How the text given relates to the attribute's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    Exact,
    Prefix,
    Suffix,
}

impl Relation {
    /// The name of the dialect.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Prefix => "prefix",
            Self::Suffix => "suffix",
        }
    }

    pub(super) fn holds(self, attribute: &str, given: &str) -> bool {
        match self {
            Self::Exact => attribute == given,
            Self::Prefix => attribute.starts_with(given),
            Self::Suffix => attribute.ends_with(given),
        }
    }
}

/// All of these must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Texts {
    pub(super) relation: Relation,
    pub(super) given: Box<[(Box<str>, Box<str>)]>,
}

impl Texts {
    /// Checks names (D29) and values; neither may be empty. Paths are relative to the dialect's object.
    pub(super) fn compile(relation: Relation, given: &BTreeMap<String, String>) -> Result<Self, FilterError> {
        let dialect = relation.name();
        let wrong = |field: String, why: &str| Err(FilterError { field, why: why.to_owned() });
        if given.is_empty() {
            return wrong(format!(".{dialect}"), "needs at least one attribute");
        }
        for (name, value) in given {
            if !is_name(name) {
                let cut: String = name.chars().take(64).collect();
                return Err(FilterError { field: format!(".{dialect}[{cut}]"), why: super::attributes::no_name(&cut) });
            }
            if value.is_empty() {
                return wrong(format!(".{dialect}.{name}"), "must not be empty");
            }
        }
        let given = given.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect();
        Ok(Self { relation, given })
    }

    /// An attribute that is absent does not match. One that is no text has its canonical form.
    pub(super) fn matches(&self, event: &StoredEvent, scratch: &mut String) -> bool {
        self.given
            .iter()
            .all(|(name, given)| event.attribute_text(name, scratch).is_some_and(|text| self.relation.holds(text, given)))
    }

    /// Whether a segment with this summary may hold a match.
    pub(super) fn wants(&self, summary: &Summary) -> bool {
        self.given.iter().all(|(name, given)| match &**name {
            "type" => some(&summary.types, |value| self.relation.holds(value, given)),
            "source" => some(&summary.sources, |value| self.relation.holds(value, given)),
            _ => true,
        })
    }
}
