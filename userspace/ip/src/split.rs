//! A packet as the kernel gives it, with offloads, to packets as they may be on a wire.
//!
//! TCP and UDP super-packets of up to 64 KiB come with one set of headers. Each segment gets a copy of them with its own
//! length, IPv4 identification, sequence number, flags and checksums, as the kernel's own segmentation (GSO) would do
//! it: FIN and PSH on the last, CWR on the first, identifications counted up.
//!
//! The caller gives the memory: segments are written where they are to leave from, one copy.

use crate::{
    checksum::{self, TCP_CHECKSUM_OFFSET, UDP_CHECKSUM_OFFSET},
    packet::{Fragment, Malformed, View, protocol},
    vnet::{Gso, Vnet},
};
use wire::{Bytes, headers::IpVersion};

pub(crate) const TCP_BYTES: usize = 20;
pub(crate) const UDP_BYTES: usize = 8;
/// Offset of the flags in a TCP header.
pub(crate) const TCP_FLAGS_OFFSET: usize = 13;
pub(crate) const FIN: u8 = 0x01;
pub(crate) const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Why a packet can't be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// Its IP header is wrong.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Its vnet header doesn't fit the packet.
    #[error("the vnet header doesn't fit the packet: {0}")]
    Vnet(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One packet; the words of its vnet header say where its checksum is, if that is still to be computed.
    Plain(Option<(usize, usize)>),
    Tcp,
    Udp,
}

/// A packet that was proved, and how it falls into segments.
#[derive(Clone, Copy, Debug)]
pub struct Split<'a> {
    packet: &'a [u8],
    view: View,
    kind: Kind,
    /// IP and transport header; the whole packet where it is plain.
    header_bytes: usize,
    /// Payload of each segment but the last.
    segment_bytes: usize,
    count: usize,
}

impl<'a> Split<'a> {
    /// Proves a packet.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(vnet: Vnet, packet: &'a [u8]) -> Result<Self, SplitError> {
        let view = View::read_unsummed(packet)?;
        let packet = packet.get(..view.total_bytes).unwrap_or_default();
        let kind = match vnet.gso {
            Gso::None => Kind::Plain(
                vnet.needs_checksum
                    .then_some((usize::from(vnet.checksum_start), usize::from(vnet.checksum_offset))),
            ),
            Gso::TcpV4 | Gso::TcpV6 => Kind::Tcp,
            Gso::Udp => Kind::Udp,
        };
        if let Kind::Plain(checksum) = kind {
            let fits = |(start, offset): (usize, usize)| start + offset + 2 <= packet.len();
            if checksum.is_some_and(|at| !fits(at)) {
                return Err(SplitError::Vnet("its checksum is outside"));
            }
            return Ok(Self { packet, view, kind, header_bytes: packet.len(), segment_bytes: 0, count: 1 });
        }
        let header_bytes = header_bytes(packet, &view, kind)?;
        let segment_bytes = usize::from(vnet.gso_bytes);
        let payload_bytes = packet.len() - header_bytes;
        if segment_bytes == 0 {
            return Err(SplitError::Vnet("segments of no bytes"));
        }
        let count = payload_bytes.div_ceil(segment_bytes).max(1);
        Ok(Self { packet, view, kind, header_bytes, segment_bytes, count })
    }

    /// The header of the packet, which is that of its segments but for the lengths.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// How many segments there are; at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of the largest segment, headers included.
    #[must_use]
    pub fn segment_bytes_max(&self) -> usize {
        self.packet.len().min(self.header_bytes + self.segment_bytes)
    }

    /// Bytes of the packet as it came.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.packet.len()
    }

    /// Bytes of segment `index`, headers included; 0 if there is none.
    #[must_use]
    pub fn segment_bytes(&self, index: usize) -> usize {
        if index >= self.count {
            return 0;
        }
        let payload = self.packet.len() - self.header_bytes;
        self.header_bytes + payload.saturating_sub(index * self.segment_bytes).min(self.segment_bytes)
    }

    /// Writes segment `index` to the front of `out`; how many bytes it is. `None`: there is no such segment, or no room.
    pub fn write(&self, index: usize, out: &mut [u8]) -> Option<usize> {
        let bytes = self.segment_bytes(index);
        let out = out.get_mut(..bytes).filter(|out| !out.is_empty())?;
        let (header, payload) = self.packet.split_at_checked(self.header_bytes)?;
        let (out_header, out_payload) = out.split_at_mut_checked(self.header_bytes)?;
        out_header.copy_from_slice(header);
        let start = index * self.segment_bytes;
        out_payload.copy_from_slice(payload.get(start..start + out_payload.len())?);
        self.finish(index, out)?;
        Some(bytes)
    }

    /// Makes a copy of the headers that of segment `index`.
    fn finish(&self, index: usize, out: &mut [u8]) -> Option<()> {
        if let Kind::Plain(checksum) = self.kind {
            if let Some((start, offset)) = checksum {
                checksum::complete_at(out, start, offset);
            }
            return Some(());
        }
        if self.count > 1 {
            self.set_ip_length(index, out)?;
        }
        let View { source, destination, protocol, transport_offset, .. } = self.view;
        let transport = out.get_mut(transport_offset..)?;
        let checksum_offset = if self.kind == Kind::Tcp {
            if self.count > 1 {
                self.set_tcp(index, transport)?;
            }
            TCP_CHECKSUM_OFFSET
        } else {
            let length = u16::try_from(transport.len()).ok()?;
            transport.get_mut(4..6)?.copy_from_slice(&length.to_be_bytes());
            UDP_CHECKSUM_OFFSET
        };
        checksum::fill_transport(transport, checksum_offset, source, destination, protocol).then_some(())
    }

    fn set_ip_length(&self, index: usize, out: &mut [u8]) -> Option<()> {
        match self.view.version() {
            IpVersion::V4 => {
                let length = u16::try_from(out.len()).ok()?;
                let id = u16::from_be_bytes(self.packet.array(4)?).wrapping_add(index as u16);
                out.get_mut(2..4)?.copy_from_slice(&length.to_be_bytes());
                out.get_mut(4..6)?.copy_from_slice(&id.to_be_bytes());
                checksum::fill_ipv4_header(out.get_mut(..self.view.transport_offset)?);
            }
            IpVersion::V6 => {
                let length = u16::try_from(out.len() - wire::headers::IPV6_BYTES).ok()?;
                out.get_mut(4..6)?.copy_from_slice(&length.to_be_bytes());
            }
        }
        Some(())
    }

    fn set_tcp(&self, index: usize, tcp: &mut [u8]) -> Option<()> {
        let sequence = u32::from_be_bytes(tcp.array(4)?).wrapping_add((index * self.segment_bytes) as u32);
        tcp.get_mut(4..8)?.copy_from_slice(&sequence.to_be_bytes());
        let flags = tcp.get_mut(TCP_FLAGS_OFFSET)?;
        if index + 1 < self.count {
            *flags &= !(FIN | PSH);
        }
        if index > 0 {
            *flags &= !CWR;
        }
        Some(())
    }
}

/// Bytes of the IP and transport headers of a super-packet.
fn header_bytes(packet: &[u8], view: &View, kind: Kind) -> Result<usize, SplitError> {
    let (wanted, least_bytes) = match kind {
        Kind::Udp => (protocol::UDP, UDP_BYTES),
        _ => (protocol::TCP, TCP_BYTES),
    };
    if view.protocol != wanted || view.fragment != Fragment::Whole {
        return Err(SplitError::Vnet("not the protocol it says"));
    }
    let transport_bytes = match kind {
        Kind::Udp => UDP_BYTES,
        _ => usize::from(packet.get(view.transport_offset + 12).copied().unwrap_or(0) >> 4) * 4,
    };
    let header_bytes = view.transport_offset + transport_bytes;
    if transport_bytes < least_bytes || header_bytes > packet.len() {
        return Err(SplitError::Vnet("the transport header is cut off"));
    }
    Ok(header_bytes)
}
