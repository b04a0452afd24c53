//! The whole path in memory: a sender and a receiver on one thread, no kernel, each timed by itself.
//!
//! ```text
//!   prepare ─► send ──── 32 datagrams ───► receive ─► (payload counted)
//!  (untimed)    ▲  sender's time      receiver's time │
//!               └─ acknowledge ◄──── its answers ─────┘
//! ```
//!
//! A [`Flow`] is one of the [`Mode`]s over one connection: a bulk transfer from the server to the client over one stream,
//! after a real handshake. The clock is virtual and moves by 50 us a burst.

mod bare;
mod beam;
mod crypto;
mod meters;
mod null;

use crate::clock;
use crate::ops::Meter;
use beam::How;
use simd::{Cipher, Level};
use std::time::{Duration, Instant};
use tunnel::Protection;

/// Datagrams of a burst, at most.
pub const BURST: usize = 32;
/// Bytes of one write to the stream: what beam reads from a socket at once.
const BLOCK_BYTES: usize = 64 << 10;
/// Bytes that the sender keeps written ahead of what was received, which a burst can't exhaust.
const AHEAD_BYTES: u64 = 512 << 10;
/// UDP payload sizes that are measured.
pub const MTUS: [u16; 3] = [1200, 1452, 8972];
/// Bursts until a flow must have done what is asked of it.
const BURSTS_MAX: u64 = 10_000_000;

/// What drives quinn-proto.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing of beam: quinn-proto's endpoint and connection in a small loop, ring's protection packet by packet. No
    /// frames, no MASQUE.
    QuinnAlone,
    /// Beam's engine with frames and MASQUE, ring's protection and scalar validation, packet by packet.
    Eager,
    /// The same with protection in batches, out of place, and validation of bursts.
    Batched,
}

impl Mode {
    /// All of them, the reference first.
    pub const ALL: [Self; 3] = [Self::QuinnAlone, Self::Eager, Self::Batched];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::QuinnAlone => "quinn_alone",
            Self::Eager => "eager",
            Self::Batched => "batched",
        }
    }
}

/// What a flow is set up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// What drives quinn-proto.
    pub mode: Mode,
    /// The AEAD; `None`: keys that do nothing, called packet by packet, so that the rest is seen.
    pub cipher: Option<Cipher>,
    /// Bytes of UDP payload.
    pub mtu: u16,
    /// The vector level of [`Mode::Batched`].
    pub level: Level,
}

/// What a worker does beside moving packets, which can be left out to see what it costs. By default as in beam.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extras {
    /// Histograms are kept, of the engine and of the loop.
    pub metrics: bool,
    /// The cipher is the copy; without, each batch is copied once more, in and out.
    pub fused_copy: bool,
}

impl Default for Extras {
    fn default() -> Self {
        Self { metrics: true, fused_copy: true }
    }
}

/// One bulk transfer, its steps in the order of a burst.
trait Flow {
    /// What the outside world does: the next blocks lie in memory. Not timed.
    fn prepare(&mut self);
    /// The sender writes and sends up to [`BURST`] datagrams. Returns how many.
    fn send(&mut self, now: Instant) -> usize;
    /// The receiver takes them, reads the stream and sends its answers. Returns the payload bytes that it got.
    fn receive(&mut self, now: Instant) -> u64;
    /// The sender takes the answers.
    fn acknowledge(&mut self, now: Instant);
    /// The sender's idea of the path's MTU, in bytes of UDP payload.
    fn mtu(&mut self) -> u16;
}

/// Whose work a [`Bench::pass`] measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The sender's.
    Out,
    /// The receiver's.
    In,
    /// That of both, one after the other.
    Both,
}

/// A flow with its clock.
pub struct Bench {
    flow: Box<dyn Flow>,
    now: Instant,
}

/// What some bursts cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// The sender's ticks.
    pub ticks_out: u64,
    /// The receiver's ticks.
    pub ticks_in: u64,
    /// Datagrams from sender to receiver.
    pub packets: u64,
    /// Payload that the receiver's application got.
    pub payload_bytes: u64,
    /// Bursts.
    pub bursts: u64,
}

impl Bench {
    /// A connected pair that has sent `warm_packets` already.
    ///
    /// # Panics
    /// If there is no handshake, or the path's MTU isn't what was asked for.
    #[must_use]
    pub fn new(setup: Setup, warm_packets: u64) -> Self {
        Self::with(setup, Extras::default(), warm_packets)
    }

    /// As [`Self::new`]; bare quinn-proto has no extras.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn with(setup: Setup, extras: Extras, warm_packets: u64) -> Self {
        let Setup { mode, cipher, mtu, level } = setup;
        let now = Instant::now();
        let flow: Box<dyn Flow> = match mode {
            Mode::QuinnAlone => Box::new(bare::Bare::connected(now, cipher, mtu)),
            Mode::Eager => {
                let how = How { protection: Protection::Eager, validation: Level::RING, extras };
                Box::new(beam::Beam::connected(now, how, cipher, mtu))
            }
            Mode::Batched => {
                let protection =
                    if cipher.is_some() { Protection::Batched(level) } else { Protection::Eager };
                let how = How { protection, validation: level, extras };
                Box::new(beam::Beam::connected(now, how, cipher, mtu))
            }
        };
        let mut bench = Self { flow, now: now + Duration::from_secs(1) };
        bench.run(warm_packets);
        assert_eq!(bench.flow.mtu(), mtu, "{}: the path's MTU", mode.name());
        bench
    }

    /// Sends at least `packets`, and times it.
    pub fn run(&mut self, packets: u64) -> Cost {
        let (send, receive) =
            (|flow: &mut dyn Flow, now| flow.send(now), |flow: &mut dyn Flow, now| flow.receive(now));
        self.bursts(packets, send, receive, |flow, now| flow.acknowledge(now))
    }

    /// As [`Self::run`], through functions whose names `callgrind` looks for.
    pub fn run_counted(&mut self, packets: u64) -> Cost {
        self.bursts(packets, counted_out_send, counted_in_receive, counted_out_acknowledge)
    }

    /// Moves at least so much payload, what `side` does measured by `meter`. The cost bears no ticks.
    pub fn pass(&mut self, payload_bytes: u64, side: Side, meter: &mut dyn Meter) -> Cost {
        let mut cost = Cost::default();
        let mut part = |own: Side, work: &mut dyn FnMut()| {
            if side == Side::Both || side == own { meter.measure(work) } else { work() }
        };
        while cost.payload_bytes < payload_bytes {
            assert!(cost.bursts < BURSTS_MAX, "the flow stands still after {} packets", cost.packets);
            self.now += Duration::from_micros(50);
            let (flow, now) = (self.flow.as_mut(), self.now);
            flow.prepare();
            part(Side::Out, &mut || cost.packets += flow.send(now) as u64);
            part(Side::In, &mut || cost.payload_bytes += flow.receive(now));
            part(Side::Out, &mut || flow.acknowledge(now));
            cost.bursts += 1;
        }
        cost
    }

    fn bursts(
        &mut self,
        packets: u64,
        send: fn(&mut dyn Flow, Instant) -> usize,
        receive: fn(&mut dyn Flow, Instant) -> u64,
        acknowledge: fn(&mut dyn Flow, Instant),
    ) -> Cost {
        let mut cost = Cost::default();
        while cost.packets < packets {
            assert!(cost.bursts < BURSTS_MAX, "the flow stands still after {} packets", cost.packets);
            self.now += Duration::from_micros(50);
            let flow = self.flow.as_mut();
            flow.prepare();
            let begin = clock::ticks();
            cost.packets += send(flow, self.now) as u64;
            let sent = clock::ticks();
            cost.payload_bytes += receive(flow, self.now);
            let received = clock::ticks();
            acknowledge(flow, self.now);
            let end = clock::ticks();
            cost.ticks_out += (sent - begin) + (end - received);
            cost.ticks_in += received - sent;
            cost.bursts += 1;
        }
        cost
    }
}

#[inline(never)]
fn counted_out_send(flow: &mut dyn Flow, now: Instant) -> usize {
    flow.send(now)
}

#[inline(never)]
fn counted_in_receive(flow: &mut dyn Flow, now: Instant) -> u64 {
    flow.receive(now)
}

#[inline(never)]
fn counted_out_acknowledge(flow: &mut dyn Flow, now: Instant) {
    flow.acknowledge(now);
}
