//! All packets but CONNECT and PUBLISH: read with every check that the standard asks of a server, and written.

use super::frame::{Frame, kind};
use super::properties::{self, IN_ACK, IN_DISCONNECT, IN_SUBSCRIBE, IN_UNSUBSCRIBE, Value, Walk, id};
use super::reason::{self, ConnectReturnCode};
use super::wire::{Wire, put_binary, put_varint};
use super::{Fault, Version};

/// A packet that a client may send after CONNECT, other than PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::mqtt) enum Packet<'a> {
    PingReq,
    /// `identifier` is 0 where there is none.
    Subscribe {
        packet_id: u16,
        identifier: u32,
        filters: Vec<Filter<'a>>,
    },
    Unsubscribe {
        packet_id: u16,
        filters: Vec<&'a str>,
    },
    PubAck {
        packet_id: u16,
    },
    PubRec {
        packet_id: u16,
        reason: u8,
    },
    PubRel {
        packet_id: u16,
    },
    PubComp {
        packet_id: u16,
    },
    Disconnect {
        reason: u8,
        session_expiry: Option<u32>,
    },
}

/// A topic filter of a SUBSCRIBE with its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) struct Filter<'a> {
    pub(in crate::mqtt) path: &'a str,
    pub(in crate::mqtt) qos: u8,
    pub(in crate::mqtt) no_local: bool,
    pub(in crate::mqtt) retain_as_published: bool,
}

/// Reads a packet.
///
/// # Errors
/// A fault that ends the connection.
pub(in crate::mqtt) fn decode<'a>(frame: &Frame<'a>, version: Version) -> Result<Packet<'a>, Fault> {
    let flags = match frame.kind() {
        kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => 2,
        kind::PUBACK | kind::PUBREC | kind::PUBCOMP | kind::PINGREQ | kind::DISCONNECT => 0,
        kind::CONNECT => return Err(Fault::protocol("a second CONNECT")),
        _ => return Err(Fault::protocol("a packet that a client must not send")),
    };
    if frame.flags() != flags {
        return Err(Fault::malformed("reserved flags of the fixed header"));
    }
    let mut wire = Wire::new(frame.body);
    let packet = match frame.kind() {
        kind::PINGREQ => Packet::PingReq,
        kind::DISCONNECT => disconnected(&mut wire, version)?,
        kind::SUBSCRIBE => subscribe(&mut wire, version)?,
        kind::UNSUBSCRIBE => unsubscribe(&mut wire, version)?,
        kind => acknowledgement(kind, &mut wire, version)?,
    };
    if wire.is_empty() { Ok(packet) } else { Err(Fault::malformed("the packet is longer than its contents")) }
}

fn packet_id(wire: &mut Wire<'_>) -> Result<u16, Fault> {
    match wire.u16()? {
        0 => Err(Fault::protocol("packet identifier 0")),
        id => Ok(id),
    }
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP: in 5.0 reason and properties may be left out at the end.
fn acknowledgement<'a>(kind: u8, wire: &mut Wire<'a>, version: Version) -> Result<Packet<'a>, Fault> {
    let packet_id = packet_id(wire)?;
    let mut reason = reason::SUCCESS;
    if version == Version::V5 && !wire.is_empty() {
        reason = wire.u8()?;
        let known = match kind {
            kind::PUBACK | kind::PUBREC => matches!(reason, 0 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99),
            _ => matches!(reason, reason::SUCCESS | reason::PACKET_ID_NOT_FOUND),
        };
        if !known {
            return Err(Fault::malformed("an unknown reason code"));
        }
        if !wire.is_empty() {
            properties::check(wire, IN_ACK)?;
        }
    }
    Ok(match kind {
        kind::PUBACK => Packet::PubAck { packet_id },
        kind::PUBREC => Packet::PubRec { packet_id, reason },
        kind::PUBREL => Packet::PubRel { packet_id },
        _ => Packet::PubComp { packet_id },
    })
}

fn disconnected<'a>(wire: &mut Wire<'a>, version: Version) -> Result<Packet<'a>, Fault> {
    let (mut reason, mut session_expiry) = (reason::SUCCESS, None);
    if version == Version::V5 && !wire.is_empty() {
        reason = wire.u8()?;
        if !matches!(reason, 0 | 4 | 0x80..=0xa2) {
            return Err(Fault::malformed("an unknown reason code"));
        }
        if !wire.is_empty() {
            for property in Walk::new(properties::section(wire)?, IN_DISCONNECT) {
                if let (id::SESSION_EXPIRY, Value::Four(seconds)) = (property?.id, property?.value) {
                    session_expiry = Some(seconds);
                }
            }
        }
    }
    Ok(Packet::Disconnect { reason, session_expiry })
}

fn subscribe<'a>(wire: &mut Wire<'a>, version: Version) -> Result<Packet<'a>, Fault> {
    let packet_id = packet_id(wire)?;
    let mut identifier = 0;
    if version == Version::V5 {
        for property in Walk::new(properties::section(wire)?, IN_SUBSCRIBE) {
            if let Value::Number(number) = property?.value {
                identifier = u32::try_from(number).unwrap_or_default();
                if identifier == 0 {
                    return Err(Fault::protocol("subscription identifier 0"));
                }
            }
        }
    }
    let filters = some(wire, |wire| {
        let path = wire.text()?;
        let options = wire.u8()?;
        let reserved = if version == Version::V5 { 0xc0 } else { 0xfc };
        if options & reserved != 0 || options & 3 == 3 || options & 0x30 == 0x30 {
            return Err(Fault::protocol("subscription options"));
        }
        let no_local = options & 4 != 0;
        if no_local && path.starts_with("$share/") {
            return Err(Fault::protocol("No Local on a shared subscription"));
        }
        Ok(Filter { path, qos: options & 3, no_local, retain_as_published: options & 8 != 0 })
    })?;
    Ok(Packet::Subscribe { packet_id, identifier, filters })
}

fn unsubscribe<'a>(wire: &mut Wire<'a>, version: Version) -> Result<Packet<'a>, Fault> {
    let packet_id = packet_id(wire)?;
    if version == Version::V5 {
        properties::check(wire, IN_UNSUBSCRIBE)?;
    }
    Ok(Packet::Unsubscribe { packet_id, filters: some(wire, Wire::text)? })
}

/// One or more, up to the end.
fn some<'a, T>(wire: &mut Wire<'a>, read: impl Fn(&mut Wire<'a>) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
    let mut all = Vec::new();
    while !wire.is_empty() {
        all.push(read(wire)?);
    }
    if all.is_empty() { Err(Fault::protocol("no topic filter")) } else { Ok(all) }
}

/// Appends a packet: its type, and its body in parts.
fn put(out: &mut Vec<u8>, first: u8, body: &[&[u8]]) {
    out.push(first);
    put_varint(out, body.iter().map(|part| part.len()).sum());
    body.iter().for_each(|part| out.extend_from_slice(part));
}

/// What CONNACK tells a 5.0 client beside the code (5.0, 3.2.2.3). What is `None` is not said.
#[derive(Debug, Default)]
pub(in crate::mqtt) struct ConnAckProperties {
    pub(in crate::mqtt) session_expiry_interval: Option<u32>,
    pub(in crate::mqtt) receive_max: u16,
    pub(in crate::mqtt) max_packet_size: Option<u32>,
    pub(in crate::mqtt) assigned_client_identifier: Option<String>,
    pub(in crate::mqtt) topic_alias_max: u16,
}

impl ConnAckProperties {
    fn write(&self) -> Vec<u8> {
        let mut out = vec![id::RECEIVE_MAXIMUM];
        out.extend_from_slice(&self.receive_max.to_be_bytes());
        out.push(id::TOPIC_ALIAS_MAXIMUM);
        out.extend_from_slice(&self.topic_alias_max.to_be_bytes());
        let fours = [(id::SESSION_EXPIRY, self.session_expiry_interval), (id::MAXIMUM_PACKET_SIZE, self.max_packet_size)];
        for (id, value) in fours {
            if let Some(value) = value {
                out.push(id);
                out.extend_from_slice(&value.to_be_bytes());
            }
        }
        if let Some(client_id) = &self.assigned_client_identifier {
            out.push(id::ASSIGNED_CLIENT_ID);
            put_binary(&mut out, client_id.as_bytes());
        }
        // What this listener always has, and has not.
        out.extend_from_slice(&[id::RETAIN_AVAILABLE, 0, id::SHARED_SUBSCRIPTION_AVAILABLE, 0]);
        out.extend_from_slice(&[id::WILDCARD_SUBSCRIPTION_AVAILABLE, 1, id::SUBSCRIPTION_ID_AVAILABLE, 1]);
        out
    }
}

/// CONNACK.
pub(in crate::mqtt) fn connack(
    out: &mut Vec<u8>,
    version: Version,
    session_present: bool,
    code: ConnectReturnCode,
    properties: Option<&ConnAckProperties>,
) {
    let present = u8::from(session_present);
    match version {
        Version::V4 => put(out, 0x20, &[&[present, code.v4()]]),
        Version::V5 => {
            let properties = properties.map(ConnAckProperties::write).unwrap_or_default();
            let mut length = Vec::new();
            put_varint(&mut length, properties.len());
            put(out, 0x20, &[&[present, code.v5()], &length, &properties]);
        }
    }
}

/// PINGRESP.
pub(in crate::mqtt) fn pingresp(out: &mut Vec<u8>) {
    put(out, 0xd0, &[]);
}

/// SUBACK: the QoS granted or a reason for each filter. 3.1.1 knows one code of failure only.
pub(in crate::mqtt) fn suback(out: &mut Vec<u8>, version: Version, packet_id: u16, codes: &[u8]) {
    let codes: Vec<u8> = codes.iter().map(|&code| if version == Version::V4 { code.min(0x80) } else { code }).collect();
    put(out, 0x90, &[&packet_id.to_be_bytes(), no_properties(version), &codes]);
}

/// UNSUBACK; 3.1.1 has no codes there.
pub(in crate::mqtt) fn unsuback(out: &mut Vec<u8>, version: Version, packet_id: u16, codes: &[u8]) {
    let codes = if version == Version::V4 { &[] } else { codes };
    put(out, 0xb0, &[&packet_id.to_be_bytes(), no_properties(version), codes]);
}

const fn no_properties(version: Version) -> &'static [u8] {
    match version {
        Version::V4 => &[],
        Version::V5 => &[0],
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP, by its packet type. 3.1.1 has no reasons.
pub(in crate::mqtt) fn acknowledge(out: &mut Vec<u8>, version: Version, kind: u8, packet_id: u16, reason: u8) {
    let first = kind << 4 | if kind == kind::PUBREL { 2 } else { 0 };
    let reason = [reason];
    let said: &[u8] = if version == Version::V4 || reason == [reason::SUCCESS] { &[] } else { &reason };
    put(out, first, &[&packet_id.to_be_bytes(), said]);
}

/// DISCONNECT from us, with a reason string: 5.0 only, 3.1.1 has none from a server.
pub(in crate::mqtt) fn disconnect(out: &mut Vec<u8>, fault: &Fault) {
    let mut text = vec![id::REASON_STRING];
    put_binary(&mut text, fault.text.as_bytes());
    let mut length = Vec::new();
    put_varint(&mut length, text.len());
    put(out, kind::DISCONNECT << 4, &[&[fault.reason], &length, &text]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode_bytes(bytes: &[u8], version: Version) -> Result<Packet<'_>, Fault> {
        decode(&Frame::next(bytes, 1 << 20).expect("framed").expect("whole"), version)
    }

    #[test]
    fn packets_that_only_a_server_sends_are_refused() {
        for first in [0x00, 0x10, 0x20, 0x90, 0xb0, 0xd0, 0xf0] {
            for version in [Version::V4, Version::V5] {
                assert!(decode_bytes(&[first, 2, 0, 1], version).is_err(), "{first:#x}");
            }
        }
    }

    #[test]
    fn a_disconnect_with_a_reason_and_nothing_else_is_taken() {
        let read = decode_bytes(&[0xe0, 1, 4], Version::V5);
        assert_eq!(read, Ok(Packet::Disconnect { reason: 4, session_expiry: None }));
        let read = decode_bytes(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 9], Version::V5);
        assert_eq!(read, Ok(Packet::Disconnect { reason: 0, session_expiry: Some(9) }));
        assert!(decode_bytes(&[0xe0, 1, 4], Version::V4).is_err());
    }

    #[test]
    fn what_the_standard_forbids_is_refused() {
        let v4: [&[u8]; 6] = [
            b"\x80\x06\x00\x01\x00\x01a\x00",    // flags of SUBSCRIBE
            b"\x82\x06\x00\x00\x00\x01a\x00",    // packet id 0
            b"\x82\x06\x00\x01\x00\x01a\x04",    // reserved option bits
            b"\x82\x06\x00\x01\x00\x01\x00\x00", // U+0000
            b"\x82\x02\x00\x01",                 // no filter
            b"\xc0\x01\x00",                     // PINGREQ with a body
        ];
        for bytes in v4 {
            assert!(decode_bytes(bytes, Version::V4).is_err(), "{bytes:?}");
        }
        let past_its_section: &[u8] = b"\x82\x0c\x00\x01\x01\x26\x00\x01a\x00\x01b\x00\x00";
        assert!(decode_bytes(past_its_section, Version::V5).is_err());
    }

    #[test]
    fn subscriptions_and_acknowledgements_are_read() {
        let filter = |path, qos, no_local, retain_as_published| Filter { path, qos, no_local, retain_as_published };
        let read = decode_bytes(b"\x82\x0a\0\x07\0\x01a\x02\0\x01b\0", Version::V4);
        let filters = vec![filter("a", 2, false, false), filter("b", 0, false, false)];
        assert_eq!(read, Ok(Packet::Subscribe { packet_id: 7, identifier: 0, filters }));
        let read = decode_bytes(b"\x82\x0a\0\x07\x03\x0b\x80\x01\0\x01a\x0d", Version::V5);
        assert_eq!(
            read,
            Ok(Packet::Subscribe { packet_id: 7, identifier: 128, filters: vec![filter("a", 1, true, true)] })
        );
        assert!(decode_bytes(b"\x82\x09\0\x07\x02\x0b\0\0\x01a\x0d", Version::V5).is_err(), "identifier 0");
        let read = decode_bytes(b"\xa2\x09\0\x08\0\0\x01a\0\x01b", Version::V5);
        assert_eq!(read, Ok(Packet::Unsubscribe { packet_id: 8, filters: vec!["a", "b"] }));
        assert_eq!(decode_bytes(b"\x50\x03\0\x09\x97", Version::V5), Ok(Packet::PubRec { packet_id: 9, reason: 0x97 }));
        assert_eq!(decode_bytes(b"\x62\x02\0\x09", Version::V5), Ok(Packet::PubRel { packet_id: 9 }));
        assert!(decode_bytes(b"\x40\x03\0\x09\x01", Version::V5).is_err(), "no such reason");
        assert!(decode_bytes(b"\x40\x03\0\x09\x00", Version::V4).is_err(), "3.1.1 has no reasons");
    }

    #[test]
    fn what_is_written_is_as_the_standard_has_it() {
        let written = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            out
        };
        let properties = ConnAckProperties { receive_max: 20, topic_alias_max: 8, ..ConnAckProperties::default() };
        let connack = written(&|out| connack(out, Version::V5, true, ConnectReturnCode::Success, Some(&properties)));
        let expected = [0x20, 17, 1, 0, 14, 0x21, 0, 20, 0x22, 0, 8, 0x25, 0, 0x2a, 0, 0x28, 1, 0x29, 1];
        assert_eq!(connack, expected);
        let refused = |version, code| written(&|out| super::connack(out, version, false, code, None));
        assert_eq!(refused(Version::V4, ConnectReturnCode::ServerBusy), [0x20, 2, 0, 3]);
        assert_eq!(refused(Version::V5, ConnectReturnCode::NotAuthorized), [0x20, 3, 0, 0x87, 0]);
        let suback = |version| written(&|out| super::suback(out, version, 7, &[1, 0x97]));
        assert_eq!(suback(Version::V4), [0x90, 4, 0, 7, 1, 0x80]);
        assert_eq!(suback(Version::V5), [0x90, 5, 0, 7, 0, 1, 0x97]);
        let unsuback = |version| written(&|out| super::unsuback(out, version, 7, &[0, 0x11]));
        assert_eq!(unsuback(Version::V4), [0xb0, 2, 0, 7]);
        assert_eq!(unsuback(Version::V5), [0xb0, 5, 0, 7, 0, 0, 0x11]);
        let pubrel = |version, reason| written(&|out| acknowledge(out, version, kind::PUBREL, 7, reason));
        assert_eq!(pubrel(Version::V4, reason::PACKET_ID_NOT_FOUND), [0x62, 2, 0, 7]);
        assert_eq!(pubrel(Version::V5, reason::PACKET_ID_NOT_FOUND), [0x62, 3, 0, 7, 0x92]);
        assert_eq!(pubrel(Version::V5, reason::SUCCESS), [0x62, 2, 0, 7]);
        assert_eq!(written(&|out| pingresp(out)), [0xd0, 0]);
    }

    #[test]
    fn every_disconnect_of_ours_has_the_length_it_says() {
        for code in 0x80..=0xa2 {
            let mut out = Vec::new();
            disconnect(&mut out, &Fault::new(code, "why"));
            let frame = Frame::next(&out, 1000).expect("framed").expect("whole");
            assert_eq!(frame.whole.len(), out.len());
            assert!(decode_bytes(&out, Version::V5).is_ok());
        }
    }

    proptest! {
        #[test]
        fn any_packet_is_decoded_or_refused_without_a_panic(
            first: u8, body in proptest::collection::vec(any::<u8>(), 0..80), v5: bool,
        ) {
            let mut bytes = vec![first];
            super::super::wire::put_varint(&mut bytes, body.len());
            bytes.extend_from_slice(&body);
            let version = if v5 { Version::V5 } else { Version::V4 };
            let _ = decode_bytes(&bytes, version);
        }
    }
}
