//! The format of the specification's test kit: YAML files with a list of cases each.

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::{Expression, Value};
use crate::event::{Event, EventError, StoredEvent, encode_event};
use crate::journal::{Epoch, Offset};

/// One file of the kit.
#[derive(Debug, Clone, Deserialize)]
pub struct File {
    /// What its cases are about.
    pub name: String,
    /// The cases.
    pub tests: Vec<Case>,
}

/// One case.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Case {
    /// The name of the case.
    pub name: String,
    /// The expression.
    pub expression: String,
    /// The value it must have; absent: any.
    #[serde(default)]
    pub result: Option<Json>,
    /// The kind of error that must be among its errors; absent: there must be none.
    #[serde(default)]
    pub error: Option<String>,
    /// The attributes of the event; absent: those of any valid event.
    #[serde(default)]
    pub event: Option<Map<String, Json>>,
    /// Attributes that are laid over the event's.
    #[serde(default)]
    pub event_overrides: Option<Map<String, Json>>,
}

impl File {
    /// Reads a file's text.
    ///
    /// # Errors
    /// Why it is none of the kit.
    pub fn read(yaml: &str) -> Result<Self, String> {
        serde_saphyr::from_str(yaml).map_err(|e| e.to_string())
    }
}

impl Case {
    /// Runs the case.
    ///
    /// # Errors
    /// How what came differs from what is expected.
    pub fn run(&self) -> Result<(), String> {
        let expression = match Expression::parse(&self.expression) {
            Ok(expression) => expression,
            Err(_) if self.error.as_deref() == Some("parse") => return Ok(()),
            Err(error) => return Err(format!("the expression cannot be read: {error}")),
        };
        let event = self.event().map_err(|e| format!("the event is not valid: {e}"))?;
        let found = expression.evaluate(&event);
        let expected = self.error.as_deref();
        let errors: Vec<&str> = found.errors.iter().map(|error| error.kind.name()).collect();
        let errors_fit = expected.map_or(errors.is_empty(), |kind| errors.contains(&kind));
        let value_fits = self.result.as_ref().is_none_or(|result| json(&found.value) == *result);
        if errors_fit && value_fits {
            return Ok(());
        }
        Err(format!(
            "expected {} with {}, got {} with {}",
            self.result.as_ref().map_or_else(|| "any value".to_owned(), ToString::to_string),
            expected.map_or_else(|| "no error".to_owned(), |kind| format!("error {kind}")),
            json(&found.value),
            if errors.is_empty() { "no error".to_owned() } else { format!("errors {}", errors.join(", ")) },
        ))
    }

    /// The event of the case.
    fn event(&self) -> Result<StoredEvent, EventError> {
        let mut attributes = self.event.clone().unwrap_or_else(|| {
            let any = [("id", "1"), ("source", "/tck"), ("type", "dev.godwit.tck")];
            any.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
        });
        attributes.extend(self.event_overrides.clone().unwrap_or_default());
        let mut event = Event::builder();
        for (name, value) in &attributes {
            event = match value {
                Json::Bool(value) => event.attribute(name, *value),
                Json::Number(number) => match number.as_i64().and_then(|number| i32::try_from(number).ok()) {
                    Some(number) => event.attribute(name, number),
                    None => event.attribute(name, number.to_string()),
                },
                Json::String(text) => event.attribute(name, text.as_str()),
                other => event.attribute(name, other.to_string()),
            };
        }
        Ok(stored(&event.build()?))
    }
}

/// An event in its stored form, in which expressions read it.
#[must_use]
pub fn stored(event: &Event) -> StoredEvent {
    let mut body = Vec::new();
    encode_event(&mut body, event, None, std::iter::empty());
    StoredEvent::new(body.into(), Epoch(0), Offset(0), None).expect("what was just encoded can be read")
}

fn json(value: &Value) -> Json {
    match value {
        Value::Boolean(value) => Json::Bool(*value),
        Value::Integer(value) => Json::from(*value),
        Value::String(text) => Json::String(text.clone()),
    }
}
