//! A streaming connection from hello to its end.
//!
//! One loop does all: it hears answers, and when the connection takes bytes and the window has room it reads the next events and
//! sends them. So batches form by themselves: nothing waits for company, and what arrives while the connection is busy goes
//! together.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use godwit_mesh::sync::chunk::{self, Kind};
use godwit_mesh::sync::frame::{Frame, Hello, Offer, Standing, Welcome};
use godwit_mesh::sync::{VERSION, down_path, up_path};
use http::Method;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connect::{LinkError, checked};
use super::down;
use super::frames::{Frames, Heard};
use super::lanes::Lanes;
use super::link::LinkState;
use super::run::Core;

/// How long the welcome may take beyond some round trips, before a proxy is suspected.
const WELCOME_TIME: Duration = Duration::from_secs(10);

/// How long the last answers may take when we go by ourselves.
const FAREWELL_TIME: Duration = Duration::from_secs(2);

/// How long the gateway may be silent: two heartbeats may be lost or late, and it is still noticed within three.
pub(super) fn patience(heartbeat: Duration) -> Duration {
    heartbeat * 5 / 2
}

/// The agent's hello.
pub(super) fn hello(core: &Core, brokers: Vec<Standing>, finite: bool) -> Frame<'static> {
    Frame::Hello(Hello {
        version: VERSION,
        oldest_version: 1,
        heartbeat_ms: u64::try_from(core.settings.heartbeat.as_millis()).unwrap_or(u64::MAX),
        window_log: core.settings.window_log,
        brokers,
        labels: core.settings.labels.clone(),
        software: core.settings.software.clone(),
        finite,
    })
}

/// Appends a frame as a plain chunk.
pub(super) fn put_plain(out: &mut Vec<u8>, frame: &Frame<'_>) {
    chunk::put(out, Kind::Plain, &frame.to_vec());
}

/// Waits for the welcome.
pub(super) async fn welcome(frames: &mut Frames) -> Result<Welcome, LinkError> {
    loop {
        match frames.next().await? {
            Heard::Life => {}
            Heard::End => return Err(LinkError::Ended),
            Heard::Frame(frame) => match Frame::from_gateway(&frame)? {
                Frame::Welcome(welcome) if (1..=VERSION).contains(&welcome.version) => return Ok(welcome),
                Frame::Welcome(welcome) => {
                    return Err(LinkError::Nonsense(format!(
                        "version {}, which this agent does not speak",
                        welcome.version
                    )));
                }
                Frame::Goodbye(goodbye) => return Err(LinkError::Goodbye { code: goodbye.code, message: goodbye.message }),
                _ => {}
            },
        }
    }
}

/// Runs a connection until it fails (the error), or until the uplink is held or stopped. `welcomed` is set once the gateway has
/// answered.
pub(super) async fn run(core: &mut Core, welcomed: &mut bool) -> Result<(), LinkError> {
    let mut tasks = JoinSet::new();
    let connecting = core.target.http2(patience(core.settings.heartbeat), &mut tasks);
    let Some(connected) = core.unless_stopped(connecting).await else { return Ok(()) };
    let (mut sender, connect_time) = connected?;
    let news = Arc::new(Notify::new());
    let mut brokers = core.brokers.watch();
    let mut lanes = Lanes::new(core.settings.window_log, core.letters());
    let standings = lanes.add(&core.brokers, &core.told, &mut tasks, &news);

    // One chunk waits here at most: what could wait longer is better read later.
    let (up, chunks) = mpsc::channel::<Bytes>(1);
    let body =
        futures_util::stream::unfold(chunks, |mut chunks| async move { chunks.recv().await.map(|bytes| (bytes, chunks)) });
    let body = StreamBody::new(body.map(|bytes| Ok(http_body::Frame::data(bytes)))).boxed_unsync();
    let request = core.target.request(Method::POST, &up_path(&core.agent), true, body).await?;
    let mut out = Vec::new();
    put_plain(&mut out, &hello(core, standings, false));
    let started = Instant::now();
    let mut sent_bytes = out.len() as u64;
    let _ = up.send(std::mem::take(&mut out).into()).await;
    let opening = async {
        sender.ready().await?;
        let mut frames = Frames::new(checked(sender.send_request(request).await?).await?);
        welcome(&mut frames).await.map(|welcome| (frames, welcome))
    };
    let time = WELCOME_TIME + connect_time * 4;
    let Some(opened) = core.unless_stopped(tokio::time::timeout(time, opening)).await else { return Ok(()) };
    let (mut frames, welcome) = opened.map_err(|_| LinkError::NoWelcome(time))??;
    *welcomed = true;
    lanes.welcome(&welcome, started.elapsed());
    let set_back = lanes.go_on(&welcome.brokers, &mut core.told).await?;
    core.link.count(|counts| {
        counts.connections += 1;
        counts.set_back += set_back;
    });
    core.link.set(LinkState::Up, "stream");
    tracing::info!(gateway = welcome.software, "the gateway is here");
    let follow = down::follow(core.target.clone(), sender, down_path(&core.agent), core.sets.clone());
    tasks.spawn(follow);

    let heartbeat = Duration::from_millis(welcome.heartbeat_ms).max(Duration::from_millis(50));
    let (mut heard, mut sent, mut received) = (Instant::now(), Instant::now(), 0);
    let mut report = core.report.clone();
    let mut owed = vec![Frame::Report(report.borrow_and_update().clone())];
    loop {
        let ready = !owed.is_empty() || lanes.ready();
        tokio::select! {
            biased;
            () = core.stop.cancelled() => break,
            () = core.held() => break,
            next = frames.next() => {
                heard = Instant::now();
                core.link.count(|counts| counts.received_bytes += frames.received - received);
                received = frames.received;
                if let Some(go_on) = hear(core, &mut lanes, next?).await? {
                    let set_back = lanes.go_on(&go_on, &mut core.told).await?;
                    core.link.count(|counts| counts.set_back += set_back);
                }
            }
            () = tokio::time::sleep_until(heard + patience(heartbeat)) => return Err(LinkError::Silent(heard.elapsed())),
            permit = up.reserve(), if ready => {
                let Ok(permit) = permit else { return Err(LinkError::Ended) };
                match owed.pop() {
                    Some(frame) => put_plain(&mut out, &frame),
                    None => { lanes.chunk(&mut out).await?; }
                }
                if !out.is_empty() {
                    sent_bytes += out.len() as u64;
                    permit.send(std::mem::take(&mut out).into());
                    sent = Instant::now();
                }
            }
            () = tokio::time::sleep_until(sent + heartbeat), if !ready => {
                if lanes.outdated() {
                    break;
                }
                lanes.rest(&mut out);
                sent_bytes += out.len() as u64;
                // Full only while bytes are on their way, which are a sign of life themselves.
                let _ = up.try_send(std::mem::take(&mut out).into());
                sent = Instant::now();
            }
            () = news.notified(), if !ready => {
                if let Some(broker) = lanes.moved() {
                    return Err(LinkError::Moved(broker));
                }
            }
            Ok(()) = brokers.changed() => {
                let offered = lanes.add(&core.brokers, &core.told, &mut tasks, &news);
                if !offered.is_empty() {
                    owed.push(Frame::Offer(Offer { brokers: offered }));
                }
            }
            Ok(()) = report.changed() => owed.push(Frame::Report(report.borrow_and_update().clone())),
        }
        core.link.count(|counts| counts.sent_bytes += std::mem::take(&mut sent_bytes));
    }
    // The request ends; the gateway stores what it has and tells.
    drop(up);
    let farewell = async {
        loop {
            match frames.next().await? {
                Heard::End => return Ok::<_, LinkError>(()),
                next => hear(core, &mut lanes, next).await?,
            };
        }
    };
    if !matches!(tokio::time::timeout(FAREWELL_TIME, farewell).await, Ok(Ok(()))) {
        tracing::debug!("the gateway did not say goodbye");
    }
    Ok(())
}

/// Takes in what was heard. Brokers that may go on are for the caller.
pub(super) async fn hear(
    core: &mut Core,
    lanes: &mut Lanes,
    heard: Heard,
) -> Result<Option<Vec<godwit_mesh::sync::frame::GoOn>>, LinkError> {
    let frame = match heard {
        Heard::Life => return Ok(None),
        Heard::End => return Err(LinkError::Ended),
        Heard::Frame(frame) => frame,
    };
    match Frame::from_gateway(&frame)? {
        Frame::Answer(answer) => {
            lanes.answer(&answer, &mut core.told).await?;
            Ok(Some(answer.brokers).filter(|brokers| !brokers.is_empty()))
        }
        Frame::Goodbye(goodbye) => Err(LinkError::Goodbye { code: goodbye.code, message: goodbye.message }),
        _ => Ok(None),
    }
}
