//! The few packets of MQTT 3.1.1 that a publishing client needs, in as few instructions as possible: the load must not be what is
//! measured.

/// Appends a CONNECT.
pub fn connect(out: &mut Vec<u8>, client: &str, clean: bool, keep_alive: u16, user: Option<(&str, &str)>) {
    let mut body = Vec::with_capacity(64);
    string(&mut body, "MQTT");
    let flags = u8::from(clean) << 1 | if user.is_some() { 0b1100_0000 } else { 0 };
    body.extend([4, flags]);
    body.extend(keep_alive.to_be_bytes());
    string(&mut body, client);
    if let Some((name, password)) = user {
        string(&mut body, name);
        string(&mut body, password);
    }
    out.push(0x10);
    length(out, body.len());
    out.extend(body);
}

/// Appends a PUBLISH; `packet_id` counts for QoS 1 and 2 only.
pub fn publish(out: &mut Vec<u8>, topic: &str, qos: u8, packet_id: u16, duplicate: bool, payload: &[u8]) {
    out.push(0x30 | u8::from(duplicate) << 3 | qos << 1);
    length(out, 2 + topic.len() + if qos > 0 { 2 } else { 0 } + payload.len());
    string(out, topic);
    if qos > 0 {
        out.extend(packet_id.to_be_bytes());
    }
    out.extend_from_slice(payload);
}

/// Appends a PUBREL.
pub fn pubrel(out: &mut Vec<u8>, packet_id: u16) {
    out.extend([0x62, 2]);
    out.extend(packet_id.to_be_bytes());
}

/// Appends a SUBSCRIBE to one topic filter.
pub fn subscribe(out: &mut Vec<u8>, packet_id: u16, filter: &str, qos: u8) {
    out.push(0x82);
    length(out, 2 + 2 + filter.len() + 1);
    out.extend(packet_id.to_be_bytes());
    string(out, filter);
    out.push(qos);
}

/// Appends a DISCONNECT.
pub fn disconnect(out: &mut Vec<u8>) {
    out.extend([0xe0, 0]);
}

/// What a broker says to a publishing client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet {
    /// CONNACK: session present, return code.
    ConnAck(bool, u8),
    /// PUBACK.
    PubAck(u16),
    /// PUBREC.
    PubRec(u16),
    /// PUBCOMP.
    PubComp(u16),
    /// Anything else, by its first byte.
    Other(u8),
}

/// Takes the first whole packet off `bytes`; gives it and its length.
#[must_use]
pub fn next(bytes: &[u8]) -> Option<(Packet, usize)> {
    let first = *bytes.first()?;
    let mut size = 0_usize;
    let mut at = 1;
    loop {
        let byte = *bytes.get(at)?;
        size |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 || at > 4 {
            break;
        }
    }
    let body = bytes.get(at..at + size)?;
    let id = || body.first_chunk::<2>().map_or(0, |two| u16::from_be_bytes(*two));
    let packet = match first >> 4 {
        2 => Packet::ConnAck(body.first().is_some_and(|flags| flags & 1 == 1), body.get(1).copied().unwrap_or(255)),
        4 => Packet::PubAck(id()),
        5 => Packet::PubRec(id()),
        7 => Packet::PubComp(id()),
        _ => Packet::Other(first),
    };
    Some((packet, at + size))
}

fn string(out: &mut Vec<u8>, text: &str) {
    let size = u16::try_from(text.len()).expect("names of tests are short");
    out.extend(size.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn length(out: &mut Vec<u8>, mut size: usize) {
    loop {
        let low = u8::try_from(size & 0x7f).expect("seven bits");
        size >>= 7;
        out.push(if size > 0 { low | 0x80 } else { low });
        if size == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_one_by_one_and_a_cut_one_waits() {
        let bytes = [0x20, 2, 1, 0, 0x40, 2, 0, 7, 0x50, 2, 1];
        let (packet, size) = next(&bytes).expect("whole");
        assert_eq!((packet, size), (Packet::ConnAck(true, 0), 4));
        let (packet, size) = next(&bytes[4..]).expect("whole");
        assert_eq!((packet, size), (Packet::PubAck(7), 4));
        assert_eq!(next(&bytes[8..]), None);
    }

    #[test]
    fn a_publish_has_its_length_in_as_many_bytes_as_needed() {
        let mut out = Vec::new();
        publish(&mut out, "a/b", 1, 5, true, &[b'x'; 200]);
        assert_eq!(&out[..10], &[0x3a, 0xcf, 0x01, 0, 3, b'a', b'/', b'b', 0, 5]);
        assert_eq!(out.len(), 3 + 2 + 3 + 2 + 200);
    }
}
