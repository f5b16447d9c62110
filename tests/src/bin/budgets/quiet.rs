//! What the agent does while nothing happens: wake-ups, and bytes for the flash. It is linked to a gateway, and a device is connected
//! that has nothing to say.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use godwit_tests::disk::Disk;
use godwit_tests::footprint;
use godwit_tests::lab::Lab;
use godwit_tests::mqtt;
use godwit_tests::node::Node;
use godwit_tests::skip;
use godwit_tests::wait;

use crate::judge::Figure;

/// What is measured here.
pub(crate) const NAMES: [&str; 2] = ["wakeups-idle", "flash-idle"];

/// How long it gets to come to rest, and how long it is watched.
const REST: Duration = Duration::from_secs(8);
const WATCH: Duration = Duration::from_secs(60);

/// Watches for a minute.
pub(crate) fn measure(program: &Path) -> Result<Vec<Figure>> {
    let lab = Lab::new()?;
    let disk = if skip::is_root() { Some(Disk::ext4(&lab, "disk", 256)?) } else { None };
    let mut gateway = Node::gateway(&lab)?;
    gateway.start()?;
    let mut agent = Node::agent(&lab, "agent-1")?;
    agent.binary = Some(program.to_owned());
    agent.uplink(gateway.http());
    // As it comes: tests have it beat faster.
    agent.set("gateway.heartbeat", "30s");
    if let Some(disk) = &disk {
        agent.keep_data_at(disk.path());
    }
    agent.start()?;
    let mut device = TcpStream::connect(agent.mqtt())?;
    let mut out = Vec::new();
    mqtt::connect(&mut out, "silent", true, 600, None);
    device.write_all(&out)?;
    device.read_exact(&mut [0; 4])?;
    wait::until("the link is up", Duration::from_secs(10), || match agent.status() {
        Ok(status) if status["link"]["state"] == "up" => wait::Seen::Yes(()),
        Ok(status) => wait::Seen::NotYet(status["link"].to_string()),
        Err(error) => wait::Seen::NotYet(error.to_string()),
    })?;
    std::thread::sleep(REST);
    let quiet = footprint::quiet(agent.process(), disk.as_ref(), WATCH)?;
    agent.stop()?;
    Ok(vec![Figure::new("wakeups-idle", quiet.wakeups_per_second), Figure::new("flash-idle", quiet.written_per_hour)])
}
