//! The command as somebody at a terminal meets it: help, exit codes, what it writes where.

use std::process::{Command, Output};

fn godwit(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_godwit"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("GODWIT_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(std::process::Stdio::null()).output().expect("the command runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn every_command_has_help_with_examples() {
    let all = text(&godwit(&["--help"]).stdout);
    assert!(all.contains("Exit codes: 0 done"), "{all}");
    for command in [
        "dev",
        "send",
        "tail",
        "get",
        "describe",
        "apply",
        "diff",
        "edit",
        "delete",
        "trigger",
        "broker",
        "cursor",
        "link",
        "passwd",
        "token",
        "check",
        "doctor",
        "eval",
        "completion",
    ] {
        assert!(all.contains(command), "{command} is not in the help");
        let output = godwit(&[command, "--help"]);
        assert!(output.status.success(), "{command}");
        assert!(text(&output.stdout).contains("Examples:"), "{command} has no examples");
    }
}

#[test]
fn the_version_is_name_and_number() {
    let version = text(&godwit(&["--version"]).stdout);
    assert_eq!(version, format!("godwit {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_is_2_and_an_absent_server_is_3() {
    assert_eq!(godwit(&["send", "--cuont", "3"]).status.code(), Some(2));
    assert_eq!(godwit(&["get", "everything"]).status.code(), Some(2));
    // Port 1 on loopback: nobody listens there.
    for arguments in
        [&["get", "brokers"][..], &["tail"], &["send", "--data", "x"], &["link", "status"], &["cursor", "list"]]
    {
        let output = godwit(&[arguments, &["--server", "http://127.0.0.1:1"]].concat());
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        let error = text(&output.stderr);
        assert!(error.contains("godwit dev") && error.contains("--server"), "{error}");
        assert!(!error.contains('\u{1b}'), "colours without a terminal: {error}");
    }
}

#[test]
fn completion_is_written_for_three_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let output = godwit(&["completion", shell]);
        assert!(output.status.success(), "{shell}");
        for word in ["cursor", "doctor", "endurance"] {
            assert!(text(&output.stdout).contains(word), "{shell} has no {word}");
        }
    }
}

#[test]
fn a_wrong_manifest_is_named_with_its_field_and_exit_1() {
    let dir = tempfile::tempdir().expect("a folder");
    let good = "apiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata: {name: good}\n\
        spec: {broker: default, subscriber: {uri: 'http://127.0.0.1:9/'}}\n";
    std::fs::write(dir.path().join("good.yaml"), good).expect("written");
    let path = dir.path().to_str().expect("text");
    let output = godwit(&["check", "-f", path]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "trigger/good ok\n"));
    std::fs::write(dir.path().join("wrong.yaml"), good.replace("good", "wrong").replace("uri:", "url:")).expect("written");
    let output = godwit(&["check", "-f", path]);
    assert_eq!(output.status.code(), Some(1));
    let lines = text(&output.stdout);
    assert!(lines.contains("trigger/wrong error: spec.subscriber"), "{lines}");
}

#[test]
fn passwords_and_tokens_are_set_and_removed_and_never_kept_in_the_clear() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("credentials");
    let path = file.to_str().expect("text");
    let output = godwit(&["token", path, "boat-7"]);
    assert!(output.status.success());
    let token = text(&output.stdout).trim().to_owned();
    assert!(token.len() >= 43, "256 bits: {token}");
    let kept = std::fs::read_to_string(&file).expect("read");
    assert!(kept.starts_with("boat-7:token:") && !kept.contains(&token), "{kept}");

    let mut passwd = Command::new(env!("CARGO_BIN_EXE_godwit"))
        .args(["passwd", path, "sensor"])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the command runs");
    std::io::Write::write_all(&mut passwd.stdin.take().expect("stdin"), b"open sesame\n").expect("written");
    assert!(passwd.wait().expect("ended").success());
    let kept = std::fs::read_to_string(&file).expect("read");
    assert!(kept.contains("sensor:password:$argon2id$") && !kept.contains("sesame"), "{kept}");

    assert!(godwit(&["token", path, "boat-7", "--delete"]).status.success());
    assert_eq!(godwit(&["token", path, "boat-7", "--delete"]).status.code(), Some(1), "there is none left");
    assert_eq!(godwit(&["passwd", path, "sensor"]).status.code(), Some(1), "an empty password");
}

const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"/house/1","type":"door.opened","subject":"house/1","n":5}"#;

#[test]
fn an_expression_has_a_value_a_type_errors_and_an_exit_code() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("event.json");
    std::fs::write(&path, EVENT).expect("written");
    let event = path.to_str().expect("text");
    let eval = |arguments: &[&str]| {
        let output = godwit(&[&["eval"], arguments].concat());
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, _) = eval(&["type = 'door.opened' AND subject LIKE 'house/%'", "--event", event]);
    assert_eq!((code, out.as_str()), (Some(0), "true\ntype: Boolean\n"));
    let (code, out, _) = eval(&["-10"]);
    assert_eq!((code, out.as_str()), (Some(0), "-10\ntype: Integer\n"));
    let (code, out, _) = eval(&["missing * n", "--event", event]);
    assert_eq!(code, Some(1));
    assert_eq!(out, "0\ntype: Integer\nerror: missingAttribute: the event has no attribute missing (column 1)\n");
    let (code, out, _) = eval(&["--json", "CONCAT(type, 1 / 0)", "--event", event]);
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &json["value"], &json["type"]), (Some(1), &"".into(), &"String".into()));
    assert_eq!((&json["errors"][0]["kind"], &json["errors"][0]["column"]), (&"math".into(), &18.into()));
    let (code, out, error) = eval(&["type ="]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert_eq!(error, "error: column 7: the expression ends where a value is expected\n  type =\n        ^\n");
    let (code, out, _) = eval(&["type =", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &json["errors"][0]["kind"]), (Some(2), &"parse".into()));
    let (code, _, error) = eval(&["true", "--event", "/does/not/exist"]);
    assert!(code == Some(1) && error.contains("/does/not/exist"), "{error}");
}

#[test]
fn the_test_kit_is_run_and_counted() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("kit.yaml");
    let kit = "name: Kit\ntests:\n  - {name: good, expression: \"n + 1\", eventOverrides: {n: 1}, result: 2}\n  \
        - {name: bare, expression: TRUE, result: true}\n  \
        - {name: wrong, expression: \"1\", result: 2}\n";
    std::fs::write(&path, kit).expect("written");
    let output = godwit(&["eval", "--tck", path.to_str().expect("text")]);
    let lines = text(&output.stdout);
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!((output.status.code(), lines.len()), (Some(1), 2), "{lines:?}");
    assert!(lines[0].ends_with("wrong: 1: expected 2 with no error, got 1 with no error"), "{lines:?}");
    assert_eq!(lines[1], "2 passed, 1 failed");
}

#[test]
fn a_trigger_is_tried_out_and_the_part_that_decides_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let event = dir.path().join("event.json");
    std::fs::write(&event, EVENT).expect("written");
    let test = |filter: &str| {
        let path = dir.path().join("trigger.yaml");
        let yaml = format!(
            "apiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata: {{name: t}}\n\
             spec: {{broker: default, {filter} subscriber: {{uri: 'http://127.0.0.1:9/'}}}}\n"
        );
        std::fs::write(&path, yaml).expect("written");
        let event = event.to_str().expect("text");
        let output = godwit(&["trigger", "test", "-f", path.to_str().expect("text"), "--event", event]);
        (output.status.code(), text(&output.stdout).trim_end().to_owned())
    };
    let says = |filter: &str, code: i32, line: &str| {
        assert_eq!(test(filter), (Some(code), format!("trigger/default/t {line}")), "{filter}");
    };
    says("", 0, "match: there is no filter: every event is wanted");
    says("filter: {attributes: {type: door.opened}},", 0, "match: spec.filter.attributes: its attribute is as wanted");
    says(
        "filter: {attributes: {type: door.closed}},",
        1,
        "no match: spec.filter.attributes.type: type is \"door.opened\"; wanted is \"door.closed\"",
    );
    says(
        "filters: [{prefix: {type: door}}, {any: [{exact: {id: '7'}}, {cesql: 'n > 5'}]}],",
        1,
        "no match: spec.filters[1].any: none of its 2 parts holds",
    );
    says("filters: [{not: {cesql: 'n > 5'}}],", 0, "match: spec.filters[0].not.cesql: the expression is false");
    says(
        "filters: [{cesql: floor = 3}],",
        1,
        "no match: spec.filters[0].cesql: filter error: missingAttribute: the event has no attribute floor",
    );
}
