//! How often a port looks at a transmit side that doesn't get on.

use std::time::{Duration, Instant};

/// How soon to flush again while the kernel works on the TX ring.
pub(crate) const AGAIN_SOON: Duration = Duration::from_micros(50);
/// How soon while sent frames are slow to come back.
pub(crate) const AGAIN_STARVED: Duration = Duration::from_micros(200);
/// How soon at the latest, and while the link is down.
pub(crate) const AGAIN_AT_LAST: Duration = Duration::from_millis(20);

/// How long nothing has moved on the transmit side.
///
/// In zero-copy mode `send` says yes and leaves the work to the driver, which doesn't touch the TX ring while there is
/// no carrier (`igb_xmit_zc` and its like), nor completes what the NIC holds: without this, one datagram would have the
/// worker look 20,000 times a second for as long as a cable is out.
#[derive(Default)]
pub(crate) struct Stall {
    /// How many datagrams were sent, completed and waiting, when it was looked at last.
    seen: (u64, u64, usize),
    look_count: u32,
    /// When the pause that was last asked for is over. Looks before that say nothing: a worker that receives looks often.
    due: Option<Instant>,
}

impl Stall {
    /// When to look again: soon after anything has moved, then twice as late with every pause in vain. So nothing waits
    /// longer than twice as long as it had waited anyway.
    pub(crate) fn pause(&mut self, soon: Duration, moved: (u64, u64, usize), now: Instant) -> Duration {
        if moved != self.seen {
            (self.seen, self.look_count) = (moved, 0);
        } else if self.due.is_some_and(|due| due <= now) {
            self.look_count = self.look_count.saturating_add(1);
        }
        let pause = soon.saturating_mul(1 << self.look_count.min(16)).min(AGAIN_AT_LAST);
        if self.due.is_none_or(|due| due <= now) || self.look_count == 0 {
            self.due = Some(now + pause);
        }
        pause
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a transmit side where nothing moves is looked at ever less often, and soon again once something moves.
    use super::*;

    #[test]
    fn looks_in_vain_become_rare() {
        let (mut stall, mut now) = (Stall::default(), Instant::now());
        let stuck = (7, 4, 3);
        let pauses: Vec<Duration> = (0..12)
            .map(|_| {
                let pause = stall.pause(AGAIN_SOON, stuck, now);
                now += pause;
                pause
            })
            .collect();
        assert_eq!(pauses[0], AGAIN_SOON);
        assert!(pauses.windows(2).all(|pair| pair[1] == (pair[0] * 2).min(AGAIN_AT_LAST)), "{pauses:?}");
        assert_eq!(pauses[11], AGAIN_AT_LAST);
        for moved in [(8, 4, 3), (8, 5, 3), (8, 5, 2)] {
            assert_eq!(stall.pause(AGAIN_SOON, moved, now), AGAIN_SOON, "{moved:?}");
        }
    }

    // A worker whose receiving side is busy flushes at every turn: that is no reason to wait longer.
    #[test]
    fn looks_ahead_of_time_do_not_count() {
        let (mut stall, now) = (Stall::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(stall.pause(AGAIN_SOON, (7, 4, 3), now), AGAIN_SOON);
        }
    }
}
