//! The lane for plain events: requests of HTTP/1.1 that came whole are answered together.
//!
//! hyper takes one request after the other from a connection, so a client that sends a hundred without waiting (pipelining)
//! would pay for a hundred disk syncs. Here all requests that have arrived are begun at once, share the next sync, and their
//! answers leave in order, in one write. Plain events go to the journal straight from these bytes (`ingress/quick.rs`). An idle
//! connection holds no buffer.
//!
//! The lane takes only what leaves no doubt: a `POST` for the ingress, HTTP/1.1, one `Content-Length`, no transfer coding, no
//! `Expect`, `Upgrade` or `Connection` header, head and body small and soon here. At the first request that is anything else (HTTP/2 and
//! malformed ones too) the connection goes to hyper for good, with all bytes not yet answered: hyper alone decides what they
//! mean. Two readings of one request are thus not possible.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::stream::{FuturesOrdered, StreamExt};
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Uri, Version};
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;

use super::connection::Peer;
use super::crowd::Unfinished;
use super::limits::SMALL_BODY;
use super::request::RequestBody;
use super::server::{Quick, Shared};
use super::{Response, Router};

/// Bytes read at a time.
const READ_BYTES: usize = 8 << 10;

/// Bytes of pipelined requests that are begun together; one with more than [`SMALL_BODY`] is hyper's.
const MAX_BYTES: usize = 32 << 10;

/// How long the rest of a request may take to come before the connection goes to hyper: long enough for clients that send
/// head and body one after the other.
const PATIENCE: Duration = Duration::from_millis(200);

/// Headers of a request in the lane; more are hyper's.
const MAX_HEADERS: usize = 64;

/// Header names of events that need not be made anew each time.
static NAMES: [HeaderName; 8] = [
    HeaderName::from_static("ce-id"),
    HeaderName::from_static("ce-type"),
    HeaderName::from_static("ce-source"),
    HeaderName::from_static("ce-specversion"),
    HeaderName::from_static("ce-time"),
    HeaderName::from_static("ce-subject"),
    HeaderName::from_static("ce-dataschema"),
    HeaderName::from_static("ce-partitionkey"),
];

/// A connection in the lane.
pub(super) struct Lane<'a> {
    shared: &'a Arc<Shared>,
    peer: &'a Arc<Peer>,
    tcp: TcpStream,
    read: BytesMut,
}

/// How a connection left the lane.
pub(super) enum Left {
    /// It is closed, and all its requests have been answered.
    Closed,
    /// It goes on with hyper, which first gets these bytes.
    Other(TcpStream, Bytes),
}

/// What stands at the beginning of the bytes read.
enum Next {
    /// A plain event, which has been begun.
    Quick(Quick),
    /// A request for the lane, and its body.
    Plain(Parts, Bytes),
    /// Part of something that may become one.
    Partial,
    /// Anything else.
    Other,
}

impl<'a> Lane<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, peer: &'a Arc<Peer>, tcp: TcpStream) -> Self {
        Self { shared, peer, tcp, read: BytesMut::new() }
    }

    /// Answers plain requests until the peer closes, something else comes, or the server shuts down.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(super) async fn run(mut self) -> io::Result<Left> {
        loop {
            // Answers leave in order: behind a request that went the ordinary way, all that came with it do.
            let (mut first, mut quick, mut plain) = (None, Vec::new(), Vec::new());
            let next = loop {
                let may = plain.is_empty();
                let begin = |path: &str, headers: &[httparse::Header<'_>], body: &[u8]| {
                    if may { self.shared.begin(path, headers, body, self.peer) } else { None }
                };
                match take(&mut self.read, &self.shared.router, self.peer.limits.header_bytes, begin) {
                    Next::Quick(begun) if first.is_none() => first = Some(begun),
                    Next::Quick(begun) => quick.push(begun),
                    Next::Plain(head, body) => plain.push((head, body)),
                    next => break next,
                }
            };
            if let Some(first) = first
                && !self.acknowledge(first, quick).await?
            {
                return Ok(Left::Closed);
            }
            if !plain.is_empty() && !self.answer(plain).await? {
                return Ok(Left::Closed);
            }
            if matches!(next, Next::Other) {
                return Ok(Left::Other(self.tcp, self.read.freeze()));
            }
            let more = if self.read.is_empty() {
                // Gives the buffer back: thousands of connections may be as quiet as this one.
                self.read = BytesMut::new();
                self.more().await?
            } else {
                let mut unfinished = Unfinished::new(self.peer);
                unfinished.set(self.read.len());
                match tokio::time::timeout(PATIENCE, self.more()).await {
                    Ok(more) => more?,
                    // hyper and the sweep keep the time and the pace of whoever is slow.
                    Err(_) => return Ok(Left::Other(self.tcp, self.read.freeze())),
                }
            };
            if !more {
                return Ok(Left::Closed);
            }
        }
    }

    /// Waits for more bytes and reads what is there; `false` at the end.
    async fn more(&mut self) -> io::Result<bool> {
        let before = self.read.len();
        let shutdown = &self.shared.shutdown;
        let mut n = tokio::select! {
            biased;
            read = poll_fn(|cx| self.poll_read(cx)) => read?,
            () = shutdown.cancelled() => return Ok(false),
        };
        while n > 0 {
            self.peer.watch.head_begun();
            if n < READ_BYTES || self.read.len() >= MAX_BYTES || begins_large(&self.read) {
                break;
            }
            // Perhaps there is more at once.
            let Some(more) = poll_fn(|cx| self.poll_read(cx)).now_or_never() else { break };
            n = more?;
        }
        Ok(self.read.len() > before)
    }

    /// Reads what is there. The large buffer is on the stack: what the connection keeps is as long as what came.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        let mut space = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut space))?;
        self.read.extend_from_slice(space.filled());
        Poll::Ready(Ok(space.filled().len()))
    }

    /// Writes the answers to events that have been begun, each run of them as soon as it is there. `false`: the connection ends.
    async fn acknowledge(&self, first: Quick, more: Vec<Quick>) -> io::Result<bool> {
        let (mut out, mut open) = (Vec::new(), true);
        let alone = more.is_empty();
        for quick in std::iter::once(first).chain(more) {
            let mut finishing = std::pin::pin!(self.shared.finish(quick));
            let done = match poll_fn(|cx| Poll::Ready(finishing.as_mut().poll(cx))).await {
                Poll::Ready(done) => done,
                Poll::Pending => {
                    write_all(&self.tcp, self.peer, &out).await?;
                    out.clear();
                    finishing.await
                }
            };
            match done {
                Ok(()) if alone => write_all(&self.tcp, self.peer, self.shared.accepted().as_bytes()).await?,
                Ok(()) => out.extend_from_slice(self.shared.accepted().as_bytes()),
                Err(answer) => open &= write_answer(&mut out, &answer, &self.shared.date()),
            }
        }
        write_all(&self.tcp, self.peer, &out).await?;
        Ok(open)
    }

    /// Begins all these requests, and writes each run of answers as soon as it is there. `false`: the connection ends.
    async fn answer(&mut self, mut requests: Vec<(Parts, Bytes)>) -> io::Result<bool> {
        let begin = |(head, body)| self.shared.answer(head, RequestBody::Whole(body), self.peer.clone());
        let mut out = Vec::new();
        if requests.len() == 1
            && let Some(request) = requests.pop()
        {
            // By far the most common: nothing to keep in order.
            let open = write_answer(&mut out, &begin(request).await, &self.shared.date());
            write_all(&self.tcp, self.peer, &out).await?;
            return Ok(open);
        }
        let mut answers: FuturesOrdered<_> = requests.into_iter().map(begin).collect();
        let mut open = true;
        while let Some(first) = answers.next().await {
            out.clear();
            open &= write_answer(&mut out, &first, &self.shared.date());
            while let Some(Some(next)) = answers.next().now_or_never() {
                open &= write_answer(&mut out, &next, &self.shared.date());
            }
            write_all(&self.tcp, self.peer, &out).await?;
        }
        Ok(open)
    }
}

async fn write_all(tcp: &TcpStream, peer: &Peer, mut out: &[u8]) -> io::Result<()> {
    while !out.is_empty() {
        match tcp.try_write(out) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => out = out.get(n..).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                peer.wrote(true);
                tcp.writable().await?;
            }
            Err(e) => return Err(e),
        }
    }
    peer.wrote(false);
    Ok(())
}

/// Whether the first request has a body that is not for the lane: the rest of it then stays where it is.
fn begins_large(read: &[u8]) -> bool {
    let mut slots = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut slots);
    matches!(parsed.parse(read), Ok(httparse::Status::Complete(_)))
        && plain_length(parsed.headers).is_none_or(|length| length > SMALL_BODY)
}

/// Takes the next request from the bytes read, if it is one for the lane; otherwise they stay as they are. `begin` may take it in
/// the quick way.
fn take(
    read: &mut BytesMut,
    router: &Router,
    header_bytes: usize,
    begin: impl FnOnce(&str, &[httparse::Header<'_>], &[u8]) -> Option<Quick>,
) -> Next {
    if read.is_empty() {
        return Next::Partial;
    }
    let mut slots = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut slots);
    let head_len = match parsed.parse(read) {
        Ok(httparse::Status::Complete(n)) => n,
        Ok(httparse::Status::Partial) if may_be_plain(read) && read.len() < header_bytes => return Next::Partial,
        _ => return Next::Other,
    };
    let (Some("POST"), Some(path), Some(1)) = (parsed.method, parsed.path, parsed.version) else { return Next::Other };
    let Some(body_len) = plain_length(parsed.headers) else { return Next::Other };
    if !path.starts_with('/') || body_len > SMALL_BODY || head_len + body_len > MAX_BYTES {
        return Next::Other;
    }
    if read.len() < head_len + body_len {
        return Next::Partial;
    }
    let body = read.get(head_len..head_len + body_len).unwrap_or_default();
    if let Some(begun) = begin(path, parsed.headers, body) {
        read.advance(head_len + body_len);
        return Next::Quick(begun);
    }
    let path = span(read, path.as_bytes());
    let mut spans = [(Span::default(), Span::default()); MAX_HEADERS];
    let count = parsed.headers.len();
    for (spans, header) in spans.iter_mut().zip(parsed.headers.iter()) {
        *spans = (span(read, header.name.as_bytes()), span(read, header.value));
    }
    // The names and values of the head are parts of these bytes, not copies.
    let head = read.split_to(head_len).freeze();
    let parts = head_of(&head, path, spans.get(..count).unwrap_or_default());
    let Some(parts) = parts.filter(|parts| router.falls_back(&parts.method, parts.uri.path())) else {
        // On a doubt all bytes go to hyper.
        let rest = std::mem::replace(read, BytesMut::from(&head[..]));
        read.extend_from_slice(&rest);
        return Next::Other;
    };
    Next::Plain(parts, read.split_to(body_len).freeze())
}

/// A part of the bytes read: where it begins and ends.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: usize,
    end: usize,
}

impl Span {
    fn of(self, head: &Bytes) -> Bytes {
        head.slice(self.start.min(head.len())..self.end.min(head.len()))
    }
}

/// Where `part`, which lies in `read`, is.
fn span(read: &[u8], part: &[u8]) -> Span {
    let start = (part.as_ptr() as usize).wrapping_sub(read.as_ptr() as usize);
    Span { start, end: start.saturating_add(part.len()) }
}

/// Whether the beginning of a request can still become one for the lane.
fn may_be_plain(read: &[u8]) -> bool {
    const START: &[u8] = b"POST /";
    let n = read.len().min(START.len());
    read.get(..n) == START.get(..n)
}

/// The length of the body, if the headers leave no doubt about the framing.
fn plain_length(headers: &[httparse::Header<'_>]) -> Option<usize> {
    const OTHERS: [&str; 7] = ["transfer-encoding", "expect", "upgrade", "connection", "te", "trailer", "http2-settings"];
    let mut length = None;
    for header in headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            let digits = !header.value.is_empty() && header.value.len() < 10 && header.value.iter().all(u8::is_ascii_digit);
            let value = std::str::from_utf8(header.value).ok().filter(|_| digits)?;
            if length.replace(value.parse().ok()?).is_some() {
                return None;
            }
        } else if OTHERS.iter().any(|other| header.name.eq_ignore_ascii_case(other)) {
            return None;
        }
    }
    length
}

fn head_of(bytes: &Bytes, path: Span, headers: &[(Span, Span)]) -> Option<Parts> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let name = bytes.get(name.start..name.end)?;
        let name = match NAMES.iter().find(|known| known.as_str().as_bytes() == name) {
            Some(known) => known.clone(),
            None => HeaderName::from_bytes(name).ok()?,
        };
        map.append(name, HeaderValue::from_maybe_shared(value.of(bytes)).ok()?);
    }
    let uri = Uri::from_maybe_shared(path.of(bytes)).ok()?;
    let (mut head, ()) = http::Request::new(()).into_parts();
    (head.method, head.uri, head.version, head.headers) = (Method::POST, uri, Version::HTTP_11, map);
    Some(head)
}

/// Appends an answer as HTTP/1.1 writes it; `false` if the connection ends behind it.
fn write_answer(out: &mut Vec<u8>, answer: &Response, date: &str) -> bool {
    // The ingress has no streams for answers; one that came here would leave the peer without an end.
    let Some(body) = answer.body().whole() else { return false };
    let status = answer.status();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    let mut length = itoa::Buffer::new();
    let fixed = [("content-length", length.format(body.len()).as_bytes()), ("date", date.as_bytes())];
    let headers = answer.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    for (name, value) in headers.chain(fixed) {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
    }
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
    answer.headers().get(header::CONNECTION).is_none_or(|value| value != "close")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::respond;
    use http::StatusCode;
    use proptest::prelude::*;

    const PLAIN: &str = "POST /a/b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc";

    fn router() -> Router {
        let answer = |_| std::future::ready(respond::empty(StatusCode::OK));
        Router::new().route(Method::POST, "/api/x", answer).fallback(answer)
    }

    fn take_from(text: &str) -> (Next, usize) {
        let mut read = BytesMut::from(text);
        let next = take(&mut read, &router(), 8 << 10, |_, _, _| None);
        (next, read.len())
    }

    #[test]
    fn a_plain_request_is_taken_and_what_follows_stays() {
        let (Next::Plain(head, body), 4) = take_from(&format!("{PLAIN}POST")) else { panic!("plain") };
        assert_eq!((head.uri.path(), &body[..]), ("/a/b", &b"abc"[..]));
        assert_eq!(head.headers["host"], "localhost");
    }

    #[test]
    fn part_of_one_waits() {
        for n in 0..PLAIN.len() {
            let (next, left) = take_from(&PLAIN[..n]);
            assert!(matches!(next, Next::Partial), "{n}");
            assert_eq!(left, n);
        }
    }

    #[test]
    fn whatever_leaves_a_doubt_is_left_to_hyper_untouched() {
        let with = |header: &str| PLAIN.replace("Host: localhost", &format!("Host: localhost\r\n{header}"));
        for text in [
            with("Transfer-Encoding: chunked"),
            with("transfer-encoding : chunked"),
            with("Content-Length: 3"),
            with("Content-Length: 4"),
            with("Expect: 100-continue"),
            with("Connection: close"),
            with("Connection: Upgrade"),
            with("Upgrade: h2c"),
            with("X: a\r\n b"),
            PLAIN.replace("Length: 3", "Length: +3"),
            PLAIN.replace("Length: 3", "Length: 3, 3"),
            PLAIN.replace("Length: 3", "Length: 0x3"),
            PLAIN.replace("Length: 3", "Length: 99999999999999999999"),
            PLAIN.replace("Length: 3", "Length: 9999999"),
            PLAIN.replace("Content-Length: 3\r\n", ""),
            PLAIN.replace("HTTP/1.1", "HTTP/1.0"),
            PLAIN.replace("POST", "PUT"),
            PLAIN.replace("/a/b", "/api/x"),
            PLAIN.replace("/a/b", "http://evil.example/a/b"),
            PLAIN.replace("/a/b", "*"),
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\n\r\n".to_owned(),
            "\u{16}\u{3}\u{1}".to_owned(),
            format!("POST /{}", "x".repeat(9 << 10)),
        ] {
            let (next, left) = take_from(&text);
            assert!(matches!(next, Next::Other), "{text}");
            assert_eq!(left, text.len(), "{text}");
        }
    }

    #[test]
    fn an_answer_is_written_with_its_length_and_its_end() {
        let mut out = Vec::new();
        assert!(write_answer(&mut out, &respond::empty(StatusCode::ACCEPTED), "now"));
        assert_eq!(out, b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\ndate: now\r\n\r\n");
        out.clear();
        assert!(!write_answer(&mut out, &respond::closing(respond::text(StatusCode::BAD_REQUEST, "no")), "now"));
        assert!(out.ends_with(b"\r\ncontent-length: 3\r\ndate: now\r\n\r\nno\n"), "{}", String::from_utf8_lossy(&out));
    }

    proptest! {
        #[test]
        fn no_bytes_can_hurt(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0..PLAIN.len()) {
            let mut read = BytesMut::from(PLAIN.get(..at).unwrap_or_default());
            read.extend_from_slice(&bytes);
            let before = read.len();
            match take(&mut read, &router(), 8 << 10, |_, _, _| None) {
                Next::Plain(..) => prop_assert!(read.len() < before),
                Next::Quick(_) => prop_assert!(false, "nothing begins here"),
                Next::Partial | Next::Other => prop_assert_eq!(read.len(), before),
            }
        }
    }
}
