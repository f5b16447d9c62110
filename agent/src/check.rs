//! Checks of a configuration: what a start would refuse, found without one.

use std::net::IpAddr;

use anyhow::{Context, ensure};
use godwit_mesh::door::ClientTls;
use godwit_mesh::manifest::Manifests;
use godwit_mesh::names::AgentId;
use godwit_mesh::observe;
use godwit_mesh::process::{self, Front};

use crate::config::Config;
use crate::{link, mqtt_tls};

/// Checks a configuration without opening a port or touching the data folder: listeners, certificates, credentials, manifests.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(config: &Config) -> anyhow::Result<()> {
    doors(config)?;
    values(config)?;
    if let Some(file) = &config.gateway.token_file {
        std::fs::read(file).with_context(|| format!("gateway.token-file {}", file.display()))?;
    }
    for (key, file) in [("gateway.ca-file", &config.gateway.ca_file), ("delivery.ca-file", &config.delivery.ca_file)] {
        ClientTls::check(file.as_deref()).context(key)?;
    }
    if let Some(folder) = &config.agent.manifests {
        Manifests::load_dir(folder).context("agent.manifests")?;
    }
    Ok(())
}

/// The rule for listeners, their certificates, and the credentials.
pub(crate) fn doors(config: &Config) -> anyhow::Result<()> {
    let credentials = process::credentials(&config.auth)?;
    mqtt_tls(config, credentials.is_some())?;
    Front::prepare(&config.http, credentials)?;
    Ok(())
}

/// The two listeners cannot have one port.
pub(crate) fn ports(config: &Config) -> anyhow::Result<()> {
    let (http, Some(mqtt)) = (config.http.listen, config.mqtt.listen) else { return Ok(()) };
    let (one, other) = (http.ip().to_canonical(), mqtt.ip().to_canonical());
    let holds = |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    let meet = one == other || holds(one, other) || holds(other, one);
    let clash = meet && http.port() == mqtt.port() && http.port() != 0;
    ensure!(!clash, "mqtt.listen and http.listen are on one port, {}: give one of them another", http.port());
    Ok(())
}

/// What can be told without any file.
pub(crate) fn values(config: &Config) -> anyhow::Result<()> {
    if let Some(id) = &config.agent.id {
        AgentId::new(id).context("agent.id")?;
    }
    if let Some(url) = &config.gateway.url {
        link::check_url(url)?;
    }
    ports(config)?;
    observe::endpoint(&config.tracing)?;
    observe::check_level(&config.log.level)?;
    process::services(&config.resolve)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Flags;

    #[test]
    fn two_listeners_on_one_port_are_refused() {
        let check = |mqtt: &str, http: &str| {
            let (mqtt_listen, http_listen) = (Some(mqtt.to_owned()), Some(http.to_owned()));
            let (config, _) = Flags { mqtt_listen, http_listen, ..Flags::default() }.load([]).expect("a configuration");
            values(&config).is_ok()
        };
        assert!(!check("127.0.0.1:1883", "127.0.0.1:1883"));
        assert!(!check("127.0.0.1:1883", "0.0.0.0:1883"));
        assert!(!check("127.0.0.1:1883", "[::ffff:127.0.0.1]:1883") && !check("127.0.0.1:1883", "[::]:1883"));
        assert!(check("127.0.0.1:1883", "127.0.0.2:1883") && check("[::1]:1883", "0.0.0.0:1883"));
        assert!(check("127.0.0.1:0", "127.0.0.1:0"));
    }
}
