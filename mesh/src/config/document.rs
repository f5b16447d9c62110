//! The configuration as documents: an explained TOML file and a table for the reference, both made from the declared keys.
//!
//! The files in `config/` and `docs/configuration.md` are compared with this by a test, so that they cannot differ from the code.

use super::key::{Key, Sections};

/// Widest line of a comment.
const WIDTH: usize = 110;

/// An explained file with every key at its default; keys without a default are commented out.
#[must_use]
pub fn to_toml<T: Sections>(head: &str) -> String {
    let keys = T::keys();
    let mut text = comment(head);
    for (section, doc) in T::sections() {
        text.push('\n');
        text.push_str(&comment(&joined(doc)));
        text.push_str(&format!("[{section}]\n"));
        for key in keys.iter().filter(|key| key.section == section) {
            text.push('\n');
            text.push_str(&comment(&match key.range {
                Some((least, most)) => format!("{} From {least} to {most}.", key.description()),
                None => key.description(),
            }));
            let off = if key.default.is_empty() && !always_there(key) { "# " } else { "" };
            text.push_str(&format!("{off}{} = {}\n", key.name(), value(key)));
        }
    }
    text
}

/// A table for each section: key, kind, default, range, description.
#[must_use]
pub fn to_markdown<T: Sections>() -> String {
    let keys = T::keys();
    let mut text = String::new();
    for (section, doc) in T::sections() {
        text.push_str(&format!("\n### `[{section}]`\n\n{}\n\n", joined(doc)));
        text.push_str("| key | kind | default | range | what it says |\n|---|---|---|---|---|\n");
        for key in keys.iter().filter(|key| key.section == section) {
            let default = if key.default.is_empty() { "not set".to_owned() } else { format!("`{}`", key.default) };
            let (name, kind, doc) = (key.name(), key.kind, key.description().replace('|', "\\|"));
            text.push_str(&format!("| `{name}` | {kind} | {default} | {} | {doc} |\n", key.range_text()));
        }
    }
    text
}

fn joined(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// Lists and tables are empty rather than absent.
fn always_there(key: &Key) -> bool {
    matches!(key.kind, "list" | "table")
}

fn value(key: &Key) -> String {
    match key.kind {
        "number" if key.default.is_empty() => key.range.map_or("0", |(least, _)| least).to_owned(),
        "number" | "true or false" => key.default.to_owned(),
        "list" => "[]".to_owned(),
        "table" => "{}".to_owned(),
        _ => format!("\"{}\"", key.default),
    }
}

/// Text as lines of a comment, broken at words.
fn comment(text: &str) -> String {
    let mut lines = String::new();
    for paragraph in text.lines() {
        let mut line = String::from("#");
        for word in paragraph.split_whitespace() {
            if line.len() + 1 + word.len() > WIDTH {
                lines.push_str(&line);
                lines.push('\n');
                line = String::from("#");
            }
            line.push(' ');
            line.push_str(word);
        }
        lines.push_str(&line);
        lines.push('\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Loader, Log, Storage};

    crate::sections! {
        /// A configuration.
        #[allow(dead_code)]
        struct Sample {
            /// What is kept.
            storage: Storage,
            /// Logs.
            log: Log,
        }
    }

    #[test]
    fn the_explained_file_is_the_defaults() {
        let text = to_toml::<Sample>("A head.");
        assert!(text.starts_with("# A head.\n\n# What is kept.\n[storage]\n"), "{text}");
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("x.toml");
        std::fs::write(&path, &text).expect("written");
        let (from_file, _) = Loader::new().file(&path).expect("readable").finish::<Sample>().expect("valid");
        let (defaults, _) = Loader::new().finish::<Sample>().expect("valid");
        assert_eq!(from_file, defaults);
    }

    #[test]
    fn the_table_names_every_key() {
        let text = to_markdown::<Sample>();
        for key in Sample::keys() {
            assert!(text.contains(&format!("| `{}` |", key.name())), "{}", key.path());
        }
    }
}
