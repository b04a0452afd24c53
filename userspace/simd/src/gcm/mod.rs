//! AES-128-GCM and AES-256-GCM (NIST SP 800-38D) in batches, and AES header-protection masks.

use crate::{Cipher, Level, MaskJob, OpenJob, SealJob};

/// What a packet key becomes when a batch first needs it.
pub(crate) struct PacketState {}

impl PacketState {
    pub(crate) fn new(_cipher: Cipher, _key: &[u8]) -> Self {
        Self {}
    }
}

/// What a header-protection key becomes when a batch first needs it.
pub(crate) struct HeaderState {}

impl HeaderState {
    pub(crate) fn new(_cipher: Cipher, _key: &[u8]) -> Self {
        Self {}
    }
}

/// Seals jobs that are all AES-GCM. `false`: nothing was done, the level has no implementation.
pub(crate) fn seal(_level: Level, _jobs: &mut [SealJob<'_>]) -> bool {
    false
}

/// Opens jobs that are all AES-GCM. `false`: nothing was done, the level has no implementation.
pub(crate) fn open(_level: Level, _jobs: &mut [OpenJob<'_>]) -> bool {
    false
}

/// Masks for keys that are all AES. `false`: nothing was done, the level has no implementation.
pub(crate) fn mask(_level: Level, _jobs: &mut [MaskJob<'_>]) -> bool {
    false
}
