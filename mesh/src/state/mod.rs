//! What is keyed and changes seldom: objects, settings learnt. Kept in one file, on the same [`crate::storage::Storage`] as the
//! journal, so that it runs on the simulated disk too.
//!
//! - [`State`] is typed tables. Every change writes the file anew and is durable when the call returns: nothing for what changes
//!   with every event, right for a few kilobytes that change by hand.
//! - Nothing is held in memory between calls.
//! - A damaged file is set aside as `<name>.damaged-N`, with a warning, and an empty one takes its place. It costs what it held,
//!   never an event, a cursor or a start.
//! - [`DataDir`] says who owns a data folder: a second process is refused with the pid of the first.

mod image;
mod lock;
mod store;
mod table;

pub use lock::{DataDir, Lock, LockError};
pub use store::{MAX_DAMAGED, MAX_STATE_BYTES, State, StateError};
pub use table::{MAX_KEY_BYTES, MAX_VALUE_BYTES, Op, Table};
