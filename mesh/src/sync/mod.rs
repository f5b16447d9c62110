//! The protocol between agent and gateway.
