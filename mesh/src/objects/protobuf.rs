//! The OpenAPI document of version 2 as protocol buffers, in the messages of `openapi.v2` (gnostic), of which only those parts
//! are written that our document has.

use serde_json::{Map, Value};

/// The document's media type.
pub(super) const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// As clients ask for it. The older name is no valid media type: those who send it refuse to read it.
pub(super) const ASKED_FOR: [&str; 2] = [MEDIA_TYPE, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"];

/// A message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n.to_le_bytes()[0] | 0x80);
            n >>= 7;
        }
        self.0.push(n.to_le_bytes()[0]);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u32, value: Option<&Value>) {
        if let Some(text) = value.and_then(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn boolean(&mut self, field: u32, value: bool) {
        if value {
            self.varint(u64::from(field) << 3);
            self.varint(1);
        }
    }

    fn double(&mut self, field: u32, value: f64) {
        self.varint(u64::from(field) << 3 | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn message(&mut self, field: u32, message: &Self) {
        self.bytes(field, &message.0);
    }

    /// A named member of a map.
    fn named(&mut self, field: u32, name: &str, value: &Self) {
        let mut pair = Self::default();
        pair.bytes(1, name.as_bytes());
        pair.message(2, value);
        self.message(field, &pair);
    }

    /// The members that begin with `x-`.
    fn extensions(&mut self, field: u32, object: &Map<String, Value>) {
        for (name, value) in object.iter().filter(|(name, _)| name.starts_with("x-")) {
            self.named(field, name, &any(value));
        }
    }
}

/// Any value, as YAML; JSON is YAML.
fn any(value: &Value) -> Message {
    let mut message = Message::default();
    message.bytes(2, value.to_string().as_bytes());
    message
}

fn members<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = (&'v String, &'v Value)> {
    value.get(name).and_then(Value::as_object).into_iter().flatten()
}

fn items<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// Encodes a document.
pub(super) fn document(document: &Value) -> Vec<u8> {
    let mut message = Message::default();
    message.text(1, document.get("swagger"));
    if let Some(info) = document.get("info") {
        let mut inner = Message::default();
        inner.text(1, info.get("title"));
        inner.text(2, info.get("version"));
        message.message(2, &inner);
    }
    let mut paths = Message::default();
    for (path, item) in members(document, "paths") {
        paths.named(2, path, &path_item(item));
    }
    message.message(8, &paths);
    let mut definitions = Message::default();
    for (name, definition) in members(document, "definitions") {
        definitions.named(1, name, &schema(definition));
    }
    message.message(9, &definitions);
    message.0
}

fn path_item(item: &Value) -> Message {
    let mut message = Message::default();
    for (field, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(Value::Object(found)) = item.get(method) {
            message.message(field, &operation(found));
        }
    }
    message
}

fn operation(operation: &Map<String, Value>) -> Message {
    let mut message = Message::default();
    message.text(5, operation.get("operationId"));
    for parameter in operation.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        let mut query = Message::default();
        query.text(2, parameter.get("in"));
        query.text(4, parameter.get("name"));
        query.text(6, parameter.get("type"));
        // ParametersItem { Parameter { NonBodyParameter { QueryParameterSubSchema } } }
        let mut around = query;
        for field in [3, 2, 1] {
            let mut outer = Message::default();
            outer.message(field, &around);
            around = outer;
        }
        message.message(8, &around);
    }
    let mut responses = Message::default();
    for (code, answer) in operation.get("responses").and_then(Value::as_object).into_iter().flatten() {
        let mut response = Message::default();
        response.text(1, answer.get("description"));
        if let Some(found) = answer.get("schema") {
            let mut item = Message::default();
            item.message(1, &schema(found));
            response.message(2, &item);
        }
        let mut value = Message::default();
        value.message(1, &response);
        responses.named(1, code, &value);
    }
    message.message(9, &responses);
    message.extensions(13, operation);
    message
}

fn schema(found: &Value) -> Message {
    let mut message = Message::default();
    message.text(1, found.get("$ref"));
    message.text(2, found.get("format"));
    message.text(4, found.get("description"));
    if let Some(least) = found.get("minimum").and_then(Value::as_f64) {
        message.double(9, least);
    }
    for name in items(found, "required") {
        message.text(19, Some(name));
    }
    for word in items(found, "enum") {
        message.message(20, &any(word));
    }
    match found.get("additionalProperties") {
        Some(Value::Bool(allowed)) => {
            let mut item = Message::default();
            item.boolean(2, *allowed);
            message.message(21, &item);
        }
        Some(inner) => {
            let mut item = Message::default();
            item.message(1, &schema(inner));
            message.message(21, &item);
        }
        None => {}
    }
    if let Some(name) = found.get("type") {
        let mut ty = Message::default();
        ty.text(1, Some(name));
        message.message(22, &ty);
    }
    if let Some(inner) = found.get("items") {
        let mut item = Message::default();
        item.message(1, &schema(inner));
        message.message(23, &item);
    }
    if found.get("properties").is_some() {
        let mut properties = Message::default();
        for (name, property) in members(found, "properties") {
            properties.named(1, name, &schema(property));
        }
        message.message(25, &properties);
    }
    if let Some(found) = found.as_object() {
        message.extensions(31, found);
    }
    message
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::objects::openapi;

    /// The fields of a message: number and content. Our messages have no other types on the wire but these three.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let (mut n, mut shift) = (0, 0);
            while let Some((&byte, rest)) = bytes.split_first() {
                *bytes = rest;
                n |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    break;
                }
            }
            n
        }
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let len = match tag & 7 {
                0 => {
                    found.push((tag >> 3, varint(&mut bytes).to_le_bytes().to_vec()));
                    continue;
                }
                1 => 8,
                2 => usize::try_from(varint(&mut bytes)).expect("a length"),
                other => panic!("wire type {other}"),
            };
            let (content, rest) = bytes.split_at(len);
            found.push((tag >> 3, content.to_vec()));
            bytes = rest;
        }
        found
    }

    fn get(bytes: &[u8], field: u64) -> Vec<u8> {
        fields(bytes).into_iter().find(|(number, _)| *number == field).unwrap_or_else(|| panic!("no field {field}")).1
    }

    /// The value of a named member.
    fn named(bytes: &[u8], field: u64, name: &str) -> Vec<u8> {
        let pairs = fields(bytes).into_iter().filter(|(number, _)| *number == field);
        let pair = pairs.map(|(_, pair)| pair).find(|pair| get(pair, 1) == name.as_bytes());
        get(&pair.unwrap_or_else(|| panic!("no member {name}")), 2)
    }

    #[test]
    fn the_document_says_in_messages_what_it_says_in_json() {
        let json = openapi::v2();
        let bytes = document(&json);
        assert_eq!(get(&bytes, 1), b"2.0");
        let paths = get(&bytes, 8);
        let path = "/apis/eventing.knative.dev/v1/namespaces/{namespace}/triggers/{name}";
        let patch = get(&named(&paths, 2, path), 8);
        let kind = get(&named(&patch, 13, "x-kubernetes-group-version-kind"), 2);
        let kind: Value = serde_json::from_slice(&kind).expect("YAML that is JSON");
        assert_eq!(kind, json!({"group": "eventing.knative.dev", "version": "v1", "kind": "Trigger"}));
        let parameters = fields(&patch).into_iter().filter(|(number, _)| *number == 8);
        let names: Vec<_> = parameters.map(|(_, p)| get(&get(&get(&get(&p, 1), 2), 3), 4)).collect();
        assert_eq!(names, [b"dryRun".to_vec(), b"fieldManager".to_vec(), b"fieldValidation".to_vec()]);

        let trigger = named(&get(&bytes, 9), 1, "dev.knative.eventing.v1.Trigger");
        assert_eq!(get(&get(&trigger, 22), 1), b"object");
        let spec = named(&get(&trigger, 25), 1, "spec");
        assert_eq!(get(&spec, 19), b"subscriber");
        let retry = named(&get(&named(&get(&spec, 25), 1, "delivery"), 25), 1, "retry");
        assert_eq!(get(&get(&retry, 22), 1), b"integer");
        assert_eq!(fields(&get(&bytes, 9)).len(), json["definitions"].as_object().map_or(0, Map::len));
    }
}
