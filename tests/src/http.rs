//! A plain HTTP/1.1 client for tests: one request, one connection, the whole answer in memory. It sends exactly what it is told
//! to, wrong headers included, which a proper client would not.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long nothing may come.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Header names, in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body without its transfer encoding.
    pub body: Vec<u8>,
}

impl Response {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a request and reads the answer.
///
/// # Errors
/// When there is none, or it is not HTTP.
pub fn request(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Response> {
    let mut stream = TcpStream::connect_timeout(&to, CONNECT_LIMIT).with_context(|| format!("cannot reach {to}"))?;
    stream.set_read_timeout(Some(READ_LIMIT))?;
    stream.set_nodelay(true)?;
    stream.write_all(&encode(&to.to_string(), method, path, headers, body, false))?;
    let mut bytes = Vec::new();
    let ended = stream.read_to_end(&mut bytes);
    parse(&bytes).with_context(|| format!("{method} {path}: no whole answer ({ended:?})"))
}

/// The bytes of a request; `Host` is added unless given.
#[must_use]
pub fn encode(host: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8], keep: bool) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str(&format!("host: {host}\r\n"));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !keep {
        text.push_str("connection: close\r\n");
    }
    text.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Reads an answer from all bytes of a connection.
///
/// # Errors
/// When they are not a whole one.
pub fn parse(bytes: &[u8]) -> Result<Response> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").context("no end of the head")?;
    let (head, rest) = bytes.split_at(end);
    let head = std::str::from_utf8(head)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?.parse()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let rest = rest.get(4..).unwrap_or_default();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value.contains("chunked"));
    let body = if chunked { dechunk(rest)? } else { rest.to_vec() };
    let length = headers.iter().find(|(name, _)| name == "content-length");
    if let Some((_, length)) = length
        && !chunked
    {
        anyhow::ensure!(length.parse::<usize>()? == body.len(), "{} of {length} bytes of the body", body.len());
    }
    Ok(Response { status, headers, body })
}

fn dechunk(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::with_capacity(rest.len());
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n").context("a chunk without length")?;
        let (size, after) = rest.split_at(end);
        let size = usize::from_str_radix(std::str::from_utf8(size)?.trim(), 16)?;
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(after.get(2..2 + size).context("a chunk is cut")?);
        rest = after.get(size + 4..).context("a chunk without end")?;
    }
}
