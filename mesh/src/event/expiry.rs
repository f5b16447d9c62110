//! `expirytime`: the instant from which on an event is worth nothing to anybody. Who passes events on drops it then, and counts it.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::StoredEvent;
use crate::clock::Clock;

/// The attribute's name.
const EXPIRY: &str = "expirytime";

/// Whether the event's `expirytime` has passed. Without a valid clock nothing has; what is no timestamp says nothing. For an event
/// without the attribute, nearly all, nothing is allocated and the clock is not asked.
#[must_use]
pub fn has_expired(event: &StoredEvent, clock: &Clock, scratch: &mut String) -> bool {
    let Some(text) = event.attribute_text(EXPIRY, scratch) else { return false };
    let Some(now) = clock.wall_ms() else { return false };
    OffsetDateTime::parse(text, &Rfc3339).is_ok_and(|at| at.unix_timestamp_nanos() <= i128::from(now) * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, MqttPublish, encode_event, encode_publish};
    use crate::journal::{Epoch, Offset};

    /// 2026-08-01T00:00:00Z.
    const NOW: i64 = 1_785_542_400_000;

    fn stored(encode: impl FnOnce(&mut Vec<u8>)) -> StoredEvent {
        let mut body = Vec::new();
        encode(&mut body);
        StoredEvent::new(body.into(), Epoch(1), Offset(0), None).expect("a stored event")
    }

    fn with(expiry: Option<&str>) -> StoredEvent {
        let mut event = Event::builder().id("1").source("/s").ty("t").build().expect("valid");
        if let Some(expiry) = expiry {
            event.set(EXPIRY, expiry.into()).expect("valid");
        }
        stored(|out| encode_event(out, &event, None, std::iter::empty()))
    }

    fn publish(properties: &[u8], arrival_ms: u64) -> StoredEvent {
        let publish = MqttPublish {
            client_id: "c",
            topic: "a/b",
            qos: 1,
            retain: false,
            packet_id: 7,
            v5: true,
            properties,
            payload: b"x",
        };
        stored(|out| encode_publish(out, &publish, Some(arrival_ms)))
    }

    #[test]
    fn an_event_expires_at_its_instant_in_any_zone_and_only_by_a_valid_clock() {
        let (clock, mut scratch) = (Clock::manual(NOW), String::new());
        for (expiry, expired) in [
            (None, false),
            (Some("2026-08-01T00:00:00.001Z"), false),
            (Some("2026-08-01T02:00:00+02:00"), true),
            (Some("2026-07-31T23:59:59Z"), true),
            (Some("tomorrow"), false),
        ] {
            assert_eq!(has_expired(&with(expiry), &clock, &mut scratch), expired, "{expiry:?}");
        }
        clock.set_wall(12_000);
        assert!(!has_expired(&with(Some("1970-01-01T00:00:01Z")), &clock, &mut scratch), "no valid clock");
    }

    #[test]
    fn a_publish_expires_by_its_message_expiry_interval() {
        let (clock, mut scratch) = (Clock::manual(NOW), String::new());
        let arrival = |seconds_ago: u64| NOW.unsigned_abs() - seconds_ago * 1000;
        let two_seconds = [2, 0, 0, 0, 2];
        assert!(!has_expired(&publish(&[], arrival(9)), &clock, &mut scratch));
        assert_eq!(scratch.capacity(), 0, "nothing is allocated for an event without the attribute");
        assert!(!has_expired(&publish(&two_seconds, arrival(1)), &clock, &mut scratch));
        assert!(has_expired(&publish(&two_seconds, arrival(2)), &clock, &mut scratch));
    }
}
