//! The protocol between agent and gateway, as both ends speak it: `docs/protocol.md` gives it for people.
//!
//! A stream in either direction is a row of [`chunk`]s; [`codec`] turns chunks into [`frame`]s, compressed under one context as
//! long as a connection lasts; a [`batch`] of events is a frame whose bodies are split into [`columns`]. Everything that a
//! peer controls has a limit in [`limits`]; no decoder here panics, and none makes more memory than its limit says.

pub mod batch;
pub mod chunk;
pub mod codec;
pub mod columns;
pub mod frame;
pub mod limits;
#[cfg(test)]
mod measure;
mod numbers;
mod varint;
#[cfg(test)]
mod vectors;
pub mod when;

pub use batch::{Batch, BatchReader, BatchWriter, Skip, SkipReason};
pub use chunk::{Chunks, Kind};
pub use codec::{Decoder, Effort, Encoder};
pub use frame::Frame;
pub use limits::SyncError;

/// The only version spoken so far. A hello names the newest one its sender speaks, the welcome the one that both use.
pub const VERSION: u32 = 1;

/// Content type of both bodies.
pub const CONTENT_TYPE: &str = "application/vnd.godwit.sync";

/// The path of an agent's stream of events.
#[must_use]
pub fn up_path(agent: &crate::names::AgentId) -> String {
    format!("/sync/v1/agents/{agent}/up")
}

/// The path of what is sent down to an agent.
#[must_use]
pub fn down_path(agent: &crate::names::AgentId) -> String {
    format!("/sync/v1/agents/{agent}/down")
}
