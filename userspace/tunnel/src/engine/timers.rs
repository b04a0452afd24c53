//! Time: quinn's timers from the wheel, and the limit on handshakes.

use super::slot::Slot;
use super::{Engine, conn_at};
use crate::connection::touch;
use crate::event::CloseReason;
use std::time::{Duration, Instant};

/// Memory that a burst took is given back so often, if nobody has used it since.
const TIDY_INTERVAL: Duration = Duration::from_secs(10);
/// What queues keep room for.
const QUEUE_KEPT: usize = 64;

impl Engine {
    /// When `run` should be called next, if nothing arrives before.
    ///
    /// Right now while handshakes wait for their budget. What waits for room to transmit is not
    /// counted: the room, and not the clock, wakes it (see `pending_transmit`).
    pub fn next_deadline(&self) -> Option<Instant> {
        if !self.incoming.is_empty() || !self.burst.is_empty() {
            return self.now;
        }
        let handshake = self.handshakes.front().map(|&(limit, _)| limit);
        [self.wheel.next_deadline(), handshake].into_iter().flatten().min()
    }

    pub(super) fn expire_timers(&mut self, now: Instant) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.expire(now, &mut due);
        for index in due.drain(..) {
            let Some(conn) = conn_at(&mut self.slots, index) else { continue };
            // The wheel is lazy: the deadline may have moved since, and `settle` schedules it anew.
            if conn.quic.poll_timeout().is_some_and(|deadline| deadline <= now) {
                self.stats.timers_fired += 1;
                conn.quic.handle_timeout(now);
                touch(index, conn, &mut self.touched);
            }
            self.settle(now, index);
        }
        self.due = due;
        self.expire_handshakes(now);
    }

    pub(super) fn tidy_in_time(&mut self, now: Instant) {
        if self.tidy_at.is_none_or(|at| now >= at) {
            self.tidy(now);
        }
    }

    /// Gives back what bursts have left: tables of connections that are gone, expanded keys that nobody uses, room in
    /// queues, buffers. It does so by itself every ten seconds in which something happens.
    pub fn tidy(&mut self, now: Instant) {
        self.tidy_at = Some(now + TIDY_INTERVAL);
        self.tiers.tidy(now);
        self.mirror.tidy();
        self.tidy_slots();
        self.wheel.tidy();
        simd::release_idle_keys();
        self.touched.shrink_to(QUEUE_KEPT);
        self.events.shrink_to(QUEUE_KEPT);
        self.burst.shrink_to(QUEUE_KEPT);
        self.order.shrink_to(QUEUE_KEPT);
        self.ahead.opened.shrink_to(QUEUE_KEPT);
        self.ahead.keys.shrink_to(QUEUE_KEPT);
        self.incoming.shrink_to(QUEUE_KEPT);
        self.due.shrink_to(QUEUE_KEPT);
        self.handshakes.shrink_to(QUEUE_KEPT);
        self.answers.shrink_to(QUEUE_KEPT);
        self.parked.shrink_to(QUEUE_KEPT);
        if self.sealed_before_tidy == self.guard.stats().sealed {
            self.batch.release();
            self.out = Vec::new();
        }
        self.sealed_before_tidy = self.guard.stats().sealed;
    }

    /// Drops handshakes over the limit without a word: their addresses may be forged.
    fn expire_handshakes(&mut self, now: Instant) {
        while let Some(&(limit, id)) = self.handshakes.front() {
            let slot = self.slots.get(id.index as usize).filter(|slot| slot.generation == id.generation);
            let shaking = slot.is_some_and(Slot::is_shaking_hands);
            if shaking && limit > now {
                break;
            }
            self.handshakes.pop_front();
            if shaking {
                self.stats.handshakes_timed_out += 1;
                self.abandon(id, CloseReason::HandshakeTimedOut);
            }
        }
    }
}
