//! One GET over HTTP/1.1, plain or with TLS, each step with its time limit and its own error.
//!
//! Written out rather than left to an HTTP client, because the steps are what is asked about: the name, the connection, the
//! handshake, the answer. One request a connection; the answer is bounded.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::{LOOKUP, STEP};
use crate::door::{ClientTls, bare};

/// Largest answer, head included.
const MAX_ANSWER_BYTES: usize = 1 << 20;

const MAX_HEADERS: usize = 64;

/// At which step it came to nothing.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The URL is not one.
    #[error("{0}")]
    Url(String),
    /// No address.
    #[error("looking up {host}: {why}")]
    Name {
        /// Of what.
        host: String,
        /// What the system says.
        why: String,
    },
    /// No connection.
    #[error("connecting to {to}: {why}")]
    Connect {
        /// Where to.
        to: String,
        /// What the system says.
        why: String,
    },
    /// No trust.
    #[error("TLS with {to}: {why}")]
    Tls {
        /// With whom.
        to: String,
        /// What rustls says.
        why: String,
    },
    /// No answer, or one that is not HTTP.
    #[error("asking {to}: {why}")]
    Http {
        /// Whom.
        to: String,
        /// What is wrong.
        why: String,
    },
}

/// A server.
#[derive(Debug, Clone)]
pub struct Endpoint {
    host: Host<String>,
    port: u16,
    https: bool,
    prefix: String,
    tls: ClientTls,
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The header `Date` as it came.
    pub date: Option<String>,
    /// The body.
    pub body: Vec<u8>,
    /// The chain that the server showed, DER, its own certificate first.
    pub chain: Vec<Vec<u8>>,
    /// How long TCP took.
    pub connected_in: Duration,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Endpoint {
    /// The server of a URL.
    ///
    /// # Errors
    /// [`FetchError::Url`].
    pub fn new(url: &str, tls: ClientTls) -> Result<Self, FetchError> {
        let wrong = || FetchError::Url(format!("\"{}\" is not http://host[:port] or https://host[:port]", bare(url)));
        let url = Url::parse(url).map_err(|_| wrong())?;
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(wrong()),
        };
        let (host, port) = (url.host().ok_or_else(wrong)?.to_owned(), url.port_or_known_default().ok_or_else(wrong)?);
        Ok(Self { host, port, https, prefix: url.path().trim_end_matches('/').to_owned(), tls })
    }

    /// Whether it speaks TLS.
    #[must_use]
    pub fn https(&self) -> bool {
        self.https
    }

    /// Its name, without brackets; `None` where the URL has an address already.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        if let Host::Domain(name) = &self.host { Some(name) } else { None }
    }

    /// `host:port`.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Its addresses.
    ///
    /// # Errors
    /// [`FetchError::Name`], also after [`LOOKUP`].
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>, FetchError> {
        let name = match &self.host {
            Host::Ipv4(ip) => return Ok(vec![SocketAddr::new(IpAddr::V4(*ip), self.port)]),
            Host::Ipv6(ip) => return Ok(vec![SocketAddr::new(IpAddr::V6(*ip), self.port)]),
            Host::Domain(name) => name.as_str(),
        };
        let failed = |why: String| FetchError::Name { host: name.to_owned(), why };
        let found = within(LOOKUP, tokio::net::lookup_host((name, self.port))).await.map_err(failed)?;
        let found: Vec<SocketAddr> = found.collect();
        if found.is_empty() { Err(failed("it has no address".to_owned())) } else { Ok(found) }
    }

    /// Asks the server at the first of these addresses that takes a connection.
    ///
    /// # Errors
    /// See [`FetchError`]; each step has [`STEP`], all addresses together one.
    pub async fn get(&self, addresses: &[SocketAddr], path: &str, token: Option<&str>) -> Result<Answer, FetchError> {
        self.ask("GET", addresses, path, token).await
    }

    /// The same with another method, and no body.
    pub(super) async fn ask(
        &self,
        method: &str,
        addresses: &[SocketAddr],
        path: &str,
        token: Option<&str>,
    ) -> Result<Answer, FetchError> {
        let to = self.shown();
        // A line of its own in a request would be a field of its own.
        if token.is_some_and(|token| token.contains(|c: char| c.is_control())) {
            return Err(FetchError::Http { to, why: "not asked: the token has a line break in it".to_owned() });
        }
        let begun = Instant::now();
        let connect = |why| FetchError::Connect { to: to.clone(), why };
        let tcp = within(STEP, TcpStream::connect(addresses)).await.map_err(connect)?;
        let connected_in = begun.elapsed();
        let _ = tcp.set_nodelay(true);
        let (mut io, chain): (Box<dyn Io>, _) =
            if self.https { self.handshake(tcp).await? } else { (Box::new(tcp), Vec::new()) };
        let http = |why| FetchError::Http { to: to.clone(), why };
        let asked = async {
            io.write_all(self.request(method, path, token).as_bytes()).await?;
            io.flush().await?;
            read(&mut *io).await
        };
        let (status, date, body) = within(STEP, asked).await.map_err(http)?;
        Ok(Answer { status, date, body, chain, connected_in })
    }

    async fn handshake(&self, tcp: TcpStream) -> Result<(Box<dyn Io>, Vec<Vec<u8>>), FetchError> {
        let failed = |why: String| FetchError::Tls { to: self.shown(), why };
        let name = match &self.host {
            Host::Domain(name) => ServerName::try_from(name.clone()).map_err(|e| failed(e.to_string()))?,
            Host::Ipv4(ip) => ServerName::from(IpAddr::V4(*ip)),
            Host::Ipv6(ip) => ServerName::from(IpAddr::V6(*ip)),
        };
        let config = self.tls.config(&[b"http/1.1"]).map_err(|e| failed(e.to_string()))?;
        let stream = within(STEP, TlsConnector::from(config).connect(name, tcp)).await.map_err(failed)?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().iter().map(|der| der.to_vec()).collect();
        Ok((Box::new(stream), chain))
    }

    fn request(&self, method: &str, path: &str, token: Option<&str>) -> String {
        let default = if self.https { 443 } else { 80 };
        let host = if self.port == default { self.host.to_string() } else { self.shown() };
        let token = token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
        let agent = concat!("godwit-doctor/", env!("CARGO_PKG_VERSION"));
        let length = if method == "GET" { "" } else { "content-length: 0\r\n" };
        format!(
            "{method} {}{path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {agent}\r\n{token}{length}connection: close\r\n\r\n",
            self.prefix
        )
    }
}

/// Waits no longer than `most`.
async fn within<T>(most: Duration, work: impl Future<Output = std::io::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(most, work).await {
        Ok(done) => done.map_err(|e| e.to_string()),
        Err(_) => Err(format!("no answer within {} s", most.as_secs())),
    }
}

type Parts = (u16, Option<String>, Vec<u8>);

async fn read(io: &mut dyn Io) -> std::io::Result<Parts> {
    let wrong = |why: &str| std::io::Error::other(why.to_owned());
    let mut bytes = Vec::new();
    let mut piece = vec![0; 16 << 10];
    loop {
        // A peer that cuts a TLS connection without a farewell has ended its answer all the same.
        let n = match io.read(&mut piece).await {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => 0,
            other => other?,
        };
        bytes.extend_from_slice(piece.get(..n).unwrap_or_default());
        match parse(&bytes, n == 0).map_err(wrong)? {
            Some(parts) => return Ok(parts),
            None if n == 0 => return Err(wrong("the answer ended too early")),
            None if bytes.len() > MAX_ANSWER_BYTES => return Err(wrong("the answer is larger than 1 MiB")),
            None => {}
        }
    }
}

/// An answer as far as it has come; `None` when there is more of it to come. `ended`: nothing more will.
fn parse(bytes: &[u8], ended: bool) -> Result<Option<Parts>, &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let at = match head.parse(bytes) {
        Ok(httparse::Status::Complete(at)) => at,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err("the answer is not HTTP/1.1"),
    };
    let status = head.code.ok_or("the answer has no status")?;
    let header = |name: &str| {
        let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
    };
    let body = bytes.get(at..).unwrap_or_default();
    let body = if header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        match unchunk(body)? {
            Some(body) => body,
            None => return Ok(None),
        }
    } else if let Some(length) = header("content-length") {
        match body.get(..length.parse().map_err(|_| "the answer's length is no number")?) {
            Some(body) => body.to_owned(),
            None => return Ok(None),
        }
    } else if ended {
        body.to_owned()
    } else {
        return Ok(None);
    };
    Ok(Some((status, header("date").map(str::to_owned), body)))
}

/// The body in chunks (RFC 9112 section 7.1); `None` when there is more to come.
fn unchunk(mut rest: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    let mut body = Vec::new();
    loop {
        let (at, length) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err("the answer's chunks are not chunks"),
        };
        if length == 0 {
            return Ok(Some(body));
        }
        let end = usize::try_from(length).ok().and_then(|length| at.checked_add(length)).ok_or("a chunk is too large")?;
        let Some(chunk) = rest.get(at..end) else { return Ok(None) };
        body.extend_from_slice(chunk);
        match rest.get(end..end + 2) {
            Some(b"\r\n") => rest = rest.get(end + 2..).unwrap_or_default(),
            Some(_) => return Err("the answer's chunks are not chunks"),
            None => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    use super::*;

    fn endpoint(url: &str) -> Endpoint {
        Endpoint::new(url, ClientTls::new(None)).expect("a URL")
    }

    #[test]
    fn answers_end_by_length_by_chunks_or_with_the_connection() {
        let parsed =
            |text: &str, ended| parse(text.as_bytes(), ended).expect("HTTP").map(|(status, _, body)| (status, body));
        let ok = |body: &str| Some((200, body.as_bytes().to_vec()));
        assert_eq!(parsed("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", false), ok("ok"));
        assert_eq!(parsed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", false), None);
        assert_eq!(parsed("HTTP/1.1 200 OK\r\n\r\nok", false), None);
        assert_eq!(parsed("HTTP/1.1 200 OK\r\n\r\nok", true), ok("ok"));
        let chunks = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n";
        assert_eq!(parsed(chunks, false), ok("ok"));
        assert_eq!(parsed(&chunks[..chunks.len() - 6], false), None);
        assert!(parse(b"220 mail.example.org ESMTP\r\n", false).is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nokk\r\n", false).is_err());
    }

    #[test]
    fn a_request_names_its_host_as_the_url_does() {
        let request = endpoint("https://mesh.example.org/base/").request("GET", "/healthz", Some("secret"));
        assert!(request.starts_with("GET /base/healthz HTTP/1.1\r\nhost: mesh.example.org\r\n"), "{request}");
        assert!(request.contains("authorization: Bearer secret\r\n"), "{request}");
        assert!(endpoint("http://[::1]:8090").request("POST", "/", None).contains("host: [::1]:8090\r\n"));
        assert_eq!(endpoint("http://[::1]:8090").name(), None);
        for wrong in ["mesh", "ftp://x", "http://", "unix:/x"] {
            assert!(Endpoint::new(wrong, ClientTls::new(None)).is_err(), "{wrong}");
        }
        for wrong in ["ftp://u:s3cr3t@h", "http://u:s3cr3t@h:99999", "u:s3cr3t@h", "http://u:s3@cr3t@h h"] {
            let error = Endpoint::new(wrong, ClientTls::new(None)).expect_err("no URL").to_string();
            assert!(!error.contains("s3") && error.contains("h"), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_is_not_waited_for() {
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = silent.local_addr().expect("an address");
        let error = endpoint(&format!("http://{address}")).get(&[address], "/healthz", None).await.expect_err("silent");
        assert!(matches!(error, FetchError::Http { .. }), "{error}");
        assert!(error.to_string().contains("no answer within 5 s"), "{error}");
    }

    #[tokio::test]
    async fn a_token_of_more_than_one_line_is_not_sent() {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = server.local_addr().expect("an address");
        let asked = endpoint(&format!("http://{address}"));
        let error = asked.get(&[address], "/version", Some("one\ntwo")).await.expect_err("two lines").to_string();
        assert!(error.contains("line break") && !error.contains("two"), "{error}");
        let accepted = tokio::time::timeout(Duration::from_millis(50), server.accept()).await;
        assert!(accepted.is_err(), "nobody came");
    }

    #[tokio::test]
    async fn nobody_there_is_told_from_a_silent_server() {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let error = endpoint(&format!("http://{gone}")).get(&[gone], "/healthz", None).await.expect_err("gone");
        assert!(matches!(error, FetchError::Connect { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, true);
            let _ = parse(&[b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", &bytes[..]].concat(), false);
        }
    }
}
