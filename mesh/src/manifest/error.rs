//! Why a manifest was refused.

use std::fmt;

/// Where a manifest is wrong, and why. Displayed as one line: `file: Kind namespace/name: field: why`, without the parts
/// that are not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    /// The file, or another word for where the object came from.
    pub file: String,
    /// `Kind namespace/name`, as far as the object could be read; else its place in the file.
    pub object: Option<String>,
    /// The full path of the field, as in `spec.delivery.backoffDelay`.
    pub field: Option<String>,
    /// What is wrong and, where that helps, what to write instead.
    pub why: String,
}

/// In what way a field is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It has to be there.
    Missing,
    /// Its value cannot be.
    Invalid,
}

impl ManifestError {
    /// An error about a whole file.
    pub(crate) fn file(file: &str, why: impl fmt::Display) -> Self {
        Self { file: file.to_owned(), object: None, field: None, why: why.to_string() }
    }

    /// An error about one field of one object.
    pub(crate) fn field(file: &str, object: &str, field: &str, why: impl fmt::Display) -> Self {
        Self {
            file: file.to_owned(),
            object: Some(object.to_owned()),
            field: Some(field.to_owned()).filter(|f| !f.is_empty()),
            why: why.to_string(),
        }
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(object) = &self.object {
            write!(f, ": {object}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ": {field}")?;
        }
        write!(f, ": {}", self.why)
    }
}

impl std::error::Error for ManifestError {}

/// What is wrong with one field of an object; [`ManifestError`] adds the object and the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The full path of the field, as in `spec.delivery.backoffDelay`; empty: the object itself.
    pub field: String,
    /// What is wrong and, where that helps, what to write instead.
    pub why: String,
    /// In what way.
    pub fault: Fault,
}

impl FieldError {
    /// A field whose value cannot be.
    #[must_use]
    pub fn new(field: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { field: field.into(), why: why.to_string(), fault: Fault::Invalid }
    }

    /// The same for a field that is not there.
    #[must_use]
    pub fn missing(mut self) -> Self {
        self.fault = Fault::Missing;
        self
    }

    /// Puts the path of the enclosing object in front.
    pub(crate) fn within(mut self, parent: &str) -> Self {
        self.field = if self.field.is_empty() { parent.to_owned() } else { format!("{parent}.{}", self.field) };
        self
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.why)
    }
}
