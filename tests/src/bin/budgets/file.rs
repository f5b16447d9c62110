//! `cross/budgets.toml`: the budgets, and what each figure is held against.

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budgets {
    /// Figures that must not be above a limit.
    #[serde(rename = "limit")]
    pub(crate) limits: Vec<Limit>,
    /// Figures that must not rise above what was recorded.
    #[serde(rename = "record")]
    pub(crate) records: Vec<Record>,
}

/// A figure that must not be above `most`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limit {
    /// What the measurement calls it.
    pub(crate) name: String,
    /// For people.
    pub(crate) what: String,
    /// Behind the figure.
    pub(crate) unit: String,
    /// The floor of what is good enough.
    pub(crate) most: f64,
    /// What we work towards.
    pub(crate) aim: f64,
}

/// A figure that moves with the code and is held within some hundredths of what was recorded.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// What the measurement calls it.
    pub(crate) name: String,
    /// For people.
    pub(crate) what: String,
    /// Behind the figure.
    pub(crate) unit: String,
    /// How far it may be off, in hundredths.
    pub(crate) percent: f64,
    /// One for each way of building that was recorded.
    pub(crate) figures: Vec<Recorded>,
}

/// What was recorded of one way of building.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recorded {
    /// As [`Build::rustc`].
    pub(crate) rustc: String,
    /// As [`Build::profile`].
    pub(crate) profile: String,
    /// The figure.
    pub(crate) figure: f64,
}

impl Recorded {
    /// Whether it was recorded of this way of building.
    pub(crate) fn is_of(&self, build: &Build) -> bool {
        self.rustc == build.rustc && self.profile == build.profile
    }
}

/// What decides which instructions a program has, beside its source.
#[derive(Debug, Clone)]
pub(crate) struct Build {
    /// The compiler's version, as in `1.95.0`.
    pub(crate) rustc: String,
    /// Cargo's profile.
    pub(crate) profile: String,
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rustc {}, profile {}", self.rustc, self.profile)
    }
}

impl Budgets {
    /// Reads the file.
    ///
    /// # Errors
    /// With the line that is wrong.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }
}
