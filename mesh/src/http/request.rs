//! A request as handlers see it.

use std::borrow::Cow;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Version;
use http::header::{CONTENT_LENGTH, EXPECT};
use http::request::Parts;
use http_body::Body as _;
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Peer;
use super::crowd::{EACH_BYTES, EACH_STREAM_BYTES, Unfinished};
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

/// How much of a body that nobody wanted is still read behind the answer over HTTP/2, and how long that may take.
const REST_BYTES: usize = 64 << 10;
const REST_TIME: Duration = Duration::from_secs(2);

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
    Incoming(Unread),
    /// Whole; empty once taken.
    Whole(Bytes),
}

/// A body of which the rest may have to be read for the sake of the peer.
///
/// An answer that is given before the body was read would be followed, over HTTP/2, by RST_STREAM, and there are clients that
/// then throw the answer away (curl 7.88). So a small rest is read and dropped behind the answer.
#[derive(Debug)]
pub(super) struct Unread {
    body: Option<Incoming>,
    /// Who owns the task that reads the rest, and as what it counts; `None`: there is no need.
    rest: Option<(TaskTracker, Unfinished)>,
}

impl Unread {
    pub(super) fn new(body: Incoming, rest: Option<(TaskTracker, Unfinished)>) -> Self {
        Self { body: Some(body), rest }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(hyper::body::Body::is_end_stream)
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let unread = self.body.take().zip(self.rest.take()).filter(|(body, _)| !body.is_end_stream());
        let Some((mut body, (tasks, mut unfinished))) = unread else { return };
        unfinished.set(EACH_STREAM_BYTES);
        let rest = async move {
            let mut left = REST_BYTES;
            while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                let len = frame.data_ref().map_or(0, Bytes::len);
                match left.checked_sub(len) {
                    Some(fewer) => left = fewer,
                    None => break,
                }
            }
        };
        tasks.spawn(async move {
            // Whether it came or not, the stream ends here.
            let _ = tokio::time::timeout(REST_TIME, rest).await;
            drop(unfinished);
        });
    }
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
        let each = if self.head.version == Version::HTTP_2 { EACH_STREAM_BYTES } else { EACH_BYTES };
        let mut slow = Slowness::new(&self.peer, each);
        let Some(first) = self.piece(&mut slow, 0).await? else { return Ok(Bytes::new()) };
        if first.len() > limit {
            self.throw_away().await;
            return Err(BodyError::TooLarge { limit });
        }
        if matches!(&self.body, RequestBody::Incoming(body) if body.is_end_stream()) {
            return Ok(first);
        }
        let Some(second) = self.piece(&mut slow, first.len()).await? else { return Ok(first) };
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
                slow.hold(&self.peer, len);
                self.take_room(all, len).await?;
                whole.reserve(told.map_or(piece.len(), |told| told.saturating_sub(whole.len())));
            }
            whole.extend_from_slice(&piece);
            // What has room of its own counts there.
            let here = if self.room.is_some() { 0 } else { whole.len() };
            next = self.piece(&mut slow, here).await?;
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

    /// The next piece; `here` bytes are held meanwhile.
    async fn piece(&mut self, slow: &mut Slowness, here: usize) -> Result<Option<Bytes>, BodyError> {
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
                slow.hold(&self.peer, here);
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
        slow.last = None;
        self.peer.watch.came(len);
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
        RequestBody::Incoming(unread) => unread.body.as_mut()?,
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

/// Until when the next byte of a body must be here, and what is held until then.
struct Slowness {
    start: Option<Instant>,
    /// When the last piece came.
    last: Option<Instant>,
    unfinished: Option<Unfinished>,
    each: usize,
    grace: Duration,
    rate: u32,
    received: usize,
}

impl Slowness {
    fn new(peer: &Peer, each: usize) -> Self {
        let (grace, rate) = (peer.limits.body_grace, peer.limits.body_rate.max(1));
        Self { start: None, last: None, unfinished: None, each, grace, rate, received: 0 }
    }

    /// So much of the body is held while the rest is waited for.
    fn hold(&mut self, peer: &Arc<Peer>, bytes: usize) {
        self.unfinished.get_or_insert_with(|| Unfinished::new(peer)).set(self.each + bytes);
    }

    fn deadline(&mut self) -> Instant {
        let last = *self.last.get_or_insert_with(Instant::now);
        let start = *self.start.get_or_insert(last);
        let by_rate = start + self.grace + Duration::from_secs(self.received as u64 / u64::from(self.rate));
        // What came fast buys no silence.
        by_rate.min(last + self.grace)
    }
}
