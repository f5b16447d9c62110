//! The event: context attributes and a payload. An [`Event`] that exists is valid CloudEvents 1.0; every change is checked.

use std::sync::LazyLock;

use bytes::Bytes;

use super::error::{EventError, ValueError};
use super::rules::check_attribute_name;
use super::value::Value;

/// The only version of CloudEvents spoken here.
pub(crate) const SPECVERSION: &str = "1.0";

static SPECVERSION_VALUE: LazyLock<Value> = LazyLock::new(|| Value::from(SPECVERSION));

/// A CloudEvent 1.0.
///
/// ```
/// use godwit_mesh::event::Event;
/// let event = Event::builder().id("1").source("/boat/7").ty("com.example.depth").data("application/json", "12.50").build()?;
/// assert_eq!((event.id(), event.datacontenttype()), ("1", Some("application/json")));
/// # Ok::<(), godwit_mesh::event::EventError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    id: Value,
    source: Value,
    ty: Value,
    /// Optional attributes and extensions, in the order in which they were set.
    others: Vec<(Box<str>, Value)>,
    data: Option<Bytes>,
}

impl Event {
    /// Begins a new event.
    #[must_use]
    pub fn builder() -> EventBuilder {
        EventBuilder::default()
    }

    /// Makes an event of attributes as they were decoded. `specversion`, if among them, must be 1.0; whether it must be there
    /// is the format's affair.
    pub(crate) fn from_attributes(
        attributes: impl IntoIterator<Item = (Box<str>, Value)>,
        data: Option<Bytes>,
    ) -> Result<Self, EventError> {
        let (mut id, mut source, mut ty, mut others) = (None, None, None, Vec::new());
        for (name, value) in attributes {
            let value = checked(&name, value)?;
            let slot = match &*name {
                "id" => &mut id,
                "source" => &mut source,
                "type" => &mut ty,
                "specversion" => continue,
                _ => {
                    if others.iter().any(|(other, _)| *other == name) {
                        return Err(EventError::duplicate(&name));
                    }
                    others.push((name, value));
                    continue;
                }
            };
            if slot.replace(value).is_some() {
                return Err(EventError::duplicate(&name));
            }
        }
        Ok(Self {
            id: id.ok_or(EventError::Missing { attribute: "id" })?,
            source: source.ok_or(EventError::Missing { attribute: "source" })?,
            ty: ty.ok_or(EventError::Missing { attribute: "type" })?,
            others,
            data,
        })
    }

    /// The attribute `id`.
    #[must_use]
    pub fn id(&self) -> &str {
        self.id.as_str().unwrap_or_default()
    }

    /// The attribute `source`.
    #[must_use]
    pub fn source(&self) -> &str {
        self.source.as_str().unwrap_or_default()
    }

    /// The attribute `type`.
    #[must_use]
    pub fn ty(&self) -> &str {
        self.ty.as_str().unwrap_or_default()
    }

    /// The attribute `subject`.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.get("subject")?.as_str()
    }

    /// The attribute `time`, RFC 3339 as it was given.
    #[must_use]
    pub fn time(&self) -> Option<&str> {
        self.get("time")?.as_str()
    }

    /// The attribute `datacontenttype`.
    #[must_use]
    pub fn datacontenttype(&self) -> Option<&str> {
        self.get("datacontenttype")?.as_str()
    }

    /// The attribute `dataschema`.
    #[must_use]
    pub fn dataschema(&self) -> Option<&str> {
        self.get("dataschema")?.as_str()
    }

    /// The attribute with this name, `specversion` included.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        match name {
            "id" => Some(&self.id),
            "source" => Some(&self.source),
            "type" => Some(&self.ty),
            "specversion" => Some(&SPECVERSION_VALUE),
            _ => self.others.iter().find(|(other, _)| **other == *name).map(|(_, value)| value),
        }
    }

    /// Sets an attribute or extension. Text given for an attribute of the specification gets the type that it has there.
    ///
    /// # Errors
    /// When the name is no attribute name, or the value breaks the rules of its type. The event is then as it was.
    pub fn set(&mut self, name: &str, value: Value) -> Result<(), EventError> {
        let value = checked(name, value)?;
        match name {
            "id" => self.id = value,
            "source" => self.source = value,
            "type" => self.ty = value,
            "specversion" => {}
            _ => match self.others.iter_mut().find(|(other, _)| **other == *name) {
                Some((_, old)) => *old = value,
                None => self.others.push((name.into(), value)),
            },
        }
        Ok(())
    }

    /// Removes an optional attribute or extension and returns it. The required ones stay.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.others.iter().position(|(other, _)| **other == *name)?;
        Some(self.others.remove(at).1)
    }

    /// All context attributes but `specversion`, which is always 1.0: `id`, `source`, `type`, then the others in the order in
    /// which they were set.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &Value)> {
        [("id", &self.id), ("source", &self.source), ("type", &self.ty)]
            .into_iter()
            .chain(self.others.iter().map(|(name, value)| (&**name, value)))
    }

    /// The payload, byte for byte.
    #[must_use]
    pub fn data(&self) -> Option<&Bytes> {
        self.data.as_ref()
    }

    /// Replaces the payload. `datacontenttype` stays as it is.
    pub fn set_data(&mut self, data: Option<Bytes>) {
        self.data = data;
    }
}

fn checked(name: &str, value: Value) -> Result<Value, EventError> {
    if name == "specversion" {
        let text = value.to_text();
        return if text == SPECVERSION { Ok(value) } else { Err(EventError::version(&text)) };
    }
    check_attribute_name(name)?;
    value.typed(name).map_err(|why: ValueError| EventError::value(name, why))
}

/// Makes an [`Event`]; all checks are made at the end, by [`EventBuilder::build`].
#[derive(Debug, Clone, Default)]
pub struct EventBuilder {
    attributes: Vec<(Box<str>, Value)>,
    data: Option<Bytes>,
}

impl EventBuilder {
    /// Sets `id`.
    #[must_use]
    pub fn id(self, id: impl Into<String>) -> Self {
        self.attribute("id", Value::String(id.into()))
    }

    /// Sets `source`.
    #[must_use]
    pub fn source(self, source: impl Into<String>) -> Self {
        self.attribute("source", Value::String(source.into()))
    }

    /// Sets `type`.
    #[must_use]
    pub fn ty(self, ty: impl Into<String>) -> Self {
        self.attribute("type", Value::String(ty.into()))
    }

    /// Sets `subject`.
    #[must_use]
    pub fn subject(self, subject: impl Into<String>) -> Self {
        self.attribute("subject", Value::String(subject.into()))
    }

    /// Sets `time`, an RFC 3339 text.
    #[must_use]
    pub fn time(self, time: impl Into<String>) -> Self {
        self.attribute("time", Value::String(time.into()))
    }

    /// Sets any attribute or extension; the last value given for a name holds.
    #[must_use]
    pub fn attribute(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.attributes.retain(|(other, _)| **other != *name);
        self.attributes.push((name.into(), value.into()));
        self
    }

    /// Sets the payload and `datacontenttype`.
    #[must_use]
    pub fn data(self, content_type: &str, data: impl Into<Bytes>) -> Self {
        let mut this = self.attribute("datacontenttype", content_type);
        this.data = Some(data.into());
        this
    }

    /// Sets a payload of no stated type.
    #[must_use]
    pub fn untyped_data(mut self, data: impl Into<Bytes>) -> Self {
        self.data = Some(data.into());
        self
    }

    /// The event.
    ///
    /// # Errors
    /// When a required attribute is missing or any is not valid.
    pub fn build(self) -> Result<Event, EventError> {
        Event::from_attributes(self.attributes, self.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimal() -> EventBuilder {
        Event::builder().id("1").source("/s").ty("t")
    }

    #[test]
    fn required_attributes_must_be_there_and_not_empty() {
        assert_eq!(Event::builder().source("/s").ty("t").build(), Err(EventError::Missing { attribute: "id" }));
        assert_eq!(minimal().source("").build(), Err(EventError::value("source", ValueError::Empty)));
    }

    #[test]
    fn another_version_is_refused_by_name() {
        let refused = minimal().attribute("specversion", "0.3").build().expect_err("refused");
        assert_eq!(refused.to_string(), "specversion \"0.3\" is not supported: send CloudEvents 1.0");
    }

    #[test]
    fn a_refused_change_changes_nothing() {
        let mut event = minimal().build().expect("valid");
        let before = event.clone();
        assert!(event.set("Upper", Value::from(1)).is_err());
        assert!(event.set("time", Value::from("yesterday")).is_err());
        assert!(event.set("data", Value::from("x")).is_err());
        assert_eq!(event, before);
    }

    #[test]
    fn attributes_are_set_replaced_and_removed() {
        let mut event = minimal().build().expect("valid");
        event.set("n", Value::from(1)).expect("valid");
        event.set("n", Value::from(2)).expect("valid");
        assert_eq!(event.get("n"), Some(&Value::Integer(2)));
        assert_eq!(event.get("specversion"), Some(&Value::from("1.0")));
        assert_eq!(event.remove("n"), Some(Value::Integer(2)));
        assert_eq!((event.remove("id"), event.id()), (None, "1"));
        assert_eq!(event.attributes().count(), 3);
    }
}
