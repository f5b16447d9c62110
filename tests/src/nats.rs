//! Debian's nats-server as a peer of benches: a hub, and a leaf node of it that takes MQTT and keeps streams on disk (JetStream).

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::lab::Lab;
use crate::ports;
use crate::process::{Line, Process};
use crate::wait::{self, Seen};

/// A running leaf and the hub that it is linked to.
#[derive(Debug)]
pub struct Leaf {
    /// The leaf's MQTT listener.
    pub mqtt: SocketAddr,
    /// The leaf's process.
    pub process: Process,
    _hub: Process,
}

/// Where the program is.
///
/// # Errors
/// When it is not installed.
pub fn program() -> Result<PathBuf> {
    let places = ["/usr/sbin/nats-server", "/usr/bin/nats-server", "/usr/local/bin/nats-server"].map(PathBuf::from);
    places.into_iter().find(|path| path.is_file()).context("nats-server is not installed")
}

impl Leaf {
    /// Starts both; the leaf's streams are in `folder`.
    ///
    /// # Errors
    /// When one of them does not start.
    pub fn start(lab: &Lab, folder: &Path) -> Result<Self> {
        let [hub_port, link_port, client_port, mqtt_port] = std::array::from_fn(|_| ports::free());
        let hub = format!(
            "server_name: hub\nlisten: \"127.0.0.1:{hub_port}\"\nleafnodes {{ listen: \"127.0.0.1:{link_port}\" }}\n"
        );
        let leaf = format!(
            "server_name: leaf\nlisten: \"127.0.0.1:{client_port}\"\njetstream {{ store_dir: \"{}\", domain: leaf }}\n\
             mqtt {{ listen: \"127.0.0.1:{mqtt_port}\" }}\n\
             leafnodes {{ remotes: [ {{ url: \"nats-leaf://127.0.0.1:{link_port}\" }} ] }}\n",
            folder.display()
        );
        let hub = start(lab, "nats-hub", &hub, link_port)?;
        let process = start(lab, "nats-leaf", &leaf, mqtt_port)?;
        Ok(Self { mqtt: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), mqtt_port), process, _hub: hub })
    }
}

fn start(lab: &Lab, name: &str, config: &str, port: u16) -> Result<Process> {
    let config = lab.write(&format!("{name}.conf"), config)?;
    let line =
        Line { program: program()?, arguments: vec!["-c".to_owned(), config.display().to_string()], ..Line::default() };
    let process = Process::start(name, &line, &lab.path().join(format!("{name}.log")))?;
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let listens = wait::until(format!("{name} listens"), Duration::from_secs(10), || match TcpStream::connect(address) {
        Ok(_) => Seen::Yes(()),
        Err(error) => Seen::NotYet(error.to_string()),
    });
    listens.with_context(|| process.last_lines())?;
    Ok(process)
}
