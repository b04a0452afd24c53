//! The maps that the program and userspace share: names, sizes, keys.

use core::net::{IpAddr, SocketAddr};
use wire::headers::{Headers, IpVersion, mapped};

/// XSKMAP: RX queue index -> AF_XDP socket.
pub const XSKS: &str = "XSKS";
/// Hash: [`TargetKey`] -> u32 (unused, 0). An entry makes its address and port ours.
pub const TARGETS: &str = "TARGETS";
/// Per-CPU array: [`crate::Counter`] -> u64.
pub const COUNTERS: &str = "COUNTERS";
/// LPM trie: [`PrefixKey`] -> [`crate::lan::TUNNEL`] or [`crate::lan::KERNEL`].
pub const PREFIXES: &str = "PREFIXES";
/// Array of one: the LAN interface's MAC address, then two bytes of zero.
pub const LAN_MAC: &str = "LAN_MAC";
/// Per-CPU array: [`crate::lan::Counter`] -> u64.
pub const LAN_COUNTERS: &str = "LAN_COUNTERS";

/// Entries of [`XSKS`]. Queues beyond it have no socket, so their packets take the kernel's path.
pub const QUEUE_COUNT_MAX: u32 = 256;
/// Entries of [`TARGETS`]: each listener has one per local address. Filling it up is an error at start.
pub const TARGET_COUNT_MAX: u32 = 1024;
/// Entries of [`PREFIXES`]: the tunnel's prefixes, this host's addresses and the routes within. Filling it up is an error.
pub const PREFIX_COUNT_MAX: u32 = 4096;

/// A local address and port whose UDP packets are ours.
///
/// Invariant: every byte is significant, none is padding: the kernel hashes the bytes as they lie. IPv4 addresses
/// are in their IPv4-mapped form, and `version` keeps them apart from IPv6 packets to a mapped address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct TargetKey {
    address: [u8; 16],
    port: [u8; 2],
    version: u8,
    zero: u8,
}

/// Bytes of a key.
pub const TARGET_KEY_BYTES: usize = size_of::<TargetKey>();
const _: () = assert!(TARGET_KEY_BYTES == 20 && align_of::<TargetKey>() == 1);

impl TargetKey {
    /// The key of a local address. Scope and flow label don't matter; an unspecified address matches no packet, so
    /// callers enumerate the interface's addresses.
    #[must_use]
    pub fn from_socket_addr(local: &SocketAddr) -> Self {
        let (address, version) = match local.ip() {
            IpAddr::V4(ip) => (mapped(ip.octets()), 4),
            IpAddr::V6(ip) => (ip.octets(), 6),
        };
        Self { address, port: local.port().to_be_bytes(), version, zero: 0 }
    }

    /// The key of a packet's destination.
    #[must_use]
    #[inline(always)]
    pub fn from_headers(headers: &Headers) -> Self {
        let version = match headers.version {
            IpVersion::V4 => 4,
            IpVersion::V6 => 6,
        };
        Self { address: headers.destination, port: headers.destination_port, version, zero: 0 }
    }

    /// The key as the map takes it from userspace, without a cast.
    #[must_use]
    pub fn to_bytes(self) -> [u8; TARGET_KEY_BYTES] {
        let mut bytes = [0; TARGET_KEY_BYTES];
        let ([p0, p1], version, zero) = (self.port, self.version, self.zero);
        for (to, from) in bytes.iter_mut().zip(self.address.into_iter().chain([p0, p1, version, zero])) {
            *to = from;
        }
        bytes
    }
}

/// Address bytes of a [`PrefixKey`]: the IP version, then the address.
pub const PREFIX_DATA_BYTES: usize = 17;

/// A prefix, or the address that is looked for, as the trie takes it: the number of significant bits, and the bytes that
/// they begin. IPv4 addresses are in their IPv4-mapped form, and the first byte keeps them apart from IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrefixKey {
    /// Significant bits of `data`.
    pub bits: u32,
    /// The IP version, then the address.
    pub data: [u8; PREFIX_DATA_BYTES],
}

impl PrefixKey {
    /// The key of a prefix. Bits behind its length are cleared; a length beyond the address is the address.
    #[must_use]
    pub fn of_prefix(address: IpAddr, length_bits: u8) -> Self {
        let (key, above, width) = match address {
            IpAddr::V4(ip) => (Self::of_packet(IpVersion::V4, mapped(ip.octets())), 8 + 96, 32),
            IpAddr::V6(ip) => (Self::of_packet(IpVersion::V6, ip.octets()), 8, 128),
        };
        key.cut(above + u32::from(length_bits).min(width))
    }

    /// The key with so many significant bits.
    #[must_use]
    pub fn cut(mut self, bits: u32) -> Self {
        self.bits = bits;
        for (index, byte) in self.data.iter_mut().enumerate() {
            let kept = bits.saturating_sub(8 * index as u32).min(8);
            *byte &= !(0xff_u16 >> kept) as u8;
        }
        self
    }

    /// The key of a packet's destination: all bits are significant.
    #[must_use]
    #[inline(always)]
    pub fn of_packet(version: IpVersion, address: [u8; 16]) -> Self {
        let version = match version {
            IpVersion::V4 => 4,
            IpVersion::V6 => 6,
        };
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
        let data = [version, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p];
        Self { bits: 8 * PREFIX_DATA_BYTES as u32, data }
    }
}
