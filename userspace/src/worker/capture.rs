//! What a worker does for `beam capture` beside showing packets: begins and ends, and finds a client's addresses.

use super::{Role, Worker, mail::Who};
use crate::capture::{Point, tap::Tap};
use crossbeam::channel::Sender;
use std::net::SocketAddr;

impl Worker {
    pub(super) fn begin_capture(&mut self, tap: Tap, reply: &Sender<()>) {
        let places = self.ports.places();
        self.core.captures.add(tap, places);
        self.watch_dropped();
        // The asker may have given up; then the ring is abandoned, and the capture ends with this turn.
        let _ = reply.send(());
    }

    pub(super) fn end_capture(&mut self, id: u32, reply: &Sender<()>) {
        self.core.captures.remove(id);
        self.watch_dropped();
        let _ = reply.send(());
    }

    /// Ends the turn of the captures.
    pub(super) fn publish_captures(&mut self) {
        self.core.captures.publish();
        if !self.core.captures.is_on() {
            self.watch_dropped();
        }
    }

    pub(super) fn note_new_port(&mut self) {
        if self.core.captures.is_on() {
            let places = self.ports.places();
            self.core.captures.set_places(places);
            self.watch_dropped();
        }
    }

    /// Has ports and engine keep what they drop, or not.
    fn watch_dropped(&mut self) {
        let watch = self.core.captures.wants(Point::Drop);
        self.ports.watch_dropped(watch);
        self.core.engine.watch_dropped(watch);
    }

    /// Where a client's connections come from.
    pub(super) fn remotes(&mut self, who: &Who) -> Vec<SocketAddr> {
        let Role::Gateway(gateway) = &self.role else { return Vec::new() };
        let meant = gateway.meant(who);
        let engine = &mut self.core.engine;
        meant.into_iter().filter_map(|conn| engine.look(conn, |quic| quic.remote_address())).collect()
    }
}
