//! A worker's side of captures: what is seen goes into a bounded ring, or is counted as missed.
//!
//! A turn's records are collected in [`Tap::staged`] and published at its end, all at once: so whoever reads them finds the
//! TLS secrets that the same turn brought in the queue already, and can put them first.

use super::{Interface, Point, Points, RING_BYTES, Way, pcapng, record};
use crate::worker::source_towards;
use port::Place;
use rtrb::Producer;
use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tunnel::ConnId;

/// Interfaces of one worker: its ports, and the two below.
pub(crate) const INTERFACES_MAX: usize = 64;
/// Datagrams that another worker received.
pub(crate) const HANDED: u8 = 62;
/// The network inside of the tunnels.
pub(crate) const INNER: u8 = 63;

/// Counters that the worker writes and the plane reads, by interface and point.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) seen: [[AtomicU64; 4]; INTERFACES_MAX],
    pub(crate) missed: [[AtomicU64; 4]; INTERFACES_MAX],
}

impl Default for Counters {
    fn default() -> Self {
        let zeros = || std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0)));
        Self { seen: zeros(), missed: zeros() }
    }
}

/// Names that a worker doesn't know.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// NICs by index.
    pub(crate) nics: Vec<(u32, String)>,
    pub(crate) inner: String,
}

/// Whose packets are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Only {
    Client(Arc<str>),
    Tunnel(ConnId),
    /// A tunnel of another worker: none of this one's.
    Nobody,
}

/// Whose a packet is, as far as the place where it is seen knows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject<'a> {
    Remote(SocketAddr),
    Session { client: &'a str, conn: ConnId },
    Unknown,
}

/// A packet as it is seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) point: Point,
    pub(crate) way: Way,
    /// Index of the port, [`HANDED`] or [`INNER`].
    pub(crate) interface: u8,
    pub(crate) subject: Subject<'a>,
    /// Why it was dropped, or empty.
    pub(crate) reason: &'a str,
    /// The packet, in two parts.
    pub(crate) head: &'a [u8],
    pub(crate) body: &'a [u8],
}

/// One capture at one worker.
pub(crate) struct Tap {
    pub(crate) id: u32,
    pub(crate) worker: u8,
    pub(crate) points: Points,
    pub(crate) snap_bytes: usize,
    pub(crate) interface: Option<String>,
    pub(crate) only: Option<Only>,
    /// Addresses of the client's connections, where only its packets are wanted.
    pub(crate) remotes: Arc<HashSet<SocketAddr>>,
    /// One instant by both clocks: nanoseconds since 1970.
    pub(crate) anchor: (Instant, u64),
    pub(crate) names: Arc<Names>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) ring: Producer<u8>,
    /// What this turn has brought. With what the ring holds at most as long as the ring.
    pub(crate) staged: Vec<u8>,
    /// Interfaces that the reader knows, and those that it doesn't want, by bit.
    pub(crate) announced: u64,
    pub(crate) unwanted: u64,
}

/// All captures at one worker.
#[derive(Default)]
pub(crate) struct Captures {
    taps: Vec<Tap>,
    wanted: Points,
    places: Vec<Place>,
    now: Option<Instant>,
    /// Where the kernel sends from, by remote, and since when that is known.
    sources: HashMap<SocketAddr, (IpAddr, Instant)>,
}

/// How long the kernel's choice of a source address is taken for granted, and for how many remotes.
const SOURCE_FOR: Duration = Duration::from_secs(1);
const SOURCES_MAX: usize = 1024;

impl Captures {
    /// Whether any capture runs: the one branch of a burst.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Whether any capture wants packets of this point.
    #[inline]
    pub(crate) fn wants(&self, point: Point) -> bool {
        self.wanted.has(point)
    }

    /// A turn begins.
    #[inline]
    pub(crate) fn begin(&mut self, now: Instant) {
        self.now = Some(now);
    }

    /// Adds a capture; `places` are those of the worker's ports, by index.
    pub(crate) fn add(&mut self, tap: Tap, places: Vec<Place>) {
        self.places = places;
        self.taps.push(tap);
        self.changed();
    }

    /// The worker has another port.
    pub(crate) fn set_places(&mut self, places: Vec<Place>) {
        self.places = places;
    }

    /// Ends a capture.
    pub(crate) fn remove(&mut self, id: u32) {
        self.publish();
        self.taps.retain(|tap| tap.id != id);
        self.changed();
    }

    /// The client of a capture has these addresses now.
    pub(crate) fn set_remotes(&mut self, id: u32, remotes: &Arc<HashSet<SocketAddr>>) {
        self.taps.iter_mut().filter(|tap| tap.id == id).for_each(|tap| tap.remotes = remotes.clone());
    }

    fn changed(&mut self) {
        self.wanted = self.taps.iter().fold(Points::default(), |all, tap| all.and(tap.points));
    }

    /// The address that the kernel sends from towards `remote`; unspecified where it has no route.
    pub(crate) fn source(&mut self, remote: SocketAddr) -> IpAddr {
        let now = self.now.unwrap_or_else(Instant::now);
        if let Some((source, since)) = self.sources.get(&remote)
            && now.saturating_duration_since(*since) < SOURCE_FOR
        {
            return *source;
        }
        if self.sources.len() >= SOURCES_MAX {
            self.sources.clear();
        }
        let unspecified = match remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let source = source_towards(remote).unwrap_or(unspecified);
        self.sources.insert(remote, (source, now));
        source
    }

    /// Shows a packet to every capture that wants it.
    pub(crate) fn show(&mut self, seen: &Seen<'_>) {
        let now = self.now.unwrap_or_else(Instant::now);
        let place = self.places.get(usize::from(seen.interface)).copied().unwrap_or_default();
        for tap in self.taps.iter_mut().filter(|tap| tap.points.has(seen.point)) {
            tap.take(now, place, seen);
        }
    }

    /// The turn is over: readers may have its records. Captures whose readers are gone end.
    pub(crate) fn publish(&mut self) {
        self.taps.iter_mut().for_each(Tap::publish);
        if self.taps.iter().any(|tap| tap.ring.is_abandoned()) {
            self.taps.retain(|tap| !tap.ring.is_abandoned());
            self.changed();
        }
    }
}

impl Tap {
    fn take(&mut self, now: Instant, place: Place, seen: &Seen<'_>) {
        let index = usize::from(seen.interface).min(INTERFACES_MAX - 1);
        let bit = 1_u64 << index;
        if !self.is_meant(&seen.subject) {
            return;
        }
        // Without an interface's name nobody could make anything of its packets.
        let is_known = self.announced & bit != 0 || self.announce(index, place);
        if self.unwanted & bit != 0 {
            return;
        }
        self.counters.seen[index][seen.point as usize].fetch_add(1, Relaxed);
        let wire_bytes = seen.head.len() + seen.body.len();
        let kept_bytes = wire_bytes.min(self.snap_bytes);
        if !is_known || !self.has_room(record::PACKET_HEAD_BYTES + seen.reason.len() + kept_bytes) {
            self.counters.missed[index][seen.point as usize].fetch_add(1, Relaxed);
            return;
        }
        let (anchor, anchor_ns) = self.anchor;
        let packet = record::Packet {
            point: seen.point,
            way: seen.way,
            interface: u16::from(self.worker) << 8 | index as u16,
            at_ns: anchor_ns + now.saturating_duration_since(anchor).as_nanos() as u64,
            wire_bytes: wire_bytes as u32,
            comment: seen.reason,
            bytes: seen.head,
        };
        record::put_packet(&mut self.staged, &packet, seen.body, kept_bytes);
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.staged.len() + bytes <= self.ring.slots()
    }

    fn is_meant(&self, subject: &Subject<'_>) -> bool {
        match (&self.only, subject) {
            (None, _) => true,
            (Some(_), Subject::Remote(remote)) => self.remotes.contains(remote),
            (Some(Only::Client(name)), Subject::Session { client, .. }) => **name == **client,
            (Some(Only::Tunnel(tunnel)), Subject::Session { conn, .. }) => tunnel == conn,
            (Some(Only::Nobody), _) | (Some(_), Subject::Unknown) => false,
        }
    }

    /// Tells the reader about an interface before its first packet. False if there is no room even for that.
    fn announce(&mut self, index: usize, place: Place) -> bool {
        let interface = self.describe(index, place);
        let nic = interface.name.split('/').next().unwrap_or_default();
        if self.interface.as_ref().is_some_and(|wanted| wanted != nic) {
            self.unwanted |= 1 << index;
            self.announced |= 1 << index;
            return true;
        }
        let mut bytes = Vec::new();
        record::put_interface(&mut bytes, &interface);
        if !self.has_room(bytes.len()) {
            return false;
        }
        self.staged.extend_from_slice(&bytes);
        self.announced |= 1 << index;
        true
    }

    fn describe(&self, index: usize, place: Place) -> Interface {
        let worker = self.worker;
        let (name, description, link) = match place {
            _ if index == usize::from(INNER) => (
                format!("{}/{worker}", self.names.inner),
                format!("IP packets inside of the tunnels of worker {worker}"),
                pcapng::LINK_RAW,
            ),
            Place::Queue { interface, queue } => {
                let nic = self.names.nics.iter().find(|(index, _)| *index == interface);
                let nic = nic.map_or_else(|| format!("if{interface}"), |(_, name)| name.clone());
                let description = format!("AF_XDP, {nic} queue {queue}, worker {worker}");
                (format!("{nic}/{queue}"), description, pcapng::LINK_ETHERNET)
            }
            Place::Socket { local } => (
                format!("udp/{worker}.{index}"),
                format!(
                    "kernel UDP socket {local}, worker {worker}; IP and UDP headers are synthetic, the kernel shows none"
                ),
                pcapng::LINK_RAW,
            ),
            Place::Unknown => (
                format!("handed/{worker}"),
                format!(
                    "datagrams that another worker received for worker {worker}; IP and UDP headers are synthetic"
                ),
                pcapng::LINK_RAW,
            ),
        };
        Interface { id: u16::from(worker) << 8 | index as u16, name, description, link }
    }

    fn publish(&mut self) {
        if self.staged.is_empty() {
            return;
        }
        // It fits: `has_room` was asked for each record, and only the reader changes the ring meanwhile.
        if self.ring.push_entire_slice(&self.staged).is_err() {
            debug_assert!(false, "the ring had room for every record");
        }
        self.staged.clear();
        // A storm's buffer isn't kept for the calm.
        self.staged.shrink_to(RING_BYTES / 8);
    }
}

#[cfg(test)]
mod tests {
    //! Goal: what a capture shows and what it misses add up to what there was, whatever the reader does; filters filter.
    //! Method: a tap over a small ring, without threads.
    use super::*;
    use rtrb::{Consumer, RingBuffer};

    fn tap(points: &[Point], ring_bytes: usize) -> (Tap, Consumer<u8>) {
        let (ring, reader) = RingBuffer::new(ring_bytes);
        let tap = Tap {
            id: 1,
            worker: 2,
            points: points.iter().copied().collect(),
            snap_bytes: 100,
            interface: None,
            only: None,
            remotes: Arc::default(),
            anchor: (Instant::now(), 1_000),
            names: Arc::new(Names { nics: vec![(7, "eth7".into())], inner: "tun0".into() }),
            counters: Arc::default(),
            ring,
            staged: Vec::new(),
            announced: 0,
            unwanted: 0,
        };
        (tap, reader)
    }

    const PLACES: [Place; 1] = [Place::Queue { interface: 7, queue: 3 }];

    fn seen(point: Point, body: &[u8]) -> Seen<'_> {
        Seen { point, way: Way::In, interface: 0, subject: Subject::Unknown, reason: "", head: &[], body }
    }

    /// Everything in the ring, as its records.
    fn drain(reader: &mut Consumer<u8>) -> Vec<Vec<u8>> {
        let mut bytes = vec![0; reader.slots()];
        reader.pop_entire_slice(&mut bytes).unwrap();
        let (mut rest, mut records) = (&bytes[..], Vec::new());
        while let Some((record, after)) = record::split(rest) {
            records.push(record.to_vec());
            rest = after;
        }
        assert!(rest.is_empty(), "whole records only");
        records
    }

    fn count(counters: &[[AtomicU64; 4]; INTERFACES_MAX], point: Point) -> u64 {
        counters.iter().map(|of| of[point as usize].load(Relaxed)).sum()
    }

    #[test]
    fn seen_is_shown_or_missed_whatever_the_reader_does() {
        let (tap, mut reader) = tap(&[Point::Rx], 4096);
        let counters = tap.counters.clone();
        let mut captures = Captures::default();
        assert!(!captures.is_on());
        captures.add(tap, PLACES.to_vec());
        assert!(captures.is_on() && captures.wants(Point::Rx) && !captures.wants(Point::Tx));
        let mut shown = 0;
        for turn in 0..200 {
            captures.begin(Instant::now());
            for n in 0..turn % 7 {
                captures.show(&seen(Point::Rx, &vec![n; 60 + usize::from(n) * 20]));
                captures.show(&seen(Point::Tx, b"nobody asked"));
            }
            let before = reader.slots();
            captures.publish();
            if turn % 11 == 0 {
                let records = drain(&mut reader);
                shown += records.iter().filter(|record| record::time_of(record) > 0).count() as u64;
            }
            assert!(reader.slots() >= before || turn % 11 == 0);
        }
        shown += drain(&mut reader).iter().filter(|record| record::time_of(record) > 0).count() as u64;
        let (seen, missed) = (count(&counters.seen, Point::Rx), count(&counters.missed, Point::Rx));
        assert_eq!(seen, (0..200_u64).map(|turn| turn % 7).sum::<u64>());
        assert!(missed > 0 && shown > 0, "both happened");
        assert_eq!(seen, shown + missed);
        assert_eq!(count(&counters.seen, Point::Tx), 0);
    }

    #[test]
    fn nothing_is_readable_before_the_turn_ends_and_a_gone_reader_ends_the_capture() {
        let (tap, mut reader) = tap(&[Point::Drop], 4096);
        let mut captures = Captures::default();
        captures.add(tap, PLACES.to_vec());
        captures.show(&Seen { reason: "because", ..seen(Point::Drop, &[7; 300]) });
        assert_eq!(reader.slots(), 0);
        captures.publish();
        let records = drain(&mut reader);
        let record::Record::Interface(interface) = record::parse(&records[0]).unwrap() else { panic!() };
        assert_eq!(
            (interface.id, &*interface.name, interface.link),
            (0x0200, "eth7/3", pcapng::LINK_ETHERNET)
        );
        let record::Record::Packet(packet) = record::parse(&records[1]).unwrap() else { panic!() };
        assert_eq!((packet.comment, packet.wire_bytes, packet.bytes.len()), ("because", 300, 100));
        assert_eq!(records.len(), 2);
        drop(reader);
        captures.publish();
        assert!(!captures.is_on());
    }

    #[test]
    fn filters_apply_before_anything_is_counted() {
        let (mut tap, mut reader) = tap(&[Point::Rx, Point::Inner], 65_536);
        let (mine, other) = ("198.18.0.2:5".parse().unwrap(), "198.18.0.2:6".parse().unwrap());
        tap.only = Some(Only::Client("alice".into()));
        let counters = tap.counters.clone();
        let mut captures = Captures::default();
        captures.add(tap, PLACES.to_vec());
        let conn = ConnId { index: 1, generation: 1 };
        let subjects = [
            Subject::Remote(mine),
            Subject::Remote(other),
            Subject::Session { client: "alice", conn },
            Subject::Session { client: "bob", conn },
            Subject::Unknown,
        ];
        captures.set_remotes(1, &Arc::new(HashSet::from([mine])));
        for subject in subjects {
            captures.show(&Seen { subject, ..seen(Point::Rx, b"x") });
        }
        captures.publish();
        assert_eq!(count(&counters.seen, Point::Rx), 2);
        assert_eq!(drain(&mut reader).len(), 1 + 2);
    }

    #[test]
    fn packets_of_other_interfaces_are_left_out() {
        let (mut tap, mut reader) = tap(&[Point::Rx, Point::Inner], 65_536);
        tap.interface = Some("tun0".into());
        let mut captures = Captures::default();
        captures.add(tap, PLACES.to_vec());
        captures.show(&seen(Point::Rx, b"of eth7"));
        captures.show(&Seen { interface: INNER, ..seen(Point::Inner, b"inner") });
        captures.publish();
        let records = drain(&mut reader);
        assert_eq!(records.len(), 2);
        let record::Record::Packet(packet) = record::parse(&records[1]).unwrap() else { panic!() };
        assert_eq!(packet.bytes, b"inner");
    }
}
