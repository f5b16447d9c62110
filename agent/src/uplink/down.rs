//! The objects that come down: kept durably, applied at every start, reported on.
//!
//! A set is first applied, which validates it, then kept. A power cut in between leaves the older one on disk, and the gateway sends
//! the newer one again. A set that is refused changes nothing and is reported with the reason.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use godwit_mesh::process::{read_kept, write_kept};
use godwit_mesh::storage::Storage;
use godwit_mesh::sync::Frame;
use godwit_mesh::sync::frame::{Objects, Report};
use http::Method;
use hyper::client::conn::http2::SendRequest;
use tokio::sync::{mpsc, watch};

use super::connect::{Body, LinkError, SharedTarget, checked, empty};
use super::frames::{Frames, Heard};

/// Applies a set of objects, whole or not at all, replacing the one before; the error says why not.
pub type Apply = Arc<dyn Fn(Objects) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Whether what was applied is ready; the error says what is not.
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

const FOLDER: &str = "uplink";
const FILE: &str = "uplink/objects.json";

/// Largest set that is taken from disk, in bytes.
const MAX_SET: u64 = 64 << 20;

/// Pause before the stream is asked for again.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(10);

/// Keeper of the objects.
pub(super) struct Down {
    storage: Arc<dyn Storage>,
    apply: Apply,
    ready: Ready,
    report: watch::Sender<Report>,
    /// The set that was refused last, to be tried again: what was in its way may go.
    refused: Mutex<Option<Objects>>,
}

/// How often a refused set is tried again.
const TRY_AGAIN: std::time::Duration = std::time::Duration::from_secs(5);

impl Down {
    /// Applies what was kept; an empty set, if nothing was. What cannot be read is not applied at all.
    pub(super) async fn open(storage: Arc<dyn Storage>, apply: Apply, ready: Ready) -> Self {
        let kept = tokio::task::spawn_blocking({
            let storage = storage.clone();
            move || read(&*storage)
        });
        let kept = kept.await.unwrap_or_else(|e| Err(io::Error::other(e)));
        let report = watch::Sender::new(Report::default());
        let this = Self { storage, apply, ready, report, refused: Mutex::default() };
        let (objects, empty) = match kept {
            Ok(Some(objects)) => (objects, false),
            Ok(None) => (Objects::new("[]".to_owned()), true),
            Err(e) => {
                // Not an empty set: that would forget the Triggers, and where each of them stands.
                tracing::error!("the objects from the gateway cannot be read ({FILE}: {e}); it will send them again");
                return this;
            }
        };
        let revision = objects.revision;
        match (this.apply)(objects.clone()).await {
            Ok(()) if empty => {}
            Ok(()) => this.tell(|report| report.revision = revision),
            Err(why) => {
                tracing::error!("the objects kept from the gateway cannot be applied: {why}");
                *this.waiting() = Some(objects);
                this.tell(|report| (report.refused, report.error) = (revision, why));
            }
        }
        this
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Objects>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be told to the gateway.
    pub(super) fn report(&self) -> watch::Receiver<Report> {
        self.report.subscribe()
    }

    fn tell(&self, change: impl FnOnce(&mut Report)) {
        let ready = (self.ready)();
        self.report.send_if_modified(|report| {
            let before = report.clone();
            change(report);
            report.ready = ready.is_ok();
            if report.refused == 0 {
                report.error = ready.err().unwrap_or_default();
            }
            *report != before
        });
    }

    /// Takes sets in as they come, and looks at their readiness `every` so often.
    pub(super) async fn run(&self, mut sets: mpsc::Receiver<Objects>, every: std::time::Duration) {
        loop {
            tokio::select! {
                objects = sets.recv() => match objects {
                    Some(objects) => self.take(objects).await,
                    None => return,
                },
                () = tokio::time::sleep(TRY_AGAIN), if self.waiting().is_some() => {
                    let refused = self.waiting().take();
                    if let Some(objects) = refused {
                        self.take(objects).await;
                    }
                }
                () = tokio::time::sleep(every) => self.tell(|_| {}),
            }
        }
    }

    async fn take(&self, objects: Objects) {
        let (revision, set) = (objects.revision, objects.set.clone());
        *self.waiting() = None;
        if self.report.borrow().revision == revision {
            return self.tell(|report| (report.refused, report.error) = (0, String::new()));
        }
        if let Err(why) = (self.apply)(objects.clone()).await {
            if self.report.borrow().error != why {
                tracing::error!("the objects from the gateway are refused, and tried again every 5 s: {why}");
            }
            *self.waiting() = Some(objects);
            return self.tell(|report| (report.refused, report.error) = (revision, why));
        }
        let storage = self.storage.clone();
        let written = tokio::task::spawn_blocking(move || write(&*storage, set.as_bytes())).await;
        if let Err(e) = written.unwrap_or_else(|e| Err(io::Error::other(e))) {
            tracing::error!("the objects from the gateway run, but cannot be kept ({FILE}: {e})");
        }
        tracing::info!(revision = format_args!("{revision:016x}"), "objects from the gateway are applied");
        self.tell(|report| (report.revision, report.refused, report.error) = (revision, 0, String::new()));
    }
}

/// Follows the down stream for as long as the connection lives.
pub(super) async fn follow(target: SharedTarget, mut sender: SendRequest<Body>, path: String, sets: mpsc::Sender<Objects>) {
    loop {
        if let Err(e) = once(&target, &mut sender, &path, &sets).await {
            tracing::debug!("the down stream: {e}");
        }
        if sender.is_closed() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn once(
    target: &SharedTarget,
    sender: &mut SendRequest<Body>,
    path: &str,
    sets: &mpsc::Sender<Objects>,
) -> Result<(), LinkError> {
    let request = target.request(Method::GET, path, true, empty()).await?;
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    take_all(&mut Frames::new(checked(response).await?), sets).await
}

/// Hands on the sets of an answer until it ends.
pub(super) async fn take_all(frames: &mut Frames, sets: &mpsc::Sender<Objects>) -> Result<(), LinkError> {
    loop {
        match frames.next().await? {
            Heard::End => return Ok(()),
            Heard::Life => {}
            Heard::Frame(frame) => {
                if let Frame::Objects(objects) = Frame::from_gateway(&frame)? {
                    // The receiver goes only when the agent stops.
                    let _ = sets.send(objects).await;
                }
            }
        }
    }
}

fn read(storage: &dyn Storage) -> io::Result<Option<Objects>> {
    let Some(bytes) = read_kept(storage, FILE, MAX_SET)? else { return Ok(None) };
    String::from_utf8(bytes).map(|set| Some(Objects::new(set))).map_err(io::Error::other)
}

fn write(storage: &dyn Storage, set: &[u8]) -> io::Result<()> {
    storage.make_dir(FOLDER)?;
    write_kept(storage, FILE, set)
}

#[cfg(test)]
mod tests {
    use godwit_mesh::storage::Disk;

    use super::*;

    /// The sets that are applied at a start on this folder.
    async fn applied(dir: &std::path::Path) -> Vec<String> {
        let sets = Arc::new(Mutex::new(Vec::new()));
        let apply: Apply = Arc::new({
            let sets = sets.clone();
            move |objects| {
                sets.lock().expect("not poisoned").push(objects.set);
                Box::pin(std::future::ready(Ok(())))
            }
        });
        let storage = Arc::new(Disk::new(dir).expect("a folder"));
        let _down = Down::open(storage, apply, Arc::new(|| Ok(()))).await;
        let sets = sets.lock().expect("not poisoned");
        sets.clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_set_is_tried_again_until_what_was_in_its_way_is_gone() {
        let dir = tempfile::tempdir().expect("a folder");
        let tries = Arc::new(Mutex::new(0));
        let apply: Apply = Arc::new({
            let tries = tries.clone();
            move |_| {
                let mut tries = tries.lock().expect("not poisoned");
                *tries += 1;
                // The first is the empty set of the start.
                let outcome = if matches!(*tries, 2 | 3) { Err("held by api".to_owned()) } else { Ok(()) };
                Box::pin(std::future::ready(outcome))
            }
        });
        let storage = Arc::new(Disk::new(dir.path()).expect("a folder"));
        let down = Down::open(storage, apply, Arc::new(|| Ok(()))).await;
        let (give, sets) = mpsc::channel(1);
        let mut report = down.report();
        give.send(Objects::new("[1]".to_owned())).await.expect("open");
        tokio::select! {
            () = down.run(sets, std::time::Duration::from_secs(3600)) => panic!("it ended"),
            told = report.wait_for(|told| told.revision != 0) => assert_eq!(told.expect("alive").refused, 0),
        }
        assert_eq!(*tries.lock().expect("not poisoned"), 4);
    }

    #[tokio::test]
    async fn a_kept_set_that_cannot_be_read_does_not_pass_for_an_empty_one() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(applied(dir.path()).await, ["[]"]);
        std::fs::create_dir(dir.path().join(FOLDER)).expect("made");
        std::fs::write(dir.path().join(FILE), "[1]").expect("written");
        assert_eq!(applied(dir.path()).await, ["[1]"]);
        std::fs::write(dir.path().join(FILE), b"\xff\x00").expect("written");
        assert!(applied(dir.path()).await.is_empty());
    }
}
