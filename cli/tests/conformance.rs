//! `docs/eventing-conformance.md` says which tests hold which rule of Knative's data plane. It is made from the tests' names:
//! `GODWIT_WRITE_DOCUMENTS=1 cargo test -p godwit-cli --test conformance` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The rules, by number: what Knative's specification, or where it is silent its code, demands.
const RULES: [&str; 29] = [
    "Ingress takes POST; other methods are answered 405 with Allow",
    "OPTIONS is answered with Allow and the consent to webhooks",
    "A path names a broker; one that is not there is 404, a malformed one 400",
    "Binary and structured mode are taken; what is no valid event is 400",
    "Success is 202",
    "An event is acknowledged when it is in stable storage",
    "Duplicates are accepted; if they are recognised, by source and id",
    "An event whose time to live is used up is refused with 400",
    "Without valid credentials: 401",
    "The arrival is noted; data is never changed",
    "Events are sent by POST in binary or structured mode, with Prefer: reply",
    "What follows an answer goes by its final status",
    "retry is the number of attempts after the first",
    "Backoff is exponential or linear; delay and policy belong together",
    "Retry-After counts with 429 and 503, up to retryAfterMax",
    "Retries and congestion control are there",
    "Known headers pass through; Kn-Namespace is added",
    "Subscribers do not see the time to live; replies go on with it",
    "200 with an event is a reply: stored in the same Broker, for all its Triggers",
    "202 is no reply",
    "2xx without a body is done; with one that is no event it is a failure",
    "A Subscription's reply goes to its reply destination",
    "The dead letter sink gets the original event with the error attributes",
    "A dead letter sink that fails loses nothing",
    "A Trigger's delivery replaces its Broker's",
    "Each Trigger is asked once for each event; each match is a delivery of its own",
    "A Trigger may come before its Broker, and never changes it",
    "A destination is a ref, a URI, or a URI relative to a ref",
    "Attribute names in filters are checked when they are applied",
];

const HEAD: &str = "# Eventing: rules and the tests that hold them

Made from the names of the tests: `GODWIT_WRITE_DOCUMENTS=1 cargo test -p godwit-cli --test conformance` writes it anew. A test named
`d12_…` holds rule D12, one named `our_choice_…` what we chose where Knative's specification and its implementations differ.
What Knative's own conformance tests (`test/rekt`) demand of Brokers, Triggers and Channels is asked of the real agent in `tests/tests/statements.rs`.
";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// All Rust files under a folder, in the order of their names.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
}

/// The names of the tests in a file: functions whose attribute says that they are one.
fn tests(text: &str) -> Vec<&str> {
    let mut is_test = false;
    let mut names = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ") {
            let name = rest.split('(').next().unwrap_or_default();
            if std::mem::take(&mut is_test) {
                names.push(name);
            }
        }
    }
    names
}

/// The numbers of the rules that a test's name begins with.
fn rules(name: &str) -> Vec<usize> {
    name.split('_').map_while(|part| part.strip_prefix('d')?.parse().ok()).collect()
}

#[test]
fn the_rules_and_their_tests_are_those_of_the_code() {
    let mut files = Vec::new();
    for folder in ["mesh/src", "agent/src", "gateway/src", "tests/tests"] {
        sources(&root().join(folder), &mut files);
    }
    let mut by_rule: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut chosen = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).expect("read");
        let place = file.strip_prefix(root()).expect("below the root").display().to_string();
        for name in tests(&text) {
            let row = format!("`{name}` ({place})");
            for rule in rules(name) {
                by_rule.entry(rule).or_default().push(row.clone());
            }
            if name.starts_with("our_choice_") {
                chosen.push(row);
            }
        }
    }
    assert!(by_rule.keys().all(|rule| (1..=RULES.len()).contains(rule)), "a test names a rule that is none: {by_rule:?}");
    let mut text = format!("{HEAD}\n| rule | what it says | tests |\n|---|---|---|\n");
    for (n, rule) in RULES.iter().enumerate() {
        let tests = by_rule.get(&(n + 1)).map_or_else(|| "none yet".to_owned(), |tests| tests.join("<br>"));
        let _ = writeln!(text, "| D{} | {rule} | {tests} |", n + 1);
    }
    text.push_str("\n## Our choice\n\n");
    for row in &chosen {
        let _ = writeln!(text, "- {row}");
    }
    let path = root().join("docs/eventing-conformance.md");
    if std::env::var_os("GODWIT_WRITE_DOCUMENTS").is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == text,
        "docs/eventing-conformance.md differs from the tests: run this one with GODWIT_WRITE_DOCUMENTS=1"
    );
}

#[test]
fn a_name_begins_with_its_rules() {
    assert_eq!(rules("d12_d13_a_status"), [12, 13]);
    assert_eq!(rules("data_is_kept"), Vec::<usize>::new());
    assert_eq!(tests("#[test]\nfn d1_a() {}\nfn d2_b() {}\n#[tokio::test]\nasync fn d3_c() {}"), ["d1_a", "d3_c"]);
}
