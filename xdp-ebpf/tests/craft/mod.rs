//! Crafted frames and what has to become of them, written down by hand from the RFCs and not computed by the code
//! under test. Shared by `host.rs` (the library, no privilege) and `verdicts.rs` (the loaded program, as root); the tests
//! of the LAN's verdict build on the same frames.
#![allow(dead_code, reason = "every test file uses another part of it")]

pub(crate) mod mutate;

use std::net::SocketAddr;
use steer::{Counter, Verdict};

/// The two listeners of every test.
pub(crate) fn targets() -> [SocketAddr; 2] {
    ["198.18.0.1:443".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap()]
}

/// A frame, its name, and the verdict it must get.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) frame: Vec<u8>,
    pub(crate) expected: Verdict,
}

/// Tag stacks that are looked through.
pub(crate) const TAGS: &[&[u16]] =
    &[&[], &[0x8100], &[0x88a8], &[0x88a8, 0x8100], &[0x8100, 0x8100], &[0x8100, 0x88a8], &[0x88a8, 0x88a8]];

/// IP versions as numbers; a `family` below is one of these.
pub(crate) const FAMILIES: [u8; 2] = [4, 6];

/// A small deterministic generator (SplitMix64), so that a printed seed repeats a run anywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// The start of a mutation: half of the time a frame that is ours, else any crafted one.
pub(crate) fn base(cases: &[Case], random: &mut Random) -> Vec<u8> {
    if random.below(2) == 0 {
        let (tags, family) = (*random.pick(TAGS), *random.pick(&FAMILIES));
        let payload_bytes = random.below(64);
        ours(tags, family, payload_bytes)
    } else {
        random.pick(cases).frame.clone()
    }
}

/// The seed of a random test: BEAM_SEED, or the clock.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("BEAM_SEED") {
        Ok(seed) => seed.parse().expect("BEAM_SEED is a decimal number"),
        Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
    };
    println!("BEAM_SEED={seed}");
    seed
}

/// Offset of the IP header behind this many tags.
pub(crate) fn ip_offset(tags: &[u16]) -> usize {
    14 + 4 * tags.len()
}

pub(crate) fn ip_header_bytes(family: u8) -> usize {
    if family == 4 { 20 } else { 40 }
}

/// A frame to our listener: right in every respect but the UDP checksum, which steering leaves to userspace.
pub(crate) fn ours(tags: &[u16], family: u8, payload_bytes: usize) -> Vec<u8> {
    let ethertype: u16 = if family == 4 { 0x0800 } else { 0x86dd };
    let mut frame = ethernet(tags, ethertype);
    let udp_bytes = (8 + payload_bytes) as u16;
    if family == 4 {
        frame.extend([0x45, 0x02]);
        frame.extend((20 + udp_bytes).to_be_bytes());
        frame.extend([0x12, 0x34, 0x40, 0, 64, 17, 0, 0, 198, 18, 0, 2, 198, 18, 0, 1]);
        fix_ipv4_checksum(&mut frame, ip_offset(tags));
    } else {
        frame.extend([0x60, 0x20, 0xab, 0xcd]);
        frame.extend(udp_bytes.to_be_bytes());
        frame.extend([17, 64]);
        frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    }
    frame.extend(50_000u16.to_be_bytes());
    frame.extend(443u16.to_be_bytes());
    frame.extend(udp_bytes.to_be_bytes());
    frame.extend([0xbe, 0xef]);
    frame.extend((0..payload_bytes).map(|index| index as u8));
    frame
}

/// An Ethernet header with tags, up to and including `ethertype`.
pub(crate) fn ethernet(tags: &[u16], ethertype: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for (number, tag) in tags.iter().enumerate() {
        frame.extend(tag.to_be_bytes());
        frame.extend((0x2064 + number as u16).to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame
}

/// Sets the checksum of the 20-byte header at `ip`, word by word as RFC 791 describes it.
pub(crate) fn fix_ipv4_checksum(frame: &mut [u8], ip: usize) {
    frame[ip + 10..ip + 12].fill(0);
    let words = frame[ip..ip + 20].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[ip + 10..ip + 12].copy_from_slice(&(!sum as u16).to_be_bytes());
}

fn put16(frame: &mut [u8], offset: usize, value: u16) {
    frame[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
}

/// Every case, for every stack of tags and both families.
pub(crate) fn table() -> Vec<Case> {
    let mut cases = Vec::new();
    for tags in TAGS {
        for family in FAMILIES {
            let mut table = Table { cases: &mut cases, tags, family };
            table.welcome();
            table.truncated();
            table.other_targets();
            table.lengths();
            table.protocols();
        }
        let mut table = Table { cases: &mut cases, tags, family: 4 };
        table.ipv4_headers();
        table.family = 6;
        table.ipv6_headers();
    }
    other_frames(&mut cases);
    cases
}

/// The cases of one stack of tags and one family.
struct Table<'a> {
    cases: &'a mut Vec<Case>,
    tags: &'a [u16],
    family: u8,
}

impl Table<'_> {
    fn ours(&self) -> Vec<u8> {
        ours(self.tags, self.family, 24)
    }

    fn ip(&self) -> usize {
        ip_offset(self.tags)
    }

    fn udp(&self) -> usize {
        self.ip() + ip_header_bytes(self.family)
    }

    fn expect(&mut self, name: &str, frame: Vec<u8>, expected: Verdict) {
        let name = format!("IPv{} behind {:04x?}: {name}", self.family, self.tags);
        self.cases.push(Case { name, frame, expected });
    }

    /// `ours` with some bytes changed and the IPv4 checksum mended.
    fn changed(&self, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut frame = self.ours();
        change(&mut frame);
        if self.family == 4 {
            fix_ipv4_checksum(&mut frame, self.ip());
        }
        frame
    }

    fn welcome(&mut self) {
        self.expect("plain", self.ours(), Verdict::Ours);
        self.expect("empty payload", ours(self.tags, self.family, 0), Verdict::Ours);
        self.expect("1452 bytes", ours(self.tags, self.family, 1452), Verdict::Ours);
        let mut padded = ours(self.tags, self.family, 1);
        padded.resize(padded.len().max(60) + 4, 0);
        self.expect("Ethernet padding", padded, Verdict::Ours);
        // UDP may be shorter than IP says (the kernel trims; draft-ietf-tsvwg-udp-options lives there).
        let udp = self.udp();
        let trimmed = self.changed(|frame| put16(frame, udp + 4, 8 + 23));
        self.expect("UDP length one below the IP payload", trimmed, Verdict::Ours);
        let ip = self.ip();
        let class = self.changed(|frame| {
            frame[ip] |= if frame[ip] >> 4 == 6 { 0x0f } else { 0 };
            frame[ip + 1] = 0xff;
        });
        self.expect("every DSCP and ECN bit", class, Verdict::Ours);
    }

    /// Cut at every length: not ours until the destination port is there, malformed from then on.
    fn truncated(&mut self) {
        let (frame, ports_end) = (self.ours(), self.udp() + 4);
        for length in 0..frame.len() {
            let expected = if length < ports_end {
                Verdict::NotOurs(Counter::PassShort)
            } else {
                Verdict::Malformed(Counter::DropIpLong)
            };
            self.expect(&format!("cut to {length}"), frame[..length].to_vec(), expected);
        }
    }

    fn other_targets(&mut self) {
        let (udp, other) = (self.udp(), Verdict::NotOurs(Counter::PassOtherTarget));
        let address = udp - if self.family == 4 { 4 } else { 16 };
        for port in [0u16, 442, 444, 443u16.swap_bytes(), 50_000, 65_535] {
            let frame = self.changed(|frame| put16(frame, udp + 2, port));
            self.expect(&format!("port {port}"), frame, other);
        }
        for byte in address..udp {
            let frame = self.changed(|frame| frame[byte] ^= 1);
            self.expect(&format!("address byte {} differs", byte - address), frame, other);
        }
        let first = if self.family == 4 { 224 } else { 0xff };
        let multicast = self.changed(|frame| (frame[0], frame[address]) = (1, first));
        self.expect("multicast", multicast, other);
        let swapped = self.changed(|frame| {
            let (source, destination) = (address - (udp - address), address);
            for byte in 0..udp - address {
                frame.swap(source + byte, destination + byte);
            }
            frame.swap(udp, udp + 2);
            frame.swap(udp + 1, udp + 3);
        });
        self.expect("what we would send", swapped, other);
        // Damaged, but to somebody else: the kernel's business.
        let damaged = self.changed(|frame| {
            put16(frame, udp + 2, 80);
            put16(frame, udp + 4, 7);
        });
        self.expect("a short UDP length to another port", damaged, other);
    }

    fn lengths(&mut self) {
        let (ip, udp, header) = (self.ip(), self.udp(), ip_header_bytes(self.family) as u16);
        for length in 0..8 {
            let frame = self.changed(|frame| put16(frame, udp + 4, length));
            self.expect(&format!("UDP length {length}"), frame, Verdict::Malformed(Counter::DropUdpShort));
        }
        for length in [33, 34, 1500, 65_535] {
            let frame = self.changed(|frame| put16(frame, udp + 4, length));
            self.expect(
                &format!("UDP length {length} of 32"),
                frame,
                Verdict::Malformed(Counter::DropUdpLong),
            );
        }
        // What the header's field says for this many bytes of IP payload.
        let base = if self.family == 4 { header } else { 0 };
        let field = if self.family == 4 { ip + 2 } else { ip + 4 };
        for payload in [33, 34, 1500, 65_535 - 20] {
            let frame = self.changed(|frame| put16(frame, field, base + payload));
            self.expect(
                &format!("IP payload {payload} of 32"),
                frame,
                Verdict::Malformed(Counter::DropIpLong),
            );
        }
        for payload in 0..8 {
            let frame = self.changed(|frame| put16(frame, field, base + payload));
            self.expect(&format!("IP payload {payload}"), frame, Verdict::Malformed(Counter::DropIpShort));
        }
        for payload in 8..32 {
            let frame = self.changed(|frame| put16(frame, field, base + payload));
            let expected = Verdict::Malformed(Counter::DropUdpLong);
            self.expect(&format!("IP payload {payload} below the UDP length"), frame, expected);
        }
        for length in [8, 20, 31] {
            let frame = self.changed(|frame| {
                put16(frame, field, base + length);
                put16(frame, udp + 4, length);
            });
            self.expect(&format!("both lengths {length}, the rest padding"), frame, Verdict::Ours);
        }
        // The frame ends inside the UDP header and IP's length agrees.
        for length in 4..8u16 {
            let mut frame = self.changed(|frame| put16(frame, field, base + length));
            frame.truncate(udp + usize::from(length));
            self.expect(&format!("{length} bytes of UDP"), frame, Verdict::Malformed(Counter::DropIpShort));
        }
    }

    fn protocols(&mut self) {
        let field = if self.family == 4 { self.ip() + 9 } else { self.ip() + 6 };
        for protocol in (0..=255u8).filter(|&protocol| protocol != 17) {
            let frame = self.changed(|frame| frame[field] = protocol);
            // IANA, "IPv6 Extension Header Types"; 59 (no next header) isn't one. In IPv4 all are protocols.
            let counter = match protocol {
                44 if self.family == 6 => Counter::PassFragment,
                0 | 43 | 50 | 51 | 60 | 135 | 139 | 140 | 253 | 254 if self.family == 6 => {
                    Counter::PassIpv6Extension
                }
                _ => Counter::PassNotUdp,
            };
            self.expect(&format!("protocol {protocol}"), frame, Verdict::NotOurs(counter));
        }
        // The other family's EtherType.
        let ip = self.ip();
        let mut frame = self.ours();
        put16(&mut frame, ip - 2, if self.family == 4 { 0x86dd } else { 0x0800 });
        self.expect("the other IP's EtherType", frame, Verdict::NotOurs(Counter::PassIpHeader));
    }

    fn ipv4_headers(&mut self) {
        let ip = self.ip();
        for first in (0..=255u8).filter(|&first| first != 0x45) {
            let frame = self.changed(|frame| frame[ip] = first);
            let counter =
                if (0x46..=0x4f).contains(&first) { Counter::PassIpv4Options } else { Counter::PassIpHeader };
            self.expect(&format!("first byte {first:#x}"), frame, Verdict::NotOurs(counter));
        }
        // Options as they really come: four bytes of router alert, lengths adjusted.
        let mut options = self.ours();
        options.splice(ip + 20..ip + 20, [148, 4, 0, 0]);
        options[ip] = 0x46;
        put16(&mut options, ip + 2, 20 + 4 + 32);
        self.expect("router alert", options, Verdict::NotOurs(Counter::PassIpv4Options));
        for (name, flags, expected) in [
            ("first fragment", 0x2000, Verdict::NotOurs(Counter::PassFragment)),
            ("first fragment with don't-fragment", 0x6000, Verdict::NotOurs(Counter::PassFragment)),
            ("middle fragment", 0x2001, Verdict::NotOurs(Counter::PassFragment)),
            ("last fragment", 0x0001, Verdict::NotOurs(Counter::PassFragment)),
            ("last fragment at 256", 0x0100, Verdict::NotOurs(Counter::PassFragment)),
            ("last fragment, far", 0x1fff, Verdict::NotOurs(Counter::PassFragment)),
            ("no flags", 0, Verdict::Ours),
            ("the evil bit", 0x8000, Verdict::Ours),
            ("evil and don't-fragment", 0xc000, Verdict::Ours),
        ] {
            let frame = self.changed(|frame| put16(frame, ip + 6, flags));
            self.expect(name, frame, expected);
        }
        for bit in 0..16 {
            let mut frame = self.ours();
            frame[ip + 10 + bit / 8] ^= 1 << (bit % 8);
            let expected = Verdict::Malformed(Counter::DropIpChecksum);
            self.expect(&format!("bit {bit} of the IP checksum"), frame, expected);
        }
    }

    fn ipv6_headers(&mut self) {
        let ip = self.ip();
        for version in (0..16u8).filter(|&version| version != 6) {
            let frame = self.changed(|frame| frame[ip] = version << 4);
            self.expect(&format!("version {version}"), frame, Verdict::NotOurs(Counter::PassIpHeader));
        }
        // Each extension header as it really comes, in front of UDP.
        for kind in [0u8, 43, 44, 50, 51, 60, 135, 139, 140, 253, 254] {
            let mut frame = self.ours();
            frame.splice(ip + 40..ip + 40, [17, 0, 0, 0, 0, 0, 0, 1]);
            frame[ip + 6] = kind;
            put16(&mut frame, ip + 4, 8 + 32);
            let counter = if kind == 44 { Counter::PassFragment } else { Counter::PassIpv6Extension };
            self.expect(&format!("extension header {kind}"), frame, Verdict::NotOurs(counter));
        }
        // Our IPv4 listener in its mapped form is no IPv6 listener.
        let frame = self.changed(|frame| {
            frame[ip + 24..ip + 40]
                .copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 18, 0, 1]);
        });
        self.expect("to an IPv4-mapped address", frame, Verdict::NotOurs(Counter::PassOtherTarget));
    }
}

/// Frames that aren't IP behind at most two tags.
fn other_frames(cases: &mut Vec<Case>) {
    let mut expect = |name: String, frame: Vec<u8>, counter| {
        cases.push(Case { name, frame, expected: Verdict::NotOurs(counter) });
    };
    for tags in TAGS {
        for (name, ethertype) in [
            ("ARP", 0x0806),
            ("LLDP", 0x88cc),
            ("802.3 length", 46),
            ("old QinQ", 0x9100),
            ("swapped IPv4", 0x0008),
        ] {
            let mut frame = ethernet(tags, ethertype);
            frame.extend([0; 46]);
            expect(format!("{name} behind {tags:04x?}"), frame, Counter::PassNotIp);
        }
    }
    for third in [0x8100, 0x88a8] {
        for family in FAMILIES {
            for more in [&[third][..], &[third, 0x8100]] {
                let tags = [&[0x88a8, 0x8100][..], more].concat();
                expect(
                    format!("IPv{family} behind {tags:04x?}"),
                    ours(&tags, family, 24),
                    Counter::PassVlanDepth,
                );
            }
        }
    }
}
