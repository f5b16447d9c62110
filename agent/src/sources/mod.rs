//! The sources that are a board's: what is published to its MQTT listener, files on its disk, URLs it asks, programs it runs.
//!
//! The frame that starts and ends them, and PingSource, are [`godwit_mesh::source`]; here is a file or a folder for each kind. What they
//! may run and read is [`allow`]'s affair: an object says what it wants, the agent's own configuration what may be.

mod allow;
mod data;
mod file;
mod mqtt;
mod poll;
mod program;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use godwit_mesh::delivery::Triggers;
use godwit_mesh::manifest::Kind;
use godwit_mesh::source::{Job, Run, Settle, Sources};

use crate::config::Config;
use crate::mqtt::Routes;
use allow::Allowed;

/// Runs the sources of the sets that are applied. When this returns, `routes` is what the MqttSources say.
pub(crate) async fn start(triggers: &Triggers, routes: &Routes, config: &Config) -> Sources {
    let (brokers, routes) = (triggers.brokers().clone(), routes.clone());
    let settle: Settle = Arc::new(move |jobs| mqtt::settle(&brokers, &routes, jobs));
    let (programs, files) = (Allowed::new(&config.programs.allow), Allowed::new(&config.files.allow));
    let containers = programs.clone();
    let runs = [
        (Kind::HttpPollSource, run(|job| Box::pin(poll::run(job)))),
        (Kind::FileSource, run(move |job| Box::pin(file::run(job, files.clone())))),
        (Kind::ProgramSource, run(move |job| Box::pin(program::run(job, programs.clone())))),
        (Kind::ContainerSource, run(move |job| Box::pin(program::run_container(job, containers.clone())))),
        (Kind::SinkBinding, run(|job| Box::pin(program::run_binding(job)))),
    ];
    Sources::start(triggers, runs, [(Kind::MqttSource, settle)]).await
}

fn run(run: impl Fn(Job) -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Run {
    Arc::new(run)
}
