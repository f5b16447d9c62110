//! What a media type says about the bytes it describes (RFC 2045; JSON format, section 3.1; CBOR working draft, section 3).

/// The media type of the JSON event format.
pub const STRUCTURED_JSON: &str = "application/cloudevents+json";
/// The media type of a batch in the JSON event format.
pub const BATCH_JSON: &str = "application/cloudevents-batch+json";
/// The media type of the CBOR event format (working draft).
pub const STRUCTURED_CBOR: &str = "application/cloudevents+cbor";
/// The media type of JSON.
pub const JSON: &str = "application/json";
/// The media type of text without further structure.
pub const TEXT: &str = "text/plain";
/// The media type of bytes about which nothing is known.
pub const OCTETS: &str = "application/octet-stream";
/// The media type of CBOR.
pub const CBOR: &str = "application/cbor";

/// The media type without its parameters.
fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// Whether `text` begins with `prefix`, ASCII letters of either case being equal.
pub(crate) fn begins(text: &str, prefix: &str) -> bool {
    text.as_bytes().get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

fn ends(text: &str, suffix: &str) -> bool {
    let start = text.len().checked_sub(suffix.len());
    start.and_then(|at| text.as_bytes().get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes()))
}

fn has_subtype(content_type: &str, subtype: &str) -> bool {
    let essence = essence(content_type);
    match essence.split_once('/') {
        Some((_, sub)) => {
            sub.eq_ignore_ascii_case(subtype)
                || (ends(sub, subtype) && sub.as_bytes().get(sub.len() - subtype.len() - 1) == Some(&b'+'))
        }
        None => false,
    }
}

/// Whether the content is JSON: `*/json` or `*/*+json`, parameters aside.
#[must_use]
pub fn is_json(content_type: &str) -> bool {
    has_subtype(content_type, "json")
}

/// Whether the content is CBOR: `*/cbor` or `*/*+cbor`, parameters aside.
#[must_use]
pub fn is_cbor(content_type: &str) -> bool {
    has_subtype(content_type, "cbor")
}

/// Whether the content is text in UTF-8 that an event format may carry as a string.
#[must_use]
pub fn is_text(content_type: &str) -> bool {
    let textual = begins(essence(content_type), "text/")
        || has_subtype(content_type, "xml")
        || has_subtype(content_type, "yaml")
        || has_subtype(content_type, "x-www-form-urlencoded")
        || has_subtype(content_type, "javascript");
    textual && is_utf8(content_type)
}

/// Whether the parameter `charset`, if there is one, names UTF-8 or its subset ASCII.
pub(crate) fn is_utf8(content_type: &str) -> bool {
    content_type.split(';').skip(1).all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            let value = value.trim().trim_matches('"');
            ["utf-8", "utf8", "us-ascii", "ascii"].iter().any(|known| value.eq_ignore_ascii_case(known))
        }
        _ => true,
    })
}

/// How a message carries events, by its content type. A batch is looked for first, because its prefix is the longer one
/// (HTTP binding, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Attributes beside the payload.
    Binary,
    /// One event in JSON.
    StructuredJson,
    /// One event in CBOR.
    StructuredCbor,
    /// Any number of events in JSON.
    BatchJson,
    /// An event format that is not spoken here.
    Unknown,
}

impl Mode {
    /// The mode that a content type means.
    #[must_use]
    pub fn of(content_type: Option<&str>) -> Self {
        let Some(content_type) = content_type else { return Self::Binary };
        if !begins(content_type.trim_start(), "application/cloudevents") {
            return Self::Binary;
        }
        let essence = essence(content_type);
        let json = is_utf8(content_type);
        if essence.eq_ignore_ascii_case(BATCH_JSON) && json {
            Self::BatchJson
        } else if essence.eq_ignore_ascii_case(STRUCTURED_JSON) && json {
            Self::StructuredJson
        } else if essence.eq_ignore_ascii_case(STRUCTURED_CBOR) {
            Self::StructuredCbor
        } else {
            Self::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_found_by_its_subtype() {
        for json in ["application/json", "text/JSON; charset=utf-8", "application/vnd.x+json;a=b"] {
            assert!(is_json(json), "{json}");
        }
        for other in ["application/jsonl", "json", "application/xjson", "text/plain", "", "/", "a/+jso"] {
            assert!(!is_json(other), "{other}");
        }
    }

    #[test]
    fn the_mode_follows_the_content_type_whatever_its_case() {
        assert_eq!(Mode::of(Some("Application/CloudEvents+JSON; charset=UTF-8")), Mode::StructuredJson);
        assert_eq!(Mode::of(Some("application/cloudevents-batch+json")), Mode::BatchJson);
        assert_eq!(Mode::of(Some("application/cloudevents+avro")), Mode::Unknown);
        assert_eq!(Mode::of(Some("application/cloudevents+json; charset=utf-16")), Mode::Unknown);
        assert_eq!(Mode::of(Some("application/json")), Mode::Binary);
        assert_eq!(Mode::of(None), Mode::Binary);
    }

    #[test]
    fn text_in_another_character_set_is_not_text_to_us() {
        assert!(is_text("text/plain; charset=\"utf-8\"") && is_text("application/soap+xml"));
        assert!(!is_text("text/plain; charset=utf-16") && !is_text("image/png"));
    }
}
