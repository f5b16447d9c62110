//! Delivery: Triggers run on Brokers.
//!
//! Each Trigger is one task with a durable cursor on its Broker's journal: take in, send, and only then move the cursor. One
//! event is outstanding at a time, or as many as its annotation says. A Trigger whose subscriber does not answer holds no event in memory
//! and delays no other.
//!
//! The files follow the way of an event: `triggers` holds the sets, `apply` puts one in the place of another and starts tasks,
//! `identity` keeps their uids, `plan` says what a task does (`target`, `endpoint` and `services` where its events go). `feed` reads a Broker
//! for all its Triggers, with `index` and `pages`; `intake` is where one Trigger takes its events from; both ask filters by
//! `judge`. `dispatcher` is the task, `window` what it has under way and how far its cursor may go, `ahead` how a restart finds
//! that again, `circuit` and `room` hold it back. `work` is one delivery, `attempt` one try, `sender` the HTTP request (`tokens`
//! and `handshake` before it) and `pool` its connection, `local_mqtt` the publish on our own listener, `outcome` and `policy`
//! decide what follows a failure, `retired` keeps who is gone for good, `store` puts replies into a Broker, `dead_letter` keeps
//! what could not be delivered, `letters` gives it back into people's hands, `live` and `times` tell of it all.

mod ahead;
mod apply;
mod attempt;
mod circuit;
mod dead_letter;
mod dispatcher;
pub(crate) mod endpoint;
mod feed;
mod handshake;
pub(crate) mod identity;
mod index;
mod intake;
mod judge;
pub mod letters;
mod live;
mod local_mqtt;
pub(crate) mod outcome;
mod pages;
pub(crate) mod plan;
mod policy;
mod pool;
mod retired;
mod room;
pub(crate) mod sender;
mod services;
mod store;
pub(crate) mod target;
#[cfg(test)]
pub(crate) mod tests;
mod times;
mod tokens;
pub(crate) mod triggers;
mod window;
mod work;

pub use apply::ApplyError;
pub use dead_letter::{DeadLetter, DeadLetterHead};
pub use index::Index;
pub use local_mqtt::{LocalListener, LocalMessage, LocalPublish};
pub use services::{Services, ServicesError};
pub use store::{append, append_dead_letter};
pub use triggers::{DeliverySettings, Owner, Standing, Triggers};
