//! A broker's or channel's dead letters: listed, shown, replayed, dropped.
//!
//! | under `/apis/godwit.dev/v1/namespaces/{ns}/{brokers,channels}/{name}` | does |
//! |---|---|
//! | `GET /dead-letters` | lists those that wait, a line of JSON each |
//! | `GET /dead-letters/{offset}` | one of them |
//! | `POST /dead-letters/replay` | sends them again: `to=subscriber` (default) or `to=broker`; a line for each as it is settled |
//! | `POST /dead-letters/drop` | drops them: `{"dropped":N}` |
//!
//! Which ones the query says; all that is given must hold: `offset=N` (again and again), `trigger=[NAMESPACE/]NAME` or
//! `uplink`, `since` and `until` (RFC 3339), `filter=ATTRIBUTE=VALUE` (again and again), `cesql=EXPRESSION`. What changes something
//! needs one of these, or `all=true`. A list also takes `from=OFFSET`, `limit=N`, and `data=false` for events without their data.
//!
//! A replay goes on while somebody reads its lines: `{"offset":N,"outcome":"replayed"}`, with `"again":true` where an earlier run may
//! have brought it already; `{"offset":N,"outcome":"failed","code":…,"message":…}`; and last
//! `{"replayed":N,"failed":N,"stopped":…}`. The same request again goes on where it stopped.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use serde_json::{Value, json, value::RawValue};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;

use super::{Body, BoxError, Request, Response, Router, cursors, respond};
use crate::broker::Broker;
use crate::delivery::Triggers;
use crate::delivery::letters::{Letters, MAX_NAMED, Placed, Selection, To, Told, Walk, event_of};
use crate::event::{check_attribute_name, json as event_json};
use crate::journal::{Epoch, Offset};
use crate::names::AgentId;

/// Most attributes to filter by.
const MAX_FILTERS: usize = 16;

/// What a replay has told and the peer has not taken yet.
const TOLD: usize = 16;

/// What a query asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    selection: Selection,
    all: bool,
    from: u64,
    limit: Option<u64>,
    without_data: bool,
    to_broker: bool,
}

/// Adds the endpoints to a router.
#[must_use]
pub fn routes(router: Router, triggers: &Triggers) -> Router {
    const LETTERS: &str = "/apis/godwit.dev/v1/namespaces/{ns}/{queue}/{name}/dead-letters";
    const LETTER: &str = "/apis/godwit.dev/v1/namespaces/{ns}/{queue}/{name}/dead-letters/{offset}";
    const REPLAY: &str = "/apis/godwit.dev/v1/namespaces/{ns}/{queue}/{name}/dead-letters/replay";
    const DROP: &str = "/apis/godwit.dev/v1/namespaces/{ns}/{queue}/{name}/dead-letters/drop";
    let (listed, shown, replayed, dropped) = (triggers.clone(), triggers.clone(), triggers.clone(), triggers.clone());
    router
        .route(Method::GET, LETTERS, move |request| {
            let triggers = listed.clone();
            async move { list(&triggers, &request).await.unwrap_or_else(|refused| *refused) }
        })
        .route(Method::POST, REPLAY, move |request| {
            let triggers = replayed.clone();
            async move { replay(triggers, &request).await.unwrap_or_else(|refused| *refused) }
        })
        .route(Method::POST, DROP, move |request| {
            let triggers = dropped.clone();
            async move { drop_letters(&triggers, &request).await.unwrap_or_else(|refused| *refused) }
        })
        .route(Method::GET, LETTER, move |request| {
            let triggers = shown.clone();
            async move { show(&triggers, &request).await.unwrap_or_else(|refused| *refused) }
        })
}

type Refusal = Box<Response>;

fn bad(why: impl std::fmt::Display) -> Refusal {
    respond::problem(StatusCode::BAD_REQUEST, why).into()
}

async fn letters_of(broker: &Arc<Broker>) -> Result<Option<Letters>, Refusal> {
    Letters::of(broker).await.map_err(|why| respond::problem(StatusCode::INTERNAL_SERVER_ERROR, why).into())
}

fn lines(pieces: impl futures_util::Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Response {
    let mut response = Response::new(Body::stream(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// One peer's way through a list.
struct List {
    walk: Walk,
    doubts: BTreeSet<(Offset, Epoch)>,
    agent: Option<AgentId>,
    left: u64,
    without_data: bool,
}

async fn list(triggers: &Triggers, request: &Request) -> Result<Response, Refusal> {
    let broker = cursors::find(triggers.brokers(), request)?;
    let query = Query::parse(request.query(), broker.name().namespace()).map_err(bad)?;
    let agent = triggers.brokers().agent().cloned();
    let list = letters_of(&broker).await?.map(|letters| List {
        doubts: letters.doubts(),
        walk: letters.walk(query.selection, Offset(query.from), agent.as_ref()),
        agent,
        left: query.limit.unwrap_or(u64::MAX),
        without_data: query.without_data,
    });
    Ok(lines(futures_util::stream::unfold(list, |list| async {
        let mut list = list?;
        match list.piece().await {
            Ok(Some(piece)) => Some((Ok(Bytes::from(piece)), Some(list))),
            Ok(None) => None,
            Err(why) => Some((Err(BoxError::from(why)), None)),
        }
    })))
}

impl List {
    async fn piece(&mut self) -> Result<Option<Vec<u8>>, crate::journal::ReadError> {
        if self.left == 0 {
            return Ok(None);
        }
        let Some(placed) = self.walk.letters().await? else { return Ok(None) };
        let mut out = Vec::new();
        for placed in placed {
            if self.left == 0 {
                break;
            }
            self.left -= 1;
            let doubt = self.doubts.contains(&(placed.offset, placed.epoch));
            let line = shown(&placed, doubt, self.agent.as_ref(), self.without_data);
            // Fails for maps whose keys are no texts only.
            let _ = serde_json::to_writer(&mut out, &line);
            out.push(b'\n');
        }
        Ok(Some(out))
    }
}

/// A letter as it is shown.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    offset: u64,
    epoch: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    why: Option<Why<'a>>,
    /// A replay that was cut short may have brought it to the subscriber.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    in_doubt: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Why<'a> {
    trigger: &'a str,
    trigger_uid: &'a str,
    event_epoch: &'a str,
    event_offset: u64,
    destination: &'a str,
    code: u16,
    message: &'a str,
    data: &'a str,
}

fn shown<'a>(placed: &'a Placed, in_doubt: bool, agent: Option<&AgentId>, without_data: bool) -> Shown<'a> {
    let event = placed.letter.as_ref().and_then(|letter| {
        let mut event = event_of(letter, agent)?.to_event().ok()?;
        if without_data {
            event.set_data(None);
        }
        let text = String::from_utf8(event_json::encode(&event)).ok()?;
        // A line must stay one: in JSON a line break can only be white space between tokens.
        RawValue::from_string(text.replace(['\n', '\r'], " ")).ok()
    });
    let error = match (&placed.letter, &event) {
        (None, _) => Some("this version cannot read the letter"),
        (Some(_), None) => Some("the letter's event cannot be read"),
        (Some(_), Some(_)) => None,
    };
    let head = placed.letter.as_ref().map(|letter| &letter.head);
    let why = head.map(|head| Why {
        trigger: &head.trigger,
        trigger_uid: &head.uid,
        event_epoch: &head.epoch,
        event_offset: head.offset,
        destination: &head.destination,
        code: head.code,
        message: &head.message,
        data: &head.data,
    });
    Shown {
        offset: placed.offset.0,
        epoch: placed.epoch.to_string(),
        at: head.and_then(|head| head.at_ms).and_then(rfc3339),
        why,
        in_doubt,
        event,
        error,
    }
}

async fn show(triggers: &Triggers, request: &Request) -> Result<Response, Refusal> {
    let broker = cursors::find(triggers.brokers(), request)?;
    let offset = request.param("offset").unwrap_or_default();
    let offset: u64 = offset.parse().map_err(|_| bad("a dead letter is named by its offset, a number"))?;
    let agent = triggers.brokers().agent();
    if let Some(letters) = letters_of(&broker).await? {
        let selection = Selection { offsets: BTreeSet::from([offset]), ..Selection::default() };
        let found = letters.walk(selection, Offset(0), agent).letters().await;
        let found = found.map_err(|why| respond::unavailable(1, why))?.unwrap_or_default();
        if let Some(placed) = found.first() {
            let doubt = letters.doubts().contains(&(placed.offset, placed.epoch));
            return Ok(respond::json(StatusCode::OK, &shown(placed, doubt, agent, false)));
        }
    }
    let why = format!("{} has no dead letter {offset} that waits", broker.name());
    Err(respond::problem(StatusCode::NOT_FOUND, why).into())
}

/// What a change is to be made to, and the right to make it; none where there never was a letter.
async fn work(triggers: &Triggers, request: &Request) -> Result<(Query, Option<crate::delivery::letters::Work>), Refusal> {
    let broker = cursors::find(triggers.brokers(), request)?;
    let query = Query::parse(request.query(), broker.name().namespace()).map_err(bad)?;
    if query.selection.is_all() != query.all {
        return Err(bad(
            "say which dead letters are meant: by offset, trigger, since, until, filter or cesql, or all=true",
        ));
    }
    let Some(letters) = letters_of(&broker).await? else { return Ok((query, None)) };
    let why =
        format!("dead letters of {} are being replayed or dropped already; try again when that is done", broker.name());
    let work = letters.work().ok_or_else(|| respond::problem(StatusCode::CONFLICT, why))?;
    Ok((query, Some(work)))
}

async fn replay(triggers: Triggers, request: &Request) -> Result<Response, Refusal> {
    let (query, work) = work(&triggers, request).await?;
    let (tell, told) = mpsc::channel(TOLD);
    let stop = request.shutdown().clone();
    match work {
        None => {
            let _ = tell.try_send(Told::End(crate::delivery::letters::Summary::default()));
        }
        Some(work) => {
            let to = if query.to_broker { To::Broker } else { To::Subscriber };
            // Its own task: a peer that goes away must not cut short what is under way. It ends after that.
            tokio::spawn(async move { work.replay(&triggers, query.selection, to, tell, stop).await });
        }
    }
    Ok(lines(futures_util::stream::unfold(told, |mut told| async {
        let mut line = told_as_json(told.recv().await?).to_string();
        line.push('\n');
        Some((Ok(Bytes::from(line)), told))
    })))
}

fn told_as_json(told: Told) -> Value {
    match told {
        Told::Replayed { offset, again: false } => json!({ "offset": offset.0, "outcome": "replayed" }),
        Told::Replayed { offset, again: true } => json!({ "offset": offset.0, "outcome": "replayed", "again": true }),
        Told::Failed { offset, code, message } => {
            json!({ "offset": offset.0, "outcome": "failed", "code": code, "message": message })
        }
        Told::End(sum) => json!({ "replayed": sum.replayed, "failed": sum.failed, "stopped": sum.stopped }),
    }
}

async fn drop_letters(triggers: &Triggers, request: &Request) -> Result<Response, Refusal> {
    let (query, work) = work(triggers, request).await?;
    let dropped = match work {
        None => 0,
        Some(work) => work
            .drop_letters(query.selection, triggers.brokers().agent())
            .await
            .map_err(|why| respond::unavailable(1, why))?,
    };
    Ok(respond::json(StatusCode::OK, &json!({ "dropped": dropped })))
}

impl Query {
    fn parse<'q>(pairs: impl Iterator<Item = (Cow<'q, str>, Cow<'q, str>)>, namespace: &str) -> Result<Self, String> {
        let mut query = Self::default();
        let (mut exact, mut cesql) = (Vec::new(), None);
        for (name, value) in pairs {
            let number = || value.parse().map_err(|_| format!("{name} is a number"));
            let time = || milliseconds(&value).ok_or_else(|| format!("{name} is a time such as 2026-01-31T12:00:00Z"));
            let truth = || value.parse::<bool>().map_err(|_| format!("{name} is true or false"));
            let selection = &mut query.selection;
            match &*name {
                "offset" => {
                    selection.offsets.insert(number()?);
                    if selection.offsets.len() > MAX_NAMED {
                        return Err(format!("more than {MAX_NAMED} offsets"));
                    }
                }
                "trigger" if value.contains('/') || value == "uplink" => selection.trigger = Some(value.into_owned()),
                "trigger" => selection.trigger = Some(format!("{namespace}/{value}")),
                "since" => selection.since_ms = Some(time()?),
                "until" => selection.until_ms = Some(time()?),
                "filter" => {
                    let (attribute, wanted) = value.split_once('=').ok_or("filter is ATTRIBUTE=VALUE")?;
                    check_attribute_name(attribute).map_err(|why| why.to_string())?;
                    exact.push((attribute.to_owned(), wanted.to_owned()));
                    if exact.len() > MAX_FILTERS {
                        return Err(format!("more than {MAX_FILTERS} attributes to filter by"));
                    }
                }
                "cesql" => cesql = Some(value.into_owned()),
                "all" => query.all = truth()?,
                "from" => query.from = number()?,
                "limit" => query.limit = Some(number()?),
                "data" => query.without_data = !truth()?,
                "to" => {
                    query.to_broker = match &*value {
                        "broker" => true,
                        "subscriber" => false,
                        _ => return Err("to is subscriber or broker".to_owned()),
                    };
                }
                other => return Err(format!("{other} is no part of such a query")),
            }
        }
        query.selection.filter =
            Selection::filter(&exact, cesql.as_deref()).map_err(|why| format!("filter or cesql: {}", why.why))?;
        Ok(query)
    }
}

fn milliseconds(text: &str) -> Option<u64> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

fn rfc3339(ms: u64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()?.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Query, String> {
        Query::parse(url::form_urlencoded::parse(text.as_bytes()), "site")
    }

    #[test]
    fn a_query_says_which_letters_are_meant() {
        let query =
            parse("offset=3&offset=1&trigger=t&since=2026-01-01T00:00:00.5Z&filter=type=a&cesql=TRUE&limit=2&data=false")
                .expect("valid");
        assert_eq!(query.selection.offsets, BTreeSet::from([1, 3]));
        assert_eq!(query.selection.trigger.as_deref(), Some("site/t"));
        assert_eq!(query.selection.since_ms, Some(1_767_225_600_500));
        assert!(query.selection.filter.is_some() && query.without_data && query.limit == Some(2));
        assert_eq!(parse("trigger=uplink").expect("valid").selection.trigger.as_deref(), Some("uplink"));
        assert_eq!(parse("trigger=other/t").expect("valid").selection.trigger.as_deref(), Some("other/t"));
        assert!(parse("").expect("valid").selection.is_all());
    }

    #[test]
    fn what_a_query_cannot_mean_is_refused() {
        for text in
            ["offset=x", "since=yesterday", "filter=type", "filter=Type=a", "cesql=1%20%2B", "to=sink", "al=true", "all=1"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_read_and_shown_to_the_millisecond() {
        let text = rfc3339(1_767_225_600_123).expect("a time");
        assert_eq!(milliseconds(&text), Some(1_767_225_600_123));
    }
}
