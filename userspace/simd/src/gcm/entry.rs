//! From a level to the code that was compiled for it.

use super::{aesni::AesNi, avx2::Avx2, avx512::Avx512, quad};
use crate::{Cipher, Level, MaskJob, OpenJob, SealJob, level::Kind};

/// The three operations, compiled for the instructions of one token.
macro_rules! compiled {
    ($name:ident, $token:expr, $features:literal) => {
        pub(super) mod $name {
            use super::*;

            #[target_feature(enable = $features)]
            pub(in super::super) fn seal(cipher: Cipher, jobs: &mut [SealJob<'_>]) {
                match cipher {
                    Cipher::Aes256Gcm => quad::seal::<_, 14>($token, jobs),
                    _ => quad::seal::<_, 10>($token, jobs),
                }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn open(cipher: Cipher, jobs: &mut [OpenJob<'_>]) {
                match cipher {
                    Cipher::Aes256Gcm => quad::open::<_, 14>($token, jobs),
                    _ => quad::open::<_, 10>($token, jobs),
                }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn mask(cipher: Cipher, jobs: &mut [MaskJob<'_>]) {
                match cipher {
                    Cipher::Aes256Gcm => quad::mask::<_, 14>($token, AesNi::token(), jobs),
                    _ => quad::mask::<_, 10>($token, AesNi::token(), jobs),
                }
            }
        }
    };
}

#[cfg(test)]
pub(super) use compiled;

compiled!(aesni, AesNi::token(), "aes,pclmulqdq,ssse3,sse4.1");
compiled!(avx2, Avx2::token(), "avx2,vaes,vpclmulqdq,aes,pclmulqdq");
compiled!(avx512, Avx512::token(), "avx512f,avx512bw,avx512vl,avx512dq,avx2,vaes,vpclmulqdq,aes,pclmulqdq");

/// Gives jobs to the level's own code.
macro_rules! dispatch {
    ($level:ident, $operation:ident, $jobs:ident) => {{
        let cipher = $jobs[0].key.cipher();
        match $level.kind() {
            Kind::Ring => return false,
            // SAFETY: a `Level` names only what this CPU has.
            Kind::AesNi => unsafe { aesni::$operation(cipher, $jobs) },
            // SAFETY: as above.
            Kind::Avx2 => unsafe { avx2::$operation(cipher, $jobs) },
            // SAFETY: as above.
            Kind::Avx512 => unsafe { avx512::$operation(cipher, $jobs) },
        }
        true
    }};
}

/// Seals jobs that are all of one AES-GCM. `false`: nothing was done, the level has no implementation.
pub(crate) fn seal(level: Level, jobs: &mut [SealJob<'_>]) -> bool {
    dispatch!(level, seal, jobs)
}

/// Opens jobs that are all of one AES-GCM. `false`: nothing was done, the level has no implementation.
pub(crate) fn open(level: Level, jobs: &mut [OpenJob<'_>]) -> bool {
    dispatch!(level, open, jobs)
}

/// Masks for keys that are all of one AES. `false`: nothing was done, the level has no implementation.
pub(crate) fn mask(level: Level, jobs: &mut [MaskJob<'_>]) -> bool {
    dispatch!(level, mask, jobs)
}
