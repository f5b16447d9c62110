//! Numbers as people write them.

use std::time::Duration;

/// A number of bytes: `1.5 GiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    let mut unit = 0;
    let mut whole = bytes;
    let mut tenths = 0;
    while whole >= 1024 && unit < 5 {
        (tenths, whole) = ((whole % 1024) * 10 / 1024, whole / 1024);
        unit += 1;
    }
    let name = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"].get(unit).copied().unwrap_or("B");
    if unit == 0 { format!("{whole} B") } else { format!("{whole}.{tenths} {name}") }
}

/// A short time: `350 us`, `1.2 ms`, `2.5 s`.
pub(super) fn short(time: Duration) -> String {
    let us = time.as_micros();
    match us {
        0..1000 => format!("{us} us"),
        1000..1_000_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        _ => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

/// A long time: `5 s`, `12 min`, `3 h`, `12 days`, `3.5 years`.
pub(super) fn long(seconds: u64) -> String {
    const DAY: u64 = 86_400;
    const YEAR: u64 = 365 * DAY;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        172_800..63_072_000 => format!("{} days", seconds / DAY),
        _ if seconds / YEAR >= 100 => "over 100 years".to_owned(),
        _ => format!("{}.{} years", seconds / YEAR, seconds % YEAR * 10 / YEAR),
    }
}

/// What a medium can take in writes, as its maker gives it: `40TBW`, `600GB`, `1.5 TBW`. In bytes; the units are decimal.
///
/// # Errors
/// What is wrong with the text.
pub fn endurance(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is not an endurance such as 40TBW or 600GB");
    let plain = text.trim().trim_end_matches(['W', 'w']);
    let end = plain.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(plain.len());
    let (number, unit) = plain.split_at(end);
    let factor: u64 = match unit.trim() {
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "PB" => 1_000_000_000_000_000,
        _ => return Err(wrong()),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let (whole, digits): (u64, u64) = (whole.parse().map_err(|_| wrong())?, part.parse().map_err(|_| wrong())?);
    let scale = u32::try_from(part.len()).ok().filter(|n| *n <= 6).and_then(|n| 10_u64.checked_pow(n)).ok_or_else(wrong)?;
    let bytes = whole.checked_mul(factor).and_then(|bytes| bytes.checked_add(digits * (factor / scale)));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endurance_is_read_as_makers_write_it() {
        assert_eq!(endurance("40TBW"), Ok(40_000_000_000_000));
        assert_eq!(endurance("1.5 TBW"), Ok(1_500_000_000_000));
        assert_eq!(endurance("600GB"), Ok(600_000_000_000));
        for wrong in ["", "40", "TBW", "0TBW", "-1TB", "1.TB", ".5TB", "1.0000001TB", "99999999999PB", "40TiB", "1e3TB"] {
            assert!(endurance(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(
            (size(1023), size(1536), size(8 << 20)),
            ("1023 B".to_owned(), "1.5 KiB".to_owned(), "8.0 MiB".to_owned())
        );
        assert_eq!(short(Duration::from_micros(350)), "350 us");
        assert_eq!(short(Duration::from_micros(1250)), "1.2 ms");
        assert_eq!(short(Duration::from_millis(2550)), "2.5 s");
        assert_eq!(long(40), "40 s");
        assert_eq!(long(3 * 365 * 86_400 + 200 * 86_400), "3.5 years");
        assert_eq!(long(u64::MAX), "over 100 years");
    }
}
