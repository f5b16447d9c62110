//! Objects as JSON: whether one is of the kind and at the place that a request names, what of it may change, and whether it has.

use serde_json::{Map, Value};

use super::error::ApiError;
use super::view::Key;
use crate::manifest::{FieldError, Kind};

/// The annotation of a Broker that never changes.
const CLASS: &str = "eventing.knative.dev/broker.class";

/// A text of ours as JSON.
pub(super) fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// Rewrites a stored object into the version named.
pub(super) fn convert(kind: Kind, api_version: &str, object: &mut Value) -> Result<(), ApiError> {
    let name = api_version.rsplit('/').next().unwrap_or_default();
    let version = kind.resource().version(name);
    let version = version.ok_or_else(|| ApiError::NotFound(format!("there is no version {api_version} of {kind}")))?;
    crate::manifest::from_stored(kind, version, object);
    Ok(())
}

/// An object that is of the kind and at the place that the path names.
pub(super) fn placed(kind: Kind, namespace: &str, name: Option<&str>, object: Value) -> Result<Value, ApiError> {
    let mut object = object;
    let Value::Object(map) = &mut object else {
        return Err(ApiError::BadRequest("the body is not an object".to_owned()));
    };
    map.shift_remove("status");
    match map.get("kind").and_then(Value::as_str) {
        None => {
            map.insert("kind".to_owned(), kind.resource().name.into());
        }
        Some(written) if written == kind.resource().name => {}
        Some(written) => {
            let why = format!("the object is a {}, and this is the path for a {kind}", cut(written));
            return Err(ApiError::BadRequest(why));
        }
    }
    map.entry("apiVersion").or_insert_with(|| kind.resource().api_version().into());
    let metadata = map.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(metadata) = metadata else {
        return Err(ApiError::BadRequest("metadata is not an object".to_owned()));
    };
    for (field, expected) in [("namespace", Some(namespace)), ("name", name)] {
        let Some(expected) = expected else { continue };
        match metadata.get(field).and_then(Value::as_str).filter(|t| !t.is_empty()) {
            None => {
                metadata.insert(field.to_owned(), expected.into());
            }
            Some(written) if written == expected => {}
            Some(written) => {
                let why = format!(
                    "the {field} of the provided object does not match the {field} sent on the request ({} and {expected})",
                    cut(written)
                );
                return Err(ApiError::BadRequest(why));
            }
        }
    }
    Ok(object)
}

fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}

/// The beginning of the name that the server is to make.
pub(super) fn unnamed(object: &Value) -> Option<String> {
    let text = |name: &str| object.pointer(name).and_then(Value::as_str).filter(|t| !t.is_empty());
    if text("/metadata/name").is_some() {
        return None;
    }
    text("/metadata/generateName").map(|prefix| prefix.chars().take(200).collect())
}

pub(super) fn name_of(object: &Value) -> String {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned()
}

pub(super) fn set_metadata(object: &mut Value, name: &str, value: Value) {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.insert(name.to_owned(), value);
    }
}

/// Whether a change leaves all as it is but for what the server sets.
pub(super) fn same(before: &Value, after: &Value) -> bool {
    let written = |object: &Value| {
        let mut object = object.clone();
        if let Some(map) = object.as_object_mut() {
            map.shift_remove("status");
        }
        if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            for name in ["resourceVersion", "generation"] {
                metadata.shift_remove(name);
            }
            // When a manager last said the same is no change.
            if let Some(Value::Array(managers)) = metadata.get_mut("managedFields") {
                for manager in managers.iter_mut().filter_map(Value::as_object_mut) {
                    manager.shift_remove("time");
                }
            }
        }
        object
    };
    written(before) == written(after)
}

/// What D27 forbids to change; a Trigger's Broker is looked after where Triggers are applied.
pub(super) fn never_changing(key: &Key, before: &Value, after: &Value) -> Result<(), ApiError> {
    if key.kind != Kind::Broker {
        return Ok(());
    }
    let class = |o: &Value| o.pointer("/metadata/annotations").and_then(|a| a.get(CLASS)).cloned();
    let config = |o: &Value| o.pointer("/spec/config").cloned();
    let mut fields = Vec::new();
    if class(before) != class(after) {
        fields.push(FieldError::new(format!("metadata.annotations[{CLASS}]"), "cannot change; delete the Broker first"));
    }
    if config(before).is_some() && config(before) != config(after) {
        fields.push(FieldError::new("spec.config", "cannot change; delete the Broker first"));
    }
    if fields.is_empty() {
        return Ok(());
    }
    Err(ApiError::Invalid { kind: key.kind, name: key.name.name.clone(), fields })
}

/// About how many bytes an object takes as JSON.
pub(super) fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|item| size(item) + 1).sum::<usize>() + 2,
        Value::Object(map) => map.iter().map(|(name, value)| name.len() + 4 + size(value)).sum::<usize>() + 2,
        Value::Null | Value::Bool(_) | Value::Number(_) => 5,
    }
}
