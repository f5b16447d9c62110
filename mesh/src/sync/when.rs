//! Instants as `/status` shows them.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// RFC 3339 text, to the second, of milliseconds since 1970; `None` where no clock was valid.
#[must_use]
pub fn text(wall_ms: Option<u64>) -> Option<String> {
    let seconds = i64::try_from(wall_ms? / 1000).ok()?;
    OffsetDateTime::from_unix_timestamp(seconds).ok()?.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_instant_is_written_in_utc() {
        assert_eq!(super::text(Some(1_800_000_000_123)).as_deref(), Some("2027-01-15T08:00:00Z"));
        assert_eq!(super::text(None), None);
    }
}
