//! The HTTP listener of a daemon, from its configuration: rule, certificate, limits, names; and the credentials it shares with
//! the other listeners.
//!
//! It comes in two steps, so that `--check` can say what is wrong without opening a port: [`Front::prepare`] reads files and
//! applies the rule for listeners, [`Front::bind`] opens the port.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use ::http::Uri;
use thiserror::Error;
use url::Url;

use crate::config;
use crate::door::{Credentials, CredentialsError, HostRule, ListenerError, ListenerRule, ServerTls, TlsError, bare};
use crate::http::{BindError, Door, Limits, Server};

/// Why a listener does not come about.
#[derive(Debug, Error)]
pub enum FrontError {
    /// It would be open to others without protection.
    #[error(transparent)]
    Listener(#[from] ListenerError),
    /// Its certificate or key cannot be used.
    #[error("[{section}] {source}")]
    Tls {
        /// The section of the configuration.
        section: &'static str,
        /// What is wrong.
        source: Box<TlsError>,
    },
    /// Only one of certificate and key is given.
    #[error("[{section}] tls-cert and tls-key belong together: set both or none")]
    HalfTls {
        /// The section of the configuration.
        section: &'static str,
    },
    /// The credentials file cannot be used.
    #[error("auth.credentials: {0}")]
    Credentials(Box<CredentialsError>),
    /// The public URL is not one.
    #[error("http.public-url \"{url}\": {why}")]
    PublicUrl {
        /// As given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The port cannot be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// The credentials file, if the configuration names one. Blocks for some milliseconds.
///
/// # Errors
/// [`FrontError::Credentials`].
pub fn credentials(auth: &config::Auth) -> Result<Option<Credentials>, FrontError> {
    auth.credentials.as_deref().map(Credentials::load).transpose().map_err(|e| FrontError::Credentials(Box::new(e)))
}

/// Checks one listener against the rule and loads its certificate.
///
/// # Errors
/// [`FrontError::Listener`], [`FrontError::HalfTls`] and [`FrontError::Tls`].
pub fn listener(
    section: &'static str,
    addr: SocketAddr,
    files: (Option<&PathBuf>, Option<&PathBuf>),
    alpn: &[&[u8]],
    credentials: bool,
    insecure: bool,
) -> Result<Option<ServerTls>, FrontError> {
    let tls = match files {
        (Some(cert), Some(key)) => {
            Some(ServerTls::load(cert, key, alpn).map_err(|source| FrontError::Tls { section, source: Box::new(source) })?)
        }
        (None, None) => None,
        _ => return Err(FrontError::HalfTls { section }),
    };
    ListenerRule { section, addr, tls: tls.is_some(), credentials, insecure }.check()?;
    Ok(tls)
}

/// An HTTP listener, checked and not open yet.
#[derive(Debug)]
pub struct Front {
    addr: SocketAddr,
    tls: Option<ServerTls>,
    door: Door,
    limits: Limits,
    public: Option<Url>,
}

/// An HTTP listener whose port is open.
#[derive(Debug)]
pub struct Bound {
    /// The listener.
    pub server: Server,
    /// Who may come in.
    pub door: Door,
    /// The URL under which others reach it.
    pub address: Url,
    /// Its certificate, to be reloaded.
    pub tls: Option<ServerTls>,
}

impl Front {
    /// Checks the section `[http]`. Reads files.
    ///
    /// # Errors
    /// [`FrontError`], all but [`FrontError::Bind`].
    pub fn prepare(http: &config::Http, credentials: Option<Credentials>) -> Result<Self, FrontError> {
        let files = (http.tls_cert.as_ref(), http.tls_key.as_ref());
        let alpn: [&[u8]; 2] = [b"h2", b"http/1.1"];
        let tls = listener("http", http.listen, files, &alpn, credentials.is_some(), http.insecure)?;
        let public = http.public_url.as_deref().map(public_url).transpose()?;
        let uri = public.as_ref().and_then(|url| Uri::from_str(url.as_str()).ok());
        let hosts = HostRule::new(uri.as_ref(), &http.allowed_hosts);
        let door = Door { credentials, hosts, open_to_proxies: http.insecure };
        let limits = Limits {
            connections: http.max_connections,
            header_time: http.header_timeout,
            event_bytes: http.max_event.as_usize(),
            batch_bytes: http.max_batch.as_usize(),
            idle: http.idle_timeout,
            busy_wait: http.busy_wait,
            drain: http.drain,
            ..Limits::default()
        };
        Ok(Self { addr: http.listen, tls, door, limits, public })
    }

    /// Opens the port.
    ///
    /// # Errors
    /// [`FrontError::Bind`].
    pub async fn bind(self) -> Result<Bound, FrontError> {
        let server = Server::bind(self.addr, self.tls.clone(), self.limits).await?;
        let address = match self.public {
            Some(url) => url,
            None => own_url(self.tls.is_some(), server.local_addr())?,
        };
        Ok(Bound { server, door: self.door, address, tls: self.tls })
    }

    /// The URL under which others reach it, as far as it is known before the port is open.
    ///
    /// # Errors
    /// [`FrontError::PublicUrl`] when the listener's address makes no URL.
    pub fn address(&self) -> Result<Url, FrontError> {
        self.public.clone().map_or_else(|| own_url(self.tls.is_some(), self.addr), Ok)
    }

    /// Lets peers send so much ahead on one HTTP/2 stream, and on one connection.
    #[must_use]
    pub fn windows(mut self, stream: u32, connection: u32) -> Self {
        (self.limits.stream_window, self.limits.connection_window) = (stream, connection);
        self
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

fn public_url(text: &str) -> Result<Url, FrontError> {
    let wrong = |why: String| FrontError::PublicUrl { url: bare(text), why };
    let url = Url::parse(text).map_err(|e| wrong(e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(wrong("is not an http:// or https:// URL with a host".to_owned()));
    }
    Ok(url)
}

/// A URL made from the listener; one for all addresses is shown as loopback, which at least works on this machine.
fn own_url(tls: bool, addr: SocketAddr) -> Result<Url, FrontError> {
    let scheme = if tls { "https" } else { "http" };
    let shown = match addr {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], v4.port())),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, v6.port())),
        other => other,
    };
    public_url(&format!("{scheme}://{shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Loader, Sections};

    crate::sections! {
        /// Only the section in question.
        struct Sample {
            /// HTTP.
            http: config::Http,
        }
    }

    fn prepare(set: &[(&str, &str)]) -> Result<Front, String> {
        let loader = set.iter().fold(Loader::new(), |loader, (key, value)| loader.flag(key, key, Some(*value)));
        let (sample, _) = loader.finish::<Sample>().map_err(|e| e.to_string())?;
        Front::prepare(&sample.http, None).map_err(|e| e.to_string())
    }

    #[test]
    fn a_listener_beyond_loopback_is_refused_before_any_port_is_open() {
        let error = prepare(&[("http.listen", "0.0.0.0:8080")]).expect_err("open to all");
        assert!(error.contains("insecure = true"), "{error}");
        assert!(prepare(&[("http.listen", "0.0.0.0:8080"), ("http.insecure", "true")]).is_ok());
        assert!(!Sample::keys().is_empty());
    }

    #[test]
    fn a_certificate_without_a_key_is_refused() {
        let error = prepare(&[("http.tls-cert", "x.pem")]).expect_err("half");
        assert!(error.contains("belong together"), "{error}");
    }

    #[test]
    fn the_address_is_the_public_url_or_made_from_the_listener() {
        let address = |set: &[(&str, &str)]| prepare(set).expect("valid").address().expect("a URL").to_string();
        assert_eq!(address(&[]), "http://127.0.0.1:8080/");
        assert_eq!(address(&[("http.listen", "[::1]:80")]), "http://[::1]/");
        assert_eq!(address(&[("http.public-url", "https://mesh.example.org/x")]), "https://mesh.example.org/x");
        assert!(prepare(&[("http.public-url", "mesh.example.org")]).is_err());
    }
}
