//! The journal: an append-only log in segment files, durable cursors over it, and the ledger that says what became of every
//! event. `docs/journal.md` gives the format, the commit protocol and why a crash at each step is harmless.
//!
//! The files follow the way of an event: [`face`](Journal) takes an append, `commit` gathers it with others and tells its receipt,
//! `log` writes one batch after the other into `segment`s in the bytes that `format` knows, `space`
//! finds room for new ones, `state` is what the records add up to,
//! `recovery` finds it again after whatever happened, `scan` and `reader` read it back, `summary` lets them skip what nobody wants,
//! `damage` says what of it the disk has lost.

mod bare;
mod commit;
mod consumer;
mod control;
mod damage;
mod error;
mod face;
mod format;
mod log;
mod offset;
mod options;
mod reader;
mod recovery;
mod scan;
mod segment;
mod space;
mod state;
mod summary;
#[cfg(test)]
mod tests;

pub use bare::Bare;
pub use commit::{Committed, Receipt};
pub use consumer::Consumer;
pub use control::{ConsumerStatus, Done, DropReason, Start};
pub use error::{OpenError, ReadError, Refused};
pub use face::{Append, Journal, WeakJournal};
pub use log::{Batch, Log, RESERVE as RESERVE_SEGMENTS};
pub use offset::{Epoch, Lineage, Offset};
pub use options::{MIN_SEGMENT_BYTES, Options, Policy};
pub use reader::{Core, Interest, Item, Reader};
pub(crate) use recovery::newer;
pub use summary::{Digest, Field, Summary, Values};
