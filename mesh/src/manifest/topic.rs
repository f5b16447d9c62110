//! `mqtt:///topic/{subject}?qos=1&retain=true` as a destination: a topic with places for attributes.

use percent_encoding::percent_decode_str;
use url::Url;

use crate::event::{Event, check_attribute_name};

/// Longest topic name, in bytes: what MQTT can write.
const MAX_TOPIC_BYTES: usize = 65_535;

/// A topic with places for attributes, and how messages go there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topic {
    parts: Vec<Part>,
    /// The highest QoS at which messages go out.
    pub(crate) qos: u8,
    /// The retain flag they are published with.
    pub(crate) retain: bool,
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
    pub(crate) fn name(&self, event: &Event) -> Result<String, String> {
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
}

#[cfg(test)]
mod tests {
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
}
