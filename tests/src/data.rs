//! The flight of a drone, to feed the system with something real.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::value::RawValue;

/// One message of the flight.
#[derive(Debug, Deserialize)]
pub struct Message {
    /// Milliseconds since the flight began.
    pub t_ms: u64,
    /// MQTT topic.
    pub topic: String,
    payload: Box<RawValue>,
}

impl Message {
    /// The payload, JSON.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.payload.get().as_bytes()
    }
}

/// All messages of the flight, in order.
///
/// # Errors
/// When the file cannot be unpacked.
pub fn flight() -> Result<Vec<Message>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/drone-flight.ndjson.gz");
    let unpacked = Command::new("gzip").arg("-dc").arg(&path).output().context("cannot run gzip")?;
    anyhow::ensure!(unpacked.status.success(), "gzip cannot unpack {}", path.display());
    let lines = unpacked.stdout.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).context("a line of the flight")).collect()
}
