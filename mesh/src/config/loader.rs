//! Gathers what file, environment and flags say, remembers where each value came from, and hands it to the sections.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use thiserror::Error;
use toml::de::{DeTable, DeValue};

use super::key::{Key, Sections};
use super::value::{Labels, Raw, Setting};

/// Largest configuration file in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of a file.
    File(PathBuf, usize),
    /// A variable of the environment.
    Variable(String),
    /// A flag of the command.
    Flag(String),
    /// The key's own default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Why a configuration was refused. Each message names the place.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: cannot read the configuration: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path}:{line}: not valid TOML: {why}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser said.
        why: String,
    },
    /// The file has a key or section that does not exist.
    #[error("{path}:{line}: unknown {what} \"{name}\"{hint}", path = path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// `key` or `section`.
        what: &'static str,
        /// The name as given.
        name: String,
        /// The nearest known name, as the end of a sentence.
        hint: String,
    },
    /// A value is not of its key's kind, or outside of its range.
    #[error("{origin}: {key}: {why}")]
    Value {
        /// Where the value came from.
        origin: Origin,
        /// The key's full name.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Collects values; the last one given for a key counts.
#[derive(Debug, Default)]
pub struct Loader {
    given: BTreeMap<String, (Raw, Origin)>,
    file: Option<(PathBuf, String)>,
    variables: Vec<(String, String)>,
    flags: Vec<(String, String, String)>,
}

impl Loader {
    /// A loader that has nothing but defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(mut self, path: &Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(failed)?.len() > MAX_FILE_BYTES {
            return Err(failed(std::io::Error::other("larger than 1 MiB")));
        }
        let mut text = String::new();
        // A device has no length, and no end.
        let read = std::fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text));
        read.map_err(failed)?;
        self.file = Some((path.to_owned(), text));
        Ok(self)
    }

    /// Takes the variables whose name begins with `GODWIT_`.
    #[must_use]
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.variables.extend(variables.into_iter().filter(|(name, _)| name.starts_with("GODWIT_")));
        self
    }

    /// Sets the key `path` (`section.key`) by the flag named `flag`, if it was given.
    #[must_use]
    pub fn flag(mut self, path: &str, flag: &str, value: Option<impl Into<String>>) -> Self {
        if let Some(value) = value {
            self.flags.push((path.to_owned(), flag.to_owned(), value.into()));
        }
        self
    }

    /// Reads the configuration; the second value says which variables of the environment look like a mistake.
    ///
    /// # Errors
    /// When the file has an unknown key, or a value is not of its key's kind.
    pub fn finish<T: Sections>(mut self) -> Result<(T, Vec<String>), ConfigError> {
        let keys = T::keys();
        if let Some((path, text)) = self.file.take() {
            read_file(&path, &text, &keys, &mut self.given)?;
        }
        let mut warnings = Vec::new();
        for (name, value) in std::mem::take(&mut self.variables) {
            match keys.iter().find(|key| key.variable() == name) {
                Some(key) => {
                    self.given.insert(key.path(), (Raw::Text(value), Origin::Variable(name)));
                }
                None => warnings.extend(misspelt_variable(&name, &keys)),
            }
        }
        for (path, flag, value) in std::mem::take(&mut self.flags) {
            self.given.insert(path, (Raw::Text(value), Origin::Flag(flag)));
        }
        Ok((T::read(&self, &keys)?, warnings))
    }

    /// The value of the field `field` among the keys of one section.
    ///
    /// # Errors
    /// When it is not of the key's kind, or outside of its range.
    ///
    /// # Panics
    /// When the section has no such field, which the declaring macro excludes.
    pub fn value<T: Setting>(&self, keys: &[Key], field: &str) -> Result<T, ConfigError> {
        let key = keys.iter().find(|key| key.field == field).expect("the macro declares fields and keys together");
        let path = key.path();
        let (value, origin) = match self.given.get(&path) {
            Some((raw, origin)) => (T::from_raw(raw), origin),
            None => (T::from_text(key.default), &Origin::Default),
        };
        let value = value.and_then(|value| in_range(value, key, self.given.get(&path).map(|(raw, _)| raw)));
        value.map_err(|why| ConfigError::Value { origin: origin.clone(), key: path, why })
    }
}

/// The value, if it lies in the key's range; else what is wrong with it. `raw` is what was given for it.
fn in_range<T: Setting>(value: T, key: &Key, raw: Option<&Raw>) -> Result<T, String> {
    let (Some((least, most)), Some(quantity)) = (key.range, value.quantity()) else { return Ok(value) };
    let bound = |text| T::from_text(text).ok().and_then(|bound| bound.quantity());
    let (from, to) = (bound(least).unwrap_or(0), bound(most).unwrap_or(u64::MAX));
    if (from..=to).contains(&quantity) {
        return Ok(value);
    }
    let given = match raw {
        Some(Raw::Text(text)) => text.as_str(),
        _ => key.default,
    };
    Err(format!("{given} is out of range: {}", key.range_text()))
}

fn read_file(
    path: &Path,
    text: &str,
    keys: &[Key],
    given: &mut BTreeMap<String, (Raw, Origin)>,
) -> Result<(), ConfigError> {
    let line_at = |at: usize| 1 + text.bytes().take(at).filter(|b| *b == b'\n').count();
    let document = DeTable::parse(text).map_err(|e| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_at(e.span().map_or(0, |span| span.start)),
        why: e.message().to_owned(),
    })?;
    let unknown = |what, name: &str, at: usize, known: &mut dyn Iterator<Item = String>| ConfigError::Unknown {
        path: path.to_owned(),
        line: line_at(at),
        what,
        name: name.to_owned(),
        hint: nearest(name, known).map_or(String::new(), |near| format!("; did you mean \"{near}\"?")),
    };
    let mut take = |key: &Key, value: &DeValue<'_>, line: usize| {
        let origin = Origin::File(path.to_owned(), line);
        let raw = raw(value).map_err(|why| ConfigError::Value {
            origin: origin.clone(),
            key: key.path(),
            why: why.to_owned(),
        })?;
        given.insert(key.path(), (raw, origin));
        Ok(())
    };
    for (section, value) in document.get_ref() {
        let at = section.span().start;
        let section: &str = section.get_ref();
        let DeValue::Table(table) = value.get_ref() else {
            let mut names = keys.iter().map(Key::path);
            return Err(unknown("key", section, at, &mut names));
        };
        // What is a table may stand as a section of its own: `[services]` is `services` of `[resolve]`.
        if let Some(key) = keys.iter().find(|key| key.kind == Labels::KIND && key.name() == section) {
            take(key, value.get_ref(), line_at(at))?;
            continue;
        }
        if !keys.iter().any(|key| key.section == section) {
            let mut sections = keys.iter().map(|key| key.section.to_owned());
            return Err(unknown("section", section, at, &mut sections));
        }
        for (name, value) in table {
            let full = format!("{section}.{}", name.get_ref());
            let Some(key) = keys.iter().find(|key| key.path() == full) else {
                return Err(unknown("key", &full, name.span().start, &mut keys.iter().map(Key::path)));
            };
            take(key, value.get_ref(), line_at(name.span().start))?;
        }
    }
    Ok(())
}

fn raw(value: &DeValue<'_>) -> Result<Raw, &'static str> {
    Ok(match value {
        DeValue::Array(items) => {
            Raw::List(items.iter().map(|item| scalar(item.get_ref())).collect::<Option<_>>().ok_or("has a list in a list")?)
        }
        DeValue::Table(table) => Raw::Table(
            table
                .iter()
                .map(|(name, value)| Some((name.get_ref().to_string(), scalar(value.get_ref())?)))
                .collect::<Option<_>>()
                .ok_or("has a table in a table")?,
        ),
        other => Raw::Text(scalar(other).ok_or("is neither text nor a number nor true or false")?),
    })
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string())
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(yes) => Some(yes.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// A variable that nobody reads, but that is so near to one of ours that a mistake is likely.
fn misspelt_variable(name: &str, keys: &[Key]) -> Option<String> {
    let near = nearest(name, &mut keys.iter().map(Key::variable))?;
    Some(format!("environment variable {name} is not known; did you mean {near}?"))
}

/// The nearest of `known` to `name`, if one is near enough to be meant.
fn nearest(name: &str, known: &mut dyn Iterator<Item = String>) -> Option<String> {
    known
        .map(|candidate| (distance(name, &candidate), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance <= 2.max(candidate.len() / 3))
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's edit distance, over at most 64 bytes of each.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<u8>, Vec<u8>) = (a.bytes().take(64).collect(), b.bytes().take(64).collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            let best = (above + 1).min(left + 1).min(diagonal + usize::from(x != y));
            row[j] = left;
            diagonal = above;
            left = best;
        }
        row[b.len()] = left;
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Http, Log};

    crate::sections! {
        /// A configuration.
        struct Sample {
            /// HTTP.
            http: Http { listen = "127.0.0.1:8090" },
            /// Logs.
            log: Log,
        }
    }

    fn load(text: &str) -> Result<Sample, String> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("x.toml");
        std::fs::write(&path, text).expect("write");
        let prefix = format!("{}/", dir.path().display());
        let loader = Loader::new().file(&path).expect("readable");
        loader.finish::<Sample>().map(|(sample, _)| sample).map_err(|e| e.to_string().replace(&prefix, ""))
    }

    #[test]
    fn flags_win_over_the_environment_and_the_environment_over_the_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("x.toml");
        std::fs::write(&path, "[log]\nlevel = \"warn\"\nformat = \"json\"\n[http]\ninsecure = true\n").expect("write");
        let variables = [("GODWIT_LOG_LEVEL", "debug"), ("GODWIT_LOG_FORMAT", "text"), ("HOME", "/")];
        let loader = Loader::new()
            .file(&path)
            .expect("readable")
            .environment(variables.map(|(name, value)| (name.to_owned(), value.to_owned())))
            .flag("log.level", "--log-level", Some("trace"));
        let (sample, warnings) = loader.finish::<Sample>().expect("valid");
        assert_eq!(sample.log.level, "trace");
        assert_eq!(sample.log.format, crate::config::Format::Text);
        assert!(sample.http.insecure);
        assert_eq!(sample.http.listen.port(), 8090);
        assert!(warnings.is_empty());
    }

    #[test]
    fn an_unknown_key_is_refused_by_name_and_line_with_the_nearest_known_one() {
        let error = load("[log]\nlevel = \"info\"\n\n[http]\nlistne = \"127.0.0.1:1\"\n").expect_err("unknown key");
        assert_eq!(error, "x.toml:5: unknown key \"http.listne\"; did you mean \"http.listen\"?");
        let error = load("[htpp]\nlisten = \"127.0.0.1:1\"\n").expect_err("unknown section");
        assert_eq!(error, "x.toml:1: unknown section \"htpp\"; did you mean \"http\"?");
        let error = load("quite-something-else = 1\n").expect_err("a key without a section");
        assert_eq!(error, "x.toml:1: unknown key \"quite-something-else\"");
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_place() {
        let error = load("[http]\n# the port\nlisten = 8080\n").expect_err("no address");
        assert!(error.starts_with("x.toml:3: http.listen: \"8080\" is not an address"), "{error}");
        let error = load("[http\n").expect_err("not TOML");
        assert!(error.starts_with("x.toml:1: not valid TOML"), "{error}");
    }

    #[test]
    fn a_value_out_of_range_is_refused_with_its_place_and_the_range() {
        let error = load("[http]\nmax-connections = 0\n").expect_err("none at all");
        assert_eq!(error, "x.toml:2: http.max-connections: 0 is out of range: 1 to 65536");
        let error = load("[http]\nidle-timeout = \"1ms\"\n").expect_err("closed at once");
        assert_eq!(error, "x.toml:2: http.idle-timeout: 1ms is out of range: 1s to 1d");
        let error = Loader::new().flag("http.max-event", "--max-event", Some("100TiB")).finish::<Sample>();
        let error = error.expect_err("more than a process has").to_string();
        assert_eq!(error, "flag --max-event: http.max-event: 100TiB is out of range: 64KiB to 6MiB");
        assert!(load("[http]\nmax-connections = 1\nmax-event = \"64KiB\"\n").is_ok(), "the bounds belong to it");
    }

    #[test]
    fn a_misspelt_variable_is_reported_and_a_foreign_one_is_not() {
        let variables = [("GODWIT_LOG_LEVLE", "x"), ("GODWIT_GATEWAY_SERVICE_HOST", "10.0.0.1")];
        let loader = Loader::new().environment(variables.map(|(n, v)| (n.to_owned(), v.to_owned())));
        let (_, warnings) = loader.finish::<Sample>().expect("valid");
        assert_eq!(warnings, ["environment variable GODWIT_LOG_LEVLE is not known; did you mean GODWIT_LOG_LEVEL?"]);
    }

    #[test]
    fn the_distance_counts_edits() {
        assert_eq!(distance("listen", "listne"), 2);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
