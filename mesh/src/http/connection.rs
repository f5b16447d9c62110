//! One connection: its bytes, and the watch that is kept over it.
//!
//! The watch is a handful of numbers that the connection writes and the server's sweep reads once a second, so that holding
//! thousands of connections to their limits takes no timer each. A connection is closed when it has been without a request for
//! too long, when a request's head takes too long, or when the peer leaves our answer unread.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::Limits;
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

    /// Bytes have come.
    pub(super) fn read_some(&self) {
        if self.in_flight.load(Ordering::Relaxed) == 0 && self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// A write went through, or has to wait for the peer.
    pub(super) fn wrote(&self, blocked: bool) {
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
    pub(super) peer: Arc<Peer>,
}

/// With TLS or without.
pub(super) enum StreamKind {
    /// Without.
    Plain(TcpStream),
    /// With; boxed because it is large and few have it.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.before.is_empty() {
            let n = self.before.len().min(buf.remaining());
            buf.put_slice(&self.before.split_to(n));
            return Poll::Ready(Ok(()));
        }
        let filled = buf.filled().len();
        let polled = match &mut self.kind {
            StreamKind::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            StreamKind::Tls(tls) => Pin::new(&mut **tls).poll_read(cx, buf),
        };
        if buf.filled().len() > filled {
            self.peer.watch.read_some();
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = match &mut self.kind {
            StreamKind::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            StreamKind::Tls(tls) => Pin::new(&mut **tls).poll_write(cx, buf),
        };
        self.peer.watch.wrote(polled.is_pending());
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = match &mut self.kind {
            StreamKind::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            StreamKind::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
        };
        self.peer.watch.wrote(polled.is_pending());
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
        let polled = match &mut self.kind {
            StreamKind::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            StreamKind::Tls(tls) => Pin::new(&mut **tls).poll_write_vectored(cx, bufs),
        };
        self.peer.watch.wrote(polled.is_pending());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        match &self.kind {
            StreamKind::Plain(tcp) => tcp.is_write_vectored(),
            StreamKind::Tls(tls) => tls.is_write_vectored(),
        }
    }
}
