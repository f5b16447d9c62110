//! The lines of a file that others write: followed to its end and beyond, through rotation and restarts.
//!
//! How far it was read is kept with the events in one commit: the file (device, inode, a hash of its first bytes) and the offset
//! behind the last whole line. A file that was renamed away is read to its end before the one with its name is begun, also where
//! that happened while the agent was off and it is still in the folder. A file that is shorter than what was read of it, or begins
//! otherwise, was written anew and is begun at its beginning; what it had in between nobody has seen.

use std::fs::{File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use godwit_mesh::event::Event;
use godwit_mesh::manifest::{FileSpec, FileStart};
use godwit_mesh::source::{Job, Missing, Sink, Stopped, Tries};

use super::super::data;
use super::LOOK_EVERY_MS;

/// The events' type where none is written.
const TYPE: &str = "dev.godwit.file.line";

/// Longest line in bytes; longer ones are lost (`line_too_long`). It is what every intermediary must forward.
const MAX_LINE: usize = 64 << 10;

/// Bytes that are read at a time.
const READ_BYTES: usize = MAX_LINE + 1;

/// Most events of one commit.
const BATCH: usize = 64;

/// So many bytes at its beginning tell a file from another with its inode.
const FINGERPRINT_BYTES: usize = 256;

/// Most files of a folder that are looked through for one that was renamed.
const MOST_FILES: usize = 4096;

/// How far a file was read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// Drawn when the file was begun: with the offset it makes the events' ids.
    name: String,
    dev: u64,
    ino: u64,
    /// Behind the last whole line.
    offset: u64,
    /// How many bytes the fingerprint is of, and what it is.
    checked: u16,
    fingerprint: u64,
}

/// A file that is open.
#[derive(Debug)]
struct Open {
    file: File,
    place: Place,
    /// Within a line that is too long: the rest of it is passed over.
    skipping: bool,
}

/// What one look at the file has found.
#[derive(Debug, Default)]
struct Found {
    /// Offsets of whole lines, and what they are.
    lines: Vec<(u64, Bytes)>,
    too_long: u64,
    /// Whether there may be more at once.
    more: bool,
}

/// Follows the file.
pub(super) async fn follow(job: &Job, spec: &FileSpec) -> Result<std::convert::Infallible, Stopped> {
    let sink = job.sink().await?;
    job.live.attributes(spec.ty.as_deref().unwrap_or(TYPE), &job.path());
    let kept = job.mark().and_then(|mark| Place::decode(&mark));
    let mut first = kept.is_none();
    let mut open: Option<Open> = None;
    let mut resume = kept;
    loop {
        if open.is_none() {
            let (path, place) = (spec.path.clone(), resume.take());
            let end = first && spec.start == FileStart::End;
            match blocking(move || begin(&path, place, end)).await {
                Ok(found) => {
                    job.live.deployed(Ok(()));
                    // Where it begins is kept before the first line: after a crash it begins there again, under the same name.
                    sink.put(&[], Some(&found.place.encode()), Tries::ForEver).await?;
                    first = false;
                    open = Some(found);
                }
                Err(error) => {
                    // A file that comes later is read from its beginning: nobody had it before.
                    first &= error.kind() != io::ErrorKind::NotFound;
                    let why = format!("{}: {error}", spec.path.display());
                    job.live.deployed(Err(Missing::new("FileNotReadable", why)));
                    job.wait(LOOK_EVERY_MS).await?;
                    continue;
                }
            }
        }
        let Some(mut reading) = open.take() else { continue };
        let looked = blocking(move || {
            let found = reading.look()?;
            Ok((reading, found))
        })
        .await;
        let (reading, found) = match looked {
            Ok(looked) => looked,
            Err(error) => {
                job.live.failed(format!("{}: {error}", spec.path.display()), job.clock());
                resume = job.mark().and_then(|mark| Place::decode(&mark));
                job.wait(LOOK_EVERY_MS).await?;
                continue;
            }
        };
        let place = reading.place.clone();
        hand_over(job, spec, &sink, &place, &found).await?;
        job.live.show("offset", place.offset);
        if found.more {
            open = Some(reading);
            continue;
        }
        // At its end: is it still the file of this name?
        let path = spec.path.clone();
        open = blocking(move || Ok(reading.unless_replaced(&path))).await.unwrap_or_default();
        if open.is_some() {
            job.wait(LOOK_EVERY_MS).await?;
        }
    }
}

/// Hands over what was found; the mark goes with the last of it.
async fn hand_over(job: &Job, spec: &FileSpec, sink: &Sink, place: &Place, found: &Found) -> Result<(), Stopped> {
    if found.lines.is_empty() && found.too_long == 0 {
        return Ok(());
    }
    job.live.lost("line_too_long", found.too_long);
    let ty = spec.ty.as_deref().unwrap_or(TYPE);
    let subject = spec.path.to_str();
    let mut events: Vec<Event> = Vec::new();
    let last = found.lines.len();
    for (n, (offset, line)) in found.lines.iter().enumerate() {
        let id = format!("{}-{offset}", place.name);
        events.extend(data::event(job, &id, ty, subject, spec.content_type.as_deref(), line.clone()));
        let next = found.lines.get(n + 1).map_or(place.offset, |(next, _)| *next);
        if events.len() == BATCH && n + 1 < last {
            let mark = Place { offset: next, ..place.clone() }.encode();
            sink.put(&events, Some(&mark), Tries::ForEver).await?;
            events.clear();
        }
    }
    sink.put(&events, Some(&place.encode()), Tries::ForEver).await
}

/// Runs what blocks off the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)))
}

/// Opens the file that is to be read now: the one that was being read, wherever it is in its folder, else the one of this name.
fn begin(path: &Path, place: Option<Place>, end: bool) -> io::Result<Open> {
    if let Some(place) = place
        && let Some(open) = candidates(path, &place).into_iter().find_map(|path| Open::resume(&path, &place).ok().flatten())
    {
        return Ok(open);
    }
    let mut file = regular(path)?;
    let about = file.metadata()?;
    let offset = if end { end_of_last_line(&mut file, about.len())? } else { 0 };
    let place = Place { name: data::random(), dev: about.dev(), ino: about.ino(), offset, checked: 0, fingerprint: 0 };
    let mut open = Open { file, place, skipping: false };
    open.check_in()?;
    Ok(open)
}

/// Where a file may be that was read: under its name, or renamed in its folder.
fn candidates(path: &Path, place: &Place) -> Vec<PathBuf> {
    let is_it = |about: &Metadata| (about.dev(), about.ino()) == (place.dev, place.ino);
    if std::fs::metadata(path).is_ok_and(|about| is_it(&about)) {
        return vec![path.to_owned()];
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().take(MOST_FILES);
    entries.filter(|entry| entry.metadata().is_ok_and(|about| is_it(&about))).map(|entry| entry.path()).collect()
}

/// Opens a regular file: a pipe or a device would block, or never end.
fn regular(path: &Path) -> io::Result<File> {
    let about = std::fs::metadata(path)?;
    if !about.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is no regular file"));
    }
    File::open(path)
}

/// Behind the last newline of a file.
fn end_of_last_line(file: &mut File, length: u64) -> io::Result<u64> {
    let mut end = length;
    let mut bytes = vec![0; 4096];
    while end > 0 {
        let start = end.saturating_sub(bytes.len() as u64);
        let part = bytes.get_mut(..usize::try_from(end - start).unwrap_or(0)).unwrap_or_default();
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|b| *b == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

impl Open {
    /// Goes on in a file that was being read; `None` if it was written anew.
    fn resume(path: &Path, place: &Place) -> io::Result<Option<Self>> {
        let mut file = regular(path)?;
        let about = file.metadata()?;
        let same = (about.dev(), about.ino()) == (place.dev, place.ino)
            && about.len() >= place.offset
            && fingerprint(&mut file, place.checked)? == Some(place.fingerprint);
        Ok(same.then(|| Self { file, place: place.clone(), skipping: false }))
    }

    /// Notes how the file begins.
    fn check_in(&mut self) -> io::Result<()> {
        let length = self.file.metadata()?.len().min(FINGERPRINT_BYTES as u64);
        let checked = u16::try_from(length).unwrap_or(0);
        if let Some(fingerprint) = fingerprint(&mut self.file, checked)? {
            (self.place.checked, self.place.fingerprint) = (checked, fingerprint);
        }
        Ok(())
    }

    /// Reads on from where it stands.
    fn look(&mut self) -> io::Result<Found> {
        let length = self.file.metadata()?.len();
        let anew = length < self.place.offset
            || (length > self.place.offset
                && fingerprint(&mut self.file, self.place.checked)? != Some(self.place.fingerprint));
        if anew {
            // Truncated: it is another file from here on.
            self.place = Place { name: data::random(), offset: 0, ..self.place.clone() };
            self.skipping = false;
            self.check_in()?;
        } else if usize::from(self.place.checked) < FINGERPRINT_BYTES && length > u64::from(self.place.checked) {
            self.check_in()?;
        }
        let mut found = Found::default();
        if length <= self.place.offset {
            return Ok(found);
        }
        self.file.seek(SeekFrom::Start(self.place.offset))?;
        let mut bytes = Vec::with_capacity(READ_BYTES);
        (&self.file).take(READ_BYTES as u64).read_to_end(&mut bytes)?;
        let full = bytes.len() == READ_BYTES;
        let bytes = Bytes::from(bytes);
        let mut at = 0;
        while let Some(length) = bytes.get(at..).and_then(|rest| rest.iter().position(|b| *b == b'\n')) {
            if !std::mem::take(&mut self.skipping) && length > 0 {
                found.lines.push((self.place.offset + at as u64, bytes.slice(at..at + length)));
            }
            at += length + 1;
        }
        if at == 0 && full {
            // No end of the line in sight: it is passed over, piece by piece.
            found.too_long = u64::from(!self.skipping);
            self.skipping = true;
            at = bytes.len();
        }
        self.place.offset += at as u64;
        found.more = full;
        Ok(found)
    }

    /// The same, unless there is another file under its name now, and all of this one has been read.
    fn unless_replaced(self, path: &Path) -> Option<Self> {
        let replaced = match std::fs::metadata(path) {
            Ok(about) => (about.dev(), about.ino()) != (self.place.dev, self.place.ino),
            Err(_) => false,
        };
        let read = self.file.metadata().is_ok_and(|about| about.len() <= self.place.offset);
        // A last line without an end will not get one any more where the writer has gone on to another file.
        if replaced && (read || !self.grows()) { None } else { Some(self) }
    }

    /// Whether the writer may still be writing into a file that was renamed: it was changed within the last ten seconds.
    fn grows(&self) -> bool {
        let changed = self.file.metadata().and_then(|about| about.modified());
        changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() < 10))
    }
}

/// A hash of the first bytes of a file; `None` if it is shorter.
fn fingerprint(file: &mut File, bytes: u16) -> io::Result<Option<u64>> {
    let mut head = vec![0; usize::from(bytes)];
    file.seek(SeekFrom::Start(0))?;
    match file.read_exact(&mut head) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    // FNV-1a: what it tells apart are logs, not adversaries.
    let hash = head.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    Ok(Some(hash))
}

impl Place {
    fn encode(&self) -> Vec<u8> {
        let Self { name, dev, ino, offset, checked, fingerprint } = self;
        format!("{name} {dev} {ino} {offset} {checked} {fingerprint}").into_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(bytes).ok()?.split(' ');
        Some(Self {
            name: words.next()?.to_owned(),
            dev: words.next()?.parse().ok()?,
            ino: words.next()?.parse().ok()?,
            offset: words.next()?.parse().ok()?,
            checked: words.next()?.parse().ok()?,
            fingerprint: words.next()?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn write(path: &Path, text: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("opened");
        file.write_all(text.as_bytes()).expect("written");
    }

    /// All whole lines from where it stands.
    fn read(open: &mut Open) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let found = open.look().expect("read");
            all.extend(found.lines.iter().map(|(_, line)| String::from_utf8_lossy(line).into_owned()));
            if !found.more {
                return all;
            }
        }
    }

    #[test]
    fn lines_are_read_as_they_are_completed() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("log");
        write(&path, "one\ntwo\nthr");
        let mut open = begin(&path, None, false).expect("open");
        assert_eq!(read(&mut open), ["one", "two"]);
        write(&path, "ee\n\nfour\n");
        assert_eq!(read(&mut open), ["three", "four"]);
        assert!(read(&mut open).is_empty());
        let mut late = begin(&path, None, true).expect("open");
        write(&path, "five\n");
        assert_eq!(read(&mut late), ["five"]);
    }

    #[test]
    fn a_rotated_file_is_read_to_its_end_also_after_a_restart() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("log");
        write(&path, "one\n");
        let mut open = begin(&path, None, false).expect("open");
        assert_eq!(read(&mut open), ["one"]);
        let place = Place::decode(&open.place.encode()).expect("a place");
        drop(open);
        // While nobody looks: more lines, a rotation, a new file.
        write(&path, "two\n");
        std::fs::rename(&path, dir.path().join("log.1")).expect("renamed");
        write(&path, "three\n");
        let mut open = begin(&path, Some(place.clone()), false).expect("open");
        assert_eq!(open.place.name, place.name);
        assert_eq!(read(&mut open), ["two"]);
        assert!(open.unless_replaced(&path).is_none());
        let mut open = begin(&path, None, false).expect("open");
        assert_ne!(open.place.name, place.name);
        assert_eq!(read(&mut open), ["three"]);
        assert!(open.unless_replaced(&path).is_some());
    }

    #[test]
    fn a_truncated_file_is_begun_anew_whatever_its_length() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("log");
        write(&path, "one\ntwo\n");
        let mut open = begin(&path, None, false).expect("open");
        assert_eq!(read(&mut open), ["one", "two"]);
        let place = open.place.clone();
        File::create(&path).expect("truncated");
        write(&path, "x\n");
        assert_eq!(read(&mut open), ["x"]);
        assert_ne!(open.place.name, place.name);
        // Longer than what was read of it, but another beginning: found at a start and while it runs.
        File::create(&path).expect("truncated");
        write(&path, "another beginning\nand more\n");
        assert_eq!(read(&mut open), ["another beginning", "and more"]);
        let mut open = begin(&path, Some(place), false).expect("open");
        assert_eq!(read(&mut open), ["another beginning", "and more"]);
    }

    #[test]
    fn a_line_without_end_is_passed_over_and_counted_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("log");
        write(&path, &format!("a\n{}\nb\n", "x".repeat(3 * MAX_LINE)));
        let mut open = begin(&path, None, false).expect("open");
        let (mut lines, mut lost) = (Vec::new(), 0);
        loop {
            let found = open.look().expect("read");
            lines.extend(found.lines.iter().map(|(_, line)| line.clone()));
            lost += found.too_long;
            if !found.more {
                break;
            }
        }
        assert_eq!((lines, lost), (vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")], 1));
    }

    #[test]
    fn only_a_regular_file_is_opened() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(begin(dir.path(), None, false).is_err());
        assert!(begin(Path::new("/dev/zero"), None, false).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn whatever_is_written_in_whatever_pieces_each_line_comes_once(
            lines in prop::collection::vec("[a-z]{1,12}", 1..40),
            cuts in prop::collection::vec((1usize..30, any::<bool>()), 1..30),
        ) {
            let dir = tempfile::tempdir().expect("a folder");
            let path = dir.path().join("log");
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let (mut rest, mut got) = (text.as_str(), Vec::new());
            write(&path, "");
            let mut open = begin(&path, None, false).expect("open");
            for (cut, restart) in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                write(&path, now);
                rest = later;
                got.extend(read(&mut open));
                if restart {
                    let place = Place::decode(&open.place.encode());
                    open = begin(&path, place, false).expect("open");
                }
            }
            write(&path, rest);
            got.extend(read(&mut open));
            prop_assert_eq!(got, lines);
        }
    }
}
