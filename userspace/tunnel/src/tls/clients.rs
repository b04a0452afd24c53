//! Which client certificates a gateway takes: those that its authorities signed, and those of keys that it knows by name.
//!
//! A known key is pinned: who issued its certificate, to what name and until when counts for nothing, as the certificate is
//! only the form in which TLS carries the key. That the peer holds the key is proved by the handshake's signature, always.

use super::{Fingerprint, TlsError};
use rustls::DigitallySignedStruct;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, DistinguishedName, Error, RootCertStore, SignatureScheme};
use std::collections::HashSet;
use std::sync::Arc;

/// What the gateway asks of a client during the handshake.
#[derive(Clone, Debug)]
pub enum ClientAuth {
    /// No certificate: clients prove themselves in HTTP.
    None,
    /// A certificate from these authorities is verified; a client without one may go on.
    Optional(RootCertStore),
    /// Without a certificate from these authorities there is no connection.
    Required(RootCertStore),
    /// As `Optional`, and a certificate with one of these keys is taken whoever signed it.
    Known {
        /// [`Fingerprint::of_key`] of each.
        keys: HashSet<Fingerprint>,
        /// Who else is let in.
        authorities: Option<RootCertStore>,
    },
}

impl ClientAuth {
    /// The verifier that rustls asks.
    pub(super) fn verifier(
        self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let of_roots = |roots| WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        Ok(match self {
            Self::None => WebPkiClientVerifier::no_client_auth(),
            Self::Optional(roots) => {
                of_roots(roots).allow_unauthenticated().build().map_err(TlsError::ClientCa)?
            }
            Self::Required(roots) => of_roots(roots).build().map_err(TlsError::ClientCa)?,
            Self::Known { keys, authorities } => {
                let authorities = authorities.map(|roots| of_roots(roots).build()).transpose();
                let authorities = authorities.map_err(TlsError::ClientCa)?;
                Arc::new(KnownKeys { keys, authorities, provider: provider.clone() })
            }
        })
    }
}

/// Judges certificates apart from a handshake: those of sessions that are resumed, which rustls takes over as they were,
/// whatever has changed since.
#[derive(Clone, Debug)]
pub struct Authorities(Arc<dyn ClientCertVerifier>);

impl Authorities {
    /// Of these roots.
    ///
    /// # Errors
    /// [`TlsError::ClientCa`] if they can't be used.
    pub fn new(roots: RootCertStore) -> Result<Self, TlsError> {
        ClientAuth::Required(roots).verifier(&super::provider()).map(Self)
    }

    /// Whether one of them signed this chain, and it hasn't expired.
    #[must_use]
    pub fn signed(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else { return false };
        self.0.verify_client_cert(leaf, intermediates, now).is_ok()
    }
}

impl Fingerprint {
    /// Of a certificate's public key (SubjectPublicKeyInfo in DER): the same for every certificate of that key. `None` if
    /// it isn't a certificate that TLS would take.
    #[must_use]
    pub fn of_key(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed = ParsedCertificate::try_from(certificate).ok()?;
        Some(Self::of_bytes(&parsed.subject_public_key_info()))
    }
}

#[derive(Debug)]
struct KnownKeys {
    keys: HashSet<Fingerprint>,
    authorities: Option<Arc<dyn ClientCertVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for KnownKeys {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: a client would keep its certificate to itself that none of them signed.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if Fingerprint::of_key(end_entity).is_some_and(|key| self.keys.contains(&key)) {
            return Ok(ClientCertVerified::assertion());
        }
        match &self.authorities {
            Some(authorities) => authorities.verify_client_cert(end_entity, intermediates, now),
            None => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
