//! Which packet protection a daemon runs: the flag, what becomes of it, and what `status` tells.

use crate::failure::Failure;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tunnel::{Level, LevelError, Protection, Stats};

/// `--simd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Simd {
    /// The best that this CPU has
    Auto,
    /// AVX-512 with VAES and VPCLMULQDQ
    Avx512,
    /// AVX2 with VAES and VPCLMULQDQ
    Avx2,
    /// AES-NI and PCLMULQDQ
    Aesni,
    /// ring, packet by packet
    Ring,
}

impl Simd {
    /// The level that it names.
    pub(crate) fn level(self) -> Result<Level, LevelError> {
        match self {
            Self::Auto => "auto",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Aesni => "aesni",
            Self::Ring => "ring",
        }
        .parse()
    }

    /// What the engines are to do; said aloud.
    pub(crate) fn protection(self) -> Result<Protection, Failure> {
        let level = self.level().map_err(Failure::preflight)?;
        let why = match (self, level == Level::best()) {
            (Self::Auto, _) => "the best that this CPU has".to_owned(),
            (_, true) => "as asked; it is also the best that this CPU has".to_owned(),
            (_, false) => format!("as asked; this CPU also has {}", Level::best()),
        };
        tracing::info!("packet protection: {level} ({why})");
        Ok(Protection::at(level))
    }
}

/// How a daemon protects its packets, over all workers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ProtectionStatus {
    /// `avx512`, `avx2`, `aesni` or `ring`: what runs now.
    pub(crate) simd: String,
    /// The best that this CPU has.
    pub(crate) simd_best: String,
    pub(crate) packets_sealed_in_batches: u64,
    pub(crate) packets_opened_in_batches: u64,
    pub(crate) batches: u64,
    /// Packets that ring has opened once more, to compare.
    pub(crate) canary_checked: u64,
    pub(crate) canary_failed: u64,
    /// A canary has failed: ring runs instead of the level that was chosen.
    pub(crate) stopped: bool,
}

impl ProtectionStatus {
    pub(crate) fn new(level: Level, stopped: bool, stats: &Stats) -> Self {
        Self {
            simd: level.name().to_owned(),
            simd_best: Level::best().name().to_owned(),
            packets_sealed_in_batches: stats.packets_sealed_in_batches,
            packets_opened_in_batches: stats.packets_opened_in_batches,
            batches: stats.protection_batches,
            canary_checked: stats.canary_checked,
            canary_failed: stats.canary_failed,
            stopped,
        }
    }

    /// Adds another worker's. One stopped worker says all are.
    pub(crate) fn add(&mut self, other: &Self) {
        self.packets_sealed_in_batches += other.packets_sealed_in_batches;
        self.packets_opened_in_batches += other.packets_opened_in_batches;
        self.batches += other.batches;
        self.canary_checked += other.canary_checked;
        self.canary_failed += other.canary_failed;
        self.stopped |= other.stopped;
        self.simd.clone_from(&other.simd);
        self.simd_best.clone_from(&other.simd_best);
    }

    /// One line for a person, or two when there is an alert.
    pub(crate) fn line(&self) -> String {
        let packets = self.packets_sealed_in_batches + self.packets_opened_in_batches;
        let mut line = match self.batches {
            0 if self.simd == Level::RING.name() => "protection: ring, packet by packet".to_owned(),
            _ => self.batches_line(packets),
        };
        if self.stopped {
            line.push_str(
                "\nALERT: the SIMD path was stopped (the log says why): ring does all the work until the daemon is restarted; run `beam doctor simd`",
            );
        }
        line
    }

    fn batches_line(&self, packets: u64) -> String {
        format!(
            "protection: {}, {packets} packets in batches of {:.1} on average; canary looked at {}, {} differed",
            self.simd,
            packets as f64 / self.batches.max(1) as f64,
            self.canary_checked,
            self.canary_failed
        )
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the screen's line counts right, and a stopped SIMD path can't be overlooked.
    use super::*;

    #[test]
    fn the_line_says_what_runs_and_alerts() {
        let stats = Stats {
            packets_sealed_in_batches: 30,
            packets_opened_in_batches: 15,
            protection_batches: 10,
            canary_checked: 2,
            ..Stats::default()
        };
        let quiet = ProtectionStatus::new(Level::RING, false, &Stats::default());
        assert_eq!(quiet.line(), "protection: ring, packet by packet");
        let mut all = ProtectionStatus::default();
        all.add(&ProtectionStatus::new(Level::RING, false, &stats));
        assert_eq!(
            all.line(),
            "protection: ring, 45 packets in batches of 4.5 on average; canary looked at 2, 0 differed"
        );
        all.add(&ProtectionStatus::new(Level::RING, true, &Stats { canary_failed: 1, ..stats }));
        assert!(all.line().contains("\nALERT: "));
        assert_eq!((all.batches, all.canary_failed), (20, 1));
    }
}
