//! The operations that are measured one by one: by the clock in criterion benches of the same names, by allocations beside
//! it, and by instructions in `bench-instructions`. One definition serves all three.
//!
//! ```text
//!  Op::prepare ─► Pass ── each pass ──► Meter::measure(part), Meter::measure(part), ...   what is around them is set-up
//!                                          ▲ Clock · Counter · Callgrind
//! ```
//!
//! Each operation checks by assertions, in its set-up and in its passes, that it does what its name says.

mod caches;
mod checksum;
mod cid;
mod framing;
mod handshake;
mod rings;
mod steering;
mod timers;
mod tunnels;

use crate::allocations::{self, Allocations};
use crate::clock;

/// Measures parts of a pass.
pub trait Meter {
    /// Runs `part`, and counts it.
    fn measure(&mut self, part: &mut dyn FnMut());
}

/// Ticks of the time-stamp counter.
#[derive(Debug, Default)]
pub struct Clock {
    /// Of all parts.
    pub ticks: u64,
}

impl Meter for Clock {
    fn measure(&mut self, part: &mut dyn FnMut()) {
        let begin = clock::ticks();
        part();
        self.ticks += clock::ticks() - begin;
    }
}

/// Allocations, by a program that counts them.
#[derive(Debug, Default)]
pub struct Counter {
    /// Of all parts.
    pub allocations: Allocations,
}

impl Meter for Counter {
    fn measure(&mut self, part: &mut dyn FnMut()) {
        let before = allocations::seen();
        part();
        self.allocations += allocations::seen() - before;
    }
}

/// What a pass did. Ends of flows and bursts don't fall together, so it may be a little more than was meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// How many of the operation's unit.
    pub units: u64,
    /// Payload bytes, where there is payload.
    pub bytes: u64,
}

/// Does the operation some times.
pub type Pass = Box<dyn FnMut(&mut dyn Meter) -> Done>;

/// How much set-up an operation gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Little: shows that it works.
    Try,
    /// As much as its figures need.
    Measure,
}

/// One operation.
pub struct Op {
    /// `group/name`.
    pub name: String,
    /// What a pass does many of.
    pub unit: &'static str,
    /// What a pass is meant to do; a rate is in bytes where there are some.
    pub meant: Done,
    /// Whether its instructions are counted: not where threads meet, where a disk answers, or where only the caches of the
    /// CPU make the difference.
    pub counted: bool,
    prepare: Box<dyn Fn(Effort) -> Pass>,
}

impl Op {
    fn new<P>(name: String, unit: &'static str, meant: Done, prepare: impl Fn(Effort) -> P + 'static) -> Self
    where
        P: FnMut(&mut dyn Meter) -> Done + 'static,
    {
        Self { name, unit, meant, counted: true, prepare: Box::new(move |effort| Box::new(prepare(effort))) }
    }

    /// An operation that needs no set-up within a pass: `work` does it `units` times.
    fn simple<W: FnMut() + 'static>(
        name: String,
        unit: &'static str,
        units: u64,
        prepare: impl Fn() -> W + 'static,
    ) -> Self {
        let done = Done { units, bytes: 0 };
        Self::new(name, unit, done, move |_| {
            let mut work = prepare();
            move |meter: &mut dyn Meter| {
                meter.measure(&mut work);
                done
            }
        })
    }

    fn uncounted(self) -> Self {
        Self { counted: false, ..self }
    }

    /// Makes the operation ready.
    ///
    /// # Panics
    /// If it isn't what its name says.
    #[must_use]
    pub fn prepare(&self, effort: Effort) -> Pass {
        (self.prepare)(effort)
    }

    /// The criterion bench that it belongs to.
    #[must_use]
    pub fn group(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }
}

/// Every operation, bench by bench.
#[must_use]
pub fn all() -> Vec<Op> {
    let groups = [
        tunnels::ops(),
        handshake::ops(),
        steering::ops(),
        checksum::ops(),
        rings::ops(),
        timers::ops(),
        cid::ops(),
        caches::ops(),
        framing::ops(),
    ];
    groups.into_iter().flatten().collect()
}

/// A small deterministic generator (SplitMix64).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
