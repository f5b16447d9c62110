//! Bodies: what an answer carries, and what goes wrong with a request's.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use thiserror::Error;

use super::connection::InFlight;
use super::crowd::Unfinished;
use super::request::Response;
use super::respond;

/// When to come again if there was no room for a body.
const RETRY_AFTER_S: u32 = 1;

/// Any error of a body's stream.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The body of an answer: nothing, bytes, or a stream of them.
pub struct Body {
    kind: Kind,
    /// Keeps the connection from counting as idle until the answer has been sent.
    in_flight: Option<InFlight>,
    /// What is counted for it while the peer does not take it.
    waiting: Option<Unfinished>,
}

enum Kind {
    Empty,
    Full(Bytes),
    Stream(Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>),
}

impl Body {
    /// No body.
    #[must_use]
    pub const fn empty() -> Self {
        Self { kind: Kind::Empty, in_flight: None, waiting: None }
    }

    /// A body that is known whole.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { kind: if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) }, in_flight: None, waiting: None }
    }

    /// A body that is sent piece by piece, each as soon as it is there. The stream is dropped when the peer goes away.
    pub fn stream(stream: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Self {
        Self { kind: Kind::Stream(Box::pin(stream)), in_flight: None, waiting: None }
    }

    /// The body's bytes, if it is not a stream.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Empty => Some(&[]),
            Kind::Full(bytes) => Some(bytes),
            Kind::Stream(_) => None,
        }
    }

    pub(super) fn hold(&mut self, in_flight: InFlight, waiting: Option<Unfinished>) {
        self.in_flight = Some(in_flight);
        self.waiting = waiting;
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Empty => f.write_str("Body(empty)"),
            Kind::Full(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Kind::Stream(_) => f.write_str("Body(stream)"),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Stream(stream) => stream.as_mut().poll_next(cx).map(|next| next.map(|piece| piece.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.kind, Kind::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(_) => SizeHint::default(),
        }
    }
}

/// Why a request's body could not be read whole.
#[derive(Debug, Error)]
pub enum BodyError {
    /// It is larger than the limit. Answer 413.
    #[error(
        "the body is larger than the {limit} bytes that are taken here; send smaller events, or raise the limit in [http]"
    )]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// It came too slowly. Answer 408.
    #[error("the body came too slowly: fewer than {rate} bytes a second")]
    TooSlow {
        /// The least rate in bytes per second.
        rate: u32,
    },
    /// It had room and its time, and others wait. Answer 408.
    #[error("the body came too slowly while others waited for room")]
    Overdue,
    /// Other large bodies have all the room. Answer 503.
    #[error("too many large bodies at once; try again in a moment")]
    NoRoom,
    /// The connection broke, or the framing is wrong. Answer 400, if anybody still listens.
    #[error("the body cannot be read: {0}")]
    Broken(#[from] hyper::Error),
}

impl BodyError {
    /// The answer that tells the peer.
    #[must_use]
    pub fn response(&self) -> Response {
        let status = match self {
            Self::NoRoom => return respond::closing(respond::unavailable(RETRY_AFTER_S, self)),
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow { .. } | Self::Overdue => StatusCode::REQUEST_TIMEOUT,
            Self::Broken(_) => StatusCode::BAD_REQUEST,
        };
        respond::closing(respond::problem(status, self))
    }
}
