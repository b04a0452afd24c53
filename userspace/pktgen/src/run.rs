//! The loop of one sending thread, and what it runs on.

use crate::pace::Pacer;
use std::{
    io,
    time::{Duration, Instant},
};
use xsk::{Flush, RawSocket, RawTally};

/// Frames that are put between two looks at the clock.
const BATCH: usize = 64;
/// A wait that is at least this long is slept, up to its last part; a shorter one is waited out awake.
const SLEEP_MIN: Duration = Duration::from_micros(200);
/// A signal is noticed after at most this long.
const SLEEP_MAX: Duration = Duration::from_millis(20);
/// How long the last frames may take to leave.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);

/// What the frames are made by.
pub trait Source {
    /// Writes the next frame from the slice's first byte on and says how long it is; `None` ends the run.
    fn fill(&mut self, now: Instant, frame: &mut [u8]) -> Option<usize>;
}

/// Time, and how to wait.
pub trait Clock {
    /// Now.
    fn now(&mut self) -> Instant;
    /// Comes back after about so long, or earlier.
    fn wait(&mut self, time: Duration);
}

/// The clock on the wall.
pub struct Wall;

impl Clock for Wall {
    fn now(&mut self) -> Instant {
        Instant::now()
    }

    fn wait(&mut self, time: Duration) {
        if time >= SLEEP_MIN {
            std::thread::sleep((time - SLEEP_MIN / 2).min(SLEEP_MAX));
        } else {
            std::hint::spin_loop();
        }
    }
}

/// What became of the frames.
pub type Tally = RawTally;

/// What the frames leave by.
pub trait Wire {
    /// Frames that may be put now.
    fn room(&mut self) -> usize;
    /// Has a frame written; false where there is none, or no room.
    fn put(&mut self, write: &mut dyn FnMut(&mut [u8]) -> Option<usize>) -> bool;
    /// Hands on what was put.
    ///
    /// # Errors
    /// It is broken for good.
    fn flush(&mut self) -> io::Result<Flush>;
    /// Whether all that was put is done with.
    fn is_idle(&mut self) -> bool;
    /// The counts so far.
    fn tally(&self) -> Tally;
}

impl Wire for RawSocket {
    fn room(&mut self) -> usize {
        self.room()
    }

    fn put(&mut self, write: &mut dyn FnMut(&mut [u8]) -> Option<usize>) -> bool {
        self.put(write)
    }

    fn flush(&mut self) -> io::Result<Flush> {
        self.flush()
    }

    fn is_idle(&mut self) -> bool {
        self.is_idle()
    }

    fn tally(&self) -> Tally {
        self.tally()
    }
}

/// How many frames leave, and when.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// So many frames; 0: until it is stopped.
    pub count: u64,
    /// Frames that leave together; at least 1.
    pub burst: usize,
    /// Nanoseconds from one burst to the next; 0: as fast as it goes.
    pub gap_ns: f64,
}

/// What came of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Frames that left.
    pub sent: u64,
    /// Frames that the device refused, or that were still waiting at the end.
    pub failed: u64,
    /// Bytes of all frames that were made.
    pub made_bytes: u64,
    /// From the first frame to the last.
    pub elapsed: Duration,
    /// It was stopped before the plan was done.
    pub stopped: bool,
}

impl Outcome {
    /// Frames a second that left.
    #[must_use]
    pub fn frames_per_s(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.sent as f64 / seconds } else { 0.0 }
    }
}

/// Sends by the plan until it is done, the source ends, or `stop` says so.
///
/// # Errors
/// The wire is broken for good.
pub fn run(
    wire: &mut impl Wire,
    source: &mut impl Source,
    plan: &Plan,
    clock: &mut impl Clock,
    stop: &dyn Fn() -> bool,
) -> io::Result<Outcome> {
    let before = wire.tally();
    let start = clock.now();
    let burst = plan.burst.max(1);
    let mut pacer = Pacer::new(start, plan.gap_ns);
    let mut left = if plan.count == 0 { u64::MAX } else { plan.count };
    let (mut made_bytes, mut over, mut stopped) = (0u64, false, false);
    while left > 0 && !over {
        if stop() {
            stopped = true;
            break;
        }
        let now = clock.now();
        let bursts = pacer.due(now, BATCH.div_ceil(burst));
        // A burst leaves whole, or waits for room; the last one may be short.
        let frames = usize::try_from(left).unwrap_or(usize::MAX).min(bursts * burst);
        let frames = frames.min(wire.room() / burst * burst);
        let mut put = 0;
        while put < frames && !over {
            let mut length = None;
            over = !wire.put(&mut |frame| {
                length = source.fill(now, frame);
                length
            });
            if !over {
                put += 1;
                made_bytes += length.unwrap_or(0) as u64;
            }
        }
        pacer.take(put.div_ceil(burst));
        left -= put as u64;
        let flushed = wire.flush()?;
        if put == 0 && !over {
            match bursts {
                0 => clock.wait(pacer.wait(now)),
                // No room: the kernel has to come first.
                _ if flushed == Flush::Waiting => std::thread::yield_now(),
                _ => std::hint::spin_loop(),
            }
        }
    }
    let elapsed = drain(wire, clock, start)?;
    let after = wire.tally();
    let put = after.put - before.put;
    // Frames of an earlier run may still wait, as those of an interface that is gone do, or be refused only now.
    let waiting = (after.put - after.done).saturating_sub(before.put - before.done);
    let failed = (after.refused - before.refused + waiting).min(put);
    Ok(Outcome { sent: put - failed, failed, made_bytes, elapsed, stopped })
}

/// Waits, within bounds, until the kernel is done with all frames; returns the time since `start`.
fn drain(wire: &mut impl Wire, clock: &mut impl Clock, start: Instant) -> io::Result<Duration> {
    let began = clock.now();
    loop {
        wire.flush()?;
        let now = clock.now();
        if wire.is_idle() || now.saturating_duration_since(began) > DRAIN_PATIENCE {
            return Ok(now.saturating_duration_since(start));
        }
        clock.wait(SLEEP_MIN);
    }
}

#[cfg(test)]
mod tests {
    //! Goal: exactly as many frames leave as were asked for, at the rate that was asked for, whatever the wire does.
    //! Method: a wire of the test's own with little room that refuses some, under a virtual clock.
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::cell::Cell;

    #[derive(Default)]
    struct Narrow {
        room: usize,
        waiting: usize,
        tally: Tally,
        refuse_each: u64,
        is_stuck: bool,
        frames: Vec<Vec<u8>>,
    }

    impl Wire for Narrow {
        fn room(&mut self) -> usize {
            self.room - self.waiting
        }
        fn put(&mut self, write: &mut dyn FnMut(&mut [u8]) -> Option<usize>) -> bool {
            let mut frame = [0; 64];
            let Some(length) = write(&mut frame) else { return false };
            self.frames.push(frame[..length].to_vec());
            self.tally.put += 1;
            self.waiting += 1;
            true
        }
        fn flush(&mut self) -> io::Result<Flush> {
            if self.is_stuck {
                return Ok(Flush::Waiting);
            }
            // Half of it, as a busy kernel.
            let moved = self.waiting.div_ceil(2);
            for _ in 0..moved {
                self.tally.done += 1;
                if self.refuse_each > 0 && self.tally.done.is_multiple_of(self.refuse_each) {
                    self.tally.refused += 1;
                }
            }
            self.waiting -= moved;
            Ok(if self.waiting == 0 { Flush::Done } else { Flush::Waiting })
        }
        fn is_idle(&mut self) -> bool {
            self.waiting == 0
        }
        fn tally(&self) -> Tally {
            self.tally
        }
    }

    /// Each look at it takes a microsecond.
    struct Virtual(Instant);

    impl Clock for Virtual {
        fn now(&mut self) -> Instant {
            self.0 += Duration::from_micros(1);
            self.0
        }
        fn wait(&mut self, time: Duration) {
            self.0 += time;
        }
    }

    struct Numbers(u8);

    impl Source for Numbers {
        fn fill(&mut self, _: Instant, frame: &mut [u8]) -> Option<usize> {
            frame[..60].fill(self.0);
            self.0 = self.0.wrapping_add(1);
            Some(60)
        }
    }

    fn sent(wire: &mut Narrow, plan: Plan) -> Outcome {
        let mut clock = Virtual(Instant::now());
        run(wire, &mut Numbers(0), &plan, &mut clock, &|| false).unwrap()
    }

    #[test]
    fn exactly_as_many_as_asked_for() {
        for (count, burst, room) in [(1, 1, 1), (1000, 1, 7), (1000, 16, 40), (1001, 32, 64), (5, 32, 64)] {
            let mut wire = Narrow { room, ..Narrow::default() };
            let outcome = sent(&mut wire, Plan { count, burst, gap_ns: 0.0 });
            assert_eq!(
                (outcome.sent, outcome.failed, outcome.stopped),
                (count, 0, false),
                "{count} {burst} {room}"
            );
            assert_eq!(outcome.made_bytes, count * 60);
            assert!(wire.frames.iter().zip(0..).all(|(frame, n): (_, usize)| frame[0] == n as u8));
            assert_eq!(wire.frames.len() as u64, count);
        }
    }

    #[test]
    fn what_the_device_refuses_is_counted_apart() {
        let mut wire = Narrow { room: 64, refuse_each: 10, ..Narrow::default() };
        let outcome = sent(&mut wire, Plan { count: 1000, burst: 1, gap_ns: 0.0 });
        assert_eq!((outcome.sent, outcome.failed), (900, 100));
    }

    #[test]
    fn frames_of_an_earlier_run_dont_count_again() {
        // Nothing leaves: the first run's frame waits for ever, and the second one's, too. Then both are refused.
        let plan = Plan { count: 1, burst: 1, gap_ns: 0.0 };
        let mut wire = Narrow { room: 3, is_stuck: true, ..Narrow::default() };
        for _ in 0..2 {
            let outcome = sent(&mut wire, plan);
            assert_eq!((outcome.sent, outcome.failed), (0, 1));
        }
        (wire.is_stuck, wire.refuse_each) = (false, 1);
        let outcome = sent(&mut wire, plan);
        assert_eq!((outcome.sent, outcome.failed), (0, 1));
        assert_eq!(wire.tally, Tally { put: 3, done: 3, refused: 3 });
    }

    #[test]
    fn the_pace_is_kept() {
        let mut wire = Narrow { room: 64, ..Narrow::default() };
        let outcome = sent(&mut wire, Plan { count: 1001, burst: 1, gap_ns: 10_000.0 });
        let off = outcome.elapsed.as_secs_f64() - 0.01;
        assert!((0.0..0.001).contains(&off), "{:?}", outcome.elapsed);
        // Bursts of ten, one each 10 microseconds.
        let mut wire = Narrow { room: 64, ..Narrow::default() };
        let outcome = sent(&mut wire, Plan { count: 1010, burst: 10, gap_ns: 10_000.0 });
        assert!((outcome.elapsed.as_secs_f64() - 0.001).abs() < 0.0005, "{:?}", outcome.elapsed);
    }

    #[test]
    fn it_stops_when_told() {
        let mut wire = Narrow { room: 64, ..Narrow::default() };
        let looks = Cell::new(0);
        let stop = || {
            looks.set(looks.get() + 1);
            looks.get() > 10
        };
        let mut clock = Virtual(Instant::now());
        let plan = Plan { count: 0, burst: 1, gap_ns: 0.0 };
        let outcome = run(&mut wire, &mut Numbers(0), &plan, &mut clock, &stop).unwrap();
        assert!(outcome.stopped && outcome.sent == wire.frames.len() as u64 && outcome.sent > 0);
    }
}
