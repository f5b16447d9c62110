//! Connections to subscribers without TLS, kept for the next event.
//!
//! Nothing stands between a Trigger and a connection: whoever waits for an answer drives the connection that it comes on, so that no
//! other task has to be woken. Each has one request at a time, and is left here when the answer has been read to its end. One that
//! the other side has closed meanwhile is passed over, and a request that was not begun to be sent on it goes on another.

use std::collections::HashMap;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::service::Service as _;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::endpoint::Endpoint;
use super::sender::chain;

/// Idle connections cost both ends memory: not for long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// As many as one Trigger may use at a time: fewer, and they are made anew for every event.
const IDLE_PER_HOST: usize = 256;
/// Largest head of an answer, and the size up to which a connection's buffer grows.
const MAX_BUFFER: usize = 64 << 10;

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
    hosts: HashMap<Arc<str>, Vec<(Connection, Instant)>>,
    /// Whether a task closes those that are idle for too long.
    watched: bool,
}

/// Reads and writes what a connection has to.
type Driver = Pin<Box<http1::Connection<TokioIo<TcpStream>, Full<Bytes>>>>;

/// A connection; it does something only when it is driven.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// None when it has ended. It must not stay then: a request that it has not taken comes back when it goes.
    driver: Option<Driver>,
}

impl Connection {
    /// Lets it read and write what it can.
    fn drive(&mut self, cx: &mut Context<'_>) {
        // How it ended, who waits for an answer on it is told.
        if self.driver.as_mut().is_some_and(|driver| driver.as_mut().poll(cx).is_ready()) {
            self.driver = None;
        }
    }

    /// Whether it takes a request now.
    async fn is_ready(&mut self) -> bool {
        poll_fn(|cx| {
            self.drive(cx);
            Poll::Ready(matches!(self.sender.poll_ready(cx), Poll::Ready(Ok(()))))
        })
        .await
    }

    /// Waits until it takes a request.
    ///
    /// # Errors
    /// When it never will again.
    async fn ready(&mut self) -> hyper::Result<()> {
        poll_fn(|cx| {
            self.drive(cx);
            self.sender.poll_ready(cx)
        })
        .await
    }

    fn is_closed(&self) -> bool {
        self.driver.is_none() || self.sender.is_closed()
    }
}

/// The body of an answer, and the connection it comes on.
pub(crate) struct Answered {
    body: Incoming,
    /// It has been read to its end.
    ended: bool,
    lease: Option<Lease>,
}

/// A connection that is in use, and where it goes then.
struct Lease {
    connection: Connection,
    host: Arc<str>,
    pool: Pool,
}

impl std::fmt::Debug for Answered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answered").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Answered {
    /// A body on a connection that somebody else drives.
    pub(crate) fn alone(body: Incoming) -> Self {
        Self { body, ended: false, lease: None }
    }

    /// Has what is left of the request written, for so long at most: an answer may come before the whole request has gone.
    pub(crate) async fn finish(&mut self, limit: Duration) {
        let Some(lease) = self.lease.as_mut().filter(|_| self.ended || self.body.is_end_stream()) else { return };
        if !lease.connection.is_ready().await {
            let _ = tokio::time::timeout(limit, lease.connection.ready()).await;
        }
    }
}

impl Body for Answered {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        // Asked first: the connection reads only what is wanted.
        let mut polled = Pin::new(&mut this.body).poll_frame(cx);
        if let (Poll::Pending, Some(lease)) = (&polled, &mut this.lease) {
            lease.connection.drive(cx);
            polled = Pin::new(&mut this.body).poll_frame(cx);
        }
        this.ended |= matches!(polled, Poll::Ready(None));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        // What was not read to its end would stand before the next answer.
        let whole = self.ended || self.body.is_end_stream();
        if let Some(Lease { connection, host, pool }) = self.lease.take_if(|lease| whole && !lease.connection.is_closed()) {
            pool.put(host, connection);
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

    /// Sends a request to an endpoint. The connection is in use until the answer's body is let go of.
    ///
    /// # Errors
    /// What went wrong, with all that caused it.
    pub(crate) async fn request(
        &self,
        endpoint: &Endpoint,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Answered>, String> {
        *request.uri_mut() = endpoint.path.clone();
        request.headers_mut().entry(HOST).or_insert_with(|| endpoint.host_header.clone());
        loop {
            let (mut connection, fresh) = match self.take(&endpoint.host) {
                Some(connection) => (connection, false),
                // Boxed: it is seldom, and large.
                None => (Box::pin(self.connect(&endpoint.uri)).await?, true),
            };
            if fresh {
                connection.ready().await.map_err(|e| chain(&e))?;
            } else if !connection.is_ready().await {
                // Closed by the other side, or still at work on what came before.
                continue;
            }
            let mut answer = pin!(connection.sender.try_send_request(request));
            let answered = poll_fn(|cx| {
                connection.drive(cx);
                answer.as_mut().poll(cx)
            });
            match answered.await {
                Ok(response) => {
                    let lease = Lease { connection, host: endpoint.host.clone(), pool: self.clone() };
                    return Ok(response.map(|body| Answered { body, ended: false, lease: Some(lease) }));
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
        let (sender, driver) = handshake.map_err(|e| chain(&e))?;
        Ok(Connection { sender, driver: Some(Box::pin(driver)) })
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

    fn put(&self, host: Arc<str>, connection: Connection) {
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

    async fn post(pool: &Pool, address: std::net::SocketAddr) -> Result<Response<Answered>, String> {
        let url = url::Url::parse(&format!("http://{address}/in?a=1")).expect("a URL");
        let request = Request::post("/").body(Full::new(Bytes::from_static(b"x"))).expect("valid");
        pool.request(&Endpoint::new(url, None).expect("valid"), request).await
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

    async fn body(mut response: Response<Answered>) -> Bytes {
        response.body_mut().collect().await.expect("an answer").to_bytes()
    }

    #[tokio::test]
    async fn a_connection_is_kept_for_the_next_request_and_one_that_was_closed_is_made_anew() {
        let (address, got) = server(3).await;
        let pool = pool();
        for _ in 0..7 {
            assert_eq!(&body(post(&pool, address).await.expect("answered")).await[..], b"ok");
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
        let (one, two) = tokio::join!(post(&pool, address), post(&pool, address));
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
        let error = post(&pool(), "127.0.0.1:1".parse().expect("an address")).await.expect_err("refused");
        assert!(error.contains("refused"), "{error}");
    }

    #[tokio::test]
    async fn a_connection_whose_answer_was_not_read_is_not_used_again() {
        let (address, got) = server(9).await;
        let pool = pool();
        drop(post(&pool, address).await.expect("answered"));
        assert_eq!(&body(post(&pool, address).await.expect("answered")).await[..], b"ok");
        assert_eq!(&body(post(&pool, address).await.expect("answered")).await[..], b"ok");
        assert_eq!(got.lock().expect("fine").iter().map(Vec::len).collect::<Vec<_>>(), [1, 2]);
    }

    /// A server that answers at once, and does then what `then` says.
    async fn answering<F: std::future::Future<Output = ()> + Send>(
        then: impl Fn(TcpStream) -> F + Clone + Send + 'static,
    ) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let then = then.clone();
                tokio::spawn(async move {
                    let mut some = [0; 1024];
                    let _ = stream.read(&mut some).await;
                    let _ = stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
                    then(stream).await;
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_while_it_was_idle_is_passed_over() {
        let address = answering(|stream| async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(stream);
        })
        .await;
        let pool = pool();
        for _ in 0..3 {
            let answer = tokio::time::timeout(Duration::from_secs(5), post(&pool, address)).await.expect("no hanging");
            assert!(body(answer.expect("answered")).await.is_empty());
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }

    #[tokio::test]
    async fn a_request_goes_whole_where_its_answer_comes_before_its_end() {
        const BYTES: usize = 16 << 20;
        let (told, came) = tokio::sync::oneshot::channel();
        let told = Arc::new(Mutex::new(Some(told)));
        let address = answering(move |mut stream| {
            let told = told.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let (mut some, mut count) = (vec![0; 64 << 10], 1024);
                while let Ok(n @ 1..) = stream.read(&mut some).await {
                    count += n;
                    if count >= BYTES {
                        break;
                    }
                }
                let told = told.lock().expect("fine").take();
                let _ = told.expect("once").send(count);
            }
        })
        .await;
        let endpoint = Endpoint::new(url::Url::parse(&format!("http://{address}/")).expect("a URL"), None).expect("valid");
        let request = Request::post("/").body(Full::new(Bytes::from(vec![0; BYTES]))).expect("valid");
        let mut answer = pool().request(&endpoint, request).await.expect("answered");
        answer.body_mut().finish(Duration::from_secs(10)).await;
        drop(answer);
        assert!(came.await.expect("told") >= BYTES);
    }
}
