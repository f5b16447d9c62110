//! The sources of this process, in sets that are applied as a whole: what follows them and runs them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::job::Job;
use super::live::Missing;
use super::mark::Mark;
use super::{ping, types};
use crate::delivery::{Owner, Triggers};
use crate::manifest::{Kind, Object, ObjectName, Spec};

/// Runs one source until its job is to stop. It ends by itself only when there is nothing more to do.
pub type Run = Arc<dyn Fn(Job) -> BoxFuture<'static, ()> + Send + Sync>;

/// Settles all sources of one kind together, whenever one of them or a Broker has come, changed or gone.
pub type Settle = Arc<dyn Fn(&[Job]) + Send + Sync>;

type Key = (Kind, ObjectName);

/// The sources of this process. Cheap to clone.
#[derive(Clone)]
pub struct Sources(Arc<Inner>);

struct Inner {
    triggers: Triggers,
    runs: BTreeMap<Kind, Run>,
    settles: BTreeMap<Kind, Settle>,
    table: Mutex<BTreeMap<Key, Entry>>,
    objects: watch::Sender<Arc<Vec<Object>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// One source that is applied, or one that has gone and is not at its end yet.
struct Entry {
    job: Option<Job>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("kinds", &self.0.runs.keys()).finish_non_exhaustive()
    }
}

impl Sources {
    /// Runs the sources of the sets that are applied, and of those that will be, until [`Sources::close`]. `runs` and `settles` say what
    /// else than a PingSource can be run in this process. Marks of sources that are in no set any more are forgotten.
    ///
    /// When this returns, all that is settled together is in force.
    pub async fn start(
        triggers: &Triggers,
        runs: impl IntoIterator<Item = (Kind, Run)>,
        settles: impl IntoIterator<Item = (Kind, Settle)>,
    ) -> Self {
        let ping: Run = Arc::new(|job| Box::pin(ping::run(job)));
        let runs = runs.into_iter().chain([(Kind::PingSource, ping)]).collect();
        let inner = Inner {
            triggers: triggers.clone(),
            runs,
            settles: settles.into_iter().collect(),
            table: Mutex::default(),
            objects: watch::Sender::new(Arc::default()),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        let this = Self(Arc::new(inner));
        this.0.forget_gone().await;
        let mut changes = triggers.changes();
        let mut brokers = triggers.brokers().watch();
        this.0.reconcile(true);
        this.0.tasks.spawn(types::collect(triggers.clone(), this.0.stop.clone()));
        let inner = this.0.clone();
        this.0.tasks.spawn(async move {
            loop {
                let made = tokio::select! {
                    Ok(()) = changes.changed() => false,
                    Ok(()) = brokers.changed() => true,
                    () = inner.stop.cancelled() => return,
                };
                inner.reconcile(made);
            }
        });
        this
    }

    /// Ends all sources; each has come to its end when this returns.
    pub async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All sources that are applied, and who brought them.
    fn wanted(&self) -> BTreeMap<Key, (Owner, Object)> {
        let mut wanted = BTreeMap::new();
        for owner in [Owner::Gateway, Owner::Api, Owner::Files] {
            let Some((_, set)) = self.triggers.applied(owner) else { continue };
            let sources = set.objects().filter(|object| matches!(object.spec(), Spec::Source(_)));
            wanted.extend(sources.map(|object| ((object.kind(), object.name().clone()), (owner, object.clone()))));
        }
        wanted
    }

    /// Forgets the marks of sources that went while the process was off. What the API holds is deleted one by one, so that a set
    /// of it that lacks more lost it to a damaged file.
    async fn forget_gone(&self) {
        let wanted: Vec<Vec<u8>> = self.wanted().keys().map(|(kind, name)| Mark::key(*kind, name)).collect();
        let complete: Vec<&str> = [Owner::Gateway, Owner::Files]
            .into_iter()
            .filter(|owner| self.triggers.is_complete(*owner))
            .map(Owner::name)
            .collect();
        Mark::forget_all(self.triggers.brokers(), |owner, key| {
            complete.contains(&owner) && !wanted.iter().any(|wanted| *wanted == key)
        })
        .await;
    }

    /// Starts what is new, replaces what has changed, ends what has gone.
    fn reconcile(&self, brokers_made: bool) {
        if self.stop.is_cancelled() {
            return;
        }
        let wanted = self.wanted();
        let mut table = self.table();
        table.retain(|_, entry| entry.job.is_some() || !entry.task.is_finished());
        let mut changed = false;
        let gone: Vec<Key> = table
            .iter()
            .filter(|(key, e)| e.job.is_some() && !wanted.contains_key(key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            changed = true;
            self.end(&mut table, key);
        }
        let mut started = Vec::new();
        for (key, (owner, object)) in wanted {
            let same = table.get(&key).and_then(|entry| entry.job.as_ref());
            if same.is_some_and(|job| job.owner == owner && job.object.same(&object)) {
                continue;
            }
            changed = true;
            let anew = same.is_some_and(|job| uid(&job.object).is_some() && uid(&job.object) != uid(&object));
            if anew {
                self.end(&mut table, key.clone());
            }
            let before = table.remove(&key);
            let stop = self.stop.child_token();
            let live = self.triggers.sources().add(key.0, &key.1, owner);
            let job = Job::new(object, owner, live, stop.clone(), self.objects.subscribe(), self.triggers.clone());
            started.push((key, job, stop, before));
        }
        if changed {
            let jobs = table.values().filter_map(|entry| entry.job.as_ref()).chain(started.iter().map(|(_, job, ..)| job));
            self.objects.send_replace(Arc::new(jobs.map(|job| job.object.clone()).collect()));
        }
        for (key, job, stop, before) in started {
            let run = self.run(job.clone(), before);
            let task = self.tasks.spawn(run);
            table.insert(key, Entry { job: Some(job), stop, task });
        }
        if changed || brokers_made {
            for (kind, settle) in &self.settles {
                let jobs: Vec<Job> =
                    table.iter().filter(|((k, _), _)| k == kind).filter_map(|(_, entry)| entry.job.clone()).collect();
                settle(&jobs);
            }
        }
    }

    /// One source's task: begins when the one before it has ended.
    fn run(&self, job: Job, before: Option<Entry>) -> BoxFuture<'static, ()> {
        let run = self.runs.get(&job.kind()).cloned();
        let together = self.settles.contains_key(&job.kind());
        Box::pin(async move {
            if let Some(before) = before {
                before.stop.cancel();
                let _ = before.task.await;
            }
            if let Some(why) = job.spec().not_built() {
                job.live.sink(Err(Missing::new("NotImplemented", why)));
            } else if let Some(run) = run {
                // Where panics unwind, a source that fails does not take others with it: its task says so, and stays ended.
                let live = job.live.clone();
                let ended = tokio::spawn(run(job)).await;
                if let Err(error) = ended
                    && error.is_panic()
                {
                    tracing::error!("a source has failed: {error}");
                    live.deployed(Err(Missing::new("Failed", "it has failed; the log says more")));
                }
            } else if !together {
                let why = "runs at agents only: the annotation godwit.dev/agents sends it there";
                job.live.deployed(Err(Missing::new("AgentsOnly", why)));
            }
        })
    }

    /// Ends a source that has gone, and forgets how far it had come.
    fn end(&self, table: &mut BTreeMap<Key, Entry>, key: Key) {
        let Some(entry) = table.remove(&key) else { return };
        entry.stop.cancel();
        self.triggers.sources().remove(key.0, &key.1);
        let brokers = self.triggers.brokers().clone();
        let mark = Mark::key(key.0, &key.1);
        let stop = entry.stop.clone();
        let task = self.tasks.spawn(async move {
            let _ = entry.task.await;
            Mark::forget(&brokers, &mark).await;
        });
        table.insert(key, Entry { job: None, stop, task });
    }
}

/// What tells an object from one that was made anew under its name.
fn uid(object: &Object) -> Option<&str> {
    object.original().pointer("/metadata/uid")?.as_str()
}
