//! What a frame size means on the wire. Sizes count the four bytes of the check sequence, as RFC 2544 section 9 does; the
//! room `pktgen` counts without them.

use crate::cli::FrameSize;
use pktgen::{IMIX, Sizes, headers_bytes};

/// The check sequence, which the NIC adds.
pub(super) const FCS_BYTES: u16 = 4;
/// Preamble, start delimiter and the shortest gap: what a frame takes on the wire beside itself (IEEE 802.3).
pub(super) const WIRE_BYTES: u16 = 20;

/// The smallest frame: Ethernet's 64, or what headers and stamp need. IPv4 fits exactly: 14 + 20 + 8 + 18 + 4.
pub(super) fn smallest(ipv6: bool) -> u16 {
    let needed = headers_bytes(ipv6, 0) + super::stamp::STAMP_BYTES + usize::from(FCS_BYTES);
    u16::try_from(needed).unwrap_or(u16::MAX).max(64)
}

/// The same without check sequence.
pub(super) fn sizes(size: FrameSize, ipv6: bool) -> Sizes {
    match size {
        FrameSize::Bytes(bytes) => Sizes::Fixed(usize::from(bytes - FCS_BYTES)),
        FrameSize::Imix => Sizes::Imix(usize::from(smallest(ipv6) - FCS_BYTES)),
    }
}

/// The sizes that it consists of.
pub(super) fn parts(size: FrameSize, ipv6: bool) -> Vec<FrameSize> {
    match size {
        FrameSize::Bytes(_) => vec![size],
        FrameSize::Imix => {
            let part =
                |(bytes, _): &(usize, u32)| FrameSize::Bytes((*bytes as u16 + FCS_BYTES).max(smallest(ipv6)));
            IMIX.iter().map(part).collect()
        }
    }
}

/// Bytes of a frame, of the mix on average.
pub(super) fn mean_bytes(size: FrameSize, ipv6: bool) -> f64 {
    match size {
        FrameSize::Bytes(bytes) => f64::from(bytes),
        FrameSize::Imix => {
            let weights = IMIX.iter().map(|(_, count)| f64::from(*count));
            let total: f64 = weights.clone().sum();
            let bytes = parts(size, ipv6).into_iter().map(|part| mean_bytes(part, ipv6));
            bytes.zip(weights).map(|(bytes, weight)| bytes * weight).sum::<f64>() / total
        }
    }
}

/// Bits a second of so many frames: as layer 2 counts them, and with what else they take on the wire.
pub(super) fn bits_per_s(size: FrameSize, ipv6: bool, frames_per_s: f64) -> (f64, f64) {
    let bytes = mean_bytes(size, ipv6);
    (8.0 * bytes * frames_per_s, 8.0 * (bytes + f64::from(WIRE_BYTES)) * frames_per_s)
}

#[cfg(test)]
mod tests {
    //! Goal: the figures that every network engineer knows.
    use super::*;

    #[test]
    fn gigabit_ethernet() {
        let (l2, wire) = bits_per_s(FrameSize::Bytes(64), false, 1_488_095.238);
        assert!((wire - 1e9).abs() < 1.0 && (l2 - 761_904_762.0).abs() < 1.0, "{l2} {wire}");
        let (_, wire) = bits_per_s(FrameSize::Bytes(1518), false, 81_274.382);
        assert!((wire - 1e9).abs() < 10.0, "{wire}");
    }

    #[test]
    fn smallest_frames_and_the_mix() {
        assert_eq!((smallest(false), smallest(true)), (64, 84));
        assert_eq!(sizes(FrameSize::Bytes(64), false), Sizes::Fixed(60));
        assert_eq!(sizes(FrameSize::Imix, true), Sizes::Imix(80));
        let parts = parts(FrameSize::Imix, true);
        assert_eq!(parts, [84, 594, 1518].map(FrameSize::Bytes));
        assert_eq!(mean_bytes(FrameSize::Imix, false), (7 * 64 + 4 * 594 + 1518) as f64 / 12.0);
    }
}
