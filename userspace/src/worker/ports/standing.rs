//! A receive queue that stands: it tells its senders, by ECN, before it is full.
//!
//! A ring takes two thousand packets, which is ten milliseconds of two gigabits, and a sender whose congestion control hears
//! of nothing but losses fills all of it, in front of everybody's packets. So this end does what a router would (RFC 3168,
//! section 5): it marks packets as having met congestion, and what the sender then holds back waits in its queues, one for
//! each stream. A short burst isn't marked: only when so many looks at the socket in a row were full ones, and then one
//! look's packets, which every connection among them answers once a round trip; then it is counted anew.

use super::BURST_MAX;
use port::{Ecn, Received};

/// Full looks in a row: 512 packets. With 2,048, the whole ring, it came too late to keep it from filling; with 128 the
/// sender slowed down for every hiccup, and carried a third less.
const LOOKS: u32 = 512 / BURST_MAX as u32;

/// Of one port.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    full_looks: u32,
}

impl Standing {
    /// One look's packets, marked if the queue stands; how many datagrams were. Those that don't speak ECN stay as they are.
    pub(super) fn look(&mut self, burst: &mut [Received]) -> u64 {
        if burst.len() < BURST_MAX {
            self.full_looks = 0;
            return 0;
        }
        self.full_looks += 1;
        if self.full_looks < LOOKS {
            return 0;
        }
        self.full_looks = 0;
        let capable = burst.iter_mut().filter(|received| matches!(received.ecn, Some(Ecn::Ect0 | Ecn::Ect1)));
        capable
            .map(|received| {
                received.ecn = Some(Ecn::Ce);
                received.datagrams().count() as u64
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a short burst is not marked, what comes behind it without a pause is, once for so many packets, and only what
    //! speaks ECN. Method: looks of so many packets, of all four codepoints.
    use super::*;
    use port::{Path, Region};

    fn burst(count: usize) -> Vec<Received> {
        let path = Path { local: "198.18.0.1:443".parse().unwrap(), remote: "198.18.0.2:7".parse().unwrap() };
        let ecn = [None, Some(Ecn::Ect1), Some(Ecn::Ect0), Some(Ecn::Ce)];
        let frames = Region::anonymous(30, count).unwrap().into_iter().enumerate();
        frames.map(|(n, frame)| Received { path, ecn: ecn[n % 4], frame, segment_bytes: 10 }).collect()
    }

    #[test]
    fn only_a_queue_that_stands_is_marked() {
        let mut standing = Standing::default();
        for _ in 0..3 {
            for _ in 1..LOOKS {
                assert_eq!(standing.look(&mut burst(BURST_MAX)), 0);
            }
            let mut marked = burst(BURST_MAX);
            // Half of them can be, of three datagrams each.
            assert_eq!(standing.look(&mut marked), 3 * BURST_MAX as u64 / 2);
            for (n, received) in marked.iter().enumerate() {
                assert_eq!(received.ecn, (n % 4 > 0).then_some(Ecn::Ce), "{n}");
            }
        }
        // One that isn't full begins it anew.
        (1..LOOKS).for_each(|_| assert_eq!(standing.look(&mut burst(BURST_MAX)), 0));
        assert_eq!(standing.look(&mut burst(BURST_MAX - 1)), 0);
        assert_eq!(standing.look(&mut burst(BURST_MAX)), 0);
    }
}
