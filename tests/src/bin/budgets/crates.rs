//! The crates that the agent is made of, held against `cross/agent-crates.txt`: a new one is a decision, not an accident.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use godwit_tests::disk;

use crate::judge::Verdict;

const NAME: &str = "dependencies";
const FILE: &str = "cross/agent-crates.txt";

/// Where the agent is to run; what it needs elsewhere is nobody's cost.
const TARGETS: [&str; 3] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "armv7-unknown-linux-gnueabihf"];

/// Compares the agent's crates with the list.
pub(crate) fn check(root: &Path) -> Verdict {
    match compare(root) {
        Ok(verdict) => verdict,
        Err(error) => Verdict::Failed(format!("{NAME}: {error:#}")),
    }
}

fn compare(root: &Path) -> Result<Verdict> {
    let listed = std::fs::read_to_string(root.join(FILE)).context(FILE)?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["tree", "--locked", "-p", "godwit-agent", "-e", "normal", "--prefix", "none", "--format", "{p}"]);
    cargo.args(TARGETS.iter().flat_map(|target| ["--target", target])).current_dir(root);
    let tree = disk::run(&mut cargo)?;
    Ok(judge(&names(&tree), &names(&listed)))
}

/// The first word of each line that has one; what follows `#` is said for people.
fn names(text: &str) -> BTreeSet<&str> {
    text.lines().filter_map(|line| line.split('#').next()?.split_whitespace().next()).collect()
}

fn judge(tree: &BTreeSet<&str>, listed: &BTreeSet<&str>) -> Verdict {
    let list = |names: Vec<&&str>| names.into_iter().copied().collect::<Vec<_>>().join(", ");
    let new = list(tree.difference(listed).collect());
    let gone = list(listed.difference(tree).collect());
    let count = tree.len();
    if !new.is_empty() {
        return Verdict::Failed(format!(
            "{NAME}: the agent has {count} crates, and of these {FILE} does not list: {new}. Do without, or add the line and say in \
             the commit what it brings"
        ));
    }
    let gone = if gone.is_empty() { gone } else { format!(". No longer needed, take them off {FILE}: {gone}") };
    Verdict::Ok(format!("{NAME}: {count} crates, all of them listed{gone}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_that_is_not_listed_fails_by_its_name_and_one_that_went_is_named() {
        let tree = names("godwit-agent v0.1.0 (/somewhere)\nbytes v1.0.0\nbytes v1.0.0 (*)\nnew v0.2.0\n");
        let listed = names("# crates\ngodwit-agent\nbytes   # buffers\ngone\n");
        assert!(matches!(judge(&tree, &listed), Verdict::Failed(text) if text.contains("not list: new.")));
        let mut tree = tree;
        tree.remove("new");
        assert!(
            matches!(judge(&tree, &listed), Verdict::Ok(text) if text.contains("2 crates") && text.ends_with(": gone"))
        );
    }
}
