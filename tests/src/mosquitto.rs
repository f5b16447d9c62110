//! Debian's mosquitto as the peer of benches and the test of the harness itself: everything in RAM, unless its own kind of
//! persistence is asked for (the whole database rewritten every 30 minutes and at the end).

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::lab::Lab;
use crate::ports;
use crate::process::{Line, Process};
use crate::wait::{self, Seen};

/// A running mosquitto.
#[derive(Debug)]
pub struct Mosquitto {
    /// Its listener.
    pub address: SocketAddr,
    /// Its process.
    pub process: Process,
}

impl Mosquitto {
    /// One with nothing on disk, no log and no limits of its own on queues.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(lab: &Lab, name: &str) -> Result<Self> {
        Self::start_at(lab, name, ports::free(), None)
    }

    /// One with its persistence as it comes, in `folder`; `bridge` as with [`Mosquitto::start_at`], and `run_by` as with
    /// [`crate::node::Node`].
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_persistent(
        lab: &Lab,
        name: &str,
        folder: &Path,
        bridge: Option<SocketAddr>,
        run_by: &[String],
    ) -> Result<Self> {
        let settings = format!("persistence true\npersistence_location {}/\n{}", folder.display(), bridging(bridge));
        Self::start_with(lab, name, ports::free(), &settings, run_by)
    }

    /// One at `port`; with `bridge` it sends all it gets to there at QoS 1.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_at(lab: &Lab, name: &str, port: u16, bridge: Option<SocketAddr>) -> Result<Self> {
        let settings = format!("persistence false\n{}", bridging(bridge));
        Self::start_with(lab, name, port, &settings, &[])
    }

    fn start_with(lab: &Lab, name: &str, port: u16, settings: &str, run_by: &[String]) -> Result<Self> {
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        // A change of user would undo that it is killed with the test, so it stays what it is.
        let text = format!(
            "user root\nlistener {port} 127.0.0.1\nallow_anonymous true\nlog_dest stderr\nlog_type error\n\
             max_queued_messages 0\nmax_inflight_messages 1000\nset_tcp_nodelay true\n{settings}"
        );
        let config = lab.write(&format!("{name}.conf"), &text)?;
        let program = program()?;
        let arguments = vec!["-c".to_owned(), config.display().to_string()];
        let line = Line { program, arguments, ..Line::default() }.run_by(run_by);
        let process = Process::start(name, &line, &lab.path().join(format!("{name}.log")))?;
        wait::until(format!("{name} listens"), Duration::from_secs(20), || match TcpStream::connect(address) {
            Ok(_) => Seen::Yes(()),
            Err(error) => Seen::NotYet(error.to_string()),
        })?;
        Ok(Self { address, process })
    }
}

/// Where the program is.
///
/// # Errors
/// When it is not installed.
pub fn program() -> Result<PathBuf> {
    let places = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto"].map(PathBuf::from);
    places.into_iter().find(|path| path.is_file()).context("mosquitto is not installed")
}

fn bridging(to: Option<SocketAddr>) -> String {
    to.map_or_else(String::new, |to| {
        format!(
            "connection up\naddress {to}\ntopic # out 1\ncleansession false\nclientid bridge\nrestart_timeout 1\n\
             try_private false\nnotifications false\nbridge_protocol_version mqttv311\n"
        )
    })
}
