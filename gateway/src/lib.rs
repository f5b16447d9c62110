//! Godwit's gateway: where the agents' events arrive and central Triggers run.

pub mod config;
pub mod sync;
