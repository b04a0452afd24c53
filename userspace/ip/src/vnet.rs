//! The header that the kernel puts before packets of a TUN device (`struct virtio_net_hdr`, linux/virtio_net.h): what
//! is still to be done to a packet before it may be on a wire.

/// Bytes of the header without `num_buffers`: what a TUN device has by default.
pub const VNET_BYTES: usize = 10;

const F_NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;

/// What a super-packet is to be split into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gso {
    /// It is one packet.
    None,
    /// TCP segments over IPv4.
    TcpV4,
    /// TCP segments over IPv6.
    TcpV6,
    /// UDP datagrams.
    Udp,
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vnet {
    /// How to split it.
    pub gso: Gso,
    /// Payload bytes of each segment but the last, which may be shorter.
    pub gso_bytes: u16,
    /// The transport checksum holds the sum of the pseudo-header only.
    pub needs_checksum: bool,
    /// Where the transport header begins, if `needs_checksum`.
    pub checksum_start: u16,
    /// Where in it the checksum is.
    pub checksum_offset: u16,
    /// Bytes of all headers. A hint.
    pub header_bytes: u16,
}

impl Vnet {
    /// A packet that is complete.
    pub const NONE: Self = Self {
        gso: Gso::None,
        gso_bytes: 0,
        needs_checksum: false,
        checksum_start: 0,
        checksum_offset: 0,
        header_bytes: 0,
    };

    /// Reads the header. `None` where it asks for something that was never offered to the kernel.
    #[must_use]
    pub fn read(bytes: &[u8; VNET_BYTES]) -> Option<Self> {
        let &[flags, gso, h0, h1, g0, g1, s0, s1, o0, o1] = bytes;
        let gso = match gso {
            GSO_NONE => Gso::None,
            GSO_TCPV4 => Gso::TcpV4,
            GSO_TCPV6 => Gso::TcpV6,
            GSO_UDP_L4 => Gso::Udp,
            _ => return None,
        };
        Some(Self {
            gso,
            gso_bytes: u16::from_ne_bytes([g0, g1]),
            needs_checksum: flags & F_NEEDS_CSUM != 0,
            checksum_start: u16::from_ne_bytes([s0, s1]),
            checksum_offset: u16::from_ne_bytes([o0, o1]),
            header_bytes: u16::from_ne_bytes([h0, h1]),
        })
    }

    /// The header as the kernel reads it. (The byte order of this legacy header is the host's.)
    #[must_use]
    pub fn write(&self) -> [u8; VNET_BYTES] {
        let gso = match self.gso {
            Gso::None => GSO_NONE,
            Gso::TcpV4 => GSO_TCPV4,
            Gso::TcpV6 => GSO_TCPV6,
            Gso::Udp => GSO_UDP_L4,
        };
        let [h0, h1] = self.header_bytes.to_ne_bytes();
        let [g0, g1] = self.gso_bytes.to_ne_bytes();
        let [s0, s1] = self.checksum_start.to_ne_bytes();
        let [o0, o1] = self.checksum_offset.to_ne_bytes();
        [if self.needs_checksum { F_NEEDS_CSUM } else { 0 }, gso, h0, h1, g0, g1, s0, s1, o0, o1]
    }
}

#[cfg(test)]
mod tests {
    //! Goal: what is written is read again; a header with an unknown kind, or with ECN that nobody offered, is refused.
    use super::*;

    #[test]
    fn round_trip() {
        for gso in [Gso::None, Gso::TcpV4, Gso::TcpV6, Gso::Udp] {
            let vnet = Vnet {
                gso,
                gso_bytes: 1400,
                needs_checksum: gso != Gso::None,
                checksum_start: 20,
                checksum_offset: 16,
                header_bytes: 52,
            };
            assert_eq!(Vnet::read(&vnet.write()), Some(vnet));
        }
        assert_eq!(Vnet::read(&Vnet::NONE.write()), Some(Vnet::NONE));
    }

    #[test]
    fn unknown_kinds_are_refused() {
        for gso in [2, 3, 6, GSO_TCPV4 | 0x80] {
            assert_eq!(Vnet::read(&[0, gso, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        }
    }
}
