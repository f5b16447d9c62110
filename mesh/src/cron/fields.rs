//! The fields of a cron line as sets of numbers, and the next time of a civil calendar that is in all of them.

use time::{Date, Month};

/// Julian day of 1970-01-01.
const EPOCH_DAY: i64 = 2_440_588;

/// Seconds of a day.
const DAY: i64 = 86_400;

/// How many days ahead are looked at: leap days are at most eight years apart.
const MOST_DAYS: i64 = 366 * 9;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// The fields, each a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fields {
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Days of the month, or of the week, are left open: then only the other of the two counts; else either is enough.
    any_day: bool,
    any_weekday: bool,
}

/// What one field may be.
struct Range {
    name: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const SECONDS: Range = Range { name: "second", least: 0, most: 59, names: &[] };
const MINUTES: Range = Range { name: "minute", least: 0, most: 59, names: &[] };
const HOURS: Range = Range { name: "hour", least: 0, most: 23, names: &[] };
const DAYS: Range = Range { name: "day of the month", least: 1, most: 31, names: &[] };
const MONTHS_OF: Range = Range { name: "month", least: 1, most: 12, names: &MONTHS };
/// 7 is Sunday too, as in most crons.
const WEEKDAYS_OF: Range = Range { name: "day of the week", least: 0, most: 7, names: &WEEKDAYS };

impl Fields {
    /// Reads five fields, or six with seconds first.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut words: Vec<&str> = text.split_ascii_whitespace().collect();
        match words.len() {
            5 => words.insert(0, "0"),
            6 => {}
            n => {
                return Err(format!(
                    "has {n} fields; write five (minute hour day month weekday), or six with seconds first"
                ));
            }
        }
        let [second, minute, hour, day, month, weekday] = words[..] else {
            return Err("has no six fields".to_owned());
        };
        let (seconds, _) = field(second, &SECONDS)?;
        let (minutes, _) = field(minute, &MINUTES)?;
        let (hours, _) = field(hour, &HOURS)?;
        let (days, any_day) = field(day, &DAYS)?;
        let (months, _) = field(month, &MONTHS_OF)?;
        let (weekdays, any_weekday) = field(weekday, &WEEKDAYS_OF)?;
        let weekdays = (weekdays | weekdays >> 7) & 0x7f;
        Ok(Self { seconds, minutes, hours, days, months, weekdays, any_day, any_weekday })
    }

    /// Whether hours are left out: such a schedule means times of the clock on the wall.
    pub(super) fn names_hours(&self) -> bool {
        self.hours != (1 << 24) - 1
    }

    /// The first time at or after `local` (seconds since 1970 by the clock on the wall) that all fields hold for.
    pub(super) fn next(&self, local: i64) -> Option<i64> {
        let first = local.div_euclid(DAY);
        let mut day = first;
        while day <= first + MOST_DAYS {
            let date = date(day)?;
            if self.months >> u8::from(date.month()) & 1 == 0 {
                day = first_of_next_month(date)?;
                continue;
            }
            if self.has_day(date) {
                let from = if day == first { local.rem_euclid(DAY) } else { 0 };
                if let Some(second) = self.time_of_day(from) {
                    return Some(day * DAY + second);
                }
            }
            day += 1;
        }
        None
    }

    fn has_day(&self, date: Date) -> bool {
        let of_month = self.days >> date.day() & 1 == 1;
        let of_week = self.weekdays >> date.weekday().number_days_from_sunday() & 1 == 1;
        if self.any_day || self.any_weekday { of_month && of_week } else { of_month || of_week }
    }

    /// The first second of a day at or after `from` that hour, minute and second hold for.
    fn time_of_day(&self, from: i64) -> Option<i64> {
        let (hour, minute, second) = (from / 3600, from / 60 % 60, from % 60);
        for h in members(self.hours, hour) {
            let minutes_from = if h == hour { minute } else { 0 };
            for m in members(self.minutes, minutes_from) {
                let seconds_from = if h == hour && m == minute { second } else { 0 };
                if let Some(s) = members(self.seconds, seconds_from).next() {
                    return Some(h * 3600 + m * 60 + s);
                }
            }
        }
        None
    }
}

/// The members of a set from `from` on.
fn members(set: u64, from: i64) -> impl Iterator<Item = i64> {
    (from..64).filter(move |n| set >> n & 1 == 1)
}

fn date(day: i64) -> Option<Date> {
    Date::from_julian_day(i32::try_from(day + EPOCH_DAY).ok()?).ok()
}

fn first_of_next_month(date: Date) -> Option<i64> {
    let year = date.year() + i32::from(date.month() == Month::December);
    let next = Date::from_calendar_date(year, date.month().next(), 1).ok()?;
    Some(i64::from(next.to_julian_day()) - EPOCH_DAY)
}

/// Reads one field: the set, and whether it is left open (`*` or `?`, without a step).
fn field(text: &str, range: &Range) -> Result<(u64, bool), String> {
    let mut set = 0;
    let mut open = false;
    for part in text.split(',') {
        let (bits, star) = part_of(part, range).map_err(|why| format!("{} \"{}\": {why}", range.name, cut(text)))?;
        set |= bits;
        open |= star;
    }
    Ok((set, open))
}

fn part_of(part: &str, range: &Range) -> Result<(u64, bool), String> {
    let (span, step) = match part.split_once('/') {
        None => (part, None),
        Some((span, step)) => (span, Some(number(step)?)),
    };
    if step == Some(0) {
        return Err("a step must be 1 or more".to_owned());
    }
    // A weekday of 7 counts only where it is written.
    let top = if range.most == 7 { 6 } else { range.most };
    let (low, high, star) = match span {
        "*" | "?" => (range.least, top, step.unwrap_or(1) == 1),
        _ => match span.split_once('-') {
            Some((low, high)) => (value(low, range)?, value(high, range)?, false),
            None => {
                let low = value(span, range)?;
                (low, if step.is_some() { top } else { low }, false)
            }
        },
    };
    if low > high {
        return Err(format!("{low} is beyond {high}"));
    }
    let step = usize::try_from(step.unwrap_or(1)).unwrap_or(usize::MAX);
    Ok(((low..=high).step_by(step).fold(0, |set, n| set | 1 << n), star))
}

fn value(text: &str, range: &Range) -> Result<u32, String> {
    let named = range.names.iter().position(|name| name.eq_ignore_ascii_case(text));
    let value = match named {
        // Months are counted from 1, weekdays from 0.
        Some(at) => u32::try_from(at).unwrap_or(0) + range.least,
        None => number(text)?,
    };
    if (range.least..=range.most).contains(&value) {
        Ok(value)
    } else {
        Err(format!("{value} is not within {} and {}", range.least, range.most))
    }
}

fn number(text: &str) -> Result<u32, String> {
    let digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    let parsed = if digits { text.parse().ok() } else { None };
    parsed.ok_or_else(|| format!("\"{}\" is no number", cut(text)))
}

fn cut(text: &str) -> String {
    text.chars().take(32).collect()
}
