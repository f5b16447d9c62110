//! The HTTP server that agent and gateway share, and what it serves for both.
//!
//! A request's way: [`Server`] accepts a connection and holds it to its [`Limits`], and all of them (`crowd`) to theirs; the [`Door`] checks host, origin and
//! credentials; the [`Router`] finds the handler. Handlers here are the CloudEvents [`ingress`], the operations endpoints
//! [`ops`], the tail of a broker [`events`], its [`cursors`] and its [`dead_letters`]; the parts above add theirs. Limits hold for everything that a
//! peer controls, and memory for a connection that does nothing is a few kilobytes.

mod body;
mod connection;
mod crowd;
pub mod cursors;
pub mod dead_letters;
mod door;
pub mod events;
pub mod ingress;
mod lane;
mod limits;
pub mod metrics;
pub mod ops;
mod request;
pub mod respond;
mod router;
mod server;

pub use body::{Body, BodyError, BoxError};
pub use door::{Door, through_a_proxy};
pub use limits::{LEAST_EVENT_BYTES, Limits};
pub use request::{Request, Response};
pub use router::{Handler, Router};
pub use server::{BindError, Server, ServerMetrics};

#[cfg(test)]
mod crowd_tests;
#[cfg(test)]
mod tests;
