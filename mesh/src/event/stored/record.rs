//! An event as a journal keeps it, read in place.

use std::fmt::Write as _;

use bytes::Bytes;

use super::attributes::{AttributeRef, Entries, within};
use super::derive::{self, ContentType, WRAPPED_TYPE};
use super::encode::{DATA_AS_IT_IS, DATA_BASE64, DATA_HERE, DATA_STRING, NO_DATA};
use super::layout::{BINARY, DATA, DETAIL_SHIFT, EVENT, KIND, Layout, MAPPED, STRUCTURED, WRAPPED};
use super::publish::MqttPublish;
use super::wire::{Fields, text};
use super::{StoredError, wire};
use crate::event::limits::Limits;
use crate::event::model::{Event, SPECVERSION};
use crate::event::value::Value;
use crate::event::{json, mqtt, properties};
use crate::journal::{Epoch, Offset};
use crate::names::AgentId;

/// Where an event was first appended, if that was in another journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The agent.
    pub agent: &'a str,
    /// The epoch in that agent's broker.
    pub epoch: Epoch,
    /// The offset in that agent's broker.
    pub offset: Offset,
}

/// An attribute that was found.
pub(crate) enum Found<'a> {
    /// Where it stands.
    There(AttributeRef<'a>),
    /// Derived: what was appended to the buffer.
    Made(Derived),
}

/// The type of a derived attribute.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Derived {
    String,
    UriRef,
    Timestamp,
}

impl Derived {
    fn of(self, text: &str) -> AttributeRef<'_> {
        match self {
            Self::String => AttributeRef::String(text),
            Self::UriRef => AttributeRef::UriRef(text),
            Self::Timestamp => AttributeRef::Timestamp(text),
        }
    }
}

/// An event in its stored form, with the place that names it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    body: Bytes,
    layout: Layout,
    epoch: Epoch,
    offset: Offset,
    agent: Option<AgentId>,
}

/// What we say of every event beside its author's attributes.
const OURS: [&str; 2] = ["knativearrivaltime", "godwitagent"];

impl StoredEvent {
    /// Looks at a body; `epoch`, `offset` and `agent` are those of the journal it was read from (at a gateway there is no agent;
    /// bodies from agents bring their origin). Only the places of the fields are found, neither attributes nor payload touched.
    ///
    /// # Errors
    /// When the body's fields do not fit together.
    pub fn new<'a>(
        body: Bytes,
        epoch: Epoch,
        offset: Offset,
        agent: impl Into<Option<&'a AgentId>>,
    ) -> Result<Self, StoredError> {
        let layout = Layout::of(&body)?;
        Ok(Self { body, layout, epoch, offset, agent: agent.into().cloned() })
    }

    /// The stored bytes.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The offset in the journal it was read from.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// The epoch in the journal it was read from.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// When the event was taken in, in milliseconds since 1970; `None` where no clock was valid then.
    #[must_use]
    pub fn arrival_ms(&self) -> Option<u64> {
        self.layout.fixed.arrival_ms
    }

    /// Where the event came from, if it was sent up by an agent.
    #[must_use]
    pub fn origin(&self) -> Option<Origin<'_>> {
        let (agent, epoch, offset) = self.layout.origin.clone()?;
        let agent = text(self.body.get(agent)?).ok()?;
        Some(Origin { agent, epoch: Epoch(epoch), offset: Offset(offset) })
    }

    /// The publish that the event came as, if it came by MQTT: all that a subscriber must get unaltered.
    #[must_use]
    pub fn mqtt(&self) -> Option<MqttPublish<'_>> {
        if self.kind() == EVENT {
            return None;
        }
        let meta = self.body.get(self.layout.publish.clone())?;
        let publish = MqttPublish::take(&mut Fields::new(meta), self.layout.fixed.packet_id).ok()?;
        Some(MqttPublish { payload: self.payload(), ..publish })
    }

    /// The headers to pass through (D17).
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut fields = Fields::new(self.body.get(self.layout.headers.clone()).unwrap_or_default());
        std::iter::from_fn(move || Some((fields.text().ok()?, fields.bytes().ok()?)))
    }

    /// The attribute with this name, `specversion` included. `scratch` holds what had to be derived; nothing is allocated once it
    /// has grown to that. Entries before it are not checked.
    pub fn attribute<'s>(&'s self, name: &str, scratch: &'s mut String) -> Option<AttributeRef<'s>> {
        scratch.clear();
        match self.find(name, scratch)? {
            Found::There(value) => Some(value),
            Found::Made(derived) => Some(derived.of(scratch)),
        }
    }

    /// The same for who keeps several attributes at a time: what has to be derived is appended to `made`.
    pub(crate) fn find<'s>(&'s self, name: &str, made: &mut String) -> Option<Found<'s>> {
        if self.kind() == MAPPED
            && let Some(given) = self.given().find(name)
        {
            return Some(Found::There(given));
        }
        if self.is_computed(name) { self.computed(name, made) } else { self.in_body(name).map(Found::There) }
    }

    /// The canonical text of the attribute with this name, as headers and filters see it. See [`StoredEvent::attribute`].
    pub fn attribute_text<'s>(&'s self, name: &str, scratch: &'s mut String) -> Option<&'s str> {
        scratch.clear();
        match self.find(name, scratch)? {
            Found::There(value) => match value.as_str() {
                Some(text) => Some(text),
                None => {
                    let _ = write!(scratch, "{value}"); // writing to a String cannot fail
                    Some(scratch)
                }
            },
            Found::Made(_) => Some(scratch),
        }
    }

    /// The payload, sharing the body where it stands there as it is.
    #[must_use]
    pub fn data(&self) -> Option<Bytes> {
        self.try_data().ok().flatten()
    }

    /// The event, all that is derived in its place.
    ///
    /// # Errors
    /// When attributes or data are malformed, or are not a valid event.
    pub fn to_event(&self) -> Result<Event, StoredError> {
        let data = self.try_data()?;
        let mut attributes: Vec<(Box<str>, Value)> = Vec::with_capacity(8);
        if self.each_attribute(|name, value| attributes.push((name.into(), value.to_value())))? {
            return Ok(Event::from_attributes(attributes, data)?);
        }
        let publish = self.mqtt().ok_or(StoredError::Malformed("the publish is not there"))?;
        let user = properties::user(publish.properties);
        let content_type = properties::content_type(publish.properties);
        let mut event = mqtt::decode(content_type, user, data.unwrap_or_default(), &Limits::default())?;
        let mut scratch = String::new();
        for name in OURS {
            if self.is_computed(name)
                && let Some(value) = self.attribute(name, &mut scratch)
            {
                event.set(name, value.to_value())?;
            }
        }
        Ok(event)
    }

    /// Visits the attributes that the event has, `specversion` excepted, where they stand; what is derived comes with the others. False,
    /// and none is visited, where the attributes are in a publish's properties.
    ///
    /// # Errors
    /// When they are malformed; some may have been visited.
    pub(crate) fn each_attribute(&self, mut visit: impl FnMut(&str, AttributeRef<'_>)) -> Result<bool, StoredError> {
        let mut scratch = String::new();
        match self.kind() {
            BINARY => return Ok(false),
            kind @ (EVENT | STRUCTURED) => {
                let entries = if kind == EVENT {
                    Entries::new(self.body.get(self.layout.attributes.clone()).unwrap_or_default(), &[])
                } else {
                    Entries::new(self.index()?.1, self.payload())
                };
                for entry in entries {
                    let (name, value) = entry?;
                    if !(OURS.contains(&name) && self.is_computed(name)) {
                        visit(name, value);
                    }
                }
            }
            _ => {
                let names = ["id", "source", "type", "subject", "time", "datacontenttype", "expirytime"];
                for name in names {
                    if let Some(value) = self.attribute(name, &mut scratch) {
                        visit(name, value);
                    }
                }
                for entry in self.given() {
                    let (name, value) = entry?;
                    if !names.contains(&name) && !OURS.contains(&name) {
                        visit(name, value);
                    }
                }
            }
        }
        for name in OURS {
            if self.is_computed(name)
                && let Some(value) = self.attribute(name, &mut scratch)
            {
                visit(name, value);
            }
        }
        Ok(true)
    }

    fn kind(&self) -> u8 {
        self.layout.fixed.head & KIND
    }

    /// The attributes that a mapping gave to a publish.
    fn given(&self) -> Entries<'_> {
        let section = if self.kind() == MAPPED { self.body.get(self.layout.attributes.clone()) } else { None };
        Entries::new(section.unwrap_or_default(), &[])
    }

    /// Whether the event's `source` has the agent's id in it, which its own records leave out.
    pub(crate) fn source_is_derived(&self) -> bool {
        matches!(self.kind(), WRAPPED | MAPPED) && self.given().find("source").is_none()
    }

    /// Whether it came as an event, and not as a publish that was made one, whose `id` says where it is stored.
    #[must_use]
    pub fn came_as_event(&self) -> bool {
        !matches!(self.kind(), WRAPPED | MAPPED)
    }

    fn payload(&self) -> &[u8] {
        self.body.get(self.layout.payload..).unwrap_or_default()
    }

    /// Whether an attribute is not in the body, or not as it is to be seen.
    fn is_computed(&self, name: &str) -> bool {
        matches!(self.kind(), WRAPPED | MAPPED)
            || match name {
                "specversion" => true,
                "godwitagent" => self.layout.origin.is_some(),
                "knativearrivaltime" => self.arrival_ms().is_some(),
                _ => false,
            }
    }

    fn computed<'s>(&'s self, name: &str, made: &mut String) -> Option<Found<'s>> {
        match name {
            "specversion" => Some(Found::There(AttributeRef::String(SPECVERSION))),
            "godwitagent" => Some(Found::There(AttributeRef::String(self.origin()?.agent))),
            "knativearrivaltime" => {
                derive::write_time(made, self.arrival_ms()?)?;
                Some(Found::Made(Derived::Timestamp))
            }
            _ => self.derived(name, made),
        }
    }

    fn in_body(&self, name: &str) -> Option<AttributeRef<'_>> {
        match self.kind() {
            EVENT => Entries::new(self.body.get(self.layout.attributes.clone())?, &[]).find(name),
            STRUCTURED => Entries::new(self.index().ok()?.1, self.payload()).find(name),
            BINARY => {
                let publish = self.mqtt()?;
                let content_type = properties::content_type(publish.properties).filter(|text| !text.is_empty());
                let text = match (name, content_type) {
                    ("datacontenttype", Some(content_type)) => content_type,
                    _ => properties::user(publish.properties).find(|(other, _)| *other == name)?.1,
                };
                Some(AttributeRef::of_name(name, text))
            }
            _ => None,
        }
    }

    /// An attribute of a wrapped publish.
    fn derived<'s>(&'s self, name: &str, made: &mut String) -> Option<Found<'s>> {
        let publish = self.mqtt()?;
        match name {
            "id" => {
                let (epoch, offset) = self.origin().map_or((self.epoch, self.offset), |at| (at.epoch, at.offset));
                derive::write_id(made, epoch, offset);
                Some(Found::Made(Derived::String))
            }
            "source" => {
                let agent = match self.origin() {
                    Some(origin) => Some(origin.agent),
                    None => self.agent.as_ref().map(AgentId::as_str),
                };
                derive::write_source(made, agent, publish.client_id);
                Some(Found::Made(Derived::UriRef))
            }
            "type" => Some(Found::There(AttributeRef::String(WRAPPED_TYPE))),
            "subject" if publish.topic.is_empty() => None,
            "subject" if crate::event::check_string(publish.topic).is_ok() => {
                Some(Found::There(AttributeRef::String(publish.topic)))
            }
            "subject" => {
                derive::write_subject(made, publish.topic);
                Some(Found::Made(Derived::String))
            }
            "time" => {
                derive::write_time(made, self.arrival_ms()?)?;
                Some(Found::Made(Derived::Timestamp))
            }
            "expirytime" => {
                derive::write_time(made, derive::expiry_ms(&publish, self.arrival_ms())?)?;
                Some(Found::Made(Derived::Timestamp))
            }
            "datacontenttype" => {
                let text = ContentType::from_bits(self.layout.fixed.head >> DETAIL_SHIFT).text(&publish);
                text.map(|text| Found::There(AttributeRef::String(text)))
            }
            _ => None,
        }
    }

    /// The data of a structured publish and the attributes behind it.
    fn index(&self) -> Result<(Place<'_>, &[u8]), StoredError> {
        let mut fields = Fields::new(self.body.get(self.layout.attributes.clone()).unwrap_or_default());
        let place = match fields.u8()? {
            NO_DATA => Place::None,
            DATA_HERE => Place::Here(fields.bytes()?),
            kind @ (DATA_AS_IT_IS | DATA_STRING | DATA_BASE64) => {
                let (at, length) = (fields.length()?, fields.length()?);
                Place::Payload(kind, within(self.payload(), at, length)?)
            }
            other => return Err(StoredError::Head(other)),
        };
        Ok((place, fields.rest))
    }

    fn try_data(&self) -> Result<Option<Bytes>, StoredError> {
        match self.kind() {
            EVENT if self.layout.fixed.head & DATA == 0 => Ok(None),
            EVENT => Ok(Some(self.body.slice(self.layout.payload..))),
            STRUCTURED => match self.index()?.0 {
                Place::None => Ok(None),
                Place::Here(bytes) | Place::Payload(DATA_AS_IT_IS, bytes) => Ok(Some(self.body.slice_ref(bytes))),
                Place::Payload(DATA_STRING, string) => Ok(Some(json::unescape(wire::text(string)?)?.into_bytes().into())),
                Place::Payload(_, string) => Ok(Some(json::unbase64(wire::text(string)?)?.into())),
            },
            _ if self.payload().is_empty() => Ok(None),
            _ => Ok(Some(self.body.slice(self.layout.payload..))),
        }
    }
}

/// Where the data of a structured publish is.
enum Place<'a> {
    None,
    Here(&'a [u8]),
    Payload(u8, &'a [u8]),
}
