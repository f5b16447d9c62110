//! Conversion to and from the event of the `cloudevents-sdk` crate, so that programs using it can use ours.
//!
//! Both ways can fail: the SDK knows CloudEvents 0.3 and integers of 64 bits, we know timestamps and URIs that its parsers
//! refuse. The payload goes over as bytes, never as parsed JSON, which would not give the same bytes back. The SDK has times in
//! UTC only, and its extensions have no types but string, boolean and integer; ours become their canonical text.

use bytes::Bytes;
use cloudevents::event::{Data, ExtensionValue, SpecVersion, TryIntoTime, TryIntoUrl};
use cloudevents::{AttributesReader, AttributesWriter};

use super::error::{EventError, ValueError};
use super::media;
use super::model::Event;
use super::value::Value;

impl TryFrom<&Event> for cloudevents::Event {
    type Error = EventError;

    fn try_from(event: &Event) -> Result<Self, EventError> {
        let mut out = Self::default();
        for (name, value) in event.attributes() {
            let text = value.to_text();
            match name {
                "id" => drop(out.set_id(text)),
                "source" => drop(out.set_source(text)),
                "type" => drop(out.set_type(text)),
                "subject" => drop(out.set_subject(Some(text))),
                "datacontenttype" => drop(out.set_datacontenttype(Some(text))),
                "time" => {
                    let time = (&*text).into_time().map_err(|_| EventError::value(name, ValueError::Timestamp))?;
                    out.set_time(Some(time));
                }
                "dataschema" => {
                    let url = (&*text).into_url().map_err(|_| EventError::value(name, ValueError::Uri))?;
                    out.set_dataschema(Some(url));
                }
                _ => out.set_extension(
                    name,
                    match value {
                        Value::Boolean(value) => ExtensionValue::Boolean(*value),
                        Value::Integer(value) => ExtensionValue::Integer((*value).into()),
                        _ => ExtensionValue::String(text.into_owned()),
                    },
                ),
            }
        }
        if let Some(data) = event.data() {
            out.set_data_unchecked(data.to_vec());
        }
        Ok(out)
    }
}

impl TryFrom<Event> for cloudevents::Event {
    type Error = EventError;

    fn try_from(event: Event) -> Result<Self, EventError> {
        Self::try_from(&event)
    }
}

impl TryFrom<cloudevents::Event> for Event {
    type Error = EventError;

    fn try_from(mut event: cloudevents::Event) -> Result<Self, EventError> {
        if event.specversion() != SpecVersion::V10 {
            return Err(EventError::version(event.specversion().as_str()));
        }
        let mut builder = Self::builder().id(event.id()).source(event.source().as_str()).ty(event.ty());
        if let Some(subject) = event.subject() {
            builder = builder.subject(subject);
        }
        if let Some(time) = event.time() {
            builder = builder.time(time.to_rfc3339());
        }
        for (name, value) in event.iter_extensions() {
            let value = match value {
                ExtensionValue::String(text) => Value::String(text.clone()),
                ExtensionValue::Boolean(value) => Value::Boolean(*value),
                ExtensionValue::Integer(n) => {
                    Value::Integer(i32::try_from(*n).map_err(|_| EventError::value(name, ValueError::Integer))?)
                }
            };
            builder = builder.attribute(name, value);
        }
        let (content_type, schema, data) = event.take_data();
        if let Some(schema) = schema {
            builder = builder.attribute("dataschema", String::from(schema));
        }
        let is_json = matches!(data, Some(Data::Json(_)));
        if let Some(content_type) = content_type.or_else(|| is_json.then(|| media::JSON.to_owned())) {
            builder = builder.attribute("datacontenttype", content_type);
        }
        if let Some(data) = data {
            let bytes: Vec<u8> = data
                .try_into()
                .map_err(|error: serde_json::Error| EventError::Data { member: "data", why: error.to_string() })?;
            builder = builder.untyped_data(Bytes::from(bytes));
        }
        builder.build()
    }
}

#[cfg(test)]
mod tests {
    use cloudevents::{EventBuilder, EventBuilderV03, EventBuilderV10};

    use super::*;

    #[test]
    fn an_event_goes_to_the_sdk_and_comes_back() {
        let event = Event::builder()
            .id("1")
            .source("/s")
            .ty("t")
            .subject("x")
            .time("2018-04-05T17:31:00+00:00")
            .attribute("dataschema", "urn:a")
            .attribute("n", 7)
            .attribute("b", true)
            .data("application/json", "{\"v\": 1.10}")
            .build()
            .expect("valid");
        let theirs = cloudevents::Event::try_from(&event).expect("the SDK knows all of this");
        assert_eq!(theirs.extension("n"), Some(&ExtensionValue::Integer(7)));
        let again = Event::try_from(theirs).expect("valid");
        assert!(crate::event::arbitrary::same(&again, &event), "{again:?}");
    }

    #[test]
    fn version_0_3_and_large_integers_are_refused_by_name() {
        let old = EventBuilderV03::new().id("1").source("/s").ty("t").build().expect("valid for the SDK");
        assert_eq!(Event::try_from(old), Err(EventError::version("0.3")));
        let large = EventBuilderV10::new().id("1").source("/s").ty("t").extension("n", 1_i64 << 40).build().expect("valid");
        assert_eq!(Event::try_from(large), Err(EventError::value("n", ValueError::Integer)));
    }

    #[test]
    fn json_of_the_sdk_is_json_of_ours() {
        let theirs =
            EventBuilderV10::new().id("1").source("/s").ty("t").data("application/json", serde_json::json!({"b":1,"a":2}));
        let event = Event::try_from(theirs.build().expect("valid")).expect("valid");
        assert_eq!(event.data().map(|data| &data[..]), Some(&b"{\"b\":1,\"a\":2}"[..]));
    }
}
