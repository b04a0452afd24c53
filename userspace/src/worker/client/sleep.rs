//! When a client's tunnel falls asleep, and what wakes it (see [`masque::sleep`]).
//!
//! ```text
//!  Up ─(no request for --sleep-after)─► Asleep ─(a flow waits, and no tunnel is free)─► Connecting, in early data
//! ```
//! Links sleep one by one. A flow that finds every tunnel that is awake in use wakes one more; it doesn't wait for it.

use super::{Client, link::Link, pool::Pool};
use crate::worker::{
    core::Core,
    sleepers::{Moved, Sleeper},
};
use masque::{SLEEP_MARGIN, TunnelId};
use std::time::{Duration, Instant};
use tunnel::ConnId;

/// The most silence that a gateway of beam's agrees to.
const GATEWAY_SILENCE_MAX: Duration = Duration::from_secs(62);
/// No tunnel sleeps sooner: what follows a flow's end has to be over.
pub(crate) const SHORTEST: Duration = Duration::from_millis(100);

/// The times of tunnels that may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Habit {
    after: Duration,
    keepalive: Duration,
}

impl Habit {
    pub(crate) fn new(after: Duration, keepalive: Duration) -> Self {
        Self { after: after.max(SHORTEST), keepalive }
    }

    /// What the client announces as its idle timeout.
    pub(crate) fn silence_max(&self) -> Duration {
        (self.after + SLEEP_MARGIN).min(GATEWAY_SILENCE_MAX)
    }

    /// Between two PINGs of a tunnel in use: two of them in the agreed silence, and a second left.
    fn ping_interval(&self) -> Duration {
        let needed = self.silence_max().saturating_sub(Duration::from_secs(1)) / 2;
        if self.keepalive.is_zero() { needed } else { needed.min(self.keepalive) }
    }
}

/// What is to be done about a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ping,
    Sleep,
}

/// The state of one tunnel that is up. Pure: the time is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drowse {
    habit: Habit,
    idle_since: Option<Instant>,
    /// When it last sent something, at the latest.
    spoke: Instant,
}

impl Drowse {
    /// Of a tunnel that has just been spoken on.
    pub(super) fn new(habit: Habit, now: Instant) -> Self {
        Self { habit, idle_since: Some(now), spoke: now }
    }

    /// Looks at the tunnel. That its last request ended was a packet; so was that its first one began.
    pub(super) fn look(&mut self, now: Instant, is_busy: bool) -> Due {
        if is_busy != self.idle_since.is_none() {
            self.idle_since = (!is_busy).then_some(now);
            self.spoke = now;
        }
        if self.sleep_at().is_some_and(|at| at <= now) {
            return Due::Sleep;
        }
        if self.ping_at().is_some_and(|at| at <= now) {
            self.spoke = now;
            return Due::Ping;
        }
        Due::Nothing
    }

    pub(super) fn next(&self) -> Option<Instant> {
        [self.sleep_at(), self.ping_at()].into_iter().flatten().min()
    }

    fn sleep_at(&self) -> Option<Instant> {
        self.idle_since.map(|since| since + self.habit.after)
    }

    /// None in the last silence, which the gateway waits out longer than we do.
    fn ping_at(&self) -> Option<Instant> {
        let is_last =
            self.sleep_at().is_some_and(|at| at + SLEEP_MARGIN <= self.spoke + self.habit.silence_max());
        (!is_last).then_some(self.spoke + self.habit.ping_interval())
    }
}

impl Pool {
    /// Wakes a link, if none that is awake, or is coming, has nothing to do.
    fn rouse(&mut self, core: &mut Core, config: &super::ClientConfig) {
        let is_free = |link: &mut Link| link.is_on_its_way() || link.way().is_some_and(|way| way.is_free());
        if self.links_mut().any(is_free) {
            return;
        }
        if let Some(link) = self.links_mut().find(|link| link.asleep_since().is_some()) {
            link.wake(core, config);
        }
    }
}

impl Client {
    /// Somebody waits for a stream.
    pub(super) fn rouse(&mut self, core: &mut Core) {
        if self.config.sleep.is_some() {
            self.pool.rouse(core, &self.config);
        }
    }

    /// This client's tunnels that sleep.
    pub(in crate::worker) fn sleepers(&self, now: Instant) -> impl Iterator<Item = Sleeper> {
        self.pool.links().filter_map(move |link| {
            let (since, (id, moved)) = (link.asleep_since()?, link.dozer()?);
            let asleep_s = now.saturating_duration_since(since).as_secs();
            Some(Sleeper { client: "".into(), id: id.get(), moved, asleep_s })
        })
    }

    /// A connection's tunnel, where it may sleep: its id, and what it had moved before.
    pub(in crate::worker) fn dozer(&self, conn: ConnId) -> Option<(TunnelId, Moved)> {
        self.pool.links().find(|link| link.conn() == Some(conn))?.dozer()
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a tunnel sleeps exactly so long after its last request, and until then the gateway never waits for longer than
    //! was agreed. Method: made-up instants, every 100 ms.
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Seconds at which it pinged and slept; busy in `[0, busy_until)`.
    fn life(habit: Habit, busy_until: Duration) -> (Vec<f64>, f64) {
        let start = Instant::now();
        let mut drowse = Drowse::new(habit, start);
        let mut pings = Vec::new();
        for tenth in 0_u32.. {
            let at = Duration::from_millis(100) * tenth;
            match drowse.look(start + at, at < busy_until) {
                Due::Nothing => {}
                Due::Ping => pings.push(at.as_secs_f64()),
                Due::Sleep => return (pings, at.as_secs_f64()),
            }
            assert!(drowse.next().unwrap() > start + at, "it would spin");
        }
        unreachable!()
    }

    #[test]
    fn an_idle_tunnel_sleeps_without_a_packet() {
        assert_eq!(life(Habit::new(s(60), s(25)), Duration::ZERO), (vec![], 60.0));
        assert_eq!(life(Habit::new(s(1), s(25)), Duration::ZERO), (vec![], 1.0));
    }

    #[test]
    fn a_busy_one_pings_in_time_and_sleeps_after() {
        assert_eq!(life(Habit::new(s(60), s(25)), s(90)), (vec![25.0, 50.0, 75.0], 150.0));
        assert_eq!(life(Habit::new(s(1), s(25)), Duration::from_millis(3500)), (vec![1.0, 2.0, 3.0], 4.5));
        assert_eq!(life(Habit::new(s(60), Duration::ZERO), s(61)), (vec![30.5], 121.0));
    }

    // What is longer than gateways agree to is bridged, as far as need be.
    #[test]
    fn a_long_wait_is_bridged() {
        let (pings, slept) = life(Habit::new(s(600), s(25)), Duration::ZERO);
        assert_eq!((pings.len(), pings[0], slept), (22, 25.0, 600.0));
        assert!(slept - pings[21] <= 60.0 && pings.windows(2).all(|two| two[1] - two[0] == 25.0));
    }

    // RFC 9000 section 10.1: the client forgets before the gateway does.
    #[test]
    fn the_gateway_never_waits_longer_than_agreed() {
        for after in [1, 5, 30, 58, 60, 61, 100, 3600] {
            for busy in [0, 1, 59, 200] {
                let habit = Habit::new(s(after), s(25));
                let (pings, slept) = life(habit, s(busy));
                let mut spoke = vec![0.0, busy as f64];
                spoke.extend(pings);
                spoke.sort_by(f64::total_cmp);
                spoke.push(slept + SLEEP_MARGIN.as_secs_f64());
                let longest = spoke.windows(2).map(|two| two[1] - two[0]).fold(0.0, f64::max);
                assert!(longest <= habit.silence_max().as_secs_f64(), "{after} {busy}: {longest}");
            }
        }
    }
}
