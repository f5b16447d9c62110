//! Bearer tokens for subscribers, from files that the process's own configuration names by host.
//!
//! An object that came from elsewhere never says which file is read: it can only name a host, and gets what the owner of the board
//! has put there for this host. A file is read again when it has changed. Tokens are not logged, and leave over TLS only, or to
//! this machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use http::HeaderValue;
use url::{Host, Url};

use crate::clock::Clock;

/// Largest file read, in bytes.
const MAX_BYTES: u64 = 16 << 10;
/// How long a look at a file is good for.
const LOOK_EVERY_MS: u64 = 1000;

/// The tokens of this process.
#[derive(Debug)]
pub(super) struct Tokens {
    files: BTreeMap<String, PathBuf>,
    known: Mutex<BTreeMap<String, Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    looked_ms: u64,
    /// Time of change and length of the file that was read.
    stamp: Option<(SystemTime, u64)>,
    header: HeaderValue,
}

impl Tokens {
    /// Tokens from these files, by `host` or `host:port`.
    pub(super) fn new(files: BTreeMap<String, PathBuf>) -> Self {
        Self { files, known: Mutex::default() }
    }

    /// The header `Authorization` for a URL; none where the configuration names no file for its host.
    ///
    /// # Errors
    /// Why the token cannot be sent.
    pub(super) fn header(&self, url: &Url, clock: &Clock) -> Result<Option<HeaderValue>, String> {
        let Some(host) = url.host_str().filter(|_| !self.files.is_empty()) else { return Ok(None) };
        let port = url.port_or_known_default().map(|port| format!("{host}:{port}"));
        let found = port.and_then(|name| self.files.get_key_value(&name)).or_else(|| self.files.get_key_value(host));
        let Some((name, path)) = found else { return Ok(None) };
        if url.scheme() != "https" && !is_here(url) {
            return Err(format!("the token for {name} is not sent without TLS: the URL must begin with https"));
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock.elapsed_ms();
        if let Some(known) = known.get(name).filter(|known| now.saturating_sub(known.looked_ms) < LOOK_EVERY_MS) {
            return Ok(Some(known.header.clone()));
        }
        let wrong = |why: String| format!("the token for {name} cannot be read from {}: {why}", path.display());
        let about = fs::metadata(path).map_err(|e| wrong(e.to_string()))?;
        let stamp = about.modified().ok().map(|at| (at, about.len()));
        if let Some(known) = known.get_mut(name).filter(|known| known.stamp.is_some() && known.stamp == stamp) {
            known.looked_ms = now;
            return Ok(Some(known.header.clone()));
        }
        let mut text = String::new();
        let file = fs::File::open(path).map_err(|e| wrong(e.to_string()))?;
        file.take(MAX_BYTES).read_to_string(&mut text).map_err(|e| wrong(e.to_string()))?;
        let token = text.trim();
        if token.is_empty() {
            return Err(wrong("it is empty".to_owned()));
        }
        let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| wrong("it has characters that no token has".to_owned()))?;
        header.set_sensitive(true);
        known.insert(name.clone(), Known { looked_ms: now, stamp, header: header.clone() });
        Ok(Some(header))
    }
}

/// Whether a URL leads to this machine, by its letters.
fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a URL")
    }

    #[test]
    fn a_token_goes_to_its_host_alone_and_over_tls_or_to_this_machine() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("token");
        fs::write(&path, "abc\n").expect("written");
        let names = ["sink.example", "localhost:9000"].map(|name| (name.to_owned(), path.clone()));
        let tokens = Tokens::new(names.into_iter().collect());
        let clock = Clock::manual(0);
        let header = |text: &str| tokens.header(&url(text), &clock);
        assert_eq!(header("https://sink.example/in").expect("read").expect("one"), "Bearer abc");
        assert_eq!(header("http://localhost:9000/").expect("read").expect("one"), "Bearer abc");
        assert!(header("http://localhost:9001/").expect("none").is_none(), "another port");
        assert!(header("https://sink.example.evil/").expect("none").is_none(), "another host");
        assert!(header("http://sink.example/").is_err_and(|why| why.contains("https")));
        assert!(!format!("{tokens:?}").contains("abc"), "never in a log");
    }

    #[test]
    fn a_file_that_has_changed_is_read_again_and_one_that_is_gone_says_so() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("token");
        fs::write(&path, "old").expect("written");
        let tokens = Tokens::new(std::iter::once(("localhost".to_owned(), path.clone())).collect());
        let clock = Clock::manual(0);
        let sink = url("http://localhost/");
        assert_eq!(tokens.header(&sink, &clock).expect("read").expect("one"), "Bearer old");
        fs::write(&path, "newer").expect("written");
        assert_eq!(tokens.header(&sink, &clock).expect("read").expect("one"), "Bearer old", "looked at a moment ago");
        clock.advance(LOOK_EVERY_MS);
        assert_eq!(tokens.header(&sink, &clock).expect("read").expect("one"), "Bearer newer");
        fs::remove_file(&path).expect("removed");
        clock.advance(LOOK_EVERY_MS);
        assert!(tokens.header(&sink, &clock).is_err_and(|why| why.contains("localhost") && !why.contains("newer")));
    }
}
