//! A subscriber: takes events by HTTP, answers as told, and remembers what came in the order in which it came.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::wait::{self, Seen};

/// One delivery.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The path to which it came.
    pub path: String,
    /// Header names, in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// The status with which it was answered.
    pub answered: u16,
}

impl Delivery {
    /// A header's value, or nothing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    /// The event's id and source, in binary mode or structured.
    #[must_use]
    pub fn name(&self) -> (String, String) {
        let id = self.header("ce-id");
        if !id.is_empty() {
            return (id.to_owned(), self.header("ce-source").to_owned());
        }
        let event: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        (text("id"), text("source"))
    }
}

/// What a sink answers.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Only a status.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }
}

type Decide = dyn Fn(&Delivery, usize) -> Answer + Send + Sync;

/// A listening subscriber, gone when dropped.
pub struct Sink {
    address: SocketAddr,
    deliveries: Arc<Mutex<Vec<Delivery>>>,
    /// Ends the thread when dropped.
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Sink {
    /// One that answers 202 to everything.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start() -> Result<Self> {
        Self::answering(|_, _| Answer::status(202))
    }

    /// One that asks `decide` for each answer, with the delivery and how many came before it.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn answering(decide: impl Fn(&Delivery, usize) -> Answer + Send + Sync + 'static) -> Result<Self> {
        let deliveries = Arc::new(Mutex::new(Vec::new()));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let kept = Arc::clone(&deliveries);
        let decide: Arc<Decide> = Arc::new(decide);
        std::thread::spawn(move || serve(listener, &kept, &decide, stopped));
        Ok(Self { address, deliveries, _stop: stop })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What came so far.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Delivery> {
        lock(&self.deliveries).clone()
    }

    /// Waits until `count` deliveries or more have come.
    ///
    /// # Errors
    /// When they have not within `limit`.
    pub fn wait(&self, count: usize, limit: Duration) -> Result<Vec<Delivery>> {
        wait::until(format!("the sink has {count} deliveries"), limit, || {
            let deliveries = lock(&self.deliveries);
            if deliveries.len() >= count {
                Seen::Yes(deliveries.clone())
            } else {
                Seen::NotYet(deliveries.len().to_string())
            }
        })
    }
}

fn lock(deliveries: &Mutex<Vec<Delivery>>) -> MutexGuard<'_, Vec<Delivery>> {
    deliveries.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(
    listener: std::net::TcpListener,
    deliveries: &Arc<Mutex<Vec<Delivery>>>,
    decide: &Arc<Decide>,
    stopped: tokio::sync::oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let accepting = async {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                let (deliveries, decide) = (Arc::clone(deliveries), Arc::clone(decide));
                tokio::spawn(async move {
                    let service = service_fn(|request| take(request, &deliveries, &decide));
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        };
        tokio::select! {
            () = accepting => {}
            _ = stopped => {}
        }
    });
}

async fn take(
    request: Request<Incoming>,
    deliveries: &Mutex<Vec<Delivery>>,
    decide: &Arc<Decide>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Ok(Response::new(Full::default())) };
    let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut delivery = Delivery {
        path: head.uri.path().to_owned(),
        headers: head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
        body: body.to_bytes(),
        answered: 0,
    };
    let answer = {
        let mut kept = lock(deliveries);
        let answer = decide(&delivery, kept.len());
        delivery.answered = answer.status;
        kept.push(delivery);
        answer
    };
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::new(answer.body)).expect("a test's answer is valid"))
}
