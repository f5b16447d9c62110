//! Patches: JSON merge patch (RFC 7396) and JSON patch (RFC 6902).

use serde_json::{Map, Value};
use thiserror::Error;

/// Most operations in one JSON patch, as in Kubernetes.
const MAX_OPERATIONS: usize = 10_000;

/// Most bytes of JSON that a patch may copy: as many as a body may bring.
const MAX_COPIED: usize = 1 << 20;

/// Why a patch cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum PatchError {
    /// The patch is not one.
    #[error("the patch is not valid: {0}")]
    Malformed(String),
    /// The patch does not fit the object.
    #[error("operation {at} ({op} {path}): {why}")]
    Fails {
        /// The operation, from 0.
        at: usize,
        /// Its name.
        op: String,
        /// Its path.
        path: String,
        /// What does not fit.
        why: &'static str,
    },
}

/// Applies a JSON merge patch: members are replaced, those that are `null` in the patch go.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            map.remove(name);
        } else {
            merge(map.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Applies a JSON patch: all operations, or an error.
///
/// # Errors
/// [`PatchError`]; the target is then in no state to be used.
pub(super) fn json(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let malformed = |why: &str| PatchError::Malformed(why.to_owned());
    let operations = patch.as_array().ok_or_else(|| malformed("a JSON patch is a list of operations"))?;
    if operations.len() > MAX_OPERATIONS {
        return Err(malformed("more than 10000 operations"));
    }
    let mut copied = 0;
    for (at, operation) in operations.iter().enumerate() {
        let text = |name: &str| operation.get(name).and_then(Value::as_str);
        let (op, path) = (text("op").unwrap_or_default(), text("path"));
        let path = path.ok_or_else(|| malformed("an operation has no path"))?;
        let fails = |why| PatchError::Fails { at, op: op.to_owned(), path: path.to_owned(), why };
        let value = || operation.get("value").cloned().ok_or_else(|| fails("it has no value"));
        let from = || text("from").ok_or_else(|| fails("it has no from"));
        match op {
            "add" => add(target, path, value()?).map_err(fails)?,
            "remove" => remove(target, path).map(drop).map_err(fails)?,
            "replace" => *target.pointer_mut(path).ok_or_else(|| fails("there is nothing at the path"))? = value()?,
            "move" => {
                let from = from()?;
                if path.strip_prefix(from).is_some_and(|rest| rest.starts_with('/')) {
                    return Err(fails("a value cannot be moved into itself"));
                }
                let moved = remove(target, from).map_err(fails)?;
                add(target, path, moved).map_err(fails)?;
            }
            "copy" => {
                let value = target.pointer(from()?).cloned().ok_or_else(|| fails("there is nothing at from"))?;
                copied += value.to_string().len();
                if copied > MAX_COPIED {
                    return Err(fails("the patch copies too much"));
                }
                add(target, path, value).map_err(fails)?;
            }
            "test" => {
                if target.pointer(path) != Some(&value()?) {
                    return Err(fails("the value is another"));
                }
            }
            _ => return Err(fails("there is no such operation")),
        }
    }
    Ok(())
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), &'static str> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    let (parent, last) = path.rsplit_once('/').ok_or("a path begins with a slash")?;
    match target.pointer_mut(parent).ok_or("there is nothing at the path")? {
        Value::Object(map) => {
            map.insert(unescaped(last), value);
            Ok(())
        }
        Value::Array(items) => {
            let at = if last == "-" { items.len() } else { index(last)? };
            if at > items.len() {
                return Err("the list is shorter");
            }
            items.insert(at, value);
            Ok(())
        }
        _ => Err("there is neither an object nor a list at the path"),
    }
}

fn remove(target: &mut Value, path: &str) -> Result<Value, &'static str> {
    let (parent, last) = path.rsplit_once('/').ok_or("the whole object cannot be removed")?;
    match target.pointer_mut(parent).ok_or("there is nothing at the path")? {
        // Shifted, so that the order of what stays is kept.
        Value::Object(map) => map.shift_remove(&unescaped(last)).ok_or("there is nothing at the path"),
        Value::Array(items) => {
            let at = index(last)?;
            if at < items.len() { Ok(items.remove(at)) } else { Err("the list is shorter") }
        }
        _ => Err("there is nothing at the path"),
    }
}

fn index(text: &str) -> Result<usize, &'static str> {
    if text.len() > 1 && text.starts_with('0') {
        return Err("an index has no zeros in front");
    }
    text.parse().map_err(|_| "the path names no index of a list")
}

fn unescaped(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
pub(in crate::objects) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_merge_patch_sets_and_removes_members() {
        // The example of RFC 7396, section 3.
        let mut target =
            json!({"title": "Goodbye!", "author": {"given": "John", "family": "Doe"}, "tags": ["a", "b"], "c": "x"});
        let patch = json!({"title": "Hello!", "phone": "+01", "author": {"family": null}, "tags": ["a"]});
        merge(&mut target, &patch);
        assert_eq!(
            target,
            json!({"title": "Hello!", "author": {"given": "John"}, "tags": ["a"], "c": "x", "phone": "+01"})
        );
        let mut number = json!(1);
        merge(&mut number, &json!({"a": {"b": null}}));
        assert_eq!(number, json!({"a": {}}));
    }

    #[test]
    fn a_json_patch_does_its_operations_in_order() {
        let mut target = json!({"foo": {"bar": "baz", "a/b": 1}, "list": [1, 2]});
        let patch = json!([
            {"op": "test", "path": "/foo/a~1b", "value": 1},
            {"op": "add", "path": "/list/1", "value": 9},
            {"op": "add", "path": "/list/-", "value": 3},
            {"op": "remove", "path": "/list/0"},
            {"op": "replace", "path": "/foo/bar", "value": "qux"},
            {"op": "move", "from": "/foo/a~1b", "path": "/moved"},
            {"op": "copy", "from": "/foo/bar", "path": "/copied"},
        ]);
        json(&mut target, &patch).expect("applied");
        assert_eq!(target, json!({"foo": {"bar": "qux"}, "list": [9, 2, 3], "moved": 1, "copied": "qux"}));
    }

    #[test]
    fn an_operation_that_does_not_fit_is_named() {
        for (operation, why) in [
            (json!({"op": "test", "path": "/a", "value": 2}), "another"),
            (json!({"op": "remove", "path": "/b"}), "nothing"),
            (json!({"op": "add", "path": "/l/5", "value": 1}), "shorter"),
            (json!({"op": "add", "path": "/l/01", "value": 1}), "zeros"),
            (json!({"op": "add", "path": "/x/y", "value": 1}), "nothing"),
            (json!({"op": "move", "from": "/a", "path": "/a/b"}), "itself"),
            (json!({"op": "jump", "path": "/a"}), "no such"),
        ] {
            let error = json(&mut json!({"a": 1, "l": [1]}), &json!([operation])).expect_err(why);
            assert!(error.to_string().contains(why), "{error}");
        }
        assert!(json(&mut json!({}), &json!({})).is_err());
    }

    #[test]
    fn copies_cannot_grow_an_object_without_end() {
        let mut patch = Vec::new();
        for n in 0..40 {
            patch.push(json!({"op": "copy", "from": "", "path": format!("/x{n}")}));
        }
        assert!(json(&mut json!({"a": "b"}), &Value::Array(patch)).is_err());
    }

    pub(in crate::objects) fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), any::<i32>().prop_map(Value::from), "[a-c]{0,2}".prop_map(Value::from)];
        leaf.prop_recursive(3, 16, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-c]", inner, 0..3).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_merge_patch_once_more_changes_nothing(mut target in value(), patch in value()) {
            merge(&mut target, &patch);
            let once = target.clone();
            merge(&mut target, &patch);
            prop_assert_eq!(target, once);
        }

        #[test]
        fn any_json_is_a_patch_or_refused(mut target in value(), op in "add|remove|move|copy|test|replace", path in "(/[a-c0-9-]{0,2}){0,3}", value in value()) {
            let _ = json(&mut target, &json!([{"op": op, "path": path, "from": "/a", "value": value}]));
        }
    }
}
