//! Heap allocations of an event on its way from the socket to the disk and of its acknowledgement back, counted by the allocator
//! of this program while it runs the agent's library in a thread of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use godwit_agent::{Addresses, Agent, config::Config};
use godwit_mesh::config::Loader;
use godwit_mesh::process::{self, Daemon as _};
use godwit_tests::lab::Lab;
use godwit_tests::lockstep::Lockstep;

use crate::judge::Figure;

/// What is measured here.
pub(crate) const NAMES: [&str; 4] =
    ["allocations-mqtt", "allocations-mqtt-window", "allocations-http", "allocations-http-window"];

/// Bursts before counting begins: buffers have their size by then.
const WARM: u32 = 200;
/// Events that are counted.
const EVENTS: u32 = 6000;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The client's thread is not counted.
    static UNCOUNTED: Cell<bool> = const { Cell::new(false) };
}

/// The system's allocator, counting. What grows counts again.
struct Counting;

// SAFETY: everything is handed to the system's allocator unchanged; the counters are plain numbers.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !UNCOUNTED.try_with(Cell::get).unwrap_or(true) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Connects to a running agent with so many events in flight.
type Connect = fn(Addresses, u16) -> Result<Lockstep>;

/// Counts by MQTT and by HTTP, one event in flight and several.
pub(crate) fn measure() -> Result<Vec<Figure>> {
    UNCOUNTED.set(true);
    let mqtt: Connect = |to, burst| Lockstep::mqtt(to.mqtt.context("an agent has an MQTT listener")?, burst);
    let http: Connect = |to, burst| Lockstep::http(to.http, burst);
    let cases: [(Connect, u16); 4] = [(mqtt, 1), (mqtt, 100), (http, 1), (http, 20)];
    let lab = Lab::new()?;
    with_agent(&lab, |addresses| {
        let figure = |(name, (connect, burst)): (&'static str, (Connect, u16))| {
            let mut client = connect(addresses, burst)?;
            client.run(WARM)?;
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            let bursts = EVENTS / u32::from(burst);
            client.run(bursts)?;
            let count = ALLOCATIONS.load(Ordering::Relaxed) - before;
            Ok(Figure::new(name, count as f64 / f64::from(bursts * u32::from(burst))))
        };
        NAMES.into_iter().zip(cases).map(figure).collect()
    })
}

/// Runs the agent in a thread until `work` is done.
fn with_agent<T>(lab: &Lab, work: impl FnOnce(Addresses) -> Result<T>) -> Result<T> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0)).to_string();
    let data = lab.folder("counted")?.display().to_string();
    let (config, _): (Config, _) = Loader::new()
        .flag("agent.data-dir", "data", Some(data))
        .flag("mqtt.listen", "mqtt", Some(any.clone()))
        .flag("http.listen", "http", Some(any))
        .finish()?;
    let (ready, started) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    std::thread::scope(|scope| {
        let agent = scope.spawn(move || -> Result<()> {
            process::runtime()?.block_on(async {
                let agent = Agent::start(config).await?;
                let _ = ready.send(agent.addresses());
                let _ = stopped.await;
                agent.stop().await;
                Ok(())
            })
        });
        let done = started.recv().context("the agent did not start").and_then(work);
        drop(stop);
        agent.join().expect("the agent's thread does not panic")?;
        done
    })
}
