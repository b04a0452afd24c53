//! A burst of received frames, judged at once; and the internet checksum (RFC 1071) of one packet.
//!
//! ```text
//!   frames ─► rows: 32 bytes of each ─► columns: one header word of 8 or 16 frames a vector ─► plain? ─► sum ─► Verdict
//!                                                                                └─ no: wire::datagram::parse ─┘
//! ```
//!
//! [`headers`] compares and adds the columns and finds the *plain* frames: untagged, UDP, no options, no fragment,
//! lengths that fit, a right IPv4 header checksum. Nothing else is decided in lanes: what isn't plain goes through the
//! scalar parser of `wire`, which alone says why a frame is refused. [`sum`](self::sum()) adds up what the UDP checksum covers.
//! Both are written once over [`lanes::Lanes`], which AVX2 and AVX-512 implement instruction by instruction, and
//! which the tests implement over arrays. The portable twin, for every other level, is `wire`'s own code.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod headers;
mod lanes;
mod scalar;
#[cfg(test)]
mod tests;
mod total;

use crate::Level;
use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::{Deref, Range},
};
use wire::{
    Bytes, Path,
    checksum::{Checksum, Sum},
    datagram::Reject,
    headers::{IPV4_BYTES, IPV6_BYTES, IpVersion, UDP_BYTES},
};

/// What a received frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// UDP, whole, by its headers.
    Datagram(Found),
    /// Anything else, as [`wire::datagram::parse`] says it.
    Reject(Reject),
}

/// A UDP datagram found in a frame.
///
/// Invariant: the frame that was judged holds the headers and the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Found {
    version: IpVersion,
    /// 14, 18 or 22.
    ip_offset: u8,
    payload_bytes: u16,
    /// The ECN codepoint: the two low bits of the traffic class.
    pub ecn_bits: u8,
    /// Whether no honest packet has its source ([`wire::datagram::is_martian`]).
    pub is_martian: bool,
    /// The UDP checksum's verdict; `None` where it wasn't asked for.
    pub checksum: Option<Checksum>,
}

impl Found {
    /// The UDP payload's place in the frame.
    #[must_use]
    #[inline]
    pub fn payload(&self) -> Range<usize> {
        let start = self.udp_offset() + UDP_BYTES;
        start..start + usize::from(self.payload_bytes)
    }

    /// Who it is from (remote) and for (local). `frame` is the frame that was judged; `None` for one that is shorter.
    #[must_use]
    #[inline]
    pub fn path(&self, frame: &[u8]) -> Option<Path> {
        let udp_offset = self.udp_offset();
        let [s0, s1, d0, d1] = frame.array(udp_offset)?;
        let (source, destination) = match self.version {
            IpVersion::V4 => {
                let [a, b, c, d, e, f, g, h] = frame.array(udp_offset - 8)?;
                (Ipv4Addr::new(a, b, c, d).into(), Ipv4Addr::new(e, f, g, h).into())
            }
            IpVersion::V6 => {
                let source: [u8; 16] = frame.array(udp_offset - 32)?;
                let destination: [u8; 16] = frame.array(udp_offset - 16)?;
                (Ipv6Addr::from(source).into(), Ipv6Addr::from(destination).into())
            }
        };
        Some(Path {
            local: SocketAddr::new(destination, u16::from_be_bytes([d0, d1])),
            remote: SocketAddr::new(source, u16::from_be_bytes([s0, s1])),
        })
    }

    #[inline]
    fn udp_offset(&self) -> usize {
        usize::from(self.ip_offset)
            + match self.version {
                IpVersion::V4 => IPV4_BYTES,
                IpVersion::V6 => IPV6_BYTES,
            }
    }
}

/// Judges every frame and leaves the verdicts in `verdicts`, one for each frame and in their order. UDP checksums are
/// verified only if `verify` says so.
pub fn classify_burst<F>(level: Level, frames: &[F], verify: bool, verdicts: &mut Vec<Verdict>)
where
    F: Deref<Target = [u8]>,
{
    verdicts.clear();
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(lanes) = avx512::Avx512::new(level) {
            return lanes.classify(frames, verify, verdicts);
        }
        if let Some(lanes) = avx2::Avx2::new(level) {
            return lanes.classify(frames, verify, verdicts);
        }
    }
    let _ = level;
    verdicts.extend(frames.iter().map(|frame| scalar::classify(frame, verify)));
}

/// The ones' complement sum of `bytes`, as [`Sum::of`] takes it.
#[must_use]
#[inline]
pub fn sum(level: Level, bytes: &[u8]) -> Sum {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(lanes) = avx512::Avx512::new(level) {
            return lanes.sum(bytes);
        }
        if let Some(lanes) = avx2::Avx2::new(level) {
            return lanes.sum(bytes);
        }
    }
    let _ = level;
    Sum::of(bytes)
}
