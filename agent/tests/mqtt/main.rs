//! The MQTT listener as a client sees it: byte by byte, over real sockets, with a real journal.
#![allow(unreachable_pub, clippy::cast_possible_truncation)]

mod connect;
mod duplicates;
mod hostile;
mod publish;
mod qos2;
mod site;
mod subscribe;
mod tls;
mod traces;
