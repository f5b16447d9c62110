//! Asking a URL, for sources that poll: one GET, conditional where the answer of before allows it.

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::percent_decode_str;
use std::time::Duration;
use url::Url;

use super::job::Job;
use crate::delivery::target::shown;
use crate::door::connector;

/// Longest time for a whole answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Longest `ETag` or `Last-Modified` that is sent back; they are kept in a mark.
const MAX_VALIDATOR_BYTES: usize = 256;

/// What an answer is asked by the next time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    /// `ETag`.
    pub etag: Option<String>,
    /// `Last-Modified`.
    pub modified: Option<String>,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing new (304).
    Same,
    /// This.
    Content {
        /// The body.
        body: Bytes,
        /// Its media type.
        content_type: Option<String>,
        /// For the next time.
        validators: Validators,
    },
}

impl Job {
    /// Asks `url`. Redirects are not followed; a body may have as many bytes as an event.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub async fn ask(&self, url: &Url, known: &Validators) -> Result<Answer, String> {
        let name = shown(url);
        match tokio::time::timeout(TIMEOUT, self.exchange(url, known)).await {
            Ok(outcome) => outcome.map_err(|why| format!("{name}: {why}")),
            Err(_) => Err(format!("{name}: no complete answer within {} s", TIMEOUT.as_secs())),
        }
    }

    async fn exchange(&self, url: &Url, known: &Validators) -> Result<Answer, String> {
        let request = request(url, known)?;
        // Questions are seconds or hours apart: a connection is not kept for the next.
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_max_idle_per_host(0);
        let settings = &self.triggers().context().settings;
        let tls = (url.scheme() == "https").then(|| settings.tls.config(&[])).transpose();
        let connector = tls.and_then(|tls| connector(HttpConnector::new(), tls.as_ref())).map_err(|e| e.to_string())?;
        let response = builder.build::<_, Full<Bytes>>(connector).request(request).await;
        let response = response.map_err(|e| {
            let cause = std::error::Error::source(&e).map(|cause| format!(": {cause}")).unwrap_or_default();
            format!("{e}{cause}")
        })?;
        answer(response, settings.max_event_bytes).await
    }
}

fn request(url: &Url, known: &Validators) -> Result<Request<Full<Bytes>>, String> {
    let mut plain = url.clone();
    // Neither fails on a URL that has them.
    let _ = plain.set_username("");
    let _ = plain.set_password(None);
    plain.set_fragment(None);
    let mut request = Request::get(plain.as_str()).body(Full::default()).map_err(|e| e.to_string())?;
    let headers = request.headers_mut();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*;q=0.5"));
    for (name, value) in [(IF_NONE_MATCH, &known.etag), (IF_MODIFIED_SINCE, &known.modified)] {
        if let Some(value) = value.as_ref().and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(name, value);
        }
    }
    if !url.username().is_empty() || url.password().is_some() {
        use base64::Engine as _;
        let text = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let pair = format!("{}:{}", text(url.username()), text(url.password().unwrap_or_default()));
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        let mut value = HeaderValue::from_str(&basic).map_err(|e| e.to_string())?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(request)
}

async fn answer(response: Response<Incoming>, limit: usize) -> Result<Answer, String> {
    let (head, mut body) = response.into_parts();
    match head.status {
        StatusCode::NOT_MODIFIED => return Ok(Answer::Same),
        StatusCode::OK => {}
        status => return Err(format!("answered {status}")),
    }
    let text = |name: &http::HeaderName| {
        let value = head.headers.get(name)?.to_str().ok()?;
        (value.len() <= MAX_VALIDATOR_BYTES).then(|| value.to_owned())
    };
    let validators = Validators { etag: text(&ETAG), modified: text(&LAST_MODIFIED) };
    let content_type = text(&CONTENT_TYPE);
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| format!("the answer broke off: {e}"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(format!("answered with more than {limit} bytes"));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Answer::Content { body: bytes.freeze(), content_type, validators })
}
