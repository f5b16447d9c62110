//! What Godwit's agent and gateway share.
//!
//! The modules stand in the order in which an event meets them: it is an [`event`], a [`door`] and the [`http`] ingress let
//! it in, a [`journal`] keeps it, a [`broker`] is a journal with a name, a [`manifest`] says which Triggers a broker has, a
//! [`filter`] chooses, [`delivery`] sends, [`sync`] carries it to the gateway; [`objects`] shows and changes manifests over HTTP. [`storage`] is what lies below the journal,
//! [`state`] what is keyed and changes seldom, [`room`] what bounds memory, [`config`], [`observe`] and [`process`] what every
//! binary needs. [`doctor`] looks at the board below all of it.

pub mod broker;
pub mod clock;
pub mod config;
pub mod cron;
pub mod delivery;
pub mod doctor;
pub mod door;
pub mod event;
pub mod filter;
pub mod http;
pub mod journal;
mod load;
pub mod manifest;
pub mod names;
pub mod objects;
pub mod observe;
pub mod process;
pub mod room;
pub mod source;
pub mod state;
pub mod storage;
pub mod sync;
