//! One connection: its bytes, and the watch that is kept over it.
//!
//! The watch is a handful of numbers that the connection writes and the server's sweep reads once a second, so that holding
//! thousands of connections to their limits takes no timer each. A connection is closed when it has been without a request for
//! too long, when a request's head takes too long, or when the peer leaves our answer unread.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::crowd::{Crowd, PACE};
use crate::door::Credentials;
use crate::room::Room;

/// What all requests of one connection share.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) addr: SocketAddr,
    pub(super) limits: Arc<Limits>,
    /// For large bodies; all connections share it.
    pub(super) room: Arc<Room>,
    pub(super) shutdown: CancellationToken,
    /// By which the identities of its requests are known.
    pub(super) credentials: Option<Credentials>,
    pub(super) watch: Watch,
    /// All connections of the listener.
    pub(super) crowd: Arc<Crowd>,
}

impl Peer {
    /// Bytes have come that may be part of a request's head.
    pub(super) fn read_some(&self, bytes: usize) {
        let watch = &self.watch;
        if !watch.head_begun() {
            return;
        }
        let before = watch.head_bytes.load(Ordering::Relaxed);
        let more = bytes.min(self.limits.header_bytes.saturating_sub(before));
        watch.head_bytes.fetch_add(more, Ordering::Relaxed);
        self.crowd.hold(self, more);
    }

    /// A request has begun: what came was its head.
    fn head_is_read(&self) {
        let held = self.watch.head_bytes.swap(0, Ordering::Relaxed);
        if held > 0 {
            self.crowd.let_go(self, held);
        }
    }

    /// A write went through, or has to wait for the peer.
    pub(super) fn wrote(&self, blocked: bool) {
        self.watch.wrote(blocked);
        if !blocked && self.watch.http2.load(Ordering::Relaxed) {
            // No frame may come in the middle of a head, so what came before our answer was none.
            self.head_is_read();
        }
    }
}

/// What the sweep knows of a connection. Times are milliseconds since the server's start, from 1; 0 is "not now".
#[derive(Debug)]
pub(super) struct Watch {
    start: Instant,
    in_flight: AtomicU32,
    idle_since: AtomicU64,
    head_since: AtomicU64,
    blocked_since: AtomicU64,
    http2: AtomicBool,
    /// Bytes of a head that is not whole.
    head_bytes: AtomicUsize,
    /// Bytes that are held for unfinished requests, the head among them, since when there are any, and what has come since.
    held: AtomicUsize,
    held_since: AtomicU64,
    came: AtomicU64,
    /// It is to go, or has gone: nothing counts any more.
    gone: AtomicBool,
}

impl Watch {
    /// A watch over a connection that begins now.
    pub(super) fn new(start: Instant) -> Self {
        let watch = Self {
            start,
            in_flight: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            http2: AtomicBool::new(false),
            head_bytes: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            held_since: AtomicU64::new(0),
            came: AtomicU64::new(0),
            gone: AtomicBool::new(false),
        };
        watch.idle_since.store(watch.now(), Ordering::Relaxed);
        watch
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Since when the connection has had no request; `None` while it has one.
    pub(super) fn idle_since(&self) -> Option<u64> {
        (self.in_flight.load(Ordering::Relaxed) == 0).then(|| self.idle_since.load(Ordering::Relaxed))
    }

    /// Why the connection must be closed, if it must.
    pub(super) fn overdue(&self, limits: &Limits) -> Option<&'static str> {
        let now = self.now();
        let longer =
            |since: u64, limit: std::time::Duration| since != 0 && u128::from(now - since.min(now)) > limit.as_millis();
        if longer(self.blocked_since.load(Ordering::Relaxed), limits.body_grace) {
            return Some("the peer left our answer unread");
        }
        let idle_since = self.idle_since()?;
        // Over HTTP/2 bytes come between requests too (pings, windows); there only the idle time counts.
        if !self.http2.load(Ordering::Relaxed) && longer(self.head_since.load(Ordering::Relaxed), limits.header_time) {
            return Some("the request's head took too long");
        }
        longer(idle_since, limits.idle).then_some("idle")
    }

    /// Bytes have come; `false` if they cannot be of a head, since a request is being answered.
    pub(super) fn head_begun(&self) -> bool {
        let between = self.in_flight.load(Ordering::Relaxed) == 0;
        if between && self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
        between
    }

    /// Holds `bytes` more; `false` if nothing counts any more.
    pub(super) fn hold(&self, bytes: usize) -> bool {
        if self.gone.load(Ordering::Relaxed) {
            return false;
        }
        if self.held.fetch_add(bytes, Ordering::Relaxed) == 0 {
            self.held_since.store(self.now(), Ordering::Relaxed);
            self.came.store(0, Ordering::Relaxed);
        }
        true
    }

    /// Holds `bytes` fewer; answers how many fewer that is.
    pub(super) fn let_go(&self, bytes: usize) -> usize {
        let before = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| Some(held.saturating_sub(bytes)));
        before.unwrap_or(0).min(bytes)
    }

    /// Nothing counts any more; answers what was held.
    pub(super) fn leave(&self) -> usize {
        self.gone.store(true, Ordering::Relaxed);
        self.held.swap(0, Ordering::Relaxed)
    }

    /// Bytes of a body have come.
    pub(super) fn came(&self, bytes: usize) {
        self.came.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The same of a connection of HTTP/2 that has had a request.
    pub(super) fn idle_http2_since(&self) -> Option<u64> {
        self.idle_since().filter(|_| self.http2.load(Ordering::Relaxed))
    }

    /// Since when something of it has been unfinished, if it is; later for what has come meanwhile.
    pub(super) fn unfinished_since(&self) -> Option<u64> {
        let spent = self.came.load(Ordering::Relaxed) / PACE;
        (self.held.load(Ordering::Relaxed) > 0)
            .then(|| self.held_since.load(Ordering::Relaxed).saturating_add(spent).min(self.now()))
    }

    /// The same, or since when it has been without a request.
    pub(super) fn unfinished_or_idle_since(&self) -> Option<u64> {
        self.unfinished_since().or_else(|| self.idle_since())
    }

    /// A write went through, or has to wait for the peer.
    fn wrote(&self, blocked: bool) {
        let since = self.blocked_since.load(Ordering::Relaxed);
        match (blocked, since) {
            (true, 0) => self.blocked_since.store(self.now(), Ordering::Relaxed),
            (false, 1..) => self.blocked_since.store(0, Ordering::Relaxed),
            _ => {}
        }
    }
}

/// A request that is being answered: until this is dropped, its connection is not idle.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Peer>);

impl InFlight {
    /// Marks a request as begun.
    pub(super) fn begin(peer: &Arc<Peer>, version: http::Version) -> Self {
        let watch = &peer.watch;
        watch.in_flight.fetch_add(1, Ordering::Relaxed);
        watch.head_since.store(0, Ordering::Relaxed);
        peer.head_is_read();
        if version == http::Version::HTTP_2 {
            watch.http2.store(true, Ordering::Relaxed);
        }
        Self(peer.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let watch = &self.0.watch;
        watch.idle_since.store(watch.now(), Ordering::Relaxed);
        watch.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection's bytes, watched.
pub(super) struct Stream {
    pub(super) kind: StreamKind,
    /// What has been read from it already and must be read again.
    pub(super) before: Bytes,
    /// What goes out in place of something that is taken as written.
    pub(super) instead: Bytes,
    pub(super) peer: Arc<Peer>,
}

/// With TLS or without.
pub(super) enum StreamKind {
    /// Without.
    Plain(TcpStream),
    /// With; boxed because it is large and few have it.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Bytes read at once by HTTP/1.1 at most: its buffer doubles each time it is filled.
const READ_BYTES: usize = (16 << 10) - 1;

/// How the answer to a head that is too large begins. It is given below us, without a word.
const TOO_LARGE: &[u8] = b"HTTP/1.1 431 ";

impl Stream {
    fn poll_some(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            StreamKind::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            StreamKind::Tls(tls) => Pin::new(&mut **tls).poll_read(cx, buf),
        }
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.kind {
            StreamKind::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            StreamKind::Tls(tls) => Pin::new(&mut **tls).poll_write(cx, buf),
        }
    }

    /// Whether what is written now is to be replaced, which is then done.
    fn replaces(&mut self, written: &[u8]) -> bool {
        let watch = &self.peer.watch;
        let ours = watch.in_flight.load(Ordering::Relaxed) > 0 || watch.http2.load(Ordering::Relaxed);
        if ours || !written.starts_with(TOO_LARGE) {
            return false;
        }
        let why = format!(
            "the head of the request is larger than the {} bytes or has more than the {} headers that are taken here; send the \
             event in structured mode, where its attributes are part of the body\n",
            self.peer.limits.header_bytes, self.peer.limits.headers
        );
        self.instead = format!(
            "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{why}",
            why.len()
        )
        .into();
        true
    }

    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            let instead = self.instead.clone();
            match ready!(self.poll_put(cx, &instead))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.instead.advance(n.min(instead.len())),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.before.is_empty() {
            let n = self.before.len().min(buf.remaining());
            buf.put_slice(&self.before.split_to(n));
            self.peer.read_some(n);
            return Poll::Ready(Ok(()));
        }
        let filled = buf.filled().len();
        if buf.remaining() <= READ_BYTES || self.peer.watch.http2.load(Ordering::Relaxed) {
            ready!(self.poll_some(cx, buf))?;
        } else {
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(READ_BYTES));
            ready!(self.poll_some(cx, &mut part))?;
            let n = part.filled().len();
            buf.advance(n);
        }
        let n = buf.filled().len() - filled;
        if n > 0 {
            self.peer.read_some(n);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.replaces(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        let polled = self.poll_put(cx, buf);
        self.peer.wrote(polled.is_pending());
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        let polled = match &mut self.kind {
            StreamKind::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            StreamKind::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
        };
        // Nothing has gone out by this: TCP has no buffer of ours.
        self.peer.watch.wrote(polled.is_pending());
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        match &mut self.kind {
            StreamKind::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            StreamKind::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if bufs.iter().find(|buf| !buf.is_empty()).is_some_and(|first| self.replaces(first)) {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        let polled = match &mut self.kind {
            StreamKind::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            StreamKind::Tls(tls) => Pin::new(&mut **tls).poll_write_vectored(cx, bufs),
        };
        self.peer.wrote(polled.is_pending());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        match &self.kind {
            StreamKind::Plain(tcp) => tcp.is_write_vectored(),
            StreamKind::Tls(tls) => tls.is_write_vectored(),
        }
    }
}
