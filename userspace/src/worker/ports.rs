//! A worker's ports and the way of a datagram through them: receive, find the owner, hand over or deliver; send on the
//! fast path, or through the kernel where the fast path has no route.

use super::{
    mail::{Handed, Home, Mailbox},
    meters::{Meter, Meters},
    poll::{Poll, Token},
    snapshot::PortSnapshot,
};
use crate::capture::{Point, tap::Captures};
use port::{Flushed, Frame, Ledger, Port, Received, Sealed};
use standing::Standing;
use std::{
    io,
    time::{Duration, Instant},
};
use tunnel::{Engine, Inbound, Outlet, Owner, Reserved, Transmit, WorkerId};

mod seen;
mod standing;

/// Entries taken from a port in one go.
const BURST_MAX: usize = 64;

/// Datagrams sent in one turn, while there are more: a turn that sends a whole congestion window takes a millisecond, for
/// which everybody else's packets wait. Batches of more are not cheaper: with 64, a busy tunnel's goodput was the same, and
/// the round trips beside it took longer by a quarter.
const TURN_MAX: usize = 32;

/// What happened to frames between the ports and the engine; one increment for every datagram.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HandOver {
    /// Delivered to this worker's engine, from its own ports.
    pub(crate) delivered: u64,
    /// Delivered to this worker's engine, from another worker's port.
    pub(crate) delivered_handed: u64,
    /// Given to the worker that owns the connection.
    pub(crate) handed_out: u64,
    /// Datagrams marked as having met congestion: the queue stood.
    pub(crate) ecn_marked: u64,
    /// Dropped: the owner's queue was full.
    pub(crate) drop_handover_full: u64,
    /// Dropped: names a worker that does not exist.
    pub(crate) drop_no_such_worker: u64,
    /// Dropped: a coalesced batch whose datagrams belong to several other workers.
    pub(crate) drop_mixed_batch: u64,
}

impl HandOver {
    /// The drop reasons by name.
    pub(crate) fn drops(&self) -> [(&'static str, u64); 3] {
        [
            ("handover_full", self.drop_handover_full),
            ("handover_no_such_worker", self.drop_no_such_worker),
            ("handover_mixed_batch", self.drop_mixed_batch),
        ]
    }
}

/// The ports of one worker.
///
/// First come the AF_XDP sockets, if any; then a kernel UDP socket: all there is without AF_XDP, else the slow path
/// beside it. The kernel socket reserves the port number, receives what steering passed on (fragments, queues without a
/// socket), and sends where AF_XDP has no route or neighbour yet. Behind it come the AF_XDP sockets of queues that are
/// newer than the daemon: those only receive, for the ports before them send everything.
///
/// A client has a kernel socket for each of its connections, on a port of its own. Its AF_XDP sockets share the work by that
/// port, `port % count`, so that connections spread over the NIC's queues, and on veth over those of the gateway.
pub(super) struct Ports {
    worker: u8,
    ports: Vec<Box<dyn Port>>,
    /// How many of them, the first ones, are AF_XDP sockets that send.
    fast_count: usize,
    writable_watched: Vec<bool>,
    standing: Vec<Standing>,
    burst: Vec<Received>,
    /// Workers that got frames of the present burst. At most one entry a frame.
    to_wake: Vec<u8>,
    peers: Vec<Mailbox>,
    pub(super) counters: HandOver,
    /// A flush left descriptors whose completion nobody will announce: look again by then.
    again_at: Option<Instant>,
}

impl Ports {
    pub(super) fn new(worker: u8, mut ports: Vec<Box<dyn Port>>, peers: Vec<Mailbox>) -> Self {
        let writable_watched = vec![false; ports.len()];
        Self {
            worker,
            standing: vec![Standing::default(); ports.len()],
            fast_count: ports.iter_mut().map_while(|port| port.census()).count(),
            ports,
            writable_watched,
            burst: Vec::with_capacity(BURST_MAX),
            to_wake: Vec::new(),
            peers,
            counters: HandOver::default(),
            again_at: None,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &dyn Port> {
        self.ports.iter().map(|port| &**port)
    }

    /// Counters and whereabouts of the frames, port by port.
    pub(super) fn snapshot(&mut self) -> Vec<PortSnapshot> {
        let of = |port: &mut Box<dyn Port>| PortSnapshot {
            counters: *port.counters(),
            frames: port.census(),
            ways: port.known_ways(),
            kernel: port.socket_statistics(),
        };
        self.ports.iter_mut().map(of).collect()
    }

    pub(super) fn register(&self, poll: &Poll) -> io::Result<()> {
        for (index, port) in self.ports.iter().enumerate() {
            poll.watch_readable(port.poll_fd(), Token::Port(index as u32))?;
        }
        Ok(())
    }

    /// Adds a port while the worker runs. The others keep their indices, which frames on their way home name.
    pub(super) fn add(&mut self, poll: &Poll, port: Box<dyn Port>) -> io::Result<()> {
        let index =
            u8::try_from(self.ports.len()).map_err(|_| io::Error::other("a worker has 256 ports at most"))?;
        poll.watch_readable(port.poll_fd(), Token::Port(u32::from(index)))?;
        self.ports.push(port);
        self.writable_watched.push(false);
        self.standing.push(Standing::default());
        Ok(())
    }

    /// Takes one burst from every port. True if any port may have more.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        engine: &mut Engine,
        meters: &mut Meters,
        captures: &mut Captures,
    ) -> io::Result<bool> {
        let mut more = false;
        for index in 0..self.ports.len() {
            let mut burst = std::mem::take(&mut self.burst);
            let count = self.ports[index].receive(&mut burst, BURST_MAX)?;
            more |= count == BURST_MAX;
            if count > 0 {
                meters.size(Meter::ReceiveBurst, count);
            }
            if captures.is_on() {
                self.show_received(index, &burst, captures);
            }
            self.counters.ecn_marked += self.standing[index].look(&mut burst);
            self.deliver(now, engine, index as u8, &mut burst, captures);
            self.burst = burst;
            self.wake_owners();
        }
        Ok(more)
    }

    /// Gives the datagrams of a burst to the engine, or their frames to the workers that own them.
    fn deliver(
        &mut self,
        now: Instant,
        engine: &mut Engine,
        port: u8,
        burst: &mut Vec<Received>,
        captures: &mut Captures,
    ) {
        let mut ours = Vec::with_capacity(burst.len());
        // By frame: whose it is, when that is another worker, and how many of its datagrams.
        let mut theirs = Vec::with_capacity(burst.len());
        for received in &*burst {
            let mut owner = None;
            let mut owned_count = 0;
            for datagram in received.datagrams() {
                match engine.owner_of(datagram) {
                    Owner::Here => ours.push(inbound(received, datagram)),
                    // The engine has counted it under its reason.
                    Owner::Drop(reason) => {
                        self.counters.delivered += 1;
                        self.show_dropped(captures, port, received, Some(datagram), reason.name());
                    }
                    Owner::Worker(WorkerId(other)) if *owner.get_or_insert(other) == other => {
                        owned_count += 1;
                    }
                    Owner::Worker(_) => {
                        self.counters.drop_mixed_batch += 1;
                        self.show_dropped(captures, port, received, Some(datagram), "handover_mixed_batch");
                    }
                }
            }
            theirs.push(owner.map(|owner| (owner, owned_count)));
        }
        self.counters.delivered += ours.len() as u64;
        engine.receive_burst(now, &ours);
        if captures.wants(Point::Drop) {
            self.show_dropped_by(engine, captures, port, &ours, burst);
        }
        for (received, theirs) in burst.drain(..).zip(theirs) {
            match theirs {
                None => self.ports[usize::from(port)].recycle(received.frame),
                Some((owner, count)) => self.hand_over(owner, count, port, received, captures),
            }
        }
    }

    /// Hands over a frame of which `count` datagrams are the owner's; the others have been dealt with.
    fn hand_over(&mut self, owner: u8, count: u64, port: u8, received: Received, captures: &mut Captures) {
        let home = Home { worker: self.worker, port };
        let refused = match self.peers.get(usize::from(owner)) {
            Some(peer) => match peer.hand_over(Handed { received, home }) {
                Ok(()) => {
                    self.counters.handed_out += count;
                    if self.to_wake.last() != Some(&owner) {
                        self.to_wake.push(owner);
                    }
                    return;
                }
                Err(handed) => {
                    self.counters.drop_handover_full += count;
                    self.show_dropped(captures, port, &handed.received, None, "handover_full");
                    handed.received
                }
            },
            None => {
                self.counters.drop_no_such_worker += count;
                self.show_dropped(captures, port, &received, None, "handover_no_such_worker");
                received
            }
        };
        self.ports[usize::from(port)].recycle(refused.frame);
    }

    /// Wakes the workers that got frames of this burst: once a burst, not once a frame.
    fn wake_owners(&mut self) {
        for owner in self.to_wake.drain(..) {
            if let Some(peer) = self.peers.get(usize::from(owner)) {
                peer.waker().wake();
            }
        }
    }

    /// Delivers frames that another worker handed over, and sends them home.
    pub(super) fn accept_handed(
        &mut self,
        now: Instant,
        engine: &mut Engine,
        handed: &mut Vec<Handed>,
        captures: &mut Captures,
    ) {
        // Datagrams that are not ours were counted by the worker that received the frame.
        let ours: Vec<Inbound<'_>> = handed
            .iter()
            .flat_map(|Handed { received, .. }| {
                received.datagrams().map(|datagram| inbound(received, datagram))
            })
            .filter(|inbound| engine.owns(inbound.bytes))
            .collect();
        self.counters.delivered_handed += ours.len() as u64;
        engine.receive_burst(now, &ours);
        if captures.wants(Point::Drop) {
            seen::show_handed_dropped(engine, captures, &ours);
        }
        for Handed { received, home } in handed.drain(..) {
            if let Some(peer) = self.peers.get(usize::from(home.worker)) {
                peer.send_home(home.port, received.frame);
            }
        }
    }

    /// Takes back a frame that another worker is done with.
    pub(super) fn take_home(&mut self, port: u8, frame: port::Frame) {
        if let Some(port) = self.ports.get_mut(usize::from(port)) {
            port.recycle(frame);
        }
    }

    /// Sends what the engine has, as far as the fast path has room and the turn lasts. True if nothing is left.
    pub(super) fn transmit(&mut self, now: Instant, engine: &mut Engine, captures: &mut Captures) -> bool {
        let room = self.send_room().min(TURN_MAX);
        if room == 0 {
            return !engine.pending_transmit();
        }
        let fast_count = self.fast_count;
        engine.transmit_into(
            now,
            room,
            &mut Way { ports: &mut self.ports, fast_count, reserved: Ledger::default(), captures },
        )
    }

    /// Hands what was queued to the kernel, and notes when to look again.
    pub(super) fn flush(&mut self, now: Instant, poll: &Poll) -> io::Result<()> {
        self.again_at = None;
        for (index, port) in self.ports.iter_mut().enumerate() {
            if let Flushed::Again(within) = port.flush()? {
                let at = now + within;
                self.again_at = Some(self.again_at.map_or(at, |other| other.min(at)));
            }
            if port.wants_writable() != self.writable_watched[index] {
                self.writable_watched[index] = port.wants_writable();
                poll.watch_writable_too(port.poll_fd(), Token::Port(index as u32), port.wants_writable())?;
            }
        }
        Ok(())
    }

    /// When [`Self::flush`] has to be called again at the latest.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.again_at
    }

    /// What every port is sure to take: which of them a datagram leaves by is known only when it is sent.
    fn send_room(&mut self) -> usize {
        self.ports.iter_mut().map(|port| port.send_room()).min().unwrap_or(0)
    }

    /// True if some port takes nothing for now.
    pub(super) fn is_blocked(&mut self) -> bool {
        self.send_room() == 0
    }
}

fn inbound<'a>(received: &Received, datagram: &'a [u8]) -> Inbound<'a> {
    let ecn = received.ecn.and_then(|ecn| tunnel::EcnCodepoint::from_bits(ecn as u8));
    Inbound { path: received.path, ecn, bytes: datagram }
}

/// The way of sealed datagrams out: by the first port that has a route.
struct Way<'a> {
    ports: &'a mut [Box<dyn Port>],
    fast_count: usize,
    reserved: Ledger,
    captures: &'a mut Captures,
}

impl Outlet for Way<'_> {
    type Slot = Frame;

    fn reserve(&mut self, transmit: &Transmit, slots: &mut Vec<Frame>) -> Reserved {
        let before = slots.len();
        let transmit = of_port(transmit);
        // The fast ports in turn, beginning with the one that the local port stands for; then the others.
        let first = usize::from(transmit.path.local.port()) % self.fast_count.max(1);
        let fast = (first..self.fast_count).chain(0..first.min(self.fast_count));
        for index in fast.chain(self.fast_count..self.ports.len()) {
            match self.ports[index].reserve(&transmit, slots) {
                port::Reserved::NoRoute => {}
                port::Reserved::Frames => {
                    self.reserved.gave(index, slots.len() - before);
                    return Reserved::Slots;
                }
                port::Reserved::Full => return Reserved::Full,
                // The port has counted it; QUIC sends it again.
                port::Reserved::Dropped => return Reserved::Dropped,
            }
        }
        Reserved::Dropped
    }

    fn submit(&mut self, transmit: &Transmit, sealed: &mut Vec<Sealed<Frame>>) -> bool {
        let index = self.reserved.submitted();
        if self.captures.is_on() {
            self.submit_seen(index, &of_port(transmit), sealed);
            return true;
        }
        // As above.
        let _ = self.ports[index].submit(&of_port(transmit), sealed);
        true
    }

    fn release(&mut self, slots: Vec<Frame>) {
        self.reserved.release(slots, |index, frame| self.ports[index].release(frame));
    }
}

fn of_port(transmit: &Transmit) -> port::Transmit {
    let Transmit { path, ecn, size_bytes, segment_bytes } = *transmit;
    port::Transmit::new(path, ecn.map(|ecn| ecn as u8), size_bytes, segment_bytes)
}

/// The longest that a worker with a blocked fast path waits before it looks again.
pub(super) const BLOCKED_RETRY: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    //! Goal: a batch that the kernel coalesced may hold datagrams of several owners and of none; each is counted once.
    //! Method: every mix of four datagrams of five kinds through two workers' ports, with a port that only keeps count.
    use super::*;
    use port::{Counters, Region, Sent};
    use rustix::event::{EventfdFlags, eventfd};
    use rustix::fd::{AsFd, OwnedFd};
    use tunnel::{CidKey, EngineConfig, Secrets, cid::CidCodec};
    use wire::Path;

    const SEGMENT_BYTES: usize = 64;

    struct OneBatch {
        waiting: Option<Received>,
        home_count: usize,
        fd: OwnedFd,
        counters: Counters,
    }

    impl Port for OneBatch {
        fn receive(&mut self, burst: &mut Vec<Received>, _max: usize) -> io::Result<usize> {
            let count = usize::from(self.waiting.is_some());
            burst.extend(self.waiting.take());
            Ok(count)
        }
        fn recycle(&mut self, _frame: Frame) {
            self.home_count += 1;
            self.counters.rx_delivered += 1;
        }
        fn send_room(&mut self) -> usize {
            0
        }
        fn reserve(&mut self, _: &port::Transmit, _: &mut Vec<Frame>) -> port::Reserved {
            port::Reserved::Dropped
        }
        fn submit(&mut self, _: &port::Transmit, _: &mut Vec<Sealed<Frame>>) -> Sent {
            Sent::Dropped
        }
        fn release(&mut self, _frame: Frame) {}
        fn count_drop(&mut self, _: port::Drop, _: usize) {}
        fn flush(&mut self) -> io::Result<Flushed> {
            Ok(Flushed::Idle)
        }
        fn poll_fd(&self) -> rustix::fd::BorrowedFd<'_> {
            self.fd.as_fd()
        }
        fn segments_max(&self) -> usize {
            1
        }
        fn counters(&self) -> &Counters {
            &self.counters
        }
    }

    fn batch(datagrams: &[Vec<u8>]) -> Received {
        let bytes = datagrams.concat();
        let mut frame = Region::anonymous(bytes.len(), 1).unwrap().remove(0);
        frame.copy_from_slice(&bytes);
        let path = Path { local: ([198, 18, 0, 1], 443).into(), remote: ([198, 18, 0, 2], 9).into() };
        Received { path, ecn: None, frame, segment_bytes: SEGMENT_BYTES }
    }

    #[test]
    fn each_datagram_of_a_mixed_batch_counts_once() {
        let secrets = Secrets { cid_key: CidKey([1; 16]), reset_key: [2; 64], token_key: [3; 64] };
        let codec = CidCodec::new(secrets.cid_key, 0);
        let of_worker = |id: u8| {
            let mut datagram = vec![0x40];
            datagram.extend(codec.encode(WorkerId(id), [id; 8]));
            datagram.resize(SEGMENT_BYTES, 0);
            datagram
        };
        // Ours, the other worker's, two workers' that don't exist, nobody's.
        let kinds = [of_worker(0), of_worker(1), of_worker(7), of_worker(8), vec![0xc0; SEGMENT_BYTES]];
        for mix in 0..kinds.len().pow(4) {
            let datagrams: Vec<Vec<u8>> =
                (0..4).map(|place| kinds[mix / kinds.len().pow(place) % kinds.len()].clone()).collect();
            let mailboxes: Vec<Mailbox> = (0..2).map(|_| Mailbox::new().unwrap()).collect();
            let engine = |id: u8| Engine::new(EngineConfig::new(WorkerId(id), secrets.clone(), None));
            let (mut here, mut there) = (engine(0), engine(1));
            let port = OneBatch {
                waiting: Some(batch(&datagrams)),
                home_count: 0,
                fd: eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
                counters: Counters::default(),
            };
            let mut ports = Ports::new(0, vec![Box::new(port)], mailboxes.clone());
            let mut others = Ports::new(1, Vec::new(), mailboxes.clone());
            let now = Instant::now();
            ports.receive(now, &mut here, &mut Meters::default(), &mut Captures::default()).unwrap();
            let mut handed: Vec<_> = std::iter::from_fn(|| mailboxes[1].next_frame()).collect();
            others.accept_handed(now, &mut there, &mut handed, &mut Captures::default());
            while let Some((port, frame)) = mailboxes[0].next_return() {
                ports.take_home(port, frame);
            }
            let (mine, theirs) = (ports.counters, others.counters);
            let dropped: u64 = mine.drops().iter().map(|(_, n)| n).sum();
            assert_eq!(
                mine.delivered + theirs.delivered_handed + dropped,
                4,
                "mix {mix}: {mine:?} {theirs:?}"
            );
            assert_eq!(mine.handed_out, theirs.delivered_handed, "mix {mix}: {mine:?} {theirs:?}");
            let of_nobody = datagrams.iter().filter(|datagram| datagram[0] == 0xc0).count() as u64;
            let (here, there) = (here.stats(), there.stats());
            let counted: u64 = here.drops.iter().chain(&there.drops).sum();
            // What is for a client engine's own CIDs without a connection draws no answer either.
            let ours = datagrams.iter().filter(|d| **d == kinds[0]).count() as u64 + theirs.delivered_handed;
            assert_eq!(counted, of_nobody + ours - here.stateless_resets_sent - there.stateless_resets_sent);
            assert_eq!(
                ports.iter().next().unwrap().counters().rx_delivered,
                1,
                "mix {mix}: the frame is home"
            );
        }
    }
}
