//! Whose configuration is looked at: that of the flags given, or that of an agent that runs.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use anyhow::Context;
use godwit_mesh::config::ConfigError;
use godwit_mesh::doctor::{self, Keeper, Process, Verdict, listener_pid};
use godwit_mesh::door::{ClientTls, bare};
use godwit_mesh::process::told;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::doors::AS_ROOT;
use crate::config::Config;
use crate::flags::{Flags, is_program};

/// What to do about an agent whose files are not ours.
pub(super) const INSIDE: &str = "run godwit-agent doctor inside of it";

/// The configuration that an installed agent's unit names.
const INSTALLED: &str = "/etc/godwit/agent.toml";

/// What is looked at.
#[derive(Debug, Clone)]
pub struct Subject {
    /// In one line, for the report.
    pub shown: String,
    /// The configuration; the defaults where it is wrong.
    pub config: Config,
    /// Why the configuration cannot be used, and what to do.
    pub wrong: Option<(Verdict, String, &'static str)>,
    /// The agent that runs, if it was looked for.
    process: Option<Process>,
    /// The user that this process has become to look at it.
    pub(super) became: Option<u32>,
    /// What looks like a mistake in the environment.
    pub warnings: Vec<String>,
    /// Where the running agent is asked, unless its configuration says it.
    pub server: Option<String>,
    /// The token to show there.
    pub token: Option<String>,
    /// Whom to trust there.
    pub trust: ClientTls,
}

impl Subject {
    /// The configuration that these flags make with this process's environment, as an agent started so would have it.
    ///
    /// # Errors
    /// When not even the defaults can be had.
    pub fn of_flags(flags: Flags) -> anyhow::Result<Self> {
        let shown = match &flags.config {
            Some(file) => format!("an agent with the configuration {}", file.display()),
            None => "an agent with no configuration file".to_owned(),
        };
        Self::new(shown, flags, std::env::vars())
    }

    /// The configuration of the agent that listens at `server` on this machine, as it was started; where none does and no server
    /// was asked for, the installed configuration, or no file. A server that was asked for and is no agent here is a finding.
    ///
    /// What a process tells of itself is its user's word. Root becomes the user of the agent that it finds so, for good and before it
    /// reads anything that the agent names: else whoever listens where an agent would could have it read, and send, any file. This is
    /// for a process that has no other threads yet.
    ///
    /// # Errors
    /// When not even the defaults can be had.
    pub fn of_running(server: Option<&str>, default: &str) -> anyhow::Result<Self> {
        match (Self::of_listener(server.unwrap_or(default)), server) {
            (Ok(subject), _) => Ok(subject),
            (Err(error), Some(server)) => {
                let subject = Self::new(format!("the agent at {}", bare(server)), Flags::default(), [])?;
                let unseen = error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::PermissionDenied);
                let (verdict, remedy) = if unseen {
                    (Verdict::Unknown, AS_ROOT)
                } else {
                    (Verdict::Fail, "give the agent's --config, or the --server where it listens")
                };
                Ok(Self { wrong: Some((verdict, told(error.as_ref()), remedy)), ..subject })
            }
            (Err(_), None) => {
                let config = Path::new(INSTALLED);
                let there = !matches!(config.try_exists(), Ok(false));
                Self::of_flags(Flags { config: there.then(|| config.to_owned()), ..Flags::default() })
            }
        }
    }

    fn of_listener(server: &str) -> anyhow::Result<Self> {
        let process = running(server)?;
        // Before what it tells of itself: it may become another program meanwhile.
        let user = process.user();
        let words = process.arguments().unwrap_or_default();
        // What others were started with is not for us to tell.
        let agent = process.name == "godwit-agent"
            || process.name.starts_with("qemu-") && words.iter().any(|word| is_program(word));
        // A program with the set-user-ID bit is not the word of whom it runs as.
        let flags = Flags::of_line(&words).filter(|_| agent && !process.changes_user());
        let flags = flags.with_context(|| {
            format!("{} (process {}) listens at {}, and is no godwit-agent", process.name, process.pid, bare(server))
        })?;
        let line: Vec<String> = words.iter().map(|word| bare(word)).collect();
        let mut shown = format!("the running agent, process {}: {}", process.pid, line.join(" "));
        if process.apart() {
            let wrong = "the agent runs in a container, with files of its own".to_owned();
            let subject = Self::new(shown, Flags::default(), [])?;
            return Ok(Self { wrong: Some((Verdict::Unknown, wrong, INSIDE)), ..subject });
        }
        let environment = process.environment().unwrap_or_else(|| {
            shown.push_str(" (its environment cannot be read by this user)");
            Vec::new()
        });
        // What it names by a relative path is relative to where it runs; its user need not be able to go there again.
        if let Some(folder) = process.folder() {
            std::env::set_current_dir(&folder).with_context(|| format!("going to {}", folder.display()))?;
        }
        let became = become_user(user.with_context(|| format!("process {} is gone", process.pid))?)?;
        if let Some(id) = became {
            shown.push_str(&format!(" (looked at as its user, {id})"));
        }
        Ok(Self { process: Some(process), became, ..Self::new(shown, flags, environment)? })
    }

    /// Whether it is an agent that was found by its port.
    #[must_use]
    pub fn found(&self) -> bool {
        self.process.is_some()
    }

    /// Whether a token may be shown where the agent is asked: not to others, whom the configuration of a process that was found by its
    /// port may name.
    pub(super) fn is_its_own(&self) -> bool {
        let listens = |process: &Process| listener_pid(self.config.http.listen) == Some(process.pid);
        self.server.is_some() || self.process.as_ref().is_none_or(listens)
    }

    /// Who has the data folder: where its lock is not seen, the agent that was found by its port.
    pub(super) fn keeper(&self) -> Keeper {
        match (doctor::keeper(&self.config.agent.data_dir), &self.process) {
            (Keeper::Nobody | Keeper::Unseen, Some(process)) => Keeper::Process(process.clone()),
            (keeper, _) => keeper,
        }
    }

    fn new(shown: String, flags: Flags, environment: impl IntoIterator<Item = (String, String)>) -> anyhow::Result<Self> {
        let (loaded, wrong) = match flags.load(environment) {
            Ok(loaded) => (loaded, None),
            Err(error) => {
                let (verdict, remedy) = match &error {
                    ConfigError::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                        (Verdict::Unknown, AS_ROOT)
                    }
                    ConfigError::Read { .. } => (Verdict::Fail, "--config names the agent's file"),
                    _ => (Verdict::Fail, "mend that line"),
                };
                (Flags::default().load([]).context("the defaults")?, Some((verdict, error.to_string(), remedy)))
            }
        };
        let (config, warnings) = loaded;
        let token = std::env::var("GODWIT_TOKEN").ok().filter(|token| !token.is_empty());
        Ok(Self {
            shown,
            config,
            wrong,
            warnings,
            process: None,
            became: None,
            server: None,
            token,
            trust: ClientTls::new(None),
        })
    }
}

/// Root becomes this user, of this group and these others; who it is by then.
fn become_user((id, group, groups): (u32, u32, Vec<u32>)) -> anyhow::Result<Option<u32>> {
    if id == 0 || !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(group));
    let groups: Vec<Gid> = groups.into_iter().map(Gid::from_raw).collect();
    set_thread_groups(&groups)
        .and_then(|()| set_thread_res_gid(group, group, group))
        .and_then(|()| set_thread_res_uid(user, user, user))
        .with_context(|| format!("becoming the agent's user {id}"))?;
    Ok(Some(id))
}

/// The process that listens at a URL of this machine.
fn running(server: &str) -> anyhow::Result<Process> {
    let server = bare(server);
    let (scheme, rest) = server.split_once("://").with_context(|| format!("{server} is not a URL"))?;
    let place = rest.split('/').next().unwrap_or_default();
    let default = if scheme == "https" { 443 } else { 80 };
    let addresses: Vec<SocketAddr> = match place.to_socket_addrs() {
        Ok(found) => found.collect(),
        Err(_) => (place, default).to_socket_addrs().with_context(|| format!("looking up {place}"))?.collect(),
    };
    if addresses.iter().any(|address| doctor::held_unseen(*address)) {
        let why = format!("who listens at {place} cannot be seen by this user");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why).into());
    }
    let pid = addresses.into_iter().find_map(listener_pid).with_context(|| {
        format!("no process on this machine listens at {place}: the doctor looks at the board that it runs on")
    })?;
    Process::of(pid).with_context(|| format!("process {pid} is gone"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_elsewhere_and_a_wrong_or_absent_file_are_findings() {
        let subject = Subject::of_running(Some("http://u:s3cr3t@127.0.0.1:1"), "").expect("a finding");
        assert!(!format!("{subject:?}").contains("s3cr3t"), "{subject:?}");
        let (verdict, why, _) = subject.wrong.expect("nobody there");
        assert!(verdict == Verdict::Fail && why.contains("127.0.0.1:1") && why.contains("board"), "{why}");
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, "[agent]\nidd = \"x\"\n").expect("written");
        let of = |path| Subject::of_flags(Flags { config: Some(path), ..Flags::default() }).expect("defaults").wrong;
        assert!(of(path).is_some_and(|(_, why, _)| why.contains("agent.idd")));
        assert!(
            of(dir.path().join("none"))
                .is_some_and(|(_, why, remedy)| why.contains("No such file") && remedy.contains("--config"))
        );
    }

    #[test]
    fn a_stranger_on_the_agents_port_is_no_agent() {
        let stranger = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = format!("http://{}", stranger.local_addr().expect("an address"));
        let (verdict, why, _) = Subject::of_running(Some(&server), "").expect("a finding").wrong.expect("a stranger");
        assert_eq!(verdict, Verdict::Fail);
        let words = std::env::args().next().expect("a program");
        assert!(why.contains("no godwit-agent") && !why.contains(&words), "{why}");
        let subject = Subject::of_running(None, &server).expect("the installed one or the defaults");
        assert!(subject.process.is_none(), "{subject:?}");
    }
}
