//! Events that Triggers publish here (`mqtt:///topic`): to live subscribers, and nowhere else.
//!
//! They do not go through the source mappings, so no event is made of them and no Trigger can feed itself.

use std::sync::Arc;

use godwit_mesh::delivery::{LocalMessage, LocalPublish};

use super::fanout::Message;
use super::hub::Hub;
use super::listener::Handle;
use super::packet::properties::id;

impl Handle {
    /// What Triggers publish by.
    #[must_use]
    pub fn publisher(&self) -> LocalPublish {
        let hub = Arc::clone(&self.0);
        Arc::new(move |message| publish(&hub, &message))
    }
}

fn publish(hub: &Hub, message: &LocalMessage) -> Result<(), String> {
    let properties = properties(message).ok_or("an attribute is longer than the 65,535 bytes that MQTT can write")?;
    hub.counters.trigger_publishes.add(1);
    if hub.has_subscribers() {
        let now_ms = hub.clock.elapsed_ms();
        let (topic, payload) = (&message.topic, &message.payload);
        hub.give(None, &Arc::new(Message::from_parts(topic, payload, &properties, message.qos, message.retain, now_ms)));
    }
    Ok(())
}

/// The properties as a PUBLISH has them; `None` where a text is too long.
fn properties(message: &LocalMessage) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    if let Some(content_type) = &message.content_type {
        out.push(id::CONTENT_TYPE);
        put_text(&mut out, content_type)?;
    }
    for (name, value) in &message.user_properties {
        out.push(id::USER_PROPERTY);
        put_text(&mut out, name)?;
        put_text(&mut out, value)?;
    }
    Some(out)
}

fn put_text(out: &mut Vec<u8>, text: &str) -> Option<()> {
    out.extend_from_slice(&u16::try_from(text.len()).ok()?.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::packet::properties::{IN_PUBLISH, Walk};
    use super::*;

    #[test]
    fn what_is_written_is_well_formed_and_what_cannot_be_written_is_not() {
        let mut message = LocalMessage {
            topic: "a".to_owned(),
            payload: Vec::new().into(),
            content_type: Some("text/plain".to_owned()),
            user_properties: vec![("id".to_owned(), "1".to_owned())],
            qos: 0,
            retain: false,
        };
        let written = properties(&message).expect("short texts");
        assert_eq!(Walk::new(&written, IN_PUBLISH).flatten().count(), 2);
        message.user_properties.push(("x".to_owned(), "x".repeat(65_536)));
        assert_eq!(properties(&message), None);
    }
}
