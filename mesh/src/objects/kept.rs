//! The objects that came over the API, as they are kept in redb.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::ApiError;
use crate::manifest::{Kind, Object, ObjectKey, ObjectName, Strictness};
use crate::state::{Op, State, StateError, Table};

/// Objects by `group/plural/namespace/name`.
const OBJECTS: Table<Row> = Table::new("objects");

/// How often this state was opened.
const STARTS: Table<u64> = Table::new("objects-starts");
const STARTS_KEY: &[u8] = b"starts";

/// One object: its JSON without status and resourceVersion.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    object: String,
}

/// Where the objects are kept. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Kept(State);

impl Kept {
    pub(super) fn new(state: State) -> Self {
        Self(state)
    }

    /// Reads all objects, and counts this start. What cannot be read or is no longer valid is logged and left where it is.
    pub(super) async fn open(&self) -> (Vec<Object>, u64) {
        let state = self.0.clone();
        let read = tokio::task::spawn_blocking(move || {
            let start = state.get(STARTS, STARTS_KEY).ok().flatten().unwrap_or(0) + 1;
            if let Err(error) = state.put(STARTS, STARTS_KEY, &start) {
                tracing::warn!(%error, "this start cannot be counted: watches may take old revisions for new");
            }
            (state.scan(OBJECTS, b""), start)
        });
        let (rows, start) = match read.await {
            Ok((Ok(rows), start)) => (rows, start),
            Ok((Err(error), start)) => {
                tracing::error!(%error, "the objects of the API cannot be read; their Triggers wait where they stand");
                return (Vec::new(), start);
            }
            Err(error) => {
                tracing::error!(%error, "reading the objects of the API was cut short");
                return (Vec::new(), 1);
            }
        };
        let mut objects = Vec::new();
        for (key, row) in rows {
            let value: Option<Value> = serde_json::from_str(&row.object).ok();
            match value.map(|value| Object::read("the API", value, Strictness::Ignore)) {
                Some(Ok(object)) => objects.push(object),
                Some(Err(rejected)) => {
                    let why = rejected.all().first().map(ToString::to_string).unwrap_or_default();
                    tracing::error!(object = %String::from_utf8_lossy(&key), why, "an object of the API is not valid any more");
                }
                None => tracing::error!(object = %String::from_utf8_lossy(&key), "an object of the API is no JSON"),
            }
        }
        (objects, start)
    }

    /// Keeps an object durably.
    pub(super) async fn put(&self, object: &Object) -> Result<(), ApiError> {
        self.apply(vec![row(object)?]).await
    }

    /// Removes an object durably.
    pub(super) async fn delete(&self, kind: Kind, name: &ObjectName) -> Result<(), ApiError> {
        self.apply(vec![OBJECTS.delete(&key(kind, name))]).await
    }

    /// Keeps the `marked` and removes what is `gone`, durably and in one commit.
    pub(super) async fn settle(&self, marked: &[Object], gone: &[ObjectKey]) -> Result<(), ApiError> {
        let mut ops = marked.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        ops.extend(gone.iter().map(|gone| OBJECTS.delete(&key(gone.kind, &gone.name))));
        self.apply(ops).await
    }

    async fn apply(&self, ops: Vec<Op>) -> Result<(), ApiError> {
        let state = Arc::new(self.0.clone());
        let done = tokio::task::spawn_blocking(move || state.apply(&ops)).await;
        match done {
            Ok(done) => done.map_err(|e: StateError| e.into()),
            Err(error) => Err(ApiError::Unavailable(format!("keeping the object was cut short: {error}"))),
        }
    }
}

/// An object's row.
fn row(object: &Object) -> Result<Op, StateError> {
    OBJECTS.put(&key(object.kind(), object.name()), &Row { object: object.original().to_string() })
}

fn key(kind: Kind, name: &ObjectName) -> Vec<u8> {
    let resource = kind.resource();
    format!("{}/{}/{}/{}", resource.group, resource.plural, name.namespace, name.name).into_bytes()
}
