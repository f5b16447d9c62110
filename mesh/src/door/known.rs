//! Whom a client takes for the server it wants: by an authority (RFC 5280), or because the server's own certificate is one of those
//! that are trusted.
//!
//! The second is what a certificate of `openssl req -x509` needs: it says of itself that it is an authority's, and a chain that begins
//! with such a one is refused. Name, dates and the proof of the key are checked as with any other.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::doctor::certificate;

/// Checks servers' certificates.
#[derive(Debug)]
pub(super) struct Known {
    /// By authority.
    chains: Arc<WebPkiServerVerifier>,
    /// Certificates that are trusted when a server shows one as its own.
    own: Vec<CertificateDer<'static>>,
}

impl Known {
    pub(super) fn new(chains: Arc<WebPkiServerVerifier>, own: Vec<CertificateDer<'static>>) -> Self {
        Self { chains, own }
    }
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let by_chain = self.chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let Err(error) = by_chain else { return by_chain };
        if !self.own.iter().any(|own| own == end_entity) {
            return Err(error);
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        let dates = certificate::parse(end_entity).ok_or(CertificateError::BadEncoding)?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < dates.from {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > dates.until {
            return Err(CertificateError::Expired.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
