//! Delivery: Triggers run on Brokers.
//!
//! Each Trigger is one task with a durable cursor on its Broker's journal: read, filter, send, and only then move the cursor. One
//! event is outstanding at a time. A Trigger whose subscriber does not answer holds no event in memory and delays no other.

mod triggers;

pub use triggers::{ApplyError, DeliverySettings, Owner, Triggers};
