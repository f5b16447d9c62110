//! What fields each kind has: one table from which manifests are checked, defaulted and pruned, and from which OpenAPI
//! documents, `kubectl explain` and the CRDs of our own kinds are made.
//!
//! A [`Shape`] lists the fields of an object; whatever is not listed is unknown. A rule says what a list of fields cannot. The
//! tables are constants, so that they cost the agent some kilobytes of its image and no memory of their own.

mod check;
mod kinds;
mod shapes;

pub use check::{Findings, examine_spec};
pub use kinds::RESOURCES;
pub use shapes::METADATA;

use serde_json::{Map, Value};

use super::error::FieldError;
use super::kind::Kind;

/// Says what fields alone cannot; paths are relative to the object.
pub type Rule = fn(&Map<String, Value>) -> Result<(), FieldError>;

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub enum Type {
    /// A string.
    Text,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// An ISO 8601 duration, as in `PT0.5S`.
    Duration,
    /// A point in time, as in `2026-01-31T12:00:00Z`.
    Time,
    /// A whole number of 32 bits, not below this.
    Integer(i64),
    /// A whole number of 64 bits.
    Long,
    /// `true` or `false`.
    Boolean,
    /// Any object; what is in it is kept unread.
    AnyObject,
    /// Whatever.
    Any,
    /// An object whose values are all of this type, whatever their names.
    Map(&'static Type),
    /// A list of this type.
    List(&'static Type),
    /// An object with these fields.
    Object(&'static Shape),
}

/// The fields of an object.
#[derive(Debug)]
pub struct Shape {
    /// The fields, in the order in which they are shown.
    pub fields: &'static [Field],
    /// What else must hold.
    pub rule: Option<Rule>,
    /// Whether it refers to an object, in the namespace of the object that it stands in unless it says otherwise.
    pub reference: bool,
    /// Whether fields that are not listed are kept unread: kinds that are stored only, and whose fields we have no list of.
    pub open: bool,
}

/// One field of an object.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What its value may be.
    pub ty: Type,
    /// Whether it must be there.
    pub required: bool,
    /// What it is for, in one sentence.
    pub doc: &'static str,
}

/// A column of the tables that `get` prints.
#[derive(Debug)]
pub struct Column {
    /// Its title.
    pub name: &'static str,
    /// Where its value stands, as a JSON path.
    pub path: &'static str,
    /// 0: always shown; 1: only in wide tables.
    pub priority: u8,
}

/// A version in which a kind is served.
#[derive(Debug)]
pub struct Version {
    /// As in `v1`.
    pub name: &'static str,
    /// Whether it is served only for those who still write it.
    pub deprecated: bool,
    /// The fields of `spec`.
    pub spec: &'static Shape,
    /// The columns of tables.
    pub columns: &'static [Column],
}

/// Whether objects of a kind do what they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// They do.
    Yes,
    /// They are kept, and say in their condition that they do not.
    NotYet,
}

/// A kind as the API serves it.
#[derive(Debug)]
pub struct Resource {
    /// The kind.
    pub kind: Kind,
    /// Its name, as in `Trigger`.
    pub name: &'static str,
    /// Its API group.
    pub group: &'static str,
    /// Its versions; objects are stored in the first.
    pub versions: &'static [Version],
    /// Its name in paths, as in `triggers`.
    pub plural: &'static str,
    /// Its short names.
    pub short: &'static [&'static str],
    /// Groups of kinds that it is listed with, as in `kubectl get knative`.
    pub categories: &'static [&'static str],
    /// Whether it runs.
    pub runs: Runs,
    /// What it is for, in one sentence.
    pub doc: &'static str,
}

impl Resource {
    /// The API version in which objects are stored, as in `eventing.knative.dev/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        format!("{}/{}", self.group, self.stored().name)
    }

    /// The version in which objects are stored.
    ///
    /// # Panics
    /// Never: a test holds that every kind has a version.
    #[must_use]
    pub fn stored(&self) -> &'static Version {
        self.versions.first().expect("every kind has a version")
    }

    /// The version of this name.
    #[must_use]
    pub fn version(&self, name: &str) -> Option<&'static Version> {
        self.versions.iter().find(|v| v.name == name)
    }

    /// The name of one object in paths and on the command line, as in `trigger`.
    #[must_use]
    pub fn singular(&self) -> String {
        self.name.to_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_has_every_kind_at_its_place_and_no_name_twice() {
        let mut plurals = BTreeSet::new();
        for (at, resource) in RESOURCES.iter().enumerate() {
            assert_eq!(resource.kind as usize, at, "{}", resource.name);
            assert_eq!(resource.kind.to_string(), resource.name);
            assert!(!resource.versions.is_empty(), "{}", resource.name);
            assert!(plurals.insert((resource.group, resource.plural)), "{}", resource.plural);
        }
    }

    #[test]
    fn no_shape_has_a_field_twice_or_without_a_word_about_it() {
        fn look(ty: &Type, path: &str) {
            match ty {
                Type::Map(inner) | Type::List(inner) => look(inner, path),
                Type::Object(shape) => shape_of(shape, path),
                _ => {}
            }
        }
        fn shape_of(shape: &Shape, path: &str) {
            let mut names = BTreeSet::new();
            for field in shape.fields {
                assert!(names.insert(field.name), "{path}.{}", field.name);
                assert!(!field.doc.is_empty(), "{path}.{}", field.name);
                look(&field.ty, &format!("{path}.{}", field.name));
            }
        }
        for resource in &RESOURCES {
            for version in resource.versions {
                shape_of(version.spec, resource.name);
            }
        }
        shape_of(&METADATA, "metadata");
    }
}
