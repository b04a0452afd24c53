//! What a LAN port sends: by its type nothing else, as a tunnel's port sends nothing but sealed frames.

use super::hops::Hop;
use port::Frame;

/// Bytes of the shortest Ethernet frame, without its checksum.
const ETHERNET_BYTES_MIN: usize = 60;

/// A frame that holds an inner packet behind the Ethernet header of its next hop, padded to Ethernet's minimum.
pub(crate) struct Addressed {
    frame: Frame,
    length: usize,
}

impl Addressed {
    /// Copies a packet into a frame. The frame comes back if it has no room for it.
    pub(super) fn new(mut frame: Frame, hop: &Hop, packet: &[u8]) -> Result<Self, Frame> {
        let header = hop.header();
        let (packet_end, length) =
            (header.len() + packet.len(), (header.len() + packet.len()).max(ETHERNET_BYTES_MIN));
        let Some(bytes) = frame.get_mut(..length) else { return Err(frame) };
        bytes[..header.len()].copy_from_slice(header);
        bytes[header.len()..packet_end].copy_from_slice(packet);
        // Whoever had the frame before left bytes there that are nobody's business.
        bytes[packet_end..].fill(0);
        Ok(Self { frame, length })
    }

    /// The frame and the bytes of it that are to be sent.
    pub(crate) fn into_parts(self) -> (Frame, usize) {
        (self.frame, self.length)
    }
}
