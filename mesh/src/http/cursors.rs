//! Cursors of a broker's or channel's consumers: shown, and moved by hand on the day when somebody must.
//!
//! `GET …/{brokers|channels}/{name}/cursors` lists them; `POST …/cursors/{consumer}` with `{"skip": n}` or `{"seek": offset}` (or
//! `"earliest"`, `"latest"`) moves one and answers once that is durable. What is passed forward counts as dropped by the
//! reason `skipped`; backward, the consumer's ledger begins anew.

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Request, Response, Router, respond, router};
use crate::broker::{Broker, Brokers};
use crate::journal::{ConsumerStatus, Offset, Refused, Start};
use crate::names::BrokerName;

/// A move is a few bytes of JSON.
const MAX_MOVE_BYTES: usize = 4 << 10;

/// Where to move a cursor.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Move {
    /// On by so many events.
    Skip(u64),
    /// To a place.
    Seek(Place),
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Place {
    Offset(u64),
    Named(Named),
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Named {
    Earliest,
    Latest,
}

/// Adds the endpoints to a router.
#[must_use]
pub fn routes(router: Router, brokers: &Brokers) -> Router {
    let (listed, moved) = (brokers.clone(), brokers.clone());
    router
        .route(Method::GET, "/apis/godwit.dev/v1/namespaces/{ns}/{queue}/{name}/cursors", move |request| {
            let answer = find(&listed, &request).map(|broker| {
                let cursors: Vec<Value> = broker.journal().consumers().iter().map(shown).collect();
                respond::json(StatusCode::OK, &json!({ "cursors": cursors }))
            });
            std::future::ready(answer.unwrap_or_else(|refused| *refused))
        })
        .route(Method::POST, "/apis/godwit.dev/v1/namespaces/{ns}/{queue}/{name}/cursors/{consumer*}", move |request| {
            let brokers = moved.clone();
            async move { move_cursor(&brokers, request).await.unwrap_or_else(|refused| *refused) }
        })
}

/// The Broker or Channel that the path names by `{ns}`, `{queue}` (`brokers` or `channels`) and `{name}`.
pub(super) fn find(brokers: &Brokers, request: &Request) -> Result<std::sync::Arc<Broker>, Box<Response>> {
    let (namespace, name) = (request.param("ns").unwrap_or_default(), request.param("name").unwrap_or_default());
    let name = match request.param("queue").as_deref() {
        Some("brokers") => BrokerName::new(&namespace, &name),
        Some("channels") => BrokerName::channel(&namespace, &name),
        _ => return Err(router::nothing(request.path()).into()),
    };
    let name = name.map_err(|why| respond::problem(StatusCode::BAD_REQUEST, why))?;
    let none = || format!("there is no {} {}/{} here", name.what(), name.namespace(), name.name());
    Ok(brokers.get(&name).ok_or_else(|| respond::problem(StatusCode::NOT_FOUND, none()))?)
}

async fn move_cursor(brokers: &Brokers, mut request: Request) -> Result<Response, Box<Response>> {
    let broker = find(brokers, &request)?;
    let body = request.bytes(MAX_MOVE_BYTES).await.map_err(|why| why.response())?;
    let wanted: Move = serde_json::from_slice(&body).map_err(|why| {
        let how = "send {\"skip\": 10}, {\"seek\": 4711}, {\"seek\": \"earliest\"} or {\"seek\": \"latest\"}";
        respond::problem(StatusCode::BAD_REQUEST, format_args!("not a move of a cursor ({why}); {how}"))
    })?;
    let journal = broker.journal();
    let name = request.param("consumer").unwrap_or_default();
    let status = |name: &str| journal.consumers().into_iter().find(|c| c.name == name);
    let Some(known) = status(&name) else {
        let names: Vec<String> = journal.consumers().into_iter().map(|c| c.name).collect();
        let why = format!("{} has no consumer \"{name}\"; it has: {}", broker.name(), names.join(", "));
        return Err(respond::problem(StatusCode::NOT_FOUND, why).into());
    };
    let consumer = journal.consumer(&name, Start::At(known.cursor), known.holds);
    let from = consumer.cursor();
    let to = match wanted {
        Move::Skip(n) => from.plus(n).min(journal.next_offset()),
        Move::Seek(Place::Offset(offset)) => Offset(offset),
        Move::Seek(Place::Named(Named::Earliest)) => journal.first_offset(),
        Move::Seek(Place::Named(Named::Latest)) => journal.next_offset(),
    };
    if to < journal.first_offset() || to > journal.next_offset() {
        let (first, next) = (journal.first_offset(), journal.next_offset());
        let why = format!("offset {to} is not kept: choose one from {first} to {next}");
        return Err(respond::problem(StatusCode::BAD_REQUEST, why).into());
    }
    consumer.seek(to);
    consumer.flushed().await.map_err(|why| match why {
        Refused::Full | Refused::DiskFull => respond::problem(StatusCode::INSUFFICIENT_STORAGE, why),
        why => respond::unavailable(1, why),
    })?;
    tracing::info!(broker = %broker.name(), consumer = %name, %from, %to, "cursor moved by hand");
    Ok(respond::json(StatusCode::OK, &status(&name).as_ref().map_or(Value::Null, shown)))
}

fn shown(consumer: &ConsumerStatus) -> Value {
    let dropped: serde_json::Map<String, Value> =
        consumer.done.dropped.iter().map(|(reason, n)| (reason.name().to_owned(), (*n).into())).collect();
    json!({
        "name": consumer.name,
        "since": consumer.since.0,
        "cursor": consumer.cursor.0,
        "pending": consumer.pending,
        "delivered": consumer.done.delivered,
        "filtered": consumer.done.filtered,
        "dead_lettered": consumer.done.dead_lettered,
        "dropped": dropped,
        "holds": consumer.holds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_says_one_thing() {
        let parse = |text: &str| serde_json::from_str::<Move>(text).ok();
        assert_eq!(parse("{\"skip\": 3}"), Some(Move::Skip(3)));
        assert_eq!(parse("{\"seek\": 12}"), Some(Move::Seek(Place::Offset(12))));
        assert_eq!(parse("{\"seek\": \"earliest\"}"), Some(Move::Seek(Place::Named(Named::Earliest))));
        for text in ["{}", "{\"skip\": -1}", "{\"skip\": 1, \"seek\": 2}", "{\"seek\": \"end\"}", "3"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
