//! Which part of a filter decided about an event, in words: for people who look for a mistake, not for the hot path.

use super::attributes::Expected;
use super::cesql::{Expression, Value};
use super::texts::Texts;
use super::{Attributes, Node};
use crate::event::StoredEvent;

/// Why a filter wants an event, or does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Whether the event is wanted.
    pub wanted: bool,
    /// The path of the part that decided, as in `filters[0].any[1].prefix`; empty where there is nothing to decide.
    pub part: String,
    /// What it found.
    pub why: String,
}

pub(super) fn explain(node: &Node, event: &StoredEvent) -> Explanation {
    match node {
        Node::All(parts) if parts.is_empty() => yes("", "there is no filter: every event is wanted"),
        Node::All(parts) => all(parts, event, "filters"),
        Node::Attributes(attributes) => attributes_decide(attributes, event),
        node => decide(node, event, "filters"),
    }
}

fn yes(part: &str, why: impl Into<String>) -> Explanation {
    Explanation { wanted: true, part: part.to_owned(), why: why.into() }
}

fn no(part: &str, why: impl Into<String>) -> Explanation {
    Explanation { wanted: false, part: part.to_owned(), why: why.into() }
}

fn decide(node: &Node, event: &StoredEvent, path: &str) -> Explanation {
    match node {
        Node::Attributes(attributes) => attributes_decide(attributes, event),
        Node::Texts(texts) => texts_decide(texts, event, path),
        Node::All(parts) => all(parts, event, &format!("{path}.all")),
        Node::Any(parts) => {
            let path = format!("{path}.any");
            for (i, part) in parts.iter().enumerate() {
                let found = decide(part, event, &format!("{path}[{i}]"));
                if found.wanted {
                    return found;
                }
            }
            no(&path, format!("none of its {} parts holds", parts.len()))
        }
        Node::Not(part) => {
            let found = decide(part, event, &format!("{path}.not"));
            Explanation { wanted: !found.wanted, ..found }
        }
        Node::Cesql(expression) => cesql_decides(expression, event, &format!("{path}.cesql")),
    }
}

fn all(parts: &[Node], event: &StoredEvent, path: &str) -> Explanation {
    for (i, part) in parts.iter().enumerate() {
        let found = decide(part, event, &format!("{path}[{i}]"));
        if !found.wanted || parts.len() == 1 {
            return found;
        }
    }
    yes(path, format!("all of its {} parts hold", parts.len()))
}

fn attributes_decide(attributes: &Attributes, event: &StoredEvent) -> Explanation {
    let mut scratch = String::new();
    for (name, expected) in attributes.expected() {
        if Attributes::holds(name, expected, event, &mut scratch) {
            continue;
        }
        let part = format!("filter.attributes.{name}");
        let wanted = match expected {
            Expected::Any => "any that is not empty",
            Expected::Exactly(text) => text,
        };
        return match event.attribute(name, &mut scratch) {
            None => no(&part, format!("the event has no attribute {name}; wanted is \"{wanted}\"")),
            Some(value) if value.as_str().is_none() => {
                no(&part, format!("{name} is {value}, which is no text; wanted is \"{wanted}\""))
            }
            Some(value) => no(&part, format!("{name} is \"{value}\"; wanted is \"{wanted}\"")),
        };
    }
    match attributes.expected().count() {
        0 => yes("", "there is no filter: every event is wanted"),
        1 => yes("filter.attributes", "its attribute is as wanted"),
        n => yes("filter.attributes", format!("all {n} attributes are as wanted")),
    }
}

fn texts_decide(texts: &Texts, event: &StoredEvent, path: &str) -> Explanation {
    let mut scratch = String::new();
    let dialect = texts.relation.name();
    let path = format!("{path}.{dialect}");
    for (name, given) in &texts.given {
        let part = format!("{path}.{name}");
        match event.attribute_text(name, &mut scratch) {
            None => return no(&part, format!("the event has no attribute {name}")),
            Some(text) if !texts.relation.holds(text, given) => {
                return no(&part, format!("{name} is \"{text}\"; wanted is {dialect} \"{given}\""));
            }
            Some(_) => {}
        }
    }
    match &*texts.given {
        [(name, given)] => yes(&path, format!("{name} has {dialect} \"{given}\"")),
        all => yes(&path, format!("all {} attributes are as wanted", all.len())),
    }
}

fn cesql_decides(expression: &Expression, event: &StoredEvent, path: &str) -> Explanation {
    let evaluation = expression.evaluate(event);
    let errors: Vec<_> = evaluation.errors.iter().map(ToString::to_string).collect();
    match evaluation.value {
        _ if !errors.is_empty() => no(path, format!("filter error: {}", errors.join("; "))),
        Value::Boolean(true) => yes(path, "the expression is true"),
        Value::Boolean(false) => no(path, "the expression is false"),
        other => no(path, format!("filter error: the value is of type {}, not Boolean", other.type_of().name())),
    }
}
