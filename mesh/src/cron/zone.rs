//! Time zones from the system's files, in the format TZif (RFC 9636), versions 1 to 4.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use time::OffsetDateTime;

use super::rule::Rule;

/// Where the files are, unless `TZDIR` says otherwise.
const FOLDER: &str = "/usr/share/zoneinfo";

/// The zone of this machine.
const LOCAL: &str = "/etc/localtime";

/// Largest file that is read; the largest that there is has some 4 KiB.
const MAX_BYTES: u64 = 64 << 10;

/// A time zone: how far the clock on the wall is from UTC, at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Before the first change.
    first: i32,
    /// When the offset changed, and to what, in order.
    changes: Vec<(i64, i32)>,
    /// After the last change.
    rule: Option<Rule>,
}

/// Why there is no such zone.
#[derive(Debug, Error)]
pub enum ZoneError {
    /// The name cannot be one.
    #[error("\"{0}\" is no name of a time zone such as Europe/Berlin")]
    Name(String),
    /// The file cannot be read.
    #[error("{}: {source}; install the time zone data (tzdata), or use UTC", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not in the format.
    #[error("{} is no file of a time zone", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
}

/// A stretch of time without a change of the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its first second; `i64::MIN` if nothing was before.
    pub(super) start: i64,
    /// The first second of the next one; `i64::MAX` if nothing comes.
    pub(super) end: i64,
    /// Seconds east of UTC.
    pub(super) offset: i32,
    /// The same in the stretch before.
    pub(super) before: i32,
}

/// Checks that a text can be the name of a zone, without looking for its file.
///
/// # Errors
/// [`ZoneError::Name`].
pub fn check_zone_name(name: &str) -> Result<(), ZoneError> {
    let right = name.len() <= 64
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-' | b'+'))
        && name.split('/').all(|part| !part.is_empty());
    if right { Ok(()) } else { Err(ZoneError::Name(name.chars().take(64).collect())) }
}

impl Zone {
    /// UTC; needs no file.
    #[must_use]
    pub fn utc() -> Self {
        Self { first: 0, changes: Vec::new(), rule: None }
    }

    /// The zone of this name. `UTC` needs no file, and `Local` is that of this machine. Blocks.
    ///
    /// # Errors
    /// See [`ZoneError`].
    pub fn load(name: &str) -> Result<Self, ZoneError> {
        check_zone_name(name)?;
        match name {
            "UTC" => Ok(Self::utc()),
            "Local" => Self::read(Path::new(LOCAL)),
            _ => {
                let folder = std::env::var_os("TZDIR").map_or_else(|| PathBuf::from(FOLDER), PathBuf::from);
                Self::read(&folder.join(name))
            }
        }
    }

    fn read(path: &Path) -> Result<Self, ZoneError> {
        let failed = |source| ZoneError::Read { path: path.to_owned(), source };
        let format = || ZoneError::Format { path: path.to_owned() };
        let about = std::fs::metadata(path).map_err(failed)?;
        if !about.is_file() || about.len() > MAX_BYTES {
            return Err(format());
        }
        Self::parse(&std::fs::read(path).map_err(failed)?).ok_or_else(format)
    }

    /// Reads the content of a file.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let first = Header::parse(bytes)?;
        let body = bytes.get(Header::BYTES..)?;
        if first.version == 0 {
            return Self::parse_block(body, &first, 4, None);
        }
        // The first block is for readers of version 1; the second has times of 64 bits and ends with the rule.
        let second = body.get(first.block_bytes(4)?..)?;
        let header = Header::parse(second)?;
        let body = second.get(Header::BYTES..)?;
        let footer = body.get(header.block_bytes(8)?..)?;
        let footer = std::str::from_utf8(footer.strip_prefix(b"\n")?).ok()?;
        let text = footer.split('\n').next()?;
        let rule = if text.is_empty() { None } else { Some(Rule::parse(text)?) };
        Self::parse_block(body, &header, 8, rule)
    }

    fn parse_block(body: &[u8], header: &Header, width: usize, rule: Option<Rule>) -> Option<Self> {
        let mut rest = body;
        let mut take = |n: usize| {
            let (head, tail) = rest.split_at_checked(n)?;
            rest = tail;
            Some(head)
        };
        let times = take(header.times.checked_mul(width)?)?;
        let indexes = take(header.times)?;
        let types = take(header.types.checked_mul(6)?)?;
        let offset = |index: u8| {
            let entry = types.chunks_exact(6).nth(usize::from(index))?;
            let offset = i32::from_be_bytes(entry.get(..4)?.try_into().ok()?);
            // Nothing on earth is more than a day and two hours away from UTC.
            (offset.unsigned_abs() <= 26 * 3600).then_some(offset)
        };
        let mut changes: Vec<(i64, i32)> = Vec::with_capacity(header.times);
        for (time, index) in times.chunks_exact(width).zip(indexes) {
            let at = match width {
                4 => i64::from(i32::from_be_bytes(time.try_into().ok()?)),
                _ => i64::from_be_bytes(time.try_into().ok()?),
            };
            if changes.last().is_some_and(|(before, _)| *before >= at) {
                return None;
            }
            changes.push((at, offset(*index)?));
        }
        Some(Self { first: offset(0)?, changes, rule })
    }

    /// A zone that has followed this rule for ever.
    #[cfg(test)]
    pub(super) fn of_rule(text: &str) -> Option<Self> {
        let rule = Rule::parse(text)?;
        Some(Self { first: rule.standard, changes: Vec::new(), rule: Some(rule) })
    }

    /// The stretch that `at` (seconds since 1970) is in.
    pub(super) fn segment(&self, at: i64) -> Segment {
        let after = self.changes.partition_point(|(change, _)| *change <= at);
        let listed = self.changes.get(after).copied();
        let (mut start, mut offset) = match after.checked_sub(1).and_then(|i| self.changes.get(i)) {
            Some(change) => *change,
            None => (i64::MIN, self.first),
        };
        let mut before = match after.checked_sub(2).and_then(|i| self.changes.get(i)) {
            Some((_, offset)) => *offset,
            None => self.first,
        };
        let mut end = listed.map_or(i64::MAX, |(change, _)| change);
        if listed.is_none()
            && let Some(rule) = &self.rule
        {
            let last_listed = start;
            if rule.summer.is_none() && self.changes.is_empty() {
                (offset, before) = (rule.standard, rule.standard);
            }
            // The years around, so that there is a change before and one after.
            let year = OffsetDateTime::from_unix_timestamp(at).map_or(9999, OffsetDateTime::year);
            for (change, then) in (year - 1..=year + 1).filter_map(|year| rule.changes(year)).flatten() {
                if change <= last_listed {
                    continue;
                }
                if change > at {
                    end = change;
                    break;
                }
                (start, before, offset) = (change, offset, then);
            }
        }
        Segment { start, end, offset, before }
    }
}

/// The head of a block.
struct Header {
    version: u8,
    is_ut: usize,
    is_std: usize,
    leaps: usize,
    times: usize,
    types: usize,
    chars: usize,
}

impl Header {
    const BYTES: usize = 44;

    fn parse(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..Self::BYTES)?;
        if head.get(..4)? != b"TZif" {
            return None;
        }
        let count = |at: usize| {
            let number = u32::from_be_bytes(head.get(20 + at * 4..24 + at * 4)?.try_into().ok()?);
            usize::try_from(number).ok().filter(|n| *n <= bytes.len())
        };
        let version = *head.get(4)?;
        Some(Self {
            version,
            is_ut: count(0)?,
            is_std: count(1)?,
            leaps: count(2)?,
            times: count(3)?,
            types: count(4)?,
            chars: count(5)?,
        })
    }

    /// Bytes of the block behind this head.
    fn block_bytes(&self, width: usize) -> Option<usize> {
        let times = self.times.checked_mul(width + 1)?;
        let leaps = self.leaps.checked_mul(width + 4)?;
        times
            .checked_add(self.types.checked_mul(6)?)?
            .checked_add(self.chars)?
            .checked_add(leaps)?
            .checked_add(self.is_std)?
            .checked_add(self.is_ut)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file of version 2 with these changes, the first of the types being before all.
    fn file(changes: &[(i64, u8)], types: &[i32], footer: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let head = |out: &mut Vec<u8>, times: usize, types: usize| {
            out.extend_from_slice(b"TZif2");
            out.extend_from_slice(&[0; 15]);
            for n in [0, 0, 0, times, types, 4] {
                out.extend_from_slice(&u32::try_from(n).expect("few").to_be_bytes());
            }
        };
        head(&mut out, 0, 1);
        out.extend_from_slice(&[0; 6 + 4]);
        head(&mut out, changes.len(), types.len());
        changes.iter().for_each(|(at, _)| out.extend_from_slice(&at.to_be_bytes()));
        changes.iter().for_each(|(_, index)| out.push(*index));
        for offset in types {
            out.extend_from_slice(&offset.to_be_bytes());
            out.extend_from_slice(&[0, 0]);
        }
        out.extend_from_slice(b"ABC\0");
        out.extend_from_slice(format!("\n{footer}\n").as_bytes());
        out
    }

    #[test]
    fn a_file_is_read_and_its_rule_goes_on_where_its_list_ends() {
        let bytes = file(&[(1000, 1), (2000, 0)], &[600, 4200], "CET-1CEST,M3.5.0,M10.5.0/3");
        let zone = Zone::parse(&bytes).expect("a zone");
        assert_eq!(zone.segment(0), Segment { start: i64::MIN, end: 1000, offset: 600, before: 600 });
        assert_eq!(zone.segment(1000), Segment { start: 1000, end: 2000, offset: 4200, before: 600 });
        // From the list's last offset into what the rule says.
        let late = zone.segment(2000);
        assert_eq!((late.start, late.offset, late.before), (2000, 600, 4200));
        let summer = zone.segment(1_780_000_000);
        assert_eq!(summer, Segment { start: 1_774_746_000, end: 1_792_890_000, offset: 7200, before: 3600 });
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", "../etc/passwd", "/etc/localtime", "Europe//Berlin", "a b", &"x".repeat(65), "Europe/Berlin\0"] {
            assert!(check_zone_name(name).is_err(), "{name}");
        }
        assert!(check_zone_name("America/Argentina/Buenos_Aires").is_ok());
        assert!(matches!(Zone::load("No/Such_Zone"), Err(ZoneError::Read { .. })));
    }

    #[test]
    fn the_zones_of_this_machine_can_all_be_read() {
        let folder = Path::new(FOLDER);
        if !folder.join("Europe/Berlin").is_file() {
            eprintln!("skipped: this machine has no time zone data");
            return;
        }
        let mut read = 0;
        for area in ["Europe", "America", "Asia", "Pacific", "Antarctica", "Etc"] {
            for entry in std::fs::read_dir(folder.join(area)).into_iter().flatten().flatten().filter(|e| e.path().is_file())
            {
                let name = format!("{area}/{}", entry.file_name().to_string_lossy());
                let zone = Zone::load(&name).unwrap_or_else(|e| panic!("{e}"));
                let segment = zone.segment(1_795_000_000);
                assert!(segment.start <= 1_795_000_000 && segment.end > 1_795_000_000, "{name}");
                read += 1;
            }
        }
        assert!(read > 100, "{read}");
        let berlin = Zone::load("Europe/Berlin").expect("there");
        assert_eq!(berlin.segment(1_795_000_000).offset, 3600);
        assert_eq!(berlin.segment(1_780_000_000).offset, 7200);
        assert_eq!(berlin.segment(3_000_000_000).offset, 3600);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, at: i64) {
            if let Some(zone) = Zone::parse(&bytes) {
                let _ = zone.segment(at);
            }
        }

        #[test]
        fn no_damaged_file_makes_it_panic(at in 0usize..160, byte: u8, when: i64) {
            let mut bytes = file(&[(1000, 1), (2000, 0)], &[600, 4200], "CET-1CEST,M3.5.0,M10.5.0/3");
            if let Some(b) = bytes.get_mut(at) {
                *b = byte;
            }
            if let Some(zone) = Zone::parse(&bytes) {
                let segment = zone.segment(when);
                prop_assert!(segment.start <= when);
            }
        }
    }
}
