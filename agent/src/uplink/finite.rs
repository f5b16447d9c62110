//! The fallback where a proxy holds requests back until they end: one finite request a batch, over HTTP/1.1.
//!
//! Each request is a small stream of its own: hello, then events. Its answer has the welcome and the positions. The first has no
//! events: it finds out where the gateway goes on.

use std::sync::Arc;
use std::time::Duration;

use godwit_mesh::sync::frame::Frame;
use godwit_mesh::sync::{down_path, up_path};
use http::{Method, StatusCode};
use hyper::client::conn::http1::SendRequest;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connect::{Body, LinkError, checked, empty, full};
use super::down;
use super::frames::{Frames, Heard};
use super::lanes::Lanes;
use super::link::LinkState;
use super::run::Core;
use super::session::{hear, hello, patience, put_plain, welcome};

/// How long one request may take.
const REQUEST_TIME: Duration = Duration::from_secs(90);

/// A request is closed at this size; proxies commonly take 1 MiB.
const REQUEST_BYTES: usize = 256 << 10;

/// How long this is done before a stream is tried again.
pub(super) const FOR: Duration = Duration::from_secs(600);

/// Runs finite requests until one fails (the error), until it is time to try a stream again, or the uplink is held or stopped.
pub(super) async fn run(core: &mut Core, welcomed: &mut bool) -> Result<(), LinkError> {
    let mut tasks = JoinSet::new();
    let connecting = core.target.http1(patience(core.settings.heartbeat), &mut tasks);
    let Some(connected) = core.unless_stopped(connecting).await else { return Ok(()) };
    let mut sender = connected?;
    let news = Arc::new(Notify::new());
    let mut lanes = Lanes::new(core.settings.window_log, core.letters());
    lanes.add(&core.brokers, &core.told, &mut tasks, &news);
    let mut brokers = core.brokers.watch();
    let begun = Instant::now();

    // The first request asks where to go on.
    let mut body = Vec::new();
    put_plain(&mut body, &hello(core, lanes.standings(&core.told), true));
    let mut frames = post(core, &mut sender, body).await?;
    let first =
        tokio::time::timeout(REQUEST_TIME, welcome(&mut frames)).await.map_err(|_| LinkError::Silent(REQUEST_TIME))??;
    read_to_end(core, &mut lanes, &mut frames).await?;
    *welcomed = true;
    lanes.welcome(&first, begun.elapsed());
    let set_back = lanes.go_on(&first.brokers, &mut core.told).await?;
    core.link.count(|counts| {
        counts.connections += 1;
        counts.set_back += set_back;
    });
    core.link.set(LinkState::Up, "finite");
    tracing::info!(gateway = first.software, "the gateway is here, behind a proxy that holds requests back");

    let heartbeat = Duration::from_millis(first.heartbeat_ms).max(Duration::from_millis(50));
    let mut due = Instant::now();
    let mut report = core.report.clone();
    while begun.elapsed() < FOR {
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return Ok(()),
            () = core.held() => return Ok(()),
            () = std::future::ready(()), if lanes.ready() => {}
            () = news.notified() => continue,
            () = tokio::time::sleep_until(due) => {}
            Ok(()) = report.changed() => {}
            Ok(()) = brokers.changed() => return Ok(()),
        }
        let mut body = Vec::new();
        lanes.begin();
        put_plain(&mut body, &hello(core, lanes.standings(&core.told), true));
        put_plain(&mut body, &Frame::Report(report.borrow_and_update().clone()));
        while body.len() < REQUEST_BYTES && lanes.ready() && lanes.chunk(&mut body).await? {}
        let mut frames = post(core, &mut sender, body).await?;
        read_to_end(core, &mut lanes, &mut frames).await?;
        if Instant::now() >= due {
            if lanes.outdated() {
                return Ok(());
            }
            ask_down(core, &mut sender).await?;
            due = Instant::now() + heartbeat;
        }
    }
    Ok(())
}

async fn post(core: &Core, sender: &mut SendRequest<Body>, body: Vec<u8>) -> Result<Frames, LinkError> {
    core.link.count(|counts| counts.sent_bytes += body.len() as u64);
    let request = core.target.request(Method::POST, &up_path(&core.agent), false, full(body)).await?;
    let sending = async {
        sender.ready().await?;
        checked(sender.send_request(request).await?).await
    };
    let body = tokio::time::timeout(REQUEST_TIME, sending).await.map_err(|_| LinkError::Silent(REQUEST_TIME))??;
    Ok(Frames::new(body))
}

async fn read_to_end(core: &mut Core, lanes: &mut Lanes, frames: &mut Frames) -> Result<(), LinkError> {
    loop {
        let next =
            tokio::time::timeout(REQUEST_TIME, frames.next()).await.map_err(|_| LinkError::Silent(REQUEST_TIME))??;
        if matches!(next, Heard::End) {
            core.link.count(|counts| counts.received_bytes += frames.received);
            return Ok(());
        }
        hear(core, lanes, next).await?;
    }
}

async fn ask_down(core: &Core, sender: &mut SendRequest<Body>) -> Result<(), LinkError> {
    let revision = core.report.borrow().revision;
    let path = format!("{}?revision={revision}", down_path(&core.agent));
    let request = core.target.request(Method::GET, &path, false, empty()).await?;
    let asking = async {
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(());
        }
        down::take_all(&mut Frames::new(checked(response).await?), &core.sets).await
    };
    tokio::time::timeout(REQUEST_TIME, asking).await.map_err(|_| LinkError::Silent(REQUEST_TIME))?
}
