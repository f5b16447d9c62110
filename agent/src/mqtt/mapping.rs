//! What a MqttSource makes of a publish: the attributes that its templates and `ceOverrides` give.

use std::sync::Arc;

use godwit_mesh::event::{MqttPublish, encode_mapped, encode_publish};
use godwit_mesh::manifest::{Escape, SourceKind, SourceSpec, Template, Variables};
use godwit_mesh::source::Live;

/// One MqttSource, as publishes meet it.
#[derive(Debug)]
pub struct Mapping {
    agent: String,
    ty: Option<Template>,
    source: Option<Template>,
    subject: Option<Template>,
    overrides: Vec<(String, String)>,
    live: Arc<Live>,
}

impl Mapping {
    /// The mapping of a MqttSource; `None` for any other source.
    #[must_use]
    pub fn new(spec: &SourceSpec, agent: &str, live: Arc<Live>) -> Option<Self> {
        let SourceKind::Mqtt(mqtt) = &spec.what else { return None };
        let text = |(name, value): &(String, godwit_mesh::event::Value)| (name.clone(), value.to_text().into_owned());
        Some(Self {
            agent: agent.to_owned(),
            ty: mqtt.ty.clone(),
            source: mqtt.source.clone(),
            subject: mqtt.subject.clone(),
            overrides: spec.overrides.iter().map(text).collect(),
            live,
        })
    }

    /// Appends the stored form of a publish. What already is an event stays as it is; a template that comes out empty gives way
    /// to what would be there without it.
    pub(super) fn encode(&self, out: &mut Vec<u8>, publish: &MqttPublish<'_>, arrival_ms: Option<u64>) {
        let variables = Variables { topic: publish.topic, client: publish.client_id, agent: &self.agent };
        let write = |template: &Option<Template>, escape| {
            let mut text = String::new();
            if let Some(template) = template {
                template.write(&mut text, &variables, escape);
            }
            text
        };
        let own = [
            ("type", write(&self.ty, Escape::String)),
            ("source", write(&self.source, Escape::Uri)),
            ("subject", write(&self.subject, Escape::String)),
        ];
        let mut attributes: Vec<(&str, &str)> = Vec::with_capacity(own.len() + self.overrides.len());
        attributes.extend(own.iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| (*name, text.as_str())));
        attributes.extend(self.overrides.iter().map(|(name, text)| (name.as_str(), text.as_str())));
        if attributes.is_empty() {
            encode_publish(out, publish, arrival_ms);
        } else {
            encode_mapped(out, publish, arrival_ms, &attributes);
        }
    }

    /// Counts publishes that became durable.
    pub(super) fn stored(&self, publishes: u64) {
        self.live.sent(publishes);
    }
}
