//! OpenAPI documents and CRDs, made from the tables of kinds when somebody asks.
//!
//! `kubectl` reads them to check manifests, to find out what the server can do, and to explain fields. Version 2 is one document
//! (older clients want it as protocol buffers), version 3 one for each group and version.

use serde_json::{Map, Value, json};

use super::discovery;
use crate::manifest::schema::{METADATA, RESOURCES, Resource, Shape, Type, Version};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const GVK: &str = "x-kubernetes-group-version-kind";
const OPEN: &str = "x-kubernetes-preserve-unknown-fields";

/// Which version of OpenAPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

/// The document of version 2.
#[must_use]
pub fn v2() -> Value {
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    definitions.insert(META.to_owned(), shape(&METADATA, "Metadata of an object."));
    for resource in &RESOURCES {
        for version in resource.versions {
            definitions.insert(definition_name(resource, version), object(resource, version, Dialect::V2));
            add_paths(&mut paths, resource, version, Dialect::V2);
        }
    }
    json!({"swagger": "2.0", "info": info(), "paths": paths, "definitions": definitions})
}

/// The index of version 3.
#[must_use]
pub fn v3_index() -> Value {
    let mut paths = Map::new();
    for group in discovery::group_names() {
        for version in discovery::versions(group) {
            let name = format!("apis/{group}/{version}");
            // Clients may keep what stands behind this for ever: it changes with our version.
            let url = format!("/openapi/v3/{name}?hash={}", env!("CARGO_PKG_VERSION"));
            paths.insert(name, json!({ "serverRelativeURL": url }));
        }
    }
    json!({ "paths": paths })
}

/// The document of version 3 for one group and version; `None` if there is none.
#[must_use]
pub fn v3(group: &str, version: &str) -> Option<Value> {
    let served = discovery::served(group, version);
    if served.is_empty() {
        return None;
    }
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    schemas.insert(META.to_owned(), shape(&METADATA, "Metadata of an object."));
    for (resource, version) in served {
        schemas.insert(definition_name(resource, version), object(resource, version, Dialect::V3));
        add_paths(&mut paths, resource, version, Dialect::V3);
    }
    Some(json!({"openapi": "3.0.0", "info": info(), "paths": paths, "components": {"schemas": schemas}}))
}

/// The CustomResourceDefinition of a kind, so that a cluster can take our own kinds.
#[must_use]
pub fn crd(resource: &Resource) -> Value {
    let versions: Vec<Value> = resource
        .versions
        .iter()
        .map(|version| {
            let columns: Vec<Value> = version
                .columns
                .iter()
                .map(|column| {
                    let kind = if column.name == "Age" { "date" } else { "string" };
                    json!({"name": column.name, "type": kind, "jsonPath": column.path})
                })
                .collect();
            json!({
                "name": version.name,
                "served": true,
                "storage": version.name == resource.stored().name,
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns,
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "description": resource.doc,
                    "properties": {
                        "apiVersion": {"type": "string"},
                        "kind": {"type": "string"},
                        "metadata": {"type": "object"},
                        "spec": spec(version),
                        "status": status(),
                    },
                }},
            })
        })
        .collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{}", resource.plural, resource.group)},
        "spec": {
            "group": resource.group,
            "names": {
                "kind": resource.name,
                "plural": resource.plural,
                "singular": resource.singular(),
                "categories": resource.categories,
            },
            "scope": "Namespaced",
            "versions": versions,
        },
    })
}

fn info() -> Value {
    json!({"title": "Godwit", "version": env!("CARGO_PKG_VERSION")})
}

/// As in `dev.knative.eventing.v1.Trigger`.
fn definition_name(resource: &Resource, version: &Version) -> String {
    let mut parts: Vec<&str> = resource.group.split('.').collect();
    parts.reverse();
    format!("{}.{}.{}", parts.join("."), version.name, resource.name)
}

fn gvk(resource: &Resource, version: &Version) -> Value {
    json!({"group": resource.group, "version": version.name, "kind": resource.name})
}

fn object(resource: &Resource, version: &Version, dialect: Dialect) -> Value {
    let doc = "Metadata of the object.";
    let metadata = match dialect {
        Dialect::V2 => json!({"description": doc, "$ref": format!("#/definitions/{META}")}),
        Dialect::V3 => json!({"description": doc, "allOf": [{"$ref": format!("#/components/schemas/{META}")}]}),
    };
    json!({
        "type": "object",
        "description": resource.doc,
        "properties": {
            "apiVersion": {"type": "string", "description": "The group and version that the object is written in."},
            "kind": {"type": "string", "description": "The object's kind."},
            "metadata": metadata,
            "spec": spec(version),
            "status": status(),
        },
        GVK: [gvk(resource, version)],
    })
}

fn spec(version: &Version) -> Value {
    shape(version.spec, "What is wanted.")
}

fn status() -> Value {
    let text = |doc: &str| json!({"type": "string", "description": doc});
    json!({
        "type": "object",
        "description": "How the object stands; set by the server.",
        "properties": {
            "observedGeneration": {"type": "integer", "format": "int64", "description": "The generation that this is about."},
            "conditions": {
                "type": "array",
                "description": "What holds; Ready sums up the others.",
                "items": {
                    "type": "object",
                    "required": ["type", "status"],
                    "properties": {
                        "type": text("The condition."),
                        "status": text("True, False or Unknown."),
                        "reason": text("One word for why."),
                        "message": text("A sentence for why."),
                        "lastTransitionTime": text("Since when."),
                    },
                },
            },
            "address": {
                "type": "object",
                "description": "Where it takes events.",
                "properties": {"name": text("The name of the address."), "url": text("The URL.")},
            },
            "subscriberUri": text("Where events go."),
            "deadLetterSinkUri": text("Where events go that cannot be delivered."),
            "sinkUri": text("Where a source sends its events."),
        },
        OPEN: true,
    })
}

fn shape(shape: &Shape, doc: &str) -> Value {
    let mut schema = Map::new();
    schema.insert("type".to_owned(), "object".into());
    schema.insert("description".to_owned(), doc.into());
    if shape.open {
        schema.insert(OPEN.to_owned(), true.into());
    } else {
        let fields = shape.fields.iter().map(|f| (f.name.to_owned(), of(&f.ty, f.doc)));
        schema.insert("properties".to_owned(), Value::Object(fields.collect()));
        let required: Vec<&str> = shape.fields.iter().filter(|f| f.required).map(|f| f.name).collect();
        if !required.is_empty() {
            schema.insert("required".to_owned(), required.into());
        }
    }
    Value::Object(schema)
}

fn of(ty: &Type, doc: &str) -> Value {
    let mut schema = match ty {
        Type::Text | Type::Duration => json!({"type": "string"}),
        Type::Time => json!({"type": "string", "format": "date-time"}),
        Type::OneOf(words) => json!({"type": "string", "enum": words}),
        Type::Integer(least) => json!({"type": "integer", "format": "int32", "minimum": least}),
        Type::Long => json!({"type": "integer", "format": "int64"}),
        Type::Boolean => json!({"type": "boolean"}),
        Type::AnyObject => json!({"type": "object", OPEN: true}),
        Type::Any => json!({OPEN: true}),
        Type::Map(inner) => json!({"type": "object", "additionalProperties": of(inner, "")}),
        Type::List(inner) => json!({"type": "array", "items": of(inner, "")}),
        Type::Object(inner) => return shape(inner, doc),
    };
    if let (false, Some(schema)) = (doc.is_empty(), schema.as_object_mut()) {
        schema.insert("description".to_owned(), doc.into());
    }
    schema
}

fn add_paths(paths: &mut Map<String, Value>, resource: &Resource, version: &Version, dialect: Dialect) {
    let list = format!("/apis/{}/{}/namespaces/{{namespace}}/{}", resource.group, version.name, resource.plural);
    let operation = |action: &str, changes: bool| {
        let reference = match dialect {
            Dialect::V2 => json!({"$ref": format!("#/definitions/{}", definition_name(resource, version))}),
            Dialect::V3 => json!({"$ref": format!("#/components/schemas/{}", definition_name(resource, version))}),
        };
        let answer = match dialect {
            Dialect::V2 => json!({"description": "OK", "schema": reference}),
            Dialect::V3 => json!({"description": "OK", "content": {"application/json": {"schema": reference}}}),
        };
        let mut operation = json!({
            "operationId": format!("{action}{}{}", version.name, resource.name),
            "responses": {"200": answer},
            "x-kubernetes-action": action,
            GVK: gvk(resource, version),
        });
        if let (true, Some(operation)) = (changes, operation.as_object_mut()) {
            let names = ["dryRun", "fieldManager", "fieldValidation"];
            let parameters = names.iter().map(|name| match dialect {
                Dialect::V2 => json!({"name": name, "in": "query", "type": "string"}),
                Dialect::V3 => json!({"name": name, "in": "query", "schema": {"type": "string"}}),
            });
            operation.insert("parameters".to_owned(), parameters.collect());
        }
        operation
    };
    let one = json!({
        "get": operation("get", false),
        "put": operation("put", true),
        "patch": operation("patch", true),
        "delete": operation("delete", true),
    });
    paths.insert(format!("{list}/{{name}}"), one);
    let all = json!({
        "get": operation("list", false),
        "post": operation("post", true),
        "delete": operation("deletecollection", true),
    });
    paths.insert(list, all);
}
