//! The listener: sockets, the tasks of connections, and the clock's ticks.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use godwit_mesh::clock::Clock;
use godwit_mesh::door::{Credentials, ServerTls};
use godwit_mesh::http::metrics::Metrics;
use godwit_mesh::observe::Spans;
use serde_json::Value;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::handshake::shake;
use super::hub::Hub;
use super::limits::Limits;
use super::routes::Routes;
use super::session::Order;
use super::status::Counters;
use super::transport::Transport;

/// How often deadlines are looked at while the listener shuts down.
const TICK: Duration = Duration::from_millis(500);
/// Pause after accept failed (too many open files): what is open goes on.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long connections may take to end at shutdown, once the journal has said its last word.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// What a listener is made of.
#[derive(Debug)]
pub struct Settings {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// TLS, if this listener speaks it.
    pub tls: Option<ServerTls>,
    /// Who may come in; `None`: everybody.
    pub credentials: Option<Credentials>,
    /// What a client may cost.
    pub limits: Limits,
    /// The time.
    pub clock: Clock,
    /// Where publishes go.
    pub routes: Routes,
    /// Traces of what goes into Brokers.
    pub spans: Spans,
}

/// Why a listener could not be opened.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The address cannot be bound.
    #[error("MQTT cannot listen on {addr}: {source}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// An MQTT 3.1.1 and 5.0 listener.
#[derive(Debug)]
pub struct Listener {
    hub: Arc<Hub>,
    socket: TcpListener,
    addr: SocketAddr,
    tls: Option<ServerTls>,
}

/// A listener as `/status` and `/metrics` see it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle(pub(super) Arc<Hub>);

impl Handle {
    /// Connections, sessions and counters for `/status`.
    #[must_use]
    pub fn status(&self) -> Value {
        self.0.status()
    }

    /// What has been counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Open TCP connections.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// Adds the listener's counters to `/metrics`.
    pub fn register(&self, metrics: &Metrics) {
        let handle = self.clone();
        metrics.collect(move |samples| {
            for metric in handle.counters().each() {
                let label = metric.label;
                samples.counter(metric.name, metric.help, label.as_slice(), metric.value);
            }
            samples.gauge("godwit_mqtt_open_connections", "TCP connections open", &[], handle.open_connections());
        });
    }
}

impl Listener {
    /// Opens the socket. From here on the kernel takes connections, which are served by [`Listener::serve`]. The hand-shakes
    /// that were open when the agent last stopped are found again in the journals.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub async fn bind(settings: Settings) -> Result<Self, ListenError> {
        let Settings { listen, tls, credentials, limits, clock, routes, spans } = settings;
        let bind = |source| ListenError::Bind { addr: listen, source };
        let socket = TcpListener::bind(listen).await.map_err(bind)?;
        let addr = socket.local_addr().map_err(bind)?;
        let hub = Arc::new(Hub::new(limits, clock, routes, credentials, spans));
        Ok(Self { hub, socket, addr, tls })
    }

    /// The address that is listened on.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// For `/status` and `/metrics`.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.hub))
    }

    /// Serves until `shutdown`: then nothing more is taken, what was appended is acknowledged, and every connection ends.
    pub async fn serve(self, shutdown: CancellationToken) {
        let Self { hub, socket, addr, tls } = self;
        info!(%addr, tls = tls.is_some(), "MQTT is served");
        let connections = TaskTracker::new();
        let mut changes = hub.credentials.as_ref().map(Credentials::changes);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = socket.accept() => match accepted {
                    Ok((stream, peer)) => admit(&hub, &connections, tls.as_ref(), stream, peer, &shutdown),
                    Err(error) => {
                        warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                () = hub.time_to_look() => sweep(&hub, &connections),
                () = changed(&mut changes) => hub.revoke(),
            }
        }
        drop(socket);
        hub.order_all(Order::Shutdown);
        connections.close();
        let mut tick = tokio::time::interval(TICK);
        let ended = async {
            loop {
                tokio::select! {
                    () = connections.wait() => break,
                    _ = tick.tick() => { hub.sweep(); }
                }
            }
        };
        if tokio::time::timeout(SHUTDOWN_GRACE, ended).await.is_err() {
            warn!("MQTT connections are still open; leaving them");
        }
    }
}

/// Resolves when the credentials were read anew.
async fn changed(changes: &mut Option<watch::Receiver<()>>) {
    if let Some(changes) = changes
        && changes.changed().await.is_ok()
    {
        return;
    }
    // No credentials; else the sender is the listener's own, and does not go.
    std::future::pending::<()>().await;
}

/// Gives a connection its task.
fn admit(
    hub: &Arc<Hub>,
    connections: &TaskTracker,
    tls: Option<&ServerTls>,
    stream: TcpStream,
    peer: SocketAddr,
    shutdown: &CancellationToken,
) {
    if hub.open.load(Ordering::Relaxed) >= hub.limits.max_connections {
        // The one that goes gives its place back in a moment.
        if !hub.newcomers.evict() {
            hub.counters.too_many_connections.add(1);
            return;
        }
        hub.counters.evicted_connections.add(1);
    }
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "TCP_NODELAY");
    }
    let place = Place::take(hub);
    let (number, evicted) = hub.newcomers.add();
    let (hub, tls, shutdown) = (Arc::clone(hub), tls.cloned(), shutdown.clone());
    connections.spawn(async move {
        let _place = place;
        // Boxed, so that a connection that is served keeps nothing of it.
        let newcomer = hub.newcomers.guard(number);
        let met = Box::pin(async {
            tokio::select! {
                met = meet(&hub, tls, stream, peer, &shutdown) => met,
                _ = evicted => {
                    debug!(%peer, "closed without a CONNECT: others want its place");
                    None
                }
            }
        });
        let met = met.await;
        drop(newcomer);
        drop((hub, shutdown));
        if let Some(connection) = met {
            connection.run().await;
        }
    });
}

/// TLS and CONNECT, within the time allowed.
async fn meet(
    hub: &Arc<Hub>,
    tls: Option<ServerTls>,
    stream: TcpStream,
    peer: SocketAddr,
    shutdown: &CancellationToken,
) -> Option<Box<super::connection::Connection>> {
    let meeting = async {
        let transport = match tls {
            None => Transport::Tcp(stream),
            Some(tls) => Transport::Layered(Box::new(tls.accept(stream).await?)),
        };
        shake(hub, transport, peer).await
    };
    let met = tokio::select! {
        met = tokio::time::timeout(hub.limits.connect_timeout, meeting) => met,
        () = shutdown.cancelled() => return None,
    };
    match met {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(why)) => {
            debug!(%peer, %why, "no MQTT connection");
            None
        }
        Err(_) => {
            hub.counters.timeouts.add(1);
            debug!(%peer, "no CONNECT in time");
            None
        }
    }
}

/// One of the connections that may be open.
struct Place(Arc<Hub>);

impl Place {
    fn take(hub: &Arc<Hub>) -> Self {
        hub.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(hub))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Does what is due by the clock; what has to wait for the journal does so in a task of its own.
fn sweep(hub: &Arc<Hub>, tasks: &TaskTracker) {
    let due = hub.sweep();
    if due.wills.is_empty() && due.expired.is_empty() {
        return;
    }
    let hub = Arc::clone(hub);
    tasks.spawn(async move {
        for (session, will) in due.wills {
            hub.publish_will(&session, &will.will).await;
        }
        for session in due.expired {
            hub.expire(&session).await;
        }
    });
}
