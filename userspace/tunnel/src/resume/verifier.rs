//! Judges certificates as the verifier that it wraps does, and knows when the judged chain is a stored one.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    /// During a rehydration: today's date.
    static REHYDRATING: Cell<Option<UnixTime>> = const { Cell::new(None) };
}

/// Runs `work`, in which certificates are judged at `now` and the handshake's signature is not: the made-up server has
/// the stored certificates and not their key, which its connection once proved to have.
pub(super) fn rehydrating<R>(now: UnixTime, work: impl FnOnce() -> R) -> R {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            REHYDRATING.set(None);
        }
    }
    REHYDRATING.set(Some(now));
    let _reset = Reset;
    work()
}

/// Certificates that servers have shown to this process: one a full handshake, none where a session was resumed.
static JUDGED: AtomicU64 = AtomicU64::new(0);

pub(crate) fn judged() -> u64 {
    JUDGED.load(Ordering::Relaxed)
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Rejudging(pub(crate) Arc<dyn ServerCertVerifier>);

impl ServerCertVerifier for Rejudging {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let rehydrating = REHYDRATING.get();
        if rehydrating.is_none() {
            JUDGED.fetch_add(1, Ordering::Relaxed);
        }
        let now = rehydrating.unwrap_or(now);
        self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match REHYDRATING.get() {
            Some(_) => Ok(HandshakeSignatureValid::assertion()),
            None => self.0.verify_tls13_signature(message, cert, dss),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.0.requires_raw_public_keys()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.0.root_hint_subjects()
    }
}
