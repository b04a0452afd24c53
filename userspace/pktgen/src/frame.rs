//! What the frames of a run hold ([`Spec`]), and the one that makes them ([`Maker`]).

use crate::{
    net::{Net, Ports},
    quic::{self, Damage, Shape},
    run::Source,
};
use rand::{SeedableRng as _, rngs::SmallRng};
use std::{
    net::SocketAddr,
    time::{Instant, SystemTime, UNIX_EPOCH},
};
use wire::{
    Path,
    datagram::{Mac, Vlans},
    encap::{HEADER_BYTES_MAX, Link, Template},
    headers::{ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES, UDP_BYTES, VLAN_BYTES},
};

/// pktgen's header: magic, sequence number, seconds, microseconds.
pub(crate) const PKTGEN_BYTES: usize = 16;
const PKTGEN_MAGIC: [u8; 4] = [0xbe, 0x9b, 0xe9, 0x55];
/// What Linux sends with.
const HOP_LIMIT: u8 = 64;

/// The simple Internet mix: frames of 64, 594 and 1518 bytes on the wire, 7 to 4 to 1, here without the four bytes of the
/// check sequence. So many of each in every twelve.
pub const IMIX: [(usize, u32); 3] = [(60, 7), (590, 4), (1514, 1)];

/// The order of one round of [`IMIX`]: the large ones spread out.
const IMIX_ROUND: [usize; 12] = [0, 1, 0, 0, 1, 0, 2, 0, 1, 0, 0, 1];

/// Sizes of frames, without their check sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// All the same.
    Fixed(usize),
    /// [`IMIX`], its smallest as large as this.
    Imix(usize),
}

impl Sizes {
    /// The largest.
    #[must_use]
    pub fn max(self) -> usize {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Imix(smallest) => smallest.max(IMIX[2].0),
        }
    }

    /// The size of packet number `index`.
    #[must_use]
    pub fn of(self, index: u64) -> usize {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Imix(smallest) => {
                let place = IMIX_ROUND[(index % IMIX_ROUND.len() as u64) as usize];
                IMIX[place].0.max(smallest)
            }
        }
    }
}

/// What the frames hold.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The sender's MAC address.
    pub src_mac: Mac,
    /// The next hop's MAC address.
    pub dst_mac: Mac,
    /// VLAN tags, outermost first.
    pub vlans: Vlans,
    /// From where.
    pub source: Net,
    /// From which port.
    pub source_ports: Ports,
    /// To where; of the same IP version.
    pub destination: Net,
    /// To which port.
    pub destination_ports: Ports,
    /// How large.
    pub sizes: Sizes,
    /// What is inside.
    pub shape: Shape,
    /// So many copies of each frame in a row; at least 1.
    pub repeats: u32,
}

/// Bytes in front of a payload.
#[must_use]
pub fn headers_bytes(ipv6: bool, tag_count: usize) -> usize {
    let ip_bytes = if ipv6 { IPV6_BYTES } else { IPV4_BYTES };
    ETHERNET_BYTES + tag_count * VLAN_BYTES + ip_bytes + UDP_BYTES
}

impl Spec {
    /// Bytes in front of the payload.
    #[must_use]
    pub fn headers_bytes(&self) -> usize {
        headers_bytes(self.destination.is_ipv6(), self.vlans.as_slice().len())
    }

    fn is_one_flow(&self) -> bool {
        self.source.is_single()
            && self.destination.is_single()
            && self.source_ports.is_single()
            && self.destination_ports.is_single()
    }
}

/// Makes the frames of one thread.
pub struct Maker {
    spec: Spec,
    rng: SmallRng,
    /// The headers, where all frames have the same.
    template: Option<Template>,
    /// Packets made, copies not counted.
    made: u64,
    copies_left: u32,
    last: Vec<u8>,
    /// Wall-clock time of `epoch`, for pktgen's header.
    epoch: (Instant, u64),
    /// Frames of each size of [`IMIX`], copies counted.
    by_size: [u64; IMIX.len()],
}

impl Maker {
    /// What is drawn depends on `seed` alone.
    #[must_use]
    pub fn new(spec: Spec, seed: u64, now: Instant) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let template = spec.is_one_flow().then(|| template(&spec, &mut rng)).flatten();
        let unix_us =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        let epoch = (now, unix_us);
        Self {
            spec,
            rng,
            template,
            made: 0,
            copies_left: 0,
            last: Vec::new(),
            epoch,
            by_size: Default::default(),
        }
    }

    /// Sizes of [`Sizes::Imix`], and how many frames of each were made.
    #[must_use]
    pub fn by_size(&self) -> Option<[(usize, u64); IMIX.len()]> {
        match self.spec.sizes {
            Sizes::Fixed(_) => None,
            Sizes::Imix(smallest) => {
                Some(std::array::from_fn(|place| (IMIX[place].0.max(smallest), self.by_size[place])))
            }
        }
    }

    /// Writes a new frame; `None` where it doesn't fit.
    fn make(&mut self, now: Instant, frame: &mut [u8]) -> Option<usize> {
        let index = self.made;
        let length = self.spec.sizes.of(index);
        let frame = frame.get_mut(..length)?;
        let template = match self.template {
            Some(template) => template,
            None => template(&self.spec, &mut self.rng)?,
        };
        let at = template.header_len();
        let payload = frame.get_mut(at..)?;
        if payload.len() < self.spec.shape.payload_bytes_min() {
            return None;
        }
        match self.spec.shape {
            Shape::Pktgen => self.pktgen(now, payload),
            shape => quic::fill(shape, index, &mut self.rng, payload),
        }
        let payload_bytes = payload.len();
        template.write(frame, payload_bytes, 0)?;
        if self.spec.shape == Shape::Malformed {
            damage(frame, at, self.spec.destination.is_ipv6(), quic::damage(index));
        }
        self.made += 1;
        Some(length)
    }

    fn pktgen(&self, now: Instant, payload: &mut [u8]) {
        let (epoch, unix_us) = self.epoch;
        let us = unix_us + now.saturating_duration_since(epoch).as_micros() as u64;
        payload.fill(0);
        payload[..4].copy_from_slice(&PKTGEN_MAGIC);
        // As pktgen does: from 1 on, and times of 32 bits.
        payload[4..8].copy_from_slice(&(self.made as u32).wrapping_add(1).to_be_bytes());
        payload[8..12].copy_from_slice(&((us / 1_000_000) as u32).to_be_bytes());
        payload[12..16].copy_from_slice(&((us % 1_000_000) as u32).to_be_bytes());
    }

    fn count(&mut self, length: usize) {
        if let Sizes::Imix(smallest) = self.spec.sizes
            && let Some(place) = IMIX.iter().position(|(size, _)| (*size).max(smallest) == length)
        {
            self.by_size[place] += 1;
        }
    }
}

impl Source for Maker {
    fn fill(&mut self, now: Instant, frame: &mut [u8]) -> Option<usize> {
        let length = if self.copies_left > 0 {
            self.copies_left -= 1;
            let length = self.last.len();
            frame.get_mut(..length)?.copy_from_slice(&self.last);
            length
        } else {
            let length = self.make(now, frame)?;
            self.copies_left = self.spec.repeats.saturating_sub(1);
            if self.copies_left > 0 {
                self.last.clear();
                self.last.extend_from_slice(&frame[..length]);
            }
            length
        };
        self.count(length);
        Some(length)
    }
}

/// Headers from and to what is drawn; `None` where the ends are of different IP versions.
fn template(spec: &Spec, rng: &mut SmallRng) -> Option<Template> {
    let local = SocketAddr::new(spec.source.draw(rng), spec.source_ports.draw(rng));
    let remote = SocketAddr::new(spec.destination.draw(rng), spec.destination_ports.draw(rng));
    let link = Link { src_mac: spec.src_mac, dst_mac: spec.dst_mac, vlans: spec.vlans };
    Template::new(&link, &Path { local, remote }, HOP_LIMIT)
}

/// Spoils a right frame whose payload begins at `at`.
fn damage(frame: &mut [u8], at: usize, ipv6: bool, damage: Damage) {
    debug_assert!(at <= HEADER_BYTES_MAX && frame.len() > at);
    let udp = at - UDP_BYTES;
    let ip = udp - if ipv6 { IPV6_BYTES } else { IPV4_BYTES };
    match damage {
        Damage::UdpLong => frame[udp + 4..udp + 6].copy_from_slice(&u16::MAX.to_be_bytes()),
        Damage::UdpShort => frame[udp + 4..udp + 6].copy_from_slice(&7u16.to_be_bytes()),
        Damage::Ip if ipv6 => frame[ip + 4..ip + 6].copy_from_slice(&u16::MAX.to_be_bytes()),
        Damage::Ip => frame[ip + 10] ^= 0xff,
        Damage::UdpChecksum => {
            // Never to zero, which stands for none: RFC 768 sends a sum of zero as all ones.
            let sum = u16::from_be_bytes([frame[udp + 6], frame[udp + 7]]);
            let other = if sum == 0x5555 { 0xaaaa } else { 0x5555u16 };
            frame[udp + 6..udp + 8].copy_from_slice(&other.to_be_bytes());
        }
        // These are in the payload, under a right checksum.
        Damage::FixedBit | Damage::InitialLength => {}
    }
}

#[cfg(test)]
mod tests {
    //! Goal: frames are what the spec says, byte for byte, by another parser's judgement and by ours; each damage is the one
    //! that it is called. Method: etherparse reads every frame.
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use std::collections::BTreeSet;
    use wire::{
        checksum::Checksum,
        datagram::{Reject, Vlan, parse},
        headers::Malformed,
    };

    const TAGS: [Vlan; 2] = [Vlan { tpid: 0x8100, tci: 7 }, Vlan { tpid: 0x8100, tci: 100 }];

    fn spec(v6: bool, tag_count: usize, shape: Shape) -> Spec {
        let (source, destination) =
            if v6 { ("2001:db8::2", "2001:db8::1") } else { ("198.18.0.2", "198.18.0.1") };
        let headers = headers_bytes(v6, tag_count);
        Spec {
            src_mac: [2, 0, 0, 0, 0, 2],
            dst_mac: [2, 0, 0, 0, 0, 1],
            vlans: Vlans::new(&TAGS[..tag_count]).unwrap(),
            source: source.parse().unwrap(),
            source_ports: Ports::one(9),
            destination: destination.parse().unwrap(),
            destination_ports: Ports::one(443),
            sizes: Sizes::Fixed(headers + shape.payload_bytes_default()),
            shape,
            repeats: 1,
        }
    }

    fn frames(spec: Spec, count: usize) -> Vec<Vec<u8>> {
        let now = Instant::now();
        let mut maker = Maker::new(spec, 1, now);
        let mut buffer = [0xee; 4000];
        (0..count)
            .map(|_| {
                let length = maker.fill(now, &mut buffer).unwrap();
                buffer[..length].to_vec()
            })
            .collect()
    }

    #[test]
    fn another_parser_reads_every_shape_and_finds_the_checksums_right() {
        for v6 in [false, true] {
            for tag_count in 0..=2 {
                for shape in [Shape::Pktgen, Shape::Initial, Shape::Short, Shape::Mixed, Shape::Version] {
                    let spec = spec(v6, tag_count, shape);
                    for frame in frames(spec, 4) {
                        judge(&spec, &frame);
                    }
                }
            }
        }
    }

    fn judge(spec: &Spec, frame: &[u8]) {
        let Sizes::Fixed(size) = spec.sizes else { panic!("{spec:?}") };
        assert_eq!(frame.len(), size);
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let tags = packet.link_exts.len();
        assert_eq!(tags, spec.vlans.as_slice().len());
        let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("no UDP") };
        assert_eq!((udp.source_port(), udp.destination_port()), (9, 443));
        let header = udp.to_header();
        let expected = match packet.net.unwrap() {
            NetSlice::Ipv4(ip) => {
                let ip_header = ip.header().to_header();
                assert_eq!(ip_header.calc_header_checksum(), ip_header.header_checksum);
                header.calc_checksum_ipv4(&ip_header, udp.payload()).unwrap()
            }
            NetSlice::Ipv6(ip) => header.calc_checksum_ipv6(&ip.header().to_header(), udp.payload()).unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(header.checksum, expected);
        let ours = parse(frame).unwrap();
        assert_eq!((ours.src_mac, ours.dst_mac, ours.vlans), (spec.src_mac, spec.dst_mac, spec.vlans));
        assert_eq!(frame.len() - ours.payload.start, udp.payload().len());
        assert_eq!(ours.checksum(frame), Checksum::Good);
    }

    #[test]
    fn pktgens_header() {
        let all = frames(spec(false, 0, Shape::Pktgen), 3);
        for (index, frame) in all.iter().enumerate() {
            assert_eq!(frame[42..46], PKTGEN_MAGIC);
            assert_eq!(frame[46..50], (index as u32 + 1).to_be_bytes());
            let seconds = u32::from_be_bytes(frame[50..54].try_into().unwrap());
            assert!(seconds > 1_700_000_000, "{seconds}");
        }
    }

    #[test]
    fn clones_repeat_a_frame() {
        let all = frames(Spec { repeats: 3, ..spec(false, 0, Shape::Short) }, 9);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 3);
        assert!(all.chunks(3).all(|three| three[0] == three[1] && three[1] == three[2]));
    }

    #[test]
    fn many_flows_draw_from_all_ranges() {
        let spec = Spec {
            source: "198.18.0.0/16".parse().unwrap(),
            source_ports: "1024-65534".parse().unwrap(),
            destination: "198.19.0.0/31".parse().unwrap(),
            destination_ports: "443-444".parse().unwrap(),
            ..spec(false, 0, Shape::Pktgen)
        };
        let all = frames(spec, 500);
        let paths: Vec<_> = all.iter().map(|frame| parse(frame).unwrap().path).collect();
        assert!(all.iter().all(|frame| parse(frame).unwrap().checksum(frame) == Checksum::Good));
        assert!(paths.iter().map(|path| path.remote).collect::<BTreeSet<_>>().len() > 480);
        assert_eq!(paths.iter().map(|path| path.local).collect::<BTreeSet<_>>().len(), 4);
    }

    #[test]
    fn the_mix_is_seven_to_four_to_one() {
        let now = Instant::now();
        let mut maker = Maker::new(Spec { sizes: Sizes::Imix(60), ..spec(false, 0, Shape::Pktgen) }, 1, now);
        let mut buffer = [0; 2000];
        let mut total = 0;
        for _ in 0..24 {
            total += maker.fill(now, &mut buffer).unwrap();
        }
        assert_eq!(maker.by_size(), Some([(60, 14), (590, 8), (1514, 2)]));
        assert_eq!(total, 14 * 60 + 8 * 590 + 2 * 1514);
    }

    #[test]
    fn each_damage_is_the_one_that_it_is_called() {
        for v6 in [false, true] {
            for (index, frame) in frames(spec(v6, 0, Shape::Malformed), 12).iter().enumerate() {
                let judged = parse(frame);
                match quic::damage(index as u64) {
                    Damage::UdpLong => assert_eq!(judged, Err(Reject::Malformed(Malformed::UdpLong))),
                    Damage::UdpShort => assert_eq!(judged, Err(Reject::Malformed(Malformed::UdpShort))),
                    Damage::Ip if v6 => assert_eq!(judged, Err(Reject::Malformed(Malformed::IpLong))),
                    Damage::Ip => assert_eq!(judged, Err(Reject::Malformed(Malformed::IpChecksum))),
                    Damage::UdpChecksum => assert_eq!(judged.unwrap().checksum(frame), Checksum::Bad),
                    Damage::FixedBit | Damage::InitialLength => {
                        assert_eq!(judged.unwrap().checksum(frame), Checksum::Good);
                    }
                }
            }
        }
    }

    #[test]
    fn a_frame_that_has_no_room_is_not_made() {
        let now = Instant::now();
        let mut maker = Maker::new(spec(false, 0, Shape::Initial), 1, now);
        assert_eq!(maker.fill(now, &mut [0; 1241]), None);
        assert_eq!(maker.fill(now, &mut [0; 1242]), Some(1242));
    }
}
