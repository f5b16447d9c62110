//! Sources: what makes events of its own accord, as sets of manifests say.
//!
//! [`Sources`] follows the sets that [`crate::delivery::Triggers`] has applied, starts a task for each source in them, replaces those
//! that have changed and ends those that have gone. What a source is, its kind's *runner* knows: [`ping`] is shared, the others are
//! the agent's and are given to [`Sources::start`]. A runner gets a [`Job`]: the object, the way to its [`Sink`], its durable [`mark`],
//! and a [`Live`] to tell how it stands; a [`Board`] shows all of those to `/status`, `/metrics` and the objects' conditions.
//!
//! An event for a Broker of this process is durable, with the source's new mark, in one commit: it is there once, whatever ends the
//! process. One for a URL is sent until it is taken or given up, and then the mark is kept in `default/default`: a kill in between
//! repeats it, with the same `source` and `id`.

mod ask;
mod job;
mod live;
mod mark;
pub mod ping;
mod sink;
mod sources;
#[cfg(test)]
mod tests;
mod types;

pub use ask::{Answer, Validators};
pub use job::Job;
pub use live::{Board, Live, Missing, Standing};
pub use sink::{Sink, Stopped, Tries};
pub use sources::{Run, Settle, Sources};
pub use types::MOST as MOST_EVENT_TYPES;
