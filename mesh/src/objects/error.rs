//! What the API answers when it does not do what was asked: a `Status` with a reason and, where fields are wrong, causes.

use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use thiserror::Error;

use super::managed::FieldConflict;
use crate::delivery::ApplyError;
use crate::http::{Response, respond};
use crate::manifest::{Fault, FieldError, Kind};
use crate::state::StateError;

/// Why a request was refused.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The request itself is wrong.
    #[error("{0}")]
    BadRequest(String),
    /// There is no such object, or nothing at this path.
    #[error("{0}")]
    NotFound(String),
    /// A method that the path does not have.
    #[error("{0}")]
    MethodNotAllowed(String),
    /// The object is there already.
    #[error("{0}")]
    AlreadyExists(String),
    /// The object has changed since it was read, or another owner holds it.
    #[error("{0}")]
    Conflict(String),
    /// Server-side apply would take fields from others.
    #[error("Apply failed with {} conflict{}: {}", .0.len(), if .0.len() == 1 { "" } else { "s" }, listed(.0))]
    FieldConflicts(Vec<FieldConflict>),
    /// Fields are wrong.
    #[error("{kind} \"{name}\" is invalid: {}", shown(.fields))]
    Invalid {
        /// The object's kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// What is wrong with which field.
        fields: Vec<FieldError>,
    },
    /// The body is of a type that is not read here.
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// The revision asked for is not known any more.
    #[error("too old resource version: {asked} ({known})")]
    Expired {
        /// What was asked for.
        asked: u64,
        /// The oldest that is known.
        known: u64,
    },
    /// There are too many watches.
    #[error("{0}")]
    TooMany(String),
    /// There are too many objects, or they are too large.
    #[error("{0}")]
    TooLarge(String),
    /// The disk or the journals do not take it now.
    #[error("{0}")]
    Unavailable(String),
}

fn listed(conflicts: &[FieldConflict]) -> String {
    let lines: Vec<String> = conflicts.iter().map(|c| format!("conflict with \"{}\": {}", c.manager, c.field)).collect();
    lines.join("; ")
}

fn shown(fields: &[FieldError]) -> String {
    let lines: Vec<String> = fields.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

impl From<StateError> for ApiError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::TooLarge { .. } => Self::TooLarge(error.to_string()),
            StateError::Io { .. } | StateError::Version { .. } | StateError::Value { .. } => {
                Self::Unavailable(error.to_string())
            }
        }
    }
}

impl ApiError {
    /// Why an object could not be applied.
    pub(super) fn applying(kind: Kind, name: &str, error: &ApplyError) -> Self {
        match error {
            ApplyError::Held { .. } => Self::Conflict(error.to_string()),
            ApplyError::BrokerChanged { from, .. } => {
                let why = format!("cannot change (it is {from}); delete the Trigger first, or choose another name");
                Self::Invalid { kind, name: name.to_owned(), fields: vec![FieldError::new("spec.broker", why)] }
            }
            ApplyError::Broker(_) | ApplyError::Keep { .. } | ApplyError::Random(_) | ApplyError::Stopping => {
                Self::Unavailable(error.to_string())
            }
        }
    }

    fn reason(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "BadRequest"),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "NotFound"),
            Self::MethodNotAllowed(_) => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
            Self::AlreadyExists(_) => (StatusCode::CONFLICT, "AlreadyExists"),
            Self::Conflict(_) | Self::FieldConflicts(_) => (StatusCode::CONFLICT, "Conflict"),
            Self::Invalid { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
            Self::UnsupportedMediaType(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType"),
            Self::Expired { .. } => (StatusCode::GONE, "Expired"),
            Self::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge"),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
        }
    }

    fn causes(&self) -> Vec<Value> {
        match self {
            Self::Invalid { fields, .. } => fields
                .iter()
                .map(|error| {
                    let reason = match error.fault {
                        Fault::Missing => "FieldValueRequired",
                        Fault::Invalid => "FieldValueInvalid",
                    };
                    json!({"reason": reason, "message": error.why, "field": error.field})
                })
                .collect(),
            Self::FieldConflicts(conflicts) => conflicts
                .iter()
                .map(|c| {
                    let message = format!("conflict with \"{}\"", c.manager);
                    json!({"reason": "FieldManagerConflict", "message": message, "field": c.field})
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    /// The `Status`; `about` is the kind and name that were asked for.
    #[must_use]
    pub fn status(&self, about: Option<(Kind, &str)>) -> Value {
        let (code, reason) = self.reason();
        let mut details = serde_json::Map::new();
        if let Some((kind, name)) = about {
            let resource = kind.resource();
            // Kubernetes names the kind where fields are wrong, and the resource elsewhere.
            let (name, word) = match self {
                Self::Invalid { name, .. } => (name.as_str(), resource.name),
                _ => (name, resource.plural),
            };
            if !name.is_empty() {
                details.insert("name".to_owned(), Value::from(name));
            }
            details.insert("group".to_owned(), Value::from(resource.group));
            details.insert("kind".to_owned(), Value::from(word));
        }
        let causes = self.causes();
        if !causes.is_empty() {
            details.insert("causes".to_owned(), Value::Array(causes));
        }
        if matches!(self, Self::Unavailable(_) | Self::TooMany(_)) {
            details.insert("retryAfterSeconds".to_owned(), Value::from(1));
        }
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.to_string(),
            "reason": reason,
            "code": code.as_u16(),
        });
        if !details.is_empty()
            && let Some(status) = status.as_object_mut()
        {
            status.insert("details".to_owned(), Value::Object(details));
        }
        status
    }

    /// The answer.
    #[must_use]
    pub fn response(&self, about: Option<(Kind, &str)>) -> Response {
        let mut response = respond::json(self.reason().0, &self.status(about));
        if matches!(self, Self::Unavailable(_) | Self::TooMany(_)) {
            response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
