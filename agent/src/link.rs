//! The uplink as this agent uses it: what becomes of the objects that come down, and the link as people see and steer it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use godwit_mesh::delivery::{Owner, Triggers};
use godwit_mesh::door::bare;
use godwit_mesh::http::metrics::Metrics;
use godwit_mesh::http::{Request, Response, Router, respond};
use godwit_mesh::manifest::Manifests;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use crate::uplink::{Apply, LinkState, Ready, Uplink};

/// Where the link is shown and steered.
const PATH: &str = "/apis/godwit.dev/v1/link";

/// Longest body of a request to steer the link.
const MAX_BODY_BYTES: usize = 4096;

/// How long the answer waits for the link to follow.
const SHOWN_WITHIN: Duration = Duration::from_secs(3);

/// What may be asked of the link.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    held: bool,
}

/// Checks the gateway's URL without connecting.
pub(crate) fn check_url(url: &str) -> anyhow::Result<()> {
    let shown = bare(url);
    let parsed: http::Uri = url.parse().with_context(|| format!("gateway.url \"{shown}\""))?;
    let known = matches!(parsed.scheme_str(), Some("http" | "https"));
    anyhow::ensure!(
        known && parsed.host().is_some(),
        "gateway.url \"{shown}\" is not an http:// or https:// URL with a host"
    );
    Ok(())
}

/// How sets that come down are applied, and how it is told whether they run.
pub(crate) fn objects(triggers: &Triggers) -> (Apply, Ready) {
    let (applied, asked) = (triggers.clone(), triggers.clone());
    let apply: Apply = Arc::new(move |objects| {
        let triggers = applied.clone();
        Box::pin(async move {
            let set = Manifests::from_json("the gateway's objects", objects.set.as_bytes()).map_err(|e| e.to_string())?;
            triggers.apply(Owner::Gateway, set, objects.revision).await.map_err(|e| e.to_string())
        })
    });
    (apply, Arc::new(move || asked.ready(Owner::Gateway)))
}

/// Adds the link's endpoint to a router: `GET` shows it, `PUT {"held": true|false}` holds it or lets it go on.
pub(crate) fn routes(router: Router, uplink: &Uplink) -> Router {
    let (shown, steered) = (uplink.clone(), uplink.clone());
    router.route(Method::GET, PATH, move |_| std::future::ready(respond::json(StatusCode::OK, &shown.status()))).route(
        Method::PUT,
        PATH,
        move |request| {
            let uplink = steered.clone();
            async move { steer(&uplink, request).await }
        },
    )
}

async fn steer(uplink: &Uplink, mut request: Request) -> Response {
    let body = match request.bytes(MAX_BODY_BYTES).await {
        Ok(body) => body,
        Err(error) => return error.response(),
    };
    let wanted: Wanted = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(why) => {
            let why = format!("send {{\"held\": true}} or {{\"held\": false}} ({why})");
            return respond::problem(StatusCode::BAD_REQUEST, why);
        }
    };
    let done = if wanted.held { uplink.hold().await } else { uplink.resume().await };
    match done {
        Ok(()) => {
            // The connection ends in its own time; the answer is to show what was asked for.
            let mut link = uplink.watch();
            let _ = tokio::time::timeout(SHOWN_WITHIN, link.wait_for(|now| (now.state == LinkState::Held) == wanted.held))
                .await;
            tracing::info!(held = wanted.held, "the link was steered by hand");
            respond::json(StatusCode::OK, &uplink.status())
        }
        Err(error) => respond::unavailable(1, error),
    }
}

/// Adds the link to `/metrics`.
pub(crate) fn register(metrics: &Metrics, uplink: &Uplink) {
    let uplink = uplink.clone();
    metrics.collect(move |samples| {
        let state = uplink.watch().borrow().state;
        let status = uplink.status();
        let count = |name: &str| status.get(name).and_then(Value::as_u64).unwrap_or(0);
        let states = "The state of the link to the gateway: 1 for the one it is in.";
        for named in [LinkState::Up, LinkState::Down, LinkState::Held] {
            samples.gauge("godwit_link_state", states, &[("state", named.name())], u8::from(state == named));
        }
        samples.counter(
            "godwit_link_connections",
            "Connections to the gateway that came about.",
            &[],
            count("connections"),
        );
        let sent = "Bytes sent to the gateway, before TLS.";
        samples.counter("godwit_link_sent_bytes", sent, &[], count("sent_bytes"));
        let received = "Bytes received from the gateway, before TLS.";
        samples.counter("godwit_link_received_bytes", received, &[], count("received_bytes"));
        let set_back = "Events that a gateway had acknowledged and no longer had.";
        samples.counter("godwit_link_set_back", set_back, &[], count("set_back"));
    });
}
