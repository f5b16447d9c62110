//! A value held against its shape.

use serde_json::{Map, Value};

use super::{Shape, Type};
use crate::manifest::duration::IsoDuration;
use crate::manifest::error::FieldError;

/// Most things that are told about one object: who got so many wrong wants to begin anew.
const MAX_FINDINGS: usize = 50;

/// What is wrong with an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Full paths of fields that its kind does not have.
    pub unknown: Vec<String>,
    /// What is missing or has a value that cannot be.
    pub wrong: Vec<FieldError>,
}

impl Findings {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.unknown.is_empty() && self.wrong.is_empty()
    }

    fn full(&self) -> bool {
        self.unknown.len() + self.wrong.len() >= MAX_FINDINGS
    }

    fn wrong(&mut self, error: FieldError) {
        if !self.full() {
            self.wrong.push(error);
        }
    }
}

/// Looks at the value of `spec` or another object: unknown fields are noted and taken out, a reference gets `namespace` where it
/// has none. What is `null` counts as absent.
pub fn examine_spec(shape: &Shape, at: &str, map: &mut Map<String, Value>, namespace: &str, findings: &mut Findings) {
    if !shape.open {
        let known = |name: &str| shape.fields.iter().any(|field| field.name == name);
        map.retain(|name, _| {
            let keep = known(name);
            if !keep && !findings.full() {
                findings.unknown.push(join(at, name));
            }
            keep
        });
    }
    let before = findings.wrong.len();
    for field in shape.fields {
        let path = join(at, field.name);
        match map.get_mut(field.name).filter(|value| !value.is_null()) {
            Some(value) => examine(&field.ty, &path, value, namespace, findings),
            None if field.required => findings.wrong(FieldError::new(path, "is missing").missing()),
            None => {}
        }
    }
    if findings.wrong.len() == before
        && let Some(rule) = shape.rule
        && let Err(error) = rule(map)
    {
        findings.wrong(error.within(at));
    }
    if shape.reference && map.get("namespace").is_none_or(Value::is_null) && map.contains_key("kind") {
        map.insert("namespace".to_owned(), Value::from(namespace));
    }
}

fn examine(ty: &Type, at: &str, value: &mut Value, namespace: &str, findings: &mut Findings) {
    if findings.full() {
        return;
    }
    let mismatch = |expected: &str, value: &Value| FieldError::new(at, format!("must be {expected}, not {}", name(value)));
    match (ty, value) {
        (Type::Any, _) | (Type::Text | Type::Time, Value::String(_)) | (Type::Boolean, Value::Bool(_)) => {}
        (Type::AnyObject, Value::Object(_)) => {}
        (Type::OneOf(words), Value::String(word)) => {
            if !words.contains(&word.as_str()) {
                let words: Vec<_> = words.iter().map(|w| format!("\"{w}\"")).collect();
                findings.wrong(FieldError::new(at, format!("\"{}\" is not one of {}", cut(word), words.join(", "))));
            }
        }
        (Type::Duration, Value::String(text)) => {
            if let Err(why) = text.parse::<IsoDuration>() {
                findings.wrong(FieldError::new(at, why));
            }
        }
        (Type::Integer(least), Value::Number(number)) => match number.as_i64() {
            Some(n) if n < *least => findings.wrong(FieldError::new(at, format!("{n} must not be below {least}"))),
            Some(n) if i32::try_from(n).is_ok() => {}
            _ => findings.wrong(FieldError::new(at, format!("{number} is not a whole number of 32 bits"))),
        },
        (Type::Long, Value::Number(number)) if number.as_i64().is_some() => {}
        (Type::Map(inner), Value::Object(map)) => {
            for (key, value) in map.iter_mut().filter(|(_, v)| !v.is_null()) {
                // A key may have dots: it stands in brackets, so that the path can still be read.
                examine(inner, &format!("{at}[{}]", cut(key)), value, namespace, findings);
            }
        }
        (Type::List(inner), Value::Array(items)) => {
            for (i, item) in items.iter_mut().enumerate() {
                examine(inner, &format!("{at}[{i}]"), item, namespace, findings);
            }
        }
        (Type::Object(shape), Value::Object(map)) => examine_spec(shape, at, map, namespace, findings),
        (Type::Text | Type::OneOf(_) | Type::Duration | Type::Time, value) => {
            let quote = matches!(value, Value::Number(_) | Value::Bool(_));
            findings.wrong(mismatch(if quote { "a string (put it in quotes)" } else { "a string" }, value));
        }
        (Type::Integer(_) | Type::Long, value) => findings.wrong(mismatch("a whole number", value)),
        (Type::Boolean, value) => findings.wrong(mismatch("true or false", value)),
        (Type::AnyObject | Type::Map(_) | Type::Object(_), value) => findings.wrong(mismatch("an object", value)),
        (Type::List(_), value) => findings.wrong(mismatch("a list", value)),
    }
}

fn join(at: &str, name: &str) -> String {
    if at.is_empty() { cut(name) } else { format!("{at}.{}", cut(name)) }
}

/// What is shown of a text from outside.
fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}

fn name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::manifest::kind::Kind;

    fn look(kind: Kind, spec: Value) -> (Value, Findings) {
        let Value::Object(mut map) = spec else { panic!("an object") };
        let mut findings = Findings::default();
        examine_spec(kind.resource().stored().spec, "spec", &mut map, "site-1", &mut findings);
        (Value::Object(map), findings)
    }

    #[test]
    fn everything_that_is_wrong_is_found_at_once_with_full_paths() {
        let (_, found) = look(
            Kind::Sequence,
            json!({
                "steps": [
                    {"uri": "http://x/", "delivery": {"retry": -1, "backoffDelay": "1s", "backof": 1}},
                    {"ref": {"kind": "Broker", "name": "b"}, "uri": "http://absolute/"},
                    7,
                ],
                "replay": {},
            }),
        );
        assert_eq!(found.unknown, ["spec.replay", "spec.steps[0].delivery.backof"]);
        let fields: Vec<_> = found.wrong.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(
            fields,
            ["spec.steps[0].delivery.retry", "spec.steps[0].delivery.backoffDelay", "spec.steps[1].uri", "spec.steps[2]"]
        );
    }

    #[test]
    fn references_get_their_namespace_and_unknown_fields_go() {
        let (spec, found) = look(
            Kind::PingSource,
            json!({"sink": {"ref": {"kind": "Broker", "name": "b", "nam": 1}}, "schedule": "@every 10s"}),
        );
        assert_eq!(found.unknown, ["spec.sink.ref.nam"]);
        assert_eq!(spec["sink"]["ref"], json!({"kind": "Broker", "name": "b", "namespace": "site-1"}));
    }

    #[test]
    fn a_missing_field_a_wrong_schedule_and_two_kinds_of_data_are_named() {
        let field = |spec: Value| look(Kind::PingSource, spec).1.wrong.first().map(|e| e.field.clone());
        assert_eq!(field(json!({})).as_deref(), Some("spec.sink"));
        let sink = json!({"uri": "http://x/"});
        assert_eq!(field(json!({"sink": sink, "schedule": "* * *"})).as_deref(), Some("spec.schedule"));
        assert_eq!(field(json!({"sink": sink, "data": "a", "dataBase64": "YQ=="})).as_deref(), Some("spec.dataBase64"));
        assert_eq!(field(json!({"sink": sink, "schedule": "*/1 * * * *", "data": null})), None);
    }

    #[test]
    fn what_is_told_about_one_object_is_bounded() {
        let many: Map<String, Value> = (0..1000).map(|n| (format!("x{n}"), Value::Null)).collect();
        assert_eq!(look(Kind::Broker, Value::Object(many)).1.unknown.len(), MAX_FINDINGS);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let names = prop::sample::select(vec!["ref", "uri", "kind", "name", "sink", "retry", "delivery", "steps", "x"]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((names.clone(), inner), 0..4).prop_map(|pairs| pairs
                    .into_iter()
                    .map(|(k, v)| (k.to_owned(), v))
                    .collect::<Map<_, _>>()
                    .into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_is_left_after_a_look_has_no_unknown_field(value in any_json(), which in 0..Kind::COUNT) {
            let resource = &super::super::RESOURCES[which];
            let Value::Object(mut map) = value else { return Ok(()) };
            examine_spec(resource.stored().spec, "spec", &mut map, "n", &mut Findings::default());
            let mut again = Findings::default();
            examine_spec(resource.stored().spec, "spec", &mut map, "n", &mut again);
            prop_assert!(again.unknown.is_empty());
        }
    }
}
