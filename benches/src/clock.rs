//! Cycles: ticks of the time-stamp counter, and how many core cycles one is.
//!
//! The counter runs at a fixed rate, the core at whatever its governor and its neighbours leave it. A chain of dependent
//! multiplications, whose latency is known, tells one from the other; it is run beside each figure, since the rate moves.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Cycles of one link of the chain: a 64-bit multiplication (3) and an exclusive or (1). So it is on every x86-64 core
/// since 2008 that has AES instructions, and on Arm's Neoverse; on others the figures are off by one factor, the ratios aren't.
const LINK_CYCLES: f64 = 4.0;
const LINKS: u64 = 5_000;
const CHAINS: usize = 15;

/// A reading of the counter. Later readings are larger on one core.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the intrinsics are declared unsafe")]
#[inline]
#[must_use]
pub fn ticks() -> u64 {
    use std::arch::x86_64::{_mm_lfence, _rdtsc};
    // The fence keeps the reading behind the loads and arithmetic that it ends. SAFETY: SSE2 is part of x86-64.
    unsafe { _mm_lfence() };
    // SAFETY: Linux lets user space read the counter.
    unsafe { _rdtsc() }
}

/// As on x86-64, from the clock: nanoseconds.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
#[must_use]
pub fn ticks() -> u64 {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// What the counter's ticks are worth.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Ticks a nanosecond.
    pub ticks_per_ns: f64,
}

impl Rate {
    /// Compares the counter with the clock, over 20 ms.
    #[must_use]
    pub fn measured() -> Self {
        let (begin, from) = (Instant::now(), ticks());
        while begin.elapsed() < Duration::from_millis(20) {}
        let (to, elapsed) = (ticks(), begin.elapsed());
        Self { ticks_per_ns: (to - from) as f64 / elapsed.as_nanos() as f64 }
    }

    /// So many ticks as time.
    #[must_use]
    pub fn duration(&self, ticks: f64) -> Duration {
        Duration::from_nanos((ticks / self.ticks_per_ns).round() as u64)
    }
}

/// Core cycles a tick, now: the best of some chains of a few microseconds, so that an interruption can't spoil it.
#[must_use]
pub fn cycles_per_tick() -> f64 {
    let chains = (0..CHAINS).map(|_| {
        let begin = ticks();
        black_box(chain(black_box(LINKS)));
        ticks() - begin
    });
    let best = chains.min().unwrap_or(1).max(1);
    LINKS as f64 * LINK_CYCLES / best as f64
}

#[inline(never)]
fn chain(links: u64) -> u64 {
    let (factor, mask) = (black_box(0x9e37_79b9_7f4a_7c15), black_box(0x0123_4567_89ab_cdef));
    (0..links).fold(1u64, |x, _| x.wrapping_mul(factor) ^ mask)
}

/// What two readings cost by themselves, in ticks.
#[must_use]
pub fn reading_ticks() -> u64 {
    let empty = (0..1000).map(|_| {
        let begin = ticks();
        ticks() - begin
    });
    empty.min().unwrap_or(0)
}
