//! A page of the documentation, run as its reader would: each block of commands, in order, compared with what the page says comes
//! out. So page and program cannot drift apart.
//!
//! Blocks of a page, by the words behind their three backticks:
//! - `sh`: commands for the reader's terminal; they must succeed.
//! - `sh look`: commands that only look; done again until they print what the page says, because what they look at takes time.
//! - `sh NAME`: one command that goes on running, in a terminal of its own; one of the same name takes over when the first has ended.
//! - `text`: what the block before it printed. White space counts as one space, and `…` stands for anything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::process::{Line, Process};
use crate::wait::{self, Seen};

/// How long a look may take until it sees what the page says, and a terminal's command until it has ended.
const LIMIT: Duration = Duration::from_secs(30);

/// One block of a page.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    /// The line on which its text begins, from 1.
    line: usize,
    /// What stands behind the backticks.
    kind: String,
    text: String,
}

/// A reader of a page: a folder, a terminal, and the programs that run in others.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    logs: PathBuf,
    /// What stands on the page, and what stands for it here: ports, because the page's own may be taken.
    instead: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    running: BTreeMap<String, Process>,
}

impl Reader {
    /// A reader who works in `folder`; what other terminals show goes to `logs`.
    #[must_use]
    pub fn new(folder: &Path, logs: &Path) -> Self {
        let (folder, logs) = (folder.to_owned(), logs.to_owned());
        Self { folder, logs, instead: Vec::new(), environment: Vec::new(), running: BTreeMap::new() }
    }

    /// Takes `here` for each `there` of the page.
    pub fn instead(&mut self, there: &str, here: &str) {
        self.instead.push((there.to_owned(), here.to_owned()));
    }

    /// Sets a variable in the terminal.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// What runs in the terminal called `name`.
    ///
    /// # Errors
    /// When the page has not come to it.
    pub fn running(&self, name: &str) -> Result<&Process> {
        self.running.get(name).with_context(|| format!("nothing runs in the terminal {name}"))
    }

    /// Follows a page from its beginning to the heading `until`, or to its end, and gives the rest of it.
    ///
    /// # Errors
    /// When a command fails, or prints something else than the page says, with the line of the page.
    pub fn follow<'p>(&mut self, page: &'p str, until: Option<&str>) -> Result<&'p str> {
        let (now, rest) = match until {
            Some(heading) => page.split_at(page.find(heading).with_context(|| format!("the page has no {heading:?}"))?),
            None => (page, ""),
        };
        let blocks = blocks(now)?;
        let mut blocks = blocks.iter().peekable();
        while let Some(block) = blocks.next() {
            let said = blocks.next_if(|next| next.kind == "text").map(|next| self.here(&next.text));
            self.block(block, said.as_deref()).with_context(|| format!("line {} of this part of the page", block.line))?;
        }
        Ok(rest)
    }

    fn block(&mut self, block: &Block, said: Option<&str>) -> Result<()> {
        let commands = self.here(&block.text);
        match block.kind.strip_prefix("sh").map(str::trim) {
            Some("") => {
                let printed = self.run(&commands)?;
                ensure!(
                    said.is_none_or(|said| fits(said, &printed)),
                    "{commands}printed\n{printed}the page says\n{said:?}"
                );
            }
            Some("look") => {
                let said = said.context("a look without what is to be seen")?;
                wait::until(&commands, LIMIT, || match self.run(&commands) {
                    Ok(printed) if fits(said, &printed) => Seen::Yes(()),
                    Ok(printed) => Seen::NotYet(printed),
                    Err(error) => Seen::NotYet(format!("{error:#}")),
                })?;
            }
            Some(name) => self.start(name, commands.trim())?,
            None => bail!("no block that can be followed: {}", block.kind),
        }
        Ok(())
    }

    /// A text of the page as it is here.
    #[must_use]
    pub fn here(&self, text: &str) -> String {
        self.instead.iter().fold(text.to_owned(), |text, (there, here)| text.replace(there, here))
    }

    fn run(&self, commands: &str) -> Result<String> {
        let environment = self.environment.iter().map(|(name, value)| (name, value));
        let output = Command::new("sh").args(["-euc", commands]).envs(environment).current_dir(&self.folder).output()?;
        let (printed, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{commands}{}\n{printed}{complaint}", output.status);
        Ok(printed.into_owned())
    }

    fn start(&mut self, name: &str, command: &str) -> Result<()> {
        if let Some(before) = self.running.get_mut(name) {
            wait::until(format!("{name} has ended"), LIMIT, || match before.ended() {
                Ok(Some(_)) => Seen::Yes(()),
                other => Seen::NotYet(format!("{other:?}")),
            })?;
        }
        let line = Line {
            program: "sh".into(),
            // The program takes the shell's place, so that it is the one that is watched and ends with the test.
            arguments: vec!["-c".to_owned(), format!("exec {command}")],
            before: vec!["env".to_owned(), "-C".to_owned(), self.folder.display().to_string()],
            environment: self.environment.clone(),
        };
        let process = Process::start(name, &line, &self.logs.join(format!("{name}.log")))?;
        self.running.insert(name.to_owned(), process);
        Ok(())
    }
}

/// The blocks of a page, in order.
fn blocks(page: &str) -> Result<Vec<Block>> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in (1..).zip(page.lines()) {
        match (line.strip_prefix("```"), &mut open) {
            (Some(kind), None) => {
                open = Some(Block { line: number + 1, kind: kind.trim().to_owned(), text: String::new() });
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    ensure!(open.is_none(), "a block is not closed: {open:?}");
    Ok(found)
}

/// Whether what was printed is what the page says.
fn fits(said: &str, printed: &str) -> bool {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (said, printed) = (words(said), words(printed));
    let mut parts = said.split('…').map(str::trim);
    let Some(mut rest) = parts.next().and_then(|first| printed.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_its_blocks_with_their_lines() {
        let found = blocks("# A\n\n```sh look\na\n\nb\n```\nwords\n```text\nc\n```\n").expect("a page");
        let block = |line, kind: &str, text: &str| Block { line, kind: kind.to_owned(), text: text.to_owned() };
        assert_eq!(found, [block(4, "sh look", "a\n\nb\n"), block(10, "text", "c\n")]);
        assert!(blocks("```sh\n").is_err());
    }

    #[test]
    fn what_is_printed_fits_but_for_white_space_and_what_is_left_open() {
        assert!(fits("A   B\n1 2\n", "A B\r\n1    2"));
        assert!(fits("a … c\n…\n", "a b c\nd\n"));
        assert!(fits("x/…  4 …", "x/17-3   4 5"));
        assert!(!fits("a\n", "a\nb\n"));
        assert!(!fits("a … c", "a b d"));
        assert!(!fits("0\n", ""));
    }
}
