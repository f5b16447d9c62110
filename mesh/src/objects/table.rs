//! Lists as tables, the way `kubectl get` asks for them.

use serde_json::{Value, json};

use super::jsonpath::Path;
use super::when;
use crate::clock::Clock;
use crate::manifest::schema::Version;

/// How much of each object stands beside its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    Nothing,
    Metadata,
    Whole,
}

/// The table's columns.
pub(super) fn columns(version: &Version) -> Value {
    let name = json!({
        "name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "Name, unique among the objects of its kind in the namespace.",
    });
    let others = version.columns.iter().map(|column| {
        json!({
            "name": column.name,
            "type": if column.name == "Age" { "date" } else { "string" },
            "format": "", "description": "", "priority": column.priority,
        })
    });
    std::iter::once(name).chain(others).collect()
}

/// One object's row.
pub(super) fn row(version: &Version, object: &Value, beside: Beside, clock: &Clock) -> Value {
    let name = object.pointer("/metadata/name").cloned().unwrap_or_default();
    let cells = version.columns.iter().map(|column| cell(object, column.path, column.name == "Age", clock));
    let cells: Vec<Value> = std::iter::once(name).chain(cells).collect();
    let mut row = json!({ "cells": cells });
    let beside = match beside {
        Beside::Nothing => return row,
        Beside::Metadata => json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": object.get("metadata"),
        }),
        Beside::Whole => object.clone(),
    };
    if let Some(row) = row.as_object_mut() {
        row.insert("object".to_owned(), beside);
    }
    row
}

fn cell(object: &Value, path: &str, date: bool, clock: &Clock) -> Value {
    let path = Path::parse(path);
    let found = path.as_ref().and_then(|path| path.find(object).into_iter().next());
    match found {
        Some(Value::String(text)) if date => {
            let age = when::parse(text).zip(clock.wall_ms()).map(|(made, now)| when::age(now.saturating_sub(made)));
            age.unwrap_or_else(|| "<unknown>".to_owned()).into()
        }
        None if date => "<unknown>".into(),
        Some(Value::String(text)) => text.as_str().into(),
        Some(Value::Null) | None => Value::Null,
        Some(other) => other.to_string().into(),
    }
}

/// The table around rows.
pub(super) fn table(columns: &Value, rows: &[Value], metadata: &Value) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::EARLIEST_VALID_MS;
    use crate::manifest::Kind;

    #[test]
    fn a_row_has_a_cell_for_each_column() {
        let version = Kind::Trigger.resource().stored();
        let clock = Clock::manual(i64::try_from(EARLIEST_VALID_MS + 432_000).expect("a time"));
        let object = json!({
            "metadata": {"name": "t", "creationTimestamp": when::rfc3339(EARLIEST_VALID_MS)},
            "spec": {"broker": "default"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        let row = row(version, &object, Beside::Metadata, &clock);
        assert_eq!(row["cells"], json!(["t", "default", null, "7m12s", "True", null]));
        assert_eq!(row["object"]["metadata"]["name"], "t");
        assert_eq!(columns(version).as_array().map(Vec::len), Some(6));
    }
}
