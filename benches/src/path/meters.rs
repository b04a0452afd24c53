//! What a worker of beam measures in each of its turns, as `userspace/src/worker/mod.rs` does it (`measure_time`). The times
//! are the virtual clock's: what it costs to record them is the same.

use meter::{Histogram, Scale};
use std::time::{Duration, Instant};
use tunnel::Engine;

const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
const SAMPLES_MAX: usize = 256;

pub(super) struct Meters {
    loop_lag: Histogram,
    receive_burst: Histogram,
    round_trip: Histogram,
    turn_began: Option<Instant>,
    sample_at: Instant,
}

impl Meters {
    pub(super) fn new(now: Instant) -> Self {
        let [loop_lag, receive_burst, round_trip] =
            [Scale::Time, Scale::Count, Scale::Time].map(Histogram::new);
        Self { loop_lag, receive_burst, round_trip, turn_began: None, sample_at: now }
    }

    /// A turn begins, in which a port has given so many frames.
    pub(super) fn turn(&mut self, now: Instant, burst_len: usize, engine: &mut Engine) {
        if let Some(began) = self.turn_began.replace(now) {
            self.loop_lag.record_time(now.saturating_duration_since(began));
        }
        if now >= self.sample_at {
            self.sample_at = now + SAMPLE_INTERVAL;
            engine.sample_round_trips(SAMPLES_MAX, &mut |rtt| self.round_trip.record_time(rtt));
        }
        if burst_len > 0 {
            self.receive_burst.record(burst_len as u64);
        }
    }
}
