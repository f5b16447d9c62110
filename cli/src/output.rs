//! What goes to the terminal: tables, JSON and YAML, colours only where someone can see them.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// What the server said, as JSON.
    Json,
    /// The same as YAML.
    Yaml,
    /// Names only, one a line.
    Name,
}

/// The emphasis that a piece of text gets on a terminal.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Style {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
}

/// Wraps `text` in the codes for `style` if `on`.
pub(crate) fn paint(on: bool, style: Style, text: &str) -> String {
    if !on {
        return text.to_owned();
    }
    let code = match style {
        Style::Bold => 1,
        Style::Dim => 2,
        Style::Red => 31,
        Style::Green => 32,
        Style::Yellow => 33,
        Style::Cyan => 36,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Whether stdout gets colours.
pub(crate) fn stdout_colours() -> bool {
    godwit_mesh::observe::colours(&io::stdout())
}

/// Whether stderr can show a line that changes in place.
pub(crate) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Prints an error with its causes on stderr.
pub(crate) fn error(error: &anyhow::Error) {
    let label = paint(godwit_mesh::observe::colours(&io::stderr()), Style::Red, "error:");
    let _ = writeln!(io::stderr(), "{label} {}", godwit_mesh::process::told(error.as_ref()));
}

/// Makes text from outside harmless on a terminal: control characters become `\u{…}`.
pub(crate) fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_unicode().collect::<Vec<_>>() } else { vec![c] }).collect()
}

/// A table with a head; the columns are as wide as they need to be.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these titles.
    pub(crate) fn new(titles: &[&str]) -> Self {
        Self { rows: vec![titles.iter().map(|title| (*title).to_owned()).collect()] }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }

    /// The table as text.
    pub(crate) fn render(&self, colours: bool) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width + 3 - cell.chars().count()));
            }
            let line = line.trim_end();
            text.push_str(&if number == 0 { paint(colours, Style::Bold, line) } else { line.to_owned() });
            text.push('\n');
        }
        text
    }
}

/// Prints to stdout and flushes it.
///
/// # Errors
/// What the system said, a closed pipe included.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// A JSON value as indented JSON or YAML.
pub(crate) fn document(value: &Value, format: Format) -> anyhow::Result<String> {
    Ok(if format == Format::Yaml {
        serde_saphyr::to_string(value)?
    } else {
        let mut text = serde_json::to_string_pretty(value)?;
        text.push('\n');
        text
    })
}

/// A number of bytes for people: `1.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut whole = bytes;
    let mut tenths = 0;
    let mut unit = 0;
    while whole >= 1024 && unit + 1 < UNITS.len() {
        tenths = (whole % 1024) * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or("B");
    if unit == 0 { format!("{whole} {name}") } else { format!("{whole}.{tenths} {name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_harmless() {
        let mut table = Table::new(&["NAME", "PENDING"]);
        table.row(vec!["default/default".to_owned(), "7".to_owned()]);
        table.row(vec!["x\u{1b}[31m".to_owned(), "10000".to_owned()]);
        let text = table.render(false);
        assert_eq!(text, "NAME              PENDING\ndefault/default   7\nx\\u{1b}[31m       10000\n");
    }

    #[test]
    fn sizes_are_for_people() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(8 << 20), "8.0 MiB");
    }
}
