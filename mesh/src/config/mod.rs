//! Configuration: a TOML file, the environment over it, flags over both.
//!
//! A key is `section.key`, the environment's `GODWIT_<SECTION>_<KEY>`. Each section is declared once with [`settings!`]: the
//! field, its default as text and its description, from which come the struct, the reader and the list that the documents
//! are checked against. An unknown key in a file is refused by name and line with the nearest known one; an unknown variable
//! of the environment is only reported, since Kubernetes puts `GODWIT_…_SERVICE_HOST` and its like there by itself.

mod document;
mod key;
mod loader;
mod shared;
mod value;

pub use document::{to_markdown, to_toml};
pub use key::{Key, KeySet, Section, Sections};
pub use loader::{ConfigError, Loader, Origin};
pub use shared::{Auth, Format, Http, Log, Resolve, Storage, StoragePolicy, Tracing};
pub use value::{Files, Labels, Raw, Setting, Size};

pub use crate::{choice, sections, settings};
