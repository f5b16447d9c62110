//! The gateway's frames, out of an answer's body.

use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use godwit_mesh::sync::limits::{MAX_CHUNK_BYTES, MAX_FRAME_BYTES, WINDOW_LOG};
use godwit_mesh::sync::{Chunks, Decoder};
use http_body::Body as _;
use hyper::body::Incoming;

use super::connect::LinkError;

/// What was heard.
#[derive(Debug)]
pub(super) enum Heard {
    /// A frame, to be decoded.
    Frame(Bytes),
    /// Only that the gateway lives.
    Life,
    /// The answer's end.
    End,
}

/// An answer that is being read.
#[derive(Debug)]
pub(super) struct Frames {
    body: Incoming,
    chunks: Chunks,
    decoder: Decoder,
    /// Bytes received so far.
    pub(super) received: u64,
}

impl Frames {
    pub(super) fn new(body: Incoming) -> Self {
        let decoder = Decoder::new(*WINDOW_LOG.end(), MAX_FRAME_BYTES);
        Self { body, chunks: Chunks::new(MAX_CHUNK_BYTES), decoder, received: 0 }
    }

    /// Waits for what comes next. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Heard, LinkError> {
        loop {
            if let Some((kind, chunk)) = self.chunks.next()? {
                return Ok(self.decoder.open(kind, &chunk)?.map_or(Heard::Life, Heard::Frame));
            }
            let body = &mut self.body;
            let frame = std::future::poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(frame) => Poll::Ready(frame),
                Poll::Pending => Poll::Pending,
            });
            match frame.await {
                None => return Ok(Heard::End),
                Some(frame) => {
                    if let Ok(bytes) = frame?.into_data() {
                        self.received += bytes.len() as u64;
                        self.chunks.push(&bytes);
                    }
                }
            }
        }
    }
}
