//! The packet protection that this CPU can run.

use super::{finding::Finding, host::Host};

/// Which packet protection runs, and whether it agrees with ring on this CPU.
pub(super) fn simd(host: &Host) -> Finding {
    let best = tunnel::Level::best();
    let needed =
        format!("avx2 or avx512 for full speed; the best that this CPU has is {best} ({})", best.needs());
    let level = match host.plan.simd.level() {
        Ok(level) => level,
        Err(error) => return Finding::fail(error.to_string(), needed).command("unset BEAM_SIMD"),
    };
    let differs = tunnel::ciphers_that_differ_from_ring(level);
    if !differs.is_empty() {
        let seen = format!("{level} and ring give different bytes for {}", differs.join(", "));
        return Finding::fail(seen, needed)
            .command("beam serve --simd ring ... (and report the CPU, please)");
    }
    let seen = format!("{level} runs: packets are sealed and opened in batches, and ring agrees with it");
    if level < best {
        return Finding::warn(format!("{seen}; it was forced"), needed).command("unset BEAM_SIMD");
    }
    match level == tunnel::Level::RING {
        true => Finding::warn("ring runs, packet by packet: this CPU has no AES-NI", needed),
        false => Finding::pass(seen, needed),
    }
}
