//! What is keyed and changes seldom: objects, settings learnt. Kept in redb, on the same [`crate::storage::Storage`] as the
//! journal, so that it runs on the simulated disk too.
//!
//! - [`State`] is one redb file with typed tables. Every change is one commit that is durable when the call returns.
//! - redb refuses all work after an I/O error; `State` opens it anew with the next call. After a failed sync the whole file is
//!   written again first, because the kernel calls pages clean that may not be on the disk.
//! - A damaged file is set aside as `<name>.damaged-N` and an empty one takes its place, with a warning. It costs what it held,
//!   never an event, a cursor or a start. Should redb panic, that is damage too; in a program whose panics end it (profile `device`)
//!   the file is set aside first, without the check that would tell whether it is sound.
//! - [`DataDir`] says who owns a data folder: a second process is refused with the pid of the first.

mod backend;
mod lock;
mod place;
mod store;
mod table;

pub use lock::{DataDir, Lock, LockError};
pub use place::MAX_DAMAGED;
pub(crate) use place::{HEAD_BYTES, newer};
pub use store::{CACHE_BYTES, State, StateError};
pub use table::{MAX_KEY_BYTES, MAX_VALUE_BYTES, Op, Table};
