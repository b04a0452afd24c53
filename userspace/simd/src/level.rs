//! Which implementation runs: probed once, or forced.

use std::{fmt, str::FromStr, sync::LazyLock};

/// An implementation that this CPU can run. There is no way to make one that it can't, so safe code never reaches an
/// instruction that isn't there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(Kind);

/// In order of preference, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Ring,
    AesNi,
    Avx2,
    Avx512,
}

/// What each level needs, beside its name.
const NEEDS: [(Kind, &str, &str); 4] = [
    (Kind::Ring, "ring", "nothing"),
    (Kind::AesNi, "aesni", "aes, pclmulqdq, ssse3, sse4.1"),
    (Kind::Avx2, "avx2", "avx2, vaes, vpclmulqdq, aes, pclmulqdq"),
    (Kind::Avx512, "avx512", "avx512f, avx512bw, avx512vl, avx512dq, avx2, vaes, vpclmulqdq"),
];

static AVAILABLE: LazyLock<Vec<Level>> =
    LazyLock::new(|| NEEDS.iter().map(|&(kind, ..)| Level(kind)).filter(|level| level.runs_here()).collect());

impl Level {
    /// ring, packet by packet. Runs everywhere.
    pub const RING: Self = Self(Kind::Ring);

    /// The levels that this CPU has, worst first; [`Level::RING`] is always among them.
    #[must_use]
    pub fn available() -> &'static [Self] {
        &AVAILABLE
    }

    /// The best level that this CPU has.
    #[must_use]
    pub fn best() -> Self {
        AVAILABLE.last().copied().unwrap_or(Self::RING)
    }

    /// The name that `BEAM_SIMD` and `--simd` know it by.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The CPU features that it needs, by their names in `/proc/cpuinfo`'s spelling of Rust.
    #[must_use]
    pub fn needs(self) -> &'static str {
        self.row().2
    }

    pub(crate) fn kind(self) -> Kind {
        self.0
    }

    fn row(self) -> (Kind, &'static str, &'static str) {
        NEEDS[self.0 as usize]
    }

    #[cfg(target_arch = "x86_64")]
    fn runs_here(self) -> bool {
        use std::arch::is_x86_feature_detected as has;
        let aesni = has!("aes") && has!("pclmulqdq") && has!("ssse3") && has!("sse4.1");
        let avx2 = aesni && has!("avx2") && has!("vaes") && has!("vpclmulqdq");
        match self.0 {
            Kind::Ring => true,
            Kind::AesNi => aesni,
            Kind::Avx2 => avx2,
            Kind::Avx512 => {
                avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq")
            }
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn runs_here(self) -> bool {
        self.0 == Kind::Ring
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A level that can't be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// No such name.
    #[error("`{seen}` is no SIMD level: needed is one of auto, avx512, avx2, aesni, ring")]
    Unknown {
        /// What was given.
        seen: String,
    },
    /// This CPU lacks it.
    #[error(
        "the SIMD level {wanted} can't run here: it needs the CPU features {needs}; the best that this CPU has is {best} (use --simd auto, or unset BEAM_SIMD)"
    )]
    Missing {
        /// What was given.
        wanted: &'static str,
        /// What that needs.
        needs: &'static str,
        /// What there is.
        best: Level,
    },
}

impl FromStr for Level {
    type Err = LevelError;

    /// Reads a level's name; `auto` is the best there is.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" {
            return Ok(Self::best());
        }
        let Some(&(kind, wanted, needs)) = NEEDS.iter().find(|(_, name, _)| *name == text) else {
            return Err(LevelError::Unknown { seen: text.into() });
        };
        let level = Self(kind);
        match AVAILABLE.contains(&level) {
            true => Ok(level),
            false => Err(LevelError::Missing { wanted, needs, best: Self::best() }),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: names and levels are one to one; what can't run can't be made.
    use super::*;

    #[test]
    fn names_round_trip_and_the_rest_is_refused() {
        for level in Level::available() {
            assert_eq!(level.name().parse(), Ok(*level));
        }
        assert_eq!("auto".parse(), Ok(Level::best()));
        for (kind, name, needs) in NEEDS {
            match name.parse::<Level>() {
                Ok(level) => assert_eq!(level.kind(), kind),
                Err(error) => {
                    assert!(!Level(kind).runs_here());
                    assert_eq!(error, LevelError::Missing { wanted: name, needs, best: Level::best() });
                }
            }
        }
        assert_eq!("sse9".parse::<Level>(), Err(LevelError::Unknown { seen: "sse9".into() }));
        assert!(NEEDS.iter().enumerate().all(|(index, row)| row.0 as usize == index));
    }
}
