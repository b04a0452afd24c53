//! What one direction of the path does to datagrams: plain numbers, drawn by a scenario, obeyed by [`Link`](crate::link::Link).

use rand::RngExt;
use rand::rngs::StdRng;
use std::time::Duration;

/// How datagrams get lost. Chances are in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Not at all.
    None,
    /// Each with the same chance.
    Uniform {
        /// That chance.
        lost_permille: u32,
    },
    /// The two-state model of Gilbert and Elliott: the path has good and bad spells.
    Burst {
        /// Chance, at each datagram, that a good spell ends.
        enter_permille: u32,
        /// Chance, at each datagram, that a bad spell ends: its inverse is the length of a burst.
        leave_permille: u32,
        /// Chance of loss in a bad spell; in a good one nothing is lost.
        lost_permille: u32,
    },
}

/// What an attacker who sees the path does, beside the damage to datagrams. Chances are in thousandths, at each datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attack {
    /// Sends a datagram of before again.
    pub replay_permille: u32,
    /// Sends a copy from an address of his own. It races the original, and wins half of the time.
    pub spoof_permille: u32,
    /// Sends a datagram with random bytes behind the header of a real one, or one with the CID of another.
    pub forge_permille: u32,
}

/// What one direction of the path does to datagrams. Chances are in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Impairments {
    /// Loss.
    pub loss: Loss,
    /// Chance that it arrives twice.
    pub duplicate_permille: u32,
    /// Chance that one bit of it flips.
    pub corrupt_permille: u32,
    /// Chance that its end is cut off.
    pub truncate_permille: u32,
    /// Chance that random bytes are appended.
    pub tail_permille: u32,
    /// Chance that a datagram with a long header gets the next datagram of the same path as its tail, as if coalesced.
    pub glue_permille: u32,
    /// Chance that it is late by up to `reorder_by`, so that others overtake it.
    pub reorder_permille: u32,
    /// The most that a late datagram is late.
    pub reorder_by: Duration,
    /// Chance that it is held back until up to `hold_datagrams` others have been sent, or for five seconds.
    pub hold_permille: u32,
    /// See `hold_permille`.
    pub hold_datagrams: u64,
    /// One-way delay.
    pub delay: Duration,
    /// Up to so much more delay, by dice at each datagram.
    pub jitter: Duration,
    /// Larger UDP payloads are dropped.
    pub mtu_bytes: usize,
    /// The bottleneck's speed; 0 is no bottleneck.
    pub bottleneck_bytes_per_ms: u32,
    /// What its queue holds; more is dropped.
    pub queue_bytes: u32,
    /// Whether ECN bits survive the path.
    pub ecn: bool,
    /// Chance of a congestion mark on a datagram that bears ECN bits.
    pub mark_permille: u32,
    /// What an attacker adds.
    pub attack: Attack,
}

impl Impairments {
    /// A clean path.
    pub fn none(delay: Duration) -> Self {
        Self {
            loss: Loss::None,
            duplicate_permille: 0,
            corrupt_permille: 0,
            truncate_permille: 0,
            tail_permille: 0,
            glue_permille: 0,
            reorder_permille: 0,
            reorder_by: Duration::ZERO,
            hold_permille: 0,
            hold_datagrams: 0,
            delay,
            jitter: Duration::ZERO,
            mtu_bytes: 1472,
            bottleneck_bytes_per_ms: 0,
            queue_bytes: 0,
            ecn: false,
            mark_permille: 0,
            attack: Attack::default(),
        }
    }

    /// A path drawn from `rng`: from clean to quite bad, without an attacker.
    pub fn random(rng: &mut StdRng) -> Self {
        let delay = Duration::from_micros(rng.random_range(50..60_000));
        let mut draw = |max: u32| if rng.random_ratio(1, 3) { 0 } else { rng.random_range(0..max) };
        Self {
            loss: Loss::Uniform { lost_permille: draw(50) },
            duplicate_permille: draw(30),
            corrupt_permille: draw(20),
            reorder_permille: draw(100),
            reorder_by: Duration::from_micros(draw(20_000).into()),
            mtu_bytes: 1200 + draw(400) as usize,
            ..Self::none(delay)
        }
    }
}
