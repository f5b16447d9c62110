//! The files that are put into a folder: each becomes an event, and then goes.
//!
//! A file is taken when it has not changed between two looks. Its event is durable before the file goes; that it is, is kept in the
//! same commit, so that a crash in between finishes what was begun and makes no second event. A file that cannot be moved or deleted
//! makes none either, and the status names it: the source's mark has the ids of all such files. A file that is too large for an event
//! stays, in `done` or in the folder `.claimed` below: its event refers to it by `dataref` (the claim check).

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use godwit_mesh::event::Value;
use godwit_mesh::manifest::FileSpec;
use godwit_mesh::source::{Job, Missing, Sink, Stopped, Tries};

use super::super::data;
use super::LOOK_EVERY_MS;

/// The events' type where none is written.
const TYPE: &str = "dev.godwit.file";

/// Largest file whose content is in its event, where nothing else is written.
const INLINE_BYTES: u64 = 64 << 10;

/// Where large files go without `done`.
const CLAIMED: &str = ".claimed";

/// Most files that are looked at in one look.
const MOST_FILES: usize = 4096;

/// Most files that stay although their events are made; with more, none is taken until some have gone. Their ids, of 60 bytes at
/// most, are one mark.
const MOST_STAYING: usize = 64;

/// A file that stays as it is for one look is whole; this is what must not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    ino: u64,
    bytes: u64,
    changed: (i64, i64),
}

/// A file that is to become an event.
#[derive(Debug, Clone)]
struct Dropped {
    path: PathBuf,
    name: String,
    shape: Shape,
}

/// Follows the folder.
pub(super) async fn follow(job: &Job, spec: &FileSpec) -> Result<std::convert::Infallible, Stopped> {
    let sink = job.sink().await?;
    job.live.attributes(spec.ty.as_deref().unwrap_or(TYPE), &job.path());
    // The ids of files whose events are made, and which may still be there.
    let mark = job.mark().unwrap_or_default();
    let mut made: Vec<String> = String::from_utf8_lossy(&mark).lines().map(str::to_owned).collect();
    let mut before: HashMap<PathBuf, Shape> = HashMap::new();
    loop {
        let folder = spec.path.clone();
        let (now, whole) = match tokio::task::spawn_blocking(move || list(&folder)).await {
            Ok(Ok(listed)) => listed,
            Ok(Err(error)) => {
                let why = format!("{}: {error}", spec.path.display());
                job.live.deployed(Err(Missing::new("FolderNotReadable", why)));
                job.wait(LOOK_EVERY_MS).await?;
                continue;
            }
            Err(error) => {
                job.live.failed(error.to_string(), job.clock());
                job.wait(LOOK_EVERY_MS).await?;
                continue;
            }
        };
        job.live.deployed(Ok(()));
        // No sooner than must be: a disk that is not there for a moment looks like an empty folder.
        if made.len() >= MOST_STAYING && whole {
            made.retain(|id| now.iter().any(|file| file.id() == *id));
        }
        let seen = now.iter().map(|file| (file.path.clone(), file.shape)).collect();
        for file in now.into_iter().filter(|file| before.get(&file.path) == Some(&file.shape)) {
            if job.stop.is_cancelled() {
                return Err(Stopped);
            }
            if let Err(why) = take(job, spec, &sink, &file, &mut made).await? {
                job.live.failed(why.clone(), job.clock());
                job.live.deployed(Err(Missing::new("FileStays", why)));
            }
        }
        before = seen;
        job.wait(LOOK_EVERY_MS).await?;
    }
}

/// Makes a file's event, and has the file go.
async fn take(
    job: &Job,
    spec: &FileSpec,
    sink: &Sink,
    file: &Dropped,
    made: &mut Vec<String>,
) -> Result<Result<(), String>, Stopped> {
    let id = file.id();
    let large = file.shape.bytes > spec.inline_bytes.unwrap_or(INLINE_BYTES);
    let to = match &spec.done {
        Some(done) => Some(done.clone()),
        None => large.then(|| spec.path.join(CLAIMED)),
    };
    // Two files of one name may come one after the other.
    let to = to.map(|folder| folder.join(format!("{id}-{}", file.name)));
    if !made.contains(&id) {
        if made.len() >= MOST_STAYING {
            return Ok(Err(format!(
                "{}: not taken while {MOST_STAYING} others cannot be moved or deleted",
                file.path.display()
            )));
        }
        let bytes = if large {
            Bytes::new()
        } else {
            let (path, shape) = (file.path.clone(), file.shape);
            match tokio::task::spawn_blocking(move || read(&path, shape)).await {
                Ok(Ok(Some(bytes))) => bytes,
                // It has changed meanwhile: next time.
                Ok(Ok(None)) => return Ok(Ok(())),
                Ok(Err(error)) => return Ok(Err(format!("{}: {error}", file.path.display()))),
                Err(error) => return Ok(Err(error.to_string())),
            }
        };
        let ty = spec.ty.as_deref().unwrap_or(TYPE);
        let content_type = spec.content_type.as_deref().or(large.then_some("application/octet-stream"));
        let event = data::event(job, &id, ty, Some(&file.name), content_type, bytes);
        let mut events = Vec::from_iter(event);
        if let (true, Some(event), Some(to)) = (large, events.first_mut(), &to) {
            event.set_data(None);
            let url = url::Url::from_file_path(to).map(String::from).unwrap_or_default();
            if let Err(error) = event.set("dataref", Value::UriRef(url)) {
                return Ok(Err(format!("{}: {error}", file.path.display())));
            }
        }
        // durable before: the file may only go once its event is there, and once it is known that it is.
        made.push(id.clone());
        sink.put(&events, Some(made.join("\n").as_bytes()), Tries::ForEver).await?;
    }
    let path = file.path.clone();
    let gone = tokio::task::spawn_blocking(move || go(&path, to.as_deref())).await;
    let gone = gone.unwrap_or_else(|e| Err(io::Error::other(e)));
    if gone.is_ok() {
        made.retain(|one| *one != id);
    }
    Ok(gone.map_err(|error| format!("{}: {error}; its event is made, and the file stays", file.path.display())))
}

impl Dropped {
    /// What the file is known by: the same after a restart, another for another file of its name.
    fn id(&self) -> String {
        let Shape { ino, bytes, changed: (seconds, nanos) } = self.shape;
        format!("{ino:x}-{bytes:x}-{seconds:x}.{nanos:x}")
    }
}

/// The files of a folder, the oldest first, and whether these are all. Hidden ones, and those that a program is still writing by their
/// names, are left alone.
fn list(folder: &Path) -> io::Result<(Vec<Dropped>, bool)> {
    let mut files = Vec::new();
    let mut entries = std::fs::read_dir(folder)?;
    for entry in entries.by_ref().take(MOST_FILES) {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let unfinished =
            name.starts_with('.') || [".tmp", ".part", ".partial", ".crdownload"].iter().any(|end| name.ends_with(end));
        // Not followed: a link would have the agent read what others may not.
        let Ok(about) = entry.metadata() else { continue };
        if unfinished || !about.is_file() {
            continue;
        }
        let shape = Shape { ino: about.ino(), bytes: about.len(), changed: (about.mtime(), about.mtime_nsec()) };
        files.push(Dropped { path: entry.path(), name, shape });
    }
    files.sort_by(|a, b| (a.shape.changed, &a.name).cmp(&(b.shape.changed, &b.name)));
    Ok((files, entries.next().is_none()))
}

/// The content of a file, unless it is not the one that was seen.
fn read(path: &Path, shape: Shape) -> io::Result<Option<Bytes>> {
    let bytes = std::fs::read(path)?;
    let about = std::fs::symlink_metadata(path)?;
    let now = Shape { ino: about.ino(), bytes: about.len(), changed: (about.mtime(), about.mtime_nsec()) };
    Ok((now == shape && bytes.len() as u64 == shape.bytes).then(|| bytes.into()))
}

/// Moves a file, or deletes it, durably: it must not come back and become another event.
fn go(path: &Path, to: Option<&Path>) -> io::Result<()> {
    match to {
        None => std::fs::remove_file(path)?,
        Some(to) => {
            let folder = to.parent().unwrap_or(Path::new("/"));
            std::fs::create_dir_all(folder)?;
            std::fs::rename(path, to)?;
            File::open(folder)?.sync_all()?;
        }
    }
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_hidden_and_linked_files_are_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["b.csv", ".hidden", "x.part", "y.tmp"] {
            std::fs::write(dir.path().join(name), name).expect("written");
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).expect("linked");
        std::fs::create_dir(dir.path().join("folder")).expect("made");
        let names: Vec<String> = list(dir.path()).expect("listed").0.into_iter().map(|file| file.name).collect();
        assert_eq!(names, ["b.csv"]);
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_left_for_the_next_look() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a");
        std::fs::write(&path, "one").expect("written");
        let seen = list(dir.path()).expect("listed").0.remove(0);
        assert_eq!(read(&path, seen.shape).expect("read").as_deref(), Some(&b"one"[..]));
        std::fs::write(&path, "longer").expect("written");
        assert_eq!(read(&path, seen.shape).expect("read"), None);
        let again = list(dir.path()).expect("listed").0.remove(0);
        assert_ne!(again.id(), seen.id());
    }
}
