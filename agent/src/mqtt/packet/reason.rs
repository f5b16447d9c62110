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
pub(in crate::mqtt) const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
pub(in crate::mqtt) const TOPIC_FILTER_INVALID: u8 = 0x8f;
pub(in crate::mqtt) const PACKET_ID_NOT_FOUND: u8 = 0x92;
pub(in crate::mqtt) const SHARED_SUBSCRIPTIONS_NOT_SUPPORTED: u8 = 0x9e;

/// How a CONNECT is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) enum ConnectReturnCode {
    Success,
    MalformedPacket,
    ProtocolError,
    /// 3.1.1's word for the next one.
    RefusedProtocolVersion,
    UnsupportedProtocolVersion,
    ClientIdentifierNotValid,
    BadUserNamePassword,
    NotAuthorized,
    /// 3.1.1's word for the next two.
    ServiceUnavailable,
    ServerUnavailable,
    ServerBusy,
    BadAuthenticationMethod,
    TopicNameInvalid,
    QuotaExceeded,
}

impl ConnectReturnCode {
    /// The code of 5.0 (3.2.2.2).
    pub(in crate::mqtt) const fn v5(self) -> u8 {
        match self {
            Self::Success => SUCCESS,
            Self::MalformedPacket => MALFORMED_PACKET,
            Self::ProtocolError => PROTOCOL_ERROR,
            Self::RefusedProtocolVersion | Self::UnsupportedProtocolVersion => 0x84,
            Self::ClientIdentifierNotValid => 0x85,
            Self::BadUserNamePassword => 0x86,
            Self::NotAuthorized => NOT_AUTHORIZED,
            Self::ServiceUnavailable | Self::ServerUnavailable => 0x88,
            Self::ServerBusy => SERVER_BUSY,
            Self::BadAuthenticationMethod => 0x8c,
            Self::TopicNameInvalid => TOPIC_NAME_INVALID,
            Self::QuotaExceeded => QUOTA_EXCEEDED,
        }
    }

    /// The code of 3.1.1 (3.2.2.3); what it has no word for is "unavailable" there.
    pub(in crate::mqtt) const fn v4(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::RefusedProtocolVersion | Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::BadUserNamePassword => 4,
            Self::NotAuthorized => 5,
            _ => 3,
        }
    }
}
