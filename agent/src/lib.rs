//! Godwit's agent: takes events from devices, keeps them on disk, hands them to local Triggers and carries them to the gateway.

pub mod config;
pub mod mqtt;
pub mod uplink;
