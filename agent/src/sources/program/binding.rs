//! SinkBinding: tells ProgramSources where to send their events. It wins over what they say themselves, as in Knative.

use godwit_mesh::event::Value;
use godwit_mesh::manifest::{Destination, Kind, ObjectName, SourceKind, SourceSpec, Spec};
use godwit_mesh::source::{Job, Missing};
use serde_json::{Map, json};

/// What a program is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) sink: Destination,
    /// Whose sink it is: the SinkBinding, or the program's own object.
    pub(super) holder: ObjectName,
    pub(super) overrides: Vec<(String, Value)>,
}

impl Bound {
    /// What holds for a ProgramSource; the first binding by name, where there are several. `None`: nobody says.
    pub(super) fn of(job: &Job) -> Option<Self> {
        let objects = job.objects.borrow().clone();
        let labels = job.object.labels();
        let bindings = objects.iter().filter_map(|object| match object.spec() {
            Spec::Source(source) => match &source.what {
                SourceKind::Binding(subject) if subject.is(job.name(), labels) => Some(source),
                _ => None,
            },
            _ => None,
        });
        let own = job.spec();
        let binding = bindings.min_by(|a, b| a.name.cmp(&b.name));
        let from: &SourceSpec = binding.map_or(own, |binding| binding);
        let mut overrides = own.overrides.clone();
        if let Some(binding) = binding {
            overrides.retain(|(name, _)| !binding.overrides.iter().any(|(other, _)| other == name));
            overrides.extend(binding.overrides.iter().cloned());
        }
        Some(Self { sink: from.sink.clone()?, holder: from.name.clone(), overrides })
    }

    /// The environment of a program: its own variables, and Knative's two.
    pub(super) fn environment(&self, own: &[(String, String)], sink: &str) -> Vec<(String, String)> {
        let mut env = own.to_vec();
        env.retain(|(name, _)| name != "K_SINK" && name != "K_CE_OVERRIDES");
        env.push(("K_SINK".to_owned(), sink.to_owned()));
        if !self.overrides.is_empty() {
            let extensions: Map<_, _> =
                self.overrides.iter().map(|(name, value)| (name.clone(), value.to_text().into_owned().into())).collect();
            env.push(("K_CE_OVERRIDES".to_owned(), json!({"extensions": extensions}).to_string()));
        }
        env
    }
}

/// Runs a SinkBinding: says how it stands. What it binds looks for it.
pub(in crate::sources) async fn run(job: Job) {
    let SourceKind::Binding(subject) = &job.spec().what else { return };
    let mut objects = job.objects.clone();
    let resolved = async {
        // Says by itself what it waits for.
        let _found = job.sink().await;
        std::future::pending::<()>().await;
    };
    let mut resolved = std::pin::pin!(resolved);
    loop {
        let all = objects.borrow_and_update().clone();
        let programs = all.iter().filter(|o| o.kind() == Kind::ProgramSource && subject.is(o.name(), o.labels())).count();
        let state = if subject.kind != Kind::ProgramSource.resource().name {
            let why = format!(
                "{} is nothing that runs here; a ProgramSource is",
                subject.kind.chars().take(64).collect::<String>()
            );
            Err(Missing::new("SubjectUnsupported", why))
        } else if programs == 0 && subject.name.is_some() {
            Err(Missing::new("SubjectMissing", "there is no ProgramSource of this name"))
        } else {
            Ok(())
        };
        job.live.deployed(state);
        job.live.show("subjects", programs);
        tokio::select! {
            () = &mut resolved => {}
            Ok(()) = objects.changed() => {}
            () = job.stop.cancelled() => return,
        }
    }
}
