//! Promise: what a source has seen becomes an event once: publishes in the Broker that their mapping names, each run of a schedule,
//! each line of a file, however often the agent is killed; and no program that it started outlives it.

use std::collections::BTreeSet;
use std::fs::{OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use godwit_tests::lab::{self, Lab};
use godwit_tests::load::{Load, Plan};
use godwit_tests::need;
use godwit_tests::node::{DEFAULT_BROKER, Node};
use godwit_tests::wait::{self, Seen};
use rustix::process::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);
const DEFAULT: &str = "{ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: default}}";
const ALARMS: &str = "{ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: alarms}}";

/// An agent with these manifests, not started.
fn agent(lab: &Lab, yaml: &str) -> Result<Node> {
    let mut agent = Node::agent(lab, "agent-1")?;
    let path = lab.write("manifests/sources.yaml", yaml)?;
    agent.set("agent.manifests", &path.parent().context("a folder")?.display().to_string());
    Ok(agent)
}

/// A source of ours; `spec` is one line of YAML.
fn source(kind: &str, name: &str, spec: &str) -> String {
    let group = if kind == "PingSource" { "sources.knative.dev" } else { "godwit.dev" };
    format!("apiVersion: {group}/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n")
}

/// What `/status` says of a source.
fn shown(agent: &Node, name: &str) -> Result<Value> {
    let status = agent.status()?;
    let all = status["sources"].as_array().context("sources")?;
    Ok(all.iter().find(|source| source["name"] == name).cloned().unwrap_or_default())
}

fn wait_shown(agent: &Node, name: &str, what: impl Fn(&Value) -> bool) -> Result<Value> {
    wait::until(format!("source {name}"), LIMIT, || match shown(agent, name) {
        Ok(source) if what(&source) => Seen::Yes(source),
        other => Seen::NotYet(format!("{other:?}")),
    })
}

fn runs(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn append(path: &Path, text: &str) -> Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

#[test]
fn publishes_go_where_their_mapping_says_with_its_attributes_and_none_that_was_acknowledged_is_lost() -> Result<()> {
    lab::run(|lab| {
        let yaml = format!(
            "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {{name: alarms}}\n---\n{}{}",
            source("MqttSource", "all", &format!("{{topics: [\"load/#\"], sink: {DEFAULT}}}")),
            source(
                "MqttSource",
                "one",
                &format!(
                    "{{topics: [\"load/load-1\"], type: \"com.example.{{topic.2}}\", source: \"/boats/{{agent}}/{{client}}\", \
                     subject: \"{{topic.1}}\", sink: {ALARMS}, ceOverrides: {{extensions: {{site: harbour}}}}}}"
                )
            ),
        );
        let mut agent = agent(lab, &yaml)?;
        agent.start()?;
        let mut plan = Plan::new(agent.mqtt());
        (plan.clients, plan.count) = (4, 200);
        Load::start(plan).wait_count(LIMIT)?;
        agent.kill9()?;
        agent.start()?;
        let (rest, alarms) = (agent.events(DEFAULT_BROKER)?, agent.events("default/alarms")?);
        assert_eq!((rest.len(), alarms.len()), (600, 200));
        for entry in &rest {
            assert_eq!(entry.event.ty, "dev.godwit.mqtt.publish");
            assert_ne!(entry.event.subject.as_deref(), Some("load/load-1"));
        }
        let ids: BTreeSet<&str> = alarms.iter().map(|entry| entry.event.id.as_str()).collect();
        assert_eq!(ids.len(), 200);
        for entry in &alarms {
            assert_eq!((entry.event.ty.as_str(), entry.event.subject.as_deref()), ("com.example.load-1", Some("load")));
            assert!(entry.event.source.starts_with("/boats/agent-1/"), "{}", entry.event.source);
            assert_eq!(entry.event.extensions.get("site"), Some(&Value::from("harbour")));
        }
        Ok(())
    })
}

#[test]
fn an_agent_killed_again_and_again_makes_each_run_and_each_line_once() -> Result<()> {
    lab::run(|lab| {
        let log = std::fs::canonicalize(lab.path())?.join("log");
        let yaml = format!(
            "{}{}",
            source("PingSource", "tick", &format!("{{schedule: \"* * * * * *\", data: x, sink: {DEFAULT}}}"))
                .replace("{name: tick}", "{name: tick, annotations: {godwit.dev/missed-runs: all}}"),
            source("FileSource", "lines", &format!("{{path: {}, sink: {DEFAULT}}}", log.display())),
        );
        let mut agent = agent(lab, &yaml)?;
        agent.set("files.allow", &format!("[\"{}\"]", log.display()));
        append(&log, "")?;
        agent.start()?;
        wait_shown(&agent, "lines", |s| s["ready"] == true)?;
        let mut written = 0;
        for round in 0..6 {
            for _ in 0..150 {
                append(&log, &format!("line {written}\n"))?;
                written += 1;
            }
            if round == 2 {
                std::fs::rename(&log, log.with_extension("1"))?;
                append(&log, "")?;
            }
            std::thread::sleep(Duration::from_millis(900 + round * 70));
            agent.kill9()?;
            agent.start()?;
        }
        let entries = wait::until("every line is there", LIMIT, || match agent.events(DEFAULT_BROKER) {
            Ok(all) if all.iter().filter(|e| e.event.ty == "dev.godwit.file.line").count() >= written => Seen::Yes(all),
            other => Seen::NotYet(format!("{:?}", other.map(|all| all.len()))),
        })?;
        let lines: Vec<String> = entries
            .iter()
            .filter(|entry| entry.event.ty == "dev.godwit.file.line")
            .map(|entry| entry.event.data().map(|data| String::from_utf8_lossy(&data).into_owned()))
            .collect::<Result<_>>()?;
        let wanted: Vec<String> = (0..written).map(|n| format!("line {n}")).collect();
        assert_eq!(lines, wanted, "each once, in order");
        let ticks: Vec<&str> =
            entries.iter().filter(|e| e.event.ty == "dev.knative.sources.ping").map(|e| e.event.id.as_str()).collect();
        assert!(ticks.len() >= 5, "{ticks:?}");
        // Ids are times: each once, rising, and no second left out.
        let seconds = |id: &str| {
            let time = id.trim_start_matches("agent-1/").trim_end_matches('Z');
            let mut parts = time.rsplit_once('T')?.1.split(':').map(str::parse::<i64>);
            Some(parts.next()?.ok()? * 3600 + parts.next()?.ok()? * 60 + parts.next()?.ok()?)
        };
        for pair in ticks.windows(2) {
            let step = seconds(pair[1]).context("a time")? - seconds(pair[0]).context("a time")?;
            assert_eq!(step.rem_euclid(86_400), 1, "{pair:?}");
        }
        println!("{} lines, {} runs over 6 kills", lines.len(), ticks.len());
        Ok(())
    })
}

#[test]
fn files_put_into_a_folder_become_events_and_go_and_large_ones_stay_by_reference() -> Result<()> {
    lab::run(|lab| {
        let folder = std::fs::canonicalize(lab.folder("in")?)?;
        let spec = format!("{{path: {}, mode: files, inlineBytes: 1000, sink: {DEFAULT}}}", folder.display());
        let mut agent = agent(lab, &source("FileSource", "drop", &spec))?;
        agent.start()?;
        wait_shown(&agent, "drop", |s| s["reason"] == "PathNotAllowed")?;
        agent.stop()?;
        agent.set("files.allow", &format!("[\"{}\"]", folder.display()));
        std::fs::write(folder.join("small.json"), "{\"v\": 1.10}")?;
        std::fs::write(folder.join("large.bin"), vec![7; 5000])?;
        std::fs::write(folder.join("still.part"), "x")?;
        agent.start()?;
        let entries = wait::until("two events", LIMIT, || match agent.events(DEFAULT_BROKER) {
            Ok(all) if all.len() >= 2 => Seen::Yes(all),
            other => Seen::NotYet(format!("{:?} {:?}", other.map(|all| all.len()), shown(&agent, "drop"))),
        })?;
        let of = |name: &str| entries.iter().find(|e| e.event.subject.as_deref() == Some(name)).context("an event");
        let small = &of("small.json")?.event;
        assert_eq!(
            (small.data()?, small.datacontenttype.as_deref()),
            (b"{\"v\": 1.10}".to_vec(), Some("application/json"))
        );
        let large = &of("large.bin")?.event;
        let reference = large.extensions.get("dataref").and_then(Value::as_str).context("dataref")?;
        let path = reference.strip_prefix("file://").context("a file")?.to_owned();
        wait::until("the files have gone", LIMIT, || {
            let left: Vec<_> = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
            if left.len() == 2 { Seen::Yes(()) } else { Seen::NotYet(format!("{left:?}")) }
        })?;
        assert_eq!(std::fs::read(&path)?, vec![7; 5000]);
        assert!(folder.join("still.part").exists());
        agent.kill9()?;
        agent.start()?;
        std::thread::sleep(Duration::from_millis(2500));
        assert_eq!(agent.events(DEFAULT_BROKER)?.len(), 2, "no file twice");
        Ok(())
    })
}

#[test]
fn files_that_cannot_go_make_no_second_event_and_go_when_they_can() -> Result<()> {
    // As docs/sources.md says.
    const MOST_STAYING: usize = 64;
    const FILES: usize = MOST_STAYING + 6;
    lab::run(|lab| {
        let folder = std::fs::canonicalize(lab.folder("in")?)?;
        // A file where the folder for what is done would be.
        let done = std::fs::canonicalize(lab.write("done", "in the way")?)?;
        let spec = format!("{{path: {}, mode: files, done: {}, sink: {DEFAULT}}}", folder.display(), done.display());
        let mut agent = agent(lab, &source("FileSource", "drop", &spec))?;
        agent.set("files.allow", &format!("[\"{}\", \"{}\"]", folder.display(), done.display()));
        for name in 0..FILES {
            std::fs::write(folder.join(name.to_string()), name.to_string())?;
        }
        agent.start()?;
        let count = |agent: &Node| agent.events(DEFAULT_BROKER).map(|all| all.len());
        wait::until("an event for each of so many files", LIMIT, || match count(&agent) {
            Ok(MOST_STAYING) => Seen::Yes(()),
            other => Seen::NotYet(format!("{other:?} {:?}", shown(&agent, "drop"))),
        })?;
        wait_shown(&agent, "drop", |s| s["reason"] == "FileStays")?;
        std::thread::sleep(Duration::from_millis(2500));
        agent.kill9()?;
        agent.start()?;
        std::thread::sleep(Duration::from_millis(2500));
        assert_eq!(count(&agent)?, MOST_STAYING, "no file twice, and no more files");
        std::fs::remove_file(&done)?;
        wait::until("the files have gone", LIMIT, || match std::fs::read_dir(&folder).map(Iterator::count) {
            Ok(0) => Seen::Yes(()),
            other => Seen::NotYet(format!("{other:?} {:?}", shown(&agent, "drop"))),
        })?;
        assert_eq!((count(&agent)?, std::fs::read_dir(&done)?.count()), (FILES, FILES));
        Ok(())
    })
}

#[test]
fn programs_are_run_only_where_allowed_kept_running_and_ended_with_all_that_they_started() -> Result<()> {
    lab::run(|lab| {
        let script = |name: &str, text: &str| -> Result<String> {
            use std::os::unix::fs::PermissionsExt as _;
            let path = lab.write(&format!("bin/{name}"), &format!("#!/bin/sh\n{text}\n"))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
            Ok(std::fs::canonicalize(path)?.display().to_string())
        };
        let lines =
            script("lines", "n=0; while [ $n -lt 500 ]; do n=$((n+1)); echo \"{\\\"n\\\": $n}\"; done; sleep 1000")?;
        let crash = script("crash", "echo oops >&2; exit 7")?;
        let deaf = script("deaf", "trap '' TERM; sleep 1000 & while :; do sleep 1; done")?;
        let flood = script("flood", "while :; do echo flood; done")?;
        let told = script("told", "echo \"$K_SINK $K_CE_OVERRIDES\"; sleep 1000")?;
        let program =
            |name: &str, path: &str, more: &str| source("ProgramSource", name, &format!("{{command: [{path}]{more}}}"));
        let with_sink = format!(", sink: {DEFAULT}");
        let yaml = [
            program("lines", &lines, &format!(", lines: true{with_sink}")),
            program("crash", &crash, &with_sink),
            program("deaf", &deaf, &with_sink),
            program("flood", &flood, &with_sink),
            program("told", &told, ", lines: true"),
            program("denied", "/bin/sh", &with_sink),
            format!(
                "apiVersion: sources.knative.dev/v1\nkind: SinkBinding\nmetadata: {{name: bind}}\nspec:\n  subject: \
                 {{apiVersion: godwit.dev/v1, kind: ProgramSource, name: told}}\n  sink: {DEFAULT}\n  ceOverrides: \
                 {{extensions: {{site: harbour}}}}\n"
            ),
        ]
        .concat();
        let mut agent = agent(lab, &yaml)?;
        let folder = std::fs::canonicalize(lab.path())?.join("bin");
        agent.set("programs.allow", &format!("[\"{}/*\"]", folder.display()));
        agent.start()?;
        wait_shown(&agent, "denied", |s| s["reason"] == "ProgramNotAllowed")?;
        wait_shown(&agent, "crash", |s| s["reason"] == "NotRunning" && s["restarts"].as_u64() >= Some(2))?;
        wait_shown(&agent, "bind", |s| s["ready"] == true && s["subjects"] == 1)?;
        wait_shown(&agent, "lines", |s| s["events"] == 500)?;
        wait_shown(&agent, "told", |s| s["events"] == 1)?;
        let entries = agent.events(DEFAULT_BROKER)?;
        let numbers: Vec<i64> = entries
            .iter()
            .filter(|entry| entry.event.source.ends_with("/programsources/default/lines"))
            .map(|entry| Ok(serde_json::from_slice::<Value>(&entry.event.data()?)?["n"].as_i64().unwrap_or(0)))
            .collect::<Result<_>>()?;
        assert_eq!(numbers, (1..=500).collect::<Vec<_>>());
        let told = entries.iter().find(|e| e.event.source.ends_with("/told")).context("an event of told")?;
        let text = String::from_utf8_lossy(&told.event.data()?).into_owned();
        assert_eq!(text, format!("http://{}/default/default {{\"extensions\":{{\"site\":\"harbour\"}}}}", agent.http()));
        assert_eq!(told.event.extensions.get("site"), Some(&Value::from("harbour")));
        // A kill of the agent: what it left behind is ended by the next one, and started anew.
        let pid = |agent: &Node, name| Ok::<_, anyhow::Error>(shown(agent, name)?["pid"].as_u64().unwrap_or(0));
        let before: Vec<u64> = ["lines", "deaf", "told"].into_iter().map(|n| pid(&agent, n)).collect::<Result<_>>()?;
        assert!(before.iter().all(|pid| runs(*pid)), "{before:?}");
        agent.kill9()?;
        agent.start()?;
        let after = wait::until("programs of the next agent", LIMIT, || {
            let now: Result<Vec<u64>> = ["lines", "deaf", "told"].into_iter().map(|n| pid(&agent, n)).collect();
            match now {
                Ok(now) if now.iter().all(|pid| *pid != 0) && before.iter().all(|pid| !runs(*pid)) => Seen::Yes(now),
                other => Seen::NotYet(format!("{other:?}, before {before:?}")),
            }
        })?;
        // An orderly stop ends them all, also the one that does not listen.
        let begun = Instant::now();
        agent.stop()?;
        println!("stopped within {:?}", begun.elapsed());
        let left: Vec<u64> = after.into_iter().filter(|pid| runs(*pid)).collect();
        assert!(left.is_empty(), "{left:?} live on");
        let log = std::fs::metadata(lab.path().join("agent-1.log"))?.len();
        assert!(log < 1 << 20, "a flood of lines makes {log} bytes of log");
        Ok(())
    })
}

/// What podman does, as far as it matters: the container is no child of it, and does not end by SIGTERM.
const ENGINE: &str = "#!/bin/sh
echo \"$1\" >>FOLDER/runs
case $1 in
run) trap '' TERM; setsid sleep 100 & echo $! >FOLDER/container; wait ;;
kill | rm) test ! -e FOLDER/container || kill -9 $(cat FOLDER/container) ;;
esac
";

#[test]
fn a_container_that_does_not_end_by_sigterm_goes_with_its_source() -> Result<()> {
    need!("a_container_that_does_not_end_by_sigterm_goes_with_its_source", root, "unshare", "setsid");
    lab::run(|lab| {
        let engine = lab.write("podman", &ENGINE.replace("FOLDER", &lab.path().display().to_string()))?;
        std::fs::set_permissions(&engine, Permissions::from_mode(0o755))?;
        let container = "apiVersion: sources.knative.dev/v1\nkind: ContainerSource\nmetadata: {name: boxed}\n\
            spec: {template: {spec: {containers: [{image: example.org/boxed}]}}, sink: SINK}\n";
        let mut agent = agent(lab, &container.replace("SINK", DEFAULT))?;
        agent.set("programs.allow", "[\"/usr/local/bin/podman\", \"/usr/bin/podman\"]");
        // An engine where the agent looks for it, and for the agent alone.
        let under = format!(
            "mount -t tmpfs tmpfs /usr/local/bin && cp {0} /usr/local/bin/ && \
             {{ [ ! -e /usr/bin/podman ] || mount --bind {0} /usr/bin/podman; }} && exec \"$@\"",
            engine.display()
        );
        agent.before = ["unshare", "--mount", "sh", "-c", &under, "sh"].map(str::to_owned).to_vec();
        agent.start()?;
        wait_shown(&agent, "boxed", |source| source["pid"].is_u64())?;
        let path = lab.path().join("container");
        let pid: u64 = wait::until("the container runs", LIMIT, || {
            match std::fs::read_to_string(&path).map(|id| id.trim().parse()) {
                Ok(Ok(pid)) => Seen::Yes(pid),
                other => Seen::NotYet(format!("{other:?}")),
            }
        })?;
        assert!(runs(pid));
        std::fs::remove_file(lab.path().join("manifests/sources.yaml"))?;
        agent.process().signal(Signal::HUP)?;
        wait::until("the container is gone", LIMIT, || match runs(pid) {
            false => Seen::Yes(()),
            true => Seen::NotYet(std::fs::read_to_string(lab.path().join("runs")).unwrap_or_default()),
        })?;
        agent.stop()
    })
}
