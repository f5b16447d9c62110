//! PUBLISH, both ways (5.0, 3.3), on borrowed bytes.

use super::frame::{Frame, kind};
use super::properties::{self, IN_PUBLISH, Value, Walk, id, put_subscription_ids, subscription_ids_len};
use super::topic::check_name;
use super::wire::{Wire, put_binary, put_varint, varint_len};
use super::{Fault, Version, reason};
use crate::mqtt::limits::Limits;

/// A PUBLISH as it came.
#[derive(Debug, Clone, Copy)]
pub(in crate::mqtt) struct Publish<'a> {
    /// Empty where a topic alias stands for it.
    pub(in crate::mqtt) topic: &'a str,
    pub(in crate::mqtt) alias: Option<u16>,
    pub(in crate::mqtt) qos: u8,
    pub(in crate::mqtt) retain: bool,
    /// The client says that it may have sent it before.
    pub(in crate::mqtt) dup: bool,
    /// 0 at QoS 0.
    pub(in crate::mqtt) packet_id: u16,
    /// Raw MQTT 5 properties in order, without their length.
    pub(in crate::mqtt) properties: &'a [u8],
    /// Where in `properties` the topic alias stands (3 bytes).
    pub(in crate::mqtt) alias_at: usize,
    pub(in crate::mqtt) payload: &'a [u8],
}

impl<'a> Publish<'a> {
    /// Reads a PUBLISH and checks all that the standard lets a server refuse.
    ///
    /// # Errors
    /// A fault that ends the connection.
    #[inline]
    pub(in crate::mqtt) fn read(frame: &Frame<'a>, version: Version, limits: &Limits) -> Result<Self, Fault> {
        let qos = (frame.first >> 1) & 3;
        if qos == 3 {
            return Err(Fault::malformed("QoS 3"));
        }
        if qos == 0 && frame.first & 0x08 != 0 {
            return Err(Fault::malformed("DUP at QoS 0"));
        }
        let mut wire = Wire::new(frame.body);
        let topic = wire.text()?;
        let packet_id = if qos == 0 { 0 } else { wire.u16()? };
        if qos != 0 && packet_id == 0 {
            return Err(Fault::protocol("packet identifier 0"));
        }
        let mut publish = Self {
            topic,
            alias: None,
            qos,
            retain: frame.first & 1 != 0,
            dup: frame.first & 8 != 0,
            packet_id,
            properties: &[],
            alias_at: 0,
            payload: &[],
        };
        if version == Version::V5 {
            publish.properties = properties::section(&mut wire)?;
            if !publish.properties.is_empty() {
                publish.read_properties()?;
            }
        }
        publish.payload = wire.rest();
        if !topic.is_empty() || publish.alias.is_none() {
            check_name(topic, limits)?;
        }
        Ok(publish)
    }

    fn read_properties(&mut self) -> Result<(), Fault> {
        let mut at = 0;
        for property in Walk::new(self.properties, IN_PUBLISH) {
            let property = property?;
            match (property.id, property.value) {
                (id::TOPIC_ALIAS, Value::Two(0)) => {
                    return Err(Fault::new(reason::TOPIC_ALIAS_INVALID, "topic alias 0"));
                }
                (id::TOPIC_ALIAS, Value::Two(alias)) => {
                    self.alias = Some(alias);
                    self.alias_at = at;
                }
                (id::RESPONSE_TOPIC, Value::Text(topic)) if topic.is_empty() || topic.contains(['+', '#']) => {
                    return Err(Fault::protocol("a response topic must be a topic name"));
                }
                _ => {}
            }
            at += property.raw.len();
        }
        Ok(())
    }

    /// The properties without the topic alias, which means something on its own connection only. Copies into `scratch` only
    /// where there is an alias.
    pub(in crate::mqtt) fn lasting_properties<'s>(&'s self, scratch: &'s mut Vec<u8>) -> &'s [u8] {
        if self.alias.is_none() {
            return self.properties;
        }
        scratch.clear();
        let (before, after) = self.properties.split_at_checked(self.alias_at).unwrap_or((self.properties, &[]));
        scratch.extend_from_slice(before);
        scratch.extend_from_slice(after.get(3..).unwrap_or_default());
        scratch
    }
}

/// A PUBLISH to be written.
#[derive(Debug, Clone, Copy)]
pub(in crate::mqtt) struct Outgoing<'a> {
    pub(in crate::mqtt) topic: &'a str,
    pub(in crate::mqtt) qos: u8,
    pub(in crate::mqtt) retain: bool,
    /// 0 at QoS 0.
    pub(in crate::mqtt) packet_id: u16,
    /// Written as they are to 5.0, left out to 3.1.1.
    pub(in crate::mqtt) properties: &'a [u8],
    pub(in crate::mqtt) subscription_ids: &'a [u32],
    pub(in crate::mqtt) payload: &'a [u8],
}

impl Outgoing<'_> {
    fn properties_len(&self) -> usize {
        subscription_ids_len(self.subscription_ids) + self.properties.len()
    }

    fn body_len(&self, version: Version) -> usize {
        let properties = match version {
            Version::V4 => 0,
            Version::V5 => varint_len(self.properties_len()) + self.properties_len(),
        };
        2 + self.topic.len() + if self.qos == 0 { 0 } else { 2 } + properties + self.payload.len()
    }

    /// Bytes of the whole packet.
    pub(in crate::mqtt) fn len(&self, version: Version) -> usize {
        let body = self.body_len(version);
        1 + varint_len(body) + body
    }

    /// Appends the packet.
    pub(in crate::mqtt) fn write(&self, out: &mut Vec<u8>, version: Version) {
        out.reserve(self.len(version));
        out.push((kind::PUBLISH << 4) | (self.qos << 1) | u8::from(self.retain));
        put_varint(out, self.body_len(version));
        put_binary(out, self.topic.as_bytes());
        if self.qos != 0 {
            out.extend_from_slice(&self.packet_id.to_be_bytes());
        }
        if version == Version::V5 {
            put_varint(out, self.properties_len());
            out.extend_from_slice(self.properties);
            put_subscription_ids(out, self.subscription_ids);
        }
        out.extend_from_slice(self.payload);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rumqttd::protocol::{Packet, Protocol, v4::V4, v5::V5};

    use super::*;

    fn read(bytes: &[u8], version: Version) -> Result<Publish<'_>, Fault> {
        let frame = Frame::next(bytes, 1 << 20).expect("framed").expect("whole");
        Publish::read(&frame, version, &Limits::default())
    }

    #[test]
    fn what_the_standard_forbids_is_refused() {
        let v4: [&[u8]; 8] = [
            b"\x36\x05\x00\x01a\x00\x01", // QoS 3
            b"\x38\x03\x00\x01a",         // DUP at QoS 0
            b"\x32\x05\x00\x01a\x00\x00", // packet id 0
            b"\x32\x04\x00\x01a\x00",     // packet id cut off
            b"\x30\x02\x00\x00",          // no topic
            b"\x30\x03\x00\x01#",
            b"\x30\x05\x00\x03a/+",
            b"\x30\x04\x00\x02a\x00",
        ];
        for bytes in v4 {
            assert!(read(bytes, Version::V4).is_err(), "{bytes:?}");
        }
        let v5: [&[u8]; 4] = [
            b"\x30\x07\x00\x01a\x03\x23\x00\x00",  // topic alias 0
            b"\x30\x06\x00\x01a\x02\x0b\x01",      // a subscription id from a client
            b"\x30\x08\x00\x01a\x04\x08\x00\x01#", // a wildcard as response topic
            b"\x30\x03\x00\x00\x00",               // neither topic nor alias
        ];
        for bytes in v5 {
            assert!(read(bytes, Version::V5).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn the_topic_alias_is_taken_out_and_the_rest_stays_in_order() {
        let bytes = b"\x30\x13\x00\x01a\x0e\x01\x01\x23\x00\x07\x26\x00\x01k\x00\x01v\x01\x00xy";
        let bytes = &bytes[..bytes.len() - 4];
        let mut packet = vec![0x30, 0];
        packet.extend_from_slice(&bytes[2..5]);
        packet.extend_from_slice(b"\x0c\x01\x01\x23\x00\x07\x26\x00\x01k\x00\x01vP");
        packet[1] = u8::try_from(packet.len() - 2).expect("short");
        let publish = read(&packet, Version::V5).expect("well-formed");
        assert_eq!((publish.alias, publish.payload), (Some(7), &b"P"[..]));
        let mut scratch = Vec::new();
        assert_eq!(publish.lasting_properties(&mut scratch), b"\x01\x01\x26\x00\x01k\x00\x01v");
    }

    proptest! {
        /// What we write, rumqttd's codec reads, and we read back the same.
        #[test]
        fn a_publish_we_write_is_read_alike_by_the_codec_and_by_us(
            topic in "[a-z/]{1,20}", qos in 0u8..3, retain: bool, packet_id in 1u16.., payload: Vec<u8>, v5: bool,
            user in proptest::collection::vec(("[a-z]{0,5}", "[a-z]{0,5}"), 0..3),
        ) {
            let version = if v5 { Version::V5 } else { Version::V4 };
            let mut raw = Vec::new();
            for (key, value) in &user {
                raw.push(id::USER_PROPERTY);
                put_binary(&mut raw, key.as_bytes());
                put_binary(&mut raw, value.as_bytes());
            }
            let outgoing = Outgoing {
                topic: &topic, qos, retain, packet_id: if qos == 0 { 0 } else { packet_id },
                properties: &raw, subscription_ids: &[], payload: &payload,
            };
            let mut out = Vec::new();
            outgoing.write(&mut out, version);
            prop_assert_eq!(out.len(), outgoing.len(version));

            let ours = read(&out, version).expect("well-formed");
            prop_assert_eq!((ours.topic, ours.qos, ours.retain, ours.payload), (&topic[..], qos, retain, &payload[..]));
            prop_assert_eq!(ours.packet_id, outgoing.packet_id);
            prop_assert_eq!(ours.properties, if v5 { &raw[..] } else { &[] });

            let mut stream = bytes::BytesMut::from(&out[..]);
            let packet = if v5 { V5.read_mut(&mut stream, 1 << 20) } else { V4.read_mut(&mut stream, 1 << 20) };
            let Ok(Packet::Publish(theirs, properties)) = packet else { panic!("{packet:?}") };
            prop_assert_eq!(&theirs.topic[..], topic.as_bytes());
            prop_assert_eq!(&theirs.payload[..], &payload[..]);
            prop_assert_eq!(properties.map(|p| p.user_properties).unwrap_or_default(), if v5 { user } else { Vec::new() });
        }

        #[test]
        fn any_bytes_are_read_or_refused(first: u8, body in proptest::collection::vec(any::<u8>(), 0..64), v5: bool) {
            let frame = Frame { first, body: &body, whole: &body };
            let version = if v5 { Version::V5 } else { Version::V4 };
            if let Ok(publish) = Publish::read(&frame, version, &Limits::default()) {
                let mut scratch = Vec::new();
                prop_assert!(publish.lasting_properties(&mut scratch).len() <= body.len());
            }
        }
    }
}
