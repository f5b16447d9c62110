//! Origin and Host: whatever changes things over HTTP is not for a web page in somebody's browser.
//!
//! A browser says in `Origin` which page is asking, so one that is not ours is refused. A page whose own name was re-bound to
//! our address (DNS rebinding) has an origin equal to the host it asks; so the host must be an IP address, `localhost`, the
//! public URL's, or one named in `allowed-hosts`. The port of a host does not matter.
//!
//! And a request from this machine need not be from this machine: a proxy here passes on what others ask. Most say so in a header
//! ([`passed_on_by`]); one that does not cannot be told from a program of ours.

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Method, Uri};
use thiserror::Error;

/// The headers by which a proxy says that it passes on what somebody else asks.
const OF_PROXIES: [&str; 6] = ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];

/// The header that shows that a request came through a proxy, if one does.
#[must_use]
pub fn passed_on_by(headers: &HeaderMap) -> Option<&'static str> {
    OF_PROXIES.into_iter().find(|name| headers.contains_key(*name))
}

/// Whether a header, in any case, is one of those.
pub(crate) fn is_of_proxies(name: &str) -> bool {
    OF_PROXIES.iter().any(|of| of.eq_ignore_ascii_case(name))
}

/// Which hosts are ours.
#[derive(Debug, Clone, Default)]
pub struct HostRule {
    public: Option<Authority>,
    allowed: Vec<String>,
}

/// A request that comes from somewhere else.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ForeignRequest {
    /// The host is none of ours.
    #[error(
        "the host \"{0}\" is not this server's: use an IP address or localhost, or add the name to allowed-hosts in [http]"
    )]
    Host(String),
    /// There is no host, or it cannot be read.
    #[error("the request names no host: send a Host header")]
    NoHost,
    /// There are two, and who looks at which cannot be known.
    #[error("the request has more than one Host or Origin header: send one")]
    Twice,
    /// A page of another origin is asking.
    #[error("a page from \"{0}\" may not change things here: pages must come from this server or from its public-url")]
    Origin(String),
}

impl HostRule {
    /// A rule from the config: the public URL's authority and the `allowed-hosts`. Case does not matter, ports are dropped.
    #[must_use]
    pub fn new(public_url: Option<&Uri>, allowed_hosts: &[String]) -> Self {
        Self {
            public: public_url.and_then(|url| url.authority().cloned()),
            allowed: allowed_hosts.iter().map(|name| name.to_ascii_lowercase()).collect(),
        }
    }

    /// Whether a method changes things, and so is for this rule.
    #[must_use]
    pub fn applies_to(method: &Method) -> bool {
        !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
    }

    /// Checks one request. HTTP/2 has its host in the URI, HTTP/1.1 in the header.
    ///
    /// # Errors
    /// [`ForeignRequest`], to be answered with 403.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ForeignRequest> {
        // Of two, somebody on the way may have looked at the other.
        if headers.get_all(HOST).iter().count() > 1 || headers.get_all(ORIGIN).iter().count() > 1 {
            return Err(ForeignRequest::Twice);
        }
        let host = match uri.authority() {
            Some(authority) => authority.as_str(),
            None => headers.get(HOST).and_then(|h| h.to_str().ok()).ok_or(ForeignRequest::NoHost)?,
        };
        if !self.is_ours(host) {
            return Err(ForeignRequest::Host(shown(host)));
        }
        let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().map_err(|_| ForeignRequest::Origin("?".to_owned()))?;
        let page = origin.split_once("://").map_or("", |(_, authority)| authority);
        let public = self.public.as_ref().is_some_and(|public| public.as_str().eq_ignore_ascii_case(page));
        if public || (!page.is_empty() && page.eq_ignore_ascii_case(host)) {
            return Ok(());
        }
        Err(ForeignRequest::Origin(shown(origin)))
    }

    /// Whether a host, perhaps with a port, is one of ours.
    pub(crate) fn is_ours(&self, host: &str) -> bool {
        let host = host_of(host);
        is_ip(host)
            || host.eq_ignore_ascii_case("localhost")
            || self.public.as_ref().is_some_and(|public| public.host().eq_ignore_ascii_case(host))
            || self.allowed.iter().any(|name| name.eq_ignore_ascii_case(host))
    }
}

/// The host without its port.
fn host_of(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority.split_once(']').map_or(authority, |(host, _)| host);
    }
    authority.split_once(':').map_or(authority, |(host, _)| host)
}

fn is_ip(host: &str) -> bool {
    match host.strip_prefix('[') {
        Some(v6) => v6.trim_end_matches(']').parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.parse::<std::net::Ipv4Addr>().is_ok(),
    }
}

/// What a peer sent, short enough for an error text.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn check(rule: &HostRule, host: &str, origin: Option<&str>) -> Result<(), ForeignRequest> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).expect("value"));
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_str(origin).expect("value"));
        }
        rule.check(&Uri::from_static("/default/default"), &headers)
    }

    fn rule() -> HostRule {
        HostRule::new(Some(&Uri::from_static("https://mesh.example.org/godwit")), &["Boat.local".to_owned()])
    }

    #[test]
    fn our_own_names_pass_with_any_port() {
        for host in [
            "127.0.0.1:8080",
            "192.168.7.3",
            "[::1]:8080",
            "localhost",
            "LOCALHOST:1",
            "mesh.example.org",
            "boat.local:8080",
        ] {
            assert_eq!(check(&rule(), host, None), Ok(()), "{host}");
        }
    }

    #[test]
    fn a_name_bound_to_our_address_is_refused() {
        for host in ["evil.example", "127.0.0.1.evil.example:8080", "", "localhost.evil.example", "1.2.3"] {
            assert!(matches!(check(&rule(), host, None), Err(ForeignRequest::Host(_))), "{host}");
        }
        assert_eq!(rule().check(&Uri::from_static("/"), &HeaderMap::new()), Err(ForeignRequest::NoHost));
    }

    #[test]
    fn only_our_own_pages_may_post() {
        assert_eq!(check(&rule(), "127.0.0.1:8080", Some("http://127.0.0.1:8080")), Ok(()));
        assert_eq!(check(&rule(), "127.0.0.1:8080", Some("https://mesh.example.org")), Ok(()));
        for origin in ["http://evil.example", "null", "http://127.0.0.1:3000", "127.0.0.1:8080", ""] {
            assert!(matches!(check(&rule(), "127.0.0.1:8080", Some(origin)), Err(ForeignRequest::Origin(_))), "{origin}");
        }
    }

    #[test]
    fn a_second_host_or_origin_is_refused() {
        let host = HeaderValue::from_static("localhost");
        let ours = HeaderValue::from_static("http://localhost");
        for (name, value) in [(HOST, "evil.example"), (HOST, "localhost"), (ORIGIN, "http://evil.example")] {
            let mut headers: HeaderMap = [(HOST, host.clone()), (ORIGIN, ours.clone())].into_iter().collect();
            assert_eq!(rule().check(&Uri::from_static("/"), &headers), Ok(()));
            headers.append(&name, HeaderValue::from_static(value));
            assert_eq!(rule().check(&Uri::from_static("/"), &headers), Err(ForeignRequest::Twice), "{name}: {value}");
        }
    }

    #[test]
    fn http_2_names_its_host_in_the_uri() {
        let uri = Uri::from_static("http://evil.example/default/default");
        assert!(matches!(rule().check(&uri, &HeaderMap::new()), Err(ForeignRequest::Host(_))));
        assert_eq!(rule().check(&Uri::from_static("http://10.0.0.1:8080/"), &HeaderMap::new()), Ok(()));
    }
}
