//! The server: accepts, limits, serves, and stops without breaking what it had begun.
//!
//! Every connection is a task of its own, owned by a tracker; HTTP/1.1 and HTTP/2 (prior knowledge or ALPN) come to the same
//! port, and hyper speaks both, but for the plainest of requests (see `lane`). Once a second a sweep closes what is overdue (see `connection`). With all places taken a newcomer gets that of the
//! connection that has been idle, or has stalled, for longest (see `crowd`), so that such peers never shut others out. Shutdown: no new connections, requests
//! in flight are answered within the drain time, then what is left is cut.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::request::Parts;
use http::{StatusCode, header};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{InFlight, Peer, Stream, StreamKind, Watch};
use super::crowd::{Crowd, EACH_STREAM_BYTES, Unfinished};
use super::ingress::{ACCEPTED, ALLOWED, Begun, Ingress};
use super::lane::{self, Lane};
use super::metrics::{Counter, Gauge, Metrics};
use super::request::{RequestBody, Unread};
use super::router::{Found, nothing};
use super::{Door, Limits, Request, Response, Router, respond};
use crate::door::ServerTls;
use crate::room::Room;

/// How often connections are looked over.
const SWEEP: Duration = Duration::from_secs(1);

/// How long to wait when the system has no more file descriptors: accepting at once again would only burn time.
const NO_DESCRIPTORS_PAUSE: Duration = Duration::from_millis(100);

/// A silent peer is asked for a sign of life after this long, so that a tail to a machine that is gone does not stay for ever.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// A listener cannot be opened.
#[derive(Debug, Error)]
#[error("cannot listen on {addr}: {source}{}", hint(source))]
pub struct BindError {
    /// Where.
    pub addr: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another process has this port: stop it, or choose another port with `listen`)",
        io::ErrorKind::PermissionDenied => {
            " (ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one with `listen`)"
        }
        io::ErrorKind::AddrNotAvailable => " (this machine has no such address)",
        _ => "",
    }
}

/// What a server counts.
#[derive(Debug, Clone)]
pub struct ServerMetrics {
    connections: Gauge,
    accepted: Counter,
    closed_overdue: Counter,
    evicted: Counter,
    refused: Counter,
    by_class: [Counter; 5],
}

impl ServerMetrics {
    /// Registers the server's counters.
    #[must_use]
    pub fn register(metrics: &Metrics) -> Self {
        let requests = |class| {
            metrics.counter("godwit_http_requests", "HTTP requests answered, by class of status.", &[("class", class)])
        };
        Self {
            connections: metrics.gauge("godwit_http_connections", "HTTP connections now open.", &[]),
            accepted: metrics.counter("godwit_http_connections_accepted", "HTTP connections accepted.", &[]),
            closed_overdue: metrics.counter(
                "godwit_http_connections_overdue",
                "HTTP connections closed because they were idle or too slow.",
                &[],
            ),
            evicted: metrics.counter(
                "godwit_http_connections_evicted",
                "HTTP connections closed to make room for others: idle or stalled for longest.",
                &[],
            ),
            refused: metrics.counter(
                "godwit_http_connections_refused",
                "HTTP connections refused because all places were taken.",
                &[],
            ),
            by_class: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(requests),
        }
    }

    fn count(&self, status: StatusCode) {
        if let Some(counter) = self.by_class.get(usize::from(status.as_u16() / 100).wrapping_sub(1)) {
            counter.add(1);
        }
    }
}

/// A bound listener.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    addr: SocketAddr,
    tls: Option<ServerTls>,
    limits: Arc<Limits>,
}

/// What all connections of a server share.
pub(super) struct Shared {
    pub(super) router: Router,
    door: Door,
    limits: Arc<Limits>,
    room: Arc<Room>,
    metrics: ServerMetrics,
    http: auto::Builder<Tracked>,
    start: Instant,
    tasks: TaskTracker,
    pub(super) shutdown: CancellationToken,
    crowd: Arc<Crowd>,
    next: AtomicU64,
    date: Mutex<Date>,
}

/// The time for `Date` headers.
#[derive(Default)]
struct Date {
    second: u64,
    text: Arc<str>,
    /// The whole answer to an event that is durable.
    accepted: Arc<str>,
}

/// A request that has been begun in the quick way.
pub(super) struct Quick {
    ingress: Arc<Ingress>,
    begun: Begun,
    in_flight: InFlight,
}

/// Runs the tasks of HTTP/2 streams under the server's tracker.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

impl Server {
    /// Binds a listener; the port is open from here on. Apply [`crate::door::ListenerRule`] first.
    ///
    /// # Errors
    /// [`BindError`] says what to do.
    pub async fn bind(addr: SocketAddr, tls: Option<ServerTls>, limits: Limits) -> Result<Self, BindError> {
        let fail = |source| BindError { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(fail)?;
        let addr = listener.local_addr().map_err(fail)?;
        Ok(Self { listener, addr, tls, limits: Arc::new(limits.lawful()) })
    }

    /// Where it listens: the port that the system chose if 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `shutdown` is cancelled and what was in flight has been answered or has run out of time.
    pub async fn serve(self, router: Router, door: Door, metrics: ServerMetrics, shutdown: CancellationToken) {
        let tasks = TaskTracker::new();
        let shared = Arc::new(Shared {
            router,
            door,
            http: protocols(&self.limits, Tracked(tasks.clone())),
            limits: self.limits.clone(),
            room: Arc::new(Room::new(self.limits.bodies_bytes)),
            crowd: Arc::new(Crowd::new(&self.limits, metrics.evicted.clone())),
            metrics,
            start: Instant::now(),
            tasks,
            shutdown,
            next: AtomicU64::new(0),
            date: Mutex::default(),
        });
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((tcp, addr)) => shared.admit(tcp, addr, self.tls.clone()),
                    Err(e) if of_one_connection(&e) => {}
                    Err(e) => {
                        tracing::warn!(addr = %self.addr, "cannot accept HTTP connections for a moment: {e}");
                        tokio::time::sleep(NO_DESCRIPTORS_PAUSE).await;
                    }
                },
                _ = sweep.tick(), if !shared.crowd.is_empty() => shared.sweep(),
                () = shared.shutdown.cancelled() => break,
            }
        }
        drop(self.listener);
        shared.tasks.close();
        if tokio::time::timeout(self.limits.drain, shared.tasks.wait()).await.is_err() {
            tracing::warn!(addr = %self.addr, "some HTTP connections did not end in time and are cut");
            shared.crowd.end_where(|_| true);
        }
    }
}

/// An error of the connection that was to be accepted, not of the listener.
fn of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn protocols(limits: &Limits, executor: Tracked) -> auto::Builder<Tracked> {
    let mut builder = auto::Builder::new(executor);
    builder
        .http1()
        .max_buf_size(limits.header_bytes)
        .max_headers(limits.headers)
        // The sweep keeps the time, without a timer for each connection.
        .header_read_timeout(None);
    builder
        .http2()
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(16 << 10)
        .max_frame_size(16 << 10);
    builder
}

impl Shared {
    /// Gives a new connection a place and a task, or drops it.
    fn admit(self: &Arc<Self>, tcp: TcpStream, addr: SocketAddr, tls: Option<ServerTls>) {
        self.metrics.accepted.add(1);
        let _ = tcp.set_nodelay(true);
        let _ = SockRef::from(&tcp).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE));
        let watch = Watch::new(self.start);
        let peer = Arc::new(Peer {
            addr,
            limits: self.limits.clone(),
            room: self.room.clone(),
            shutdown: self.shutdown.clone(),
            credentials: self.door.credentials.clone(),
            watch,
            crowd: self.crowd.clone(),
        });
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let admitted = self.crowd.admit(id, peer.clone(), self.limits.connections, || {
            self.metrics.connections.add(1);
            let place = Place { shared: self.clone(), id };
            self.tasks.spawn(connection(place, tcp, peer, tls)).abort_handle()
        });
        if !admitted {
            self.metrics.refused.add(1);
        }
    }

    /// Closes what is overdue.
    fn sweep(&self) {
        self.crowd.end_where(|peer| {
            let overdue = peer.watch.overdue(&self.limits);
            if let Some(why) = overdue {
                tracing::debug!(peer = %peer.addr, why, "closing an HTTP connection");
                self.metrics.closed_overdue.add(1);
            }
            overdue.is_some()
        });
    }

    /// The time for `Date` headers, written once a second.
    pub(super) fn date(&self) -> Arc<str> {
        self.dated(|date| date.text.clone())
    }

    /// The answer to an event that is durable.
    pub(super) fn accepted(&self) -> Arc<str> {
        self.dated(|date| date.accepted.clone())
    }

    fn dated<T>(&self, take: impl FnOnce(&Date) -> T) -> T {
        let now = SystemTime::now();
        let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut date = self.date.lock().unwrap_or_else(PoisonError::into_inner);
        if date.second != second || date.text.is_empty() {
            let text = httpdate::fmt_http_date(now);
            *date = Date { second, accepted: format!("{ACCEPTED}{text}\r\n\r\n").into(), text: text.into() };
        }
        take(&date)
    }

    /// Begins a `POST` of HTTP/1.1 that came whole, in the ingress's quick way. `None`: nothing has happened, and it must be
    /// answered by [`Shared::answer`].
    pub(super) fn begin(
        &self,
        path: &str,
        headers: &[httparse::Header<'_>],
        body: &[u8],
        peer: &Arc<Peer>,
    ) -> Option<Quick> {
        let ingress = self.router.ingress_for(path).filter(|_| self.door.stands_open(headers))?;
        let begun = ingress.begin(path, headers, body)?;
        Some(Quick { ingress: ingress.clone(), begun, in_flight: InFlight::begin(peer, http::Version::HTTP_11) })
    }

    /// Waits until what was begun is durable.
    ///
    /// # Errors
    /// The answer, where it is another than [`Shared::accepted`].
    pub(super) async fn finish(&self, quick: Quick) -> Result<(), Response> {
        let done = quick.ingress.finish(quick.begun).await;
        self.metrics.count(done.as_ref().map_or_else(http::Response::status, |()| StatusCode::ACCEPTED));
        drop(quick.in_flight);
        done
    }

    /// Answers one request.
    pub(super) async fn answer(&self, head: Parts, body: RequestBody, peer: Arc<Peer>) -> Response {
        let in_flight = InFlight::begin(&peer, head.version);
        let mut waiting = (head.version == http::Version::HTTP_2).then(|| Unfinished::new(&peer));
        let mut response = self.route(head, body, peer).await;
        self.metrics.count(response.status());
        // Over HTTP/2 a peer may ask much and give no window for any of the answers.
        let whole = response.body().whole().map_or(0, <[u8]>::len);
        waiting.iter_mut().filter(|_| whole > 0).for_each(|waiting| waiting.set(EACH_STREAM_BYTES + whole));
        response.body_mut().hold(in_flight, waiting);
        response
    }

    async fn route(&self, head: Parts, body: RequestBody, peer: Arc<Peer>) -> Response {
        let found = self.router.find(&head.method, head.uri.path());
        let open = matches!(found, Found::Handler(_, _, true));
        let of_ingress = matches!(found, Found::Handler(_, None, _)) && self.router.has_ingress();
        let refused = |mut response: Response| {
            if of_ingress {
                response.headers_mut().insert(header::ALLOW, ALLOWED); // D1: on every answer
            }
            response
        };
        let identity = match self.door.admit(&head, open).await {
            Ok(identity) => identity,
            Err(response) => return refused(response),
        };
        if let Some(coding) = unknown_coding(&head.headers) {
            return refused(respond::closing(respond::problem(
                StatusCode::NOT_IMPLEMENTED,
                format_args!("the body has the transfer coding {coding}: only chunked is taken here"),
            )));
        }
        match found {
            Found::Handler(handler, route, _) => {
                handler(Request { head, body, identity, peer, route: route.cloned(), room: None }).await
            }
            Found::WrongMethod(allowed) => respond::not_allowed(&head.method, allowed),
            Found::Nothing => nothing(head.uri.path()),
        }
    }
}

/// A transfer coding other than chunked: kept as it is, coded data would reach subscribers without the word that says so
/// (RFC 9112, 6.1).
fn unknown_coding(headers: &http::HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut codings = all.flat_map(|value| value.to_str().unwrap_or("in no letters").split(',')).map(str::trim);
    codings.find(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("chunked"))
}

/// A connection's place in the list, given back when its task ends or is cut.
struct Place {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.metrics.connections.add(-1);
        self.shared.crowd.remove(self.id);
    }
}

/// One connection from the handshake to its end.
async fn connection(place: Place, tcp: TcpStream, peer: Arc<Peer>, tls: Option<ServerTls>) {
    let shared = &place.shared;
    let (kind, before) = match tls {
        None => match Lane::new(shared, &peer, tcp).run().await {
            Ok(lane::Left::Closed) => return,
            Ok(lane::Left::Other(tcp, before)) => (StreamKind::Plain(tcp), before),
            Err(why) => {
                tracing::debug!(peer = %peer.addr, "HTTP connection: {why}");
                return;
            }
        },
        Some(tls) => match tls.accept(tcp).await {
            Ok(stream) => (StreamKind::Tls(Box::new(stream)), Bytes::new()),
            Err(why) => {
                tracing::debug!(peer = %peer.addr, "TLS handshake: {why}");
                return;
            }
        },
    };
    let stream = TokioIo::new(Stream { kind, before, instead: Bytes::new(), peer: peer.clone() });
    let service = service_fn(|request: http::Request<Incoming>| {
        let (shared, peer) = (place.shared.clone(), peer.clone());
        let (head, body) = request.into_parts();
        // Over HTTP/1.1 hyper sees to the rest itself.
        let rest = (head.version == http::Version::HTTP_2).then(|| (shared.tasks.clone(), Unfinished::new(&peer)));
        let body = Unread::new(body, rest);
        async move { Ok::<_, Infallible>(shared.answer(head, RequestBody::Incoming(body), peer).await) }
    });
    let mut serving = std::pin::pin!(shared.http.serve_connection(stream, service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = shared.shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(why) = ended {
        tracing::debug!(peer = %peer.addr, "HTTP connection: {why}");
    }
}
