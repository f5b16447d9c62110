//! `GET …/down`: the objects for an agent, now and whenever they change.
//!
//! Which objects these are depends on the agent's labels, which its hello tells: until then nothing is sent, nor while the gateway
//! has no set to go by. With `?revision=N` the answer is finite: the set if it is another one, else 204.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use godwit_mesh::http::{Body, BoxError, Request, Response, respond};
use godwit_mesh::manifest::Manifests;
use godwit_mesh::sync::chunk;
use godwit_mesh::sync::frame::{Frame, Objects};
use godwit_mesh::sync::{CONTENT_TYPE, Effort, Encoder};
use http::header::{CACHE_CONTROL, CONTENT_TYPE as CONTENT_TYPE_HEADER};
use http::{HeaderValue, StatusCode};
use tokio::sync::watch;
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;

use super::agent::Agent;
use super::agents::Inner;

/// A sign of life for proxies that close what is silent, and for us to notice that the agent is gone.
const HEARTBEAT: Duration = Duration::from_secs(300);

/// Answers with a stream, or, asked with a revision, at once.
pub(super) fn answer(inner: &Arc<Inner>, agent: &Arc<Agent>, request: &Request) -> Response {
    let revision = request.query().find(|(name, _)| name == "revision").and_then(|(_, value)| value.parse::<u64>().ok());
    let body = match revision {
        Some(revision) => {
            let labels = agent.labels.borrow().clone();
            let objects = objects_for(inner.objects.borrow().as_ref(), labels.as_ref());
            match objects.filter(|objects| objects.revision != revision) {
                Some(objects) => Body::full(encode(objects)),
                None => return respond::empty(StatusCode::NO_CONTENT),
            }
        }
        None => Body::stream(futures_util::stream::unfold(
            Down {
                objects: inner.objects.clone(),
                labels: agent.labels.subscribe(),
                stop: inner.stop.clone(),
                shutdown: request.shutdown().clone(),
                revoked: Box::pin(request.revoked()),
                sent: 0,
            },
            |mut down| async move { down.next().await.map(|bytes| (Ok::<_, BoxError>(bytes), down)) },
        )),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE_HEADER, HeaderValue::from_static(CONTENT_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

struct Down {
    objects: watch::Receiver<Option<Manifests>>,
    labels: watch::Receiver<Option<BTreeMap<String, String>>>,
    stop: CancellationToken,
    shutdown: CancellationToken,
    revoked: Pin<Box<dyn Future<Output = ()> + Send>>,
    sent: u64,
}

impl Down {
    /// What goes next; `None` when the gateway stops, or the agent's token is revoked.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let labels = self.labels.borrow_and_update().clone();
            let objects = objects_for(self.objects.borrow_and_update().as_ref(), labels.as_ref());
            if let Some(objects) = objects.filter(|objects| objects.revision != self.sent) {
                self.sent = objects.revision;
                return Some(encode(objects));
            }
            tokio::select! {
                // Errors when nobody can change them any more: then they are what they are.
                Ok(()) = self.objects.changed() => {}
                Ok(()) = self.labels.changed() => {}
                () = tokio::time::sleep(HEARTBEAT) => return Some(Bytes::from_static(chunk::HEARTBEAT)),
                () = self.stop.cancelled() => return None,
                () = self.shutdown.cancelled() => return None,
                () = &mut self.revoked => return None,
            }
        }
    }
}

fn objects_for(all: Option<&Manifests>, labels: Option<&BTreeMap<String, String>>) -> Option<Objects> {
    let set = all?.for_agent(labels?).to_json();
    Some(Objects::new(String::from_utf8(set).unwrap_or_else(|_| "[]".to_owned())))
}

/// The frame as a chunk with a context of its own: sets are rare, so none is kept.
fn encode(objects: Objects) -> Bytes {
    let (frame, mut out) = (Frame::Objects(objects).to_vec(), Vec::new());
    let mut encoder = Encoder::new(*godwit_mesh::sync::limits::WINDOW_LOG.start());
    if encoder.put(&mut out, &frame, Effort::Middle).is_err() {
        chunk::put(&mut out, chunk::Kind::Plain, &frame);
    }
    encoder.end(&mut out);
    out.into()
}
