//! TLS from certificate and key files (PEM), with rustls.
//!
//! The server's files are read again on request (SIGHUP): connections made later get the new certificate, and a pair that
//! cannot be used leaves the old one in force. A handshake has a time limit and runs in its connection's own task. The client's
//! roots are read when first needed, because most agents on a site's own network never do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::known::Known;

/// How long a peer may take for its handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Sessions that can be resumed without a full handshake: a few kilobytes.
const RESUMABLE_SESSIONS: usize = 32;

/// Why TLS cannot be set up. Each says which file.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read, or has no such PEM section.
    #[error("reading {what} from {}: {source}", path.display())]
    File {
        /// Certificate, key or roots.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// Certificate and key do not belong together, or are of a kind we cannot use.
    #[error("certificate {} with key {}: {source}", cert.display(), key.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// No certificate authority could be loaded.
    #[error("no certificate authority found {place}: every TLS server would be refused")]
    NoRoots {
        /// Where they were looked for.
        place: String,
    },
    /// Certificates that an object brought cannot be used.
    #[error("{0}: PEM with certificates of authorities is wanted")]
    Inline(pem::Error),
    /// rustls refused the set-up.
    #[error("setting up TLS: {0}")]
    Setup(#[from] rustls::Error),
    /// rustls refused the authorities.
    #[error("setting up TLS: {0}")]
    Authorities(#[from] VerifierBuilderError),
}

/// A server's certificate and key. Cheap to clone; clones share what [`ServerTls::reload`] loads.
#[derive(Clone)]
pub struct ServerTls(Arc<ServerFiles>);

struct ServerFiles {
    cert: PathBuf,
    key: PathBuf,
    alpn: Vec<Vec<u8>>,
    config: RwLock<Arc<ServerConfig>>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("cert", &self.0.cert).field("key", &self.0.key).finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Reads a certificate chain and its key. `alpn` are the protocols offered, best first: `[b"h2", b"http/1.1"]` for HTTP,
    /// none for MQTT.
    ///
    /// # Errors
    /// [`TlsError::File`] and [`TlsError::Pair`].
    pub fn load(cert: &Path, key: &Path, alpn: &[&[u8]]) -> Result<Self, TlsError> {
        let alpn: Vec<Vec<u8>> = alpn.iter().map(|name| name.to_vec()).collect();
        let config = RwLock::new(server_config(cert, key, &alpn)?);
        Ok(Self(Arc::new(ServerFiles { cert: cert.to_owned(), key: key.to_owned(), alpn, config })))
    }

    /// Reads both files again. On an error the old pair stays in force.
    ///
    /// # Errors
    /// See [`ServerTls::load`].
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = server_config(&self.0.cert, &self.0.key, &self.0.alpn)?;
        *self.0.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// The configuration now in force.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.0.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shakes hands with a peer within [`HANDSHAKE_TIMEOUT`]. For the connection's own task, not the accept loop.
    ///
    /// # Errors
    /// What the peer did wrong, or [`io::ErrorKind::TimedOut`].
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let handshake = TlsAcceptor::from(self.config()).accept(stream);
        tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took longer than 10 s"))?
    }
}

/// How we know the servers that we connect to. Cheap to clone; the roots are read once, when first needed.
#[derive(Clone)]
pub struct ClientTls(Arc<Roots>);

struct Roots {
    ca_file: Option<PathBuf>,
    store: OnceLock<Trusted>,
}

/// Whom we trust.
#[derive(Clone)]
struct Trusted {
    authorities: Arc<RootCertStore>,
    /// Those somebody gave us; the system's are authorities only.
    given: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("ca_file", &self.0.ca_file).finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Trusts the authorities in `ca_file` (PEM), and only those; without one, those of the system.
    #[must_use]
    pub fn new(ca_file: Option<&Path>) -> Self {
        Self(Arc::new(Roots { ca_file: ca_file.map(Path::to_owned), store: OnceLock::new() }))
    }

    /// Reads `ca_file` once, to find out early whether it can be used. What the system has is not looked at.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn check(ca_file: Option<&Path>) -> Result<(), TlsError> {
        ca_file.map_or(Ok(()), |file| read_roots(Some(file)).map(|_| ()))
    }

    /// A client configuration that offers these protocols, best first. Reads files at its first call, some milliseconds.
    ///
    /// # Errors
    /// [`TlsError::File`] and [`TlsError::NoRoots`].
    pub fn config(&self, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
        let store = match self.0.store.get() {
            Some(store) => store.clone(),
            None => {
                let store = read_roots(self.0.ca_file.as_deref())?;
                self.0.store.get_or_init(|| store).clone()
            }
        };
        trusting(store, alpn)
    }

    /// The same that trusts the authorities in `pem` beside its own. Where it has none of its own, those alone.
    ///
    /// # Errors
    /// [`TlsError::Inline`], and [`TlsError::File`] where the file of its own cannot be used.
    pub fn config_with(&self, pem: &str, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
        let Trusted { authorities, mut given } = match read_roots(self.0.ca_file.as_deref()) {
            Ok(trusted) => trusted,
            Err(TlsError::NoRoots { .. }) => Trusted { authorities: Arc::new(RootCertStore::empty()), given: Vec::new() },
            Err(error) => return Err(error),
        };
        let found: Vec<_> =
            CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(TlsError::Inline)?;
        let mut authorities = Arc::unwrap_or_clone(authorities);
        let (added, _) = authorities.add_parsable_certificates(found.iter().cloned());
        if added == 0 {
            return Err(TlsError::Inline(pem::Error::NoItemsFound));
        }
        given.extend(found);
        trusting(Trusted { authorities: Arc::new(authorities), given }, alpn)
    }
}

/// A client configuration for connections without TLS.
///
/// # Errors
/// That no version of TLS can be used.
pub(super) fn trusting_nobody() -> Result<ClientConfig, TlsError> {
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn trusting(trusted: Trusted, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    let chains = WebPkiServerVerifier::builder_with_provider(trusted.authorities, provider()).build()?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Known::new(chains, trusted.given)))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Whether this PEM has certificates of authorities that can be used.
///
/// # Errors
/// [`TlsError::Inline`].
pub fn check_authorities(pem: &str) -> Result<(), TlsError> {
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(TlsError::Inline)?;
    match RootCertStore::empty().add_parsable_certificates(found) {
        (0, _) => Err(TlsError::Inline(pem::Error::NoItemsFound)),
        _ => Ok(()),
    }
}

/// One provider for the process, given explicitly so that nothing depends on a global default.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(ring::default_provider())).clone()
}

fn server_config(cert: &Path, key: &Path, alpn: &[Vec<u8>]) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = read_certificates("a certificate", cert)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::File {
        what: "a private key",
        path: key.to_owned(),
        source,
    })?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|source| TlsError::Pair { cert: cert.to_owned(), key: key.to_owned(), source })?;
    config.alpn_protocols = alpn.to_vec();
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(RESUMABLE_SESSIONS);
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

fn read_certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = |source| TlsError::File { what, path: path.to_owned(), source };
    let found: Vec<_> = CertificateDer::pem_file_iter(path).map_err(file)?.collect::<Result<_, _>>().map_err(file)?;
    if found.is_empty() { Err(file(pem::Error::NoItemsFound)) } else { Ok(found) }
}

fn read_roots(ca_file: Option<&Path>) -> Result<Trusted, TlsError> {
    let (found, given, place) = match ca_file {
        Some(path) => {
            let found = read_certificates("certificate authorities", path)?;
            (found.clone(), found, format!("in {}", path.display()))
        }
        None => {
            let native = rustls_native_certs::load_native_certs();
            (native.certs, Vec::new(), "on this system (install ca-certificates, or set ca-file)".to_owned())
        }
    };
    let mut authorities = RootCertStore::empty();
    let (added, _) = authorities.add_parsable_certificates(found);
    if added == 0 { Err(TlsError::NoRoots { place }) } else { Ok(Trusted { authorities: Arc::new(authorities), given }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;

    fn make_pair(folder: &Path) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("certificate");
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).expect("written");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
        (cert, key)
    }

    async fn greet(server: &ServerTls, client: &ClientTls) -> io::Result<String> {
        let (near, far) = tokio::io::duplex(16 << 10);
        let config = client.config(&[b"h2", b"http/1.1"]).expect("roots");
        let name = ServerName::try_from("localhost").expect("name");
        let connect = TlsConnector::from(config).connect(name, near);
        let (client, server) = tokio::join!(connect, server.accept(far));
        let (mut client, mut server) = (client?, server?);
        server.write_all(b"hello").await?;
        server.shutdown().await?;
        let mut text = String::new();
        client.read_to_string(&mut text).await?;
        assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Ok(text)
    }

    #[tokio::test]
    async fn a_client_that_trusts_the_authority_gets_in_and_another_does_not() {
        let folder = tempfile::tempdir().expect("folder");
        let (cert, key) = make_pair(folder.path());
        let server = ServerTls::load(&cert, &key, &[b"h2", b"http/1.1"]).expect("a pair");
        assert_eq!(greet(&server, &ClientTls::new(Some(&cert))).await.expect("trusted"), "hello");
        let other = tempfile::tempdir().expect("folder");
        let (stranger, _) = make_pair(other.path());
        assert!(greet(&server, &ClientTls::new(Some(&stranger))).await.is_err());
    }

    /// What `openssl req -x509` makes: a certificate that says it is an authority's.
    #[tokio::test]
    async fn a_server_is_known_by_its_own_certificate_if_name_and_dates_hold() {
        let made = |name: &str, until: i32| {
            let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("parameters");
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.not_after = rcgen::date_time_ymd(until, 1, 1);
            let key = rcgen::KeyPair::generate().expect("key");
            let folder = tempfile::tempdir().expect("folder");
            let (cert, private) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
            std::fs::write(&cert, params.self_signed(&key).expect("signed").pem()).expect("written");
            std::fs::write(&private, key.serialize_pem()).expect("written");
            (folder, cert, private)
        };
        let greeted = async |served: &(tempfile::TempDir, PathBuf, PathBuf), trusted: &Path| {
            let server = ServerTls::load(&served.1, &served.2, &[b"h2", b"http/1.1"]).expect("a pair");
            greet(&server, &ClientTls::new(Some(trusted))).await.map_err(|e| e.to_string())
        };
        let good = made("localhost", 2090);
        assert_eq!(greeted(&good, &good.1).await, Ok("hello".to_owned()));
        let stranger = made("localhost", 2090);
        assert!(greeted(&good, &stranger.1).await.is_err());
        let named = made("elsewhere", 2090);
        assert!(
            greeted(&named, &named.1)
                .await
                .is_err_and(|e| e.contains("NotValidForName") || e.contains("not valid for name"))
        );
        let ended = made("localhost", 2020);
        assert!(greeted(&ended, &ended.1).await.is_err_and(|e| e.to_lowercase().contains("expired")));
    }

    #[tokio::test]
    async fn a_reload_takes_the_new_pair_and_a_broken_one_leaves_the_old() {
        let folder = tempfile::tempdir().expect("folder");
        let (cert, key) = make_pair(folder.path());
        let server = ServerTls::load(&cert, &key, &[b"h2"]).expect("a pair");
        std::fs::write(&key, "nonsense").expect("written");
        let error = server.reload().expect_err("no key").to_string();
        assert!(error.contains("key.pem"), "{error}");
        assert!(greet(&server, &ClientTls::new(Some(&cert))).await.is_ok());
        let (cert, _) = make_pair(folder.path());
        server.reload().expect("a pair");
        assert!(greet(&server, &ClientTls::new(Some(&cert))).await.is_ok());
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_by_name() {
        let (one, two) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        let (cert, _) = make_pair(one.path());
        let (_, key) = make_pair(two.path());
        assert!(matches!(ServerTls::load(&cert, &key, &[]), Err(TlsError::Pair { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_is_let_go() {
        let folder = tempfile::tempdir().expect("folder");
        let (cert, key) = make_pair(folder.path());
        let server = ServerTls::load(&cert, &key, &[]).expect("a pair");
        let (_near, far) = tokio::io::duplex(64);
        let error = server.accept(far).await.expect_err("silent");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
