//! `knativebrokerttl`: how many more brokers an event may pass, so that replies cannot go round for ever (D8, D18).
//!
//! An event without the attribute has [`MAX_TTL`]; it is not written down on the way in, because every event from a device would
//! carry it. Subscribers never see it: delivery takes it out, and gives a reply the value of the event it answers, less one.

use thiserror::Error;

use super::{Event, Value};

/// The attribute's name.
pub const TTL: &str = "knativebrokerttl";

/// What an event has that does not say.
pub const MAX_TTL: i32 = 255;

/// The event has been through as many brokers as it may. Answer 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "attribute \"knativebrokerttl\" is exhausted: the event has been through too many brokers, perhaps in a circle of replies"
)]
pub struct TtlExhausted;

/// The event's time to live, if it says one. What is no integer counts as not said.
#[must_use]
pub fn ttl(event: &Event) -> Option<i32> {
    match event.get(TTL)? {
        Value::Integer(ttl) => Some(*ttl),
        value => value.to_text().parse().ok(),
    }
}

/// Counts one broker down.
///
/// # Errors
/// [`TtlExhausted`] when none is left.
pub fn count_down(event: &mut Event) -> Result<(), TtlExhausted> {
    if event.get(TTL).is_none() {
        return Ok(());
    }
    match ttl(event) {
        Some(before) => put(event, before),
        None => {
            event.remove(TTL);
            Ok(())
        }
    }
}

/// Takes the attribute away and returns its value, [`MAX_TTL`] where the event does not say.
pub(crate) fn take(event: &mut Event) -> i32 {
    let left = ttl(event).unwrap_or(MAX_TTL);
    event.remove(TTL);
    left
}

/// Marks an event that is about to be stored in a broker, `before` being what it had until now.
pub(crate) fn put(event: &mut Event, before: i32) -> Result<(), TtlExhausted> {
    let left = before.saturating_sub(1);
    if left <= 0 {
        return Err(TtlExhausted);
    }
    // An integer is a valid value of any extension, so this cannot fail.
    event.set(TTL, Value::Integer(left)).map_err(|_| TtlExhausted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(ttl: Option<Value>) -> Event {
        let builder = Event::builder().id("1").source("/s").ty("t");
        match ttl {
            Some(ttl) => builder.attribute(TTL, ttl).build().expect("valid"),
            None => builder.build().expect("valid"),
        }
    }

    #[test]
    fn each_broker_takes_one() {
        let mut one = event(Some(Value::Integer(3)));
        assert_eq!(count_down(&mut one), Ok(()));
        assert_eq!(ttl(&one), Some(2));
        // Binary mode has strings only.
        let mut text = event(Some(Value::String("3".to_owned())));
        assert_eq!(count_down(&mut text), Ok(()));
        assert_eq!(ttl(&text), Some(2));
    }

    #[test]
    fn the_last_one_is_refused() {
        for last in [1, 0, -5, i32::MIN] {
            assert_eq!(count_down(&mut event(Some(Value::Integer(last)))), Err(TtlExhausted), "{last}");
        }
    }

    #[test]
    fn an_event_that_does_not_say_stays_as_it_is() {
        let mut silent = event(None);
        assert_eq!(count_down(&mut silent), Ok(()));
        assert_eq!(silent.get(TTL), None);
        let mut nonsense = event(Some(Value::String("many".to_owned())));
        assert_eq!(count_down(&mut nonsense), Ok(()));
        assert_eq!(nonsense.get(TTL), None);
    }

    #[test]
    fn d8_each_broker_takes_one_away_until_nothing_is_left() {
        let mut event = event(None);
        assert_eq!(take(&mut event), 255);
        put(&mut event, 255).expect("plenty");
        assert_eq!(event.get(TTL), Some(&Value::Integer(254)));
        put(&mut event, 2).expect("one left");
        assert_eq!(take(&mut event), 1);
        assert_eq!(put(&mut event, 1), Err(TtlExhausted));
        assert_eq!(put(&mut event, 0), Err(TtlExhausted));
    }

    #[test]
    fn d18_the_value_is_read_whatever_its_type_and_taken_away() {
        let mut event = event(Some(Value::String("17".to_owned())));
        assert_eq!(take(&mut event), 17);
        assert_eq!(event.get(TTL), None);
        event.set(TTL, Value::String("many".to_owned())).expect("valid");
        assert_eq!(take(&mut event), 255);
        assert_eq!(event.get(TTL), None);
    }
}
