//! Payloads that look like QUIC, or nearly.

use crate::hello::client_hello;
use rand::{RngExt as _, rngs::SmallRng};
use ring::{aead, hkdf};
use wire::quic::VERSION_1;

/// Bytes of the smallest datagram that may carry a client's Initial (RFC 9000 14.1).
pub const INITIAL_BYTES_MIN: usize = 1200;
/// Bytes of each connection ID.
const CID_BYTES: usize = 8;
/// The first byte of an Initial with a packet number of four bytes.
const INITIAL_FIRST: u8 = 0xc3;
const PACKET_NUMBER_BYTES: usize = 4;
const TAG_BYTES: usize = 16;
/// First byte, version, both connection IDs with their lengths, no token, a length of two bytes.
const INITIAL_HEADER_BYTES: usize = 1 + 4 + 2 * (1 + CID_BYTES) + 1 + 2;

/// What a flood's datagrams are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// pktgen's own header (magic, sequence number, time), and zeros behind it.
    Pktgen,
    /// Initials of version 1, each with random connection IDs and a ClientHello, protected as RFC 9001 5.2 says.
    Initial,
    /// Short headers with random connection IDs and random bytes behind them.
    Short,
    /// An Initial and a short header in turn.
    Mixed,
    /// Long headers of a version that nobody has: they ask for Version Negotiation.
    Version,
    /// Six kinds of damage in turn: see [`Damage`].
    Malformed,
}

/// What is wrong with a malformed frame; the kinds come in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// The UDP length is larger than the packet.
    UdpLong,
    /// The UDP length is below eight.
    UdpShort,
    /// The IPv4 header checksum is wrong; of IPv6, the IP length is larger than the frame.
    Ip,
    /// The UDP checksum is wrong.
    UdpChecksum,
    /// A short header without QUIC's fixed bit.
    FixedBit,
    /// An Initial whose length field says more than there is.
    InitialLength,
}

pub(crate) const DAMAGES: [Damage; 6] = [
    Damage::UdpLong,
    Damage::UdpShort,
    Damage::Ip,
    Damage::UdpChecksum,
    Damage::FixedBit,
    Damage::InitialLength,
];

impl Shape {
    /// The smallest payload that it fits into.
    #[must_use]
    pub fn payload_bytes_min(self) -> usize {
        match self {
            Self::Pktgen => crate::frame::PKTGEN_BYTES,
            Self::Initial | Self::Mixed | Self::Version => INITIAL_BYTES_MIN,
            // 21 bytes are the smallest short-header packet that a stateless reset can be told from (RFC 9000 10.3).
            Self::Short => 21,
            Self::Malformed => 64,
        }
    }

    /// The payload of a flood that isn't told how large to be.
    #[must_use]
    pub fn payload_bytes_default(self) -> usize {
        match self {
            Self::Short => 100,
            other => other.payload_bytes_min(),
        }
    }
}

/// Fills `payload`, which is at least [`Shape::payload_bytes_min`] long, with packet number `index` of a flood.
pub(crate) fn fill(shape: Shape, index: u64, rng: &mut SmallRng, payload: &mut [u8]) {
    match shape {
        Shape::Pktgen => {}
        Shape::Initial => initial(rng, payload),
        Shape::Short => short(rng, payload),
        Shape::Mixed if index.is_multiple_of(2) => initial(rng, payload),
        Shape::Mixed => {
            // The bytes behind a short header are its payload: as many as the Initial has.
            short(rng, payload);
        }
        Shape::Version => version(rng, payload),
        Shape::Malformed => {
            short(rng, payload);
            match damage(index) {
                Damage::FixedBit => payload[0] &= 0x3f,
                Damage::InitialLength => lying_initial(rng, payload),
                _ => {}
            }
        }
    }
}

/// What is wrong with malformed packet number `index`.
pub(crate) fn damage(index: u64) -> Damage {
    DAMAGES[(index % DAMAGES.len() as u64) as usize]
}

fn short(rng: &mut SmallRng, payload: &mut [u8]) {
    rng.fill(payload);
    // Fixed bit set; the bits below it are under header protection, so they are random.
    payload[0] = payload[0] & 0x3f | 0x40;
}

fn version(rng: &mut SmallRng, payload: &mut [u8]) {
    rng.fill(payload);
    let cids: [u8; 2 * CID_BYTES] = rng.random();
    long_header(payload, 0xc0, 0x0a0a_0a0a | rng.random::<u32>() & 0xf0f0_f0f0, &cids);
}

/// First byte, version and connection IDs; returns how many bytes.
fn long_header(payload: &mut [u8], first: u8, version: u32, cids: &[u8; 2 * CID_BYTES]) -> usize {
    let (dcid, scid) = cids.split_at(CID_BYTES);
    payload[0] = first;
    payload[1..5].copy_from_slice(&version.to_be_bytes());
    payload[5] = CID_BYTES as u8;
    payload[6..6 + CID_BYTES].copy_from_slice(dcid);
    payload[6 + CID_BYTES] = CID_BYTES as u8;
    payload[7 + CID_BYTES..7 + 2 * CID_BYTES].copy_from_slice(scid);
    7 + 2 * CID_BYTES
}

fn lying_initial(rng: &mut SmallRng, payload: &mut [u8]) {
    let at = long_header(payload, INITIAL_FIRST, VERSION_1, &rng.random());
    payload[at] = 0;
    payload[at + 1..at + 3].copy_from_slice(&(0x4000u16 | 0x3fff).to_be_bytes());
}

/// The whole payload becomes one Initial: a ClientHello and padding, sealed under the keys that its DCID gives.
fn initial(rng: &mut SmallRng, payload: &mut [u8]) {
    let cids: [u8; 2 * CID_BYTES] = rng.random();
    let (dcid, scid) = cids.split_at(CID_BYTES);
    let hello = client_hello(rng, scid);
    let length = payload.len() - INITIAL_HEADER_BYTES;
    payload.fill(0);
    let at = long_header(payload, INITIAL_FIRST, VERSION_1, &cids);
    // No token. The length counts packet number, payload and tag; it has 14 bits, which a frame doesn't exceed.
    payload[at + 1..at + 3].copy_from_slice(&(0x4000u16 | length as u16 & 0x3fff).to_be_bytes());
    let body = INITIAL_HEADER_BYTES + PACKET_NUMBER_BYTES;
    // CRYPTO, from offset 0, so many bytes; what is left are PADDING frames.
    payload[body] = 0x06;
    payload[body + 2..body + 4].copy_from_slice(&(0x4000u16 | hello.len() as u16).to_be_bytes());
    payload[body + 4..body + 4 + hello.len()].copy_from_slice(&hello);
    Keys::client(dcid).seal(payload, INITIAL_HEADER_BYTES);
}

/// A client's Initial keys.
struct Keys {
    packet: [u8; 16],
    iv: [u8; 12],
    header: [u8; 16],
}

impl Keys {
    fn client(dcid: &[u8]) -> Self {
        const SALT_V1: [u8; 20] = [
            0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad,
            0xcc, 0xbb, 0x7f, 0x0a,
        ];
        let initial = hkdf::Salt::new(hkdf::HKDF_SHA256, &SALT_V1).extract(dcid);
        let secret: [u8; 32] = expand(&initial, b"client in");
        let client = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &secret);
        Self {
            packet: expand(&client, b"quic key"),
            iv: expand(&client, b"quic iv"),
            header: expand(&client, b"quic hp"),
        }
    }

    /// Seals packet number 0, whose header is `header_bytes` long up to it, and protects the header.
    fn seal(&self, packet: &mut [u8], header_bytes: usize) {
        let body = header_bytes + PACKET_NUMBER_BYTES;
        let (head, rest) = packet.split_at_mut(body);
        let tag_at = rest.len() - TAG_BYTES;
        let (plain, tag) = rest.split_at_mut(tag_at);
        // The nonce of packet number 0 is the IV itself. Both keys have the length that their algorithm wants.
        let nonce = aead::Nonce::assume_unique_for_key(self.iv);
        let sealed = aead::UnboundKey::new(&aead::AES_128_GCM, &self.packet)
            .map(aead::LessSafeKey::new)
            .and_then(|key| key.seal_in_place_separate_tag(nonce, aead::Aad::from(&*head), plain));
        if let Ok(sealed) = sealed {
            tag.copy_from_slice(sealed.as_ref());
        }
        // The sample begins four bytes behind the packet number's first (RFC 9001 5.4.2), which has four.
        let mask = aead::quic::HeaderProtectionKey::new(&aead::quic::AES_128, &self.header)
            .and_then(|key| key.new_mask(&plain[..16]));
        if let Ok([first, number @ ..]) = mask {
            head[0] ^= first & 0x0f;
            head[header_bytes..].iter_mut().zip(number).for_each(|(byte, mask)| *byte ^= mask);
        }
    }
}

/// HKDF-Expand-Label of TLS 1.3 with an empty context.
fn expand<const N: usize>(secret: &hkdf::Prk, label: &[u8]) -> [u8; N] {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let length = (N as u16).to_be_bytes();
    let info: [&[u8]; 5] = [&length, &[6 + label.len() as u8], b"tls13 ", label, &[0]];
    let mut out = [0; N];
    // It fails only above 255 hash lengths.
    let _ = secret.expand(&info, Length(N)).and_then(|okm| okm.fill(&mut out));
    out
}

#[cfg(test)]
mod tests {
    //! Goal: keys are RFC 9001's; each shape parses as what it claims to be; an Initial opens, and holds a ClientHello.
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use rand::SeedableRng as _;
    use wire::quic::{LongType, has_fixed_bit, is_long_header, long_header};

    fn payload(shape: Shape, index: u64, bytes: usize) -> Vec<u8> {
        let mut payload = vec![0xee; bytes];
        fill(shape, index, &mut SmallRng::seed_from_u64(index), &mut payload);
        payload
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// RFC 9001 appendix A.1.
    #[test]
    fn client_keys_are_those_of_the_appendix() {
        let keys = Keys::client(&[0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08]);
        assert_eq!(hex(&keys.packet), "1f369613dd76d5467730efcbe3b1a22d");
        assert_eq!(hex(&keys.iv), "fa044b2f42a3fd3b46fb255c");
        assert_eq!(hex(&keys.header), "9f50449e04a0e810283a1e9933adedd2");
    }

    #[test]
    fn an_initial_opens_and_holds_a_client_hello() {
        for bytes in [1200, 1201, 1472, 3000] {
            let mut packet = payload(Shape::Initial, 0, bytes);
            let header = long_header(&packet).unwrap();
            assert_eq!((header.packet_type(), header.version), (Some(LongType::Initial), VERSION_1));
            assert_eq!((header.dcid.len(), header.scid.len()), (CID_BYTES, CID_BYTES));
            assert_eq!(header.rest[0], 0, "no token");
            let length = u16::from_be_bytes([header.rest[1], header.rest[2]]);
            assert_eq!(length, 0x4000 | (header.rest.len() - 3) as u16);
            let (keys, scid) = (Keys::client(header.dcid), header.scid.to_vec());

            let body = INITIAL_HEADER_BYTES + PACKET_NUMBER_BYTES;
            let mask = aead::quic::HeaderProtectionKey::new(&aead::quic::AES_128, &keys.header).unwrap();
            let mask = mask.new_mask(&packet[body..body + 16]).unwrap();
            packet[0] ^= mask[0] & 0x0f;
            (0..4).for_each(|n| packet[INITIAL_HEADER_BYTES + n] ^= mask[1 + n]);
            assert_eq!(packet[0], INITIAL_FIRST);
            assert_eq!(packet[INITIAL_HEADER_BYTES..body], [0; 4]);
            let key =
                aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_128_GCM, &keys.packet).unwrap());
            let (head, sealed) = packet.split_at_mut(body);
            let nonce = aead::Nonce::assume_unique_for_key(keys.iv);
            let plain = key.open_in_place(nonce, aead::Aad::from(&*head), sealed).unwrap();
            assert_eq!(plain[..2], [0x06, 0]);
            let hello_bytes = usize::from(u16::from_be_bytes([plain[2] & 0x3f, plain[3]]));
            let (hello, padding) = plain[4..].split_at(hello_bytes);
            assert_eq!(hello[0], 1);
            assert_eq!(u32::from_be_bytes([0, hello[1], hello[2], hello[3]]) as usize, hello.len() - 4);
            assert!(hello.windows(scid.len()).any(|window| window == scid));
            assert!(padding.iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn other_shapes_are_what_they_claim() {
        for index in 0..100 {
            let packet = payload(Shape::Short, index, 100);
            assert!(!is_long_header(packet[0]) && has_fixed_bit(packet[0]));
            let packet = payload(Shape::Version, index, 1200);
            let header = long_header(&packet).unwrap();
            // RFC 9000 15: versions of this form are nobody's.
            assert_eq!(header.version & 0x0f0f_0f0f, 0x0a0a_0a0a);
            assert_eq!(is_long_header(payload(Shape::Mixed, index, 1200)[0]), index % 2 == 0);
            let packet = payload(Shape::Malformed, index, 64);
            match damage(index) {
                Damage::FixedBit => assert!(!is_long_header(packet[0]) && !has_fixed_bit(packet[0])),
                Damage::InitialLength => {
                    let header = long_header(&packet).unwrap();
                    assert_eq!(header.packet_type(), Some(LongType::Initial));
                }
                _ => assert!(has_fixed_bit(packet[0])),
            }
        }
    }

    #[test]
    fn no_two_are_alike() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut all = std::collections::BTreeSet::new();
        for index in 0..100 {
            let mut payload = vec![0; 1200];
            fill(Shape::Initial, index, &mut rng, &mut payload);
            all.insert(long_header(&payload).unwrap().dcid.to_vec());
        }
        assert_eq!(all.len(), 100);
    }
}
