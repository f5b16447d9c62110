//! The MQTT 5 reason codes that this listener uses (MQTT 5.0, 2.4).

pub(in crate::mqtt) const SUCCESS: u8 = 0x00;
pub(in crate::mqtt) const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
pub(in crate::mqtt) const UNSPECIFIED: u8 = 0x80;
pub(in crate::mqtt) const MALFORMED_PACKET: u8 = 0x81;
pub(in crate::mqtt) const PROTOCOL_ERROR: u8 = 0x82;
pub(in crate::mqtt) const IMPLEMENTATION: u8 = 0x83;
pub(in crate::mqtt) const NOT_AUTHORIZED: u8 = 0x87;
pub(in crate::mqtt) const SERVER_BUSY: u8 = 0x89;
pub(in crate::mqtt) const SHUTTING_DOWN: u8 = 0x8b;
pub(in crate::mqtt) const KEEP_ALIVE_TIMEOUT: u8 = 0x8d;
pub(in crate::mqtt) const TAKEN_OVER: u8 = 0x8e;
pub(in crate::mqtt) const TOPIC_NAME_INVALID: u8 = 0x90;
pub(in crate::mqtt) const RECEIVE_MAXIMUM_EXCEEDED: u8 = 0x93;
pub(in crate::mqtt) const TOPIC_ALIAS_INVALID: u8 = 0x94;
pub(in crate::mqtt) const PACKET_TOO_LARGE: u8 = 0x95;
pub(in crate::mqtt) const QUOTA_EXCEEDED: u8 = 0x97;
pub(in crate::mqtt) const RETAIN_NOT_SUPPORTED: u8 = 0x9a;
pub(in crate::mqtt) const ADMINISTRATIVE: u8 = 0x98;
