//! Datagrams out: what waited, stateless answers, and the touched connections in turn.

use super::{Engine, Parked};
use crate::stats::DropReason;
use quinn_proto::EcnCodepoint;
use std::time::Instant;
use wire::Path;

/// Datagrams that one `poll_transmit` seals together: 16 % fewer instructions than one by one, and
/// beyond ten little is gained. It is also the turn of a connection in the round robin.
const TRANSMIT_DATAGRAMS_MAX: usize = 10;

/// Takes a transmit: path, ECN, bytes and, when they are several datagrams, the size of each but the
/// last. Says whether it did; if not, the engine keeps the bytes.
pub type Sink<'a> = dyn FnMut(&Path, Option<EcnCodepoint>, &[u8], Option<usize>) -> bool + 'a;

struct Outlet<'a, 'b> {
    sink: &'a mut Sink<'b>,
    room_datagrams: usize,
}

impl Engine {
    /// Gives the sink up to `room_datagrams` datagrams. Returns whether nothing is left to send now.
    ///
    /// When it returns `false` (no room, or the sink refused) the rest waits for the next call.
    pub fn transmit(&mut self, now: Instant, room_datagrams: usize, sink: &mut Sink<'_>) -> bool {
        self.now = Some(now);
        let mut outlet = Outlet { sink, room_datagrams };
        self.send_parked(&mut outlet);
        while outlet.room_datagrams > 0
            && let Some((path, bytes)) = self.answers.pop_front()
        {
            self.emit(&mut outlet, &path, None, &bytes, None);
        }
        while outlet.room_datagrams > 0
            && let Some((path, held)) = self.budget.release()
        {
            self.stats.amplification_released += 1;
            self.emit(&mut outlet, &path, held.ecn, &held.bytes, None);
        }
        while outlet.room_datagrams > 0
            && let Some(index) = self.touched.pop_front()
        {
            self.poll_connection(now, index, &mut outlet);
        }
        !self.pending_transmit()
    }

    /// Whether `transmit` has something to do.
    pub fn pending_transmit(&self) -> bool {
        !(self.parked.is_empty() && self.answers.is_empty() && self.touched.is_empty())
            || self.budget.has_ready()
    }

    /// One turn of one connection: up to ten datagrams, or off the list.
    fn poll_connection(&mut self, now: Instant, index: u32, outlet: &mut Outlet<'_, '_>) {
        let Some(conn) = self.slots[index as usize].conn.as_deref_mut() else { return };
        self.out.clear();
        let datagrams_max = TRANSMIT_DATAGRAMS_MAX.min(outlet.room_datagrams);
        let Some(transmit) = conn.quic.poll_transmit(now, datagrams_max, &mut self.out) else {
            conn.touched = false;
            self.settle(now, index);
            return;
        };
        let path = conn.path_to(transmit.destination);
        let free = conn.may_send_freely(transmit.destination);
        self.touched.push_back(index);
        let out = std::mem::take(&mut self.out);
        let bytes = &out[..transmit.size];
        match free {
            true => self.emit(outlet, &path, transmit.ecn, bytes, transmit.segment_size),
            false => self.emit_within_budget(outlet, &path, transmit.ecn, bytes, transmit.segment_size),
        }
        self.out = out;
    }

    /// To an address that has not proved itself: datagram by datagram, sent, held or dropped.
    fn emit_within_budget(
        &mut self,
        outlet: &mut Outlet<'_, '_>,
        path: &Path,
        ecn: Option<EcnCodepoint>,
        bytes: &[u8],
        segment: Option<usize>,
    ) {
        for datagram in bytes.chunks(segment.unwrap_or(bytes.len())) {
            if self.budget.spend(path, datagram.len()) {
                self.emit(outlet, path, ecn, datagram, None);
            } else if self.budget.hold(path, ecn, datagram) {
                self.stats.amplification_held += 1;
            } else {
                self.stats.drop(DropReason::AmplificationLimit);
            }
        }
    }

    /// Gives one transmit to the sink, or keeps it. Never drops.
    fn emit(
        &mut self,
        outlet: &mut Outlet<'_, '_>,
        path: &Path,
        ecn: Option<EcnCodepoint>,
        bytes: &[u8],
        segment: Option<usize>,
    ) {
        let count = datagram_count(bytes, segment);
        // Once something is parked, the rest of the same transmit queues up behind it.
        if self.parked.is_empty() && (outlet.sink)(path, ecn, bytes, segment) {
            outlet.room_datagrams = outlet.room_datagrams.saturating_sub(count);
            self.stats.datagrams_out += count as u64;
            self.stats.bytes_out += bytes.len() as u64;
        } else {
            outlet.room_datagrams = 0;
            self.stats.transmits_parked += 1;
            self.parked.push_back(Parked { path: *path, ecn, bytes: bytes.into(), segment });
        }
    }

    /// What the sink refused before goes first, split if there is less room now.
    fn send_parked(&mut self, outlet: &mut Outlet<'_, '_>) {
        while outlet.room_datagrams > 0
            && let Some(parked) = self.parked.front_mut()
        {
            let room_bytes =
                parked.segment.unwrap_or(parked.bytes.len()).saturating_mul(outlet.room_datagrams);
            let now_bytes = parked.bytes.len().min(room_bytes);
            let bytes = &parked.bytes[..now_bytes];
            if !(outlet.sink)(&parked.path, parked.ecn, bytes, parked.segment) {
                outlet.room_datagrams = 0;
                return;
            }
            let count = datagram_count(bytes, parked.segment);
            outlet.room_datagrams = outlet.room_datagrams.saturating_sub(count);
            self.stats.datagrams_out += count as u64;
            self.stats.bytes_out += now_bytes as u64;
            parked.bytes.drain(..now_bytes);
            if parked.bytes.is_empty() {
                self.parked.pop_front();
            }
        }
    }

    /// What was held for an address that has proved itself may go, before anything newer.
    pub(super) fn release_all(&mut self, path: Path) {
        for held in self.budget.validated(&path) {
            self.stats.amplification_released += 1;
            self.parked.push_back(Parked { path, ecn: held.ecn, bytes: held.bytes.into(), segment: None });
        }
    }
}

fn datagram_count(bytes: &[u8], segment: Option<usize>) -> usize {
    segment.map_or(1, |segment| bytes.len().div_ceil(segment))
}
