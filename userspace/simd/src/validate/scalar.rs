//! One frame, judged by `wire` alone: the portable twin, the fallback, and the tests' reference.

use super::{Found, Verdict};
use wire::{
    datagram::{self, Datagram, Reject},
    headers::{ETHERNET_BYTES, IpVersion, VLAN_BYTES},
};

/// The verdict on one frame.
pub(super) fn classify(frame: &[u8], verify: bool) -> Verdict {
    match datagram::parse(frame) {
        Ok(datagram) => {
            let checksum = verify.then(|| datagram.checksum(frame));
            Verdict::Datagram(Found { checksum, ..found(&datagram) })
        }
        Err(reject) => Verdict::Reject(reject),
    }
}

/// The datagram in a frame, its UDP checksum not verified.
///
/// # Errors
/// What else the frame is.
pub(super) fn parse(frame: &[u8]) -> Result<Found, Reject> {
    datagram::parse(frame).map(|datagram| found(&datagram))
}

fn found(datagram: &Datagram) -> Found {
    let is_ipv4 = datagram.path.remote.is_ipv4();
    Found {
        version: if is_ipv4 { IpVersion::V4 } else { IpVersion::V6 },
        // At most two tags; and the payload's length came from 16 bits.
        ip_offset: (ETHERNET_BYTES + VLAN_BYTES * datagram.vlans.as_slice().len()) as u8,
        payload_bytes: datagram.payload.len() as u16,
        ecn_bits: datagram.ecn_bits,
        is_martian: datagram::is_martian(&datagram.path.remote),
        checksum: None,
    }
}
