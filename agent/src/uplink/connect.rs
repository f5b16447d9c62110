//! The connection: TCP set up for a bad link, TLS, HTTP/2 or HTTP/1.1.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use godwit_mesh::door::{ClientTls, TlsError, bare};
use godwit_mesh::sync::{CONTENT_TYPE, SyncError};
use http::header::{AUTHORIZATION, CONTENT_TYPE as CONTENT_TYPE_HEADER, HOST};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

/// How long finding the address, TCP and TLS may take together.
const CONNECT_TIME: Duration = Duration::from_secs(30);

/// Bytes that the kernel takes beyond what is on its way: what waits longer is better chosen later.
const NOT_SENT_BYTES: u32 = 16 << 10;

/// Bytes that HTTP/2 takes beyond the kernel's.
const SEND_BUFFER: usize = 16 << 10;

/// Why there is no link, or no more.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The gateway's URL is not one.
    #[error("gateway.url \"{0}\" must be http://host[:port] or https://host[:port]")]
    Url(String),
    /// The token cannot be read.
    #[error("gateway.token-file {path}: {source}")]
    Token {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// No connection.
    #[error("connecting to {to}: {source}")]
    Connect {
        /// Where to.
        to: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// No trust.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// HTTP failed.
    #[error("talking to the gateway: {0}")]
    Http(#[from] hyper::Error),
    /// The gateway, or something in between, answers something else.
    #[error("the gateway answers {status}: {text}")]
    Status {
        /// The status.
        status: StatusCode,
        /// The beginning of its text.
        text: String,
    },
    /// The gateway ends the connection and says why.
    #[error("the gateway ends the connection: {message}")]
    Goodbye {
        /// One of the codes of [`godwit_mesh::sync::frame::Goodbye`].
        code: u32,
        /// Why.
        message: String,
    },
    /// Nothing was heard in time.
    #[error("nothing was heard from the gateway for {0:?}")]
    Silent(Duration),
    /// The request went, but no welcome came back.
    #[error("no welcome came within {0:?}: a proxy on the way may hold the request back")]
    NoWelcome(Duration),
    /// The other side does not speak HTTP/2.
    #[error("the other side does not speak HTTP/2")]
    NoHttp2,
    /// The answer ended.
    #[error("the gateway ended its answer")]
    Ended,
    /// The gateway's bytes are not what they should be.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The gateway says what cannot be.
    #[error("the gateway says {0}")]
    Nonsense(String),
    /// A journal cannot be read.
    #[error(transparent)]
    Read(#[from] godwit_mesh::journal::ReadError),
    /// A cursor was moved by hand: the connection begins anew from there.
    #[error("the uplink's cursor of {0} was moved by hand")]
    Moved(String),
}

/// A request's body.
pub(super) type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// A request without a body.
pub(super) fn empty() -> Body {
    Empty::new().boxed_unsync()
}

/// A request with a body that is known whole.
pub(super) fn full(bytes: Vec<u8>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// Where the gateway is and how we prove who we are.
#[derive(Debug, Clone)]
pub(super) struct Target {
    https: bool,
    host: String,
    port: u16,
    authority: String,
    prefix: String,
    tls: ClientTls,
    token_file: Option<std::path::PathBuf>,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Target {
    /// Its URL, without user name and password.
    pub(super) fn shown(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        bare(&format!("{scheme}://{}", self.authority)) + &self.prefix
    }

    pub(super) fn new(url: &str, tls: ClientTls, token_file: Option<std::path::PathBuf>) -> Result<Self, LinkError> {
        let bad = || LinkError::Url(bare(url));
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad()),
        };
        let authority = uri.authority().ok_or_else(bad)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self {
            https,
            host,
            port: authority.port_u16().unwrap_or(if https { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            tls,
            token_file,
        })
    }

    /// A request to the gateway. The token is read anew each time: it may have been replaced.
    pub(super) async fn request(
        &self,
        method: Method,
        path: &str,
        h2: bool,
        body: Body,
    ) -> Result<Request<Body>, LinkError> {
        let path = format!("{}{path}", self.prefix);
        let scheme = if self.https { "https" } else { "http" };
        let uri = if h2 { format!("{scheme}://{}{path}", self.authority) } else { path };
        let mut request = Request::builder().method(method).uri(uri).header(CONTENT_TYPE_HEADER, CONTENT_TYPE);
        if !h2 {
            request = request.header(HOST, &self.authority);
        }
        if let Some(file) = &self.token_file {
            let token = tokio::task::spawn_blocking({
                let file = file.clone();
                move || std::fs::read_to_string(file)
            });
            let token = token.await.unwrap_or_else(|e| Err(std::io::Error::other(e)));
            let token = token.map_err(|source| LinkError::Token { path: file.display().to_string(), source })?;
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.trim()));
        }
        request.body(body).map_err(|_| LinkError::Url(self.authority.clone()))
    }

    /// Opens the connection; with TLS, `alpn` is what must be spoken. Returns it with the time that TCP took.
    async fn open(&self, alpn: &'static [u8], silence: Duration) -> Result<(Box<dyn Io>, Duration), LinkError> {
        let to = || format!("{}:{}", self.host, self.port);
        let failed = |source| LinkError::Connect { to: to(), source };
        let start = Instant::now();
        let connecting = async {
            let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed)?;
            let took = start.elapsed();
            let socket = SockRef::from(&tcp);
            let _ = tcp.set_nodelay(true);
            let _ = socket.set_tcp_notsent_lowat(NOT_SENT_BYTES);
            // What is unacknowledged for so long will not be: the kernel ends the connection.
            let _ = socket.set_tcp_user_timeout(Some(silence));
            let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(silence));
            if !self.https {
                return Ok((Box::new(tcp) as Box<dyn Io>, took));
            }
            let config = self.tls.config(&[alpn])?;
            let name = rustls::pki_types::ServerName::try_from(self.host.clone())
                .map_err(|e| failed(std::io::Error::new(std::io::ErrorKind::InvalidInput, e)))?;
            let stream = TlsConnector::from(config).connect(name, tcp).await.map_err(|e| {
                let refused = e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
                match refused {
                    Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)) => {
                        LinkError::NoHttp2
                    }
                    _ => failed(e),
                }
            })?;
            if alpn == b"h2" && stream.get_ref().1.alpn_protocol() != Some(alpn) {
                return Err(LinkError::NoHttp2);
            }
            Ok((Box::new(stream) as Box<dyn Io>, took))
        };
        let timed_out = || failed(std::io::ErrorKind::TimedOut.into());
        tokio::time::timeout(CONNECT_TIME, connecting).await.map_err(|_| timed_out())?
    }

    /// Opens an HTTP/2 connection, run by a task in `tasks`.
    pub(super) async fn http2(
        &self,
        silence: Duration,
        tasks: &mut JoinSet<()>,
    ) -> Result<(http2::SendRequest<Body>, Duration), LinkError> {
        let (io, round_trip) = self.open(b"h2", silence).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .max_send_buf_size(SEND_BUFFER)
            .initial_stream_window_size(64 << 10)
            .initial_connection_window_size(128 << 10)
            .handshake(TokioIo::new(io))
            .await?;
        tasks.spawn(async move {
            if let Err(e) = connection.await {
                tracing::debug!("the connection to the gateway: {e}");
            }
        });
        Ok((sender, round_trip))
    }

    /// Opens an HTTP/1.1 connection, run by a task in `tasks`.
    pub(super) async fn http1(
        &self,
        silence: Duration,
        tasks: &mut JoinSet<()>,
    ) -> Result<http1::SendRequest<Body>, LinkError> {
        let (io, _) = self.open(b"http/1.1", silence).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(io)).await?;
        tasks.spawn(async move {
            if let Err(e) = connection.await {
                tracing::debug!("the connection to the gateway: {e}");
            }
        });
        Ok(sender)
    }
}

/// The answer's body if its status is a good one.
pub(super) async fn checked(response: http::Response<hyper::body::Incoming>) -> Result<hyper::body::Incoming, LinkError> {
    let (head, body) = response.into_parts();
    if head.status == StatusCode::OK {
        return Ok(body);
    }
    let text = tokio::time::timeout(Duration::from_secs(5), http_body_util::Limited::new(body, 4096).collect()).await;
    let text = text.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text: String = String::from_utf8_lossy(&text).trim().chars().filter(|c| !c.is_control()).take(200).collect();
    Err(LinkError::Status { status: head.status, text })
}

/// Shared by all who connect.
pub(super) type SharedTarget = Arc<Target>;
