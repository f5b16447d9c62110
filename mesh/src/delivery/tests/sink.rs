//! A subscriber that answers by script and remembers what it was sent.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// What one request gets.
#[derive(Debug, Clone, Default)]
pub(super) struct Say {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    /// Never answer.
    hang: bool,
    /// Answer after this.
    wait: Duration,
}

impl Say {
    pub(super) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(super) fn nothing() -> Self {
        Self { hang: true, ..Self::status(202) }
    }

    pub(super) fn after(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(super) fn body(mut self, body: &str) -> Self {
        self.body = Bytes::copy_from_slice(body.as_bytes());
        self
    }

    /// An event in binary mode.
    pub(super) fn event(self, id: &str, ty: &str) -> Self {
        self.header("ce-specversion", "1.0").header("ce-id", id).header("ce-source", "/sink").header("ce-type", ty)
    }
}

/// What the sink was sent.
#[derive(Debug, Clone)]
pub(super) struct Got {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Got {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

type Decide = Arc<dyn Fn(&Got) -> Say + Send + Sync>;

/// A subscriber. The last answer of its script is repeated.
#[derive(Clone)]
pub(super) struct Sink {
    pub(super) url: String,
    state: Arc<Mutex<(VecDeque<Say>, Vec<Got>)>>,
    decide: Option<Decide>,
    /// How many requests are being answered, and how many were at most.
    busy: Arc<Mutex<(usize, usize)>>,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Sink {
    pub(super) async fn start(script: &[Say]) -> Self {
        Self::listen(script, None).await
    }

    /// One whose answers depend on what it was sent.
    pub(super) async fn deciding(decide: impl Fn(&Got) -> Say + Send + Sync + 'static) -> Self {
        Self::listen(&[], Some(Arc::new(decide))).await
    }

    async fn listen(script: &[Say], decide: Option<Decide>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/in", listener.local_addr().expect("bound"));
        let state = Arc::new(Mutex::new((script.iter().cloned().collect(), Vec::new())));
        let sink = Self { url, state, decide, busy: Arc::default() };
        let served = sink.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sink = served.clone();
                let service = service_fn(move |request| sink.clone().answer(request));
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        sink
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let got = Got { method: head.method, path: head.uri.path().to_owned(), headers: head.headers, body };
        let decided = self.decide.as_ref().map(|decide| decide(&got));
        let say = {
            let mut state = self.state.lock().expect("not poisoned");
            state.1.push(got);
            let next = if state.0.len() > 1 { state.0.pop_front() } else { state.0.front().cloned() };
            decided.or(next).unwrap_or_else(|| Say::status(202))
        };
        {
            let mut busy = self.busy.lock().expect("not poisoned");
            busy.0 += 1;
            busy.1 = busy.1.max(busy.0);
        }
        if !say.wait.is_zero() {
            tokio::time::sleep(say.wait).await;
        }
        if say.hang {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        self.busy.lock().expect("not poisoned").0 -= 1;
        let mut response = Response::new(Full::new(say.body));
        *response.status_mut() = StatusCode::from_u16(say.status).expect("a status");
        for (name, value) in say.headers {
            response.headers_mut().insert(name, value.parse().expect("a header value"));
        }
        Ok(response)
    }

    /// Replaces the script.
    pub(super) fn say(&self, script: &[Say]) {
        self.state.lock().expect("not poisoned").0 = script.iter().cloned().collect();
    }

    pub(super) fn got(&self) -> Vec<Got> {
        self.state.lock().expect("not poisoned").1.clone()
    }

    /// Most requests that were being answered at a time.
    pub(super) fn most_at_a_time(&self) -> usize {
        self.busy.lock().expect("not poisoned").1
    }

    pub(super) fn ids(&self) -> Vec<String> {
        self.got().iter().map(|got| got.header("ce-id").to_owned()).collect()
    }
}
