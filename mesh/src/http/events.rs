//! The tail of a broker or a channel: its events as lines of JSON, from an offset on, for as long as somebody listens.
//!
//! `GET …/{brokers|channels}/{name}/events?from=earliest|latest|N&follow=true&limit=N&data=base64&<attribute>=<value>…`. A line is
//! `{"offset":N,"epoch":"…","event":{…}}`; one without `event` is a note: offsets that can no longer be read
//! (`{"offset":N,"to":M,"skipped":"retention"}`) or a record that cannot be shown (`"error"`). Reading is at the pace of the
//! peer: what it does not take is not read from disk, and nothing is held in memory but one piece. With `data=base64` all data is in
//! `data_base64`, byte by byte as it was sent; without, the white space around and in JSON may be another.

use std::fmt::Write as _;
use std::pin::Pin;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use tokio_util::sync::CancellationToken;

use super::{Body, BoxError, Request, Response, Router, cursors, respond};
use crate::broker::{Broker, Brokers};
use crate::event::{StoredEvent, check_attribute_name, json};
use crate::journal::{Epoch, Item, Journal, Offset, ReadError, Reader};
use crate::names::AgentId;

/// Bytes of stored events read for one piece of the answer.
const PIECE_BYTES: usize = 64 << 10;

/// Most attributes to filter by.
const MAX_FILTERS: usize = 16;

/// What a query asks for.
#[derive(Debug, PartialEq, Eq, Default)]
struct Query {
    from: From,
    follow: bool,
    limit: Option<u64>,
    /// Whether all data is to come as `data_base64`.
    base64: bool,
    /// Attributes and the values that they must have.
    filters: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum From {
    /// The next event when following, else the oldest kept.
    #[default]
    Unsaid,
    Earliest,
    Latest,
    At(Offset),
}

/// Adds the endpoint to a router.
#[must_use]
pub fn routes(router: Router, brokers: &Brokers) -> Router {
    let brokers = brokers.clone();
    router.route(Method::GET, "/apis/godwit.dev/v1/namespaces/{ns}/{queue}/{name}/events", move |request| {
        std::future::ready(tail(&brokers, &request).unwrap_or_else(|refused| *refused))
    })
}

fn tail(brokers: &Brokers, request: &Request) -> Result<Response, Box<Response>> {
    let broker = cursors::find(brokers, request)?;
    let query = Query::parse(request.query()).map_err(|why| respond::problem(StatusCode::BAD_REQUEST, why))?;
    let tail = Tail::new(&broker, brokers.agent().cloned(), query, request);
    let pieces = futures_util::stream::unfold(Some(tail), |tail| async {
        let mut tail = tail?;
        match tail.piece().await {
            Ok(Some(piece)) => Some((Ok(Bytes::from(piece)), Some(tail))),
            Ok(None) => None,
            Err(why) => Some((Err(BoxError::from(why)), None)),
        }
    });
    let mut response = Response::new(Body::stream(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

impl Query {
    fn parse<'q>(
        pairs: impl Iterator<Item = (std::borrow::Cow<'q, str>, std::borrow::Cow<'q, str>)>,
    ) -> Result<Self, String> {
        let mut query = Self::default();
        for (name, value) in pairs {
            match &*name {
                "from" => {
                    query.from = match &*value {
                        "earliest" => From::Earliest,
                        "latest" => From::Latest,
                        n => From::At(Offset(n.parse().map_err(|_| "from is earliest, latest or an offset")?)),
                    };
                }
                "follow" => query.follow = value.parse().map_err(|_| "follow is true or false")?,
                "limit" => query.limit = Some(value.parse().map_err(|_| "limit is a number of events")?),
                "data" if value == "base64" => query.base64 = true,
                "data" => return Err("data is base64".to_owned()),
                attribute => {
                    check_attribute_name(attribute).map_err(|why| why.to_string())?;
                    if query.filters.len() == MAX_FILTERS {
                        return Err(format!("more than {MAX_FILTERS} attributes to filter by"));
                    }
                    query.filters.push((attribute.to_owned(), value.into_owned()));
                }
            }
        }
        Ok(query)
    }

    fn start(&self, journal: &Journal) -> Offset {
        match (self.from, self.follow) {
            (From::At(offset), _) => offset,
            (From::Earliest, _) | (From::Unsaid, false) => journal.first_offset(),
            (From::Latest, _) | (From::Unsaid, true) => journal.next_offset(),
        }
    }
}

/// One listener's place.
struct Tail {
    reader: Reader,
    agent: Option<AgentId>,
    filters: Vec<(String, String)>,
    base64: bool,
    left: u64,
    /// Where to stop when not following: what was durable when the request came.
    until: Option<Offset>,
    shutdown: CancellationToken,
    revoked: Pin<Box<dyn Future<Output = ()> + Send>>,
    scratch: String,
}

impl Tail {
    fn new(broker: &Broker, agent: Option<AgentId>, query: Query, request: &Request) -> Self {
        let journal = broker.journal();
        Self {
            reader: journal.reader(query.start(journal)),
            agent,
            left: query.limit.unwrap_or(u64::MAX),
            until: (!query.follow).then(|| journal.next_offset()),
            filters: query.filters,
            base64: query.base64,
            shutdown: request.shutdown().clone(),
            revoked: Box::pin(request.revoked()),
            scratch: String::new(),
        }
    }

    /// The next lines; `None` at the end.
    async fn piece(&mut self) -> Result<Option<String>, ReadError> {
        let mut out = String::new();
        while out.is_empty() {
            if self.left == 0 || self.until.is_some_and(|until| self.reader.position() >= until) {
                return Ok(None);
            }
            let items = tokio::select! {
                items = self.reader.next(PIECE_BYTES) => items?,
                () = self.shutdown.cancelled() => return Ok(None),
                () = &mut self.revoked => {
                    self.left = 0;
                    return Ok(None);
                }
            };
            for item in items {
                self.line(&mut out, item);
            }
        }
        Ok(Some(out))
    }

    fn line(&mut self, out: &mut String, item: Item) {
        if self.left == 0 {
            return;
        }
        match item {
            Item::Event { offset, .. } if self.until.is_some_and(|until| offset >= until) => self.left = 0,
            Item::Event { epoch, offset, body } => self.event(out, epoch, offset, body),
            Item::Skip { from, to, reason } => {
                let _ = writeln!(out, "{{\"offset\":{from},\"to\":{to},\"skipped\":\"{}\"}}", reason.name());
            }
            Item::Unwanted { .. } => {}
        }
    }

    fn event(&mut self, out: &mut String, epoch: Epoch, offset: Offset, body: Bytes) {
        let shown = StoredEvent::new(body, epoch, offset, self.agent.as_ref()).and_then(|stored| {
            for (name, wanted) in &self.filters {
                if stored.attribute_text(name, &mut self.scratch) != Some(wanted) {
                    return Ok(None);
                }
            }
            let mut event = stored.to_event()?;
            if !self.base64 {
                return Ok(Some(json::encode(&event)));
            }
            let data = event.data().cloned();
            event.set_data(None);
            let mut text = json::encode(&event);
            if let Some(data) = data {
                // An event always has attributes, so there is something before it.
                text.pop();
                text.extend_from_slice(b",\"data_base64\":\"");
                text.extend_from_slice(STANDARD.encode(data).as_bytes());
                text.extend_from_slice(b"\"}");
            }
            Ok(Some(text))
        });
        let text = match shown {
            Ok(None) => return,
            Ok(Some(json)) => String::from_utf8(json).map_err(|_| "the event's JSON is not UTF-8".to_owned()),
            Err(why) => Err(why.to_string()),
        };
        let _ = write!(out, "{{\"offset\":{offset},\"epoch\":\"{epoch}\",");
        let _ = match text {
            // A line must stay one: in JSON a line break can only be white space between tokens.
            Ok(json) => writeln!(out, "\"event\":{}}}", json.replace(['\n', '\r'], " ")),
            Err(why) => writeln!(out, "\"error\":{}}}", serde_json::Value::String(why)),
        };
        self.left -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Query, String> {
        Query::parse(url::form_urlencoded::parse(text.as_bytes()))
    }

    #[test]
    fn a_query_names_a_start_a_limit_and_attributes() {
        let query = parse("from=12&follow=true&limit=3&type=a.b&subject=x%20y").expect("valid");
        assert_eq!(query.from, From::At(Offset(12)));
        assert!(query.follow);
        assert_eq!(query.limit, Some(3));
        assert_eq!(query.filters, [("type".to_owned(), "a.b".to_owned()), ("subject".to_owned(), "x y".to_owned())]);
        assert_eq!(parse(""), Ok(Query::default()));
    }

    #[test]
    fn what_a_query_cannot_mean_is_refused() {
        for text in ["from=now", "follow=1", "data=json", "limit=-1", "Type=a", "a_b=c"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
