//! ChaCha20-Poly1305 (RFC 8439) in batches, and ChaCha20 header-protection masks.

use crate::{Level, MaskJob, OpenJob, SealJob};

/// Seals jobs that are all ChaCha20-Poly1305. `false`: nothing was done, the level has no implementation.
pub(crate) fn seal(_level: Level, _jobs: &mut [SealJob<'_>]) -> bool {
    false
}

/// Opens jobs that are all ChaCha20-Poly1305. `false`: nothing was done, the level has no implementation.
pub(crate) fn open(_level: Level, _jobs: &mut [OpenJob<'_>]) -> bool {
    false
}

/// Masks for keys that are all ChaCha20. `false`: nothing was done, the level has no implementation.
pub(crate) fn mask(_level: Level, _jobs: &mut [MaskJob<'_>]) -> bool {
    false
}
