//! Connections to subscribers without TLS, kept for the next event.
//!
//! As few steps as can be between a Trigger and a connection: each has one request at a time, and who has read its answer leaves it
//! here by letting go of the response. One that the other side has closed meanwhile is passed over, and a request that was not
//! begun to be sent on it goes on another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::service::Service as _;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::service::TowerToHyperService;
use tokio::time::Instant;

use super::sender::chain;

/// Idle connections cost both ends memory: not for long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// As many as one Trigger may use at a time: fewer, and they are made anew for every event.
const IDLE_PER_HOST: usize = 256;
/// Largest head of an answer, and the size up to which a connection's buffer grows.
const MAX_BUFFER: usize = 64 << 10;

type Connection = SendRequest<Full<Bytes>>;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Inner>);

struct Inner {
    connector: TowerToHyperService<HttpConnector>,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// By host and port; the last used last.
    hosts: HashMap<Box<str>, Vec<(Connection, Instant)>>,
    /// Whether a task closes those that are idle for too long.
    watched: bool,
}

/// A connection whose answer is being read; it is left to others when the last of these goes.
#[derive(Clone)]
struct Lease {
    _back: Arc<Back>,
}

struct Back {
    pool: Pool,
    host: Box<str>,
    connection: Mutex<Option<Connection>>,
}

impl Drop for Back {
    fn drop(&mut self) {
        let connection = self.connection.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(connection) = connection.filter(|connection| !connection.is_closed()) {
            self.pool.put(std::mem::take(&mut self.host), connection);
        }
    }
}

impl Pool {
    /// No connections yet; `connector` makes them.
    pub(crate) fn new(connector: HttpConnector) -> Self {
        Self(Arc::new(Inner { connector: TowerToHyperService::new(connector), idle: Mutex::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request whose URI is absolute. The connection is in use until the response is let go of.
    ///
    /// # Errors
    /// What went wrong, with all that caused it.
    pub(crate) async fn request(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String> {
        let uri = std::mem::take(request.uri_mut());
        let host =
            uri.authority().map(|a| a.as_str().rsplit('@').next().unwrap_or_default()).ok_or("the URL has no host")?;
        let host: Box<str> = host.into();
        if !request.headers().contains_key(HOST) {
            request.headers_mut().insert(HOST, HeaderValue::from_str(&host).map_err(|e| e.to_string())?);
        }
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(path);
        loop {
            let (mut connection, fresh) = match self.take(&host) {
                Some(connection) => (connection, false),
                // Boxed: it is seldom, and large.
                None => (Box::pin(self.connect(&uri)).await?, true),
            };
            if let Err(error) = connection.ready().await {
                if fresh {
                    return Err(chain(&error));
                }
                continue;
            }
            match connection.try_send_request(request).await {
                Ok(mut response) => {
                    let connection = Mutex::new(Some(connection));
                    let back = Back { pool: self.clone(), host, connection };
                    response.extensions_mut().insert(Lease { _back: Arc::new(back) });
                    return Ok(response);
                }
                Err(mut refused) => match refused.take_message() {
                    // Closed by the other side while it was idle: nothing of the request has gone.
                    Some(unsent) if !fresh => request = unsent,
                    _ => return Err(chain(&refused.into_error())),
                },
            }
        }
    }

    async fn connect(&self, uri: &Uri) -> Result<Connection, String> {
        let stream = self.0.connector.call(uri.clone()).await.map_err(|e| chain(&e))?;
        let handshake = http1::Builder::new().max_buf_size(MAX_BUFFER).handshake(stream).await;
        let (connection, driver) = handshake.map_err(|e| chain(&e))?;
        // It ends with the connection, and that ends with its handle.
        tokio::spawn(driver);
        Ok(connection)
    }

    fn take(&self, host: &str) -> Option<Connection> {
        let mut idle = self.lock();
        let list = idle.hosts.get_mut(host)?;
        while let Some((connection, _)) = list.pop() {
            if !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    fn put(&self, host: Box<str>, connection: Connection) {
        let mut idle = self.lock();
        let list = idle.hosts.entry(host).or_default();
        if list.len() >= IDLE_PER_HOST {
            list.remove(0);
        }
        list.push((connection, Instant::now()));
        if !std::mem::replace(&mut idle.watched, true) {
            let pool = Arc::downgrade(&self.0);
            drop(idle);
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn(async move {
                    loop {
                        tokio::time::sleep(IDLE_TIMEOUT).await;
                        let Some(pool) = pool.upgrade().map(Self) else { return };
                        if !pool.close_old() {
                            return;
                        }
                    }
                })),
                // The runtime is ending, and so do its connections.
                Err(_) => self.lock().hosts.clear(),
            }
        }
    }

    /// Closes what has been idle for too long. False when nothing is left.
    fn close_old(&self) -> bool {
        let mut idle = self.lock();
        for list in idle.hosts.values_mut() {
            list.retain(|(connection, since)| since.elapsed() < IDLE_TIMEOUT && !connection.is_closed());
        }
        idle.hosts.retain(|_, list| !list.is_empty());
        idle.watched = !idle.hosts.is_empty();
        idle.watched
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn pool() -> Pool {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        Pool::new(connector)
    }

    fn post(address: std::net::SocketAddr) -> Request<Full<Bytes>> {
        Request::post(format!("http://{address}/in?a=1")).body(Full::new(Bytes::from_static(b"x"))).expect("valid")
    }

    /// Answers so many requests on each connection, then closes it; gives what each connection got.
    async fn server(per_connection: usize) -> (std::net::SocketAddr, Arc<Mutex<Vec<Vec<String>>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, got) = (listener.local_addr().expect("bound"), Arc::<Mutex<Vec<Vec<String>>>>::default());
        let kept = got.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let number = {
                    let mut kept = kept.lock().expect("fine");
                    kept.push(Vec::new());
                    kept.len() - 1
                };
                let kept = kept.clone();
                tokio::spawn(async move {
                    for _ in 0..per_connection {
                        let mut request = Vec::new();
                        while !request.ends_with(b"\r\n\r\nx") {
                            if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                                return;
                            }
                        }
                        kept.lock().expect("fine")[number].push(String::from_utf8_lossy(&request).into_owned());
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                    }
                });
            }
        });
        (address, got)
    }

    async fn body(response: Response<Incoming>) -> Bytes {
        let (_head, body) = response.into_parts();
        body.collect().await.expect("an answer").to_bytes()
    }

    #[tokio::test]
    async fn a_connection_is_kept_for_the_next_request_and_one_that_was_closed_is_made_anew() {
        let (address, got) = server(3).await;
        let pool = pool();
        for _ in 0..7 {
            assert_eq!(&body(pool.request(post(address)).await.expect("answered")).await[..], b"ok");
            // The other side closes after its third.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let got = got.lock().expect("fine");
        assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
        let first = &got[0][0];
        assert!(first.starts_with("POST /in?a=1 HTTP/1.1\r\n"), "{first}");
        assert!(first.contains(&format!("host: {address}\r\n")), "{first}");
    }

    #[tokio::test]
    async fn two_at_a_time_have_two_connections_and_idle_ones_are_closed_in_the_end() {
        let (address, got) = server(9).await;
        let pool = pool();
        let (one, two) = tokio::join!(pool.request(post(address)), pool.request(post(address)));
        let (one, two) = (one.expect("answered"), two.expect("answered"));
        assert_eq!((body(one).await, body(two).await), (Bytes::from_static(b"ok"), Bytes::from_static(b"ok")));
        assert_eq!(got.lock().expect("fine").len(), 2);
        assert!(pool.lock().hosts.values().map(Vec::len).sum::<usize>() == 2 && pool.close_old());
        tokio::time::pause();
        tokio::time::advance(IDLE_TIMEOUT).await;
        assert!(!pool.close_old());
        assert!(pool.lock().hosts.is_empty());
    }

    #[tokio::test]
    async fn nobody_there_is_an_error_with_its_cause() {
        let error = pool().request(post("127.0.0.1:1".parse().expect("an address"))).await.expect_err("refused");
        assert!(error.contains("refused"), "{error}");
    }
}
