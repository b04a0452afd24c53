//! Session tickets that outlive the process: what a client needs for early data after a restart.
//!
//! rustls hands a client its tickets as opaque values that can't be written down. What is in them can be had, though, by
//! its public traits alone, and be put into a new one:
//!
//! ```text
//!  capture    CRYPTO stream ─► [`session`]: NewSessionTicket messages, as they came      ┐
//!             HKDF of our suites ─► [`hkdf`]: the PSK that rustls derived for each       ├─► Ticket ─► Vault
//!             the value itself: suite, transport parameters; the peer's certificates     ┘
//!
//!  use        Vault ─► Ticket ─► [`rehydrate`]: a handshake in memory, our own client configuration against a server
//!             made up of the ticket's facts; then the stored message, and the stored PSK from the HKDF ─► a value
//! ```
//!
//! The value is rustls' own, bound to our verifier and credentials, as if its connection had just ended. The verifier
//! judges the stored certificates anew, at today's date ([`verifier`]), so that no ticket outlives the trust that it was
//! given under. Whatever goes wrong on the way (a version of rustls that derives otherwise, a damaged ticket) ends in a
//! full handshake: a wrong PSK fails to match its binder at the gateway, which then ignores the ticket or refuses the
//! handshake, and a ticket is used once.

pub(crate) mod hkdf;
mod rehydrate;
mod session;
mod store;
pub(crate) mod verifier;

#[cfg(test)]
mod tests;

pub use session::ResumingClient;
pub(crate) use store::Store;

use std::fmt;
use zeroize::Zeroizing;

/// A NewSessionTicket message is small; what is longer isn't kept.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Bytes of a whole ticket as it is written down: most are the gateway's certificates.
const TICKET_BYTES_MAX: usize = 64 << 10;
/// RFC 8446 section 4.6.1: no ticket lives longer.
const LIFETIME_MAX_S: u32 = 7 * 24 * 3600;

/// Everything that resumption needs, as plain bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The handshake message as the gateway sent it: ticket, age, nonce, lifetime, early data.
    pub(crate) message: Vec<u8>,
    /// The PSK that goes with it.
    pub(crate) psk: Zeroizing<Vec<u8>>,
    /// The suite of its connection, as TLS numbers it.
    pub(crate) suite: u16,
    /// When it came, in seconds since the Unix epoch.
    pub(crate) issued_unix_s: u64,
    /// The gateway's QUIC transport parameters, which early data has to keep to.
    pub(crate) quic_params: Vec<u8>,
    /// The application protocol of its connection.
    pub(crate) alpn: Vec<u8>,
    /// The gateway's certificates, leaf first.
    pub(crate) chain: Vec<Vec<u8>>,
}

impl fmt::Debug for Ticket {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket(issued {}, {} bytes)", self.issued_unix_s, self.message.len())
    }
}

/// Where tickets are kept. One for each gateway, trust and identity: whatever `take` gives is used with the
/// configuration that the vault was made for.
pub trait Vault: fmt::Debug + Send + Sync {
    /// A ticket, which is nobody's from now on. It is asked on the worker: no waiting for a disk.
    fn take(&self) -> Option<Ticket>;
    /// A ticket came.
    fn put(&self, ticket: Ticket);
}

impl Ticket {
    /// How many seconds after it came it is good for.
    pub fn lifetime_s(&self) -> u32 {
        message::lifetime_s(&self.message).unwrap_or(0).min(LIFETIME_MAX_S)
    }

    /// When it came, in seconds since the Unix epoch.
    pub fn issued_unix_s(&self) -> u64 {
        self.issued_unix_s
    }

    /// Bytes of memory.
    pub fn size_bytes(&self) -> usize {
        let chain: usize = self.chain.iter().map(Vec::len).sum();
        size_of::<Self>() + self.message.len() + self.psk.len() + self.quic_params.len() + chain
    }

    /// For a file that is ours alone: it holds the PSK.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(512));
        out.push(FORMAT);
        out.extend(self.suite.to_be_bytes());
        out.extend(self.issued_unix_s.to_be_bytes());
        for part in [&self.message, &*self.psk, &self.quic_params, &self.alpn] {
            write_part(&mut out, part);
        }
        out.extend((self.chain.len() as u32).to_be_bytes());
        self.chain.iter().for_each(|certificate| write_part(&mut out, certificate));
        out
    }

    /// What [`Ticket::to_bytes`] wrote; `None` if it is not that.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (&format, rest) = bytes.split_first()?;
        let (suite, rest) = rest.split_first_chunk::<2>()?;
        let (issued, mut rest) = rest.split_first_chunk::<8>()?;
        let message = read_part(&mut rest)?;
        let psk = Zeroizing::new(read_part(&mut rest)?);
        let quic_params = read_part(&mut rest)?;
        let alpn = read_part(&mut rest)?;
        let (count, mut rest) = rest.split_first_chunk::<4>()?;
        let mut chain = Vec::new();
        for _ in 0..u32::from_be_bytes(*count) {
            chain.push(read_part(&mut rest)?);
        }
        let ticket = Self {
            message,
            psk,
            suite: u16::from_be_bytes(*suite),
            issued_unix_s: u64::from_be_bytes(*issued),
            quic_params,
            alpn,
            chain,
        };
        (format == FORMAT && rest.is_empty()).then_some(ticket)
    }
}

const FORMAT: u8 = 1;

fn write_part(out: &mut Vec<u8>, part: &[u8]) {
    out.extend((part.len() as u32).to_be_bytes());
    out.extend(part);
}

fn read_part(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (part, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *rest = after;
    Some(part.to_vec())
}

/// A NewSessionTicket message (RFC 8446 section 4.6.1), as far as we read it.
pub(crate) mod message {
    pub(crate) const NEW_SESSION_TICKET: u8 = 4;
    pub(crate) const HEADER_BYTES: usize = 4;

    pub(crate) fn lifetime_s(message: &[u8]) -> Option<u32> {
        let lifetime = message.get(HEADER_BYTES..)?.first_chunk::<4>()?;
        Some(u32::from_be_bytes(*lifetime))
    }

    /// The nonce, from which its PSK is derived.
    pub(crate) fn nonce(message: &[u8]) -> Option<&[u8]> {
        // Lifetime and age_add come before it.
        let rest = message.get(HEADER_BYTES + 8..)?;
        let (&length, rest) = rest.split_first()?;
        rest.get(..usize::from(length))
    }
}
