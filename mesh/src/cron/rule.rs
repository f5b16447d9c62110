//! What the clocks do after the last change that a time zone's file lists: the TZ string of POSIX, as in
//! `CET-1CEST,M3.5.0,M10.5.0/3` (RFC 9636, section 3.3.1).

use time::{Date, Month};

const DAY: i64 = 86_400;

/// A rule that holds for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    /// Standard time, in seconds east of UTC.
    pub(super) standard: i32,
    /// Summer time, and when it begins and ends.
    pub(super) summer: Option<Summer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summer {
    pub(super) offset: i32,
    begins: Change,
    ends: Change,
}

/// A moment of each year, by the clock on the wall before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    day: Day,
    /// Seconds after midnight of that day; may be before it, or days after.
    time: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Day {
    /// The n-th (5: last) weekday of a month.
    Weekday { month: Month, week: u8, weekday: u8 },
    /// Day of the year from 1, 29 February never counted.
    Without(u16),
    /// Day of the year from 0, 29 February counted.
    With(u16),
}

impl Rule {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut rest = text;
        name(&mut rest)?;
        let standard = -offset(&mut rest)?;
        if rest.is_empty() {
            return Some(Self { standard: i32::try_from(standard).ok()?, summer: None });
        }
        name(&mut rest)?;
        let summer = if rest.starts_with(',') { standard + 3600 } else { -offset(&mut rest)? };
        let begins = change(&mut rest)?;
        let ends = change(&mut rest)?;
        if !rest.is_empty() {
            return None;
        }
        let summer = Summer { offset: i32::try_from(summer).ok()?, begins, ends };
        Some(Self { standard: i32::try_from(standard).ok()?, summer: Some(summer) })
    }

    /// The changes of a year, in order: when, and the offset from then on.
    pub(super) fn changes(&self, year: i32) -> Option<[(i64, i32); 2]> {
        let summer = self.summer?;
        let begins = (summer.begins.in_year(year)? - i64::from(self.standard), summer.offset);
        let ends = (summer.ends.in_year(year)? - i64::from(summer.offset), self.standard);
        Some(if begins.0 <= ends.0 { [begins, ends] } else { [ends, begins] })
    }
}

impl Change {
    /// Seconds since 1970 by the clock on the wall.
    fn in_year(self, year: i32) -> Option<i64> {
        let date = match self.day {
            Day::Weekday { month, week, weekday } => {
                let first = Date::from_calendar_date(year, month, 1).ok()?;
                let ahead = (7 + i64::from(weekday) - i64::from(first.weekday().number_days_from_sunday())) % 7;
                let days = i64::from(month.length(year));
                let mut day = ahead + 7 * (i64::from(week) - 1);
                if day >= days {
                    day -= 7;
                }
                days_since_1970(first) + day
            }
            Day::Without(n) => {
                let leap = time::util::is_leap_year(year) && n >= 60;
                year_begins(year)? + i64::from(n) - 1 + i64::from(leap)
            }
            Day::With(n) => year_begins(year)? + i64::from(n),
        };
        Some(date * DAY + self.time)
    }
}

fn year_begins(year: i32) -> Option<i64> {
    Date::from_calendar_date(year, Month::January, 1).ok().map(days_since_1970)
}

fn days_since_1970(date: Date) -> i64 {
    i64::from(date.to_julian_day()) - 2_440_588
}

/// The name of a time: letters, or anything in angle brackets.
fn name(rest: &mut &str) -> Option<()> {
    let after = match rest.strip_prefix('<') {
        Some(inner) => inner.split_once('>')?.1,
        None => {
            let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            if end < 3 {
                return None;
            }
            rest.get(end..)?
        }
    };
    *rest = after;
    Some(())
}

/// `[+-]hh[:mm[:ss]]` in seconds.
fn offset(rest: &mut &str) -> Option<i64> {
    let (sign, after) = match rest.as_bytes().first()? {
        b'-' => (-1, rest.get(1..)?),
        b'+' => (1, rest.get(1..)?),
        _ => (1, *rest),
    };
    *rest = after;
    let mut seconds = number(rest, 167)? * 3600;
    for unit in [60, 1] {
        if let Some(after) = rest.strip_prefix(':') {
            *rest = after;
            seconds += number(rest, 59)? * unit;
        } else {
            break;
        }
    }
    Some(sign * seconds)
}

fn number(rest: &mut &str, most: i64) -> Option<i64> {
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at_checked(end)?;
    let number = if digits.len() <= 3 { digits.parse().ok()? } else { return None };
    *rest = after;
    (number <= most).then_some(number)
}

/// `,day[/time]`; the time is 02:00 where none is written.
fn change(rest: &mut &str) -> Option<Change> {
    *rest = rest.strip_prefix(',')?;
    let day = if let Some(after) = rest.strip_prefix('M') {
        *rest = after;
        let month = u8::try_from(number(rest, 12)?).ok().and_then(|m| Month::try_from(m).ok())?;
        *rest = rest.strip_prefix('.')?;
        let week = u8::try_from(number(rest, 5)?).ok().filter(|week| *week > 0)?;
        *rest = rest.strip_prefix('.')?;
        Day::Weekday { month, week, weekday: u8::try_from(number(rest, 6)?).ok()? }
    } else if let Some(after) = rest.strip_prefix('J') {
        *rest = after;
        Day::Without(u16::try_from(number(rest, 365)?).ok().filter(|n| *n > 0)?)
    } else {
        Day::With(u16::try_from(number(rest, 365)?).ok()?)
    };
    let time = match rest.strip_prefix('/') {
        Some(after) => {
            *rest = after;
            offset(rest)?
        }
        None => 2 * 3600,
    };
    Some(Change { day, time })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rules_of_all_forms_are_read() {
        // 2026-03-29T01:00:00Z and 2026-10-25T01:00:00Z.
        let berlin = Rule::parse("CET-1CEST,M3.5.0,M10.5.0/3").expect("a rule");
        assert_eq!(berlin.changes(2026), Some([(1_774_746_000, 7200), (1_792_890_000, 3600)]));
        // The south: summer over the turn of the year.
        let sydney = Rule::parse("AEST-10AEDT,M10.1.0,M4.1.0/3").expect("a rule");
        let [april, october] = sydney.changes(2026).expect("changes");
        assert_eq!((april.1, october.1), (36_000, 39_600));
        assert_eq!(Rule::parse("<+03>-3"), Some(Rule { standard: 10_800, summer: None }));
        assert_eq!(Rule::parse("<-0330>3:30").map(|r| r.standard), Some(-12_600));
        // Greenland's change is on the day before.
        assert!(Rule::parse("<-02>2<-01>,M3.5.0/-1,M10.5.0/0").is_some());
        assert!(Rule::parse("EST5EDT,J60,300/2:30").is_some());
        for wrong in [
            "",
            "CET",
            "C-1",
            "CET-1CEST",
            "CET-1CEST,M3.5.0",
            "CET-1CEST,M13.5.0,M10.5.0",
            "CET-1CEST,M3.6.0,M1.1.1",
            "<+03-3",
        ] {
            assert_eq!(Rule::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[A-Z<>+,/.:MJ0-9-]{0,40}", year in -9000i32..9000) {
            if let Some(rule) = Rule::parse(&text) {
                let _ = rule.changes(year);
            }
        }
    }
}
