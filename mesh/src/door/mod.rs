//! Doors: who may come in, over what, and from where.
//!
//! A listener beyond loopback needs TLS ([`ServerTls`]) and credentials ([`Credentials`]), or `insecure = true` written out:
//! [`ListenerRule`] decides before anything is bound. Whatever changes things over HTTP also passes [`HostRule`], so that a web
//! page in somebody's browser cannot post here. Secrets never reach a log line or a `Debug` text; when a file cannot be read
//! again, what was loaded before stays in force.

mod bare;
mod connector;
mod credentials;
mod file;
mod known;
mod listener;
mod origin;
mod password;
mod tls;

pub use bare::bare;
pub(crate) use connector::connector;
pub use credentials::{Credentials, CredentialsError, Denied, Identity};
pub use file::{CredentialKind, CredentialsFile, Entry};
pub use listener::{ListenerError, ListenerRule};
pub(crate) use origin::is_of_proxies;
pub use origin::{ForeignRequest, HostRule, passed_on_by};
pub use password::{PasswordError, hash_password, make_token};
pub use tls::{ClientTls, HANDSHAKE_TIMEOUT, ServerTls, TlsError, check_authorities};
