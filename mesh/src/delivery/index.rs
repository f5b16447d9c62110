//! Which of many filters an event may concern: by its `type` and its `source`, so that those it plainly does not concern cost
//! nothing. A filter stands under the values it demands, or among the rest, which are asked about every event.
//!
//! Numbers are the caller's affair; each is added once.

use std::collections::HashMap;

use crate::event::StoredEvent;
use crate::filter::Key;

/// Numbers of filters by what they demand.
#[derive(Debug, Default)]
pub struct Index {
    types: HashMap<Box<str>, Vec<u32>>,
    sources: HashMap<Box<str>, Vec<u32>>,
    rest: Vec<u32>,
}

impl Index {
    /// Adds the filter with this number.
    pub fn add(&mut self, number: u32, key: Option<&Key>) {
        let (map, values) = match key {
            Some(Key::Type(values)) => (&mut self.types, values),
            Some(Key::Source(values)) => (&mut self.sources, values),
            None => return self.rest.push(number),
        };
        for value in values {
            map.entry(value.clone()).or_default().push(number);
        }
    }

    /// Takes it away again.
    pub fn remove(&mut self, number: u32, key: Option<&Key>) {
        let (map, values) = match key {
            Some(Key::Type(values)) => (&mut self.types, values),
            Some(Key::Source(values)) => (&mut self.sources, values),
            None => return self.rest.retain(|other| *other != number),
        };
        for value in values {
            if let Some(numbers) = map.get_mut(value) {
                numbers.retain(|other| *other != number);
                if numbers.is_empty() {
                    map.remove(value);
                }
            }
        }
    }

    /// Calls `found` with each filter that the event may concern, each once.
    pub fn candidates(&self, event: &StoredEvent, scratch: &mut String, mut found: impl FnMut(u32)) {
        for (name, map) in [("type", &self.types), ("source", &self.sources)] {
            if map.is_empty() {
                continue;
            }
            if let Some(numbers) = event.attribute_text(name, scratch).and_then(|value| map.get(value)) {
                numbers.iter().copied().for_each(&mut found);
            }
        }
        self.rest.iter().copied().for_each(found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, encode_event};
    use crate::journal::{Epoch, Offset};

    #[test]
    fn only_those_whose_type_or_source_it_is_and_the_rest_are_candidates() {
        let mut index = Index::default();
        let ty = |value: &str| Key::Type(vec![value.into()]);
        index.add(0, Some(&ty("a")));
        index.add(1, Some(&ty("b")));
        index.add(2, Some(&Key::Source(vec!["/s".into(), "/r".into()])));
        index.add(3, None);
        let event = Event::builder().id("1").source("/s").ty("a").build().expect("valid");
        let mut body = Vec::new();
        encode_event(&mut body, &event, None, std::iter::empty());
        let stored = StoredEvent::new(body.into(), Epoch(1), Offset(0), None).expect("stored");
        let found = |index: &Index| {
            let mut all = Vec::new();
            index.candidates(&stored, &mut String::new(), |number| all.push(number));
            all
        };
        assert_eq!(found(&index), [0, 2, 3]);
        index.remove(0, Some(&ty("a")));
        index.remove(3, None);
        assert_eq!(found(&index), [2]);
    }
}
