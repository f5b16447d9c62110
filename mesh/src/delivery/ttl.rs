//! How many Brokers an event may still go through (D8, D18).
//!
//! Subscribers never see the attribute. A reply carries on with its event's value, and each Broker that stores an event takes
//! one away, so that a loop of Brokers and replies ends.

use crate::event::{Event, Value};

const ATTRIBUTE: &str = "knativebrokerttl";

/// What an event has that nobody has counted yet.
const DEFAULT: i32 = 255;

/// The event has been through too many Brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UsedUp;

/// Takes the attribute away and returns its value. One that is no number counts as none.
pub(crate) fn take(event: &mut Event) -> i32 {
    match event.remove(ATTRIBUTE) {
        Some(Value::Integer(ttl)) => ttl,
        Some(value) => value.to_text().parse().unwrap_or(DEFAULT),
        None => DEFAULT,
    }
}

/// Marks an event that is about to be stored in a Broker, `ttl` being what it had before.
pub(crate) fn put(event: &mut Event, ttl: i32) -> Result<(), UsedUp> {
    let left = ttl.saturating_sub(1);
    if left <= 0 {
        return Err(UsedUp);
    }
    event.set(ATTRIBUTE, Value::Integer(left)).map_err(|_| UsedUp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event::builder().id("1").source("/s").ty("t").build().expect("valid")
    }

    #[test]
    fn d8_each_broker_takes_one_away_until_nothing_is_left() {
        let mut event = event();
        assert_eq!(take(&mut event), 255);
        put(&mut event, 255).expect("plenty");
        assert_eq!(event.get(ATTRIBUTE), Some(&Value::Integer(254)));
        put(&mut event, 2).expect("one left");
        assert_eq!(take(&mut event), 1);
        assert_eq!(put(&mut event, 1), Err(UsedUp));
        assert_eq!(put(&mut event, 0), Err(UsedUp));
    }

    #[test]
    fn d18_the_value_is_read_whatever_its_type_and_taken_away() {
        let mut event = event();
        event.set(ATTRIBUTE, Value::String("17".to_owned())).expect("valid");
        assert_eq!(take(&mut event), 17);
        assert_eq!(event.get(ATTRIBUTE), None);
    }
}
