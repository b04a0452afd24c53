//! TLS 1.3 for QUIC: ring's provider with our packet protection, ALPN, and how a peer is trusted.
//!
//! Callers read the files; nothing here touches the disk.

mod clients;
mod session;

pub use clients::{Authorities, ClientAuth};
pub use session::GatewayTls;

use crate::protection::suites;
use crate::resume::verifier::Rejudging;
use crate::resume::{ResumingClient, Store, Vault};
use quinn_proto::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::ring::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::StoresServerSessions;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The application protocol of MASQUE: HTTP/3.
pub const ALPN_H3: &[u8] = b"h3";

/// Why a TLS configuration could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The certificate file held no certificate.
    #[error(
        "no certificate given: the certificate file needs at least one PEM block CERTIFICATE, leaf first; see `openssl x509 -in FILE -text`"
    )]
    NoCertificate,
    /// Key and certificate are a pair of strangers.
    #[error(
        "the private key does not belong to the certificate {leaf}: the two public keys differ; compare `openssl x509 -in CERT -noout -pubkey` with `openssl pkey -in KEY -pubout`"
    )]
    KeyMismatch {
        /// Fingerprint of the leaf that was given.
        leaf: Fingerprint,
    },
    /// The key cannot be used.
    #[error(
        "the private key cannot be used: {0}; needed: ECDSA P-256 or P-384, Ed25519, or RSA of 2048 bits or more, in PEM"
    )]
    Key(rustls::Error),
    /// The certificate cannot be used.
    #[error("the certificate cannot be used: {0}; see `openssl x509 -in CERT -text`")]
    Certificate(rustls::Error),
    /// The client CA cannot be used.
    #[error("the client CA cannot be used: {0}; the file needs at least one CA certificate in PEM")]
    ClientCa(rustls::client::VerifierBuilderError),
    /// The trusted roots cannot be used.
    #[error("the trusted root certificates cannot be used: {0}; see `openssl x509 -in FILE -text`")]
    Roots(rustls::client::VerifierBuilderError),
    /// No trust anchor.
    #[error("no trusted root certificate was found: give --ca FILE, or --pin sha256:... of the gateway")]
    NoRoots,
    /// rustls refused the rest.
    #[error("TLS could not be configured: {0}")]
    Other(#[from] rustls::Error),
    /// The provider lacks what QUIC needs for Initial packets.
    #[error("the TLS provider has no AES-128-GCM, which QUIC needs for Initial packets")]
    NoInitialSuite,
}

/// SHA-256 of a certificate in DER, written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self::of_bytes(certificate)
    }

    /// SHA-256.
    fn of_bytes(bytes: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A fingerprint could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{seen}` is no fingerprint: needed is sha256: and 64 hexadecimal digits, as `beam serve` prints it at start"
)]
pub struct FingerprintError {
    /// What was given.
    pub seen: String,
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Reads `sha256:` and 64 digits; colons between the digits, as openssl prints them, are fine.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || FingerprintError { seen: text.into() };
        let digits = text.strip_prefix("sha256:").ok_or_else(error)?;
        let mut values = digits.chars().filter(|&c| c != ':').map(|c| c.to_digit(16));
        let mut bytes = [0; 32];
        for byte in &mut bytes {
            match (values.next().flatten(), values.next().flatten()) {
                (Some(high), Some(low)) => *byte = (high << 4 | low) as u8,
                _ => return Err(error()),
            }
        }
        if values.next().is_some() {
            return Err(error());
        }
        Ok(Self(bytes))
    }
}

/// How a client trusts the gateway.
#[derive(Clone, Debug)]
pub enum Verify {
    /// A chain to one of these roots (the system's, or those of `--ca`), and the right name.
    Roots(RootCertStore),
    /// Exactly this leaf certificate, whatever its name, dates and issuer.
    Pin(Fingerprint),
    /// Any certificate: encrypted, but to whom is not known.
    Insecure,
}

/// TLS 1.3 suites, AES-128-GCM first where the CPU has AES instructions. A server lets the
/// client's order win, so that phones without them keep ChaCha20.
pub fn provider() -> Arc<CryptoProvider> {
    let mut suites = suites().to_vec();
    if !has_aes_instructions() {
        suites.rotate_right(1);
    }
    Arc::new(CryptoProvider { cipher_suites: suites, ..default_provider() })
}

#[cfg(target_arch = "x86_64")]
fn has_aes_instructions() -> bool {
    std::arch::is_x86_feature_detected!("aes")
}

#[cfg(target_arch = "aarch64")]
fn has_aes_instructions() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes_instructions() -> bool {
    false
}

/// The gateway's TLS.
pub fn server_tls(
    certs: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    client_auth: ClientAuth,
) -> Result<rustls::ServerConfig, TlsError> {
    let leaf = Fingerprint::of(certs.first().ok_or(TlsError::NoCertificate)?);
    let provider = provider();
    // Checked apart from `with_single_cert`, to tell a bad key from a bad certificate.
    provider.key_provider.load_private_key(key.clone_key()).map_err(TlsError::Key)?;
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let builder = builder.with_client_cert_verifier(client_auth.verifier(&provider)?);
    let mut tls = builder.with_single_cert(certs, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::KeyMismatch { leaf },
        other => TlsError::Certificate(other),
    })?;
    tls.alpn_protocols = vec![ALPN_H3.to_vec()];
    // A client keeps one in memory and one on disk.
    tls.send_tls13_tickets = 2;
    tls.max_early_data_size = 0;
    Ok(tls)
}

/// Gives the gateway's TLS a store for its tickets, which all workers must share: `take` is what makes a ticket usable
/// once. With `early_data`, a client may send its first bytes with one of them; rustls accepts them only with a ticket
/// that it has just taken from this store.
pub fn with_tickets(
    mut tls: rustls::ServerConfig,
    store: Arc<dyn StoresServerSessions>,
    early_data: bool,
) -> rustls::ServerConfig {
    tls.session_storage = store;
    // RFC 9001 section 4.6.1: QUIC allows this or nothing; QUIC's own flow control bounds early data.
    tls.max_early_data_size = if early_data { u32::MAX } else { 0 };
    tls
}

/// The client's TLS, with its own certificate if it has one.
pub fn client_tls(
    verify: Verify,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<rustls::ClientConfig, TlsError> {
    let provider = provider();
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let verifier: Arc<dyn ServerCertVerifier> = match verify {
        Verify::Roots(roots) if roots.is_empty() => return Err(TlsError::NoRoots),
        Verify::Roots(roots) => {
            let web = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            web.build().map_err(TlsError::Roots)?
        }
        Verify::Pin(pin) => Arc::new(LeafVerifier { provider: provider.clone(), pin: Some(pin) }),
        Verify::Insecure => Arc::new(LeafVerifier { provider: provider.clone(), pin: None }),
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Rejudging(verifier)));
    let mut tls = match identity {
        None => builder.with_no_client_auth(),
        Some((certs, key)) => {
            let leaf = Fingerprint::of(certs.first().ok_or(TlsError::NoCertificate)?);
            provider.key_provider.load_private_key(key.clone_key()).map_err(TlsError::Key)?;
            builder.with_client_auth_cert(certs, key).map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => TlsError::KeyMismatch { leaf },
                other => TlsError::Certificate(other),
            })?
        }
    };
    tls.alpn_protocols = vec![ALPN_H3.to_vec()];
    tls.resumption = Resumption::store(Arc::new(Store::default()));
    tls.enable_early_data = false;
    Ok(tls)
}

/// quinn's form of [`server_tls`].
pub fn quic_server(tls: rustls::ServerConfig) -> Result<GatewayTls, TlsError> {
    GatewayTls::new(tls).map_err(|_| TlsError::NoInitialSuite)
}

/// quinn's form of [`client_tls`], with the vault that its tickets come from and go to. It sends early data where a
/// ticket permits it.
pub fn resuming_client(
    mut tls: rustls::ClientConfig,
    vault: Arc<dyn Vault>,
) -> Result<ResumingClient, TlsError> {
    tls.enable_early_data = true;
    ResumingClient::new(tls, vault).map_err(|_| TlsError::NoInitialSuite)
}

/// The same, but no early data is offered.
pub fn resuming_client_without_early_data(
    mut tls: rustls::ClientConfig,
    vault: Arc<dyn Vault>,
) -> Result<ResumingClient, TlsError> {
    tls.enable_early_data = false;
    ResumingClient::new(tls, vault).map_err(|_| TlsError::NoInitialSuite)
}

/// Certificates that servers have shown to this process: one in each full handshake, none where a session was resumed.
pub fn certificates_judged() -> u64 {
    crate::resume::verifier::judged()
}

/// quinn's form of [`client_tls`], without resumption.
pub fn quic_client(tls: rustls::ClientConfig) -> Result<QuicClientConfig, TlsError> {
    QuicClientConfig::try_from(tls).map_err(|_| TlsError::NoInitialSuite)
}

/// Trusts one leaf, or any. That the peer holds the leaf's key is proved by the signature, always.
#[derive(Debug)]
struct LeafVerifier {
    provider: Arc<CryptoProvider>,
    pin: Option<Fingerprint>,
}

/// The gateway showed another certificate than the pinned one.
#[derive(thiserror::Error)]
#[error("the gateway's certificate is {seen}, pinned is {pinned}")]
pub struct PinMismatch {
    /// The fingerprint that was asked for.
    pub pinned: Fingerprint,
    /// The fingerprint that was seen.
    pub seen: Fingerprint,
}

/// As `Display`: rustls has no other way to tell a verifier's own error.
impl fmt::Debug for PinMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl ServerCertVerifier for LeafVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let seen = Fingerprint::of(end_entity);
        match self.pin {
            Some(pinned) if pinned != seen => {
                let mismatch = OtherError(Arc::new(PinMismatch { pinned, seen }));
                Err(rustls::Error::InvalidCertificate(CertificateError::Other(mismatch)))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let made = rcgen::generate_simple_self_signed(["gateway.test".into()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        (vec![made.cert.der().clone()], key)
    }

    // Goal: each wrong input is told apart by name.
    #[test]
    fn wrong_certificates_and_keys_are_named() {
        let (certs, key) = identity();
        let (_, stranger) = identity();
        assert!(server_tls(certs.clone(), key.clone_key(), ClientAuth::None).is_ok());
        let leaf = Fingerprint::of(&certs[0]);
        let error = server_tls(certs.clone(), stranger.clone_key(), ClientAuth::None).unwrap_err();
        assert!(matches!(error, TlsError::KeyMismatch { leaf: seen } if seen == leaf), "{error}");
        assert!(error.to_string().contains(&leaf.to_string()));
        assert!(matches!(
            server_tls(vec![], key.clone_key(), ClientAuth::None),
            Err(TlsError::NoCertificate)
        ));
        let garbage = PrivateKeyDer::Pkcs8(vec![1, 2, 3].into());
        assert!(matches!(server_tls(certs.clone(), garbage, ClientAuth::None), Err(TlsError::Key(_))));
        let broken = vec![CertificateDer::from(vec![0x30, 1, 2])];
        assert!(matches!(
            server_tls(broken, key.clone_key(), ClientAuth::None),
            Err(TlsError::Certificate(_))
        ));
        let no_ca = server_tls(certs.clone(), key.clone_key(), ClientAuth::Required(RootCertStore::empty()));
        assert!(matches!(no_ca, Err(TlsError::ClientCa(_))));
        let mismatch = client_tls(Verify::Insecure, Some((certs, stranger)));
        assert!(matches!(mismatch, Err(TlsError::KeyMismatch { .. })));
        let empty = client_tls(Verify::Roots(RootCertStore::empty()), None);
        assert!(matches!(empty, Err(TlsError::NoRoots)));
    }

    #[test]
    fn fingerprints_are_read_as_they_are_written() {
        let (certs, _) = identity();
        let print = Fingerprint::of(&certs[0]);
        assert_eq!(print.to_string().parse(), Ok(print));
        let hex = print.to_string()[7..].to_uppercase();
        let colons: Vec<&str> = (0..32).map(|i| &hex[2 * i..2 * i + 2]).collect();
        assert_eq!(format!("sha256:{}", colons.join(":")).parse(), Ok(print));
        for wrong in ["", "sha256:", "sha1:00", &hex, &format!("{print}0"), &print.to_string()[..70]] {
            assert!(wrong.parse::<Fingerprint>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn aes_128_leads_where_the_cpu_has_it() {
        let first = provider().cipher_suites[0].suite();
        let expected = match has_aes_instructions() {
            true => rustls::CipherSuite::TLS13_AES_128_GCM_SHA256,
            false => rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        };
        assert_eq!(first, expected);
    }
}
