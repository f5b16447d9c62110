//! `godwit doctor` and `godwit-agent doctor` on real boards: what is well is ok, what is broken on purpose is found by name with
//! what to do, and neither hangs.

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use godwit_tests::disk::Disk;
use godwit_tests::faketime::{self, Clock};
use godwit_tests::keys::{self, Keys};
use godwit_tests::lab::{self, Lab};
use godwit_tests::node::Node;
use godwit_tests::pair::Pair;
use godwit_tests::wait::{self, Seen};
use godwit_tests::{binaries, need, skip};
use rustix::process::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);

/// What the doctor promises for all checks together, and a little for the process itself.
const BOUND: Duration = Duration::from_secs(35);

/// What a doctor said.
struct Report {
    code: i32,
    json: Value,
}

impl Report {
    /// Runs `program doctor --json` on an agent's configuration.
    fn of(program: &str, agent: &Node) -> Result<Self> {
        let config = agent.write_config()?.display().to_string();
        Self::run(program, &["--config", &config], &agent.environment)
    }

    fn run(program: &str, arguments: &[&str], environment: &[(String, String)]) -> Result<Self> {
        let mut command = Command::new(binaries::path(program));
        command.args(["doctor", "--json"]).args(arguments);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        Self::by(&mut command)
    }

    fn by(command: &mut Command) -> Result<Self> {
        let begun = Instant::now();
        let output = command.output()?;
        assert!(begun.elapsed() < BOUND, "it took {:?}", begun.elapsed());
        let text = String::from_utf8(output.stdout)?;
        let json = serde_json::from_str(&text)
            .with_context(|| format!("not JSON: {text}\n{}", String::from_utf8_lossy(&output.stderr)))?;
        Ok(Self { code: output.status.code().context("it was killed")?, json })
    }

    fn check(&self, name: &str) -> &Value {
        let checks = self.json["checks"].as_array().expect("checks");
        checks.iter().find(|check| check["check"] == name).unwrap_or_else(|| panic!("no {name} in {}", self.json))
    }

    /// Expects a check to have this verdict; gives what was found and what to do.
    fn expect(&self, name: &str, verdict: &str) -> String {
        let check = self.check(name);
        assert_eq!(check["verdict"], verdict, "{check:#}");
        format!("{} -> {}", check["found"], check["remedy"])
    }
}

#[test]
fn a_healthy_pair_is_well_and_both_programs_say_so() -> Result<()> {
    lab::run(|lab| {
        let mut pair = Pair::start(lab)?;
        wait::until("the link is up", LIMIT, || match pair.agent.status() {
            Ok(status) if status["link"]["state"] == "up" => Seen::Yes(()),
            other => Seen::NotYet(format!("{other:?}")),
        })?;
        let pid = pair.agent.process().pid().to_string();
        for program in ["godwit", "godwit-agent"] {
            let report = Report::of(program, &pair.agent)?;
            assert_eq!(report.code, 0, "{:#}", report.json);
            assert!(report.expect("ports", "ok").contains(&pid), "{:#}", report.check("ports"));
            assert!(report.expect("agent", "ok").contains("link is up"));
            for good in ["kernel", "libc", "memory", "entropy", "config", "doors", "room", "name", "gateway", "versions"] {
                report.expect(good, "ok");
            }
            assert_eq!(report.check("versions")["values"]["gateway"], env!("CARGO_PKG_VERSION"));
            assert!(report.check("fdatasync")["values"]["median_us"].as_u64().is_some_and(|us| us > 0));
            assert!(report.check("flash")["values"]["agent_bytes_per_day"].is_u64(), "{:#}", report.check("flash"));
        }
        // A server elsewhere that is meant for other commands.
        let elsewhere = [("GODWIT_SERVER".to_owned(), format!("http://{}", pair.gateway.http()))];
        let report = Report::run("godwit", &[], &elsewhere)?;
        assert!(report.check("config")["verdict"] != "fail", "{:#}", report.check("config"));
        // Found by its port, with the flags and in the folder it was started with.
        let report = Report::run("godwit", &["--server", &format!("http://{}", pair.agent.http())], &[])?;
        assert_eq!(report.code, 0, "{:#}", report.json);
        assert!(report.json["subject"].as_str().is_some_and(|subject| subject.contains(&pid)), "{:#}", report.json);
        assert!(report.expect("agent", "ok").contains(&pid));
        let left: Vec<_> = std::fs::read_dir(pair.agent.data())?.flatten().map(|entry| entry.file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().contains("doctor")), "{left:?}");
        pair.agent.stop()?;
        let report = Report::of("godwit-agent", &pair.agent)?;
        assert_eq!(report.code, 0, "a stopped agent is nothing wrong: {:#}", report.json);
        assert!(report.expect("agent", "ok").contains("none runs"));
        Ok(())
    })
}

#[test]
fn a_port_taken_by_a_stranger_is_found_with_its_pid() -> Result<()> {
    lab::run(|lab| {
        let agent = Node::agent(lab, "agent-1")?;
        let _stranger = TcpListener::bind(agent.mqtt())?;
        let report = Report::of("godwit", &agent)?;
        assert_eq!(report.code, 1);
        let said = report.expect("ports", "fail");
        assert!(said.contains(&std::process::id().to_string()) && said.contains("mqtt.listen"), "{said}");
        Ok(())
    })
}

#[test]
fn a_small_full_disk_is_found_and_memory_is_no_disk() -> Result<()> {
    need!("a_small_full_disk_is_found_and_memory_is_no_disk", root, "losetup", "mkfs.ext4");
    lab::run(|lab| {
        let mut agent = Node::agent(lab, "agent-1")?;
        let disk = Disk::ext4(lab, "disk", 64)?;
        agent.keep_data_at(disk.path());
        agent.set("storage.segment-bytes", "4MiB");
        agent.start()?;
        let report = Report::of("godwit", &agent)?;
        assert_eq!(report.check("storage")["values"]["file_system"], "ext4");
        assert_ne!(report.check("room")["verdict"], "fail", "{:#}", report.check("room"));
        agent.stop()?;
        disk.fill(1 << 20)?;
        let report = Report::of("godwit", &agent)?;
        assert_eq!(report.code, 1, "{:#}", report.json);
        report.expect("room", "fail");
        let memory = Disk::tmpfs(lab, "memory", 64)?;
        agent.keep_data_at(memory.path());
        let report = Report::of("godwit", &agent)?;
        assert_eq!(report.code, 1);
        assert!(report.expect("storage", "fail").contains("agent.data-dir"));
        report.expect("fdatasync", "fail");
        Ok(())
    })
}

#[test]
fn an_expired_certificate_is_found_on_both_sides() -> Result<()> {
    need!("an_expired_certificate_is_found_on_both_sides", "openssl");
    lab::run(|lab| {
        let keys = Keys::make(lab, std::net::Ipv4Addr::LOCALHOST.into())?;
        let mut gateway = Node::gateway(lab)?;
        let mut agent = Node::agent(lab, "agent-1")?;
        for (node, key) in [(&mut gateway, "http"), (&mut agent, "http")] {
            node.set(&format!("{key}.tls-cert"), &keys.certificate.display().to_string());
            node.set(&format!("{key}.tls-key"), &keys.key.display().to_string());
        }
        agent.set("gateway.url", &format!("https://localhost:{}", gateway.http().port()));
        agent.set("gateway.ca-file", &keys.authority.display().to_string());
        gateway.start()?;
        let report = Report::of("godwit", &agent)?;
        report.expect("certificates", "warn");
        assert!(report.expect("gateway-tls", "warn").contains("expires in"), "two days are soon over");
        gateway.stop()?;
        keys.expire()?;
        gateway.start()?;
        let report = Report::of("godwit", &agent)?;
        assert_eq!(report.code, 1);
        assert!(report.expect("certificates", "fail").contains("expired"));
        let told = report.expect("gateway-tls", "fail");
        assert!(told.contains("renew the gateway's certificate"), "{told}");
        Ok(())
    })
}

#[test]
fn a_gateway_that_is_down_or_none_or_silent_is_told_apart_and_not_waited_for() -> Result<()> {
    lab::run(|lab| {
        let gateway = Node::gateway(lab)?;
        let mut agent = Node::agent(lab, "agent-1")?;
        agent.uplink(gateway.http());
        let report = Report::of("godwit", &agent)?;
        assert_eq!(report.code, 1);
        assert!(report.expect("gateway", "fail").contains("connecting to"));
        let silent = TcpListener::bind("127.0.0.1:0")?;
        agent.uplink(silent.local_addr()?);
        let report = Report::of("godwit", &agent)?;
        assert!(report.expect("gateway", "fail").contains("no answer within 5 s"));
        agent.set("gateway.url", "http://no-such-host.invalid");
        let report = Report::of("godwit", &agent)?;
        report.expect("name", "fail");
        agent.set("http.listne", "127.0.0.1:1");
        let report = Report::of("godwit", &agent)?;
        assert_eq!(report.code, 1);
        assert!(report.expect("config", "fail").contains("listne"));
        Ok(())
    })
}

#[test]
fn a_gateway_on_the_port_is_not_taken_for_the_agent_and_its_command_line_is_not_told() -> Result<()> {
    lab::run(|lab| {
        let mut gateway = Node::gateway(lab)?;
        gateway.start()?;
        let server = format!("http://u:s3cr3t@{}", gateway.http());
        let report = Report::run("godwit", &["--server", &server], &[])?;
        assert_eq!(report.code, 1);
        assert!(report.expect("config", "fail").contains("no godwit-agent"));
        report.expect("ports", "unknown");
        let whole = report.json.to_string();
        assert!(!whole.contains("gateway.toml") && !whole.contains("s3cr3t"), "{whole}");
        Ok(())
    })
}

#[test]
fn an_agent_that_hangs_is_to_be_restarted() -> Result<()> {
    lab::run(|lab| {
        let mut agent = Node::agent(lab, "agent-1")?;
        agent.start()?;
        let elsewhere = [("GODWIT_SERVER".to_owned(), "http://127.0.0.1:1".to_owned())];
        agent.environment.extend(elsewhere);
        Report::of("godwit", &agent)?.expect("agent", "ok");
        agent.process().signal(Signal::STOP)?;
        let report = Report::of("godwit", &agent)?;
        assert_eq!(report.code, 1);
        let said = report.expect("agent", "fail");
        assert!(said.contains("no answer within 5 s") && said.contains("restart it"), "{said}");
        agent.process().signal(Signal::CONT)?;
        Ok(())
    })
}

#[test]
fn a_gateway_that_does_not_know_the_agents_token_is_no_matter_of_waiting() -> Result<()> {
    lab::run(|lab| {
        let agents = lab.path().join("agents");
        let foreign = keys::token(&agents, "another")?;
        let own = keys::token(&agents, "agent-1")?;
        let mut gateway = Node::gateway(lab)?;
        gateway.set("auth.credentials", &agents.display().to_string());
        gateway.start()?;
        let mut agent = Node::agent(lab, "agent-1")?;
        agent.uplink(gateway.http());
        agent.start()?;
        wait::until("the link is refused", LIMIT, || match agent.status() {
            Ok(status) if status["link"]["error"].as_str().is_some_and(|why| why.contains("401")) => Seen::Yes(()),
            other => Seen::NotYet(format!("{other:?}")),
        })?;
        let report = Report::of("godwit", &agent)?;
        assert_eq!(report.code, 1);
        assert!(report.expect("agent", "fail").contains("godwit token"));
        report.expect("gateway", "fail");
        agent.stop()?;
        // Whose token it is, only the gateway knows; and asking it makes no agent.
        for (token, verdict) in [(&foreign, "fail"), (&own, "ok")] {
            agent.set("gateway.token-file", &lab.write("token", token)?.display().to_string());
            let report = Report::of("godwit", &agent)?;
            let said = report.expect("gateway", verdict);
            assert_eq!(said.contains("our token is that of another"), verdict == "fail", "{said}");
        }
        gateway.bearer = Some(own);
        assert_eq!(gateway.status()?["agents"], serde_json::json!([]));
        Ok(())
    })
}

#[test]
fn without_its_configuration_nothing_is_said_of_an_agent() -> Result<()> {
    let report = Report::run("godwit-agent", &["--config", "/nowhere/agent.toml"], &[])?;
    assert_eq!(report.code, 1);
    let said = report.expect("config", "fail");
    assert!(said.contains("No such file") && said.contains("--config"), "{said}");
    for unknown in ["memory", "doors", "ports", "storage", "room", "agent", "gateway", "versions"] {
        report.expect(unknown, "unknown");
    }
    Ok(())
}

#[test]
fn a_pipe_for_a_file_is_found_and_not_read() -> Result<()> {
    need!("a_pipe_for_a_file_is_found_and_not_read", "mkfifo");
    lab::run(|lab| {
        let pipe = lab.path().join("pipe");
        godwit_tests::disk::run(Command::new("mkfifo").arg(&pipe))?;
        let mut agent = Node::agent(lab, "agent-1")?;
        agent.set("gateway.url", "http://127.0.0.1:1");
        for key in ["gateway.token-file", "gateway.ca-file", "auth.credentials"] {
            agent.set(key, &pipe.display().to_string());
        }
        let begun = Instant::now();
        let report = Report::of("godwit-agent", &agent)?;
        assert!(begun.elapsed() < LIMIT, "it took {:?}", begun.elapsed());
        assert!(report.expect("doors", "fail").contains("auth.credentials"));
        report.expect("gateway", "fail");
        Ok(())
    })
}

#[test]
fn what_root_may_read_and_the_agents_user_may_not_is_found() -> Result<()> {
    need!("what_root_may_read_and_the_agents_user_may_not_is_found", root);
    lab::run(|lab| {
        let file = lab.path().join("credentials");
        keys::password(&file, "device", "right")?;
        let mut agent = Node::agent(lab, "agent-1")?;
        agent.set("auth.credentials", &file.display().to_string());
        std::fs::create_dir_all(agent.data())?;
        std::os::unix::fs::chown(agent.data(), Some(4711), None)?;
        let said = Report::of("godwit", &agent)?.expect("doors", "fail");
        assert!(said.contains("chown 4711"), "{said}");
        std::os::unix::fs::chown(&file, Some(4711), None)?;
        Report::of("godwit", &agent)?.expect("doors", "ok");
        Ok(())
    })
}

/// A copy of the agent for somebody else, who can come to it and to the configuration, as in /usr/bin and /etc.
fn for_all_users(lab: &Lab) -> Result<PathBuf> {
    std::fs::set_permissions(lab.path(), Permissions::from_mode(0o755))?;
    let program = lab.path().join("godwit-agent");
    std::fs::copy(binaries::path("godwit-agent"), &program)?;
    Ok(program)
}

#[test]
fn root_sends_no_file_for_a_user_who_may_not_read_it() -> Result<()> {
    need!("root_sends_no_file_for_a_user_who_may_not_read_it", root, "setpriv");
    lab::run(|lab| {
        let gateway = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", gateway.local_addr()?);
        // What the doctor asks there; the agent asks too.
        let (send, asked) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for mut client in gateway.incoming().flatten() {
                let mut request = [0; 4096];
                let n = client.read(&mut request).unwrap_or_default();
                let request = String::from_utf8_lossy(&request[..n]).into_owned();
                let _ = client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
                if request.contains("user-agent: godwit-doctor") && send.send(request).is_err() {
                    return;
                }
            }
        });
        let file = lab.write("file", "s3cr3t")?;
        std::fs::set_permissions(&file, Permissions::from_mode(0o600))?;
        let mut agent = Node::agent(lab, "agent-1")?;
        agent.binary = Some(for_all_users(lab)?);
        agent.before = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"].map(str::to_owned).to_vec();
        agent.set("gateway.url", &url);
        agent.set("gateway.token-file", &file.display().to_string());
        std::fs::create_dir_all(agent.data())?;
        std::os::unix::fs::chown(agent.data(), Some(65_534), None)?;
        agent.start()?;
        let server = format!("http://{}", agent.http());
        for (owner, sent) in [(65_534, true), (0, false)] {
            std::os::unix::fs::chown(&file, Some(owner), None)?;
            let report = Report::run("godwit", &["--server", &server], &[])?;
            let asked: Vec<String> = asked.try_iter().collect();
            assert!(asked.len() > 1, "{asked:?} {:#}", report.json);
            assert_eq!(asked.iter().any(|request| request.contains("s3cr3t")), sent, "of {owner}: {asked:?}");
            report.expect("doors", if sent { "ok" } else { "fail" });
            assert!(report.json["subject"].as_str().is_some_and(|subject| subject.contains("as its user, 65534")));
            // It sees of its own agent what root would.
            for check in ["config", "ports", "room"] {
                report.expect(check, "ok");
            }
            assert!(report.check("flash")["values"]["agent_bytes_per_day"].is_u64(), "{:#}", report.check("flash"));
        }
        Ok(())
    })
}

#[test]
fn what_an_ordinary_user_may_not_read_is_not_known_and_no_fault() -> Result<()> {
    need!("what_an_ordinary_user_may_not_read_is_not_known_and_no_fault", root);
    lab::run(|lab| {
        let program = for_all_users(lab)?;
        let agents = lab.path().join("agents");
        let token = keys::token(&agents, "agent-1")?;
        let mut gateway = Node::gateway(lab)?;
        gateway.set("auth.credentials", &agents.display().to_string());
        gateway.start()?;
        let mut agent = Node::agent(lab, "agent-1")?;
        agent.uplink(gateway.http());
        let private = lab.path().join("private");
        std::fs::create_dir(&private)?;
        let token_file = private.join("token");
        std::fs::write(&token_file, token)?;
        std::fs::set_permissions(&private, Permissions::from_mode(0o750))?;
        agent.set("gateway.token-file", &token_file.display().to_string());
        Report::of("godwit-agent", &agent)?.expect("gateway", "ok");
        let of_another = |agent: &Node| {
            let config = agent.write_config()?;
            std::fs::set_permissions(&config, Permissions::from_mode(0o644))?;
            Report::by(Command::new(&program).args(["doctor", "--json", "--config"]).arg(&config).uid(65_534).gid(65_534))
        };
        let report = of_another(&agent)?;
        let said = report.expect("gateway", "unknown");
        assert!(said.contains("gateway.token-file may not be read") && said.contains("as root"), "{said}");
        assert_eq!(report.code, 0, "{:#}", report.json);
        let authority = private.join("ca.pem");
        std::fs::write(&authority, "")?;
        agent.set("gateway.ca-file", &authority.display().to_string());
        agent.set("gateway.url", &format!("https://{}", gateway.http()));
        let report = of_another(&agent)?;
        let said = report.expect("gateway-tls", "unknown");
        assert!(said.contains("gateway.ca-file may not be read"), "{said}");
        assert_eq!(report.code, 0, "{:#}", report.json);
        gateway.stop()?;
        of_another(&agent)?.expect("gateway", "fail");
        Ok(())
    })
}

#[test]
fn a_clock_in_1970_is_found() -> Result<()> {
    if faketime::library().is_none() {
        skip::skip("a_clock_in_1970_is_found", "needs libfaketime");
        return Ok(());
    }
    lab::run(|lab| {
        let mut agent = Node::agent(lab, "agent-1")?;
        let _clock = Clock::give(&mut agent, lab.path(), "1970-01-01 00:00:05")?;
        let report = Report::of("godwit", &agent)?;
        let said = report.expect("clock", "warn");
        assert!(said.contains("1970") && said.contains("not set"), "{said}");
        agent.set("gateway.url", "https://127.0.0.1:1");
        let report = Report::of("godwit", &agent)?;
        report.expect("clock", "fail");
        Ok(())
    })
}
