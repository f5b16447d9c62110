//! The webhook handshake: a subscriber is asked before events are sent to it (CloudEvents HTTP 1.1 Web Hooks 1.0.2, section 4).
//!
//! `OPTIONS` with `WebHook-Request-Origin`, and the rate if one is asked for. Consent is an answer with `WebHook-Allowed-Origin`, our
//! own or `*`; its status means nothing. `WebHook-Allowed-Rate` bounds the requests a minute from then on. Consent holds for a
//! day, and is asked for anew by every task of a Trigger.

use std::sync::{Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};

/// How long consent holds.
const HOLDS_MS: u64 = 24 * 3600 * 1000;
const MINUTE_MS: u64 = 60_000;

pub(super) const ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
const RATE: HeaderName = HeaderName::from_static("webhook-request-rate");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// What one subscriber was asked and has allowed.
#[derive(Debug)]
pub(crate) struct Handshake {
    /// Who we are, a DNS name.
    pub(super) origin: String,
    /// The requests a minute that are asked for.
    rate: Option<u32>,
    state: Mutex<State>,
    /// Held while the subscriber is asked: once is enough for all who wait.
    pub(super) asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Until when consent holds, by the elapsed time.
    until_ms: Option<u64>,
    /// Allowed requests a minute.
    allowed: Option<u32>,
    /// When the next request may leave.
    next_ms: u64,
}

impl PartialEq for Handshake {
    /// What was asked; what was answered makes no other subscriber of it.
    fn eq(&self, other: &Self) -> bool {
        self.origin == other.origin && self.rate == other.rate
    }
}

impl Eq for Handshake {}

impl Handshake {
    pub(crate) fn new(origin: &str, rate: Option<u32>) -> Self {
        Self { origin: origin.to_owned(), rate, state: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the next request may leave. It is taken: the one after it may later.
    pub(super) fn turn(&self, now_ms: u64) -> u64 {
        let mut state = self.lock();
        let at = state.next_ms.max(now_ms);
        if let Some(rate) = state.allowed {
            state.next_ms = at + MINUTE_MS.div_ceil(u64::from(rate.max(1)));
        }
        at
    }

    pub(super) fn has_consent(&self, now_ms: u64) -> bool {
        self.lock().until_ms.is_some_and(|until| now_ms < until)
    }

    /// The question.
    pub(super) fn ask<B: Default>(&self, uri: &Uri, authorization: Option<&HeaderValue>) -> Result<Request<B>, String> {
        let mut request = Request::options(uri.clone()).body(B::default()).map_err(|e| e.to_string())?;
        let headers = request.headers_mut();
        headers.insert(ORIGIN, HeaderValue::from_str(&self.origin).map_err(|e| e.to_string())?);
        if let Some(rate) = self.rate {
            headers.insert(RATE, rate.into());
        }
        if let Some(authorization) = authorization {
            headers.insert(http::header::AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }

    /// Takes the answer; the error says why it is no consent.
    pub(super) fn answered(&self, headers: &HeaderMap, now_ms: u64) -> Result<(), String> {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        match text(&ALLOWED_ORIGIN) {
            None => return Err("it does not consent to a webhook: WebHook-Allowed-Origin is missing".to_owned()),
            Some("*") => {}
            Some(allowed) if allowed.eq_ignore_ascii_case(&self.origin) => {}
            Some(allowed) => {
                let allowed: String = allowed.chars().take(100).collect();
                return Err(format!("it consents to a webhook of {allowed}, and we are {}", self.origin));
            }
        }
        let allowed = match text(&ALLOWED_RATE) {
            None | Some("*") => None,
            Some(rate) => match rate.parse::<u32>() {
                Ok(rate) if rate > 0 => Some(rate),
                _ => return Err("its WebHook-Allowed-Rate is neither * nor a number above 0".to_owned()),
            },
        };
        let mut state = self.lock();
        state.allowed = allowed;
        state.until_ms = Some(now_ms + HOLDS_MS);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn consent_is_our_origin_or_any() {
        let handshake = Handshake::new("boat.example", Some(60));
        for wrong in [&[][..], &[("webhook-allowed-origin", "other.example")]] {
            assert!(handshake.answered(&answer(wrong), 0).is_err());
        }
        assert!(!handshake.has_consent(0));
        assert_eq!(handshake.answered(&answer(&[("webhook-allowed-origin", "Boat.example")]), 0), Ok(()));
        assert!(handshake.has_consent(HOLDS_MS - 1) && !handshake.has_consent(HOLDS_MS));
        let request = handshake.ask::<String>(&Uri::from_static("http://sink/in"), None).expect("a request");
        assert_eq!(request.headers()["webhook-request-origin"], "boat.example");
        assert_eq!(request.headers()["webhook-request-rate"], "60");
    }

    #[test]
    fn the_allowed_rate_spaces_requests() {
        let handshake = Handshake::new("boat.example", None);
        assert_eq!((handshake.turn(5), handshake.turn(5)), (5, 5), "no rate is known");
        let allowed = answer(&[("webhook-allowed-origin", "*"), ("webhook-allowed-rate", "120")]);
        assert_eq!(handshake.answered(&allowed, 5), Ok(()));
        assert_eq!((handshake.turn(5), handshake.turn(5), handshake.turn(5)), (5, 505, 1005));
        assert_eq!(handshake.turn(9000), 9000);
        assert!(handshake.answered(&answer(&[("webhook-allowed-origin", "*"), ("webhook-allowed-rate", "0")]), 0).is_err());
    }
}
