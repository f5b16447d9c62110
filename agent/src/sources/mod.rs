//! The sources that are a board's: what is published to its MQTT listener, files on its disk, URLs it asks, programs it runs.
//!
//! The frame that starts and ends them, and PingSource, are [`godwit_mesh::source`]; here is one file for each kind.

mod mqtt;

use std::sync::Arc;

use godwit_mesh::delivery::Triggers;
use godwit_mesh::manifest::Kind;
use godwit_mesh::source::{Run, Settle, Sources};

use crate::mqtt::Routes;

/// Runs the sources of the sets that are applied. When this returns, `routes` is what the MqttSources say.
pub(crate) async fn start(triggers: &Triggers, routes: &Routes) -> Sources {
    let (brokers, routes) = (triggers.brokers().clone(), routes.clone());
    let settle: Settle = Arc::new(move |jobs| mqtt::settle(&brokers, &routes, jobs));
    let runs: [(Kind, Run); 0] = [];
    Sources::start(triggers, runs, [(Kind::MqttSource, settle)]).await
}
