//! Bodies of the API: JSON or YAML, and fields that are written twice.

use std::fmt;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::http::{BodyError, Request};
use crate::manifest::Strictness;
use crate::objects::error::ApiError;

/// Largest body, in bytes.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Most fields written twice that are told, and most characters of one's path.
const MAX_TOLD: usize = 16;
const MAX_PATH: usize = 256;

/// A body that was understood.
pub(super) struct Decoded {
    pub(super) value: Value,
    /// The paths of fields that are written more than once; the last one counts.
    twice: Vec<String>,
}

impl Decoded {
    /// The value and what to warn of.
    ///
    /// # Errors
    /// Fields written twice, where that is strict.
    pub(super) fn checked(self, strictness: Strictness) -> Result<(Value, Vec<String>), ApiError> {
        let said: Vec<String> = self.twice.iter().map(|path| format!("duplicate field \"{path}\"")).collect();
        match strictness {
            Strictness::Strict if !said.is_empty() => {
                Err(ApiError::BadRequest(format!("strict decoding error: {}", said.join(", "))))
            }
            Strictness::Strict | Strictness::Warn => Ok((self.value, said)),
            Strictness::Ignore => Ok((self.value, Vec::new())),
        }
    }
}

/// The body; `null` where there is none and none is needed.
pub(super) async fn body(request: &mut Request, optional: bool) -> Result<Decoded, ApiError> {
    let media = media_type(&request.head.headers);
    let bytes = read(request).await?;
    if bytes.is_empty() && optional {
        return Ok(Decoded { value: Value::Null, twice: Vec::new() });
    }
    decode(&media, &bytes)
}

pub(super) async fn read(request: &mut Request) -> Result<Bytes, ApiError> {
    request.bytes(MAX_BODY_BYTES).await.map_err(|error| match error {
        BodyError::TooLarge { .. } => {
            ApiError::TooLarge(format!("an object has at most {MAX_BODY_BYTES} bytes: the request's body has more"))
        }
        BodyError::NoRoom => ApiError::Unavailable(error.to_string()),
        other => ApiError::BadRequest(other.to_string()),
    })
}

pub(super) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

pub(super) fn decode(media: &str, bytes: &[u8]) -> Result<Decoded, ApiError> {
    let mut twice = Vec::new();
    let value = match media {
        "application/yaml" | "application/x-yaml" | "text/yaml" | "application/apply-patch+yaml" => {
            let text = std::str::from_utf8(bytes).map_err(|e| ApiError::BadRequest(format!("the body is no text: {e}")))?;
            serde_saphyr::from_str(text).map_err(|e| {
                let why = e.to_string();
                ApiError::BadRequest(format!("the body is no YAML: {}", why.lines().next().unwrap_or_default()))
            })?
        }
        "" | "application/json" | "application/merge-patch+json" | "application/json-patch+json" | "text/plain" => {
            json(bytes, &mut twice).map_err(|e| ApiError::BadRequest(format!("the body is no JSON: {e}")))?
        }
        other => {
            return Err(ApiError::UnsupportedMediaType(format!(
                "the body of the request was in an unknown format ({other}); send application/json or application/yaml"
            )));
        }
    };
    Ok(Decoded { value, twice })
}

fn json(bytes: &[u8], twice: &mut Vec<String>) -> serde_json::Result<Value> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Noting { path: &mut String::new(), twice }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// Reads a value, and notes fields that are written twice on the way.
struct Noting<'a> {
    /// Where the value stands.
    path: &'a mut String,
    twice: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Noting<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Noting<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        let here = self.path.len();
        while let Some(key) = map.next_key::<String>()? {
            if here > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            let value = map.next_value_seed(Noting { path: self.path, twice: self.twice })?;
            if object.insert(key, value).is_some() && self.twice.len() < MAX_TOLD {
                self.twice.push(self.path.chars().take(MAX_PATH).collect());
            }
            self.path.truncate(here);
        }
        Ok(Value::Object(object))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        let here = self.path.len();
        loop {
            self.path.push_str(&format!("[{}]", items.len()));
            let item = list.next_element_seed(Noting { path: self.path, twice: self.twice })?;
            self.path.truncate(here);
            match item {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_that_is_written_twice_is_named_by_its_path() {
        let text = r#"{"spec":{"a":[{"b":1,"b":2},{"c":{}}],"a":3},"spec":{"x":null}}"#;
        let decoded = || decode("application/json", text.as_bytes()).expect("JSON");
        assert_eq!(decoded().value, json!({"spec": {"x": null}}));
        let error = decoded().checked(Strictness::Strict).expect_err("strict").to_string();
        assert_eq!(
            error,
            "strict decoding error: duplicate field \"spec.a[0].b\", duplicate field \"spec.a\", duplicate field \"spec\""
        );
        assert_eq!(decoded().checked(Strictness::Warn).expect("taken").1.len(), 3);
        assert!(decoded().checked(Strictness::Ignore).expect("taken").1.is_empty());
        assert!(decode("application/json", b"{} x").is_err(), "something follows");
        assert!(decode("application/json", "[".repeat(100_000).as_bytes()).is_err(), "too deep");
    }

    proptest! {
        #[test]
        fn values_are_read_as_ever(value in crate::objects::patch::tests::value()) {
            let decoded = decode("application/json", value.to_string().as_bytes()).expect("JSON");
            prop_assert_eq!(decoded.value, value);
            prop_assert!(decoded.twice.is_empty());
        }
    }
}
