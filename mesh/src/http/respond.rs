//! Answers: plain text for problems, JSON for data.

use std::fmt::Display;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};
use serde::Serialize;

use super::{Body, Response};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer without a body.
#[must_use]
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A line of text for a person.
#[must_use]
pub fn text(status: StatusCode, line: impl Display) -> Response {
    typed(status, TEXT, format!("{line}\n"))
}

/// What went wrong and what to do about it, as a line of text. The same as [`text`]; the name says what it is for.
#[must_use]
pub fn problem(status: StatusCode, why: impl Display) -> Response {
    text(status, why)
}

/// A value as JSON, not to be cached.
#[must_use]
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            let mut response = typed(status, JSON, bytes);
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(why) => problem(StatusCode::INTERNAL_SERVER_ERROR, why),
    }
}

/// A body of a given type.
#[must_use]
pub fn typed(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// 405 with the methods that are allowed.
#[must_use]
pub fn not_allowed(method: &Method, allowed: HeaderValue) -> Response {
    let why = format!("{method} is not for this path; allowed: {}", allowed.to_str().unwrap_or("none"));
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, why);
    response.headers_mut().insert(ALLOW, allowed);
    response
}

/// 503 with `Retry-After`.
#[must_use]
pub fn unavailable(retry_after_s: u32, why: impl Display) -> Response {
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, why);
    response.headers_mut().insert(RETRY_AFTER, retry_after_s.into());
    response
}

/// The same answer, with the connection closed behind it (HTTP/1).
#[must_use]
pub fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
