//! Who set which field: `metadata.managedFields`, as server-side apply needs it.
//!
//! A set of fields is kept as paths of member names that lead to values without members of their own; lists are values as a whole,
//! as in every CRD of Knative. Who applies an object holds the fields in it; a field that somebody else holds with another
//! value is a conflict, unless forced; a field that is applied no more goes unless somebody else holds it. Whoever changes a
//! field in another way takes it from all others.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// Most managers of one object; the fields of the oldest go to one named [`EARLIER`].
const MAX_MANAGERS: usize = 16;

/// Longest name of a manager in bytes, as in Kubernetes.
pub(super) const MAX_MANAGER_BYTES: usize = 128;

/// Holds the fields of managers that there was no more room for.
const EARLIER: &str = "earlier";

/// Deepest path that is looked into; below, values are taken as a whole.
const MAX_DEPTH: usize = 32;

/// Metadata that the server sets, and what names the object: nobody's fields.
const NOBODYS: [&str; 11] = [
    "name",
    "namespace",
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];

type Path = Vec<String>;

/// Paths of fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Fields(BTreeSet<Path>);

/// One manager and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Manager {
    name: String,
    applies: bool,
    api_version: String,
    time: Option<String>,
    fields: Fields,
}

/// The managers of one object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Managed(Vec<Manager>);

/// Who is changing an object, in which version and when.
#[derive(Debug, Clone)]
pub(super) struct Author<'a> {
    pub(super) manager: &'a str,
    pub(super) api_version: &'a str,
    pub(super) time: Option<String>,
}

/// A field that somebody else holds with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldConflict {
    /// Who holds it.
    pub manager: String,
    /// As in `.spec.broker`.
    pub field: String,
}

impl Managed {
    /// Reads `metadata.managedFields`; what cannot be read is left out.
    pub(super) fn of(object: &Value) -> Self {
        let list = object.pointer("/metadata/managedFields").and_then(Value::as_array);
        let read = |entry: &Value| {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).map(str::to_owned);
            Some(Manager {
                name: text("manager").filter(|name| name.len() <= MAX_MANAGER_BYTES)?,
                applies: text("operation").as_deref() == Some("Apply"),
                api_version: text("apiVersion").unwrap_or_default(),
                time: text("time"),
                fields: Fields::from_json(entry.get("fieldsV1")?),
            })
        };
        Self(list.into_iter().flatten().filter_map(read).take(4 * MAX_MANAGERS).collect())
    }

    /// Puts the managers into `metadata.managedFields`.
    pub(super) fn put(&self, object: &mut Value) {
        let Some(Value::Object(metadata)) = object.get_mut("metadata") else { return };
        metadata.shift_remove("managedFields");
        if !self.0.is_empty() {
            let list = self.0.iter().map(Manager::to_json).collect();
            metadata.insert("managedFields".to_owned(), Value::Array(list));
        }
    }

    /// Notes that `author` has changed the object from `before` to `after` by create, update or patch.
    pub(super) fn updated(&mut self, before: Option<&Value>, after: &Value, author: &Author<'_>) {
        let now = Fields::of(after);
        let was = before.map(Fields::of).unwrap_or_default();
        let value = |object: Option<&Value>, path: &Path| object.and_then(|o| at(o, path)).cloned();
        let changed: BTreeSet<Path> =
            now.0.iter().filter(|path| value(before, path) != value(Some(after), path)).cloned().collect();
        let gone: Vec<&Path> = was.0.difference(&now.0).collect();
        for manager in &mut self.0 {
            let own = manager.name == author.manager && !manager.applies;
            manager.fields.0.retain(|path| !gone.contains(&path) && (own || !changed.contains(path)));
        }
        if !changed.is_empty() {
            let mine = self.manager(author, false);
            mine.fields.0.extend(changed);
            mine.time.clone_from(&author.time);
        }
        self.tidy();
    }

    /// Lays `applied` over `live` for `author`.
    ///
    /// # Errors
    /// The fields that others hold with another value, unless `force` takes them.
    pub(super) fn apply(
        &mut self,
        live: &Value,
        applied: &Value,
        author: &Author<'_>,
        force: bool,
    ) -> Result<Value, Vec<FieldConflict>> {
        let mut wanted = Fields::of(applied);
        // An empty object says that there is one, not that there is nothing in it.
        let empty = |path: &Path| at(applied, path).and_then(Value::as_object).is_some_and(Map::is_empty);
        wanted.0.retain(|path| !(empty(path) && at(live, path).is_some_and(Value::is_object)));
        let is_mine = |m: &Manager| m.applies && m.name == author.manager;
        let differs = |path: &Path| at(live, path) != at(applied, path);
        let mut conflicts = Vec::new();
        for other in self.0.iter_mut().filter(|m| !is_mine(m)) {
            let clash: Vec<Path> =
                other.fields.0.iter().filter(|held| wanted.touches(held) && differs(held)).cloned().collect();
            for path in clash {
                conflicts.push(FieldConflict { manager: other.name.clone(), field: shown(&path) });
                other.fields.0.remove(&path);
            }
        }
        if !conflicts.is_empty() && !force {
            return Err(conflicts);
        }
        let before = self.0.iter().find(|m| is_mine(m)).map(|m| m.fields.clone()).unwrap_or_default();
        let mut merged = live.clone();
        for path in before.0.iter().filter(|path| !wanted.touches(path)) {
            let held = self.0.iter().any(|m| !is_mine(m) && m.fields.touches(path));
            if !held {
                remove(&mut merged, path);
            }
        }
        for path in &wanted.0 {
            if let Some(value) = at(applied, path) {
                set(&mut merged, path, value.clone());
            }
        }
        let mine = self.manager(author, true);
        mine.fields = wanted;
        mine.time.clone_from(&author.time);
        self.tidy();
        Ok(merged)
    }

    fn manager(&mut self, author: &Author<'_>, applies: bool) -> &mut Manager {
        let found = self.0.iter().position(|m| m.applies == applies && m.name == author.manager);
        let at = found.unwrap_or_else(|| {
            self.0.push(Manager {
                name: author.manager.to_owned(),
                applies,
                api_version: author.api_version.to_owned(),
                time: None,
                fields: Fields::default(),
            });
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    fn tidy(&mut self) {
        self.0.retain(|m| !m.fields.0.is_empty());
        while self.0.len() > MAX_MANAGERS {
            let oldest = self.0.remove(0);
            match self.0.iter_mut().find(|m| m.name == EARLIER && !m.applies) {
                Some(earlier) => earlier.fields.0.extend(oldest.fields.0),
                None => self.0.push(Manager { name: EARLIER.to_owned(), applies: false, time: None, ..oldest }),
            }
        }
    }
}

impl Manager {
    fn to_json(&self) -> Value {
        let mut entry = json!({
            "manager": self.name,
            "operation": if self.applies { "Apply" } else { "Update" },
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_json(),
        });
        if let (Some(time), Some(entry)) = (&self.time, entry.as_object_mut()) {
            entry.insert("time".to_owned(), Value::from(time.clone()));
        }
        entry
    }
}

impl Fields {
    /// The fields of an object that somebody can hold.
    fn of(object: &Value) -> Self {
        let mut fields = Self::default();
        for (name, value) in object.as_object().into_iter().flatten() {
            match name.as_str() {
                "apiVersion" | "kind" | "status" => {}
                "metadata" => {
                    let own = value.as_object().into_iter().flatten().filter(|(n, _)| !NOBODYS.contains(&n.as_str()));
                    for (name, value) in own {
                        fields.take(&mut vec!["metadata".to_owned(), name.clone()], value);
                    }
                }
                _ => fields.take(&mut vec![name.clone()], value),
            }
        }
        fields
    }

    fn take(&mut self, path: &mut Path, value: &Value) {
        match value {
            Value::Object(map) if !map.is_empty() && path.len() < MAX_DEPTH => {
                for (name, value) in map {
                    path.push(name.clone());
                    self.take(path, value);
                    path.pop();
                }
            }
            _ => {
                self.0.insert(path.clone());
            }
        }
    }

    /// Whether one of these is the path, stands above it, or below it.
    fn touches(&self, path: &Path) -> bool {
        self.0.contains(path) || self.0.iter().any(|held| held.starts_with(path) || path.starts_with(held))
    }

    fn from_json(json: &Value) -> Self {
        fn walk(node: &Value, path: &mut Path, fields: &mut Fields) {
            let members: Vec<_> = node
                .as_object()
                .into_iter()
                .flatten()
                .filter_map(|(name, inner)| Some((name.strip_prefix("f:")?, inner)))
                .collect();
            if members.is_empty() || path.len() >= MAX_DEPTH {
                if !path.is_empty() {
                    fields.0.insert(path.clone());
                }
                return;
            }
            for (name, inner) in members {
                path.push(name.to_owned());
                walk(inner, path, fields);
                path.pop();
            }
        }
        let mut fields = Self::default();
        walk(json, &mut Vec::new(), &mut fields);
        fields
    }

    fn to_json(&self) -> Value {
        let mut root = Map::new();
        for path in &self.0 {
            let mut map = &mut root;
            for name in path {
                let inner = map.entry(format!("f:{name}")).or_insert_with(|| Value::Object(Map::new()));
                let Value::Object(inner) = inner else { break };
                map = inner;
            }
        }
        Value::Object(root)
    }
}

fn at<'v>(object: &'v Value, path: &Path) -> Option<&'v Value> {
    path.iter().try_fold(object, |at, name| at.get(name))
}

fn set(object: &mut Value, path: &Path, value: Value) {
    let mut at = object;
    for name in path {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(map) = at else { return };
        at = map.entry(name.clone()).or_insert(Value::Null);
    }
    *at = value;
}

/// Removes a field, and the objects around it that are empty then.
fn remove(object: &mut Value, path: &[String]) {
    let (Value::Object(map), Some((name, rest))) = (object, path.split_first()) else { return };
    if rest.is_empty() {
        map.shift_remove(name);
        return;
    }
    let Some(inner) = map.get_mut(name) else { return };
    remove(inner, rest);
    let empty = inner.as_object().is_some_and(Map::is_empty);
    if empty && !matches!(name.as_str(), "metadata" | "spec") {
        map.shift_remove(name);
    }
}

fn shown(path: &Path) -> String {
    path.iter().map(|name| format!(".{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn author(manager: &str) -> Author<'_> {
        Author { manager, api_version: "v1", time: None }
    }

    fn apply(live: &mut Value, applied: &Value, manager: &str, force: bool) -> Result<(), Vec<FieldConflict>> {
        let mut managed = Managed::of(live);
        let mut merged = managed.apply(live, applied, &author(manager), force)?;
        managed.put(&mut merged);
        *live = merged;
        Ok(())
    }

    fn base() -> Value {
        json!({"metadata": {"name": "t"}, "spec": {}})
    }

    #[test]
    fn a_field_that_is_applied_no_more_goes_unless_another_holds_it() {
        let mut live = base();
        apply(&mut live, &json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"x": {"y": 1}}}), "one", false)
            .expect("no conflict");
        apply(&mut live, &json!({"metadata": {"labels": {"b": "2"}}}), "two", false).expect("the same value");
        apply(&mut live, &json!({"spec": {"z": [1]}}), "one", false).expect("no conflict");
        assert_eq!(live["metadata"]["labels"], json!({"b": "2"}), "two holds it still");
        assert_eq!(live["spec"], json!({"z": [1]}));
    }

    #[test]
    fn another_value_for_a_field_of_another_is_a_conflict_unless_forced() {
        let mut live = base();
        apply(&mut live, &json!({"spec": {"broker": "a"}}), "one", false).expect("no conflict");
        let conflicts = apply(&mut live, &json!({"spec": {"broker": "b"}}), "two", false).expect_err("held by one");
        assert_eq!(conflicts, [FieldConflict { manager: "one".to_owned(), field: ".spec.broker".to_owned() }]);
        apply(&mut live, &json!({"spec": {"broker": "b"}}), "two", true).expect("forced");
        assert_eq!(live["spec"]["broker"], "b");
        let managed = Managed::of(&live);
        assert_eq!(managed.0.len(), 1, "one holds nothing any more: {managed:?}");
    }

    #[test]
    fn an_update_takes_what_it_changes_from_all_others() {
        let mut live = base();
        apply(&mut live, &json!({"spec": {"broker": "a", "keep": 1}}), "one", false).expect("no conflict");
        let mut after = live.clone();
        after["spec"]["broker"] = json!("b");
        let mut managed = Managed::of(&live);
        managed.updated(Some(&live), &after, &author("edit"));
        managed.put(&mut after);
        let held: Vec<_> = Managed::of(&after).0.into_iter().map(|m| (m.name, m.applies, m.fields.0.len())).collect();
        assert_eq!(held, [("one".to_owned(), true, 1), ("edit".to_owned(), false, 1)]);
        assert!(apply(&mut after, &json!({"spec": {"broker": "a", "keep": 1}}), "one", false).is_err());
    }

    #[test]
    fn fields_are_written_and_read_as_kubernetes_does() {
        let object = json!({"metadata": {"name": "x", "uid": "u", "labels": {"a.b/c": "1"}}, "spec": {"l": [1], "e": {}}});
        let json = Fields::of(&object).to_json();
        assert_eq!(json, json!({"f:metadata": {"f:labels": {"f:a.b/c": {}}}, "f:spec": {"f:e": {}, "f:l": {}}}));
        assert_eq!(Fields::from_json(&json), Fields::of(&object));
        let kubernetes = json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}});
        assert_eq!(Fields::from_json(&kubernetes).0.len(), 1);
    }

    #[test]
    fn the_number_of_managers_is_bounded() {
        let mut live = base();
        for n in 0..100 {
            let mut after = live.clone();
            after["spec"][format!("f{n}")] = json!(1);
            let mut managed = Managed::of(&live);
            let name = format!("m{n}");
            managed.updated(Some(&live), &after, &author(&name));
            managed.put(&mut after);
            live = after;
        }
        let managed = Managed::of(&live);
        assert!(managed.0.len() <= MAX_MANAGERS);
        assert_eq!(managed.0.iter().map(|m| m.fields.0.len()).sum::<usize>(), 100, "no field is lost");
    }
}
