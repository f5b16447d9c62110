//! What the runner of a source works with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::live::{Live, Missing};
use super::mark::Mark;
use super::sink::{Sink, Stopped};
use crate::broker::Brokers;
use crate::clock::Clock;
use crate::delivery::target::Target;
use crate::delivery::{Owner, Triggers};
use crate::event::Event;
use crate::manifest::{Destination, Kind, Object, ObjectName, SourceSpec, Spec};

/// One source at work. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Job {
    /// The object.
    pub object: Object,
    /// Who brought it.
    pub owner: Owner,
    /// Where to tell how it stands.
    pub live: Arc<Live>,
    /// Cancelled when the source is to end.
    pub stop: CancellationToken,
    /// All sources' objects, as they change.
    pub objects: watch::Receiver<Arc<Vec<Object>>>,
    triggers: Triggers,
    /// The number of the newest mark.
    number: Arc<AtomicU64>,
}

impl Job {
    pub(super) fn new(
        object: Object,
        owner: Owner,
        live: Arc<Live>,
        stop: CancellationToken,
        objects: watch::Receiver<Arc<Vec<Object>>>,
        triggers: Triggers,
    ) -> Self {
        Self { object, owner, live, stop, objects, triggers, number: Arc::default() }
    }

    /// The same source, for as long as `stop` lets it.
    #[must_use]
    pub fn within(&self, stop: CancellationToken) -> Self {
        Self { stop, ..self.clone() }
    }

    /// The time as attributes have it; `None` while the clock is not set.
    #[must_use]
    pub fn now(&self) -> Option<String> {
        let ms = i64::try_from(self.clock().wall_ms()?).ok()?;
        Some(super::ping::rfc3339(ms)).filter(|time| !time.is_empty())
    }

    /// The source.
    ///
    /// # Panics
    /// Never: only objects that are sources become jobs.
    #[must_use]
    pub fn spec(&self) -> &SourceSpec {
        match self.object.spec() {
            Spec::Source(source) => source,
            _ => unreachable!("only sources become jobs"),
        }
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.object.kind()
    }

    /// Its namespace and name.
    #[must_use]
    pub fn name(&self) -> &ObjectName {
        self.object.name()
    }

    /// The clock that sources go by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        self.triggers.clock()
    }

    /// The Brokers of this process.
    #[must_use]
    pub fn brokers(&self) -> &Brokers {
        self.triggers.brokers()
    }

    /// The agent's id; at a gateway there is none.
    #[must_use]
    pub fn agent(&self) -> Option<&str> {
        self.brokers().agent().map(crate::names::AgentId::as_str)
    }

    /// A path that names the source, as in `/agents/boat-7/filesources/default/log`.
    #[must_use]
    pub fn path(&self) -> String {
        let agent = self.agent().map(|agent| format!("/agents/{agent}")).unwrap_or_default();
        format!("{agent}/{}/{}/{}", self.kind().resource().plural, self.name().namespace, self.name().name)
    }

    /// Sets what `ceOverrides` says. An event that is no event any more with it is left as it was.
    pub fn override_attributes(&self, event: &mut Event) {
        for (name, value) in &self.spec().overrides {
            if let Err(error) = event.set(name, value.clone()) {
                self.live.failed(format!("ceOverrides.extensions[{name}]: {error}"), self.clock());
            }
        }
    }

    /// Waits until the source's own sink is there (D27), and says meanwhile what it waits for.
    ///
    /// # Errors
    /// [`Stopped`] when the source is to end.
    pub async fn sink(&self) -> Result<Sink, Stopped> {
        match &self.spec().sink {
            Some(sink) => self.resolved(sink, self.name()).await,
            None => {
                self.live.sink(Err(Missing::new("SinkMissing", "spec.sink is missing")));
                self.stop.cancelled().await;
                Err(Stopped)
            }
        }
    }

    /// The same for another object's sink, named `holder`.
    ///
    /// # Errors
    /// [`Stopped`] when the source is to end.
    pub async fn resolved(&self, destination: &Destination, holder: &ObjectName) -> Result<Sink, Stopped> {
        let mut made = self.brokers().watch();
        loop {
            match self.resolve(destination, holder) {
                Ok(sink) => {
                    self.live.sink(Ok(sink.uri().to_owned()));
                    return Ok(sink);
                }
                Err(missing) => self.live.sink(Err(missing)),
            }
            tokio::select! {
                Ok(()) = made.changed() => {}
                () = self.stop.cancelled() => return Err(Stopped),
            }
        }
    }

    /// Finds a sink, as things are now.
    ///
    /// # Errors
    /// What is missing.
    pub fn resolve(&self, destination: &Destination, holder: &ObjectName) -> Result<Sink, Missing> {
        let settings = &self.triggers.context().settings;
        let target =
            Target::resolve(destination, &holder.namespace, settings).map_err(|e| Missing::new("NotFound", e.0))?;
        Sink::new(target, self.clone(), &settings.address)
    }

    pub(super) fn triggers(&self) -> &Triggers {
        &self.triggers
    }

    /// How far the source had come, as it said last; `None` if never.
    #[must_use]
    pub fn mark(&self) -> Option<Vec<u8>> {
        let mark = Mark::find(self.brokers(), &self.mark_key())?;
        self.number.fetch_max(mark.number, Ordering::Relaxed);
        Some(mark.value)
    }

    pub(super) fn mark_key(&self) -> Vec<u8> {
        Mark::key(self.kind(), self.name())
    }

    /// The next mark, as it is stored.
    pub(super) fn encode_mark(&self, value: &[u8]) -> Vec<u8> {
        Mark::encode(self.number.fetch_add(1, Ordering::Relaxed) + 1, self.owner, value)
    }

    /// Waits so many milliseconds.
    ///
    /// # Errors
    /// [`Stopped`] when the source is to end before.
    pub async fn wait(&self, ms: u64) -> Result<(), Stopped> {
        let until = self.clock().elapsed_ms().saturating_add(ms);
        self.stop.run_until_cancelled(self.clock().sleep_until(until)).await.ok_or(Stopped)
    }
}
