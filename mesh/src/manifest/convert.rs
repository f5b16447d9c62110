//! Objects of a kind's older versions, to and from the one in which they are stored.
//!
//! Only EventType has versions that differ in more than their name: `type`, `source` and `schema` became a list of attributes.

use serde_json::{Map, Value, json};

use super::kind::Kind;
use super::schema::Version;

/// Attributes of an EventType and the fields that they were, with whether Knative calls them required.
const FLAT: [(&str, &str, bool); 3] = [("type", "type", true), ("source", "source", true), ("schemadata", "schema", false)];

/// Rewrites `object`, valid in `version`, into the version in which its kind is stored.
pub(super) fn to_stored(kind: Kind, version: &Version, object: &mut Value) {
    let stored = kind.resource().stored();
    if version.name == stored.name {
        return;
    }
    set_version(kind, stored, object);
    if kind == Kind::EventType
        && let Some(Value::Object(spec)) = object.get_mut("spec")
    {
        list_attributes(spec);
    }
}

/// Rewrites a stored `object` into `version`.
pub fn from_stored(kind: Kind, version: &Version, object: &mut Value) {
    if version.name == kind.resource().stored().name {
        return;
    }
    set_version(kind, version, object);
    if kind == Kind::EventType
        && let Some(Value::Object(spec)) = object.get_mut("spec")
    {
        flatten_attributes(spec);
    }
}

fn set_version(kind: Kind, version: &Version, object: &mut Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert("apiVersion".to_owned(), Value::from(format!("{}/{}", kind.resource().group, version.name)));
    }
}

fn list_attributes(spec: &mut Map<String, Value>) {
    let mut attributes = Vec::new();
    // `schemaData` held the schema itself: it stands for the attribute where there is no URL.
    let data = spec.remove("schemaData").filter(|v| !v.is_null());
    for (name, field, required) in FLAT {
        let value = spec.remove(field).filter(|v| !v.is_null());
        let value = if field == "schema" { value.or_else(|| data.clone()) } else { value };
        if let Some(value) = value.filter(|v| v.as_str() != Some("")) {
            attributes.push(json!({"name": name, "required": required, "value": value}));
        }
    }
    let broker = spec.remove("broker").filter(|v| !v.is_null());
    if let Some(name) = broker
        && spec.get("reference").is_none_or(Value::is_null)
    {
        let api_version = Kind::Broker.resource().api_version();
        spec.insert("reference".to_owned(), json!({"apiVersion": api_version, "kind": "Broker", "name": name}));
    }
    spec.insert("attributes".to_owned(), Value::Array(attributes));
}

fn flatten_attributes(spec: &mut Map<String, Value>) {
    let attributes = spec.remove("attributes");
    spec.remove("variables");
    for attribute in attributes.as_ref().and_then(Value::as_array).into_iter().flatten() {
        let named = |(name, _, _): &&(&str, &str, bool)| attribute.get("name").and_then(Value::as_str) == Some(name);
        if let (Some((_, field, _)), Some(value)) = (FLAT.iter().find(named), attribute.get("value")) {
            spec.insert((*field).to_owned(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_type_goes_from_fields_to_attributes_and_back() {
        let flat = json!({
            "apiVersion": "eventing.knative.dev/v1beta2", "kind": "EventType", "metadata": {"name": "t"},
            "spec": {"type": "a.b", "source": "/x", "schema": "http://s/", "broker": "default", "description": "d"},
        });
        let mut object = flat.clone();
        let resource = Kind::EventType.resource();
        let v1beta2 = resource.version("v1beta2").expect("served");
        to_stored(Kind::EventType, v1beta2, &mut object);
        assert_eq!(object["apiVersion"], "eventing.knative.dev/v1beta3");
        assert_eq!(
            object["spec"],
            json!({
                "description": "d",
                "reference": {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "default"},
                "attributes": [
                    {"name": "type", "required": true, "value": "a.b"},
                    {"name": "source", "required": true, "value": "/x"},
                    {"name": "schemadata", "required": false, "value": "http://s/"},
                ],
            })
        );
        from_stored(Kind::EventType, v1beta2, &mut object);
        assert_eq!(object["spec"]["type"], "a.b");
        assert_eq!(object["spec"]["schema"], "http://s/");
        assert_eq!(object["apiVersion"], flat["apiVersion"]);
    }

    #[test]
    fn versions_that_differ_in_name_only_change_their_name() {
        let mut object = json!({"apiVersion": "sources.knative.dev/v1beta2", "spec": {"data": "x"}});
        let version = Kind::PingSource.resource().version("v1beta2").expect("served");
        to_stored(Kind::PingSource, version, &mut object);
        assert_eq!(object, json!({"apiVersion": "sources.knative.dev/v1", "spec": {"data": "x"}}));
    }
}
