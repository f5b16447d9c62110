//! The rule for listeners: beyond loopback only with TLS and credentials, or with `insecure = true` written out.

use std::net::SocketAddr;

use thiserror::Error;

/// What is known of a listener before it is bound.
#[derive(Debug, Clone)]
pub struct ListenerRule<'a> {
    /// The section of the config file that it comes from (`http`, `mqtt`): named in the error.
    pub section: &'a str,
    /// Where it is to listen.
    pub addr: SocketAddr,
    /// Whether it has a certificate and a key.
    pub tls: bool,
    /// Whether there is a credentials file.
    pub credentials: bool,
    /// Whether the config says `insecure = true` for it.
    pub insecure: bool,
}

/// A listener that others can reach has no protection. The text says how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "[{section}] listen = \"{addr}\" is open to other machines but has no {missing}: set {remedy}, or listen on {loopback}, \
     or write insecure = true into [{section}] if this network is yours alone"
)]
pub struct ListenerError {
    section: String,
    addr: SocketAddr,
    missing: &'static str,
    remedy: String,
    loopback: String,
}

impl ListenerRule<'_> {
    /// Checks the rule.
    ///
    /// # Errors
    /// [`ListenerError`], to be shown instead of starting.
    pub fn check(&self) -> Result<(), ListenerError> {
        if self.insecure || self.addr.ip().to_canonical().is_loopback() || (self.tls && self.credentials) {
            return Ok(());
        }
        let tls = format!("tls-cert and tls-key in [{}]", self.section);
        let credentials = "credentials in [auth] (make the file with `godwit passwd` or `godwit token`)";
        let (missing, remedy) = match (self.tls, self.credentials) {
            (false, false) => ("TLS and no credentials", format!("{tls}, and {credentials}")),
            (false, true) => ("TLS", tls),
            (true, _) => ("credentials", credentials.to_owned()),
        };
        Err(ListenerError {
            section: self.section.to_owned(),
            addr: self.addr,
            missing,
            remedy,
            loopback: format!("127.0.0.1:{}", self.addr.port()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(addr: &str, tls: bool, credentials: bool, insecure: bool) -> Result<(), ListenerError> {
        let addr = addr.parse().expect("address");
        ListenerRule { section: "http", addr, tls, credentials, insecure }.check()
    }

    #[test]
    fn loopback_needs_nothing() {
        for addr in ["127.0.0.1:8080", "127.9.0.1:1", "[::1]:8080", "[::ffff:127.0.0.1]:80"] {
            assert!(rule(addr, false, false, false).is_ok(), "{addr}");
        }
    }

    #[test]
    fn beyond_loopback_needs_both_or_the_word() {
        for addr in ["0.0.0.0:8080", "[::]:8080", "192.168.1.4:8080"] {
            assert!(rule(addr, true, true, false).is_ok());
            assert!(rule(addr, false, false, true).is_ok());
            assert!(rule(addr, true, false, false).is_err());
            assert!(rule(addr, false, true, false).is_err());
        }
        let error = rule("0.0.0.0:8080", false, false, false).expect_err("open").to_string();
        for word in ["[http]", "0.0.0.0:8080", "tls-cert", "[auth]", "127.0.0.1:8080", "insecure = true"] {
            assert!(error.contains(word), "{word} in {error}");
        }
    }
}
