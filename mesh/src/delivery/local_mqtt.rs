//! `mqtt:///topic/{subject}` as a subscriber: a live publish on this process's own MQTT listener.
//!
//! The listener is above us, and is bound after the Triggers run: it fills a slot ([`LocalListener`]), and who publishes waits for that.
//! An event is delivered when the listener has handed it to those who have subscribed, be there any or not.
//!
//! What is published here goes to subscribers alone, not through the source mappings: it makes no event, so a Trigger cannot feed
//! itself. A client that carries messages from topic to topic can close a circle; so `knativebrokerttl`, which other subscribers do not see, goes along
//! as a user property, one less each time, until it is used up (D8).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use tokio::sync::watch;
use url::Url;

use super::outcome::{Cause, Failure};
use crate::event::{Event, check_attribute_name, mqtt, ttl};
use crate::manifest::Format;

/// Longest topic name, in bytes: what MQTT can write.
const MAX_TOPIC_BYTES: usize = 65_535;

/// A message for the listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalMessage {
    /// The topic name: no wildcards, not empty.
    pub topic: String,
    /// The payload.
    pub payload: Bytes,
    /// The property Content Type.
    pub content_type: Option<String>,
    /// The user properties in order.
    pub user_properties: Vec<(String, String)>,
    /// The highest QoS at which it goes out.
    pub qos: u8,
    /// The retain flag, for those who take it as it was published.
    pub retain: bool,
}

/// Takes a message; the error says why not.
pub type LocalPublish = Arc<dyn Fn(LocalMessage) -> Result<(), String> + Send + Sync>;

/// The place of this process's own MQTT listener. Cheap to clone.
#[derive(Clone)]
pub struct LocalListener(Arc<watch::Sender<Slot>>);

#[derive(Clone)]
enum Slot {
    /// This process has none.
    None,
    Coming,
    There(LocalPublish),
}

impl fmt::Debug for LocalListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &*self.0.borrow() {
            Slot::None => "no listener",
            Slot::Coming => "a listener to come",
            Slot::There(_) => "a listener",
        })
    }
}

impl LocalListener {
    /// There is none, and will be none.
    #[must_use]
    pub fn none() -> Self {
        Self(Arc::new(watch::Sender::new(Slot::None)))
    }

    /// There will be one: see [`LocalListener::set`].
    #[must_use]
    pub fn coming() -> Self {
        Self(Arc::new(watch::Sender::new(Slot::Coming)))
    }

    /// The listener is there.
    pub fn set(&self, publish: LocalPublish) {
        self.0.send_replace(Slot::There(publish));
    }

    pub(super) fn is_none(&self) -> bool {
        matches!(&*self.0.borrow(), Slot::None)
    }

    async fn publish(&self, message: LocalMessage) -> Result<(), String> {
        let none = || "this process has no MQTT listener".to_owned();
        let slot = self.0.subscribe().wait_for(|slot| !matches!(slot, Slot::Coming)).await.map_err(|_| none())?.clone();
        match slot {
            Slot::There(publish) => publish(message),
            Slot::None | Slot::Coming => Err(none()),
        }
    }
}

/// A topic with places for attributes, and how messages go there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topic {
    parts: Vec<Part>,
    qos: u8,
    retain: bool,
    shown: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Attribute(String),
}

impl Topic {
    /// Reads `mqtt:///a/{subject}?qos=1&retain=true`.
    pub(crate) fn parse(url: &Url) -> Result<Self, String> {
        let (mut qos, mut retain) = (0, false);
        for (name, value) in url.query_pairs() {
            match (&*name, &*value) {
                ("qos", "0" | "1" | "2") => qos = value.parse().unwrap_or(0),
                ("retain", "true" | "false") => retain = value == "true",
                _ => return Err(format!("{name}={value}: only qos=0|1|2 and retain=true|false may follow a topic")),
            }
        }
        let path = url.path().strip_prefix('/').unwrap_or(url.path());
        let path = percent_decode_str(path).decode_utf8().map_err(|_| "the topic is not UTF-8".to_owned())?;
        let mut parts = Vec::new();
        let mut rest = &*path;
        while let Some((text, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or("a { without its }: {name} stands for an attribute")?;
            check_attribute_name(name).map_err(|why| format!("{{{name}}}: {why}"))?;
            if !text.is_empty() {
                parts.push(Part::Text(text.to_owned()));
            }
            parts.push(Part::Attribute(name.to_owned()));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        let wrong = |c: char| matches!(c, '+' | '#' | '}') || c.is_control();
        if parts.is_empty() || parts.iter().any(|part| matches!(part, Part::Text(text) if text.contains(wrong))) {
            return Err("a topic to publish to is not empty and has neither +, # nor control characters".to_owned());
        }
        let query = url.query().map_or(String::new(), |query| format!("?{query}"));
        Ok(Self { shown: format!("mqtt:///{path}{query}"), parts, qos, retain })
    }

    /// The URL as people write it.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// The topic for an event: what cannot stand in a topic's name is percent-encoded.
    fn name(&self, event: &Event) -> Result<String, String> {
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Attribute(attribute) => {
                    let value = event.get(attribute).ok_or_else(|| format!("the event has no {attribute}"))?;
                    for c in value.to_text().chars() {
                        if matches!(c, '+' | '#' | '%') || c.is_control() {
                            let mut bytes = [0; 4];
                            for byte in c.encode_utf8(&mut bytes).bytes() {
                                name.push_str(&format!("%{byte:02X}"));
                            }
                        } else {
                            name.push(c);
                        }
                    }
                }
            }
        }
        let ours = matches!(self.parts.first(), Some(Part::Text(text)) if text.starts_with('$'));
        if name.is_empty() || name.len() > MAX_TOPIC_BYTES || (name.starts_with('$') && !ours) {
            let start: String = name.chars().take(40).collect();
            return Err(format!("the topic \"{start}\" is empty, too long or begins with $"));
        }
        Ok(name)
    }

    /// Publishes an event whose time to live was `before`: in binary mode unless `format` says structured. In both the payload is
    /// all that subscribers with MQTT 3.1.1 see.
    pub(super) async fn publish(
        &self,
        listener: &LocalListener,
        mut event: Event,
        before: i32,
        format: Option<Format>,
        timeout: Duration,
    ) -> Result<(), Failure> {
        let refused = |why: String| Failure::new(Cause::Status(400), &self.shown, why.clone(), why.into_bytes());
        let topic = self.name(&event).map_err(refused)?;
        ttl::put(&mut event, before).map_err(|_| {
            let why = "knativebrokerttl is used up: a client carries messages round in a circle".to_owned();
            Failure::new(Cause::TtlUsedUp, &self.shown, why, Vec::new())
        })?;
        let message = match format {
            Some(Format::Json) => mqtt::structured(&event),
            Some(Format::Binary) | None => mqtt::binary(&event),
        };
        let message = LocalMessage {
            topic,
            payload: message.payload,
            content_type: message.content_type,
            user_properties: message.user_properties,
            qos: self.qos,
            retain: self.retain,
        };
        match tokio::time::timeout(timeout, listener.publish(message)).await {
            Ok(outcome) => outcome.map_err(|why| Failure::no_response(&self.shown, &why)),
            Err(_) => Err(Failure::no_response(&self.shown, "the MQTT listener is not there yet")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn topic(text: &str) -> Result<Topic, String> {
        Topic::parse(&Url::parse(text).expect("a URL"))
    }

    fn event(subject: &str) -> Event {
        Event::builder().id("1").source("/s").ty("t").subject(subject).data("text/plain", "x").build().expect("valid")
    }

    #[test]
    fn a_topic_has_places_for_attributes_and_says_how_messages_go() {
        let parsed = topic("mqtt:///site/{type}/{subject}?qos=1&retain=true").expect("valid");
        assert_eq!((parsed.qos, parsed.retain), (1, true));
        assert_eq!(parsed.shown(), "mqtt:///site/{type}/{subject}?qos=1&retain=true");
        assert_eq!(parsed.name(&event("a/b")).as_deref(), Ok("site/t/a/b"));
        assert_eq!(parsed.name(&event("a+#%")).as_deref(), Ok("site/t/a%2B%23%25"));
        assert!(
            topic("mqtt:///x/{partitionkey}").expect("valid").name(&event("a")).is_err_and(|e| e.contains("partitionkey"))
        );
        assert!(
            topic("mqtt:///{subject}").expect("valid").name(&event("$SYS/x")).is_err(),
            "no event names the broker's own topics"
        );
    }

    #[test]
    fn what_is_no_topic_is_refused() {
        for text in [
            "mqtt:///",
            "mqtt:///a/+",
            "mqtt:///a/%23",
            "mqtt:///a/{Sub}",
            "mqtt:///a/{sub",
            "mqtt:///a?qos=3",
            "mqtt:///a?x=1",
        ] {
            assert!(topic(text).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn who_publishes_waits_for_the_listener_and_the_time_to_live_counts_down() {
        let listener = LocalListener::coming();
        let seen: Arc<Mutex<Vec<LocalMessage>>> = Arc::default();
        let topic = topic("mqtt:///a").expect("valid");
        let publish = topic.publish(&listener, event("s"), 7, None, Duration::from_secs(5));
        let kept = Arc::clone(&seen);
        let set = async {
            listener.set(Arc::new(move |message| {
                kept.lock().expect("not poisoned").push(message);
                Ok(())
            }));
        };
        let (published, ()) = tokio::join!(publish, set);
        published.expect("published");
        let message = seen.lock().expect("not poisoned").pop().expect("one");
        assert!(message.user_properties.contains(&("knativebrokerttl".to_owned(), "6".to_owned())), "{message:?}");
        assert_eq!((&*message.payload, message.content_type.as_deref()), (&b"x"[..], Some("text/plain")));

        let ended = topic.publish(&listener, event("s"), 1, None, Duration::from_secs(5)).await;
        let ended = ended.or(topic.publish(&listener, event("s"), 0, None, Duration::from_secs(5)).await);
        assert_eq!(ended.expect_err("used up").cause, Cause::TtlUsedUp);
        let none = topic.publish(&LocalListener::none(), event("s"), 9, None, Duration::from_secs(5)).await;
        assert_eq!(none.expect_err("none").cause, Cause::NoResponse);
    }
}
