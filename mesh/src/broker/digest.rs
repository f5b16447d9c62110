//! What a Broker's journal notes of its events, so that a reader can pass a whole segment unread.

use bytes::Bytes;

use crate::event::StoredEvent;
use crate::journal::{Epoch, Field, Offset};

/// Stands for a value that cannot be told from the record alone. No event has an empty `type` or `source`.
pub(crate) const UNTOLD: &str = "";

/// Notes an event's type, source and topic. The source of a publish that was wrapped has the agent's id in it, which the
/// agent's own records do not.
pub(super) fn digest(body: &Bytes, note: &mut dyn FnMut(Field, &str)) {
    let Ok(stored) = StoredEvent::new(body.clone(), Epoch(0), Offset(0), None) else {
        note(Field::Type, UNTOLD);
        note(Field::Source, UNTOLD);
        return;
    };
    let mut scratch = String::new();
    let ty = stored.attribute_text("type", &mut scratch).unwrap_or(UNTOLD);
    note(Field::Type, ty);
    let topic = stored.mqtt().map(|publish| publish.topic);
    if stored.source_is_derived() && stored.origin().is_none() {
        note(Field::Source, UNTOLD);
    } else {
        note(Field::Source, stored.attribute_text("source", &mut scratch).unwrap_or(UNTOLD));
    }
    if let Some(topic) = topic {
        note(Field::Topic, topic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, MqttPublish, encode_event, encode_publish, with_origin};

    fn noted(body: &[u8]) -> Vec<(Field, String)> {
        let mut seen = Vec::new();
        digest(&Bytes::copy_from_slice(body), &mut |field, value| seen.push((field, value.to_owned())));
        seen
    }

    #[test]
    fn type_and_source_of_an_event_are_noted() {
        let event = Event::builder().id("1").source("/s").ty("t").build().expect("valid");
        let mut body = Vec::new();
        encode_event(&mut body, &event, None, std::iter::empty());
        assert_eq!(noted(&body), [(Field::Type, "t".to_owned()), (Field::Source, "/s".to_owned())]);
    }

    #[test]
    fn the_source_of_a_wrapped_publish_is_told_only_where_its_agent_is_known() {
        let publish = MqttPublish {
            client_id: "c",
            topic: "a/b",
            qos: 0,
            retain: false,
            packet_id: 0,
            v5: false,
            properties: &[],
            payload: b"x",
        };
        let mut body = Vec::new();
        encode_publish(&mut body, &publish, None);
        assert!(noted(&body).contains(&(Field::Source, UNTOLD.to_owned())));
        assert!(noted(&body).contains(&(Field::Topic, "a/b".to_owned())));

        let mut at_the_gateway = Vec::new();
        with_origin(&mut at_the_gateway, &body, "boat-7", Epoch(1), Offset(2));
        assert!(noted(&at_the_gateway).contains(&(Field::Source, "/agents/boat-7/mqtt/c".to_owned())));
    }

    #[test]
    fn what_is_no_event_rules_nothing_out() {
        assert_eq!(noted(&[0xff, 1, 2]), [(Field::Type, String::new()), (Field::Source, String::new())]);
    }
}
