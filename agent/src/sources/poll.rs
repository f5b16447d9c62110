//! HttpPollSource: asks a URL again and again and makes events from what is new.
//!
//! What was seen is known by eight bytes of a hash each, the newest [`MOST_SEEN`] of them, and kept with the events in one commit:
//! neither a restart nor a crash makes an event of something a second time. Items are taken as the bytes they are.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use godwit_mesh::event::{Event, check_string};
use godwit_mesh::manifest::{HttpPollSpec, SourceKind};
use godwit_mesh::source::{Answer, Job, Missing, Sink, Stopped, Tries, Validators};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::data;

/// The events' type where none is written.
const TYPE: &str = "dev.godwit.httppoll.item";

/// Most things that are remembered as seen, and most items of one answer.
const MOST_SEEN: usize = 400;

/// Most events of one commit.
const BATCH: usize = 32;

/// Longest `id` of an item that is the event's as it is.
const MAX_ID: usize = 128;

/// What is kept from one question to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    validators: Validators,
    /// How many events there were.
    events: u64,
    /// What they were made of, the newest last.
    hashes: Vec<u64>,
}

/// Runs a HttpPollSource.
pub(super) async fn run(job: Job) {
    if let SourceKind::HttpPoll(spec) = &job.spec().what {
        let Err(Stopped) = poll(&job, spec).await;
    }
}

async fn poll(job: &Job, spec: &HttpPollSpec) -> Result<std::convert::Infallible, Stopped> {
    let sink = job.sink().await?;
    job.live.attributes(spec.ty.as_deref().unwrap_or(TYPE), &job.path());
    let mut seen = job.mark().and_then(|mark| Seen::decode(&mark)).unwrap_or_default();
    loop {
        let asked = job.stop.run_until_cancelled(job.ask(&spec.uri, &seen.validators)).await.ok_or(Stopped)?;
        match asked {
            Ok(Answer::Same) => job.live.deployed(Ok(())),
            Ok(Answer::Content { body, content_type, validators }) => {
                let taken = take(job, spec, &sink, &mut seen, &body, content_type.as_deref(), validators).await?;
                job.live.deployed(taken);
            }
            Err(why) => {
                job.live.failed(why.clone(), job.clock());
                job.live.deployed(Err(Missing::new("AskFailed", why)));
            }
        }
        job.wait(spec.interval.as_millis()).await?;
    }
}

/// Makes events of what is new in an answer.
async fn take(
    job: &Job,
    spec: &HttpPollSpec,
    sink: &Sink,
    seen: &mut Seen,
    body: &Bytes,
    content_type: Option<&str>,
    validators: Validators,
) -> Result<Result<(), Missing>, Stopped> {
    let whole;
    let items = match &spec.items {
        None => {
            whole = [(Bytes::clone(body), None)];
            Ok(whole.to_vec())
        }
        Some(pointer) => items(body, pointer, spec.id.as_deref()),
    };
    let mut items = match items {
        Ok(items) => items,
        Err(why) => {
            job.live.failed(why.clone(), job.clock());
            return Ok(Err(Missing::new("NoItems", why)));
        }
    };
    if items.len() > MOST_SEEN {
        job.live.lost("too_many_items", (items.len() - MOST_SEEN) as u64);
        items.truncate(MOST_SEEN);
    }
    let content_type = if spec.items.is_some() { Some("application/json") } else { content_type };
    let known: HashSet<u64> = seen.hashes.iter().copied().collect();
    let mut new: Vec<(u64, Bytes, Option<String>)> = Vec::new();
    let mut here = HashSet::new();
    for (item, id) in items {
        let hash = hash(id.as_deref().map_or(&item, |id| id.as_bytes()));
        // Of a whole answer only the one before counts: it may come back to what it was.
        let old = if spec.items.is_some() { known.contains(&hash) } else { seen.hashes.last() == Some(&hash) };
        if here.insert(hash) && !old {
            new.push((hash, item, id));
        }
    }
    // What is in the answer is remembered for as long as it is in there: it moves to the end.
    seen.hashes.retain(|hash| !here.contains(hash) || !known.contains(hash));
    seen.hashes.extend(here.iter().filter(|hash| known.contains(hash)));
    let mut changed = seen.validators != validators;
    let last = new.len().div_ceil(BATCH);
    for (n, batch) in new.chunks(BATCH).enumerate() {
        let mut events = Vec::with_capacity(batch.len());
        for (hash, item, id) in batch {
            seen.events += 1;
            seen.hashes.push(*hash);
            let id = id.as_ref().filter(|id| id.len() <= MAX_ID && !id.is_empty() && check_string(id).is_ok());
            let id = id.map_or_else(|| Cow::Owned(format!("{hash:016x}-{}", seen.events)), |id| Cow::Borrowed(id.as_str()));
            events.extend(event(job, spec, &id, item, content_type));
        }
        seen.bound();
        if n + 1 == last {
            // Only with the last of them is the answer done with: a crash before has it asked for again.
            seen.validators = validators.clone();
            changed = false;
        }
        sink.put(&events, Some(&seen.encode()), Tries::ForEver).await?;
    }
    if changed {
        seen.validators = validators;
        sink.put(&[], Some(&seen.encode()), Tries::ForEver).await?;
    }
    Ok(Ok(()))
}

fn event(job: &Job, spec: &HttpPollSpec, id: &str, item: &Bytes, content_type: Option<&str>) -> Option<Event> {
    let ty = spec.ty.as_deref().unwrap_or(TYPE);
    data::event(job, id, ty, None, content_type, item.clone())
}

/// The items of an answer with what they are known by.
fn items(body: &Bytes, pointer: &str, id: Option<&str>) -> Result<Vec<(Bytes, Option<String>)>, String> {
    let root: &RawValue = serde_json::from_slice(body).map_err(|e| format!("the answer is not JSON: {e}"))?;
    let list = at(root, pointer).ok_or_else(|| format!("the answer has nothing at {pointer}"))?;
    let list: Vec<&RawValue> =
        serde_json::from_str(list.get()).map_err(|_| format!("what the answer has at {pointer} is no list"))?;
    Ok(list
        .into_iter()
        .map(|item| {
            let known_by = id.and_then(|id| at(item, id)).map(RawValue::get);
            // A text without its quotes; all else as it is written.
            let known_by = known_by.map(|raw| serde_json::from_str::<String>(raw).unwrap_or_else(|_| raw.to_owned()));
            (body.slice_ref(item.get().as_bytes()), known_by)
        })
        .collect())
}

/// What a JSON pointer (RFC 6901) leads to.
fn at<'a>(value: &'a RawValue, pointer: &str) -> Option<&'a RawValue> {
    let mut now = value;
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        now = match now.get().as_bytes().first()? {
            b'{' => serde_json::from_str::<BTreeMap<Cow<'a, str>, &'a RawValue>>(now.get()).ok()?.remove(&*step)?,
            b'[' => serde_json::from_str::<Vec<&'a RawValue>>(now.get()).ok()?.get(step.parse::<usize>().ok()?).copied()?,
            _ => return None,
        };
    }
    Some(now)
}

fn hash(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(first)
}

impl Seen {
    /// Forgets the oldest of what is too much.
    fn bound(&mut self) {
        let surplus = self.hashes.len().saturating_sub(MOST_SEEN);
        self.hashes.drain(..surplus);
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = self.events.to_le_bytes().to_vec();
        for text in [&self.validators.etag, &self.validators.modified] {
            let text = text.as_deref().unwrap_or_default();
            out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(0).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        self.hashes.iter().for_each(|hash| out.extend_from_slice(&hash.to_le_bytes()));
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (events, mut rest) = bytes.split_first_chunk::<8>()?;
        let mut text = || {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let (text, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            rest = after;
            let text = std::str::from_utf8(text).ok()?;
            Some(Some(text.to_owned()).filter(|text| !text.is_empty()))
        };
        let validators = Validators { etag: text()?, modified: text()? };
        let (hashes, _) = rest.as_chunks::<8>();
        let hashes = hashes.iter().map(|hash| u64::from_le_bytes(*hash)).collect();
        Some(Self { validators, events: u64::from_le_bytes(*events), hashes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn items_are_found_by_a_pointer_and_taken_as_the_bytes_they_are() {
        let body = Bytes::from_static(br#"{"a~/b": {"list": [{"id": 7, "v": 1.10}, {"id": "x y"}, [1.0]]}}"#);
        let found = items(&body, "/a~0~1b/list", Some("/id")).expect("a list");
        let shown: Vec<(&[u8], Option<&str>)> = found.iter().map(|(item, id)| (&item[..], id.as_deref())).collect();
        assert_eq!(
            shown,
            [(&br#"{"id": 7, "v": 1.10}"#[..], Some("7")), (br#"{"id": "x y"}"#, Some("x y")), (b"[1.0]", None)]
        );
        assert_eq!(items(&Bytes::from_static(b"[1, 2]"), "", None).expect("a list").len(), 2);
        assert!(items(&body, "/a~0~1b", None).is_err_and(|why| why.contains("no list")));
        assert!(items(&body, "/b", None).is_err_and(|why| why.contains("nothing at /b")));
        assert!(items(&Bytes::from_static(b"<html>"), "/b", None).is_err_and(|why| why.contains("not JSON")));
    }

    #[test]
    fn what_is_remembered_fits_into_a_mark() {
        let text = Some("x".repeat(256));
        let mut seen = Seen {
            validators: Validators { etag: text.clone(), modified: text },
            events: u64::MAX,
            hashes: (0..5000).collect(),
        };
        seen.bound();
        assert!(seen.encode().len() <= 8 << 10);
        assert_eq!(seen.hashes.last(), Some(&4999));
    }

    proptest! {
        #[test]
        fn what_is_remembered_is_read_back(events: u64, hashes: Vec<u64>, etag in proptest::option::of("[a-z\"]{1,20}")) {
            let seen = Seen { validators: Validators { etag, modified: None }, events, hashes };
            prop_assert_eq!(Seen::decode(&seen.encode()), Some(seen));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, pointer in "(/[a-z0-9~]{0,3}){0,4}") {
            let _ = Seen::decode(&bytes);
            let _ = items(&bytes.into(), &pointer, Some("/id"));
        }
    }
}
