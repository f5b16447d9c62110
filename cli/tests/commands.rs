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
    let commands = [
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
        "completion",
    ];
    for command in commands {
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
        assert!(text(&output.stdout).contains("cursor"), "{shell}");
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
