//! A TCP relay that misbehaves on request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a relay does, changed while it runs.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// Connections end after this many bytes up in all; 0: never.
    pub(crate) cut_after: AtomicU64,
    /// Nothing comes back: answers are swallowed, or with `dead` nothing goes at all.
    pub(crate) swallow: AtomicBool,
    /// Nothing goes either way, without a word.
    pub(crate) dead: AtomicBool,
    /// Bytes per second each way; 0: no limit.
    pub(crate) rate: AtomicU64,
    /// Delay each way in ms.
    pub(crate) delay_ms: AtomicU64,
    /// Bytes carried up and down.
    pub(crate) up: AtomicU64,
    pub(crate) down: AtomicU64,
    pub(crate) connections: AtomicU64,
}

/// A relay to one address.
pub(crate) struct Relay {
    pub(crate) addr: SocketAddr,
    pub(crate) rules: Arc<Rules>,
    cut: Arc<std::sync::Mutex<CancellationToken>>,
    _task: JoinSet<()>,
}

impl Relay {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let rules = Arc::new(Rules::default());
        let cut = Arc::new(std::sync::Mutex::new(CancellationToken::new()));
        let mut task = JoinSet::new();
        task.spawn(accept(listener, target, rules.clone(), cut.clone()));
        Self { addr, rules, cut, _task: task }
    }

    /// Ends all connections that there are now.
    pub(crate) fn cut(&self) {
        let mut cut = self.cut.lock().expect("not poisoned");
        cut.cancel();
        *cut = CancellationToken::new();
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    rules: Arc<Rules>,
    cut: Arc<std::sync::Mutex<CancellationToken>>,
) {
    let mut tasks = JoinSet::new();
    loop {
        let Ok((near, _)) = listener.accept().await else { return };
        let Ok(far) = TcpStream::connect(target).await else { continue };
        rules.connections.fetch_add(1, Ordering::Relaxed);
        let cut = cut.lock().expect("not poisoned").child_token();
        tasks.spawn(relay(near, far, rules.clone(), cut));
    }
}

async fn relay(mut near: TcpStream, mut far: TcpStream, rules: Arc<Rules>, cut: CancellationToken) {
    let (near_read, near_write) = near.split();
    let (far_read, far_write) = far.split();
    tokio::select! {
        () = cut.cancelled() => {}
        () = carry(near_read, far_write, &rules, true) => {}
        () = carry(far_read, near_write, &rules, false) => {}
    }
}

async fn carry(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, rules: &Rules, up: bool) {
    let mut buffer = vec![0; 4096];
    loop {
        let room = if rules.rate.load(Ordering::Relaxed) > 0 { 100 } else { buffer.len() };
        let Ok(n @ 1..) = from.read(&mut buffer[..room]).await else { return };
        while rules.dead.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let carried = if up { &rules.up } else { &rules.down };
        let sum = carried.fetch_add(n as u64, Ordering::Relaxed) + n as u64;
        let rate = rules.rate.load(Ordering::Relaxed);
        if let Some(pause_ms) = (n as u64 * 1000).checked_div(rate) {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
        let delay = rules.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        if !up && rules.swallow.load(Ordering::Relaxed) {
            continue;
        }
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
        let limit = rules.cut_after.load(Ordering::Relaxed);
        if up && limit > 0 && sum >= limit {
            return;
        }
    }
}
