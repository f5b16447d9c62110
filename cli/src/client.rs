//! The HTTP client: one HTTP/1.1 connection that is kept open and made anew when the server has closed it.
//!
//! Its errors say what to do next, and decide the exit code: a server that cannot be reached is another matter than one that
//! says no.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use godwit_mesh::door::ClientTls;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use thiserror::Error;
use tokio::net::TcpStream;
use url::Url;

/// An agent's address unless said otherwise.
pub(crate) const DEFAULT_AGENT: &str = "http://127.0.0.1:8080";

/// A gateway's address unless said otherwise.
pub(crate) const DEFAULT_GATEWAY: &str = "http://127.0.0.1:8090";

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest answer that is read whole.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Which server, and how to get in.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServerArgs {
    /// URL of the agent or gateway [default: http://127.0.0.1:8080, for `get agents` port 8090]
    #[arg(long, global = true, value_name = "URL", env = "GODWIT_SERVER")]
    server: Option<Url>,
    /// File with the token to show (or set GODWIT_TOKEN to the token itself)
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with certificates (PEM) to trust in place of the system's
    #[arg(long, global = true, value_name = "FILE", env = "GODWIT_CA_FILE")]
    ca_file: Option<PathBuf>,
}

/// Why a request came to nothing.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    #[error(
        "cannot reach {server}: {why}. Is it running? `godwit dev` starts an agent and a gateway here; --server names another"
    )]
    Unreachable { server: String, why: String },
    #[error("{server} does not prove who it is: {why}. --ca-file names certificates to trust: its authority's, or its own")]
    Untrusted { server: String, why: String },
    #[error("the connection to {server} broke: {why}")]
    Broken { server: String, why: String },
    #[error(
        "{server} wants credentials ({status}): {why}. Give a token by --token-file or GODWIT_TOKEN; `godwit token` makes one"
    )]
    Denied { server: String, status: StatusCode, why: String },
    #[error("{server} answered {status}: {why}")]
    Refused { server: String, status: StatusCode, why: String },
}

/// The command was given something that cannot be meant.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// The exit code for an error.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<Usage>() {
        return ExitCode::from(2);
    }
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Unreachable { .. }) => ExitCode::from(3),
        Some(ClientError::Denied { .. }) => ExitCode::from(4),
        _ => ExitCode::FAILURE,
    }
}

/// Whether the error is only that nobody reads our output any more.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// A connection to one server.
#[derive(Debug)]
pub(crate) struct Client {
    server: Url,
    host: String,
    port: u16,
    token: Option<HeaderValue>,
    tls: ClientTls,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl ServerArgs {
    /// A client for the server given, or for `default`.
    pub(crate) fn client(&self, default: &str) -> anyhow::Result<Client> {
        let server = match &self.server {
            Some(server) => server.clone(),
            None => Url::parse(default).context("the default server")?,
        };
        if !matches!(server.scheme(), "http" | "https") {
            return Err(Usage(format!("--server {server}: only http:// and https:// are spoken")).into());
        }
        let host = server.host_str().with_context(|| format!("--server {server} names no host"))?.to_owned();
        let port = server.port_or_known_default().context("--server names no port")?;
        let token = self
            .token()?
            .map(|token| HeaderValue::try_from(format!("Bearer {token}")).context("the token has characters no token has"))
            .transpose()?;
        Ok(Client { server, host, port, token, tls: self.trust(), open: None })
    }

    /// The server given.
    pub(crate) fn server(&self) -> Option<&str> {
        self.server.as_ref().map(Url::as_str)
    }

    /// The token to show, from the file or the environment.
    pub(crate) fn token(&self) -> anyhow::Result<Option<String>> {
        let token = match &self.token_file {
            Some(path) => {
                Some(std::fs::read_to_string(path).with_context(|| format!("reading the token from {}", path.display()))?)
            }
            None => std::env::var("GODWIT_TOKEN").ok().filter(|token| !token.is_empty()),
        };
        Ok(token.map(|token| token.trim().to_owned()))
    }

    /// Whom to trust. The file is found also from another folder.
    pub(crate) fn trust(&self) -> ClientTls {
        let file = self.ca_file.as_ref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
        ClientTls::new(file.as_deref())
    }
}

impl Client {
    /// The server's URL without a slash at its end.
    pub(crate) fn server(&self) -> &str {
        self.server.as_str().trim_end_matches('/')
    }

    /// A second client of the same server with a connection of its own.
    pub(crate) fn another(&self) -> Self {
        Self {
            server: self.server.clone(),
            host: self.host.clone(),
            port: self.port,
            token: self.token.clone(),
            tls: self.tls.clone(),
            open: None,
        }
    }

    /// Sends a request and returns the answer's head with the body still to come, whatever its status.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] and [`ClientError::Broken`].
    pub(crate) async fn request(
        &mut self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let request = self
            .build(method, path, headers, body)
            .map_err(|e| ClientError::Broken { server: self.server().to_owned(), why: e.to_string() })?;
        let mut open = self.open.take();
        if let Some(sender) = &mut open
            && sender.ready().await.is_err()
        {
            open = None;
        }
        let mut sender = match open {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let mut answer = sender.try_send_request(request).await;
        // A server may close an idle connection just as we use it; what it has not seen at all is sent again.
        if let Err(unsent) = &mut answer
            && let Some(request) = unsent.take_message()
        {
            sender = self.connect().await?;
            answer = sender.try_send_request(request).await;
        }
        match answer {
            Ok(answer) => {
                self.open = Some(sender);
                Ok(answer)
            }
            Err(e) => Err(ClientError::Broken { server: self.server().to_owned(), why: cause(e.error()) }),
        }
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// [`ClientError`]; any status but 2xx is one.
    pub(crate) async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<(HeaderMap, Bytes), ClientError> {
        let answer = self.request(method, path, headers, body).await?;
        let answer = self.accepted(answer).await?;
        let (head, body) = answer.into_parts();
        let whole = Limited::new(body, MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|e| ClientError::Broken { server: self.server().to_owned(), why: e.to_string() })?;
        Ok((head.headers, whole.to_bytes()))
    }

    /// Passes an answer on if its status is 2xx, else turns its body into the error.
    ///
    /// # Errors
    /// [`ClientError::Denied`] and [`ClientError::Refused`].
    pub(crate) async fn accepted(&self, answer: Response<Incoming>) -> Result<Response<Incoming>, ClientError> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = Limited::new(answer.into_body(), 64 << 10).collect().await;
        let body = body.map_or_else(|_| Bytes::new(), http_body_util::Collected::to_bytes);
        let (server, why) = (self.server().to_owned(), reason(status, &body));
        Err(if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            ClientError::Denied { server, status, why }
        } else {
            ClientError::Refused { server, status, why }
        })
    }

    /// A request with a JSON body, if any, and a JSON answer.
    ///
    /// # Errors
    /// [`ClientError`], or what is wrong with the answer.
    pub(crate) async fn json(&mut self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let body = match body {
            Some(body) => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Bytes::from(serde_json::to_vec(body)?)
            }
            None => Bytes::new(),
        };
        let (_, answer) = self.exchange(method, path, &headers, body).await?;
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer).with_context(|| format!("{}{path} did not answer with JSON", self.server()))
    }

    fn build(
        &self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let prefix = self.server.path().trim_end_matches('/');
        let host = match self.server.port() {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        };
        let mut request = Request::builder().method(method).uri(format!("{prefix}{path}")).header(header::HOST, host);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token.clone());
        }
        request = request.header(header::USER_AGENT, concat!("godwit/", env!("CARGO_PKG_VERSION")));
        let mut request = request.body(Full::new(body))?;
        request.headers_mut().extend(headers.clone());
        Ok(request)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let unreachable = |why: String| ClientError::Unreachable { server: self.server().to_owned(), why };
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let connect = TcpStream::connect((host, self.port));
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_| unreachable("no answer within 10 s".to_owned()))?
            .map_err(|e| unreachable(e.to_string()))?;
        let _ = stream.set_nodelay(true);
        if self.server.scheme() == "http" {
            return start(TokioIo::new(stream)).await.map_err(|e| unreachable(cause(&e)));
        }
        let config = self.tls.config(&[b"http/1.1"]).map_err(|e| unreachable(e.to_string()))?;
        let name = rustls_pki_types::ServerName::try_from(host.to_owned()).map_err(|e| unreachable(e.to_string()))?;
        let untrusted = |why: std::io::Error| match why.kind() {
            std::io::ErrorKind::InvalidData => {
                ClientError::Untrusted { server: self.server().to_owned(), why: why.to_string() }
            }
            _ => unreachable(why.to_string()),
        };
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.map_err(untrusted)?;
        start(TokioIo::new(stream)).await.map_err(|e| unreachable(cause(&e)))
    }
}

async fn start<T>(io: T) -> hyper::Result<SendRequest<Full<Bytes>>>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    // The task ends with the sender; what goes wrong on the connection is told to whoever waits for an answer.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// The message in an error answer: `message` or `error` of a JSON object, else the text itself.
fn reason(status: StatusCode, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let object = serde_json::from_slice::<Value>(body).ok();
    let member = |name| object.as_ref().and_then(|o| o.get(name)).and_then(Value::as_str).map(str::to_owned);
    let why = member("message").or_else(|| member("error")).unwrap_or_else(|| text.trim().to_owned());
    let why = if why.is_empty() { status.canonical_reason().unwrap_or("no reason given").to_owned() } else { why };
    crate::output::printable(&why)
}

fn cause(error: &hyper::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}
