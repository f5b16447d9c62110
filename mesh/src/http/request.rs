//! A request as handlers see it.

use std::borrow::Cow;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT};
use http::request::Parts;
use http_body::Body as _;
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection::Peer;
use super::limits::SMALL_BODY;
use super::router::Pattern;
use super::{Body, BodyError, Limits};
use crate::door::Identity;
use crate::room::{Held, LOOK};

/// An answer.
pub type Response = http::Response<Body>;

/// How much of a body that is too large is still read (and thrown away) so that the peer gets to see the 413: many clients
/// look for an answer only when they have sent everything.
const POLITE_BYTES: usize = 8 << 20;

/// How long that may take.
const POLITE_TIME: Duration = Duration::from_secs(3);

/// A request that has passed the door.
#[derive(Debug)]
pub struct Request {
    /// Method, URI, version, headers.
    pub head: Parts,
    /// Who is asking; `None` without credentials (on loopback, or under `insecure`).
    pub identity: Option<Identity>,
    pub(super) body: RequestBody,
    pub(super) peer: Arc<Peer>,
    pub(super) route: Option<Arc<Pattern>>,
    /// What a large body has; kept until the answer.
    pub(super) room: Option<Held>,
}

/// A request's body: still to be read, or there already.
#[derive(Debug)]
pub(super) enum RequestBody {
    /// As hyper reads it.
    Incoming(Incoming),
    /// Whole; empty once taken.
    Whole(Bytes),
}

impl Request {
    /// Where the connection comes from.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer.addr
    }

    /// The limits of the listener that the request came through.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.peer.limits
    }

    /// Is cancelled when the server shuts down: long-lived answers end then.
    #[must_use]
    pub fn shutdown(&self) -> &CancellationToken {
        &self.peer.shutdown
    }

    /// Resolves when the credential that the request came with is no longer in force: long-lived answers end then. What is asked
    /// for next is refused anyhow. Never resolves for a request without credentials.
    pub fn revoked(&self) -> impl Future<Output = ()> + Send + 'static {
        let watched = self.peer.credentials.clone().zip(self.identity.clone());
        async move {
            match watched {
                Some((credentials, identity)) => credentials.revoked(&identity).await,
                None => std::future::pending().await,
            }
        }
    }

    /// The path as it was sent.
    #[must_use]
    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// The part of the path that stands for `{name}` in the route, percent-decoded; `None` if it has none, or if what it
    /// decodes to is not UTF-8.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<Cow<'_, str>> {
        let raw = self.route.as_ref()?.param(self.head.uri.path(), name)?;
        percent_decode_str(raw).decode_utf8().ok()
    }

    /// The query's names and values, decoded, in order.
    pub fn query(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        url::form_urlencoded::parse(self.head.uri.query().unwrap_or_default().as_bytes())
    }

    /// Reads the whole body, at most `limit` bytes, no slower than the limits of the listener allow. A body that came in one
    /// piece is not copied.
    ///
    /// # Errors
    /// [`BodyError`]; its `response()` is the answer to give.
    pub async fn bytes(&mut self, limit: usize) -> Result<Bytes, BodyError> {
        if let RequestBody::Whole(bytes) = &mut self.body {
            let bytes = std::mem::take(bytes);
            return if bytes.len() > limit { Err(BodyError::TooLarge { limit }) } else { Ok(bytes) };
        }
        let told: Option<usize> =
            self.head.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        if told.is_some_and(|told| told > limit) {
            if !self.head.headers.contains_key(EXPECT) {
                self.throw_away().await;
            }
            return Err(BodyError::TooLarge { limit });
        }
        let mut slow = Slowness::new(&self.peer);
        let Some(first) = self.piece(&mut slow).await? else { return Ok(Bytes::new()) };
        if first.len() > limit {
            self.throw_away().await;
            return Err(BodyError::TooLarge { limit });
        }
        if matches!(&self.body, RequestBody::Incoming(body) if body.is_end_stream()) {
            return Ok(first);
        }
        let Some(second) = self.piece(&mut slow).await? else { return Ok(first) };
        let mut whole = BytesMut::with_capacity(told.unwrap_or(first.len() + second.len()).min(SMALL_BODY));
        whole.extend_from_slice(&first);
        let mut next = Some(second);
        while let Some(piece) = next {
            let len = whole.len() + piece.len();
            if len > limit {
                self.throw_away().await;
                return Err(BodyError::TooLarge { limit });
            }
            // Only who has sent so much stands in line: a crowd that promises large bodies and sends none does not.
            if self.room.is_none() && len > SMALL_BODY {
                let all = told.unwrap_or(limit);
                self.take_room(all, len).await?;
                whole.reserve(told.map_or(piece.len(), |told| told.saturating_sub(whole.len())));
            }
            whole.extend_from_slice(&piece);
            next = self.piece(&mut slow).await?;
        }
        Ok(whole.freeze())
    }

    /// The next piece of the body as it comes, without a limit in time: for streams that have heartbeats of their own.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn data(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        next_piece(&mut self.body).await
    }

    async fn take_room(&mut self, bytes: usize, here: usize) -> Result<(), BodyError> {
        let room = self.peer.room.take(bytes, self.peer.limits.room_wait).await.ok_or(BodyError::NoRoom)?;
        room.arrived(here);
        self.room = Some(room);
        Ok(())
    }

    async fn piece(&mut self, slow: &mut Slowness) -> Result<Option<Bytes>, BodyError> {
        let is_over = || self.room.as_ref().is_some_and(|held| self.peer.room.is_over(held));
        if is_over() {
            return Err(BodyError::Overdue);
        }
        let body = &mut self.body;
        // Most bodies are there already: no timer is made for them.
        let mut reading = std::pin::pin!(next_piece(body));
        let ready = poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await;
        let piece = match ready {
            Poll::Ready(piece) => piece,
            Poll::Pending => loop {
                let (until, now) = (slow.deadline(), Instant::now());
                let look = if self.room.is_some() { until.min(now + LOOK) } else { until };
                match tokio::time::timeout_at(look, reading.as_mut()).await {
                    Ok(piece) => break piece,
                    Err(_) if look == until => return Err(BodyError::TooSlow { rate: slow.rate }),
                    Err(_) if is_over() => return Err(BodyError::Overdue),
                    Err(_) => {}
                }
            },
        };
        let piece = piece.transpose()?;
        let len = piece.as_ref().map_or(0, Bytes::len);
        slow.received += len;
        if let Some(held) = &self.room {
            held.arrived(len);
        }
        Ok(piece)
    }

    async fn throw_away(&mut self) {
        let mut left = POLITE_BYTES;
        let all = async {
            while let Some(Ok(piece)) = next_piece(&mut self.body).await {
                left = left.saturating_sub(piece.len());
                if left == 0 {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(POLITE_TIME, all).await;
    }
}

async fn next_piece(body: &mut RequestBody) -> Option<Result<Bytes, hyper::Error>> {
    let body = match body {
        RequestBody::Incoming(body) => body,
        RequestBody::Whole(bytes) => return Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty()).map(Ok),
    };
    loop {
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await? {
            // Trailers carry nothing that we read.
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    return Some(Ok(data));
                }
            }
            Err(e) => return Some(Err(e)),
        }
    }
}

/// Until when the next byte of a body must be here.
struct Slowness {
    start: Option<Instant>,
    grace: Duration,
    rate: u32,
    received: usize,
}

impl Slowness {
    fn new(peer: &Peer) -> Self {
        Self { start: None, grace: peer.limits.body_grace, rate: peer.limits.body_rate.max(1), received: 0 }
    }

    fn deadline(&mut self) -> Instant {
        let start = *self.start.get_or_insert_with(Instant::now);
        start + self.grace + Duration::from_secs(self.received as u64 / u64::from(self.rate))
    }
}
