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
use tokio::sync::watch;

use super::outcome::{Cause, Failure};
use crate::event::{Event, mqtt, ttl};
use crate::manifest::{Format, Topic};

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

/// Publishes an event whose time to live was `before`: in binary mode unless `format` says structured. In both the payload is
/// all that subscribers with MQTT 3.1.1 see.
pub(super) async fn publish(
    topic: &Topic,
    listener: &LocalListener,
    mut event: Event,
    before: i32,
    format: Option<Format>,
    timeout: Duration,
) -> Result<(), Failure> {
    let refused = |why: String| Failure::new(Cause::Status(400), topic.shown(), why.clone(), why.into_bytes());
    let name = topic.name(&event).map_err(refused)?;
    ttl::put(&mut event, before).map_err(|_| {
        let why = "knativebrokerttl is used up: a client carries messages round in a circle".to_owned();
        Failure::new(Cause::TtlUsedUp, topic.shown(), why, Vec::new())
    })?;
    let message = match format {
        Some(Format::Json) => mqtt::structured(&event),
        Some(Format::Binary) | None => mqtt::binary(&event),
    };
    let message = LocalMessage {
        topic: name,
        payload: message.payload,
        content_type: message.content_type,
        user_properties: message.user_properties,
        qos: topic.qos,
        retain: topic.retain,
    };
    match tokio::time::timeout(timeout, listener.publish(message)).await {
        Ok(outcome) => outcome.map_err(|why| Failure::no_response(topic.shown(), &why)),
        Err(_) => Err(Failure::no_response(topic.shown(), "the MQTT listener is not there yet")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn event(subject: &str) -> Event {
        Event::builder().id("1").source("/s").ty("t").subject(subject).data("text/plain", "x").build().expect("valid")
    }

    #[tokio::test]
    async fn who_publishes_waits_for_the_listener_and_the_time_to_live_counts_down() {
        let listener = LocalListener::coming();
        let seen: Arc<Mutex<Vec<LocalMessage>>> = Arc::default();
        let topic = Topic::parse(&url::Url::parse("mqtt:///a").expect("a URL")).expect("valid");
        let published = publish(&topic, &listener, event("s"), 7, None, Duration::from_secs(5));
        let kept = Arc::clone(&seen);
        let set = async {
            listener.set(Arc::new(move |message| {
                kept.lock().expect("not poisoned").push(message);
                Ok(())
            }));
        };
        let (published, ()) = tokio::join!(published, set);
        published.expect("published");
        let message = seen.lock().expect("not poisoned").pop().expect("one");
        assert!(message.user_properties.contains(&("knativebrokerttl".to_owned(), "6".to_owned())), "{message:?}");
        assert_eq!((&*message.payload, message.content_type.as_deref()), (&b"x"[..], Some("text/plain")));

        let ended = publish(&topic, &listener, event("s"), 1, None, Duration::from_secs(5)).await;
        let ended = ended.or(publish(&topic, &listener, event("s"), 0, None, Duration::from_secs(5)).await);
        assert_eq!(ended.expect_err("used up").cause, Cause::TtlUsedUp);
        let none = publish(&topic, &LocalListener::none(), event("s"), 9, None, Duration::from_secs(5)).await;
        assert_eq!(none.expect_err("none").cause, Cause::NoResponse);
    }
}
