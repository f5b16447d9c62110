//! ISO 8601 durations as Knative writes them: `PT0.2S`, `PT5M`, `P1DT12H`.
//!
//! Weeks, days, hours, minutes and seconds; the last one may have a fraction. Years and months have no fixed length and are
//! refused. Kept to the millisecond, at most [`IsoDuration::MAX`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use thiserror::Error;

/// A duration read from its ISO 8601 form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct IsoDuration(pub Duration);

/// The text is not a duration that can be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("\"{text}\" is not an ISO 8601 duration such as PT30S, PT0.5S or PT5M{hint}")]
pub struct DurationError {
    text: String,
    hint: &'static str,
}

impl IsoDuration {
    /// The longest duration taken: 10 years of 365 days.
    pub const MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

    /// Milliseconds, as timers and the ledger of retries count.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl FromStr for IsoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let fail = |hint| DurationError { text: text.chars().take(64).collect(), hint };
        let body = text.strip_prefix('P').ok_or_else(|| fail(""))?;
        let (date, time) = match body.split_once('T') {
            Some((_, "")) => return Err(fail("")),
            Some((date, time)) => (date, time),
            None => (body, ""),
        };
        if date.contains(['Y', 'M']) {
            return Err(fail(": years and months have no fixed length, use days (P30D)"));
        }
        let mut nanos: u128 = 0;
        let mut parts = 0;
        for (section, units) in
            [(date, &[('W', 604_800u64), ('D', 86_400)][..]), (time, &[('H', 3_600), ('M', 60), ('S', 1)][..])]
        {
            let mut rest = section;
            let mut from = 0;
            while !rest.is_empty() {
                let at = rest.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(|| fail(""))?;
                let (number, tail) = rest.split_at(at);
                let letter = tail.chars().next().ok_or_else(|| fail(""))?;
                rest = tail.get(1..).unwrap_or_default();
                let place = units.iter().skip(from).position(|(u, _)| *u == letter).ok_or_else(|| fail(""))? + from;
                from = place + 1;
                let seconds = units.get(place).map_or(0, |(_, s)| *s);
                nanos = nanos.saturating_add(scaled(number, seconds).ok_or_else(|| fail(""))?);
                parts += 1;
            }
        }
        if parts == 0 {
            return Err(fail(""));
        }
        let limit = Self::MAX.as_nanos();
        if nanos > limit {
            return Err(fail(": at most 10 years"));
        }
        let millis = u64::try_from(nanos.div_ceil(1_000_000)).unwrap_or(u64::MAX);
        Ok(Self(Duration::from_millis(millis)))
    }
}

/// `number` (decimal, `.` or `,` as the mark) times `seconds`, in nanoseconds.
fn scaled(number: &str, seconds: u64) -> Option<u128> {
    let (whole, fraction) = number.split_once(['.', ',']).unwrap_or((number, "0"));
    let digits = |s: &str| !s.is_empty() && s.len() <= 12 && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let unit = u128::from(seconds) * 1_000_000_000;
    let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    Some(whole.parse::<u128>().ok()? * unit + fraction.parse::<u128>().ok()? * unit / scale)
}

impl fmt::Display for IsoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.as_millis();
        match (ms / 1000, ms % 1000) {
            (s, 0) => write!(f, "PT{s}S"),
            (s, ms) => {
                let text = format!("{ms:03}");
                write!(f, "PT{s}.{}S", text.trim_end_matches('0'))
            }
        }
    }
}

impl<'de> Deserialize<'de> for IsoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(text: &str) -> Option<u64> {
        text.parse::<IsoDuration>().ok().map(IsoDuration::as_millis)
    }

    #[test]
    fn durations_as_knative_writes_them_are_read() {
        assert_eq!(ms("PT0.2S"), Some(200));
        assert_eq!(ms("PT1S"), Some(1000));
        assert_eq!(ms("PT5M"), Some(300_000));
        assert_eq!(ms("PT1H30M"), Some(5_400_000));
        assert_eq!(ms("P1DT12H"), Some(129_600_000));
        assert_eq!(ms("P2W"), Some(1_209_600_000));
        assert_eq!(ms("PT0S"), Some(0));
        assert_eq!(ms("PT0,5S"), Some(500));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", "P", "PT", "5s", "1S", "PT5", "PT-5S", "PT1.S", "P1M", "P1Y", "PTS", "PT1S1M", "P1H", "PT1e3S", "P99999W"]
        {
            assert_eq!(ms(text), None, "{text}");
        }
    }

    #[test]
    fn the_smallest_fraction_is_not_rounded_to_nothing() {
        assert_eq!(ms("PT0.0001S"), Some(1));
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused_without_a_panic(text in ".{0,24}") {
            let _ = text.parse::<IsoDuration>();
        }

        #[test]
        fn what_is_written_is_read_back(millis in 0u64..100_000_000) {
            let d = IsoDuration(Duration::from_millis(millis));
            prop_assert_eq!(d.to_string().parse::<IsoDuration>().ok(), Some(d));
        }
    }
}
