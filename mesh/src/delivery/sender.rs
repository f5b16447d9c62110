//! One event, one HTTP request (D11, D17).
//!
//! Connections are kept and shared by all Triggers; HTTP/1.1, and HTTP/2 where a server with `https` offers it. Redirects are
//! not followed (D12). Answers are read up to a limit and within the attempt's time, whatever the receiver sends.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::endpoint::Endpoint;
use super::handshake;
use super::outcome::{Cause, Failure, MAX_DETAIL_BYTES};
use super::pool::{Answered, Pool};
use super::tokens::Tokens;
use super::triggers::DeliverySettings;
use crate::clock::Clock;
use crate::door::{self, ClientTls, TlsError};
use crate::event::{self, Event, StoredEvent};
use crate::manifest::Format;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections cost both ends memory: few, and not for long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// As many as one Trigger may use at a time: fewer, and they are made anew for every event.
const IDLE_PER_HOST: usize = 256;
/// Largest head of an answer, and the size up to which a connection's buffer grows.
const MAX_BUFFER: usize = 64 << 10;
/// Room for answers on one HTTP/2 stream and connection.
const WINDOW: u32 = 64 << 10;

/// Clients kept for destinations that bring certificates; one more takes the place of the one that was used longest ago.
const MAX_OWN: usize = 32;

type Secure = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Sends events. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sender(Arc<Inner>);

struct Inner {
    plain: Pool,
    /// Made when the first URL with `https` comes: the roots cost memory that a board without any need not spend.
    secure: OnceLock<Secure>,
    /// Those for destinations that bring certificates of their own, by these; the last used last.
    own: Mutex<Vec<(Arc<str>, Secure)>>,
    tokens: Tokens,
    tls: ClientTls,
    clock: Clock,
    max_answer_bytes: usize,
}

/// How one request is sent.
#[derive(Debug)]
pub(crate) struct Letter<'a> {
    pub(crate) url: &'a Endpoint,
    pub(crate) event: &'a Event,
    /// Events that go in place of the one, together.
    pub(crate) batch: Option<&'a [Event]>,
    /// Headers that came with the event (D17).
    pub(crate) headers: &'a HeaderMap,
    pub(crate) format: Option<Format>,
    pub(crate) timeout: Duration,
    pub(crate) namespace: &'a str,
    /// Whether an answer may be a reply.
    pub(crate) reply: bool,
}

/// A 2xx answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl Sender {
    /// A sender that knows whom to trust, which tokens to show, and how large an answer may be.
    pub(crate) fn new(settings: &DeliverySettings) -> Self {
        let plain = Pool::new(connector());
        Self(Arc::new(Inner {
            plain,
            secure: OnceLock::new(),
            own: Mutex::default(),
            tokens: Tokens::new(settings.tokens.clone()),
            tls: settings.tls.clone(),
            clock: settings.clock.clone(),
            max_answer_bytes: settings.max_event_bytes,
        }))
    }

    /// Sends what the letter says and reads the answer.
    pub(crate) async fn post(&self, letter: &Letter<'_>) -> Result<Answer, Failure> {
        let wrong = |why| Failure::new(Cause::Status(400), &letter.url.shown, why, Vec::new());
        self.send(letter.url, letter.timeout, letter.reply, request(letter).map_err(wrong)?).await
    }

    /// Sends a request and reads the answer within `timeout`; `reply` says whether that may be one. Where the subscriber allows only
    /// so many requests, waits for its turn first.
    pub(crate) async fn send(
        &self,
        url: &Endpoint,
        timeout: Duration,
        reply: bool,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, Failure> {
        if let Some(handshake) = &url.handshake {
            let now = self.0.clock.elapsed_ms();
            let at = handshake.turn(now);
            if at > now {
                self.0.clock.sleep_until(at).await;
            }
        }
        match tokio::time::timeout(timeout, self.exchange(url, reply, request)).await {
            Ok(Ok((outcome, mut body))) => {
                body.finish(timeout).await;
                outcome
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => {
                let why = format!("no complete answer within {:.1} s", timeout.as_secs_f64());
                Err(Failure::no_response(&url.shown, &why))
            }
        }
    }

    /// What the answer says, and what is left of its body.
    async fn exchange(
        &self,
        url: &Endpoint,
        reply: bool,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Result<Answer, Failure>, Answered), Failure> {
        let destination = &*url.shown;
        let token = self.0.tokens.header(url, &self.0.clock);
        if let Some(token) = token.map_err(|why| Failure::no_response(destination, &why))? {
            // A user and password in the URL are for this one destination, and go before.
            request.headers_mut().entry(AUTHORIZATION).or_insert(token);
        }
        if let Some(handshake) = &url.handshake {
            let authorization = request.headers().get(AUTHORIZATION).cloned();
            Box::pin(self.consent(url, handshake, authorization.as_ref()))
                .await
                .map_err(|why| Failure::no_response(destination, &format!("{destination}: {why}")))?;
            let origin = HeaderValue::from_str(&handshake.origin);
            request.headers_mut().extend(origin.ok().map(|origin| (handshake::ORIGIN, origin)));
        }
        let response = self.request(url, request).await.map_err(|why| Failure::no_response(destination, &why))?;
        let gone = response.status() == StatusCode::GONE && url.handshake.is_some();
        let (head, mut body) = response.into_parts();
        let outcome = self.read(head, &mut body, reply, destination).await.map_err(|failure| match gone {
            true => Failure { cause: Cause::Gone, ..failure },
            false => failure,
        });
        Ok((outcome, body))
    }

    /// Asks the subscriber for its consent, unless it has been given.
    async fn consent(
        &self,
        endpoint: &Endpoint,
        handshake: &handshake::Handshake,
        authorization: Option<&HeaderValue>,
    ) -> Result<(), String> {
        let clock = &self.0.clock;
        if handshake.has_consent(clock.elapsed_ms()) {
            return Ok(());
        }
        let _asking = handshake.asking.lock().await;
        if handshake.has_consent(clock.elapsed_ms()) {
            return Ok(());
        }
        let request = handshake.ask(&endpoint.uri, authorization)?;
        let response = self.request(endpoint, request).await?;
        handshake.answered(response.headers(), clock.elapsed_ms())
    }

    async fn request(&self, endpoint: &Endpoint, request: Request<Full<Bytes>>) -> Result<Response<Answered>, String> {
        if endpoint.scheme() != "https" {
            return self.0.plain.request(endpoint, request).await;
        }
        let client = match &endpoint.ca_certs {
            None => self.secure()?.clone(),
            Some(pem) => self.with_own(pem)?,
        };
        let response = Box::pin(client.request(request)).await.map_err(|e| chain(&e))?;
        Ok(response.map(Answered::alone))
    }

    async fn read(
        &self,
        head: http::response::Parts,
        body: &mut Answered,
        reply: bool,
        destination: &str,
    ) -> Result<Answer, Failure> {
        if !head.status.is_success() {
            // What has come of the body is enough to say what went wrong; how it ends does not matter.
            let (detail, _) = read_body(body, MAX_DETAIL_BYTES).await;
            let message = format!("{destination} answered {}", head.status);
            let mut failure = Failure::new(Cause::Status(head.status.as_u16()), destination, message, detail.to_vec());
            failure.retry_after = self.retry_after(head.status, &head.headers);
            return Err(failure);
        }
        if !reply {
            // Nobody wants it; where it has come already the connection can be used again.
            let _ = read_body(body, MAX_BUFFER).now_or_never();
            return Ok(Answer { status: head.status, headers: head.headers, body: Bytes::new() });
        }
        match read_body(body, self.0.max_answer_bytes).await {
            (body, End::Whole) => Ok(Answer { status: head.status, headers: head.headers, body }),
            (start, End::Longer) => {
                let message = format!("{destination} answered with more than {} bytes", self.0.max_answer_bytes);
                Err(Failure::new(Cause::BadReply, destination, message, start.to_vec()))
            }
            (_, End::Broken(why)) => Err(Failure::no_response(destination, &format!("the answer broke off: {why}"))),
        }
    }

    /// D15: a number of seconds or a date, on 429 and 503 only.
    fn retry_after(&self, status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
        if !matches!(status.as_u16(), 429 | 503) {
            return None;
        }
        let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = value.parse::<u64>() {
            return Some(Duration::from_secs(seconds));
        }
        let at = http_date(value)?;
        Some(Duration::from_millis(at.saturating_sub(self.0.clock.wall_ms()?)))
    }

    fn secure(&self) -> Result<&Secure, String> {
        if let Some(client) = self.0.secure.get() {
            return Ok(client);
        }
        let client = self.0.tls.config(&[]).and_then(|config| secure_client(&config)).map_err(|e| e.to_string())?;
        Ok(self.0.secure.get_or_init(|| client))
    }

    /// The client that trusts these certificates too.
    fn with_own(&self, pem: &Arc<str>) -> Result<Secure, String> {
        let mut own = self.0.own.lock().unwrap_or_else(PoisonError::into_inner);
        let known = own.iter().position(|(other, _)| other == pem).map(|at| own.remove(at));
        let (pem, client) = match known {
            Some(known) => known,
            None => {
                let client = self.0.tls.config_with(pem, &[]).and_then(|config| secure_client(&config));
                (pem.clone(), client.map_err(|e| e.to_string())?)
            }
        };
        if own.len() >= MAX_OWN {
            own.remove(0);
        }
        own.push((pem, client.clone()));
        Ok(client)
    }
}

fn secure_client(config: &Arc<rustls::ClientConfig>) -> Result<Secure, TlsError> {
    Ok(pooled().build(door::connector(connector(), Some(config))?))
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector
}

fn pooled() -> hyper_util::client::legacy::Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .http1_max_buf_size(MAX_BUFFER)
        .http2_initial_stream_window_size(WINDOW)
        .http2_initial_connection_window_size(WINDOW);
    builder
}

/// The request: the event in its form, and the headers around it.
fn request(letter: &Letter<'_>) -> Result<Request<Full<Bytes>>, String> {
    let form = match (letter.batch, letter.format) {
        (Some(events), _) => event::http::batch(events),
        (None, None) => event::http::deliver(letter.event),
        (None, Some(Format::Json)) => event::http::structured(letter.event),
        (None, Some(Format::Binary)) => event::http::binary(letter.event),
    };
    around(letter.url, form, letter.headers, letter.namespace, letter.reply)
}

/// A request with an event's `form`, headers and body, in it; the rest as in [`Letter`].
///
/// # Errors
/// Which header cannot be written.
pub(crate) fn around(
    url: &Endpoint,
    form: (HeaderMap, Bytes),
    passed: &HeaderMap,
    namespace: &str,
    reply: bool,
) -> Result<Request<Full<Bytes>>, String> {
    let (mut headers, body) = form;
    for (name, value) in passed {
        headers.append(name, value.clone());
    }
    if reply {
        headers.insert("prefer", HeaderValue::from_static("reply"));
    }
    headers.insert("kn-namespace", HeaderValue::from_str(namespace).map_err(|e| e.to_string())?);
    if let Some(authorization) = &url.authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.uri.clone();
    *request.headers_mut() = headers;
    Ok(request)
}

/// How a body ended.
enum End {
    Whole,
    Longer,
    Broken(String),
}

/// Reads at most `limit` bytes.
async fn read_body(body: &mut Answered, limit: usize) -> (Bytes, End) {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let frame = match body.frame().await {
            None => break,
            Some(Err(e)) => return (first, End::Broken(chain(&e))),
            Some(Ok(frame)) => frame,
        };
        let Ok(mut data) = frame.into_data() else { continue };
        if first.len().max(rest.len()) + data.len() > limit {
            data.truncate(limit - first.len().max(rest.len()));
            rest = if rest.is_empty() { BytesMut::from(&*first) } else { rest };
            rest.extend_from_slice(&data);
            return (rest.freeze(), End::Longer);
        }
        if first.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest = BytesMut::from(&*first);
            }
            rest.extend_from_slice(&data);
        }
    }
    (if rest.is_empty() { first } else { rest.freeze() }, End::Whole)
}

/// The headers that pass from an event to its subscriber and from an answer to the reply (D17).
pub(crate) fn passes(name: &str) -> bool {
    matches!(name, "x-request-id" | "retry-after") || name.starts_with("knative-") || name.starts_with("x-b3-")
}

/// The headers that came with a stored event.
pub(crate) fn headers_of(event: &StoredEvent) -> HeaderMap {
    event
        .headers()
        .filter(|(name, _)| passes(name))
        .filter_map(|(name, value)| Some((HeaderName::try_from(name).ok()?, HeaderValue::from_bytes(value).ok()?)))
        .collect()
}

/// An error with all that caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Milliseconds since 1970 of an HTTP date such as `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<u64> {
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let at = time::PrimitiveDateTime::parse(text, format).ok()?.assume_utc();
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d15_a_date_is_read_as_http_writes_it() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777_000));
        assert_eq!(http_date("tomorrow"), None);
    }

    #[test]
    fn d17_only_these_headers_pass() {
        for name in ["x-request-id", "retry-after", "knative-x", "x-b3-traceid"] {
            assert!(passes(name), "{name}");
        }
        for name in ["authorization", "cookie", "ce-id", "x-request", "kn-namespace", "traceparent"] {
            assert!(!passes(name), "{name}");
        }
    }
}
