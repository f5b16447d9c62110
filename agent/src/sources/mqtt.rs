//! MqttSource: which topics become events, in which Broker, with which attributes.
//!
//! All MqttSources are settled together: the table of routes that is made of them takes the place of the one before as a whole,
//! so that no publish falls in between. While a source's Broker is not there, its topics go to `default/default` as they would
//! without any source: a publish is rather kept in the wrong place than not.

use std::sync::Arc;

use godwit_mesh::broker::{Broker, Brokers};
use godwit_mesh::manifest::SourceKind;
use godwit_mesh::names::BrokerName;
use godwit_mesh::source::{Job, Missing};

use crate::mqtt::{Mapping, Route, Routes, Table};

/// Makes `routes` what these MqttSources say.
pub(super) fn settle(brokers: &Brokers, routes: &Routes, jobs: &[Job]) {
    let journals = brokers.list().into_iter().map(|broker| broker.journal().clone());
    let Some(default) = brokers.get(&BrokerName::default()) else { return };
    let unmapped = Route::to(default, None);
    let mut ways = Vec::with_capacity(jobs.len());
    for job in jobs {
        let SourceKind::Mqtt(spec) = &job.spec().what else { continue };
        if spec.server.is_some() {
            // Not the listener's affair; the frame says that it is not built.
            continue;
        }
        let agent = job.agent().unwrap_or_default();
        let route = match find(job) {
            Ok(broker) => Route::to(broker, Mapping::new(job.spec(), agent, job.live.clone()).map(Arc::new)),
            Err(missing) => {
                job.live.sink(Err(missing));
                unmapped.clone()
            }
        };
        ways.push((spec.topics.clone(), route));
    }
    if ways.is_empty() {
        ways.push((vec!["#".to_owned()], unmapped));
    }
    routes.replace(Table::new(journals, ways));
    for job in jobs {
        job.live.deployed(Ok(()));
    }
}

/// The Broker that a source's events go to.
fn find(job: &Job) -> Result<Arc<Broker>, Missing> {
    let sink = job.spec().sink.as_ref().ok_or_else(|| Missing::new("SinkMissing", "spec.sink is missing"))?;
    let sink = job.resolve(sink, job.name())?;
    let Some(broker) = sink.broker() else {
        let why =
            "a publish is acknowledged once it is on disk, so the sink must be a Broker; a Trigger takes it on from there";
        return Err(Missing::new("SinkNotABroker", why));
    };
    let broker = broker.clone();
    job.live.sink(Ok(sink.uri().to_owned()));
    Ok(broker)
}
