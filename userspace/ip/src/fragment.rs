//! IPv4 fragmentation (RFC 791 section 3.2), for packets without "don't fragment" that are larger than the tunnel takes.

use crate::{
    checksum,
    packet::{Malformed, View},
};
use wire::{Bytes, headers::IPV4_BYTES};

const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// Cuts a packet into fragments of at most `mtu_bytes`, appended to `out`. False, and nothing done: it can't be cut, since
/// it is IPv6, or says "don't fragment", has options, or the MTU leaves no room for eight bytes of payload.
///
/// A header with options goes uncut: which of them to repeat is one more rule than the few such packets are worth.
///
/// # Errors
/// If it is no IP packet.
pub fn fragment(packet: &[u8], mtu_bytes: usize, out: &mut Vec<Vec<u8>>) -> Result<bool, Malformed> {
    let view = View::read_unsummed(packet)?;
    let plain = view.source.is_ipv4() && !view.dont_fragment && view.transport_offset == IPV4_BYTES;
    let piece_bytes = mtu_bytes.saturating_sub(IPV4_BYTES) / 8 * 8;
    let (Some(header), Some(payload)) =
        (packet.first_chunk::<IPV4_BYTES>(), packet.get(IPV4_BYTES..view.total_bytes))
    else {
        return Ok(false);
    };
    if !plain || piece_bytes == 0 {
        return Ok(false);
    }
    let word: [u8; 2] = packet.array(6).unwrap_or_default();
    let (first_offset, more_behind) =
        (u16::from_be_bytes(word) & OFFSET_MASK, u16::from_be_bytes(word) & MORE_FRAGMENTS);
    let count = payload.len().div_ceil(piece_bytes);
    for (index, piece) in payload.chunks(piece_bytes).enumerate() {
        let mut header = *header;
        let more = if index + 1 < count { MORE_FRAGMENTS } else { more_behind };
        let offset = first_offset + (index * piece_bytes / 8) as u16;
        let total_bytes = (IPV4_BYTES + piece.len()) as u16;
        if let Some(field) = header.get_mut(2..4) {
            field.copy_from_slice(&total_bytes.to_be_bytes());
        }
        if let Some(field) = header.get_mut(6..8) {
            field.copy_from_slice(&(more | offset & OFFSET_MASK).to_be_bytes());
        }
        checksum::fill_ipv4_header(&mut header);
        let mut fragment = Vec::with_capacity(usize::from(total_bytes));
        fragment.extend_from_slice(&header);
        fragment.extend_from_slice(piece);
        out.push(fragment);
    }
    Ok(true)
}
