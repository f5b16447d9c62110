//! Events of things that came as bytes.

use bytes::Bytes;
use godwit_mesh::event::{Event, Value};
use godwit_mesh::source::Job;
use serde::de::IgnoredAny;

/// An event of `job` with these bytes; without a media type it gets the one that they look like. One that cannot be is counted
/// as lost (`invalid`).
pub(super) fn event(
    job: &Job,
    id: &str,
    ty: &str,
    subject: Option<&str>,
    content_type: Option<&str>,
    bytes: Bytes,
) -> Option<Event> {
    let content_type = content_type.unwrap_or_else(|| looks_like(&bytes)).to_owned();
    let mut builder = Event::builder().id(id).source(job.path()).ty(ty);
    builder = builder.attribute("datacontenttype", Value::String(content_type)).untyped_data(bytes);
    if let Some(subject) = subject.filter(|subject| !subject.is_empty()) {
        builder = builder.subject(subject);
    }
    if let Some(now) = job.now() {
        builder = builder.time(now);
    }
    match builder.build() {
        Ok(mut event) => {
            job.override_attributes(&mut event);
            Some(event)
        }
        Err(error) => {
            job.live.failed(error.to_string(), job.clock());
            job.live.lost("invalid", 1);
            None
        }
    }
}

/// The media type that bytes look like.
pub(super) fn looks_like(bytes: &[u8]) -> &'static str {
    if serde_json::from_slice::<IgnoredAny>(bytes).is_ok() {
        "application/json"
    } else if std::str::from_utf8(bytes).is_ok() {
        "text/plain"
    } else {
        "application/octet-stream"
    }
}

/// Random bytes as hexadecimal digits: what tells one run of something from the next. Empty where the system has none.
pub(super) fn random() -> String {
    let mut bytes = [0u8; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => format!("{:016x}", u64::from_le_bytes(bytes)),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_look_like_what_they_are() {
        assert_eq!(looks_like(b"{\"a\": 1}"), "application/json");
        assert_eq!(looks_like(b"12"), "application/json");
        assert_eq!(looks_like(b"Nov 26 boat kernel: up"), "text/plain");
        assert_eq!(looks_like(b"\xff\xfe"), "application/octet-stream");
    }
}
