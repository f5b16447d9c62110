//! What a client says beside publishing: subscribe, unsubscribe, acknowledge, ping, goodbye.

use std::future::Future;
use std::pin::Pin;

use godwit_mesh::journal::Refused;
use rumqttd::protocol::{DisconnectReasonCode, Packet, PubRecReason, SubscribeReasonCode, UnsubAckReason};
use tracing::warn;

use super::{Connection, End, RETRY_PAUSE};
use crate::mqtt::packet::topic::filter_is_valid;
use crate::mqtt::packet::{Fault, control};
use crate::mqtt::subscriptions::Options;

impl Connection {
    /// A packet other than PUBLISH and PUBREL.
    pub(super) fn handle(&mut self, packet: Packet, out: &mut Vec<u8>) {
        let version = self.flow.version;
        match packet {
            Packet::PingReq(_) => control::pingresp(out, version),
            Packet::Subscribe(subscribe, properties) => {
                let identifier = properties.and_then(|p| p.id);
                if identifier == Some(0) {
                    return self.fault(Fault::protocol("subscription identifier 0"));
                }
                let identifier = identifier.and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
                let codes = subscribe.filters.iter().map(|filter| self.subscribe(filter, identifier)).collect();
                control::suback(out, version, subscribe.pkid, codes);
            }
            Packet::Unsubscribe(unsubscribe, _) => {
                let remove = |filter: &String| match self.hub.unsubscribe(&self.seat.session, filter) {
                    true => UnsubAckReason::Success,
                    false => UnsubAckReason::NoSubscriptionExisted,
                };
                let reasons = unsubscribe.filters.iter().map(remove).collect();
                control::unsuback(out, version, unsubscribe.pkid, reasons);
            }
            Packet::PubAck(puback, _) => {
                if let Some(in_flight) = &mut self.in_flight {
                    in_flight.acknowledged(puback.pkid);
                }
            }
            Packet::PubRec(pubrec, _) => {
                let refused = !matches!(pubrec.reason, PubRecReason::Success | PubRecReason::NoMatchingSubscribers);
                let known = self.in_flight.as_mut().map_or(Some(false), |flight| flight.received(pubrec.pkid, refused));
                if let Some(known) = known {
                    control::pubrel(out, version, pubrec.pkid, known);
                }
            }
            Packet::PubComp(pubcomp, _) => {
                if let Some(in_flight) = &mut self.in_flight {
                    in_flight.completed(pubcomp.pkid);
                }
            }
            Packet::Disconnect(disconnect, properties) => {
                let expiry = properties.and_then(|p| p.session_expiry_interval);
                self.disconnect(disconnect.reason_code, expiry);
            }
            _ => self.fault(Fault::protocol("a packet that a client must not send")),
        }
    }

    /// Before the first subscription of a session that outlives this connection: what to wait for, so that SUBACK leaves only when
    /// it is on disk that there is one.
    pub(super) fn note_subscription(&mut self) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        match self.seat.note_subscription() {
            Ok(None) => None,
            Ok(Some(receipt)) => Some(Box::pin(async move {
                // Refused at last: the disk fails, and after the next start the client may be told of subscriptions that it has not.
                // It would find out by the same failure of all that it publishes.
                if let Err(refused) = receipt.await {
                    warn!(%refused, "a subscription could not be noted");
                }
            })),
            Err(Refused::Busy) => Some(Box::pin(tokio::time::sleep(RETRY_PAUSE))),
            Err(refused) => {
                warn!(%refused, "a subscription could not be noted");
                None
            }
        }
    }

    fn subscribe(&self, filter: &rumqttd::protocol::Filter, identifier: u32) -> SubscribeReasonCode {
        if filter.path.starts_with("$share/") {
            return SubscribeReasonCode::SharedSubscriptionsNotSupported;
        }
        if !filter_is_valid(&filter.path, &self.hub.limits) {
            return SubscribeReasonCode::TopicFilterInvalid;
        }
        let options = Options {
            qos: filter.qos as u8,
            no_local: filter.nolocal,
            retain_as_published: filter.preserve_retain,
            identifier,
        };
        if self.hub.subscribe(&self.seat.session, &filter.path, options) {
            SubscribeReasonCode::Success(filter.qos)
        } else {
            SubscribeReasonCode::QuotaExceeded
        }
    }

    /// DISCONNECT (5.0, 3.14): without its will unless the client asks for it.
    fn disconnect(&mut self, code: DisconnectReasonCode, expiry: Option<u32>) {
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
        if code == DisconnectReasonCode::NormalDisconnection {
            self.seat.will = None;
        }
        self.finish(End::Goodbye);
    }
}
