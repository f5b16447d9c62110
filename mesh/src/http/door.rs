//! The door in front of the router: host and origin for what changes things, credentials for all but health checks.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{StatusCode, header};

use super::{Response, respond};
use crate::door::{Credentials, Denied, HostRule, Identity, is_of_proxies, passed_on_by};

/// Who may come in, and under which names this server is known.
#[derive(Debug, Clone, Default)]
pub struct Door {
    /// The users; without any, everybody who reaches the listener may come in.
    pub credentials: Option<Credentials>,
    /// The names under which requests that change things may come.
    pub hosts: HostRule,
    /// Whether, without credentials, what others ask by way of a proxy may change things too (`insecure = true`).
    pub open_to_proxies: bool,
}

impl Door {
    /// Whether a request of HTTP/1.1 that changes things is let in without a closer look: its one `Host` is ours, no page asks, and
    /// nobody need say who they are, nor has a proxy passed it on. All others are for [`Door::admit`].
    pub(super) fn stands_open(&self, headers: &[httparse::Header<'_>]) -> bool {
        let mut hosts = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
        let host = hosts.next().and_then(|header| std::str::from_utf8(header.value).ok());
        self.credentials.is_none()
            && host.is_some_and(|host| self.hosts.is_ours(host))
            && hosts.next().is_none()
            && !headers.iter().any(|header| header.name.eq_ignore_ascii_case("origin") || is_of_proxies(header.name))
    }

    /// Lets a request in, or says what to answer.
    pub(super) async fn admit(&self, head: &Parts, open: bool) -> Result<Option<Identity>, Response> {
        if HostRule::applies_to(&head.method) {
            self.hosts.check(&head.uri, &head.headers).map_err(|why| respond::problem(StatusCode::FORBIDDEN, why))?;
        }
        match &self.credentials {
            Some(credentials) if !open => identify(credentials, &head.headers).await.map(Some),
            None if !self.open_to_proxies && HostRule::applies_to(&head.method) => match passed_on_by(&head.headers) {
                Some(header) => Err(respond::problem(StatusCode::FORBIDDEN, through_a_proxy(header))),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }
}

/// Why a request that a proxy passed on is not taken for one from this machine.
#[must_use]
pub fn through_a_proxy(header: &str) -> String {
    format!(
        "the request came through a proxy (it has {header}), and without credentials only programs on this machine may do this: \
         set auth.credentials"
    )
}

async fn identify(credentials: &Credentials, headers: &HeaderMap) -> Result<Identity, Response> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Err(unauthorized("credentials are needed here: send Authorization: Bearer TOKEN, or a user and password"));
    };
    let Some((scheme, secret)) = value.to_str().ok().and_then(|v| v.split_once(' ')) else {
        return Err(unauthorized("the Authorization header is neither Bearer nor Basic"));
    };
    let secret = secret.trim();
    let checked = if scheme.eq_ignore_ascii_case("bearer") {
        credentials.check_token(secret)
    } else if scheme.eq_ignore_ascii_case("basic") {
        let pair = STANDARD.decode(secret).ok().and_then(|pair| {
            let colon = pair.iter().position(|&b| b == b':')?;
            let (user, password) = pair.split_at_checked(colon)?;
            Some((String::from_utf8(user.to_vec()).ok()?, password.get(1..)?.to_vec()))
        });
        match pair {
            Some((user, password)) => credentials.check_password(&user, &password).await,
            None => return Err(unauthorized("the Authorization header is not Basic base64(user:password)")),
        }
    } else {
        return Err(unauthorized("the Authorization header is neither Bearer nor Basic"));
    };
    checked.map_err(|denied| match denied {
        Denied::Wrong => unauthorized(denied),
        Denied::Busy => respond::unavailable(1, denied),
    })
}

fn unauthorized(why: impl std::fmt::Display) -> Response {
    let mut response = respond::problem(StatusCode::UNAUTHORIZED, why);
    let headers = response.headers_mut();
    headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"godwit\""));
    headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"godwit\", charset=\"UTF-8\""));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
