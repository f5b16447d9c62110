//! The harness of Godwit's whole-system tests and benches: real processes, real clients, real cuts.
//!
//! [`lab`] is the folder of one test, [`node`] starts agents and gateways with generated configurations, [`load`] publishes by MQTT and remembers what was
//! acknowledged, [`relay`] is a bad network, [`sink`] a subscriber, [`guide`] follows a page of the documentation, and [`events`] reads a broker back and compares. A test
//! waits for a condition with [`wait::until`], which tells what was last seen when the time is up, and every process is killed
//! with the test that began it.

pub mod audit;
pub mod binaries;
pub mod data;
pub mod disk;
pub mod events;
pub mod faketime;
pub mod footprint;
pub mod guide;
pub mod http;
pub mod http_load;
pub mod keys;
pub mod lab;
pub mod load;
pub mod lockstep;
pub mod manifests;
pub mod mosquitto;
pub mod mqtt;
pub mod nats;
pub mod net;
pub mod node;
pub mod pair;
pub mod ports;
pub mod process;
pub mod python;
pub mod random;
pub mod relay;
pub mod sink;
pub mod skip;
pub mod wait;
