//! `timers`: the wheel with 1,000 and 100,000 timers, which lie up to two seconds ahead.

use super::{Done, Meter, Op, random};
use std::time::{Duration, Instant};
use tunnel::wheel::Wheel;

const COUNTS: [u32; 2] = [1_000, 100_000];
const AHEAD_MAX_MS: u64 = 2_000;

pub(super) fn ops() -> Vec<Op> {
    let works = [
        ("schedule", schedule as Work),
        ("reschedule_later", reschedule_later),
        ("cancel", cancel),
        ("expire", expire),
    ];
    let ops = works.map(|(name, work)| COUNTS.map(|count| op(name, work, count)));
    ops.into_iter().flatten().collect()
}

type Work = fn(&mut Timers, &mut dyn Meter);

fn op(name: &str, work: Work, count: u32) -> Op {
    let done = Done { units: count.into(), bytes: 0 };
    let op = Op::new(format!("timers/{name}/{count}"), "timer", done, move |_| {
        let mut timers = Timers::new(count);
        move |meter: &mut dyn Meter| {
            work(&mut timers, meter);
            assert!(timers.wheel.is_empty(), "a pass leaves nothing");
            done
        }
    });
    // The same instructions, for longer.
    if count > COUNTS[0] { op.uncounted() } else { op }
}

struct Timers {
    wheel: Wheel,
    now: Instant,
    ahead: Vec<Duration>,
    due: Vec<u32>,
}

impl Timers {
    fn new(count: u32) -> Self {
        let mut state = 1;
        let ahead = (0..count).map(|_| Duration::from_millis(1 + random(&mut state) % AHEAD_MAX_MS));
        Self { wheel: Wheel::new(), now: Instant::now(), ahead: ahead.collect(), due: Vec::new() }
    }

    fn set(&mut self, later: Duration) {
        for (timer, ahead) in self.ahead.iter().enumerate() {
            self.wheel.schedule(self.now, timer as u32, self.now + *ahead + later);
        }
    }

    fn clear(&mut self) {
        (0..self.ahead.len() as u32).for_each(|timer| self.wheel.cancel(timer));
    }

    fn assert_all_set(&self) {
        assert_eq!(self.wheel.len(), self.ahead.len());
    }
}

fn schedule(timers: &mut Timers, meter: &mut dyn Meter) {
    meter.measure(&mut || timers.set(Duration::ZERO));
    timers.assert_all_set();
    timers.clear();
}

/// What every packet does to its connection's timers: the deadline moves away, and the wheel leaves it.
fn reschedule_later(timers: &mut Timers, meter: &mut dyn Meter) {
    timers.set(Duration::ZERO);
    let deadline = timers.wheel.next_deadline();
    meter.measure(&mut || timers.set(Duration::from_millis(50)));
    assert_eq!(timers.wheel.next_deadline(), deadline, "it is lazy");
    timers.assert_all_set();
    timers.clear();
}

fn cancel(timers: &mut Timers, meter: &mut dyn Meter) {
    timers.set(Duration::ZERO);
    timers.assert_all_set();
    meter.measure(&mut || timers.clear());
}

/// A loop that wakes when the wheel says so.
fn expire(timers: &mut Timers, meter: &mut dyn Meter) {
    timers.set(Duration::ZERO);
    meter.measure(&mut || {
        timers.due.clear();
        while let Some(next) = timers.wheel.next_deadline() {
            timers.now = timers.now.max(next);
            timers.wheel.expire(timers.now, &mut timers.due);
        }
    });
    assert_eq!(timers.due.len(), timers.ahead.len(), "each fires once");
}
