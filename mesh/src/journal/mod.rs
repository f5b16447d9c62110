//! The journal: an append-only log in segment files, durable cursors over it, and the ledger that says what became of every
//! event. `docs/journal.md` gives the format, the commit protocol and why a crash at each step is harmless.

mod control;
mod offset;
mod stub;

pub use control::{ConsumerStatus, Done, DropReason, Start};
pub use offset::{Epoch, Lineage, Offset};
pub use stub::*;
