//! `POST …/up`: reads an agent's frames for as long as they come.
//!
//! The answer begins at once and is written from the outbox, while a task of its own reads the request. A request that ends (a
//! finite one, or an agent that goes) has its events stored before the answer ends. Whatever is wrong with the bytes ends this
//! connection and no other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use godwit_mesh::http::{Body, Request, Response};
use godwit_mesh::sync::frame::{Frame, Goodbye, Hello, Welcome};
use godwit_mesh::sync::limits::MAX_CHUNK_BYTES;
use godwit_mesh::sync::{BatchReader, CONTENT_TYPE, Chunks, Decoder, SyncError, VERSION};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE as CONTENT_TYPE_HEADER};
use tokio_util::sync::CancellationToken;

use super::agent::{Agent, Connection, patience};
use super::agents::Inner;
use super::lane::LaneHandle;
use super::outbox::Outbox;

/// How long the hello may take.
const HELLO_TIME: Duration = Duration::from_secs(30);

/// Answers at once; the frames are read by a task.
pub(super) fn answer(inner: Arc<Inner>, agent: Arc<Agent>, request: Request) -> Response {
    let outbox = Arc::new(Outbox::default());
    let stop = inner.stop.child_token();
    let gone = stop.clone();
    let body = Body::stream(outbox.clone().stream(move || gone.cancel()));
    let tasks = inner.tasks.clone();
    let session = Session {
        chunks: Chunks::new(MAX_CHUNK_BYTES),
        decoder: Decoder::new(inner.settings.window_log, inner.settings.max_frame_bytes),
        reader: BatchReader::new(),
        lanes: HashMap::new(),
        connection: None,
        finite: false,
        inner,
        agent,
        outbox,
        stop,
    };
    tasks.spawn(session.run(request));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE_HEADER, HeaderValue::from_static(CONTENT_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx and its kin: pass the answer on as it comes.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

struct Session {
    inner: Arc<Inner>,
    agent: Arc<Agent>,
    outbox: Arc<Outbox>,
    stop: CancellationToken,
    chunks: Chunks,
    decoder: Decoder,
    reader: BatchReader,
    lanes: HashMap<u32, LaneHandle>,
    connection: Option<Arc<Connection>>,
    finite: bool,
}

/// Why a session ends before its request does.
enum End {
    /// The agent is told.
    Goodbye(Goodbye),
    /// There is nobody to tell, or somebody else has told.
    Quiet,
}

impl From<SyncError> for End {
    fn from(e: SyncError) -> Self {
        Self::Goodbye(Goodbye { code: Goodbye::MALFORMED, message: e.to_string() })
    }
}

fn malformed(message: &str) -> End {
    End::Goodbye(Goodbye { code: Goodbye::MALFORMED, message: message.to_owned() })
}

impl Session {
    async fn run(mut self, mut request: Request) {
        let end = self.read(&mut request).await;
        // Without handles the lanes end when all that came is stored.
        self.lanes.clear();
        if let Some(connection) = &self.connection {
            connection.lanes.close();
            connection.lanes.wait().await;
        }
        match end {
            Err(End::Goodbye(goodbye)) => {
                tracing::warn!(agent = %self.agent.id, "the agent's connection ends: {}", goodbye.message);
                self.agent.error(&goodbye.message);
                self.outbox.goodbye(goodbye.code, goodbye.message);
            }
            Ok(()) | Err(End::Quiet) => self.outbox.end(),
        }
        if let Some(connection) = &self.connection {
            let wall_ms = self.inner.settings.clock.wall_ms();
            self.agent.ended(connection, self.finite, wall_ms);
            if !self.finite {
                tracing::info!(agent = %self.agent.id, "the agent has gone");
            }
        }
    }

    async fn read(&mut self, request: &mut Request) -> Result<(), End> {
        let mut revoked = std::pin::pin!(request.revoked());
        loop {
            let silence = self.connection.as_ref().map_or(HELLO_TIME, |connection| patience(connection.heartbeat));
            let shutdown = request.shutdown().clone();
            let piece = tokio::select! {
                piece = tokio::time::timeout(silence, request.data()) => piece,
                () = self.stop.cancelled() => return Err(self.stopped()),
                () = shutdown.cancelled() => return Err(unavailable()),
                () = &mut revoked => return Err(End::Goodbye(revoked_goodbye())),
            };
            let bytes = match piece {
                Ok(Some(Ok(bytes))) => bytes,
                Ok(Some(Err(_))) => return Err(End::Quiet),
                Ok(None) if self.chunks.is_torn() => return Err(malformed("the request ends within a chunk")),
                Ok(None) => return Ok(()),
                Err(_) => return Err(malformed("nothing was heard for too long")),
            };
            if self.connection.is_some() {
                self.agent.heard();
            }
            self.chunks.push(&bytes);
            while let Some((kind, chunk)) = self.chunks.next()? {
                if let Some(frame) = self.decoder.open(kind, &chunk)? {
                    self.frame(Frame::from_agent(&frame)?).await?;
                }
            }
        }
    }

    fn stopped(&self) -> End {
        if self.inner.stop.is_cancelled() { unavailable() } else { End::Quiet }
    }

    async fn frame(&mut self, frame: Frame<'_>) -> Result<(), End> {
        match (frame, &self.connection) {
            (Frame::Hello(hello), None) => self.hello(&hello).await,
            (Frame::Hello(_), Some(_)) => Err(malformed("a second hello")),
            (_, None) => Err(malformed("the first frame is no hello")),
            (Frame::Events(events), Some(_)) => {
                let batch = self.reader.open(&events, self.inner.settings.max_frame_bytes)?;
                match self.lanes.get(&batch.broker) {
                    Some(lane) if lane.take(batch) => Ok(()),
                    Some(_) => Err(malformed("more events than there was credit for")),
                    None => Err(malformed("events of a broker that was not offered")),
                }
            }
            (Frame::Offer(offer), Some(connection)) => {
                let (brokers, settings) = (&self.inner.brokers, &self.inner.settings);
                let go_on = self.agent.offer(&offer.brokers, brokers, settings, connection, &mut self.lanes).await;
                self.outbox.go_on(go_on);
                Ok(())
            }
            (Frame::Report(report), Some(_)) => {
                self.agent.report(report);
                Ok(())
            }
            // Of a later version, or meant for agents.
            _ => Ok(()),
        }
    }

    async fn hello(&mut self, hello: &Hello) -> Result<(), End> {
        let version = hello.version.min(VERSION);
        if version == 0 || hello.oldest_version > VERSION {
            let message = format!(
                "the agent speaks versions {} to {} of the protocol, this gateway 1 to {VERSION}: upgrade the older one",
                hello.oldest_version, hello.version
            );
            return Err(End::Goodbye(Goodbye { code: Goodbye::VERSION, message }));
        }
        let (brokers, settings) = (&self.inner.brokers, &self.inner.settings);
        let admitted = self.agent.admit(hello, brokers, settings, &self.outbox, self.stop.clone()).await;
        let (connection, go_on, lanes) = admitted.map_err(End::Goodbye)?;
        self.finite = hello.finite;
        if !hello.finite {
            tracing::info!(agent = %self.agent.id, software = hello.software, "an agent is here");
        }
        self.lanes = lanes;
        self.outbox.welcome(Welcome {
            version,
            heartbeat_ms: u64::try_from(connection.heartbeat.as_millis()).unwrap_or(u64::MAX),
            window_log: settings.window_log,
            max_frame_bytes: settings.max_frame_bytes as u64,
            brokers: go_on,
            software: settings.software.clone(),
        });
        self.connection = Some(connection);
        Ok(())
    }
}

/// What has come before is stored; nothing more is taken.
fn revoked_goodbye() -> Goodbye {
    let message = "the token that this connection came with is no longer valid here";
    Goodbye { code: Goodbye::REVOKED, message: message.to_owned() }
}

fn unavailable() -> End {
    End::Goodbye(Goodbye { code: Goodbye::UNAVAILABLE, message: "the gateway stops".to_owned() })
}
