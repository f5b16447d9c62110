//! Load by HTTP: connections that each post one event at a time and wait for its answer, in one thread. The request's bytes are
//! made once, so that the client costs little beside the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::http;

/// Posts binary events of `size` bytes over `connections` connections for `time`; gives answers a second.
///
/// # Errors
/// When a connection fails or an answer is not 202.
pub fn run(to: SocketAddr, connections: usize, size: usize, time: Duration) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let data = crate::load::payload("http", 0, size);
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "00000000-0000-0000-0000-000000000000"),
        ("ce-source", "/bench"),
        ("ce-type", "bench.event"),
        ("content-type", "application/json"),
    ];
    let request: Arc<[u8]> = http::encode(&to.to_string(), "POST", "/default/default", &headers, &data, true).into();
    runtime.block_on(rate(connections, time, |stop, answers| post(to, Arc::clone(&request), stop, answers)))
}

/// Runs `tasks` tasks that count their answers until they are stopped; gives answers a second.
///
/// # Errors
/// When one of them fails.
pub async fn rate<F>(tasks: usize, time: Duration, task: impl Fn(Arc<AtomicBool>, Arc<AtomicU64>) -> F) -> Result<f64>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut running: JoinSet<Result<()>> = (0..tasks).map(|_| task(Arc::clone(&stop), Arc::clone(&answers))).collect();
    // The first moments are connections and cold caches.
    tokio::time::sleep(time / 5).await;
    let (before, begun) = (answers.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(time).await;
    let rate = (answers.load(Ordering::Relaxed) - before) as f64 / begun.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(rate)
}

async fn post(to: SocketAddr, request: Arc<[u8]>, stop: Arc<AtomicBool>, answers: Arc<AtomicU64>) -> Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let mut read = Vec::with_capacity(4096);
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&request).await?;
        read.clear();
        while !whole(&read)? {
            if stream.read_buf(&mut read).await? == 0 {
                bail!("the server closed the connection after {:?}", String::from_utf8_lossy(&read));
            }
        }
        answers.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Whether an answer is whole; only those with a length or without a body are expected.
fn whole(bytes: &[u8]) -> Result<bool> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(false) };
    let head = std::str::from_utf8(bytes.get(..end).unwrap_or_default())?;
    if !head.starts_with("HTTP/1.1 202") {
        bail!("the server answered {head}");
    }
    let mut lines = head.split("\r\n");
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let length = length.transpose().context("content-length")?.unwrap_or(0);
    Ok(bytes.len() >= end + 4 + length)
}
