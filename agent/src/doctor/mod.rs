//! `doctor`: [`godwit_mesh::doctor`]'s checks, applied to one agent: its configuration, its data folder, its gateway.
//!
//! It works whether the agent runs or not. [`Subject`] says whose configuration is looked at. What reads files runs in two
//! threads of its own (the disk may hang), what asks peers in a task; each finding is sent as soon as there is one, and what has
//! not come when [`TOTAL`] is over is reported as missing.

mod doors;
mod subject;
mod together;

use std::io::ErrorKind;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use godwit_mesh::clock::EARLIEST_VALID_MS;
use godwit_mesh::doctor::{self, Chain, Counted, Finding, Keeper, Listener, Owner, Place, Report, Verdict};
use godwit_mesh::{config::Size, http::Limits, observe, process};
use tokio::sync::mpsc::Sender;

use crate::config::Config;
use crate::identity;
use doors::AS_ROOT;
pub use subject::Subject;

/// How long the agent's writing is watched when it has not been running for long.
const WATCHED: Duration = Duration::from_secs(3);

/// From here on what the agent wrote since its start tells more than a few seconds.
const SETTLED: Duration = Duration::from_secs(600);

/// All checks in the order of the report. Without the disk nothing goes: where one of these is missing, it has hung.
const ORDER: [&str; 19] = [
    "kernel",
    "libc",
    "memory",
    "entropy",
    "files",
    "clock",
    "config",
    "doors",
    "certificates",
    "ports",
    "storage",
    "fdatasync",
    "room",
    "flash",
    "agent",
    "name",
    "gateway",
    IF_TLS,
    "versions",
];
/// Only where the gateway is reached by TLS, and then it comes with `gateway`.
const IF_TLS: &str = "gateway-tls";
const OF_THE_DISK: [&str; 3] = ["storage", "fdatasync", "room"];

/// What the help says of time and exit codes.
pub const AFTER_HELP: &str = "\
Every check takes a few seconds at most, all together no more than 30. Exit codes: 0 all ok, or worth a warning, or not known from
here; 1 a check failed. What is `unknown` may be known to root or to the agent's own user.";

/// What is asked of the doctor.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DoctorArgs {
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
    /// What the data folder's medium can take in writes, as its maker gives it: 40TBW [default: an assumption by its kind]
    #[arg(long, value_name = "BYTES", value_parser = doctor::endurance)]
    pub endurance: Option<u64>,
}

/// Looks, prints, and gives the exit code: 1 when a check failed.
///
/// # Errors
/// When the runtime does not start or nothing can be printed.
pub fn run(subject: Subject, args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let runtime = process::runtime().context("starting the runtime")?;
    let report = runtime.block_on(examine(subject, args.endurance));
    // A look-up or a disk that hangs is left to itself.
    runtime.shutdown_background();
    let mut text = if args.json {
        serde_json::to_string_pretty(&report.json())?
    } else {
        report.text(observe::colours(&std::io::stdout()))
    };
    if args.json {
        text.push('\n');
    }
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
    Ok(if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Makes all checks. Takes no longer than [`doctor::TOTAL`].
pub async fn examine(subject: Subject, endurance: Option<u64>) -> Report {
    let (send, mut receive) = tokio::sync::mpsc::channel(ORDER.len());
    let mut ended = tokio::task::JoinSet::new();
    let (shown, wrong, https) = (subject.shown.clone(), subject.wrong.is_some(), https(&subject.config));
    let subject = std::sync::Arc::new(subject);
    for work in [board as fn(&Subject, &Sender<Finding>, Option<u64>), disk] {
        let (subject, send) = (subject.clone(), send.clone());
        // Without a thread its findings are missing, which is told.
        let _ = std::thread::Builder::new().spawn(move || work(&subject, &send, endurance));
    }
    ended.spawn(async move { together::together(&subject, &send).await });
    let deadline = tokio::time::sleep(doctor::TOTAL);
    tokio::pin!(deadline);
    let mut findings: Vec<Finding> = Vec::new();
    loop {
        tokio::select! {
            finding = receive.recv() => match finding {
                Some(finding) => findings.push(finding),
                None => break,
            },
            () = &mut deadline => break,
        }
    }
    for check in ORDER {
        let told = findings.iter().any(|finding| finding.check == check);
        if check != IF_TLS && !told {
            findings.push(missing(check));
        } else if https && !told {
            findings.push(Finding::unknown(IF_TLS, "the gateway was not reached", "see name and gateway"));
        }
    }
    if wrong {
        findings = findings.into_iter().map(doors::without_config).collect();
    }
    findings.sort_by_key(|finding| ORDER.iter().position(|check| *check == finding.check));
    Report { version: env!("CARGO_PKG_VERSION"), subject: shown, findings }
}

fn missing(check: &'static str) -> Finding {
    let found = format!("no answer within {} s", doctor::TOTAL.as_secs());
    if OF_THE_DISK.contains(&check) {
        Finding::fail(check, found, "the disk (or the server that keeps it) hangs: see dmesg")
    } else {
        Finding::unknown(check, found, "run it again; if it stays so, see dmesg")
    }
}

/// The wall clock in seconds since 1970, `None` while it is not set.
fn now() -> Option<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    (now.saturating_mul(1000) >= EARLIEST_VALID_MS).then_some(now)
}

fn https(config: &Config) -> bool {
    config.gateway.url.as_ref().is_some_and(|url| url.starts_with("https:"))
}

/// The agent's id, empty where it has yet to make itself one; or what is wrong with the file that has it.
fn id(config: &Config) -> Result<String, (Verdict, String, &'static str)> {
    if let Some(id) = &config.agent.id {
        return Ok(id.clone());
    }
    let wrong = |e: std::io::Error| match e.kind() {
        ErrorKind::PermissionDenied => (Verdict::Unknown, "agent-id may not be read by this user".to_owned(), AS_ROOT),
        _ => (Verdict::Fail, format!("agent-id: {e}"), "set agent.id, or remove what is there"),
    };
    let kept = match std::fs::read(config.agent.data_dir.join(identity::FILE)) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(String::new()),
        kept => kept.map_err(wrong)?,
    };
    match identity::parse(&String::from_utf8_lossy(&kept)) {
        Ok(Some(id)) => Ok(id.to_string()),
        Ok(None) => {
            let found = "agent-id is damaged: the agent makes itself a new id, and the gateway takes it for another";
            Err((Verdict::Warn, found.to_owned(), "to keep the old one, set agent.id"))
        }
        Err(error) => Err((Verdict::Fail, process::told(error.as_ref()), "mend it: the agent does not start like this")),
    }
}

/// The machine, the configuration and what it names.
fn board(subject: &Subject, send: &Sender<Finding>, _: Option<u64>) {
    let tell = |finding| {
        let _ = send.blocking_send(finding);
    };
    let config = &subject.config;
    let keeper = subject.keeper();
    let running = keeper.process();
    let mqtt = if config.mqtt.listen.is_some() { config.mqtt.max_connections } else { 0 };
    let connections = mqtt.saturating_add(config.http.max_connections) as u64;
    let Size(batch) = config.http.max_batch;
    tell(doctor::kernel());
    tell(doctor::libc());
    tell(doctor::memory(running, connections, batch.max(Limits::default().bodies_bytes as u64)));
    tell(doctor::entropy());
    tell(doctor::files(running, connections));
    tell(doctor::clock(&config.agent.data_dir, https(config)));
    tell(doors::config(subject));
    tell(doors::doors(subject, running));
    let files = [
        ("mqtt.tls-cert", &config.mqtt.tls_cert, Owner::Ours),
        ("http.tls-cert", &config.http.tls_cert, Owner::Ours),
        ("gateway.ca-file", &config.gateway.ca_file, Owner::Trusted),
        ("delivery.ca-file", &config.delivery.ca_file, Owner::Trusted),
    ];
    let chains: Vec<Chain<'_>> =
        files.iter().filter_map(|(key, path, owner)| Some(Chain { key, path: path.as_deref()?, owner: *owner })).collect();
    tell(doctor::certificates(&chains, now()));
    let mqtt = config.mqtt.listen.map(|address| Listener { section: "mqtt", address });
    let listeners: Vec<Listener> =
        mqtt.into_iter().chain([Listener { section: "http", address: config.http.listen }]).collect();
    tell(doctor::ports(&listeners, &keeper));
}

/// The disk of the data folder.
fn disk(subject: &Subject, send: &Sender<Finding>, endurance: Option<u64>) {
    let tell = |finding| {
        let _ = send.blocking_send(finding);
    };
    let config = &subject.config;
    let before = subject.keeper().process().and_then(doctor::Process::written);
    let begun = std::time::Instant::now();
    let place = match Place::of(&config.agent.data_dir) {
        Ok(place) => place,
        Err(storage) => {
            tell(*storage);
            for check in ["fdatasync", "room", "flash"] {
                tell(Finding::unknown(check, "the data folder cannot be used", "see storage"));
            }
            return;
        }
    };
    tell(doctor::storage(&place));
    tell(doctor::fdatasync(&place));
    tell(worse(doctor::room(&place, &config.storage), id(config).err()));
    tell(doctor::flash(&place, &rate(subject, before, begun), doctor::machine_up(), endurance));
}

/// What the agent writes: since its start if that is a while ago, else in the next seconds.
fn rate(subject: &Subject, before: Option<Counted>, begun: std::time::Instant) -> Result<Counted, String> {
    let process = match subject.keeper() {
        Keeper::Nobody => return Err("no agent runs, so its rate is not known".to_owned()),
        Keeper::Unseen => return Err("whether an agent runs cannot be seen by this user".to_owned()),
        Keeper::Process(process) => process,
    };
    let unseen = || format!("what process {} writes cannot be seen by this user", process.pid);
    let before = before.ok_or_else(unseen)?;
    if before.over >= SETTLED {
        return Ok(before);
    }
    std::thread::sleep(WATCHED.saturating_sub(begun.elapsed()));
    let after = process.written().ok_or_else(unseen)?;
    Ok(Counted { bytes: after.bytes.saturating_sub(before.bytes), over: after.over.saturating_sub(before.over) })
}

/// The worse of two verdicts with what goes with it.
fn worse(one: Finding, other: Option<(Verdict, String, &str)>) -> Finding {
    match other {
        Some((verdict, found, remedy)) => one.and(verdict, &found, remedy),
        None => one,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Flags;

    fn subject() -> Subject {
        Subject::of_flags(Flags::default()).expect("the defaults")
    }

    fn verdict<'a>(report: &'a Report, check: &str) -> (&'a Finding, Verdict) {
        let finding = report.findings.iter().find(|finding| finding.check == check).expect("a line for each check");
        (finding, finding.verdict)
    }

    #[tokio::test]
    async fn what_cannot_be_looked_at_has_its_line_and_a_remedy_all_the_same() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut subject = subject();
        subject.config.agent.data_dir = dir.path().join("file");
        std::fs::write(&subject.config.agent.data_dir, "").expect("written");
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        subject.config.gateway.url = Some(format!("https://{nobody}"));
        let report = examine(subject, None).await;
        assert_eq!(verdict(&report, "storage").1, Verdict::Fail);
        for check in ["fdatasync", "room", "flash", IF_TLS] {
            let (finding, verdict) = verdict(&report, check);
            assert!(verdict == Verdict::Unknown && !finding.remedy.is_empty(), "{finding:?}");
        }
    }

    #[test]
    fn an_id_with_which_the_agent_does_not_start_fails_and_a_damaged_one_warns() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut config = subject().config;
        config.agent.data_dir = dir.path().to_owned();
        assert_eq!(id(&config), Ok(String::new()), "none yet");
        let with = |text: &[u8]| {
            std::fs::write(dir.path().join(identity::FILE), text).expect("written");
            id(&config)
        };
        assert_eq!(with(b"boat-7\n"), Ok("boat-7".to_owned()));
        assert_eq!(with(b"").expect_err("damaged").0, Verdict::Warn);
        let (verdict, found, _) = with(b"Boat 7\n").expect_err("wrong");
        assert!(verdict == Verdict::Fail && found.contains("agent-id") && found.contains("set agent.id"), "{found}");
    }
}
