//! What captures see at the ports: datagrams as they come, as they leave, and those that go nowhere.
//!
//! All of it is off the path while no capture runs.

use super::{Ports, Way};
use crate::capture::{
    Point, Way as Direction, synth,
    tap::{Captures, HANDED, Seen, Subject},
};
use port::{Frame, Place, Received, Sealed, Sent, Transmit};
use std::net::SocketAddr;
use tunnel::{Engine, Inbound};
use wire::Path;

/// Where a datagram is seen.
#[derive(Clone, Copy)]
struct Spot<'a> {
    point: Point,
    interface: u8,
    reason: &'a str,
}

impl Ports {
    /// Where each port's packets travel.
    pub(in crate::worker) fn places(&self) -> Vec<Place> {
        self.ports.iter().map(|port| port.place()).collect()
    }

    /// Has the ports keep what they drop, or not.
    pub(in crate::worker) fn watch_dropped(&mut self, watch: bool) {
        for port in &mut self.ports {
            if let Some(inside) = port.watch() {
                inside.keep_dropped(watch);
            }
        }
    }

    /// A burst of one port, and what the port dropped of it.
    pub(super) fn show_received(&mut self, index: usize, burst: &[Received], captures: &mut Captures) {
        let interface = index as u8;
        if captures.wants(Point::Rx) {
            let spot = Spot { point: Point::Rx, interface, reason: "" };
            let place = self.ports[index].place();
            burst.iter().for_each(|received| show(captures, spot, place, received, None));
        }
        if captures.wants(Point::Drop)
            && let Some(inside) = self.ports[index].watch()
        {
            for kept in inside.take_dropped() {
                captures.show(&Seen {
                    point: Point::Drop,
                    way: Direction::In,
                    interface,
                    subject: Subject::Unknown,
                    reason: kept.reason.name(),
                    head: &[],
                    body: &kept.frame,
                });
            }
        }
    }

    /// One datagram of a frame, or all of them, that go no further.
    pub(super) fn show_dropped(
        &self,
        captures: &mut Captures,
        port: u8,
        received: &Received,
        datagram: Option<&[u8]>,
        reason: &str,
    ) {
        if captures.wants(Point::Drop) {
            let spot = Spot { point: Point::Drop, interface: port, reason };
            show(captures, spot, self.ports[usize::from(port)].place(), received, datagram);
        }
    }

    /// What the engine has just dropped of a burst.
    pub(super) fn show_dropped_by(
        &self,
        engine: &mut Engine,
        captures: &mut Captures,
        port: u8,
        ours: &[Inbound<'_>],
        burst: &[Received],
    ) {
        for (at, reason) in engine.take_dropped() {
            let datagram = ours[at].bytes;
            // By its address: the frame that it lies in has its headers.
            let holds = |received: &&Received| received.frame.as_ptr_range().contains(&datagram.as_ptr());
            if let Some(received) = burst.iter().find(holds) {
                self.show_dropped(captures, port, received, Some(datagram), reason.name());
            }
        }
    }
}

/// What the engine has just dropped of frames that another worker received.
pub(super) fn show_handed_dropped(engine: &mut Engine, captures: &mut Captures, ours: &[Inbound<'_>]) {
    for (at, reason) in engine.take_dropped() {
        let Inbound { path, ecn, bytes } = ours[at];
        let spot = Spot { point: Point::Drop, interface: HANDED, reason: reason.name() };
        show_synthetic(captures, spot, &path, ecn.map_or(0, |ecn| ecn as u8), bytes);
    }
}

/// A received frame: as it is, where it has headers; else datagram by datagram, with synthetic ones.
fn show(captures: &mut Captures, spot: Spot<'_>, place: Place, received: &Received, datagram: Option<&[u8]>) {
    if let Place::Queue { .. } = place {
        let Spot { point, interface, reason } = spot;
        let subject = Subject::Remote(received.path.remote);
        let body = received.frame.with_front();
        return captures.show(&Seen {
            point,
            way: Direction::In,
            interface,
            subject,
            reason,
            head: &[],
            body,
        });
    }
    let ecn_bits = received.ecn.map_or(0, |ecn| ecn as u8);
    let shown =
        |captures: &mut Captures, bytes| show_synthetic(captures, spot, &received.path, ecn_bits, bytes);
    match datagram {
        Some(bytes) => shown(captures, bytes),
        None => received.datagrams().for_each(|bytes| shown(captures, bytes)),
    }
}

fn show_synthetic(captures: &mut Captures, spot: Spot<'_>, path: &Path, ecn_bits: u8, bytes: &[u8]) {
    let Spot { point, interface, reason } = spot;
    let head = synth::headers(path.remote, path.local, ecn_bits, bytes);
    let subject = Subject::Remote(path.remote);
    captures.show(&Seen { point, way: Direction::In, interface, subject, reason, head: &head, body: bytes });
}

impl Way<'_> {
    /// Sends a transmit that captures look at: it is shown as sent, or as dropped where the port refuses it.
    pub(super) fn submit_seen(&mut self, index: usize, transmit: &Transmit, sealed: &mut Vec<Sealed<Frame>>) {
        let wanted = self.captures.wants(Point::Tx) || self.captures.wants(Point::Drop);
        let packets = if wanted { self.packets(index, transmit, sealed) } else { Vec::new() };
        let drops_before = self.ports[index].counters().drops;
        let sent = self.ports[index].submit(transmit, sealed);
        let drops = self.ports[index].counters().drops;
        let reason = drops.iter().zip(drops_before.iter()).find(|(now, before)| now.1 > before.1);
        let (point, reason) = match (sent, reason) {
            (Sent::Queued, _) | (_, None) => (Point::Tx, ""),
            (_, Some(((name, _), _))) => (Point::Drop, name),
        };
        for (head, body) in &packets {
            self.captures.show(&Seen {
                point,
                way: Direction::Out,
                interface: index as u8,
                subject: Subject::Remote(transmit.path.remote),
                reason,
                head,
                body,
            });
        }
    }

    /// The datagrams of a transmit with the headers that they will have.
    fn packets(
        &mut self,
        index: usize,
        transmit: &Transmit,
        sealed: &[Sealed<Frame>],
    ) -> Vec<(Vec<u8>, Vec<u8>)> {
        let ecn_bits = transmit.ecn.map_or(0, |ecn| ecn as u8);
        let port = &mut self.ports[index];
        let Path { local, remote } = transmit.path;
        // A client leaves it to the kernel where its packets come from.
        let local = match local.ip().is_unspecified() {
            true => SocketAddr::new(self.captures.source(remote), local.port()),
            false => local,
        };
        let datagrams = sealed.iter().flat_map(|frame| frame.as_ref().chunks(transmit.segment_bytes.max(1)));
        datagrams
            .map(|datagram| {
                let mut head = Vec::new();
                match port.watch() {
                    Some(inside) => drop(inside.headers(transmit, datagram, &mut head)),
                    None => head = synth::headers(local, remote, ecn_bits, datagram),
                }
                (head, datagram.to_vec())
            })
            .collect()
    }
}
