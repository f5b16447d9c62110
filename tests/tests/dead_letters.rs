//! Promise: what could not be delivered is there to be looked at, sent again as it was or dropped, by `godwit dead-letter`; what was
//! done holds over `kill -9`, nothing is sent twice, and every letter is counted.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use godwit_tests::lab::{self, Lab};
use godwit_tests::manifests::Trigger;
use godwit_tests::node::{DEFAULT_BROKER, Node};
use godwit_tests::sink::{Answer, Sink};
use godwit_tests::wait::{self, Seen};
use godwit_tests::{binaries, node};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);

/// Runs `godwit dead-letter` against a node: whether it succeeded, and what it printed.
fn godwit(node: &Node, args: &[&str]) -> Result<(bool, String)> {
    let server = format!("http://{}", node.http());
    let mut command = Command::new(binaries::path("godwit"));
    let output = command.arg("dead-letter").args(args).args(["--server", &server]).output().context("godwit")?;
    let text = String::from_utf8(output.stdout)? + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.success(), text))
}

fn done(node: &Node, args: &[&str]) -> Result<String> {
    let (success, text) = godwit(node, args)?;
    ensure!(success, "godwit dead-letter {args:?}: {text}");
    Ok(text)
}

fn account(node: &Node) -> Result<Value> {
    Ok(node.broker(DEFAULT_BROKER)?["dead_letters"].clone())
}

/// A node with a Trigger whose sink answers what `status` says.
fn node(lab: &Lab, status: &Arc<AtomicU16>) -> Result<(Node, Sink)> {
    let answers = Arc::clone(status);
    with_sink(lab, Sink::answering(move |_, _| Answer::status(answers.load(Ordering::Relaxed)))?)
}

/// A node with a Trigger to `sink`.
fn with_sink(lab: &Lab, sink: Sink) -> Result<(Node, Sink)> {
    let to = sink.url();
    let yaml = Trigger { name: "billing", to: &to, delivery: Some("{retry: 0}"), ..Trigger::default() }.yaml();
    let path = lab.write("manifests/triggers.yaml", &yaml)?;
    let mut node = node::Node::agent(lab, "board")?;
    node.set("agent.manifests", &path.parent().context("a folder")?.display().to_string());
    node.start()?;
    Ok((node, sink))
}

#[test]
fn letters_are_listed_shown_dropped_and_replayed_and_a_kill_changes_nothing_of_it() -> Result<()> {
    lab::run(|lab| {
        let status = Arc::new(AtomicU16::new(422));
        let (mut node, sink) = node(lab, &status)?;
        for id in ["a", "b", "c", "d"] {
            ensure!(node.post(DEFAULT_BROKER, id, "text/plain", id.as_bytes())?.status == 202, "stored");
        }
        wait::until("four dead letters", LIMIT, || match account(&node) {
            Ok(account) if account["pending"] == 4 => Seen::Yes(()),
            other => Seen::NotYet(format!("{other:?}")),
        })?;
        let table = done(&node, &["list"])?;
        ensure!(table.lines().count() == 5 && table.contains("default/billing"), "{table}");
        let lines = done(&node, &["list", "--trigger", "billing", "--cesql", "id = 'c'", "-o", "json"])?;
        let line: Value = serde_json::from_str(&lines)?;
        ensure!(line["offset"] == 2 && line["code"] == 422 && line["event"]["data"] == "c", "{line}");
        ensure!(done(&node, &["show", "2"])?.contains("code: 422"), "shown");
        ensure!(!godwit(&node, &["drop"])?.0, "dropping needs to be told what");
        ensure!(done(&node, &["drop", "2"])?.trim() == "1 dropped");

        node.kill9()?;
        node.start()?;
        status.store(202, Ordering::Relaxed);
        ensure!(!godwit(&node, &["show", "2"])?.0, "dropped stays dropped");
        ensure!(done(&node, &["replay", "--since", "1h"])?.trim() == "3 replayed, 0 failed");
        let ids: Vec<String> = sink.deliveries().iter().map(|delivery| delivery.name().0).collect();
        ensure!(ids == ["a", "b", "c", "d", "a", "b", "d"], "{ids:?}");
        let again = sink.deliveries().last().cloned().context("one")?;
        ensure!(again.name().1 == sink.deliveries()[3].name().1 && again.body.as_ref() == b"d", "as it was");

        node.kill9()?;
        node.start()?;
        ensure!(done(&node, &["replay", "--all"])?.trim() == "0 replayed, 0 failed", "nothing twice");
        let account = account(&node)?;
        ensure!(
            account["replayed"] == 3 && account["dropped"]["dropped-by-hand"] == 1 && account["pending"] == 0,
            "{account}"
        );
        wait::until("what the Trigger did stays true", LIMIT, || match node.consumer(DEFAULT_BROKER, "billing") {
            Ok(consumer) if consumer["dead_lettered"] == 4 && consumer["delivered"] == 0 => Seen::Yes(()),
            other => Seen::NotYet(format!("{other:?}")),
        })?;
        let metrics = node.get("/metrics")?.text();
        ensure!(metrics.contains("outcome=\"replayed\"} 3"), "{metrics}");
        Ok(())
    })
}

#[test]
fn a_replay_killed_again_and_again_brings_every_letter_and_says_which_may_have_come_twice() -> Result<()> {
    const LETTERS: usize = 40;
    lab::run(|lab| {
        let status = Arc::new(AtomicU16::new(422));
        let answers = Arc::clone(&status);
        // It takes its time over a replay, so that the kills fall into it.
        let sink = Sink::answering(move |_, before| {
            std::thread::sleep(if before < LETTERS { Duration::ZERO } else { Duration::from_millis(20) });
            Answer::status(answers.load(Ordering::Relaxed))
        })?;
        let (mut node, sink) = with_sink(lab, sink)?;
        for n in 0..LETTERS {
            ensure!(node.post(DEFAULT_BROKER, &n.to_string(), "text/plain", b"x")?.status == 202, "stored");
        }
        wait::until("all are dead letters", LIMIT, || match account(&node) {
            Ok(account) if account["pending"] == LETTERS => Seen::Yes(()),
            other => Seen::NotYet(format!("{other:?}")),
        })?;
        status.store(202, Ordering::Relaxed);
        let mut kills = 0;
        loop {
            let seen = sink.deliveries().len();
            let server = format!("http://{}", node.http());
            let args = ["dead-letter", "replay", "--all", "-o", "json", "--server", &server];
            let mut child = Command::new(binaries::path("godwit"))
                .args(args)
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::null())
                .spawn()?;
            if kills < 3 {
                wait::until("five more, or the end of a replay that was faster", LIMIT, || {
                    let came = sink.deliveries().len() - seen;
                    if came >= 5 || matches!(child.try_wait(), Ok(Some(_))) {
                        Seen::Yes(())
                    } else {
                        Seen::NotYet(came.to_string())
                    }
                })?;
                node.kill9()?;
                child.wait_with_output()?;
                node.start()?;
                kills += 1;
                continue;
            }
            let said = String::from_utf8(child.wait_with_output()?.stdout)?;
            let doubtful = said.lines().filter(|line| line.contains("\"again\":true")).count();
            let replays: Vec<String> = sink.deliveries().iter().skip(LETTERS).map(|d| d.name().0).collect();
            let mut once = replays.clone();
            once.sort();
            once.dedup();
            ensure!(once.len() == LETTERS, "every letter came: {replays:?}");
            ensure!(replays.len() - LETTERS <= kills, "at most the one in flight comes twice: {replays:?}");
            ensure!(doubtful <= 1, "{said}");
            let account = account(&node)?;
            ensure!(account["replayed"] == LETTERS && account["pending"] == 0, "{account}");
            println!("{kills} kills, {} letters came twice", replays.len() - LETTERS);
            return Ok(());
        }
    })
}
