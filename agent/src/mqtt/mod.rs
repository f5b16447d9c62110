//! The agent's own MQTT listener: 3.1.1 and 5.0, for clients nobody here wrote.
//!
//! The files stand in the order in which a publish meets them: a [`listener`] accepts, a [`handshake`] lets a client in, a
//! [`connection`] reads its packets ([`packet`]), [`publish`] takes them and [`append`] puts them into the journal that
//! [`routes`] names, as its [`mapping`] has them; it acknowledges ([`acks`], [`answer`]) what the journal has made durable, and
//! [`fanout`] carries it on to live [`subscriptions`]. [`hub`] is what connections share, [`seat`] a connection's hold on its
//! session, [`table`] the sessions, [`session`] what belongs to a client id, [`qos2`] what of it survives a crash, [`trace`] makes the
//! spans.
//!
//! PUBACK and PUBREC leave only after the event is on disk, in the order in which the publishes came. Subscriptions are live
//! only: what a client missed while it was away is not kept, and nothing is retained. Persistent sessions are to read the
//! journal, whose records hold all that a subscriber must get.

mod acks;
mod answer;
mod append;
mod connection;
mod duplicates;
mod fanout;
mod handshake;
mod hub;
mod limits;
mod listener;
mod local;
mod mapping;
mod newcomers;
mod packet;
mod publish;
mod qos2;
mod rate;
mod routes;
mod seat;
mod session;
mod status;
mod subscriptions;
mod table;
mod trace;
mod transport;
mod will;

pub use limits::Limits;
pub use listener::{Handle, ListenError, Listener, Settings};
pub use mapping::Mapping;
#[cfg(any(test, fuzzing))]
pub use packet::stream::decode_stream;
pub use routes::{Route, Routes, Table};
pub use status::{Counter, Counters, Metric};
