//! A URL of somebody else's that events are posted to, with what every request to it has.

use std::ops::Deref;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::HeaderValue;
use http::uri::{PathAndQuery, Uri};
use percent_encoding::percent_decode_str;
use url::Url;

use super::handshake::Handshake;
use super::target::shown;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    url: Url,
    /// The URL as people may see it: without user name and password.
    pub(crate) shown: Arc<str>,
    /// As it is asked for: also without fragment.
    pub(crate) uri: Uri,
    /// What of it stands in a request's first line.
    pub(crate) path: Uri,
    /// Host and port, as connections are kept by them.
    pub(crate) host: Arc<str>,
    /// The header `Host`.
    pub(crate) host_header: HeaderValue,
    /// The header `Authorization` for a user name and password in the URL.
    pub(crate) authorization: Option<HeaderValue>,
    /// Certificates of authorities to trust beside the process's own.
    pub(crate) ca_certs: Option<Arc<str>>,
    /// The consent that is asked for first, if it is.
    pub(crate) handshake: Option<Arc<Handshake>>,
}

impl Deref for Endpoint {
    type Target = Url;

    fn deref(&self) -> &Url {
        &self.url
    }
}

impl Endpoint {
    /// Makes ready what requests to this URL have.
    ///
    /// # Errors
    /// Why nothing can be posted to it.
    pub(crate) fn new(url: Url, ca_certs: Option<&str>) -> Result<Self, String> {
        let shown = shown(&url);
        let wrong = |why: String| format!("{shown}: {why}");
        let mut bare = url.clone();
        // Neither fails on a URL that has them.
        let _ = bare.set_username("");
        let _ = bare.set_password(None);
        bare.set_fragment(None);
        let uri: Uri = bare.as_str().parse().map_err(|e: http::uri::InvalidUri| wrong(e.to_string()))?;
        let host = uri.authority().ok_or_else(|| wrong("there is no host in it".to_owned()))?.as_str();
        let host_header = HeaderValue::from_str(host).map_err(|e| wrong(e.to_string()))?;
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self {
            authorization: authorization(&url).map_err(|e| wrong(e.to_string()))?,
            path: Uri::from(path),
            host: host.into(),
            host_header,
            uri,
            shown: shown.into(),
            ca_certs: ca_certs.map(Arc::from),
            handshake: None,
            url,
        })
    }
}

fn authorization(url: &Url) -> Result<Option<HeaderValue>, http::header::InvalidHeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let text = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
    let pair = format!("{}:{}", text(url.username()), text(url.password().unwrap_or_default()));
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_once() {
        let made = |text: &str| Endpoint::new(Url::parse(text).expect("a URL"), None).expect("an endpoint");
        let endpoint = made("http://me:se%20cret@sink.example:8080/in?a=1#part");
        assert_eq!(&*endpoint.shown, "http://sink.example:8080/in?a=1#part");
        assert_eq!(endpoint.uri, "http://sink.example:8080/in?a=1");
        assert_eq!((endpoint.path.to_string().as_str(), &*endpoint.host), ("/in?a=1", "sink.example:8080"));
        assert_eq!(endpoint.authorization.as_ref().map(HeaderValue::as_bytes), Some(&b"Basic bWU6c2UgY3JldA=="[..]));
        assert!(!format!("{endpoint:?}").contains("bWU6"), "not in a log");
        let plain = made("http://[::1]");
        assert_eq!((plain.path.to_string().as_str(), &*plain.host, plain.authorization), ("/", "[::1]", None));
    }
}
