//! What became of one attempt to deliver (D12, D21).

use std::time::Duration;

/// Most bytes of an answer's body that are kept of a failure: as base64 they are the 1,024 characters of
/// `knativeerrordata` (D23).
pub(crate) const MAX_DETAIL_BYTES: usize = 768;

/// Why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// No connection, no answer in time, or a broken one.
    NoResponse,
    /// An answer with this status, which is not 2xx.
    Status(u16),
    /// 410 of a subscriber that was asked for consent: nothing more may be sent to it.
    Gone,
    /// 2xx, with a body that is no event.
    BadReply,
    /// A Broker of ours did not store the event or the reply.
    NotStored,
    /// The event has been through too many Brokers (D8).
    TtlUsedUp,
}

/// What our own policy does about a cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// The way or the receiver is away: it will be back.
    Away,
    /// Another attempt may help.
    Retryable,
    /// 2xx with a body that is no event: a failure like another, but no attempt will change it.
    Malformed,
    /// No other attempt will help.
    Final,
}

/// A failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    /// The URL that was tried, without user name and password.
    pub(crate) destination: String,
    /// What went wrong, for people.
    pub(crate) message: String,
    /// The beginning of the answer's body, or what stands for it; at most [`MAX_DETAIL_BYTES`].
    pub(crate) detail: Vec<u8>,
    /// How long the receiver asked to be left alone (429 and 503 only).
    pub(crate) retry_after: Option<Duration>,
}

impl Failure {
    pub(crate) fn no_response(destination: &str, why: &str) -> Self {
        let detail = cut(format!("dispatch error: {why}").into_bytes());
        Self::new(Cause::NoResponse, destination, why.to_owned(), detail)
    }

    pub(crate) fn new(cause: Cause, destination: &str, message: String, detail: Vec<u8>) -> Self {
        Self { cause, destination: destination.to_owned(), message, detail: cut(detail), retry_after: None }
    }

    /// The status by which this failure is known to others (D23): 500 where there was no answer.
    pub(crate) fn code(&self) -> u16 {
        match self.cause {
            Cause::NoResponse => 500,
            Cause::Status(status) => status,
            Cause::Gone => 410,
            Cause::BadReply => 502,
            Cause::NotStored => 503,
            Cause::TtlUsedUp => 400,
        }
    }

    pub(crate) fn class(&self) -> Class {
        match self.cause {
            Cause::NoResponse | Cause::NotStored => Class::Away,
            Cause::Status(404 | 408 | 429 | 502 | 503 | 504) => Class::Away,
            Cause::Status(409 | 500..) => Class::Retryable,
            Cause::BadReply => Class::Malformed,
            Cause::Status(_) | Cause::Gone | Cause::TtlUsedUp => Class::Final,
        }
    }
}

fn cut(mut detail: Vec<u8>) -> Vec<u8> {
    detail.truncate(MAX_DETAIL_BYTES);
    detail
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(status: u16) -> Class {
        Failure::new(Cause::Status(status), "http://a", String::new(), Vec::new()).class()
    }

    #[test]
    fn d12_only_404_408_409_429_5xx_and_unknown_statuses_are_worth_another_attempt() {
        let worth = |status| matches!(class(status), Class::Away | Class::Retryable);
        for status in [404, 408, 409, 429, 500, 501, 502, 503, 504, 507, 511, 599, 600, 999] {
            assert!(worth(status), "{status}");
        }
        for status in [100, 101, 300, 301, 302, 307, 308, 400, 401, 403, 405, 406, 410, 411, 413, 415, 422, 425, 431, 451] {
            assert!(!worth(status), "{status}");
        }
    }

    #[test]
    fn our_choice_waits_for_those_who_are_away() {
        for status in [404, 408, 429, 502, 503, 504] {
            assert_eq!(class(status), Class::Away, "{status}");
        }
        for status in [409, 500, 501, 507] {
            assert_eq!(class(status), Class::Retryable, "{status}");
        }
        assert_eq!(Failure::no_response("http://a", "refused").class(), Class::Away);
    }

    #[test]
    fn d23_a_connection_error_has_code_500() {
        let failure = Failure::no_response("http://a", "connection refused");
        assert_eq!(failure.code(), 500);
        assert_eq!(failure.detail, b"dispatch error: connection refused");
    }
}
