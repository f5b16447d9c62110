//! How HTTP clients get their connections.

use std::sync::Arc;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::ClientConfig;

use super::TlsError;
use super::tls::trusting_nobody;

/// Connects to `http` URLs, and with a configuration to `https` ones.
///
/// # Errors
/// That no version of TLS can be used.
pub(crate) fn connector(
    mut tcp: HttpConnector,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<HttpsConnector<HttpConnector>, TlsError> {
    tcp.enforce_http(false);
    let config = match tls {
        Some(config) => ClientConfig::clone(config),
        None => trusting_nobody()?,
    };
    Ok(HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_all_versions().wrap_connector(tcp))
}
