//! The way up: every Broker's events to the gateway, and the objects that come down.
//!
//! `docs/protocol.md` says what travels. [`Uplink`] is one task: `network` tells when there is a way at all, `connect` opens the
//! connection, `session` runs it (or `finite`, where a proxy buffers), `lane` is one Broker's share of it and the only place that
//! moves its cursor, `letters` makes dead letters of what the gateway refuses, `expired` leaves out what is worth nothing any more, `window` keeps what is unanswered in bounds, `down`
//! brings the objects. Nothing here holds an event: they are in the journals, read when the connection takes them. When anything
//! fails, the connection is dropped and opened anew.

mod backoff;
mod connect;
mod down;
mod expired;
mod finite;
mod frames;
mod lane;
mod lanes;
mod letters;
mod link;
mod network;
mod run;
mod session;
mod window;

pub use connect::LinkError;
pub use down::{Apply, Ready};
pub use link::{LinkState, LinkStatus};
pub use run::{CONSUMER, Uplink, UplinkError, UplinkSettings, register};
