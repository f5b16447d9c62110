//! The properties of an MQTT 5 PUBLISH (MQTT 5.0, sections 2.2.2 and 3.3.2.3), read in place: raw bytes in their order, without
//! the length in front of them. Nothing is allocated; a malformed property ends the walk.

/// One property of a PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property<'a> {
    /// 0x01: 1 says that the payload is UTF-8.
    PayloadFormat(u8),
    /// 0x02: seconds for which the message is worth anything.
    MessageExpiry(u32),
    /// 0x03.
    ContentType(&'a str),
    /// 0x26: a name and a value; may occur many times.
    User(&'a str, &'a str),
    /// 0x08, 0x09, 0x0B, 0x23: not of interest for events.
    Other(u8),
}

/// Walks over raw properties.
#[must_use]
pub fn walk(raw: &[u8]) -> Walk<'_> {
    Walk { rest: raw }
}

/// The content type among the properties.
#[must_use]
pub fn content_type(raw: &[u8]) -> Option<&str> {
    walk(raw).find_map(|property| match property {
        Property::ContentType(text) => Some(text),
        _ => None,
    })
}

/// The user properties in their order.
pub fn user(raw: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    walk(raw).filter_map(|property| match property {
        Property::User(name, value) => Some((name, value)),
        _ => None,
    })
}

/// See [`walk`].
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    rest: &'a [u8],
}

impl<'a> Walk<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(taken)
    }

    fn binary(&mut self) -> Option<&'a [u8]> {
        let length: [u8; 2] = self.take(2)?.try_into().ok()?;
        self.take(u16::from_be_bytes(length).into())
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.binary()?).ok()
    }

    fn step(&mut self) -> Option<Property<'a>> {
        let &[id] = self.take(1)? else { return None };
        match id {
            0x01 => self.take(1)?.first().map(|format| Property::PayloadFormat(*format)),
            0x02 => self.take(4)?.try_into().ok().map(|seconds| Property::MessageExpiry(u32::from_be_bytes(seconds))),
            0x03 => self.text().map(Property::ContentType),
            0x08 => self.text().map(|_| Property::Other(id)),
            0x09 => self.binary().map(|_| Property::Other(id)),
            0x0B => {
                for _ in 0..4 {
                    if self.take(1)?.first()? & 0x80 == 0 {
                        return Some(Property::Other(id));
                    }
                }
                None
            }
            0x23 => self.take(2).map(|_| Property::Other(id)),
            0x26 => Some(Property::User(self.text()?, self.text()?)),
            _ => None,
        }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Property<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let property = self.step();
        if property.is_none() {
            self.rest = &[];
        }
        property
    }
}

/// Appends a user property; texts longer than MQTT allows are cut at a character.
pub fn push_user(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0x26);
    push_text(out, name);
    push_text(out, value);
}

/// Appends a content type.
pub fn push_content_type(out: &mut Vec<u8>, content_type: &str) {
    out.push(0x03);
    push_text(out, content_type);
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    let mut most = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(most) {
        most -= 1; // ends at 0, which is one
    }
    let text = text.get(..most).unwrap_or_default();
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_property_of_a_publish_is_walked_over() {
        let mut raw = vec![0x01, 1, 0x02, 0, 0, 0, 60, 0x23, 0, 7, 0x08, 0, 1, b'r', 0x09, 0, 2, 1, 2, 0x0B, 0x80, 0x01];
        push_content_type(&mut raw, "text/plain");
        push_user(&mut raw, "a", "1");
        push_user(&mut raw, "a", "2");
        let seen: Vec<_> = walk(&raw).collect();
        assert_eq!(seen[..2], [Property::PayloadFormat(1), Property::MessageExpiry(60)]);
        assert_eq!(seen[6..], [Property::ContentType("text/plain"), Property::User("a", "1"), Property::User("a", "2")]);
        assert_eq!(content_type(&raw), Some("text/plain"));
        assert_eq!(user(&raw).count(), 2);
    }

    #[test]
    fn a_malformed_property_ends_the_walk() {
        for raw in
            [&[0x26, 0, 1, b'a', 0, 9][..], &[0x7f], &[0x03, 0, 1, 0xff], &[0x0B, 0x80, 0x80, 0x80, 0x80], &[0x02, 0]]
        {
            assert_eq!(walk(raw).count(), 0);
        }
    }
}
