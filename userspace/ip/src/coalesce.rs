//! Packets that came one by one, put together again: consecutive segments of one TCP flow (and equal datagrams of one
//! UDP flow) leave as one super-packet, which the kernel takes in one call and carries as one.
//!
//! What may be put together is what [`Split`](crate::Split) takes apart again to the same bytes (so does the kernel's
//! GRO): same headers but for length, identification, sequence number and checksum; identifications and sequence numbers
//! in a row; all payloads of one length but the last; PSH ends it. Checksums are verified first, lest a damaged packet
//! becomes a good one. Whatever can't be put together passes as it is; the order within a flow is kept.
//!
//! Bounded: [`GROUPS_MAX`] flows at once, [`SEGMENTS_MAX`] segments and 65,535 bytes each.

use crate::{
    checksum::{self, TCP_CHECKSUM_OFFSET, Transport, UDP_CHECKSUM_OFFSET},
    packet::{Fragment, View, protocol},
    split::{PSH, TCP_BYTES, TCP_FLAGS_OFFSET, UDP_BYTES},
    vnet::{Gso, Vnet},
};
use bytes::{Buf as _, Bytes};
use wire::{
    Bytes as _,
    headers::{IPV4_BYTES, IPV6_BYTES},
};

/// Flows that are put together at the same time; the one that waits longest makes room.
pub const GROUPS_MAX: usize = 8;
/// Segments of one super-packet (the kernel's UDP_MAX_SEGMENTS of before 6.12, and more than 64 KiB of full ones).
pub const SEGMENTS_MAX: usize = 64;
/// An IP packet's length has 16 bits.
const PACKET_BYTES_MAX: usize = 65_535;
/// An IPv6 header, and the longest TCP header.
const HEADER_BYTES_MAX: usize = IPV6_BYTES + 60;

const ACK: u8 = 0x10;
const ECE: u8 = 0x40;

/// Takes the super-packets and packets in the order in which they are to leave: the vnet header, then bytes that come
/// first, then the rest.
pub type Emit<'a> = &'a mut dyn FnMut(Vnet, &[u8], &[Bytes]);

/// See the module.
#[derive(Debug, Default)]
pub struct Coalescer {
    /// Oldest first.
    groups: Vec<Group>,
    /// Lists that keep their capacity.
    spare: Vec<Vec<Bytes>>,
    takes_udp: bool,
}

/// A packet that may begin or join a group.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    view: View,
    header_bytes: usize,
    payload_bytes: usize,
    sequence: u32,
    id: u16,
    /// Nothing may follow it.
    ends: bool,
}

/// Segments of one flow.
#[derive(Debug)]
struct Group {
    view: View,
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
    segment_bytes: usize,
    payloads: Vec<Bytes>,
    payload_bytes: usize,
    sequence_next: u32,
    id_next: u16,
    ended: bool,
}

impl Coalescer {
    /// `takes_udp`: whoever gets the packets knows what a UDP super-packet is.
    #[must_use]
    pub fn new(takes_udp: bool) -> Self {
        Self { takes_udp, ..Self::default() }
    }

    /// Takes one IP packet, in full and with nothing behind it.
    pub fn push(&mut self, packet: Bytes, emit: Emit<'_>) {
        let Ok(view) = View::read_unsummed(&packet) else { return emit(Vnet::NONE, &[], &[packet]) };
        match self.candidate(&packet, view) {
            Some(candidate) => self.join_or_begin(packet, &candidate, emit),
            None => {
                self.flush_between(&view, emit);
                emit(Vnet::NONE, &[], &[packet]);
            }
        }
    }

    /// Lets go of everything.
    pub fn flush(&mut self, emit: Emit<'_>) {
        for group in std::mem::take(&mut self.groups) {
            self.emit(group, emit);
        }
    }

    fn join_or_begin(&mut self, mut packet: Bytes, candidate: &Candidate, emit: Emit<'_>) {
        if let Some(index) = self.groups.iter().position(|group| group.is_flow_of(&packet, candidate)) {
            if let Some(group) = self.groups.get_mut(index)
                && group.takes(&packet, candidate)
            {
                packet.advance(candidate.header_bytes);
                group.join(packet, candidate);
                if group.ended {
                    let group = self.groups.remove(index);
                    self.emit(group, emit);
                }
                return;
            }
            let group = self.groups.remove(index);
            self.emit(group, emit);
        }
        if candidate.ends {
            return emit(Vnet::NONE, &[], &[packet]);
        }
        if self.groups.len() >= GROUPS_MAX {
            let oldest = self.groups.remove(0);
            self.emit(oldest, emit);
        }
        let payloads = self.spare.pop().unwrap_or_default();
        self.groups.extend(Group::begin(packet, candidate, payloads));
    }

    /// What is held of flows between the two ends of a packet goes before it.
    fn flush_between(&mut self, view: &View, emit: Emit<'_>) {
        let between =
            |group: &Group| (group.view.source, group.view.destination) == (view.source, view.destination);
        while let Some(index) = self.groups.iter().position(between) {
            let group = self.groups.remove(index);
            self.emit(group, emit);
        }
    }

    fn emit(&mut self, mut group: Group, emit: Emit<'_>) {
        let vnet = group.finish();
        let header = group.header.get(..group.header_bytes).unwrap_or_default();
        emit(vnet, header, &group.payloads);
        group.payloads.clear();
        if self.spare.len() < GROUPS_MAX {
            self.spare.push(group.payloads);
        }
    }

    /// Whether a packet may be part of a super-packet at all.
    fn candidate(&self, packet: &Bytes, view: View) -> Option<Candidate> {
        let plain_header = if view.source.is_ipv4() { IPV4_BYTES } else { IPV6_BYTES };
        if view.transport_offset != plain_header
            || view.fragment != Fragment::Whole
            || view.total_bytes != packet.len()
        {
            return None;
        }
        let (header_bytes, sequence, ends) = match view.protocol {
            protocol::TCP => tcp_candidate(packet, &view)?,
            protocol::UDP if self.takes_udp => udp_candidate(packet, &view)?,
            _ => return None,
        };
        let payload_bytes = packet.len().checked_sub(header_bytes).filter(|&bytes| bytes > 0)?;
        if checksum::judge(packet, &view) != Transport::Good {
            return None;
        }
        let id = if view.source.is_ipv4() { u16::from_be_bytes(packet.array(4)?) } else { 0 };
        Some(Candidate { view, header_bytes, payload_bytes, sequence, id, ends })
    }
}

/// Header length, sequence number, and whether nothing may follow.
fn tcp_candidate(packet: &[u8], view: &View) -> Option<(usize, u32, bool)> {
    let tcp: [u8; TCP_BYTES] = packet.array(view.transport_offset)?;
    let [.., doff, flags, _, _, _, _, u0, u1] = tcp;
    let tcp_bytes = usize::from(doff >> 4) * 4;
    let plain = flags & !(ACK | PSH | ECE) == 0 && flags & ACK != 0 && [u0, u1] == [0, 0];
    if !plain || tcp_bytes < TCP_BYTES {
        return None;
    }
    let [_, _, _, _, s0, s1, s2, s3, ..] = tcp;
    Some((view.transport_offset + tcp_bytes, u32::from_be_bytes([s0, s1, s2, s3]), flags & PSH != 0))
}

fn udp_candidate(packet: &[u8], view: &View) -> Option<(usize, u32, bool)> {
    let udp: [u8; UDP_BYTES] = packet.array(view.transport_offset)?;
    let [_, _, _, _, l0, l1, c0, c1] = udp;
    let whole = usize::from(u16::from_be_bytes([l0, l1])) == packet.len() - view.transport_offset;
    // A datagram without a checksum would get one.
    (whole && [c0, c1] != [0, 0]).then_some((view.transport_offset + UDP_BYTES, 0, false))
}

impl Group {
    fn begin(mut packet: Bytes, candidate: &Candidate, mut payloads: Vec<Bytes>) -> Option<Self> {
        let mut header = [0; HEADER_BYTES_MAX];
        header.get_mut(..candidate.header_bytes)?.copy_from_slice(packet.get(..candidate.header_bytes)?);
        packet.advance(candidate.header_bytes);
        payloads.push(packet);
        Some(Self {
            view: candidate.view,
            header,
            header_bytes: candidate.header_bytes,
            segment_bytes: candidate.payload_bytes,
            payloads,
            payload_bytes: candidate.payload_bytes,
            sequence_next: candidate.sequence.wrapping_add(candidate.payload_bytes as u32),
            id_next: candidate.id.wrapping_add(1),
            ended: false,
        })
    }

    /// Same ends, same ports, same protocol.
    fn is_flow_of(&self, packet: &[u8], candidate: &Candidate) -> bool {
        let view = &candidate.view;
        let ports = view.transport_offset..view.transport_offset + 4;
        self.view.protocol == view.protocol
            && self.view.source == view.source
            && self.view.destination == view.destination
            && self.header.get(ports.clone()) == packet.get(ports)
    }

    /// Whether a packet of the same flow is the next segment.
    fn takes(&self, packet: &[u8], candidate: &Candidate) -> bool {
        !self.ended
            && candidate.header_bytes == self.header_bytes
            && candidate.payload_bytes <= self.segment_bytes
            && self.payloads.len() < SEGMENTS_MAX
            && self.header_bytes + self.payload_bytes + candidate.payload_bytes <= PACKET_BYTES_MAX
            && (self.view.protocol != protocol::TCP || candidate.sequence == self.sequence_next)
            && (!self.view.source.is_ipv4() || candidate.id == self.id_next)
            && self.has_headers_of(packet)
    }

    /// Equal headers, but for what is a segment's own.
    fn has_headers_of(&self, packet: &[u8]) -> bool {
        let same = |from: usize, to: usize| self.header.get(from..to) == packet.get(from..to);
        let transport = self.view.transport_offset;
        // Addresses, ports and protocol have been compared.
        let ip = if self.view.source.is_ipv4() { same(0, 2) && same(6, 9) } else { same(0, 4) && same(7, 8) };
        if self.view.protocol == protocol::UDP {
            return ip;
        }
        let flags = |bytes: &[u8]| bytes.get(transport + TCP_FLAGS_OFFSET).map(|flags| flags & !PSH);
        // Acknowledgement and data offset; flags; window; urgent pointer (zero in both) and options.
        ip && same(transport + 8, transport + 13)
            && flags(&self.header) == flags(packet)
            && same(transport + 14, transport + 16)
            && same(transport + 18, self.header_bytes)
    }

    fn join(&mut self, payload: Bytes, candidate: &Candidate) {
        self.payload_bytes += candidate.payload_bytes;
        self.sequence_next = self.sequence_next.wrapping_add(candidate.payload_bytes as u32);
        self.id_next = self.id_next.wrapping_add(1);
        self.ended = candidate.ends
            || candidate.payload_bytes < self.segment_bytes
            || self.payloads.len() + 1 >= SEGMENTS_MAX;
        if candidate.ends
            && let Some(flags) = self.header.get_mut(self.view.transport_offset + TCP_FLAGS_OFFSET)
        {
            *flags |= PSH;
        }
        self.payloads.push(payload);
    }

    /// Gives the headers the length of the whole, and says what the kernel is to do with it. One packet stays as it was.
    fn finish(&mut self) -> Vnet {
        if self.payloads.len() < 2 {
            return Vnet::NONE;
        }
        let total_bytes = self.header_bytes + self.payload_bytes;
        let transport_offset = self.view.transport_offset;
        let transport_bytes = total_bytes - transport_offset;
        let is_v4 = self.view.source.is_ipv4();
        if is_v4 {
            put(&mut self.header, 2, (total_bytes as u16).to_be_bytes());
            if let Some(ip) = self.header.get_mut(..transport_offset) {
                checksum::fill_ipv4_header(ip);
            }
        } else {
            put(&mut self.header, 4, ((total_bytes - IPV6_BYTES) as u16).to_be_bytes());
        }
        let checksum_offset = if self.view.protocol == protocol::UDP {
            put(&mut self.header, transport_offset + 4, (transport_bytes as u16).to_be_bytes());
            UDP_CHECKSUM_OFFSET
        } else {
            TCP_CHECKSUM_OFFSET
        };
        let View { source, destination, protocol, .. } = self.view;
        let pseudo = checksum::pseudo_header(source, destination, protocol, transport_bytes);
        put(&mut self.header, transport_offset + checksum_offset, pseudo.folded());
        Vnet {
            gso: match (protocol, is_v4) {
                (protocol::UDP, _) => Gso::Udp,
                (_, true) => Gso::TcpV4,
                (_, false) => Gso::TcpV6,
            },
            gso_bytes: self.segment_bytes as u16,
            needs_checksum: true,
            checksum_start: transport_offset as u16,
            checksum_offset: checksum_offset as u16,
            header_bytes: self.header_bytes as u16,
        }
    }
}

fn put(header: &mut [u8], at: usize, value: [u8; 2]) {
    if let Some(field) = header.get_mut(at..at + 2) {
        field.copy_from_slice(&value);
    }
}
