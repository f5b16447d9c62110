//! Brokers and Channels: durable queues with a name, each one journal. A Channel is a Broker with Subscriptions in the place of
//! Triggers, which has an address of its own and never goes up to the gateway; here it is called a Broker like the others.
//!
//! [`Brokers`] is the registry. `default/default` is always there; others are made by [`Brokers::ensure`] and opened again at
//! every start. A Broker's files are in `brokers/<namespace>/<name>/`, a Channel's in `brokers/channels/<namespace>/<name>/`: `journal/`, and `dead-letters/` once there was a dead
//! letter. The names are kept in `brokers/index`, replaced as a whole; a Broker is listed there before anyone can see it. A
//! lost or damaged index costs no event: the folders stay, and a Broker made anew under its name goes on from its journal.

mod dead_letters;
mod deduplication;
mod digest;
mod index;
mod registry;
mod removal;
mod settled;
mod share;
mod status;
#[cfg(test)]
mod tests;

pub use dead_letters::Account;
pub use deduplication::{Claim, Deduplication, Name};
pub(crate) use digest::UNTOLD;
pub use registry::{Broker, BrokerDefaults, BrokerError, BrokerSettings, Brokers, Retention};
pub(crate) use settled::{Fate, Settled, Settling, passed};
