//! What a key is: its name, kind, default and description, declared in one place with the field that holds it.

use super::loader::{ConfigError, Loader};

/// One key of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The section's name, as in `[section]`.
    pub section: &'static str,
    /// The field's name in Rust.
    pub field: &'static str,
    /// What kind of value it takes, for people.
    pub kind: &'static str,
    /// The default as text; empty when the key is not set by default.
    pub default: &'static str,
    /// The least and the most it may be, as text of its kind; for every kind that is a quantity.
    pub range: Option<(&'static str, &'static str)>,
    /// The description, line by line.
    pub doc: &'static [&'static str],
}

impl Key {
    /// The key's name within its section, in the file's spelling.
    #[must_use]
    pub fn name(&self) -> String {
        self.field.replace('_', "-")
    }

    /// The full name: `section.key`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name())
    }

    /// The variable of the environment that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("GODWIT_{}_{}", self.section, self.field).to_uppercase()
    }

    /// The description in one line.
    #[must_use]
    pub fn description(&self) -> String {
        self.doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
    }
}

impl Key {
    /// The range in words: `1 to 4096`. Empty for what is no quantity.
    #[must_use]
    pub fn range_text(&self) -> String {
        self.range.map_or_else(String::new, |(least, most)| format!("{least} to {most}"))
    }
}

/// The keys of a whole configuration, in the order of the file.
pub type KeySet = Vec<Key>;

/// One section of a configuration; declared with [`crate::settings!`].
pub trait Section: Sized {
    /// Its keys under the section name `section`, with `defaults` (field, text) in place of its own.
    fn keys(section: &'static str, defaults: &[(&'static str, &'static str)]) -> KeySet;

    /// Reads the section from what was loaded.
    ///
    /// # Errors
    /// When a value is not of its key's kind.
    fn read(loader: &Loader, keys: &[Key]) -> Result<Self, ConfigError>;
}

/// A whole configuration; declared with [`crate::sections!`].
pub trait Sections: Sized {
    /// All keys.
    fn keys() -> KeySet;

    /// The sections' names and descriptions, in the order of the file.
    fn sections() -> Vec<(&'static str, &'static [&'static str])>;

    /// Reads all sections from what was loaded.
    ///
    /// # Errors
    /// When a value is not of its key's kind.
    fn read(loader: &Loader, keys: &[Key]) -> Result<Self, ConfigError>;
}

/// Declares a section: a struct whose fields have a description and a default given as text (empty: not set). A quantity (number,
/// size, duration) also has a range, `in "1" ..= "4096"`, outside of which it is refused.
#[macro_export]
macro_rules! settings {
    ($(#[$outer:meta])* $vis:vis struct $name:ident {
        $($(#[doc = $doc:literal])+ $field:ident : $kind:ty = $default:literal $(in $least:literal ..= $most:literal)?),* $(,)?
    }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, PartialEq)]
        $vis struct $name { $($(#[doc = $doc])+ pub $field: $kind),* }

        impl $crate::config::Section for $name {
            fn keys(
                section: &'static str,
                defaults: &[(&'static str, &'static str)],
            ) -> $crate::config::KeySet {
                let given = |field: &str, own| defaults.iter().find(|(f, _)| *f == field).map_or(own, |(_, text)| *text);
                vec![$($crate::config::Key {
                    section,
                    field: stringify!($field),
                    kind: <$kind as $crate::config::Setting>::KIND,
                    default: given(stringify!($field), $default),
                    range: None$(.or(Some(($least, $most))))?,
                    doc: &[$($doc),+],
                }),*]
            }

            fn read(
                loader: &$crate::config::Loader,
                keys: &[$crate::config::Key],
            ) -> Result<Self, $crate::config::ConfigError> {
                Ok(Self { $($field: loader.value(keys, stringify!($field))?),* })
            }
        }
    };
}

/// Declares a configuration: its sections in the order of the file, each with the defaults that it has here.
#[macro_export]
macro_rules! sections {
    ($(#[$outer:meta])* $vis:vis struct $name:ident {
        $($(#[doc = $doc:literal])+ $section:ident : $kind:ty $({ $($field:ident = $default:literal),* $(,)? })?),* $(,)?
    }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, PartialEq)]
        $vis struct $name { $($(#[doc = $doc])+ pub $section: $kind),* }

        impl $crate::config::Sections for $name {
            fn keys() -> $crate::config::KeySet {
                let mut keys = Vec::new();
                $(keys.extend(<$kind as $crate::config::Section>::keys(
                    stringify!($section),
                    &[$($((stringify!($field), $default)),*)?],
                ));)*
                keys
            }

            fn sections() -> Vec<(&'static str, &'static [&'static str])> {
                vec![$((stringify!($section), &[$($doc),+])),*]
            }

            fn read(
                loader: &$crate::config::Loader,
                keys: &[$crate::config::Key],
            ) -> Result<Self, $crate::config::ConfigError> {
                Ok(Self { $($section: {
                    let own: Vec<_> = keys.iter().copied().filter(|k| k.section == stringify!($section)).collect();
                    <$kind as $crate::config::Section>::read(loader, &own)?
                }),* })
            }
        }
    };
}
