//! A bad network as a program: a TCP relay with delay, rate, stalls, silence and cuts, which counts what passes.
//!
//! A loss on a real path shows to the ends of a TCP connection as a stall until the segment is sent again; so `stall` is how loss is
//! made here, and packets are really dropped only in [`crate::net`].

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::random;

/// Most bytes on their way in one direction of a fast path.
const FAST_QUEUE: u64 = 1 << 20;
/// How long a lost segment stalls the stream, beside the path's own delay.
const STALL: Duration = Duration::from_millis(250);
/// How often a held direction looks whether it may go on.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A direction through the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From who connected to the server.
    Up,
    /// From the server to who connected.
    Down,
}

#[derive(Debug)]
struct Controls {
    to: SocketAddr,
    delay_ms: AtomicU64,
    rate: AtomicU64,
    stall_percent: AtomicU64,
    refuse: AtomicBool,
    held: [AtomicBool; 2],
    bytes: [AtomicU64; 2],
    connections: AtomicU64,
    cut: watch::Sender<u64>,
}

/// A listening relay, gone with all its connections when dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    controls: Arc<Controls>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Relay {
    /// One before `to`, that lets everything pass.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(to: SocketAddr) -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let controls = Arc::new(Controls {
            to,
            delay_ms: AtomicU64::new(0),
            rate: AtomicU64::new(0),
            stall_percent: AtomicU64::new(0),
            refuse: AtomicBool::new(false),
            held: [AtomicBool::new(false), AtomicBool::new(false)],
            bytes: [AtomicU64::new(0), AtomicU64::new(0)],
            connections: AtomicU64::new(0),
            cut: watch::channel(0).0,
        });
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let given = Arc::clone(&controls);
        std::thread::spawn(move || serve(listener, &given, stopped));
        Ok(Self { address, controls, _stop: stop })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Delays everything by `delay` in each direction.
    pub fn delay(&self, delay: Duration) {
        self.controls.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Lets `bytes` pass each second and direction; 0 for no limit.
    pub fn rate(&self, bytes: u64) {
        self.controls.rate.store(bytes, Ordering::Relaxed);
    }

    /// Stalls at `percent` of the chunks, as a lost segment does.
    pub fn stall(&self, percent: u64) {
        self.controls.stall_percent.store(percent, Ordering::Relaxed);
    }

    /// Lets nothing pass in one direction, without closing anything, until called with `false`.
    pub fn hold(&self, way: Way, held: bool) {
        self.controls.held(way).store(held, Ordering::Relaxed);
    }

    /// Silence both ways, old connections and new ones, nothing closed.
    pub fn black_hole(&self, on: bool) {
        self.hold(Way::Up, on);
        self.hold(Way::Down, on);
    }

    /// Resets all connections.
    pub fn cut(&self) {
        self.controls.cut.send_modify(|generation| *generation += 1);
    }

    /// Resets new connections at once, until called with `false`; those that live are not touched.
    pub fn refuse(&self, on: bool) {
        self.controls.refuse.store(on, Ordering::Relaxed);
    }

    /// Bytes that came in for one direction, TCP payload only.
    #[must_use]
    pub fn bytes(&self, way: Way) -> u64 {
        self.controls.bytes(way).load(Ordering::Relaxed)
    }

    /// Bytes of both directions.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.bytes(Way::Up) + self.bytes(Way::Down)
    }

    /// How many connections were taken so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.controls.connections.load(Ordering::Relaxed)
    }
}

impl Controls {
    fn held(&self, way: Way) -> &AtomicBool {
        let [up, down] = &self.held;
        if way == Way::Up { up } else { down }
    }

    fn bytes(&self, way: Way) -> &AtomicU64 {
        let [up, down] = &self.bytes;
        if way == Way::Up { up } else { down }
    }

    async fn wait_while_held(&self, way: Way) {
        while self.held(way).load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn serve(listener: std::net::TcpListener, controls: &Arc<Controls>, stopped: tokio::sync::oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let accepting = async {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                if controls.refuse.load(Ordering::Relaxed) {
                    reset_on_close(&stream);
                    continue;
                }
                controls.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(pass(stream, Arc::clone(controls)));
            }
        };
        tokio::select! {
            () = accepting => {}
            _ = stopped => {}
        }
    });
}

async fn pass(near: TcpStream, controls: Arc<Controls>) {
    let mut cut = controls.cut.subscribe();
    cut.mark_unchanged();
    reset_on_close(&near);
    if controls.rate.load(Ordering::Relaxed) > 0 {
        // Else the kernel alone would take what the slow path carries in minutes.
        let _ = socket2::SockRef::from(&near).set_recv_buffer_size(4096);
    }
    let passing = async {
        controls.wait_while_held(Way::Up).await;
        let Ok(far) = TcpStream::connect(controls.to).await else { return };
        reset_on_close(&far);
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
        tokio::join!(direct(near_read, far_write, Way::Up, &controls), direct(far_read, near_write, Way::Down, &controls));
    };
    tokio::select! {
        () = passing => {}
        _ = cut.changed() => {}
    }
}

async fn direct(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: Way, controls: &Controls) {
    let (send, mut receive) = mpsc::channel::<(Instant, Bytes)>(1024);
    let queued = AtomicU64::new(0);
    let reading = async {
        let send = send;
        let mut buffer = vec![0; 16 << 10];
        loop {
            let rate = controls.rate.load(Ordering::Relaxed);
            let limit = if rate > 0 { (2 * rate).max(1024) } else { FAST_QUEUE };
            while queued.load(Ordering::Relaxed) >= limit {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            let most = if rate > 0 { 256 } else { buffer.len() };
            let Some(room) = buffer.get_mut(..most) else { return };
            let Ok(size @ 1..) = from.read(room).await else { return };
            controls.bytes(way).fetch_add(size as u64, Ordering::Relaxed);
            queued.fetch_add(size as u64, Ordering::Relaxed);
            let due = Instant::now() + Duration::from_millis(controls.delay_ms.load(Ordering::Relaxed));
            let chunk = Bytes::copy_from_slice(room.get(..size).unwrap_or_default());
            if send.send((due, chunk)).await.is_err() {
                return;
            }
        }
    };
    let writing = async {
        while let Some((due, chunk)) = receive.recv().await {
            tokio::time::sleep_until(due).await;
            if random::below(100) < controls.stall_percent.load(Ordering::Relaxed) {
                tokio::time::sleep(STALL).await;
            }
            let rate = controls.rate.load(Ordering::Relaxed);
            if let Some(micros) = (chunk.len() as u64 * 1_000_000).checked_div(rate) {
                tokio::time::sleep(Duration::from_micros(micros)).await;
            }
            controls.wait_while_held(way).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
            queued.fetch_sub(chunk.len() as u64, Ordering::Relaxed);
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}

/// Closes with a reset, as a cut path looks once the peer is back.
fn reset_on_close(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
