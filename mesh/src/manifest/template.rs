//! Templates of attributes of a MqttSource: text with `{topic}`, `{topic.2}`, `{client}` and `{agent}` in it.

use std::fmt::Write as _;
use std::str::FromStr;

use crate::event::check_string;

/// Longest template in bytes.
const MAX_BYTES: usize = 1024;

/// Highest level of a topic that can be named.
const MAX_LEVEL: usize = 128;

/// A template, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Topic,
    /// One level of the topic, from 1.
    Level(usize),
    Client,
    Agent,
}

/// What is put into a template.
#[derive(Debug, Clone, Copy)]
pub struct Variables<'a> {
    /// The topic of the publish.
    pub topic: &'a str,
    /// The client that published.
    pub client: &'a str,
    /// The agent's id.
    pub agent: &'a str,
}

/// How what is put in is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// As a part of a URI reference: all but unreserved characters and `/` percent-encoded.
    Uri,
    /// As it is, but for what no String may hold, which is percent-encoded.
    String,
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_BYTES {
            return Err(format!("must have 1 to {MAX_BYTES} bytes"));
        }
        check_string(text).map_err(|e| e.to_string())?;
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            literal.push_str(before);
            if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
                literal.push_str(from.get(..1).unwrap_or_default());
                rest = after;
                continue;
            }
            let (name, after) = from
                .strip_prefix('{')
                .and_then(|f| f.split_once('}'))
                .ok_or("has a brace without its other half; write {{ for one {")?;
            let part = match name {
                "topic" => Part::Topic,
                "client" => Part::Client,
                "agent" => Part::Agent,
                _ => {
                    let level = name.strip_prefix("topic.").and_then(|n| n.parse().ok());
                    let level = level.filter(|n| (1..=MAX_LEVEL).contains(n));
                    Part::Level(level.ok_or_else(|| {
                        let name: String = name.chars().take(32).collect();
                        format!(
                            "{{{name}}} is not known; there are {{topic}}, {{topic.1}} and so on, {{client}}, {{agent}}"
                        )
                    })?)
                }
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(part);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self(parts))
    }
}

impl Template {
    /// Appends the template with its variables in place. A level that the topic does not have is empty.
    pub fn write(&self, out: &mut String, variables: &Variables<'_>, escape: Escape) {
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Topic => put(out, variables.topic, escape),
                Part::Level(n) => put(out, variables.topic.split('/').nth(n - 1).unwrap_or_default(), escape),
                Part::Client => put(out, variables.client, escape),
                Part::Agent => put(out, variables.agent, escape),
            }
        }
    }
}

fn put(out: &mut String, text: &str, escape: Escape) {
    for c in text.chars() {
        let plain = match escape {
            Escape::Uri => c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~' | '/'),
            Escape::String => check_string(c.encode_utf8(&mut [0; 4])).is_ok(),
        };
        if plain {
            out.push(c);
            continue;
        }
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            let _ = write!(out, "%{byte:02X}"); // writing to a String cannot fail
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AT: Variables<'_> = Variables { topic: "site 1/pump/é", client: "a/b c", agent: "boat-7" };

    fn write(template: &str, escape: Escape) -> String {
        let mut out = String::new();
        template.parse::<Template>().expect(template).write(&mut out, &AT, escape);
        out
    }

    #[test]
    fn variables_are_put_in_and_escaped() {
        assert_eq!(write("com.example.{topic.2}", Escape::String), "com.example.pump");
        assert_eq!(write("/agents/{agent}/{topic.1}", Escape::Uri), "/agents/boat-7/site%201");
        assert_eq!(write("{topic}", Escape::String), "site 1/pump/é");
        assert_eq!(write("{topic}?{client}", Escape::Uri), "site%201/pump/%C3%A9?a/b%20c");
        assert_eq!(write("{{{topic.9}}}", Escape::String), "{}");
    }

    #[test]
    fn what_is_no_template_says_why() {
        for text in ["", "{", "a}b", "{topic", "{topics}", "{topic.0}", "{topic.x}", "{}", "a\u{1}b"] {
            assert!(text.parse::<Template>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_out_is_a_valid_text(topic in ".{0,20}", client in ".{0,20}") {
            let template: Template = "{topic}-{topic.1}-{client}".parse().expect("valid");
            let mut out = String::new();
            template.write(&mut out, &Variables { topic: &topic, client: &client, agent: "a" }, Escape::String);
            prop_assert!(check_string(&out).is_ok());
        }

        #[test]
        fn any_text_is_taken_or_refused_without_a_panic(text in ".{0,24}") {
            let _ = text.parse::<Template>();
        }
    }
}
