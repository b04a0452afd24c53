//! Places of the engine's table, and the connections in them: open, or folded while they have nothing to do.

use super::folded::Folded;
use super::{Engine, moved};
use crate::connection::{Conn, ConnId, ConnMut, Phase};
use std::time::{Duration, Instant};

/// Places are looked at no more often.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// Connections that are folded in one look, at some microseconds each.
const FOLDS_MAX: usize = 32;

/// A place for a connection, by quinn's handle.
pub(super) struct Slot {
    pub(super) generation: u32,
    /// It was reached since the hand last passed.
    used: bool,
    /// Something has come for it since its round trip was last told.
    pub(super) heard: bool,
    home: Home,
}

/// Boxed: quinn's connection takes 6.4 KB.
enum Home {
    /// `None`: the place is empty. (Two variants take no room of their own.)
    Open(Option<Box<Conn>>),
    Folded(Folded<Conn>),
}

/// Goes round the table, and folds what nobody has reached since it last passed.
#[derive(Default)]
pub(super) struct Hand {
    at: usize,
    looked_at: Option<Instant>,
    /// When it was at the first place.
    began: Option<Instant>,
}

// Whoever makes it larger makes it so a hundred thousand times.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Slot>() == 24);

impl Slot {
    pub(super) fn empty(generation: u32) -> Self {
        Self { generation, used: false, heard: false, home: Home::Open(None) }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self.home, Home::Open(None))
    }

    pub(super) fn put(&mut self, conn: Conn) {
        self.home = Home::Open(Some(Box::new(conn)));
    }

    /// The connection, which is open from now on.
    pub(super) fn conn(&mut self) -> Option<&mut Conn> {
        self.used = true;
        if self.is_folded() {
            self.unfold();
        }
        match &mut self.home {
            Home::Open(conn) => conn.as_deref_mut(),
            Home::Folded(_) => None,
        }
    }

    #[cold]
    fn unfold(&mut self) {
        if let Home::Folded(folded) = &mut self.home {
            self.home = Home::Open(folded.take());
        }
    }

    /// What `read` makes of the connection, which rests on afterwards if it did, unless it was given something to do.
    pub(super) fn look<R>(&mut self, read: impl FnOnce(&mut Conn) -> R) -> Option<R> {
        let (was_used, was_folded) = (self.used, self.is_folded());
        let seen = self.conn().map(read);
        self.used = was_used;
        if was_folded {
            self.fold();
        }
        seen
    }

    /// Its handshake is under way. Those are never folded.
    pub(super) fn is_shaking_hands(&self) -> bool {
        matches!(&self.home, Home::Open(Some(conn)) if conn.phase == Phase::Handshake)
    }

    fn is_folded(&self) -> bool {
        matches!(self.home, Home::Folded(_))
    }

    /// Folds a connection that has nothing to do; says whether it did.
    fn fold(&mut self) -> bool {
        match std::mem::replace(&mut self.home, Home::Open(None)) {
            Home::Open(Some(conn)) if conn.phase == Phase::Established && !conn.touched => {
                self.home = Home::Folded(Folded::new(conn));
                true
            }
            home => {
                self.home = home;
                false
            }
        }
    }
}

impl Engine {
    /// The connection that `id` names, if it isn't over; open from now on. Whoever only looks, and at many, asks
    /// [`look`](Self::look).
    pub fn connection(&mut self, id: ConnId) -> Option<ConnMut<'_>> {
        let slot = self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        Some(ConnMut {
            id,
            conn: slot.conn()?,
            now: self.now?,
            touched: &mut self.touched,
            events: &mut self.events,
            stats: &mut self.stats,
        })
    }

    /// What `read` makes of the connection that `id` names, if it isn't over. One at rest rests on, unless it was given
    /// something to do.
    pub fn look<R>(&mut self, id: ConnId, read: impl FnOnce(ConnMut<'_>) -> R) -> Option<R> {
        let slot = self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        let (now, touched) = (self.now?, &mut self.touched);
        let (events, stats) = (&mut self.events, &mut self.stats);
        slot.look(|conn| read(ConnMut { id, conn, now, touched, events, stats }))
    }

    /// UDP payload that a connection has sent and received: of one alive, or one whose end is being told.
    pub fn moved_by(&mut self, id: ConnId) -> Option<(u64, u64)> {
        let alive = self.look(id, |conn| moved(&conn.conn.quic));
        alive.or_else(|| self.ended.iter().rev().find(|(of, _)| *of == id).map(|&(_, moved)| moved))
    }

    /// Connections at rest. It walks the table.
    pub fn folded(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_folded()).count()
    }

    /// Folds what nobody has reached since the hand last passed: as many places as time has passed, for it goes round in
    /// `rest_after`, and not faster.
    pub(super) fn fold_in_time(&mut self, now: Instant) {
        let (hand, rest_after) = (&mut self.hand, self.rest_after);
        let since = |at: Option<Instant>| at.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        let elapsed = since(hand.looked_at).min(rest_after);
        if elapsed < LOOK_INTERVAL.min(rest_after) || (hand.at == 0 && since(hand.began) < rest_after) {
            return;
        }
        hand.looked_at = Some(now);
        if hand.at == 0 {
            hand.began = Some(now);
        }
        let places = self.slots.len();
        let share = (places as u128 * elapsed.as_micros()).checked_div(rest_after.as_micros());
        let looks = share.map_or(places, |share| share as usize + 1);
        let mut folds_left = FOLDS_MAX;
        for slot in self.slots.iter_mut().skip(hand.at).take(looks) {
            hand.at += 1;
            if !std::mem::take(&mut slot.used) && slot.fold() {
                folds_left -= 1;
                if folds_left == 0 {
                    break;
                }
            }
        }
        if hand.at >= places {
            hand.at = 0;
        }
    }
}
