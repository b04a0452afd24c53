//! Quantiles of the recent past, from histograms that only grow: what is new since an older copy.
//!
//! Two copies are kept. Whoever asks gets what came after the older one, so that a window is 10 to 20 seconds for those who
//! ask often (`beam top`), and as long as nobody had asked for others; each answer says over how long it is.

use crate::worker::meters::{Meter, Meters};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// A copy this old makes way for a newer one.
const RENEWED_AFTER: Duration = Duration::from_secs(10);

/// See the module. Without an older copy a window begins with the daemon.
#[derive(Debug)]
pub(crate) struct Windows {
    older: (Instant, Option<Box<Meters>>),
    newer: (Instant, Option<Box<Meters>>),
}

/// Quantiles of one meter, in seconds; 0 without values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Quantiles {
    pub(crate) count: u64,
    pub(crate) p50_s: f64,
    pub(crate) p95_s: f64,
    pub(crate) p99_s: f64,
    pub(crate) max_s: f64,
}

/// What `beam status -j` tells of times, over the last [`LatencyStatus::over_s`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LatencyStatus {
    pub(crate) over_s: f64,
    pub(crate) handshake: Quantiles,
    pub(crate) first_byte: Quantiles,
    pub(crate) tunnel_rtt: Quantiles,
    pub(crate) loop_lag: Quantiles,
    pub(crate) timer_lag: Quantiles,
}

/// Sizes of one kind of batch, in packets; 0 without values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Sizes {
    pub(crate) count: u64,
    pub(crate) mean: f64,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
}

/// The same of batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct BatchStatus {
    pub(crate) receive_burst: Sizes,
    pub(crate) seal: Sizes,
    pub(crate) open: Sizes,
}

impl Windows {
    pub(crate) fn new(now: Instant) -> Self {
        Self { older: (now, None), newer: (now, None) }
    }

    /// What `all` has of new, and over how long.
    pub(crate) fn recent(&mut self, now: Instant, all: &Meters) -> (LatencyStatus, BatchStatus) {
        if now.saturating_duration_since(self.newer.0) >= RENEWED_AFTER {
            self.older = std::mem::replace(&mut self.newer, (now, Some(Box::new(all.clone()))));
        }
        let (from, earlier) = &self.older;
        let meters = earlier.as_ref().map_or_else(|| all.clone(), |earlier| all.since(earlier));
        let over_s = now.saturating_duration_since(*from).as_secs_f64();
        let latency = LatencyStatus {
            over_s: (over_s * 10.0).round() / 10.0,
            handshake: quantiles(&meters, Meter::Handshake),
            first_byte: quantiles(&meters, Meter::FirstByte),
            tunnel_rtt: quantiles(&meters, Meter::RoundTrip),
            loop_lag: quantiles(&meters, Meter::LoopLag),
            timer_lag: quantiles(&meters, Meter::TimerLag),
        };
        let batches = BatchStatus {
            receive_burst: sizes(&meters, Meter::ReceiveBurst),
            seal: sizes(&meters, Meter::SealBatch),
            open: sizes(&meters, Meter::OpenBatch),
        };
        (latency, batches)
    }
}

fn quantiles(meters: &Meters, meter: Meter) -> Quantiles {
    let histogram = meters.get(meter);
    let at = |q: f64| histogram.quantile(q).unwrap_or(0) as f64 / 1e6;
    Quantiles { count: histogram.count(), p50_s: at(0.5), p95_s: at(0.95), p99_s: at(0.99), max_s: at(1.0) }
}

fn sizes(meters: &Meters, meter: Meter) -> Sizes {
    let histogram = meters.get(meter);
    let count = histogram.count();
    let at = |q: f64| histogram.quantile(q).unwrap_or(0);
    let mean = (histogram.sum() as f64 / count.max(1) as f64 * 10.0).round() / 10.0;
    Sizes { count, mean, p50: at(0.5), p99: at(0.99), max: at(1.0) }
}

impl LatencyStatus {
    /// For a person: the two that tell of trouble.
    pub(crate) fn line(&self) -> String {
        let of = |name: &str, q: &Quantiles| match q.count {
            0 => format!("{name} -"),
            _ => format!("{name} {} / {} / {}", time(q.p50_s), time(q.p95_s), time(q.p99_s)),
        };
        format!(
            "p50 / p95 / p99 over {:.0} s: {}   {}   {}",
            self.over_s,
            of("rtt", &self.tunnel_rtt),
            of("first byte", &self.first_byte),
            of("loop lag", &self.loop_lag)
        )
    }
}

impl BatchStatus {
    /// For a person.
    pub(crate) fn line(&self) -> String {
        format!(
            "packets together, on average: received {:.1}   sealed {:.1}   opened {:.1}",
            self.receive_burst.mean, self.seal.mean, self.open.mean
        )
    }
}

fn time(seconds: f64) -> String {
    match seconds {
        ..1e-3 => format!("{:.0} us", seconds * 1e6),
        ..1.0 => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a window holds what came within it and nothing older. Method: values of known times, a clock that is an argument.
    use super::*;

    fn with(values: &[u64]) -> Meters {
        let mut meters = Meters::default();
        values.iter().for_each(|&us| meters.time(Meter::RoundTrip, Duration::from_micros(us)));
        meters
    }

    #[test]
    fn what_is_old_is_left_out() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut windows = Windows::new(begin);
        let mut all = with(&[1000; 100]);
        let (latency, _) = windows.recent(at(5), &all);
        assert_eq!((latency.over_s, latency.tunnel_rtt.count), (5.0, 100), "since the start");
        windows.recent(at(10), &all);
        all.add(&with(&[2000; 50]));
        let (latency, _) = windows.recent(at(20), &all);
        assert_eq!((latency.over_s, latency.tunnel_rtt.count), (10.0, 50));
        let near = |seconds: f64, truth: f64| (seconds - truth).abs() <= truth / 100.0;
        assert!(
            near(latency.tunnel_rtt.p50_s, 0.002) && near(latency.tunnel_rtt.max_s, 0.002),
            "{latency:?}"
        );
        all.add(&with(&[40; 3]));
        let (latency, _) = windows.recent(at(25), &all);
        assert_eq!((latency.over_s, latency.tunnel_rtt.count), (15.0, 53));
        let (latency, _) = windows.recent(at(3600), &all);
        assert_eq!((latency.over_s, latency.tunnel_rtt.count), (3580.0, 3), "nobody has asked for an hour");
        let (latency, batches) = windows.recent(at(3610), &all);
        assert_eq!((latency.over_s, latency.tunnel_rtt), (10.0, Quantiles::default()));
        assert_eq!(batches, BatchStatus::default());
        assert_eq!(latency.line(), "p50 / p95 / p99 over 10 s: rtt -   first byte -   loop lag -");
        assert_eq!([4e-5, 0.0021, 1.5].map(time), ["40 us", "2.1 ms", "1.5 s"]);
    }
}
