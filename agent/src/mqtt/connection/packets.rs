//! What a client says beside publishing: subscribe, unsubscribe, acknowledge, ping, goodbye.

use super::{Connection, End};
use crate::mqtt::packet::control::{self, Filter, Packet};
use crate::mqtt::packet::frame::kind;
use crate::mqtt::packet::topic::filter_is_valid;
use crate::mqtt::packet::{Fault, reason};
use crate::mqtt::subscriptions::Options;

impl Connection {
    /// A packet other than PUBLISH and PUBREL.
    pub(super) fn handle(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>) {
        let version = self.flow.version;
        match *packet {
            Packet::PingReq => control::pingresp(out),
            Packet::Subscribe { packet_id, identifier, ref filters } => {
                let codes: Vec<u8> = filters.iter().map(|filter| self.subscribe(filter, identifier)).collect();
                control::suback(out, version, packet_id, &codes);
            }
            Packet::Unsubscribe { packet_id, ref filters } => {
                let remove = |filter: &&str| match self.hub.unsubscribe(&self.seat.session, filter) {
                    true => reason::SUCCESS,
                    false => reason::NO_SUBSCRIPTION_EXISTED,
                };
                let codes: Vec<u8> = filters.iter().map(remove).collect();
                control::unsuback(out, version, packet_id, &codes);
            }
            Packet::PubAck { packet_id } => {
                if let Some(in_flight) = &mut self.in_flight {
                    in_flight.acknowledged(packet_id);
                }
            }
            Packet::PubRec { packet_id, reason } => {
                let refused = reason >= reason::UNSPECIFIED;
                let known = self.in_flight.as_mut().map_or(Some(false), |flight| flight.received(packet_id, refused));
                if let Some(known) = known {
                    let reason = if known { reason::SUCCESS } else { reason::PACKET_ID_NOT_FOUND };
                    control::acknowledge(out, version, kind::PUBREL, packet_id, reason);
                }
            }
            Packet::PubComp { packet_id } => {
                if let Some(in_flight) = &mut self.in_flight {
                    in_flight.completed(packet_id);
                }
            }
            Packet::Disconnect { reason, session_expiry } => self.disconnect(reason, session_expiry),
            Packet::PubRel { .. } => self.fault(Fault::protocol("a packet that a client must not send")),
        }
    }

    /// The code that answers it.
    fn subscribe(&self, filter: &Filter<'_>, identifier: u32) -> u8 {
        if filter.path.starts_with("$share/") {
            return reason::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED;
        }
        if !filter_is_valid(filter.path, &self.hub.limits) {
            return reason::TOPIC_FILTER_INVALID;
        }
        let Filter { qos, no_local, retain_as_published, .. } = *filter;
        let options = Options { qos, no_local, retain_as_published, identifier };
        if self.hub.subscribe(&self.seat.session, filter.path, options) { qos } else { reason::QUOTA_EXCEEDED }
    }

    /// DISCONNECT (5.0, 3.14): without its will unless the client asks for it.
    fn disconnect(&mut self, code: u8, expiry: Option<u32>) {
        match expiry {
            Some(seconds) if seconds > 0 && self.seat.expiry_seconds == 0 => {
                return self.fault(Fault::protocol("a session expiry that was 0 cannot be raised"));
            }
            Some(seconds) => {
                let longest = u32::try_from(self.hub.limits.session_expiry.as_secs()).unwrap_or(u32::MAX);
                self.seat.expiry_seconds = seconds.min(longest);
            }
            None => {}
        }
        if code == reason::SUCCESS {
            self.seat.will = None;
        }
        self.finish(End::Goodbye);
    }
}
