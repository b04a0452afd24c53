//! What a worker measures beside its counters: plain histograms that it alone writes, copied out with a snapshot.
//!
//! Nothing here reads a clock: times are those of turns, which the run loop knows. One value a turn, a burst, a batch, a
//! handshake or a flow; none a packet. Memory: 20 KB for each time and 7 KB for each size at most, 121 KB a worker with the
//! engine's.

use meter::{Histogram, Scale};
use std::time::Duration;
use tunnel::Batches;

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meter {
    /// How long a QUIC handshake took, at either end.
    Handshake,
    /// From a request for a TCP flow to its first byte back: at a gateway from the request's arrival, at a client from the
    /// local connection's.
    FirstByte,
    /// Round trip of a connection that was heard of within the last second.
    RoundTrip,
    /// How long a turn of the loop took: what arrives meanwhile waits so long.
    LoopLag,
    /// How late the worker woke for a timer.
    TimerLag,
    /// Frames that one look at a port found (batches, of a kernel socket).
    ReceiveBurst,
    /// Datagrams sealed together.
    SealBatch,
    /// Packets opened together.
    OpenBatch,
}

impl Meter {
    /// All, in the order of [`Meters`].
    pub(crate) const ALL: [Self; 8] = [
        Self::Handshake,
        Self::FirstByte,
        Self::RoundTrip,
        Self::LoopLag,
        Self::TimerLag,
        Self::ReceiveBurst,
        Self::SealBatch,
        Self::OpenBatch,
    ];

    pub(crate) const fn scale(self) -> Scale {
        match self {
            Self::Handshake | Self::FirstByte | Self::RoundTrip | Self::LoopLag | Self::TimerLag => {
                Scale::Time
            }
            Self::ReceiveBurst | Self::SealBatch | Self::OpenBatch => Scale::Count,
        }
    }
}

/// One histogram a [`Meter`].
#[derive(Clone, Debug)]
pub(crate) struct Meters([Histogram; Meter::ALL.len()]);

impl Default for Meters {
    fn default() -> Self {
        Self(Meter::ALL.map(|meter| Histogram::new(meter.scale())))
    }
}

impl Meters {
    pub(crate) fn get(&self, meter: Meter) -> &Histogram {
        &self.0[meter as usize]
    }

    #[inline]
    pub(crate) fn time(&mut self, meter: Meter, time: Duration) {
        self.0[meter as usize].record_time(time);
    }

    #[inline]
    pub(super) fn size(&mut self, meter: Meter, count: usize) {
        self.0[meter as usize].record(count as u64);
    }

    /// A copy, with those that the engine keeps.
    pub(super) fn with(&self, batches: Option<&Batches>) -> Self {
        let mut all = self.clone();
        if let Some(batches) = batches {
            all.0[Meter::SealBatch as usize].add(&batches.sealed);
            all.0[Meter::OpenBatch as usize].add(&batches.opened);
        }
        all
    }

    /// Adds another worker's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(sum, more)| sum.add(more));
    }

    /// What was measured after `earlier`, an older copy.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut later = self.clone();
        for (later, earlier) in later.0.iter_mut().zip(&earlier.0) {
            *later = later.since(earlier);
        }
        later
    }
}

#[cfg(test)]
mod tests {
    //! Goal: each meter has the place that its name says, and the memory is what the head of this file says.
    use super::*;

    #[test]
    fn meters_are_where_their_names_are() {
        for (place, meter) in Meter::ALL.into_iter().enumerate() {
            assert_eq!(meter as usize, place);
        }
        let mut meters = Meters::default();
        meters.time(Meter::LoopLag, Duration::from_micros(7));
        meters.size(Meter::ReceiveBurst, 9);
        let before = meters.clone();
        meters.size(Meter::ReceiveBurst, 5);
        let mut batches = Batches::default();
        batches.opened.record(3);
        let mut all = meters.with(Some(&batches));
        let sums = |meters: &Meters| Meter::ALL.map(|meter| meters.get(meter).sum());
        assert_eq!(sums(&all), [0, 0, 0, 7, 0, 14, 0, 3]);
        assert_eq!(sums(&meters.since(&before)), [0, 0, 0, 0, 0, 5, 0, 0]);
        all.add(&before);
        assert_eq!(sums(&all), [0, 0, 0, 14, 0, 23, 0, 3]);
        for meter in Meter::ALL {
            all.time(meter, Duration::MAX);
        }
        let bytes: usize = Meter::ALL.iter().map(|&meter| all.get(meter).memory_bytes()).sum();
        assert_eq!(bytes / 1024, 121);
    }
}
