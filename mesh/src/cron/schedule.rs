//! A schedule, and the times that it names.

use std::fmt;

use thiserror::Error;

use super::fields::Fields;
use super::zone::Zone;

/// How many stretches without a change of the clocks are looked at: two a year, for longer than leap days are apart.
const MOST_SEGMENTS: usize = 24;

/// Longest schedule in bytes.
const MAX_BYTES: usize = 256;

/// Longest time between two runs of `@every`: 10 years.
const MAX_EVERY: u64 = 10 * 365 * 86_400;

/// The words that stand for five fields.
const WORDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// When something is to be done.
///
/// ```
/// use godwit_mesh::cron::{Schedule, Zone};
///
/// let schedule: Schedule = "30 6 * * mon-fri".parse().unwrap();
/// // 1970-01-01 was a Thursday.
/// assert_eq!(schedule.next(0, &Zone::utc()), Some(6 * 3600 + 30 * 60));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// So many seconds after the last time.
    Every(u64),
    Fields(Fields),
}

/// The text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("\"{text}\" is no schedule: {why}")]
pub struct ScheduleError {
    text: String,
    why: String,
}

impl std::str::FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let fail = |why: String| ScheduleError { text: text.chars().take(64).collect(), why };
        if text.len() > MAX_BYTES {
            return Err(fail(format!("it has more than {MAX_BYTES} bytes")));
        }
        let text = text.trim();
        if let Some(interval) = text.strip_prefix("@every ") {
            return every(interval.trim()).map(|s| Self(Kind::Every(s))).map_err(fail);
        }
        let fields = match WORDS.iter().find(|(word, _)| *word == text) {
            Some((_, fields)) => fields,
            None if text.starts_with('@') => {
                let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
                return Err(fail(format!("known are {} and @every 1h30m", words.join(", "))));
            }
            None => text,
        };
        let fields = Fields::parse(fields).map_err(fail)?;
        if fields.next(0).is_none() {
            return Err(fail("it names a day that never comes".to_owned()));
        }
        Ok(Self(Kind::Fields(fields)))
    }
}

impl Schedule {
    /// The first time after `after`, both in seconds since 1970; for `@every`, `after` is the last time. `None`: never, or not
    /// within nine years.
    #[must_use]
    pub fn next(&self, after: i64, zone: &Zone) -> Option<i64> {
        match &self.0 {
            Kind::Every(seconds) => after.checked_add_unsigned(*seconds),
            Kind::Fields(fields) => next_of(fields, after, zone),
        }
    }

    /// The last time after `after` and not after `until`, if there is one.
    #[must_use]
    pub fn last(&self, after: i64, until: i64, zone: &Zone) -> Option<i64> {
        if let Kind::Every(seconds) = self.0 {
            let seconds = i64::try_from(seconds).ok()?;
            let times = until.checked_sub(after)? / seconds;
            return (times > 0).then(|| after + times * seconds);
        }
        let within = |t: i64| self.next(t, zone).filter(|next| *next <= until);
        within(after)?;
        // What follows `low` is still within, what follows `high` is not.
        let (mut low, mut high) = (after, until);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if within(middle).is_some() { low = middle } else { high = middle }
        }
        within(low)
    }

    /// How many times there are after `after` and not after `until`; not counted beyond `most`.
    #[must_use]
    pub fn count(&self, after: i64, until: i64, zone: &Zone, most: u64) -> u64 {
        if let Kind::Every(seconds) = self.0 {
            let passed = u64::try_from(until.saturating_sub(after)).unwrap_or(0);
            return (passed / seconds).min(most);
        }
        let mut at = after;
        for n in 0..most {
            match self.next(at, zone) {
                Some(next) if next <= until => at = next,
                _ => return n,
            }
        }
        most
    }
}

fn next_of(fields: &Fields, after: i64, zone: &Zone) -> Option<i64> {
    let mut at = after.checked_add(1)?;
    for _ in 0..MOST_SEGMENTS {
        let segment = zone.segment(at);
        let (offset, before) = (i64::from(segment.offset), i64::from(segment.before));
        // Times of the clock on the wall that were left out when this segment began come now.
        if at == segment.start && offset > before && fields.names_hours() {
            let left_out = fields.next(at.checked_add(before)?);
            if left_out.is_some_and(|left_out| left_out < at + offset) {
                return Some(at);
            }
        }
        let mut local = at.checked_add(offset)?;
        // Those that the clock on the wall shows for the second time were there the first time.
        if offset < before && fields.names_hours() {
            local = local.max(segment.start.checked_add(before)?);
        }
        let next = fields.next(local)? - offset;
        if next < segment.end {
            return Some(next);
        }
        at = segment.end;
    }
    None
}

/// A duration as Go writes it, as in `1h30m`, `1.5h` or `90s`, in whole seconds and at least one, as Knative's cron has it.
fn every(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{}\" is no duration such as 1h30m, 90s or 1.5h", text.chars().take(32).collect::<String>());
    let mut rest = text;
    let mut millis: u64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |s: &str| s.len() <= 9 && s.bytes().all(|b| b.is_ascii_digit());
        if number.is_empty() || number == "." || !digits(whole) || !digits(fraction) {
            return Err(wrong());
        }
        let factor = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            "us" | "µs" | "ns" => 0,
            _ => return Err(wrong()),
        };
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
        let part: u64 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| wrong())? };
        let scale = 10u64.pow(u32::try_from(fraction.len()).unwrap_or(9));
        millis = millis.saturating_add(whole.saturating_mul(factor)).saturating_add(part.saturating_mul(factor) / scale);
        rest = next;
    }
    if text.is_empty() {
        return Err(wrong());
    }
    match (millis / 1000).max(1) {
        seconds if seconds > MAX_EVERY => Err(format!("{text} is longer than ten years")),
        seconds => Ok(seconds),
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Every(seconds) => write!(f, "@every {seconds}s"),
            Kind::Fields(_) => f.write_str("by cron"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    use super::*;

    fn at(text: &str) -> i64 {
        OffsetDateTime::parse(text, &Rfc3339).expect("a time").unix_timestamp()
    }

    fn show(seconds: i64) -> String {
        OffsetDateTime::from_unix_timestamp(seconds).expect("a time").format(&Rfc3339).expect("shown")
    }

    /// The `n` times that follow `after`.
    fn times(schedule: &str, after: &str, zone: &Zone, n: usize) -> Vec<String> {
        let schedule: Schedule = schedule.parse().expect(schedule);
        let mut now = at(after);
        let next = || {
            now = schedule.next(now, zone)?;
            Some(show(now))
        };
        std::iter::from_fn(next).take(n).collect()
    }

    /// Central Europe, as its file's footer has it.
    fn berlin() -> Zone {
        Zone::of_rule("CET-1CEST,M3.5.0,M10.5.0/3").expect("a rule")
    }

    #[test]
    fn fields_words_names_steps_and_seconds_are_read_as_cron_has_them() {
        let utc = Zone::utc();
        let day = "2026-11-26T04:03:10Z"; // a Thursday
        for (schedule, wanted) in [
            ("* * * * *", "2026-11-26T04:04:00Z"),
            ("*/15 * * * *", "2026-11-26T04:15:00Z"),
            ("*/20 * * * * *", "2026-11-26T04:03:20Z"),
            ("5 4 * * *", "2026-11-26T04:05:00Z"),
            ("3 4 * * *", "2026-11-27T04:03:00Z"),
            ("0 0 1 JAN ?", "2027-01-01T00:00:00Z"),
            ("0 12 * * mon-fri", "2026-11-26T12:00:00Z"),
            ("0 12 * * 7", "2026-11-29T12:00:00Z"),
            ("0 12 * * 5-7", "2026-11-27T12:00:00Z"),
            ("10-30/10,45 3 * * *", "2026-11-27T03:10:00Z"),
            ("30/15 4 * * *", "2026-11-26T04:30:00Z"),
            ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
            ("@hourly", "2026-11-26T05:00:00Z"),
            ("@weekly", "2026-11-29T00:00:00Z"),
            ("@annually", "2027-01-01T00:00:00Z"),
            ("@every 1h30m", "2026-11-26T05:33:10Z"),
            ("@every 1.5s", "2026-11-26T04:03:11Z"),
            ("@every 10ms", "2026-11-26T04:03:11Z"),
        ] {
            assert_eq!(times(schedule, day, &utc, 1), [wanted], "{schedule}");
        }
    }

    #[test]
    fn a_day_of_the_month_and_one_of_the_week_are_either_or_unless_one_is_open() {
        let utc = Zone::utc();
        let days = |schedule| times(schedule, "2026-11-01T00:00:00Z", &utc, 3);
        assert_eq!(days("0 0 13 * 5"), ["2026-11-06T00:00:00Z", "2026-11-13T00:00:00Z", "2026-11-20T00:00:00Z"]);
        assert_eq!(days("0 0 13 * *"), ["2026-11-13T00:00:00Z", "2026-12-13T00:00:00Z", "2027-01-13T00:00:00Z"]);
        assert_eq!(days("0 0 */1 * 5"), ["2026-11-06T00:00:00Z", "2026-11-13T00:00:00Z", "2026-11-20T00:00:00Z"]);
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_the_field_named() {
        for (text, part) in [
            ("", "0 fields"),
            ("* * * *", "4 fields"),
            ("60 * * * *", "minute"),
            ("* 24 * * *", "hour"),
            ("* * 0 * *", "day of the month"),
            ("* * * 13 *", "month"),
            ("* * * * 8", "day of the week"),
            ("* * * * fry", "day of the week"),
            ("*/0 * * * *", "step"),
            ("5-1 * * * *", "beyond"),
            ("1,,2 * * * *", "minute"),
            ("-1 * * * *", "minute"),
            ("0 0 30 2 *", "never comes"),
            ("0 0 L * *", "day of the month"),
            ("@reboot", "known are"),
            ("@every", "known are"),
            ("@every x", "duration"),
            ("@every 5", "duration"),
            ("@every -5s", "duration"),
            ("@every 999999h", "ten years"),
            ("TZ=UTC * * * * *", "second"),
        ] {
            let error = text.parse::<Schedule>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn an_hour_that_is_left_out_comes_at_the_change_and_one_shown_twice_comes_once() {
        let zone = berlin();
        // Forward at 01:00Z on 29 March 2026, back at 01:00Z on 25 October.
        assert_eq!(
            times("30 2 * * *", "2026-03-28T00:00:00Z", &zone, 3),
            ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
        assert_eq!(times("30 2 * * *", "2026-10-24T12:00:00Z", &zone, 2), ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        // Every half hour goes on as if nothing were.
        assert_eq!(
            times("0,30 * * * *", "2026-10-25T00:00:00Z", &zone, 4),
            ["2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z"]
        );
        assert_eq!(
            times("0,30 * * * *", "2026-03-29T00:30:00Z", &zone, 2),
            ["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"]
        );
    }

    #[test]
    fn the_last_time_and_the_number_of_times_are_those_of_one_by_one() {
        let utc = Zone::utc();
        let (after, until) = (at("2026-11-26T04:03:10Z"), at("2026-11-29T10:00:00Z"));
        for text in ["*/7 * * * *", "0 12 * * sat", "@every 61s", "@yearly", "15 30 5 * * *"] {
            let schedule: Schedule = text.parse().expect(text);
            let all: Vec<i64> = std::iter::successors(schedule.next(after, &utc), |t| schedule.next(*t, &utc))
                .take_while(|t| *t <= until)
                .collect();
            assert_eq!(schedule.last(after, until, &utc), all.last().copied(), "{text}");
            assert_eq!(schedule.count(after, until, &utc, 10_000), all.len() as u64, "{text}");
        }
        assert_eq!("* * * * * *".parse::<Schedule>().expect("valid").count(after, until, &utc, 100), 100);
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused_without_a_panic(text in "[-*/,0-9a-z@. ?]{0,24}", after in any::<i64>()) {
            if let Ok(schedule) = text.parse::<Schedule>() {
                let _ = schedule.next(after, &Zone::utc());
            }
        }

        #[test]
        fn times_rise_and_the_last_is_the_one_before_the_next(
            minute in 0u32..60, hour in 0u32..24, after in 0i64..4_000_000_000, span in 1i64..400_000_000,
        ) {
            let schedule: Schedule = format!("{minute} {hour} * * *").parse().expect("valid");
            let zone = berlin();
            let next = schedule.next(after, &zone).expect("there is one");
            prop_assert!(next > after);
            if let Some(last) = schedule.last(after, after + span, &zone) {
                prop_assert!(last <= after + span && last >= next);
                prop_assert!(schedule.next(last, &zone).is_some_and(|t| t > after + span));
            } else {
                prop_assert!(next > after + span);
            }
        }
    }
}
