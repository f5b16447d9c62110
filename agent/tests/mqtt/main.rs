//! The MQTT listener as a client sees it: byte by byte, over real sockets, with a real journal.
#![allow(clippy::indexing_slicing, missing_docs)]

mod connect;
mod hostile;
mod publish;
mod qos2;
mod site;
mod subscribe;
