//! Writes events in JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::event::jsontext::is_json;
use crate::event::media;
use crate::event::model::Event;
use crate::event::value::Value;

/// One event as a JSON object.
#[must_use]
pub fn encode(event: &Event) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + event.data().map_or(0, Bytes::len));
    write(&mut out, event);
    out
}

/// Any number of events as a JSON array.
#[must_use]
pub fn encode_batch<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<u8> {
    let mut out = vec![b'['];
    for (n, event) in events.into_iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        write(&mut out, event);
    }
    out.push(b']');
    out
}

fn write(out: &mut Vec<u8>, event: &Event) {
    out.extend_from_slice(b"{\"specversion\":\"1.0\"");
    for (name, value) in event.attributes() {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes()); // a-z and 0-9: nothing to escape
        out.extend_from_slice(b"\":");
        match value {
            Value::Boolean(_) | Value::Integer(_) => out.extend_from_slice(value.to_text().as_bytes()),
            _ => write_string(out, &value.to_text()),
        }
    }
    if let Some(data) = event.data() {
        write_data(out, event.datacontenttype(), data);
    }
    out.push(b'}');
}

/// The payload: as it is where it is JSON and said to be; a string where it is text; base64 otherwise, and where nothing is
/// said of its type, because `data` would then be taken for JSON.
fn write_data(out: &mut Vec<u8>, content_type: Option<&str>, data: &[u8]) {
    match (content_type, std::str::from_utf8(data)) {
        (Some(content_type), Ok(_)) if media::is_json(content_type) && is_json(data) => {
            out.extend_from_slice(b",\"data\":");
            out.extend_from_slice(data);
        }
        (Some(content_type), Ok(text)) if media::is_text(content_type) => {
            out.extend_from_slice(b",\"data\":");
            write_string(out, text);
        }
        _ => {
            out.extend_from_slice(b",\"data_base64\":\"");
            out.extend_from_slice(STANDARD.encode(data).as_bytes());
            out.push(b'"');
        }
    }
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string can be written to memory");
}
