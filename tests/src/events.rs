//! Reading a broker back: what it holds, each event with its offset, epoch and exact data.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::http::Response;

/// How many events are asked for at a time.
const PAGE: usize = 20_000;

/// A range of offsets that has no events any more.
#[derive(Deserialize)]
struct Gap {
    to: u64,
    #[serde(rename = "skipped")]
    _why: String,
}

/// One event of a broker.
#[derive(Debug, Deserialize)]
pub struct Entry {
    /// Its offset in the broker.
    pub offset: u64,
    /// The epoch in which it was appended.
    pub epoch: String,
    /// The event.
    pub event: Event,
}

/// An event in the JSON format.
#[derive(Debug, Deserialize)]
#[serde(try_from = "BTreeMap<String, Box<RawValue>>")]
pub struct Event {
    /// `id`.
    pub id: String,
    /// `source`.
    pub source: String,
    /// `type`.
    pub ty: String,
    /// `subject`.
    pub subject: Option<String>,
    /// `time`.
    pub time: Option<String>,
    /// `datacontenttype`.
    pub datacontenttype: Option<String>,
    data: Option<Box<RawValue>>,
    data_base64: Option<String>,
    /// All other attributes.
    pub extensions: BTreeMap<String, Value>,
}

impl TryFrom<BTreeMap<String, Box<RawValue>>> for Event {
    type Error = String;

    fn try_from(mut members: BTreeMap<String, Box<RawValue>>) -> Result<Self, String> {
        let data = members.remove("data");
        let mut rest = BTreeMap::new();
        for (name, value) in members {
            let value: Value = serde_json::from_str(value.get()).map_err(|error| format!("{name}: {error}"))?;
            rest.insert(name, value);
        }
        let mut text = |name: &str| match rest.remove(name) {
            Some(Value::String(text)) => Ok(Some(text)),
            None => Ok(None),
            Some(other) => Err(format!("{name} is {other}")),
        };
        let needed = |name: &str, value: Option<String>| value.ok_or_else(|| format!("no {name}"));
        Ok(Self {
            id: needed("id", text("id")?)?,
            source: needed("source", text("source")?)?,
            ty: needed("type", text("type")?)?,
            subject: text("subject")?,
            time: text("time")?,
            datacontenttype: text("datacontenttype")?,
            data,
            data_base64: text("data_base64")?,
            extensions: rest,
        })
    }
}

impl Event {
    /// The exact bytes of the data; none and empty are the same here.
    ///
    /// # Errors
    /// When text or base64 is not what it says.
    pub fn data(&self) -> Result<Vec<u8>> {
        if let Some(encoded) = &self.data_base64 {
            return base64::engine::general_purpose::STANDARD.decode(encoded).context("data_base64");
        }
        let Some(data) = &self.data else { return Ok(Vec::new()) };
        if self.datacontenttype.as_deref().is_none_or(|ty| ty.contains("json")) {
            return Ok(data.get().as_bytes().to_vec());
        }
        Ok(serde_json::from_str::<String>(data.get())?.into_bytes())
    }
}

/// All events that a broker (`namespace/name`) has now, from the oldest, asked for page by page with `get`.
///
/// # Errors
/// When the broker cannot be read or a line is not an event.
pub fn read(broker: &str, get: impl Fn(&str) -> Result<Response>) -> Result<Vec<Entry>> {
    let (namespace, name) = broker.split_once('/').context("a broker is namespace/name")?;
    let base = format!("/apis/godwit.dev/v1/namespaces/{namespace}/brokers/{name}/events");
    let mut entries: Vec<Entry> = Vec::new();
    let mut next = "earliest".to_owned();
    loop {
        let response = get(&format!("{base}?from={next}&limit={PAGE}"))?;
        if response.status != 200 {
            bail!("reading {broker}: {} {}", response.status, response.text());
        }
        let mut last = None;
        for line in response.body.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let shown = || format!("not an event: {}", String::from_utf8_lossy(line));
            if let Ok(Gap { to, .. }) = serde_json::from_slice(line) {
                last = Some(to);
            } else {
                let entry: Entry = serde_json::from_slice(line).with_context(shown)?;
                last = Some(entry.offset + 1);
                entries.push(entry);
            }
        }
        match last {
            Some(last) => next = last.to_string(),
            None => return Ok(entries),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_keeps_the_exact_bytes_of_its_data() {
        let line = r#"{"offset":3,"epoch":"e","event":{"specversion":"1.0","id":"1","source":"/s","type":"t","n":7,
            "datacontenttype":"application/json","data":{"b": 1.10,"a":12345678901234567890}}}"#;
        let entry: Entry = serde_json::from_str(line).expect("an entry");
        assert_eq!(entry.event.data().expect("data"), br#"{"b": 1.10,"a":12345678901234567890}"#);
        assert_eq!(entry.event.extensions["n"], 7);
        let line = r#"{"offset":3,"epoch":"e","event":{"id":"1","source":"/s","type":"t","data_base64":"AAE="}}"#;
        let entry: Entry = serde_json::from_str(line).expect("an entry");
        assert_eq!(entry.event.data().expect("data"), [0, 1]);
    }
}
