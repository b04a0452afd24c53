//! Datagrams out: what waited, stateless answers, and the touched connections in turn; sealed together in batches.
//!
//! ```text
//!   quinn ─► Batch (plain, with notes) ─┐ Outlet::reserve: a slot for each datagram
//!                                       └─► sealed into the slots ─► Outlet::submit
//! ```

use super::batch::Pending;
use super::{Engine, Parked, conn_at};
use crate::protection::sealing;
use crate::stats::DropReason;
use quinn_proto::EcnCodepoint;
use simd::{NotTiled, Packet, Sealed};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Instant;
use wire::Path;

/// Datagrams that one `poll_transmit` writes together: 16 % fewer instructions than one by one, and
/// beyond ten little is gained. It is also the turn of a connection in the round robin.
const TRANSMIT_DATAGRAMS_MAX: usize = 10;

/// Datagrams to one address, back to back.
///
/// Invariant: `size_bytes` and `segment_bytes` are above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// From where to where.
    pub path: Path,
    /// ECN codepoint to send with.
    pub ecn: Option<EcnCodepoint>,
    /// Bytes of all datagrams.
    pub size_bytes: usize,
    /// Bytes of each datagram but the last, which may be shorter.
    pub segment_bytes: usize,
}

impl Transmit {
    /// A single datagram.
    pub(crate) fn one(path: Path, ecn: Option<EcnCodepoint>, size_bytes: usize) -> Self {
        Self { path, ecn, size_bytes, segment_bytes: size_bytes }
    }

    /// How many datagrams it is.
    #[must_use]
    pub fn datagram_count(&self) -> usize {
        self.size_bytes.div_ceil(self.segment_bytes)
    }

    /// The lengths of its datagrams.
    pub fn datagrams(&self) -> impl Iterator<Item = usize> {
        let (size, segment) = (self.size_bytes, self.segment_bytes);
        (0..self.datagram_count()).map(move |n| segment.min(size - n * segment))
    }
}

/// What an [`Outlet`] has for a transmit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// Slots.
    Slots,
    /// No room now: ask again later.
    Full,
    /// It can't be sent that way; the outlet has counted it. QUIC will find out.
    Dropped,
}

/// Where sealed datagrams leave an engine: the worker's ports.
pub trait Outlet {
    /// A buffer for one or more whole datagrams.
    type Slot: AsMut<[u8]> + AsRef<[u8]>;

    /// Appends slots for the transmit's datagrams, in their order and filled exactly by them, if there is room.
    fn reserve(&mut self, transmit: &Transmit, slots: &mut Vec<Self::Slot>) -> Reserved;

    /// Sends what was reserved, sealed. Transmits come in the order of their reservation. `false`: refused, and `sealed`
    /// is left as it was; the slots come back by [`release`](Self::release).
    fn submit(&mut self, transmit: &Transmit, sealed: &mut Vec<Sealed<Self::Slot>>) -> bool;

    /// Takes back slots of transmits that were reserved and are not sent, in the order of their reservation.
    fn release(&mut self, slots: Vec<Self::Slot>);
}

/// Takes a transmit: path, ECN, bytes and, when they are several datagrams, the size of each but the
/// last. Says whether it did; if not, the engine keeps the bytes.
pub type Sink<'a> = dyn FnMut(&Path, Option<EcnCodepoint>, &[u8], Option<usize>) -> bool + 'a;

/// A sink as an outlet, over buffers of its own.
struct Closure<'a, 'b>(&'a mut Sink<'b>);

impl Outlet for Closure<'_, '_> {
    type Slot = Vec<u8>;

    fn reserve(&mut self, transmit: &Transmit, slots: &mut Vec<Vec<u8>>) -> Reserved {
        slots.push(vec![0; transmit.size_bytes]);
        Reserved::Slots
    }

    fn submit(&mut self, transmit: &Transmit, sealed: &mut Vec<Sealed<Vec<u8>>>) -> bool {
        let Transmit { path, ecn, size_bytes, segment_bytes } = transmit;
        let segment = (size_bytes > segment_bytes).then_some(*segment_bytes);
        let taken = sealed.iter().all(|slot| (self.0)(path, *ecn, slot.as_ref(), segment));
        if taken {
            sealed.clear();
        }
        taken
    }

    fn release(&mut self, _slots: Vec<Vec<u8>>) {}
}

/// An outlet, and how much it takes in this call.
struct Room<'a, O> {
    outlet: &'a mut O,
    datagrams: usize,
    /// It has refused something: what follows waits behind it.
    refused: bool,
}

impl Engine {
    /// Gives the sink up to `room_datagrams` datagrams. Returns whether nothing is left to send now.
    ///
    /// When it returns `false` (no room, or the sink refused) the rest waits for the next call.
    pub fn transmit(&mut self, now: Instant, room_datagrams: usize, sink: &mut Sink<'_>) -> bool {
        self.transmit_into(now, room_datagrams, &mut Closure(sink))
    }

    /// As [`transmit`](Self::transmit), sealing straight into the outlet's slots.
    pub fn transmit_into<O: Outlet>(&mut self, now: Instant, room_datagrams: usize, outlet: &mut O) -> bool {
        self.now = Some(now);
        let mut room = Room { outlet, datagrams: room_datagrams, refused: false };
        let mut waiting = self.send_parked(&mut room);
        while room.datagrams > 0
            && let Some((path, bytes)) = self.answers.pop_front()
        {
            self.queue(&mut room, Transmit::one(path, None, bytes.len()), bytes);
        }
        while room.datagrams > 0
            && let Some((path, held)) = self.budget.release()
        {
            self.stats.amplification_released += 1;
            self.queue(&mut room, Transmit::one(path, held.ecn, held.bytes.len()), held.bytes.into());
        }
        while room.datagrams > 0
            && let Some(index) = self.touched.pop_front()
        {
            self.poll_connection(now, index, &mut room);
        }
        self.flush(&mut room);
        self.parked.append(&mut waiting);
        !self.pending_transmit()
    }

    /// Whether `transmit` has something to do.
    pub fn pending_transmit(&self) -> bool {
        !(self.parked.is_empty() && self.answers.is_empty() && self.touched.is_empty())
            || self.budget.has_ready()
    }

    /// One turn of one connection: up to ten datagrams, or off the list.
    fn poll_connection<O: Outlet>(&mut self, now: Instant, index: u32, room: &mut Room<'_, O>) {
        let Some(conn) = conn_at(&mut self.slots, index) else { return };
        let datagrams_max = TRANSMIT_DATAGRAMS_MAX.min(room.datagrams);
        let noted_before = self.batch.noted_count();
        let (mut bytes, notes) = self.batch.begin();
        // Under the three-times limit datagrams are held and dropped one by one: those are sealed at once.
        let deferred = self.batched && conn.may_send_freely(conn.quic.remote_address());
        let transmit = match deferred {
            true => sealing(notes, || conn.quic.poll_transmit(now, datagrams_max, &mut bytes)),
            false => conn.quic.poll_transmit(now, datagrams_max, &mut bytes),
        };
        let Some(transmit) = transmit else {
            conn.touched = false;
            self.batch.forget_after(noted_before);
            self.batch.give_back(bytes);
            self.settle(now, index);
            return;
        };
        let path = conn.path_to(transmit.destination);
        let free = conn.may_send_freely(transmit.destination);
        self.touched.push_back(index);
        bytes.truncate(transmit.size);
        let packet_count = self.batch.noted_count() - noted_before;
        let transmit = Transmit {
            path,
            ecn: transmit.ecn,
            size_bytes: bytes.len(),
            segment_bytes: transmit.segment_size.unwrap_or(bytes.len()),
        };
        match free {
            true => self.push(room, transmit, bytes, packet_count),
            false => self.send_within_budget(room, transmit, bytes, packet_count),
        }
    }

    /// To an address that has not proved itself: datagram by datagram, sent, held or dropped.
    fn send_within_budget<O: Outlet>(
        &mut self,
        room: &mut Room<'_, O>,
        transmit: Transmit,
        bytes: Vec<u8>,
        packet_count: usize,
    ) {
        // Noted packets are rare here: a challenge to another address than the one in use.
        let Some(bytes) = self.batch.seal_alone(&mut self.guard, transmit, bytes, packet_count) else {
            self.give_batches_up(transmit.datagram_count());
            return;
        };
        for datagram in bytes.chunks(transmit.segment_bytes) {
            if self.budget.spend(&transmit.path, datagram.len()) {
                let one = Transmit::one(transmit.path, transmit.ecn, datagram.len());
                self.queue(room, one, datagram.into());
            } else if self.budget.hold(&transmit.path, transmit.ecn, datagram) {
                self.stats.amplification_held += 1;
            } else {
                self.stats.drop(DropReason::AmplificationLimit);
            }
        }
    }

    /// Datagrams that are as the wire may see them.
    fn queue<O: Outlet>(&mut self, room: &mut Room<'_, O>, transmit: Transmit, bytes: Vec<u8>) {
        self.push(room, transmit, bytes, 0);
    }

    fn push<O: Outlet>(
        &mut self,
        room: &mut Room<'_, O>,
        transmit: Transmit,
        bytes: Vec<u8>,
        packet_count: usize,
    ) {
        room.datagrams = room.datagrams.saturating_sub(transmit.datagram_count());
        self.batch.push(transmit, bytes, packet_count);
        if self.batch.is_full() {
            self.flush(room);
        }
    }

    /// Seals the batch into the outlet's slots and sends it. What finds no room is sealed and parked.
    fn flush<O: Outlet>(&mut self, room: &mut Room<'_, O>) {
        if self.batch.is_empty() {
            return;
        }
        let mut batch = std::mem::take(&mut self.batch);
        self.count_sealed(batch.datagram_count);
        if self.extra_copy {
            batch.copy_once_more();
        }
        match batch.packets() {
            Some(packets) => self.send(room, &batch.pending, &packets),
            None => self.give_batches_up(batch.datagram_count),
        }
        batch.clear();
        self.batch = batch;
    }

    fn send<O: Outlet>(&mut self, room: &mut Room<'_, O>, pending: &[Pending], packets: &[Packet<'_>]) {
        let mut slots = Vec::with_capacity(packets.len());
        let mut ready =
            Ready { transmits: Vec::with_capacity(pending.len()), packets: Cow::Borrowed(packets) };
        let mut parked = Vec::new();
        let mut its_from = 0;
        for pending in pending {
            let its = &packets[its_from..its_from + pending.packet_count()];
            let before = slots.len();
            let reserved = match room.refused {
                true => Reserved::Full,
                false => room.outlet.reserve(&pending.transmit, &mut slots),
            };
            match reserved {
                Reserved::Slots => ready.keep(pending.transmit, slots.len() - before, its),
                Reserved::Full => {
                    room.refused = true;
                    ready.leave_out(&packets[..its_from]);
                    parked.push((pending.transmit, its));
                }
                Reserved::Dropped => {
                    ready.leave_out(&packets[..its_from]);
                    self.count_out(&pending.transmit);
                }
            }
            its_from += its.len();
        }
        match self.guard.protect(slots, &ready.packets) {
            Ok(sealed) => self.submit(room, &ready.transmits, sealed),
            Err(NotTiled(slots)) => {
                room.outlet.release(slots);
                self.give_batches_up(
                    ready.transmits.iter().map(|(transmit, _)| transmit.datagram_count()).sum(),
                );
            }
        }
        for (transmit, its) in parked {
            match self.guard.protect(vec![vec![0; transmit.size_bytes]], its) {
                Ok(sealed) => self.park(transmit, &sealed),
                Err(NotTiled(_)) => self.give_batches_up(transmit.datagram_count()),
            }
        }
        if room.refused {
            room.datagrams = 0;
        }
    }

    fn submit<O: Outlet>(
        &mut self,
        room: &mut Room<'_, O>,
        ready: &[(Transmit, usize)],
        sealed: Vec<Sealed<O::Slot>>,
    ) {
        let mut sealed = sealed.into_iter();
        let mut its = Vec::new();
        // Refusal at `reserve` is about what follows; these have their room.
        let mut refused = false;
        for &(transmit, slot_count) in ready {
            its.clear();
            its.extend(sealed.by_ref().take(slot_count));
            refused = refused || !room.outlet.submit(&transmit, &mut its);
            if refused {
                self.park(transmit, &its);
                room.outlet.release(its.drain(..).map(Sealed::into_inner).collect());
            } else {
                self.count_out(&transmit);
            }
        }
        room.refused |= refused;
    }

    fn count_out(&mut self, transmit: &Transmit) {
        self.stats.datagrams_out += transmit.datagram_count() as u64;
        self.stats.bytes_out += transmit.size_bytes as u64;
    }

    /// Keeps a transmit for the next call.
    fn park<B: AsRef<[u8]>>(&mut self, transmit: Transmit, sealed: &[Sealed<B>]) {
        self.stats.transmits_parked += 1;
        let mut bytes = Vec::with_capacity(transmit.size_bytes);
        sealed.iter().for_each(|slot| bytes.extend_from_slice(slot.as_ref()));
        self.parked.push_back(Parked { transmit, bytes });
    }

    /// quinn has called the packet keys otherwise than it used to. Nothing of what it wrote is sent, and from now on
    /// every packet is protected on the spot.
    fn give_batches_up(&mut self, datagram_count: usize) {
        self.stats.drop_many(DropReason::NotSealed, datagram_count);
        if std::mem::take(&mut self.batched) {
            tracing::error!(
                "packets can't be sealed in batches: quinn-proto called the packet keys in an unexpected order; beam goes on packet by packet"
            );
        }
    }

    /// What was refused before goes first, split if there is less room now. Returns what has to wait again, behind
    /// whatever is refused in this call.
    fn send_parked<O: Outlet>(&mut self, room: &mut Room<'_, O>) -> VecDeque<Parked> {
        let mut waiting = std::mem::take(&mut self.parked);
        while room.datagrams > 0
            && let Some(Parked { mut transmit, mut bytes }) = waiting.pop_front()
        {
            let room_bytes = transmit.segment_bytes.saturating_mul(room.datagrams);
            if bytes.len() > room_bytes {
                let rest = bytes.split_off(room_bytes);
                let transmit = Transmit { size_bytes: rest.len(), ..transmit };
                waiting.push_front(Parked { transmit, bytes: rest });
            }
            transmit.size_bytes = bytes.len();
            self.queue(room, transmit, bytes);
        }
        waiting
    }

    /// What was held for an address that has proved itself may go, before anything newer.
    pub(super) fn release_all(&mut self, path: Path) {
        for held in self.budget.validated(&path) {
            self.stats.amplification_released += 1;
            let transmit = Transmit::one(path, held.ecn, held.bytes.len());
            self.parked.push_back(Parked { transmit, bytes: held.bytes.into() });
        }
    }
}

/// What of a batch has its slots: nearly always all of it.
struct Ready<'a, 'b> {
    /// With how many slots each has.
    transmits: Vec<(Transmit, usize)>,
    packets: Cow<'b, [Packet<'a>]>,
}

impl<'a> Ready<'a, '_> {
    fn keep(&mut self, transmit: Transmit, slot_count: usize, its: &[Packet<'a>]) {
        self.transmits.push((transmit, slot_count));
        if let Cow::Owned(packets) = &mut self.packets {
            packets.extend_from_slice(its);
        }
    }

    /// Some packets are not to be sealed here; `before` are those that are looked at already, and stay if this is the
    /// first time.
    fn leave_out(&mut self, before: &[Packet<'a>]) {
        if let Cow::Borrowed(_) = self.packets {
            self.packets = Cow::Owned(before.to_vec());
        }
    }
}
