//! Why a tunnel did not come up, and what its user can do about it.

use std::{net::SocketAddr, time::Duration};
use tunnel::CloseReason;

/// TLS alerts reach QUIC as error codes 0x100 to 0x1ff (RFC 9001 section 4.8); this is certificate_required.
const CERTIFICATE_REQUIRED: u64 = 0x100 + 116;

/// Our TLS stack refused the gateway's certificate, or the gateway refused ours: trying again won't help.
pub(super) fn is_verification_failure(reason: &CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::Transport { code: 0x100..=0x1ff, .. }
            | CloseReason::PeerTransport { code: 0x100..=0x1ff, .. }
    )
}

/// One of the two stacks refused the handshake itself: a ticket may have been the reason.
pub(super) fn is_handshake_failure(reason: &CloseReason) -> bool {
    matches!(reason, CloseReason::Transport { .. } | CloseReason::PeerTransport { .. })
}

/// The end of a connection in words, and the next step where there is one.
pub(in crate::worker) fn explain(reason: &CloseReason) -> String {
    let advice = match reason {
        CloseReason::Transport { code: 0x100..=0x1ff, reason } => {
            if let Some(mismatch) = pin_mismatch(reason) {
                return format!(
                    "{mismatch}; if it was changed on purpose, give the new one to --pin, else somebody stands between"
                );
            }
            if reason.contains("not valid for name") {
                "name the gateway in the URL as its certificate does, or give --pin with the fingerprint that \
                 `beam serve` prints at start"
            } else {
                "its certificate is not trusted; give --ca FILE with the authority that signed it, or --pin with the \
                 fingerprint that `beam serve` prints at start"
            }
        }
        CloseReason::PeerTransport { code: CERTIFICATE_REQUIRED, .. } => {
            "it wants a client certificate; give --cert FILE and --key FILE"
        }
        CloseReason::PeerTransport { code: 0x100..=0x1ff, .. } => {
            "it does not accept our certificate; give --cert FILE and --key FILE of one that its --client-ca signed, or \
             have the key's identity (beam key pub) added to its users file (beam user add NAME --key)"
        }
        CloseReason::Refused => "try again later",
        _ => return reason.to_string(),
    };
    format!("{reason}; {advice}")
}

/// rustls wraps a verifier's own errors into Debug output; this is the message inside.
fn pin_mismatch(reason: &str) -> Option<&str> {
    reason.strip_prefix("invalid peer certificate: Other(OtherError(")?.strip_suffix("))")
}

/// Nobody answered.
pub(super) fn no_answer(host: &str, remote: SocketAddr, within: Duration) -> String {
    format!(
        "gateway {host} ({remote}): no answer within {} s; is `beam serve` running there, and do firewalls let \
         UDP port {} through?",
        within.as_secs(),
        remote.port()
    )
}

#[cfg(test)]
mod tests {
    //! Goal: what rustls says about a pin reaches the user in our words, with both fingerprints.
    use super::*;
    use rustls::{CertificateError, Error, OtherError};
    use std::sync::Arc;
    use tunnel::tls::{Fingerprint, PinMismatch};

    #[test]
    fn a_pin_mismatch_reads_as_a_sentence() {
        let mismatch = PinMismatch { pinned: Fingerprint([1; 32]), seen: Fingerprint([2; 32]) };
        let error = Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(mismatch))));
        let said = explain(&CloseReason::Transport { code: 0x12e, reason: error.to_string() });
        let (one, two) = ("01".repeat(32), "02".repeat(32));
        assert!(
            said.starts_with(&format!(
                "the gateway's certificate is sha256:{two}, pinned is sha256:{one}; if"
            )),
            "{said}"
        );
    }
}
