//! A disk in memory that can lose its power: the model against which durability is tested.
//!
//! [`SimDisk`] is a [`Storage`]. It records every call, can be taken back to the instant after any of them
//! ([`SimDisk::at`]), and produces the states that a power cut at that instant may leave behind
//! ([`SimDisk::crash_states`], [`SimDisk::power_cut`]):
//! - every write not synced is kept, lost, or torn at 512 B sectors, each for itself, so also out of order;
//! - every `set_len` or `allocate` not synced has happened or not;
//! - every name made, changed or removed and not synced by its folder has become durable or not: a renamed file has its old
//!   or its new name, never both, never none, and a name renamed over leads to the old file or the new one.
//!
//! It also fails on request ([`SimDisk::inject`]), is as large as wanted ([`SimDisk::set_capacity`]), and can lie about its
//! syncs ([`SimDisk::set_lying`]). A failed sync leaves the pages marked clean, as Linux does: reads show the new bytes, after
//! a power cut they may be there or not, and no later sync makes them durable.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! use godwit_mesh::storage::{SimDisk, Storage, StorageFile};
//!
//! let disk = SimDisk::new();
//! let file = disk.open("log", true)?;
//! file.write_all_at(b"one", 0)?;
//! file.sync_data()?;
//! disk.sync_dir("")?;
//! file.write_all_at(b"two", 3)?;
//! // Whatever the cut does, what was synced is there.
//! for found in disk.crash_states(0) {
//!     assert!(matches!(&found.contents("log").expect("synced")[..], b"one" | b"onetwo"));
//! }
//! # Ok(())
//! # }
//! ```

mod content;
mod cut;
mod disk;
mod fault;
mod state;
#[cfg(test)]
mod tests;

pub use cut::{CrashStates, Dice};
pub use disk::SimDisk;
pub use fault::{Call, Failure, Fault};
