//! Where one packet ends and the next begins: the fixed header (5.0, 2.1).

use super::wire::Wire;
use super::{Fault, reason};

/// Packet types (5.0, 2.1.2).
pub(in crate::mqtt) mod kind {
    pub(in crate::mqtt) const CONNECT: u8 = 1;
    pub(in crate::mqtt) const PUBLISH: u8 = 3;
    pub(in crate::mqtt) const PUBACK: u8 = 4;
    pub(in crate::mqtt) const PUBREC: u8 = 5;
    pub(in crate::mqtt) const PUBREL: u8 = 6;
    pub(in crate::mqtt) const PUBCOMP: u8 = 7;
    pub(in crate::mqtt) const SUBSCRIBE: u8 = 8;
    pub(in crate::mqtt) const UNSUBSCRIBE: u8 = 10;
    pub(in crate::mqtt) const PINGREQ: u8 = 12;
    pub(in crate::mqtt) const DISCONNECT: u8 = 14;
}

/// One whole packet.
#[derive(Debug, Clone, Copy)]
pub(in crate::mqtt) struct Frame<'a> {
    /// The first byte: type and flags.
    pub(in crate::mqtt) first: u8,
    /// What follows the fixed header.
    pub(in crate::mqtt) body: &'a [u8],
    /// The packet with its fixed header.
    pub(in crate::mqtt) whole: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The packet at the head of `bytes`, or `None` while it is not whole.
    ///
    /// # Errors
    /// When the remaining length is malformed, or the packet would have more than `max_bytes` in all; that is known, and
    /// said, before its body has come.
    #[inline]
    pub(in crate::mqtt) fn next(bytes: &'a [u8], max_bytes: usize) -> Result<Option<Self>, Fault> {
        let Some((header, total)) = lengths(bytes, max_bytes)? else { return Ok(None) };
        let Some((whole, &first)) = bytes.get(..total).zip(bytes.first()) else { return Ok(None) };
        Ok(whole.get(header..).map(|body| Self { first, body, whole }))
    }

    /// How many bytes the packet at the head of `bytes` will have in all, once that can be told.
    pub(in crate::mqtt) fn announced(bytes: &[u8]) -> Option<usize> {
        lengths(bytes, usize::MAX).ok().flatten().map(|(_, total)| total)
    }

    /// The packet type.
    pub(in crate::mqtt) const fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// The flags beside the packet type.
    pub(in crate::mqtt) const fn flags(&self) -> u8 {
        self.first & 0x0f
    }
}

/// The lengths of the fixed header and of the whole packet at the head of `bytes`, or `None` while they cannot be told.
#[inline]
fn lengths(bytes: &[u8], max_bytes: usize) -> Result<Option<(usize, usize)>, Fault> {
    let Some((_, after)) = bytes.split_first() else { return Ok(None) };
    let mut wire = Wire::new(after);
    let length = match wire.varint() {
        Ok(length) => length,
        // Up to three bytes that all continue may yet become a length; four cannot.
        Err(_) if after.len() < 4 => return Ok(None),
        Err(fault) => return Err(fault),
    };
    let header = bytes.len() - wire.rest().len();
    let total = header + length;
    if total > max_bytes {
        return Err(Fault::new(reason::PACKET_TOO_LARGE, "the packet is larger than this listener takes"));
    }
    Ok(Some((header, total)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_found_once_it_is_whole() {
        let bytes = [0xc0, 0x00, 0x62, 0x02, 0x00];
        let ping = Frame::next(&bytes, 100).expect("well-formed").expect("whole");
        assert_eq!((ping.kind(), ping.body.len(), ping.whole.len()), (kind::PINGREQ, 0, 2));
        assert!(Frame::next(&bytes[2..], 100).expect("well-formed").is_none());
        assert!(Frame::next(&[], 100).expect("well-formed").is_none());
        assert!(Frame::next(&[0x30, 0xff, 0xff, 0xff], 100).expect("may go on").is_none());
        assert_eq!(Frame::announced(&[0x30, 0x80, 0x01, 0x00]), Some(131));
        assert_eq!(Frame::announced(&[0x30, 0x80]), None);
    }

    #[test]
    fn a_packet_too_large_is_refused_by_its_header_alone() {
        let fault = Frame::next(&[0x30, 0xff, 0xff, 0xff, 0x7f], 1 << 20).expect_err("too large");
        assert_eq!(fault.reason, reason::PACKET_TOO_LARGE);
        assert_eq!(
            Frame::next(&[0x30, 0xff, 0xff, 0xff, 0xff], 1 << 20).expect_err("malformed").reason,
            reason::MALFORMED_PACKET
        );
    }
}
