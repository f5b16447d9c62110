//! The agents' way in: their events go into Brokers of the same names, and the objects meant for them go down.
//!
//! `docs/protocol.md` says what travels. A request's way: [`up`](routes) reads a hello; `agent` decides where its brokers go on, or
//! that it is a fork, and ends an older connection of the same agent; each broker gets a `lane`, which stores events and position
//! in one commit and tells the `outbox`, from which the answer is written. What an agent's broker has stored is its `position`.
//! Invariant: at most one connection of an agent has lanes, so that no offset is stored twice.

mod agent;
mod agents;
mod down;
mod lane;
mod outbox;
mod position;
mod up;

pub use agents::{AgentSync, SyncSettings};
