//! The byte stream under a connection, and the buffers that all connections of a thread share.
//!
//! An idle connection holds no buffer: bytes are read into one buffer of the thread and looked at there; only what remains of
//! a packet cut in two is kept by the connection. Likewise what is written is gathered in one buffer of the thread, and only
//! what the socket did not take is kept.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Size of the shared read buffer, and so the most that one read brings.
pub(super) const READ_BUFFER: usize = 64 << 10;
/// A write buffer that has grown larger than this is not kept.
const KEEP_WRITE_BUFFER: usize = 64 << 10;

thread_local! {
    static READ: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static WRITE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends the thread's read buffer, [`READ_BUFFER`] bytes long. Must not be held over an await.
pub(super) fn with_read_buffer<T>(f: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut buffer = READ.take();
    buffer.resize(READ_BUFFER, 0);
    let result = f(&mut buffer);
    READ.set(buffer);
    result
}

/// Lends the thread's write buffer, empty. Must not be held over an await.
pub(super) fn with_write_buffer<T>(f: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut buffer = WRITE.take();
    buffer.clear();
    let result = f(&mut buffer);
    if buffer.capacity() <= KEEP_WRITE_BUFFER {
        WRITE.set(buffer);
    }
    result
}

/// A byte stream that is not plain TCP: TLS, later a WebSocket.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The byte stream under a connection.
pub(super) enum Transport {
    /// TCP as it is.
    Tcp(TcpStream),
    /// Something on top of it.
    Layered(Box<dyn Stream>),
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp(_) => "Tcp",
            Self::Layered(_) => "Layered",
        })
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Layered(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Layered(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Layered(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Layered(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
