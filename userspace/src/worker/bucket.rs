//! The rate of one client in one direction, shared by all workers: a token bucket in one atomic.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Bytes taken at once: the rate's [`QUANTUM_TIME`], within these bounds.
const QUANTUM_BYTES_MIN: u64 = 1_500;
const QUANTUM_BYTES_MAX: u64 = 256 * 1024;
const QUANTUM_TIME: Duration = Duration::from_millis(10);
/// What an idle client may save up for a burst: so much time, and two quanta at least.
const BURST_TIME: Duration = Duration::from_millis(100);

/// A token bucket in one atomic, without a timer of its own: what is kept is the time up to which tokens are spent.
///
/// Invariant: over any span, the bytes granted are at most the rate times the span and one burst.
#[derive(Debug)]
pub(super) struct Bucket {
    epoch: Instant,
    /// Nanoseconds from the epoch.
    spent_until_ns: AtomicU64,
    /// 0: no limit.
    bits_per_s: AtomicU64,
}

/// What a bucket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    Unlimited,
    /// So many bytes may go.
    Bytes(u64),
    /// Nothing before then.
    Not(Instant),
}

impl Bucket {
    pub(super) fn new(epoch: Instant) -> Self {
        Self { epoch, spent_until_ns: AtomicU64::new(0), bits_per_s: AtomicU64::new(0) }
    }

    pub(super) fn set_rate(&self, bits_per_s: u64) {
        self.bits_per_s.store(bits_per_s, Relaxed);
    }

    /// True if there is a rate to keep.
    pub(super) fn is_limited(&self) -> bool {
        self.bits_per_s.load(Relaxed) != 0
    }

    /// Takes one quantum, if there is one.
    pub(super) fn take(&self, now: Instant) -> Grant {
        let bits_per_s = self.bits_per_s.load(Relaxed);
        if bits_per_s == 0 {
            return Grant::Unlimited;
        }
        let per_quantum_time = bits_per_s / 8 * QUANTUM_TIME.as_millis() as u64 / 1_000;
        let bytes = per_quantum_time.clamp(QUANTUM_BYTES_MIN, QUANTUM_BYTES_MAX);
        let price_ns = (bytes * 8_000_000_000).div_ceil(bits_per_s);
        let burst_ns = (BURST_TIME.as_nanos() as u64).max(2 * price_ns);
        let now_ns = now.saturating_duration_since(self.epoch).as_nanos() as u64;
        let spend = |spent: u64| spent.max(now_ns.saturating_sub(burst_ns)) + price_ns;
        let taken = self
            .spent_until_ns
            .fetch_update(Relaxed, Relaxed, |spent| Some(spend(spent)).filter(|&spent| spent <= now_ns));
        match taken {
            Ok(_) => Grant::Bytes(bytes),
            Err(spent) => Grant::Not(self.epoch + Duration::from_nanos(spend(spent))),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a bucket grants its rate and one burst, no more and no less, however many take. Method: a virtual clock.
    use super::*;
    use upstream::users::Rate;

    fn limited(bits_per_s: u64) -> (Bucket, Instant) {
        let epoch = Instant::now();
        let bucket = Bucket::new(epoch);
        bucket.set_rate(bits_per_s);
        (bucket, epoch)
    }

    /// Takes greedily for `span`, `step` at a time; the bytes granted.
    fn greedy(bucket: &Bucket, from: Instant, span: Duration, step: Duration) -> u64 {
        let mut now = from;
        let mut granted = 0;
        while now <= from + span {
            while let Grant::Bytes(bytes) = bucket.take(now) {
                granted += bytes;
            }
            now += step;
        }
        granted
    }

    #[test]
    fn a_bucket_grants_the_rate_and_one_burst() {
        for rate in [Rate::MIN, 64_000, 1_000_000, 50_000_000, 10_000_000_000, Rate::MAX] {
            let (bucket, epoch) = limited(rate);
            // From long before the first byte on, so that the burst is saved up.
            let span = Duration::from_secs(20);
            let granted = greedy(&bucket, epoch + Duration::from_secs(3600), span, Duration::from_millis(1));
            let exact = rate / 8 * span.as_secs();
            let burst = (rate / 8 / 10).max(2 * QUANTUM_BYTES_MAX.min((rate / 800).max(QUANTUM_BYTES_MIN)));
            assert!(granted <= exact + burst, "{rate}: {granted} of {exact} and {burst}");
            assert!(granted + QUANTUM_BYTES_MAX >= exact, "{rate}: {granted} of {exact}");
        }
    }

    #[test]
    fn it_says_when_to_come_back_and_then_grants() {
        let (bucket, epoch) = limited(1_000_000);
        let mut now = epoch + Duration::from_secs(10);
        let mut waits = 0;
        while waits < 100 {
            match bucket.take(now) {
                Grant::Bytes(bytes) => assert_eq!(bytes, QUANTUM_BYTES_MIN),
                Grant::Not(until) => {
                    assert!(until > now && until <= now + Duration::from_millis(12), "1500 bytes take 12 ms");
                    assert_eq!(bucket.take(until - Duration::from_nanos(1)), Grant::Not(until));
                    now = until;
                    waits += 1;
                    assert_eq!(bucket.take(now), Grant::Bytes(QUANTUM_BYTES_MIN), "as it said");
                }
                Grant::Unlimited => panic!("there is a limit"),
            }
        }
    }

    #[test]
    fn workers_share_one_rate() {
        let (bucket, epoch) = limited(80_000_000);
        let now = epoch + Duration::from_secs(1);
        let granted: u64 = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| greedy(&bucket, now, Duration::ZERO, QUANTUM_TIME))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(granted, 1_000_000, "100 ms of 10 MB/s, however many take them");
    }

    #[test]
    fn without_a_limit_there_is_none() {
        let (bucket, epoch) = limited(0);
        assert_eq!(bucket.take(epoch), Grant::Unlimited);
        assert!(!bucket.is_limited());
    }
}
