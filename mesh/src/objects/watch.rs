//! Watches: a stream of changes from a revision on, as lines of JSON.
//!
//! A watch holds no object: it looks back on the changes that the view remembers, at the pace of its peer. One that falls behind
//! what is remembered is told so (410 `Expired`) and begins anew with a list.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::Stream;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::error::ApiError;
use super::form::{convert, parsed};
use super::selector::Wanted;
use super::store::Objects;
use super::table::{self, Beside};
use super::view::{Key, What};
use crate::http::BoxError;
use crate::manifest::schema::Version;

/// How often a watch that asked for it is told the revision, so that it can go on from there.
const BOOKMARK: Duration = Duration::from_secs(60);

/// How long a watch lasts that names no time, and the longest there is.
const LASTS: Duration = Duration::from_secs(30 * 60);
const LONGEST: Duration = Duration::from_secs(6 * 3600);

/// Changes looked at in one piece.
const PIECE: usize = 64;

/// How a watch wants its objects.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// As they are.
    Object,
    /// As rows of a table.
    Table(Beside),
    /// Their metadata.
    Metadata,
}

/// What a watch asks for.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) wanted: Wanted,
    pub(super) version: &'static Version,
    pub(super) form: Form,
    /// From which revision on; `None`: all that is there, then what changes.
    pub(super) after: Option<u64>,
    pub(super) bookmarks: bool,
    pub(super) lasts: Option<Duration>,
    /// Whether the list that begins the watch ends in a bookmark that says so.
    pub(super) initial_end: bool,
}

struct Watch {
    objects: Objects,
    request: Request,
    position: u64,
    /// What the peer gets first: the objects that were there.
    initial: std::vec::IntoIter<Key>,
    /// Whether the column definitions have been sent: the first table has them.
    headed: bool,
    listed: bool,
    next_bookmark: Instant,
    end: Instant,
    revision: watch::Receiver<u64>,
    /// What ends it early: the process stops, or who asked may not any more.
    cut: Cut,
    _place: OwnedSemaphorePermit,
    over: bool,
}

/// Ends when a watch is to be cut short.
pub(super) type Cut = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The stream of a watch.
pub(super) fn stream(
    objects: &Objects,
    request: Request,
    cut: Cut,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static {
    objects.refresh();
    let revision = objects.changes();
    let (position, initial) = {
        let view = objects.view();
        let list = || view.entries.iter().filter(|(key, e)| request.wanted.takes(key, &e.labels)).map(|(k, _)| k.clone());
        match request.after {
            Some(after) => (after, Vec::new()),
            None => (view.revision, list().collect()),
        }
    };
    let now = Instant::now();
    let lasts = request.lasts.unwrap_or(LASTS).min(LONGEST);
    let watch = Watch {
        objects: objects.clone(),
        listed: request.after.is_some(),
        request,
        position,
        initial: initial.into_iter(),
        headed: false,
        next_bookmark: now + BOOKMARK,
        end: now + lasts,
        revision,
        cut,
        _place: place,
        over: false,
    };
    futures_util::stream::unfold(watch, |mut watch| async move {
        let piece = watch.next().await?;
        Some((Ok(Bytes::from(piece)), watch))
    })
}

impl Watch {
    /// The next lines; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        let mut out = String::new();
        while out.is_empty() {
            if self.over {
                return None;
            }
            self.list(&mut out);
            self.changes(&mut out);
            if !out.is_empty() {
                break;
            }
            let wake = if self.request.bookmarks { self.end.min(self.next_bookmark) } else { self.end };
            tokio::select! {
                Ok(()) = self.revision.changed() => {}
                () = tokio::time::sleep_until(wake) => {
                    let over = Instant::now() >= self.end;
                    if self.request.bookmarks {
                        self.bookmark(&mut out, false);
                        self.next_bookmark = Instant::now() + BOOKMARK;
                    }
                    self.over = over;
                }
                () = &mut self.cut => {
                    self.over = true;
                    return None;
                }
            }
        }
        Some(out)
    }

    /// What was there when the watch began.
    fn list(&mut self, out: &mut String) {
        if self.listed {
            return;
        }
        for _ in 0..PIECE {
            let Some(key) = self.initial.next() else {
                self.listed = true;
                if self.request.initial_end {
                    self.bookmark(out, true);
                }
                return;
            };
            let entry = self.objects.view().entries.get(&key).cloned();
            // One that went meanwhile is neither added nor deleted: its deletion is passed over below.
            if let Some(entry) = entry.filter(|entry| self.request.wanted.takes(&key, &entry.labels)) {
                self.line(out, "ADDED", &entry.text);
            }
        }
    }

    fn changes(&mut self, out: &mut String) {
        if !self.listed {
            return;
        }
        self.revision.mark_unchanged();
        let changes = self.objects.view().changes(self.position, PIECE);
        let changes = match changes {
            Ok(changes) => changes,
            Err(known) => {
                let status = ApiError::Expired { asked: self.position, known }.status(None);
                push(out, &json!({"type": "ERROR", "object": status}));
                self.over = true;
                return;
            }
        };
        if changes.len() == PIECE {
            // There may be more: look again without waiting.
            self.revision.mark_changed();
        }
        for change in changes {
            self.position = change.revision;
            let wanted = &self.request.wanted;
            let (was, is) = (wanted.takes(&change.key, &change.before), wanted.takes(&change.key, &change.labels));
            let word = match (change.what, was, is) {
                (What::Added, _, true) | (What::Modified, false, true) => "ADDED",
                (What::Modified, true, true) => "MODIFIED",
                (What::Modified, true, false) | (What::Deleted, _, true) => "DELETED",
                _ => continue,
            };
            self.line(out, word, &change.text);
        }
    }

    fn line(&mut self, out: &mut String, word: &str, text: &str) {
        let mut object = parsed(text);
        let resource = self.request.wanted.kind.resource();
        let api_version = format!("{}/{}", resource.group, self.request.version.name);
        if convert(self.request.wanted.kind, &api_version, &mut object).is_err() {
            return;
        }
        let object = match self.request.form {
            Form::Object => object,
            Form::Metadata => metadata_only(&object),
            Form::Table(beside) => {
                let columns = if self.headed { Value::Null } else { table::columns(self.request.version) };
                self.headed = true;
                let metadata = json!({"resourceVersion": object.pointer("/metadata/resourceVersion")});
                let row = table::row(self.request.version, &object, beside, self.objects.clock());
                table::table(&columns, &[row], &metadata)
            }
        };
        push(out, &json!({"type": word, "object": object}));
    }

    fn bookmark(&self, out: &mut String, initial_end: bool) {
        let resource = self.request.wanted.kind.resource();
        let mut metadata = json!({"resourceVersion": self.position.to_string()});
        if let (true, Some(metadata)) = (initial_end, metadata.as_object_mut()) {
            metadata.insert("annotations".to_owned(), json!({"k8s.io/initial-events-end": "true"}));
        }
        let object = match self.request.form {
            Form::Table(_) => table::table(&Value::Null, &[], &metadata),
            Form::Object | Form::Metadata => json!({
                "kind": resource.name,
                "apiVersion": format!("{}/{}", resource.group, self.request.version.name),
                "metadata": metadata,
            }),
        };
        push(out, &json!({"type": "BOOKMARK", "object": object}));
    }
}

/// An object's metadata alone.
pub(super) fn metadata_only(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata"),
    })
}

fn push(out: &mut String, line: &Value) {
    out.push_str(&line.to_string());
    out.push('\n');
}
