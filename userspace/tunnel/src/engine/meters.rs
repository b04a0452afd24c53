//! What an engine measures beside its counters: how many packets a batch holds, and its connections' round trips.

use super::Engine;
use crate::connection::Phase;
use meter::{Histogram, Scale};
use std::time::Duration;

/// Packets that were protected together. One batch, one value.
#[derive(Clone, Debug)]
pub struct Batches {
    /// Datagrams sealed together.
    pub sealed: Histogram,
    /// Packets opened together.
    pub opened: Histogram,
}

impl Default for Batches {
    fn default() -> Self {
        Self { sealed: Histogram::new(Scale::Count), opened: Histogram::new(Scale::Count) }
    }
}

impl Engine {
    /// The batches so far; `None` if the configuration wanted them uncounted.
    pub fn batches(&self) -> Option<&Batches> {
        self.batches.as_ref()
    }

    /// Tells the smoothed round trip of each connection that was heard of since it was last asked, looking at `most` places
    /// of the table: the next call goes on from there. For housekeeping, about once a second.
    pub fn sample_round_trips(&mut self, most: usize, each: &mut dyn FnMut(Duration)) {
        for _ in 0..most.min(self.slots.len()) {
            self.sampled_to = (self.sampled_to + 1) % self.slots.len();
            let slot = &mut self.slots[self.sampled_to];
            if std::mem::take(&mut slot.heard) {
                let established =
                    slot.look(|conn| (conn.phase == Phase::Established).then(|| conn.quic.rtt()));
                established.flatten().map(&mut *each);
            }
        }
    }

    /// A burst brought something for this connection.
    pub(super) fn note_heard(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.heard = true;
        }
    }

    pub(super) fn count_sealed(&mut self, datagram_count: usize) {
        if let Some(batches) = &mut self.batches {
            batches.sealed.record(datagram_count as u64);
        }
    }

    pub(super) fn count_opened(&mut self, packet_count: usize) {
        if let Some(batches) = self.batches.as_mut().filter(|_| packet_count > 0) {
            batches.opened.record(packet_count as u64);
        }
    }
}
