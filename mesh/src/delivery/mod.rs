//! Delivery: Triggers run on Brokers.
//!
//! Each Trigger is one task with a durable cursor on its Broker's journal: read, filter, send, and only then move the cursor. One
//! event is outstanding at a time. A Trigger whose subscriber does not answer holds no event in memory and delays no other.
//!
//! The files follow the way of an event: `triggers` applies sets and starts tasks, `identity` keeps their uids, `plan` says what a
//! task does, `dispatcher` is the task, `attempt` one try, `sender` the HTTP request, `outcome` and `policy` decide what
//! follows a failure, `store` puts replies into a Broker, `dead_letter` keeps what could not be delivered, `live` tells of it all.

mod attempt;
mod dead_letter;
mod dispatcher;
pub(crate) mod identity;
mod live;
pub(crate) mod outcome;
pub(crate) mod plan;
mod policy;
pub(crate) mod sender;
mod store;
pub(crate) mod target;
#[cfg(test)]
mod tests;
pub(crate) mod triggers;

pub use dead_letter::{DeadLetter, DeadLetterHead};
pub use store::{append, append_dead_letter};
pub use triggers::{ApplyError, DeliverySettings, Owner, Standing, Triggers};
