//! Reading CBOR (RFC 8949) into a type: frames of the sync and values of the state.
//!
//! `serde_cbor` writes both, and could read them; but it compiles a whole parser for each type that is read, a fifth of a megabyte in
//! the agent. Here the parsing is compiled once, and each type adds only what is its own. It reads what our writers write: definite
//! lengths, struct fields by name or number, enums as serde_cbor has them. Tags are passed over; indefinite lengths are refused.
//! Nesting is bounded, and no length is believed before the bytes for it are there.

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, VariantAccess, Visitor,
    value::Error,
};
use serde::forward_to_deserialize_any;

/// Arrays, maps and enums inside each other.
const MAX_DEPTH: u8 = 32;

/// Reads one value that takes all of `bytes`; text and byte strings can be borrowed from there.
///
/// # Errors
/// When the bytes are no such value, or go on behind it.
pub(crate) fn read<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Error> {
    let mut reader = Reader { rest: bytes, depth: MAX_DEPTH };
    let value = T::deserialize(&mut reader)?;
    if reader.rest.is_empty() { Ok(value) } else { Err(wrong("bytes follow the value")) }
}

fn wrong(why: &str) -> Error {
    Error::custom(why)
}

/// The head of a value, with what follows it where that is a string.
#[derive(Debug, Clone, Copy)]
enum Item<'de> {
    Unsigned(u64),
    /// `-1 - n`.
    Negative(u64),
    Bytes(&'de [u8]),
    Text(&'de str),
    Array(u64),
    Map(u64),
    Bool(bool),
    Null,
    Float(f64),
}

struct Reader<'de> {
    rest: &'de [u8],
    depth: u8,
}

impl<'de> Reader<'de> {
    fn take(&mut self, count: u64) -> Result<&'de [u8], Error> {
        let split = usize::try_from(count).ok().and_then(|count| self.rest.split_at_checked(count));
        let (taken, rest) = split.ok_or_else(|| wrong("it is cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn number(&mut self, size: u64) -> Result<u64, Error> {
        Ok(self.take(size)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn item(&mut self) -> Result<Item<'de>, Error> {
        loop {
            let head = self.number(1)?;
            let (major, short) = (head >> 5, head & 31);
            let argument = match short {
                0..=23 => short,
                24..=27 => self.number(1 << (short - 24))?,
                _ => return Err(wrong("a length that is not definite, or reserved")),
            };
            return Ok(match major {
                0 => Item::Unsigned(argument),
                1 => Item::Negative(argument),
                2 => Item::Bytes(self.take(argument)?),
                3 => Item::Text(std::str::from_utf8(self.take(argument)?).map_err(|_| wrong("text that is not UTF-8"))?),
                4 => Item::Array(argument),
                5 => Item::Map(argument),
                6 => continue,
                _ => match (short, argument) {
                    (20, _) => Item::Bool(false),
                    (21, _) => Item::Bool(true),
                    (22 | 23, _) => Item::Null,
                    (25, bits) => Item::Float(half(bits)),
                    (26, bits) => Item::Float(f64::from(f32::from_bits(u32::try_from(bits).unwrap_or_default()))),
                    (27, bits) => Item::Float(f64::from_bits(bits)),
                    _ => return Err(wrong("an unknown simple value")),
                },
            });
        }
    }

    /// The next value, left where it is.
    fn peek(&self) -> Result<Item<'de>, Error> {
        Reader { rest: self.rest, depth: 0 }.item()
    }

    /// Passes over one value.
    fn skip(&mut self) -> Result<(), Error> {
        let mut left: u64 = 1;
        while left > 0 {
            left -= 1;
            let more = match self.item()? {
                Item::Array(count) => count,
                Item::Map(count) => count.saturating_mul(2),
                _ => 0,
            };
            left = left.saturating_add(more);
        }
        Ok(())
    }

    fn deeper(&mut self) -> Result<(), Error> {
        self.depth = self.depth.checked_sub(1).ok_or_else(|| wrong("it is nested too deep"))?;
        Ok(())
    }

    /// What an array or map of `left` values gives to `read`, which must take all of them.
    fn within<T>(&mut self, left: u64, read: impl FnOnce(&mut Values<'_, 'de>) -> Result<T, Error>) -> Result<T, Error> {
        self.deeper()?;
        let mut values = Values { reader: self, left };
        let value = read(&mut values)?;
        let all = values.left == 0;
        self.depth += 1;
        if all { Ok(value) } else { Err(wrong("there are more values than fit")) }
    }
}

/// IEEE 754 half precision.
fn half(bits: u64) -> f64 {
    let (exponent, mantissa) = (bits >> 10 & 31, (bits & 0x3ff) as f64);
    let value = match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (mantissa + 1024.0) * 2f64.powi(i32::try_from(exponent).unwrap_or_default() - 25),
    };
    if bits & 0x8000 == 0 { value } else { -value }
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.item()? {
            Item::Unsigned(number) => visitor.visit_u64(number),
            Item::Negative(number) => visitor
                .visit_i64(i64::try_from(number).map_err(|_| wrong("a number below that of 64 bits"))?.wrapping_neg() - 1),
            Item::Bytes(bytes) => visitor.visit_borrowed_bytes(bytes),
            Item::Text(text) => visitor.visit_borrowed_str(text),
            Item::Array(count) => self.within(count, |values| visitor.visit_seq(values)),
            Item::Map(count) => self.within(count, |values| visitor.visit_map(values)),
            Item::Bool(value) => visitor.visit_bool(value),
            Item::Null => visitor.visit_unit(),
            Item::Float(value) => visitor.visit_f64(value),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.peek()? {
            Item::Null => self.item().and_then(|_| visitor.visit_none()),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.peek()? {
            // A variant without contents is its name alone.
            Item::Text(_) | Item::Unsigned(_) => visitor.visit_enum(Variant { reader: self, bare: true }),
            Item::Map(1) => {
                self.item()?;
                self.deeper()?;
                let value = visitor.visit_enum(Variant { reader: self, bare: false })?;
                self.depth += 1;
                Ok(value)
            }
            _ => Err(wrong("a variant was expected")),
        }
    }

    // One function each for all types that are read this way.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.skip()?;
        visitor.visit_unit()
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.item()? {
            Item::Unsigned(number) => visitor.visit_u64(number),
            _ => Err(wrong("a number from 0 was expected")),
        }
    }
    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_u64(visitor)
    }
    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_u64(visitor)
    }
    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.item()? {
            Item::Text(text) => visitor.visit_borrowed_str(text),
            _ => Err(wrong("text was expected")),
        }
    }
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.item()? {
            Item::Bytes(bytes) => visitor.visit_borrowed_bytes(bytes),
            _ => Err(wrong("a byte string was expected")),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.item()? {
            Item::Array(count) => self.within(count, |values| visitor.visit_seq(values)),
            _ => Err(wrong("an array was expected")),
        }
    }
    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }
    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.item()? {
            Item::Map(count) => self.within(count, |values| visitor.visit_map(values)),
            _ => Err(wrong("a map was expected")),
        }
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.item()? {
            Item::Unsigned(number) => visitor.visit_u64(number),
            Item::Text(text) => visitor.visit_borrowed_str(text),
            _ => Err(wrong("a name was expected")),
        }
    }

    forward_to_deserialize_any! { bool i8 i16 i32 i64 i128 u128 f32 f64 char byte_buf unit unit_struct }
}

/// The values of an array or map, of which `left` have not been read.
struct Values<'a, 'de> {
    reader: &'a mut Reader<'de>,
    left: u64,
}

impl Values<'_, '_> {
    fn one(&mut self) -> bool {
        let more = self.left > 0;
        self.left = self.left.saturating_sub(1);
        more
    }
}

impl<'de> SeqAccess<'de> for &mut Values<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if self.one() { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }

    fn size_hint(&self) -> Option<usize> {
        // Each value has one byte at least.
        usize::try_from(self.left).ok().map(|left| left.min(self.reader.rest.len()))
    }
}

impl<'de> MapAccess<'de> for &mut Values<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        if self.one() { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(&mut *self.reader)
    }
}

/// A variant of an enum: its name, and its contents behind it.
struct Variant<'a, 'de> {
    reader: &'a mut Reader<'de>,
    bare: bool,
}

impl<'a, 'de> EnumAccess<'de> for Variant<'a, 'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        Ok((seed.deserialize(&mut *self.reader)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        if self.bare { Ok(()) } else { self.reader.skip() }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        if self.bare { Err(wrong("a variant without its contents")) } else { seed.deserialize(self.reader) }
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        if self.bare { Err(wrong("a variant without its contents")) } else { self.reader.deserialize_seq(visitor) }
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        if self.bare { Err(wrong("a variant without its contents")) } else { self.reader.deserialize_map(visitor) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Bare,
        One(String),
        Two(u32, bool),
        Named { x: i64, y: Option<u8> },
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Row {
        id: u64,
        text: String,
        signed: i64,
        share: f64,
        maybe: Option<Box<Row>>,
        map: BTreeMap<String, u16>,
        shapes: Vec<Shape>,
    }

    fn shape() -> impl Strategy<Value = Shape> {
        prop_oneof![
            Just(Shape::Bare),
            ".*".prop_map(Shape::One),
            any::<(u32, bool)>().prop_map(|(a, b)| Shape::Two(a, b)),
            any::<(i64, Option<u8>)>().prop_map(|(x, y)| Shape::Named { x, y }),
        ]
    }

    fn row() -> impl Strategy<Value = Row> {
        let map = || any::<BTreeMap<String, u16>>();
        let flat = || (any::<u64>(), ".*", any::<i64>(), -1e9..1e9, map(), prop::collection::vec(shape(), 0..5));
        (flat(), prop::option::of(flat())).prop_map(|(outer, inner)| {
            let row = |(id, text, signed, share, map, shapes), maybe| Row { id, text, signed, share, maybe, map, shapes };
            row(outer, inner.map(|inner| Box::new(row(inner, None))))
        })
    }

    proptest! {
        #[test]
        fn what_serde_cbor_writes_is_read(row in row()) {
            let named = serde_cbor::to_vec(&row).expect("written");
            prop_assert_eq!(&read::<Row>(&named).expect("read"), &row);
            let packed = serde_cbor::ser::to_vec_packed(&row).expect("written");
            prop_assert_eq!(&read::<Row>(&packed).expect("read"), &row);
            // Cut anywhere it is an error, never a panic.
            for end in 0..packed.len() {
                prop_assert!(read::<Row>(packed.get(..end).expect("within")).is_err());
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read::<Row>(&bytes);
            let _ = read::<Vec<Shape>>(&bytes);
            let _ = read::<serde::de::IgnoredAny>(&bytes);
        }
    }

    #[test]
    fn depth_and_lengths_are_bounded() {
        let deep: Vec<u8> = std::iter::repeat_n(0x81, 1000).chain([0]).collect();
        assert!(read::<serde_json::Value>(&deep).is_err());
        assert!(read::<Vec<u64>>(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(read::<u64>(&[1, 1]).is_err(), "bytes behind the value");
        assert_eq!(read::<f64>(&[0xf9, 0x3c, 0x00]), Ok(1.0));
        assert_eq!(read::<i64>(&[0x3b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Ok(i64::MIN));
        assert_eq!(read::<String>(&[0xc0, 0x61, b'a']), Ok("a".to_owned()), "a tag is passed over");
    }
}
