//! Whose configuration is looked at: that of the flags given, or that of an agent that runs.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use anyhow::Context;
use godwit_mesh::doctor::{Process, listener_pid};
use godwit_mesh::door::ClientTls;

use crate::config::Config;
use crate::flags::Flags;

/// The configuration that an installed agent's unit names.
const INSTALLED: &str = "/etc/godwit/agent.toml";

/// What is looked at.
#[derive(Debug, Clone)]
pub struct Subject {
    /// In one line, for the report.
    pub shown: String,
    /// The configuration; the defaults where it is wrong.
    pub config: Config,
    /// Why the configuration cannot be used.
    pub wrong: Option<String>,
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
    /// was asked for, the installed configuration, or no file.
    ///
    /// # Errors
    /// When a server was asked for and is no agent on this machine.
    pub fn of_running(server: Option<&str>, default: &str) -> anyhow::Result<Self> {
        let found = running(server.unwrap_or(default));
        let process = match (found, server) {
            (Ok(process), _) => process,
            (Err(error), Some(_)) => return Err(error),
            (Err(_), None) => {
                let config = Some(Path::new(INSTALLED)).filter(|path| path.exists()).map(Path::to_owned);
                return Self::of_flags(Flags { config, ..Flags::default() });
            }
        };
        let words = process.arguments().unwrap_or_default();
        let flags = Flags::of_line(&words).with_context(|| {
            format!("process {} was started as `{}`: give the agent's --config", process.pid, words.join(" "))
        })?;
        let mut shown = format!("the running agent, process {}: {}", process.pid, words.join(" "));
        let environment = process.environment().unwrap_or_else(|| {
            shown.push_str(" (its environment cannot be read by this user)");
            Vec::new()
        });
        // What it names by a relative path is relative to where it runs.
        if let Some(folder) = process.folder() {
            std::env::set_current_dir(&folder).with_context(|| format!("going to {}", folder.display()))?;
        }
        Self::new(shown, flags, environment)
    }

    fn new(shown: String, flags: Flags, environment: impl IntoIterator<Item = (String, String)>) -> anyhow::Result<Self> {
        let (loaded, wrong) = match flags.load(environment) {
            Ok(loaded) => (loaded, None),
            Err(error) => (Flags::default().load([]).context("the defaults")?, Some(error.to_string())),
        };
        let (config, warnings) = loaded;
        let token = std::env::var("GODWIT_TOKEN").ok().filter(|token| !token.is_empty());
        Ok(Self { shown, config, wrong, warnings, server: None, token, trust: ClientTls::new(None) })
    }
}

/// The process that listens at a URL of this machine.
fn running(server: &str) -> anyhow::Result<Process> {
    let (scheme, rest) = server.split_once("://").with_context(|| format!("{server} is not a URL"))?;
    let place = rest.split('/').next().unwrap_or_default();
    let default = if scheme == "https" { 443 } else { 80 };
    let addresses: Vec<SocketAddr> = match place.to_socket_addrs() {
        Ok(found) => found.collect(),
        Err(_) => (place, default).to_socket_addrs().with_context(|| format!("looking up {place}"))?.collect(),
    };
    let pid = addresses.into_iter().find_map(listener_pid).with_context(|| {
        format!("no process on this machine is seen to listen at {server}: the doctor looks at the board that it runs on (as root it sees all)")
    })?;
    Process::of(pid).with_context(|| format!("process {pid} is gone"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_elsewhere_is_refused_and_a_wrong_file_is_a_finding() {
        let error = format!("{:#}", Subject::of_running(Some("http://127.0.0.1:1"), "").expect_err("nobody there"));
        assert!(error.contains("127.0.0.1:1") && error.contains("board"), "{error}");
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, "[agent]\nidd = \"x\"\n").expect("written");
        let subject = Subject::of_flags(Flags { config: Some(path), ..Flags::default() }).expect("defaults");
        assert!(subject.wrong.is_some_and(|why| why.contains("agent.idd")));
    }
}
