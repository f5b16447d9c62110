//! Times as Kubernetes writes them, and ages as `kubectl get` shows them.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since 1970 as `2026-01-31T12:00:00Z`.
pub(super) fn rfc3339(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).unwrap_or_default();
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    // Formatting fails only for years that RFC 3339 does not have.
    time.format(&Rfc3339).unwrap_or_default()
}

/// Milliseconds since 1970 of such a time.
pub(super) fn parse(text: &str) -> Option<u64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp()).ok().map(|s| s * 1000)
}

/// A duration in at most two units, finer while it is short: `45s`, `7m12s`, `3h`, `2d4h`.
pub(super) fn age(ms: u64) -> String {
    let s = ms / 1000;
    let (m, h, d) = (s / 60, s / 3600, s / 86400);
    let two = |whole: u64, unit: char, rest: u64, small: char| match rest {
        0 => format!("{whole}{unit}"),
        rest => format!("{whole}{unit}{rest}{small}"),
    };
    match () {
        () if s < 120 => format!("{s}s"),
        () if m < 10 => two(m, 'm', s % 60, 's'),
        () if m < 180 => format!("{m}m"),
        () if h < 8 => two(h, 'h', m % 60, 'm'),
        () if h < 48 => format!("{h}h"),
        () if d < 8 => two(d, 'd', h % 24, 'h'),
        () if d < 730 => format!("{d}d"),
        () => two(d / 365, 'y', d % 365, 'd'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read() {
        assert_eq!(rfc3339(1_767_225_600_999), "2026-01-01T00:00:00Z");
        assert_eq!(parse("2026-01-01T00:00:00Z"), Some(1_767_225_600_000));
        assert_eq!(parse("yesterday"), None);
    }

    #[test]
    fn ages_are_as_kubectl_shows_them() {
        for (seconds, shown) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (432, "7m12s"),
            (660, "11m"),
            (4 * 3600 + 60, "4h1m"),
            (9 * 3600 + 60, "9h"),
            (2 * 86400 + 4 * 3600, "2d4h"),
            (90 * 86400, "90d"),
            (730 * 86400, "2y"),
        ] {
            assert_eq!(age(seconds * 1000), shown);
        }
    }
}
