//! CONNECT (5.0 and 3.1.1, 3.1): which version it is, whether it is well-formed, and what it asks.

use bytes::BytesMut;
use rumqttd::protocol::{ConnectReturnCode, Packet};

use super::frame::{Frame, kind};
use super::properties::{self, IN_CONNECT, IN_WILL, Value, Walk, id};
use super::topic::check_name;
use super::wire::Wire;
use super::{Fault, Version, control};
use crate::mqtt::limits::Limits;

/// A CONNECT that is well-formed.
#[derive(Debug)]
pub(in crate::mqtt) struct Connect {
    pub(in crate::mqtt) version: Version,
    /// Empty where the server shall give one.
    pub(in crate::mqtt) client_id: String,
    pub(in crate::mqtt) clean: bool,
    /// Seconds; 0 is none.
    pub(in crate::mqtt) keep_alive: u16,
    pub(in crate::mqtt) user_name: Option<String>,
    pub(in crate::mqtt) password: Option<String>,
    pub(in crate::mqtt) will: Option<Box<Will>>,
    /// Seconds, as MQTT 5.0 gives them; absent is 0 there.
    pub(in crate::mqtt) session_expiry: Option<u32>,
    /// How many publishes of QoS 1 and 2 the client takes unacknowledged.
    pub(in crate::mqtt) receive_maximum: u16,
    /// Largest packet that the client takes.
    pub(in crate::mqtt) max_packet_bytes: u32,
}

/// A will message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::mqtt) struct Will {
    pub(in crate::mqtt) topic: String,
    pub(in crate::mqtt) payload: Vec<u8>,
    pub(in crate::mqtt) qos: u8,
    pub(in crate::mqtt) retain: bool,
    /// Raw properties in order, the will delay taken out: those that its PUBLISH would have.
    pub(in crate::mqtt) properties: Vec<u8>,
    pub(in crate::mqtt) delay_seconds: u32,
}

/// Why there will be no connection, and what the client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) enum Refusal {
    /// Nothing: this is no MQTT client, or one that the standard lets us leave without an answer.
    Close(Fault),
    /// A CONNACK with this code.
    Answer(Version, ConnectReturnCode),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Close(fault)
    }
}

impl Connect {
    /// Reads the first packet of a connection.
    ///
    /// # Errors
    /// What to answer, if anything, before closing.
    pub(in crate::mqtt) fn read(frame: &Frame<'_>, limits: &Limits) -> Result<Self, Refusal> {
        if frame.first != kind::CONNECT << 4 {
            return Err(Fault::protocol("the first packet is no CONNECT").into());
        }
        let version = version(&mut Wire::new(frame.body))?;
        let malformed = |fault: Fault| match (version, fault.reason) {
            (Version::V4, _) => Refusal::Close(fault),
            (Version::V5, super::reason::MALFORMED_PACKET) => Refusal::Answer(version, ConnectReturnCode::MalformedPacket),
            (Version::V5, super::reason::TOPIC_NAME_INVALID) => {
                Refusal::Answer(version, ConnectReturnCode::TopicNameInvalid)
            }
            (Version::V5, super::reason::RETAIN_NOT_SUPPORTED) => {
                Refusal::Answer(version, ConnectReturnCode::RetainNotSupported)
            }
            (Version::V5, _) => Refusal::Answer(version, ConnectReturnCode::ProtocolError),
        };
        let checked = Checked::read(frame.body, version, limits).map_err(malformed)?;
        if checked.auth_method {
            return Err(Refusal::Answer(version, ConnectReturnCode::BadAuthenticationMethod));
        }
        if checked.password.is_some_and(|password| std::str::from_utf8(password).is_err()) {
            // The codec takes text only, and so do our credentials.
            return Err(Refusal::Answer(version, ConnectReturnCode::BadUserNamePassword));
        }
        let mut stream = BytesMut::from(frame.whole);
        let Packet::Connect(connect, properties, will, will_properties, login) =
            control::run(&mut stream, version).map_err(malformed)?
        else {
            return Err(Fault::protocol("the first packet is no CONNECT").into());
        };
        let will = will.map(|will| {
            Box::new(Will {
                topic: String::from_utf8_lossy(&will.topic).into_owned(),
                payload: will.message.to_vec(),
                qos: will.qos as u8,
                retain: will.retain,
                properties: checked.will_properties,
                delay_seconds: will_properties.and_then(|p| p.delay_interval).unwrap_or(0),
            })
        });
        Ok(Self {
            version,
            client_id: connect.client_id,
            clean: connect.clean_session,
            keep_alive: connect.keep_alive,
            user_name: login.as_ref().map(|login| login.username.clone()),
            password: login.map(|login| login.password),
            will,
            session_expiry: properties.as_ref().and_then(|p| p.session_expiry_interval),
            receive_maximum: properties.as_ref().and_then(|p| p.receive_maximum).unwrap_or(u16::MAX),
            max_packet_bytes: properties.as_ref().and_then(|p| p.max_packet_size).unwrap_or(u32::MAX),
        })
    }
}

/// Finds the protocol version (3.1.2.1, 3.1.2.2).
fn version(wire: &mut Wire<'_>) -> Result<Version, Refusal> {
    let name = wire.binary()?;
    let level = wire.u8()?;
    match (name, level) {
        (b"MQTT", 4) => Ok(Version::V4),
        (b"MQTT", 5) => Ok(Version::V5),
        // Bridges set the highest bit of the level to ask for more, and ask again without it when refused.
        (b"MQTT", level) if level & 0x7f > 4 => {
            Err(Refusal::Answer(Version::V5, ConnectReturnCode::UnsupportedProtocolVersion))
        }
        (b"MQTT" | b"MQIsdp", _) => Err(Refusal::Answer(Version::V4, ConnectReturnCode::RefusedProtocolVersion)),
        _ => Err(Fault::protocol("the protocol name is not MQTT").into()),
    }
}

/// What the codec does not look at, or does not give us.
struct Checked<'a> {
    auth_method: bool,
    password: Option<&'a [u8]>,
    will_properties: Vec<u8>,
}

impl<'a> Checked<'a> {
    fn read(body: &'a [u8], version: Version, limits: &Limits) -> Result<Self, Fault> {
        let mut wire = Wire::new(body);
        wire.binary()?;
        wire.u8()?;
        let flags = wire.u8()?;
        let (will, will_qos, will_retain) = (flags & 4 != 0, (flags >> 3) & 3, flags & 0x20 != 0);
        let (password, user_name) = (flags & 0x40 != 0, flags & 0x80 != 0);
        if flags & 1 != 0 {
            return Err(Fault::malformed("a reserved flag of CONNECT"));
        }
        if will_qos == 3 || (!will && (will_qos != 0 || will_retain)) {
            return Err(Fault::malformed("the will's flags"));
        }
        if version == Version::V4 && password && !user_name {
            return Err(Fault::malformed("a password without a user name"));
        }
        if version == Version::V5 && will_retain {
            // 5.0, 3.2.2.3.5: CONNACK says that nothing is retained, so such a will is refused. 3.1.1 has no word for it: there the
            // will is published as any other.
            return Err(Fault::new(super::reason::RETAIN_NOT_SUPPORTED, "a will that is to be retained"));
        }
        wire.u16()?;
        let mut checked = Self { auth_method: false, password: None, will_properties: Vec::new() };
        if version == Version::V5 {
            checked.connect_properties(properties::section(&mut wire)?)?;
        }
        wire.text()?;
        if will {
            if version == Version::V5 {
                checked.keep_will_properties(properties::section(&mut wire)?)?;
            }
            check_name(wire.text()?, limits)?;
            wire.binary()?;
        }
        if user_name {
            wire.text()?;
        }
        if password {
            checked.password = Some(wire.binary()?);
        }
        if wire.is_empty() { Ok(checked) } else { Err(Fault::malformed("CONNECT is longer than its contents")) }
    }

    fn connect_properties(&mut self, raw: &[u8]) -> Result<(), Fault> {
        let mut auth_data = false;
        for property in Walk::new(raw, IN_CONNECT) {
            let property = property?;
            match (property.id, property.value) {
                (id::AUTH_METHOD, _) => self.auth_method = true,
                (id::AUTH_DATA, _) => auth_data = true,
                (id::RECEIVE_MAXIMUM, Value::Two(0)) | (id::MAXIMUM_PACKET_SIZE, Value::Four(0)) => {
                    return Err(Fault::protocol("a maximum of 0"));
                }
                _ => {}
            }
        }
        if auth_data && !self.auth_method { Err(Fault::protocol("authentication data without a method")) } else { Ok(()) }
    }

    fn keep_will_properties(&mut self, raw: &[u8]) -> Result<(), Fault> {
        for property in Walk::new(raw, IN_WILL) {
            let property = property?;
            match (property.id, property.value) {
                (id::WILL_DELAY, _) => {}
                (id::RESPONSE_TOPIC, Value::Text(topic)) if topic.is_empty() || topic.contains(['+', '#']) => {
                    return Err(Fault::protocol("a response topic must be a topic name"));
                }
                _ => self.will_properties.extend_from_slice(property.raw),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(body: &[u8]) -> Result<Connect, Refusal> {
        let mut bytes = vec![0x10];
        super::super::wire::put_varint(&mut bytes, body.len());
        bytes.extend_from_slice(body);
        Connect::read(&Frame::next(&bytes, 1 << 20).expect("framed").expect("whole"), &Limits::default())
    }

    #[test]
    fn the_version_is_found_or_refused_in_the_words_of_the_peer() {
        use ConnectReturnCode::{RefusedProtocolVersion, UnsupportedProtocolVersion};
        assert_eq!(read(b"\0\x04MQTT\x04\x02\0\x3c\0\x01a").map(|c| c.version), Ok(Version::V4));
        assert_eq!(read(b"\0\x04MQTT\x05\x02\0\x3c\0\0\x01a").map(|c| c.version), Ok(Version::V5));
        let refused = |body: &[u8]| read(body).map(|c| c.version);
        assert_eq!(
            refused(b"\0\x06MQIsdp\x03\x02\0\x3c\0\x01a"),
            Err(Refusal::Answer(Version::V4, RefusedProtocolVersion))
        );
        assert_eq!(refused(b"\0\x04MQTT\x84\x02\0\x3c\0\x01a"), Err(Refusal::Answer(Version::V4, RefusedProtocolVersion)));
        assert_eq!(
            refused(b"\0\x04MQTT\x06\x02\0\x3c\0\0\x01a"),
            Err(Refusal::Answer(Version::V5, UnsupportedProtocolVersion))
        );
        assert!(matches!(refused(b"\0\x04HTTP\x04\x02\0\x3c\0\x01a"), Err(Refusal::Close(_))));
    }

    #[test]
    fn a_will_keeps_its_properties_in_order_without_the_delay() {
        let properties = b"\x26\0\x01k\0\x01v\x18\0\0\0\x05\x26\0\x01j\0\x01w";
        let body = [&b"\0\x04MQTT\x05\x16\0\x3c\0\0\x01a"[..], &[19], properties, b"\0\x01t\0\x02hi"].concat();
        let will = read(&body).expect("well-formed").will.expect("a will");
        assert_eq!((will.delay_seconds, will.qos, will.retain), (5, 2, false));
        assert_eq!(will.properties, b"\x26\0\x01k\0\x01v\x26\0\x01j\0\x01w");
        assert_eq!((&will.topic[..], &will.payload[..]), ("t", &b"hi"[..]));
    }

    #[test]
    fn a_will_to_be_retained_is_refused_where_connack_says_that_nothing_is() {
        let v5 = read(b"\0\x04MQTT\x05\x26\0\x3c\0\0\x01a\0\0\x01t\0\x01m");
        assert_eq!(v5.map(|_| ()), Err(Refusal::Answer(Version::V5, ConnectReturnCode::RetainNotSupported)));
        let v4 = read(b"\0\x04MQTT\x04\x26\0\x3c\0\x01a\0\x01t\0\x01m").expect("3.1.1 cannot be told");
        assert!(v4.will.expect("a will").retain);
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        for flags in [0x03, 0x0a, 0x22, 0x1e, 0x42] {
            let mut body = b"\0\x04MQTT\x04\x02\0\x3c\0\x01a\0\x01t\0\x01m\0\x01u\0\x01p".to_vec();
            body[7] = flags;
            assert!(read(&body).is_err(), "{flags:#x}");
        }
        assert!(read(b"\0\x04MQTT\x04\x02\0\x3c\0\x01a!").is_err(), "bytes left over");
    }

    proptest! {
        #[test]
        fn any_connect_is_read_or_refused(
            level in 3u8..=5, flags: u8, rest in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut body = b"\0\x04MQTT".to_vec();
            body.extend_from_slice(&[level, flags]);
            body.extend_from_slice(&rest);
            let _ = read(&body);
        }
    }
}
