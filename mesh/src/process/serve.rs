//! The life of a daemon: start, ready, signals, stop.

use std::error::Error;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::memory::give_back_after_loads;
use super::{Notifier, Signal, Signals, forget_start, told};

/// How long stopping may take. What is stored is safe by then; only courtesies to peers are cut short.
const STOP_WITHIN: Duration = Duration::from_secs(25);

/// How long after the start the tasks have done what they do only once.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// What has been started and runs until it is stopped.
pub trait Daemon {
    /// Its name in the log.
    const NAME: &'static str;

    /// Resolves with what went wrong when a part that should run for ever has ended.
    fn failed(&mut self) -> impl Future<Output = String>;

    /// Reads manifests, certificates and credentials again. What cannot be used is logged and leaves the old in force.
    fn reload(&mut self) -> impl Future<Output = ()>;

    /// Stops sources, drains, makes durable, ends delivery.
    fn stop(self) -> impl Future<Output = ()>;
}

/// Why a daemon ended other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It did not start.
    #[error("{0}")]
    Start(String),
    /// The system refuses to pass on signals.
    #[error("catching signals: {0}")]
    Signals(std::io::Error),
    /// A part of it ended by itself.
    #[error("{0}")]
    Failed(String),
}

/// Runs a daemon until SIGTERM or SIGINT. While it starts these end it at once.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve<D, E>(start: impl Future<Output = Result<D, E>>) -> Result<(), ServeError>
where
    D: Daemon,
    E: AsRef<dyn Error + Send + Sync>,
{
    let notifier = Notifier::from_environment();
    let mut signals = Signals::catch().map_err(ServeError::Signals)?;
    let mut daemon = tokio::select! {
        started = start => started.map_err(|error| ServeError::Start(told(error.as_ref())))?,
        () = asked_to_stop(&mut signals) => return Ok(()),
    };
    notifier.ready();
    let watched = CancellationToken::new();
    let outcome = {
        let feeding = notifier.feed_watchdog(watched.clone());
        let running = async {
            loop {
                tokio::select! {
                    signal = signals.next() => match signal {
                        Signal::Stop => break Ok(()),
                        Signal::Reload => {
                            tracing::info!("reading manifests, certificates and credentials again");
                            notifier.reloading();
                            daemon.reload().await;
                            notifier.ready();
                        }
                    },
                    why = daemon.failed() => break Err(ServeError::Failed(why)),
                }
            }
        };
        let forgetting = async {
            if watched.run_until_cancelled(tokio::time::sleep(SETTLED_AFTER)).await.is_some() {
                forget_start();
            }
            watched.run_until_cancelled(give_back_after_loads()).await;
        };
        let (outcome, (), ()) = tokio::join!(
            async {
                let outcome = running.await;
                watched.cancel();
                outcome
            },
            feeding,
            forgetting
        );
        outcome
    };
    notifier.stopping();
    tracing::info!("{} is stopping", D::NAME);
    tokio::select! {
        stopped = tokio::time::timeout(STOP_WITHIN, daemon.stop()) => match stopped {
            Ok(()) => tracing::info!("{} has stopped", D::NAME),
            Err(_) => tracing::warn!("{} did not stop within 25 s and is cut; what was acknowledged is on the disk", D::NAME),
        },
        () = asked_to_stop(&mut signals) => tracing::warn!("asked again to stop: not waiting any longer"),
    }
    outcome
}

async fn asked_to_stop(signals: &mut Signals) {
    while signals.next().await != Signal::Stop {}
}
