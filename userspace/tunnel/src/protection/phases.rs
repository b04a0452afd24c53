//! The keys of the next key phase, derived when they are first used.
//!
//! quinn wants them in its hand from the handshake on, and most connections of an idle gateway never come to a second
//! phase. So it gets a pair that stands for them: the secrets that they would be made from, and limits, which it asks for
//! at once.
//!
//! RFC 9001 section 6.3 allows making receive keys as part of packet processing, and names the price: time may tell that
//! a packet's phase bit was flipped. Here that is once a connection and phase, for the first packet with the other bit,
//! forged or not; derived, they stay. A forgery so costs at most four HKDF expansions more, once.

use bytes::BytesMut;
use quinn_proto::crypto::{CryptoError, KeyPair, PacketKey};
use rustls::quic::{self, PacketKeySet, Secrets};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// One connection's key phases that are still to come.
pub(crate) struct Phases {
    newest: Arc<Phase>,
    /// quinn has its keys.
    is_given: bool,
}

/// A key phase, derived or not.
struct Phase {
    /// Present until then.
    secrets: Mutex<Option<Box<Secrets>>>,
    derived: OnceLock<Box<Derived>>,
    confidentiality_limit: u64,
    integrity_limit: u64,
}

struct Derived {
    keys: PacketKeySet,
    /// Of the phase after it. Taken when that begins to be the next.
    after: Mutex<Option<Box<Secrets>>>,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Phase>() <= 48 && size_of::<Secrets>() <= 176);

impl Phases {
    /// `next` are the secrets of the phase after that of `key`, a key of the same suite.
    pub(crate) fn new(next: Secrets, key: &dyn quic::PacketKey) -> Self {
        let limits = (key.confidentiality_limit(), key.integrity_limit());
        Self { newest: Arc::new(Phase::new(Some(Box::new(next)), limits)), is_given: false }
    }

    /// The keys of the next phase. The first call gives those after the handshake's, each further call those after.
    pub(crate) fn next_keys(&mut self) -> KeyPair<Box<dyn PacketKey>> {
        if std::mem::replace(&mut self.is_given, true) {
            let limits = (self.newest.confidentiality_limit, self.newest.integrity_limit);
            let after = self.newest.derived().after.lock().unwrap_or_else(PoisonError::into_inner).take();
            self.newest = Arc::new(Phase::new(after, limits));
        }
        let key =
            |is_local| -> Box<dyn PacketKey> { Box::new(Lazy { phase: self.newest.clone(), is_local }) };
        KeyPair { local: key(true), remote: key(false) }
    }
}

impl Phase {
    fn new(secrets: Option<Box<Secrets>>, (confidentiality_limit, integrity_limit): (u64, u64)) -> Self {
        Self {
            secrets: Mutex::new(secrets),
            derived: OnceLock::new(),
            confidentiality_limit,
            integrity_limit,
        }
    }

    fn derived(&self) -> &Derived {
        self.derived.get_or_init(|| {
            let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(mut secrets) = secrets else { unreachable!("they are there until this has run, once") };
            let keys = secrets.next_packet_keys();
            Box::new(Derived { keys, after: Mutex::new(Some(secrets)) })
        })
    }
}

/// One of a phase's two keys.
struct Lazy {
    phase: Arc<Phase>,
    is_local: bool,
}

impl Lazy {
    fn key(&self) -> &dyn quic::PacketKey {
        let keys = &self.phase.derived().keys;
        if self.is_local { &*keys.local } else { &*keys.remote }
    }
}

impl PacketKey for Lazy {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        let (header, rest) = buf.split_at_mut(header_len);
        let (payload, tag) = rest.split_at_mut(rest.len() - simd::TAG_BYTES);
        // The only refusal is a packet longer than the AEAD allows.
        let Ok(sealed) = self.key().encrypt_in_place(packet, header, payload) else {
            unreachable!("a packet of {} bytes", payload.len())
        };
        tag.copy_from_slice(sealed.as_ref());
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        let plain = self.key().decrypt_in_place(packet, header, payload).map_err(|_| CryptoError)?;
        let plain_bytes = plain.len();
        payload.truncate(plain_bytes);
        Ok(())
    }

    fn tag_len(&self) -> usize {
        simd::TAG_BYTES
    }

    fn confidentiality_limit(&self) -> u64 {
        self.phase.confidentiality_limit
    }

    fn integrity_limit(&self) -> u64 {
        self.phase.integrity_limit
    }
}
