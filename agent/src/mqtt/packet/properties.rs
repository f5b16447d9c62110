//! MQTT 5 properties (5.0, 2.2.2): a walk over their raw bytes that checks each, in order, without allocating.

use super::Fault;
use super::wire::{Wire, put_varint, varint_len};

/// Property identifiers that are looked at by name.
pub(in crate::mqtt) mod id {
    pub(in crate::mqtt) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(in crate::mqtt) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(in crate::mqtt) const CONTENT_TYPE: u8 = 0x03;
    pub(in crate::mqtt) const RESPONSE_TOPIC: u8 = 0x08;
    pub(in crate::mqtt) const CORRELATION_DATA: u8 = 0x09;
    pub(in crate::mqtt) const SUBSCRIPTION_ID: u8 = 0x0b;
    pub(in crate::mqtt) const SESSION_EXPIRY: u8 = 0x11;
    pub(in crate::mqtt) const AUTH_METHOD: u8 = 0x15;
    pub(in crate::mqtt) const AUTH_DATA: u8 = 0x16;
    pub(in crate::mqtt) const REQUEST_PROBLEM_INFO: u8 = 0x17;
    pub(in crate::mqtt) const WILL_DELAY: u8 = 0x18;
    pub(in crate::mqtt) const REQUEST_RESPONSE_INFO: u8 = 0x19;
    pub(in crate::mqtt) const REASON_STRING: u8 = 0x1f;
    pub(in crate::mqtt) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(in crate::mqtt) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(in crate::mqtt) const TOPIC_ALIAS: u8 = 0x23;
    pub(in crate::mqtt) const USER_PROPERTY: u8 = 0x26;
    pub(in crate::mqtt) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
}

/// Properties that may stand in a PUBLISH from a client (5.0, 3.3.2.3). A subscription identifier may not.
pub(in crate::mqtt) const IN_PUBLISH: &[u8] = &[
    id::PAYLOAD_FORMAT,
    id::MESSAGE_EXPIRY,
    id::CONTENT_TYPE,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::TOPIC_ALIAS,
    id::USER_PROPERTY,
];

/// Properties of a will (5.0, 3.1.3.2).
pub(in crate::mqtt) const IN_WILL: &[u8] = &[
    id::WILL_DELAY,
    id::PAYLOAD_FORMAT,
    id::MESSAGE_EXPIRY,
    id::CONTENT_TYPE,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::USER_PROPERTY,
];

/// Properties of a CONNECT (5.0, 3.1.2.11).
pub(in crate::mqtt) const IN_CONNECT: &[u8] = &[
    id::SESSION_EXPIRY,
    id::RECEIVE_MAXIMUM,
    id::MAXIMUM_PACKET_SIZE,
    id::TOPIC_ALIAS_MAXIMUM,
    id::REQUEST_RESPONSE_INFO,
    id::REQUEST_PROBLEM_INFO,
    id::USER_PROPERTY,
    id::AUTH_METHOD,
    id::AUTH_DATA,
];

/// Properties of a SUBSCRIBE (5.0, 3.8.2.1).
pub(in crate::mqtt) const IN_SUBSCRIBE: &[u8] = &[id::SUBSCRIPTION_ID, id::USER_PROPERTY];

/// Properties of an UNSUBSCRIBE (5.0, 3.10.2.1).
pub(in crate::mqtt) const IN_UNSUBSCRIBE: &[u8] = &[id::USER_PROPERTY];

/// Properties of PUBACK, PUBREC, PUBREL and PUBCOMP.
pub(in crate::mqtt) const IN_ACK: &[u8] = &[id::REASON_STRING, id::USER_PROPERTY];

/// Properties of a DISCONNECT from a client (5.0, 3.14.2.2).
pub(in crate::mqtt) const IN_DISCONNECT: &[u8] = &[id::SESSION_EXPIRY, id::REASON_STRING, id::USER_PROPERTY];

/// The value of a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) enum Value<'a> {
    Byte(u8),
    Two(u16),
    Four(u32),
    Number(usize),
    Text(&'a str),
    Binary(&'a [u8]),
    Pair(&'a str, &'a str),
}

/// One property.
#[derive(Debug, Clone, Copy)]
pub(in crate::mqtt) struct Property<'a> {
    pub(in crate::mqtt) id: u8,
    pub(in crate::mqtt) value: Value<'a>,
    /// The property's bytes, its identifier included.
    pub(in crate::mqtt) raw: &'a [u8],
}

/// Walks over properties (without their length). Each must be in `allowed`, and none but user properties may come twice.
pub(in crate::mqtt) struct Walk<'a> {
    wire: Wire<'a>,
    allowed: &'static [u8],
    seen: u64,
}

impl<'a> Walk<'a> {
    pub(in crate::mqtt) const fn new(bytes: &'a [u8], allowed: &'static [u8]) -> Self {
        Self { wire: Wire::new(bytes), allowed, seen: 0 }
    }

    fn read(&mut self) -> Result<Property<'a>, Fault> {
        let before = self.wire.rest();
        let id = self.wire.u8()?;
        if !self.allowed.contains(&id) {
            return Err(Fault::protocol("a property that this packet must not have"));
        }
        let bit = 1u64 << (id & 63);
        if id != id::USER_PROPERTY && self.seen & bit != 0 {
            return Err(Fault::protocol("a property that must not come twice"));
        }
        self.seen |= bit;
        let wire = &mut self.wire;
        let value = match id {
            id::PAYLOAD_FORMAT | id::REQUEST_PROBLEM_INFO | id::REQUEST_RESPONSE_INFO => {
                let byte = wire.u8()?;
                if byte > 1 {
                    return Err(Fault::protocol("a property that must be 0 or 1"));
                }
                Value::Byte(byte)
            }
            id::MESSAGE_EXPIRY | id::SESSION_EXPIRY | id::WILL_DELAY | id::MAXIMUM_PACKET_SIZE => Value::Four(wire.u32()?),
            id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM | id::TOPIC_ALIAS => Value::Two(wire.u16()?),
            id::CONTENT_TYPE | id::RESPONSE_TOPIC | id::AUTH_METHOD | id::REASON_STRING => Value::Text(wire.text()?),
            id::CORRELATION_DATA | id::AUTH_DATA => Value::Binary(wire.binary()?),
            id::SUBSCRIPTION_ID => Value::Number(wire.varint()?),
            id::USER_PROPERTY => Value::Pair(wire.text()?, wire.text()?),
            _ => return Err(Fault::malformed("an unknown property")),
        };
        let raw = before.get(..before.len() - self.wire.rest().len()).unwrap_or_default();
        Ok(Property { id, value, raw })
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<Property<'a>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.wire.is_empty() {
            return None;
        }
        let property = self.read();
        if property.is_err() {
            self.wire = Wire::new(&[]);
        }
        Some(property)
    }
}

/// Reads the property length and the properties after it, unchecked.
pub(in crate::mqtt) fn section<'a>(wire: &mut Wire<'a>) -> Result<&'a [u8], Fault> {
    let len = wire.varint()?;
    wire.take(len)
}

/// Reads and checks a whole section of properties.
pub(in crate::mqtt) fn check<'a>(wire: &mut Wire<'a>, allowed: &'static [u8]) -> Result<&'a [u8], Fault> {
    let raw = section(wire)?;
    Walk::new(raw, allowed).try_for_each(|property| property.map(|_| ()))?;
    Ok(raw)
}

/// Appends subscription identifiers.
pub(in crate::mqtt) fn put_subscription_ids(out: &mut Vec<u8>, ids: &[u32]) {
    for number in ids {
        out.push(id::SUBSCRIPTION_ID);
        put_varint(out, *number as usize);
    }
}

/// How many bytes [`put_subscription_ids`] would write.
pub(in crate::mqtt) fn subscription_ids_len(ids: &[u32]) -> usize {
    ids.iter().map(|number| 1 + varint_len(*number as usize)).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn properties_are_walked_in_order() {
        let bytes =
            [&[1, 1][..], &[0x26, 0, 1, b'a', 0, 1, b'b'], &[2, 0, 0, 0, 9], &[0x26, 0, 1, b'a', 0, 1, b'c']].concat();
        let values: Vec<_> = Walk::new(&bytes, IN_PUBLISH).map(|p| p.map(|p| p.value)).collect();
        assert_eq!(values, [Ok(Value::Byte(1)), Ok(Value::Pair("a", "b")), Ok(Value::Four(9)), Ok(Value::Pair("a", "c"))]);
    }

    #[test]
    fn a_property_that_does_not_belong_or_comes_twice_is_a_fault() {
        for bytes in [&[0x0b, 1][..], &[0x11, 0, 0, 0, 1], &[1, 1, 1, 1], &[1, 2], &[0x77, 1], &[0x26, 0, 1, b'a']] {
            assert!(Walk::new(bytes, IN_PUBLISH).any(|p| p.is_err()), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let walked: Vec<_> = Walk::new(&bytes, IN_PUBLISH).collect();
            let raw: usize = walked.iter().flatten().map(|p| p.raw.len()).sum();
            prop_assert!(raw <= bytes.len());
            prop_assert!(walked.iter().filter(|p| p.is_err()).count() <= 1);
        }
    }
}
