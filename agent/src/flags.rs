//! The agent's flags, and the configuration that file, environment and flags make.

use std::path::PathBuf;

use clap::Parser;
use godwit_mesh::config::{ConfigError, Loader};

use crate::config::Config;

/// The flags that say how an agent runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct Flags {
    /// Configuration file (TOML); every key has a default
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// The agent's name at the gateway
    #[arg(long, value_name = "NAME", global = true)]
    pub id: Option<String>,
    /// Folder for everything that must outlive a restart
    #[arg(long, value_name = "DIR", global = true)]
    pub data_dir: Option<String>,
    /// Where MQTT is served; empty for not at all
    #[arg(long, value_name = "ADDRESS:PORT", global = true)]
    pub mqtt_listen: Option<String>,
    /// Where HTTP is served
    #[arg(long, value_name = "ADDRESS:PORT", global = true)]
    pub http_listen: Option<String>,
    /// URL of the gateway
    #[arg(long, value_name = "URL", global = true)]
    pub gateway: Option<String>,
    /// Folder with manifests (YAML)
    #[arg(long, value_name = "DIR", global = true)]
    pub manifests: Option<String>,
    /// How log lines look: text or json
    #[arg(long, value_name = "FORMAT", global = true)]
    pub log_format: Option<String>,
}

/// The command line of an agent that runs.
#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    flags: Flags,
}

/// Whether this is a path of our program.
pub(crate) fn is_program(path: &str) -> bool {
    path.rsplit('/').next() == Some("godwit-agent")
}

impl Flags {
    /// The flags of an agent's command line, the program's name first, or an emulator and then the program. `None` where it is not
    /// that of an agent that runs.
    #[must_use]
    pub fn of_line(words: &[String]) -> Option<Self> {
        let at = words.iter().position(|word| is_program(word)).unwrap_or(0);
        Line::try_parse_from(words.iter().skip(at)).ok().map(|line| line.flags)
    }

    /// The configuration; the second value says which variables of the environment look like a mistake.
    ///
    /// # Errors
    /// What is wrong with the file or a value.
    pub fn load(
        self,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(Config, Vec<String>), ConfigError> {
        let loader = match &self.config {
            Some(path) => Loader::new().file(path)?,
            None => Loader::new(),
        };
        loader
            .environment(environment)
            .flag("agent.id", "--id", self.id)
            .flag("agent.data-dir", "--data-dir", self.data_dir)
            .flag("agent.manifests", "--manifests", self.manifests)
            .flag("mqtt.listen", "--mqtt-listen", self.mqtt_listen)
            .flag("http.listen", "--http-listen", self.http_listen)
            .flag("gateway.url", "--gateway", self.gateway)
            .flag("log.format", "--log-format", self.log_format)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_flags_of_a_running_agent_make_its_configuration() {
        let flags = Flags::of_line(&words("/usr/bin/godwit-agent --data-dir /var/lib/x --http-listen=127.0.0.1:9"))
            .expect("an agent's");
        let environment = [("GODWIT_AGENT_ID".to_owned(), "boat-7".to_owned())];
        let (config, _) = flags.load(environment).expect("valid");
        assert_eq!(config.agent.data_dir, PathBuf::from("/var/lib/x"));
        assert_eq!(config.agent.id.as_deref(), Some("boat-7"));
        let emulated = Flags::of_line(&words("qemu-arm-static -L /usr/arm /usr/bin/godwit-agent --id x"));
        assert_eq!(emulated.and_then(|flags| flags.id).as_deref(), Some("x"));
        assert_eq!(Flags::of_line(&words("godwit dev --data-dir x")), None, "another program's line");
    }
}
