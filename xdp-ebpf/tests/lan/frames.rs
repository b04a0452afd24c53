//! Frames of a LAN and what has to become of them, written down by hand; and the prefixes that all of them meet.

use crate::craft::{FAMILIES, TAGS, ethernet, fix_ipv4_checksum, ip_header_bytes, ip_offset, ours};
use std::net::IpAddr;
use steer::lan::{Counter, KERNEL, TUNNEL, Verdict};

/// The MAC address that [`ours`] is addressed to.
pub(crate) const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Prefixes within prefixes, of both values. [`ours`] goes to 198.18.0.1 and 2001:db8::1.
pub(crate) const PREFIXES: [(&str, u8, u32); 10] = [
    ("198.18.0.0", 24, TUNNEL),
    ("198.18.0.9", 32, KERNEL),
    ("198.18.0.128", 26, KERNEL),
    ("198.18.0.160", 32, TUNNEL),
    ("224.0.0.0", 4, TUNNEL),
    ("2001:db8::", 64, TUNNEL),
    ("2001:db8::9", 128, KERNEL),
    ("2001:db8:0:0:8000::", 65, KERNEL),
    ("2001:db8:0:0:8000::a0", 127, TUNNEL),
    ("fe80::", 10, TUNNEL),
];

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) frame: Vec<u8>,
    pub(crate) expected: Verdict,
}

/// [`ours`], for another destination.
pub(crate) fn to(tags: &[u16], destination: IpAddr, payload_bytes: usize) -> Vec<u8> {
    let family = if destination.is_ipv4() { 4 } else { 6 };
    let mut frame = ours(tags, family, payload_bytes);
    let end = ip_offset(tags) + ip_header_bytes(family);
    match destination {
        IpAddr::V4(ip) => frame[end - 4..end].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => frame[end - 16..end].copy_from_slice(&ip.octets()),
    }
    if family == 4 {
        fix_ipv4_checksum(&mut frame, ip_offset(tags));
    }
    frame
}

/// Every case, for every stack of tags and both families.
pub(crate) fn table() -> Vec<Case> {
    let mut cases = Vec::new();
    for tags in TAGS {
        for family in FAMILIES {
            let mut table = Table { cases: &mut cases, tags, family };
            table.destinations();
            table.macs();
            table.truncated();
            table.lengths();
            table.what_does_not_matter();
        }
        let mut frame = ethernet(tags, 0x0806);
        frame.extend([0; 46]);
        let expected = Verdict::Kernel(Counter::PassNotIp);
        cases.push(Case { name: format!("ARP behind {tags:04x?}"), frame, expected });
    }
    for family in FAMILIES {
        let frame = ours(&[0x88a8, 0x8100, 0x8100], family, 24);
        let name = format!("IPv{family} behind three tags");
        cases.push(Case { name, frame, expected: Verdict::Kernel(Counter::PassVlanDepth) });
    }
    cases
}

struct Table<'a> {
    cases: &'a mut Vec<Case>,
    tags: &'a [u16],
    family: u8,
}

impl Table<'_> {
    fn expect(&mut self, name: &str, frame: Vec<u8>, expected: Verdict) {
        let name = format!("IPv{} behind {:04x?}: {name}", self.family, self.tags);
        self.cases.push(Case { name, frame, expected });
    }

    fn changed(&self, change: impl FnOnce(&mut Vec<u8>, usize)) -> Vec<u8> {
        let mut frame = ours(self.tags, self.family, 24);
        change(&mut frame, ip_offset(self.tags));
        frame
    }

    fn destinations(&mut self) {
        let kernel = Verdict::Kernel;
        let cases: &[(&str, Verdict)] = if self.family == 4 {
            &[
                ("198.18.0.1", Verdict::Tunnel),
                ("198.18.0.255", Verdict::Tunnel),
                ("198.18.0.9", kernel(Counter::PassKernel)),
                ("198.18.0.128", kernel(Counter::PassKernel)),
                ("198.18.0.191", kernel(Counter::PassKernel)),
                ("198.18.0.192", Verdict::Tunnel),
                ("198.18.0.160", Verdict::Tunnel),
                ("198.18.0.161", kernel(Counter::PassKernel)),
                ("198.18.1.1", kernel(Counter::PassNotTunnel)),
                ("198.17.255.255", kernel(Counter::PassNotTunnel)),
                ("224.0.0.5", kernel(Counter::PassScope)),
                ("239.255.255.250", kernel(Counter::PassScope)),
                ("255.255.255.255", kernel(Counter::PassScope)),
                ("240.0.0.1", kernel(Counter::PassScope)),
                ("127.0.0.1", kernel(Counter::PassScope)),
                ("0.0.0.0", kernel(Counter::PassScope)),
                ("169.254.1.1", kernel(Counter::PassScope)),
                ("169.253.1.1", kernel(Counter::PassNotTunnel)),
            ]
        } else {
            &[
                ("2001:db8::1", Verdict::Tunnel),
                ("2001:db8::7fff:ffff:ffff:ffff", Verdict::Tunnel),
                ("2001:db8::9", kernel(Counter::PassKernel)),
                ("2001:db8:0:0:8000::", kernel(Counter::PassKernel)),
                ("2001:db8:0:0:8000::a0", Verdict::Tunnel),
                ("2001:db8:0:0:8000::a1", Verdict::Tunnel),
                ("2001:db8:0:0:8000::a2", kernel(Counter::PassKernel)),
                ("2001:db8:0:1::1", kernel(Counter::PassNotTunnel)),
                ("ff02::1", kernel(Counter::PassScope)),
                ("ff0e::1", kernel(Counter::PassScope)),
                ("fe80::1", kernel(Counter::PassScope)),
                ("febf::1", kernel(Counter::PassScope)),
                ("fec0::1", kernel(Counter::PassNotTunnel)),
                ("::", kernel(Counter::PassScope)),
                ("::1", kernel(Counter::PassScope)),
                ("::2", kernel(Counter::PassNotTunnel)),
                // The IPv4 prefix in its mapped form is none for IPv6 packets.
                ("::ffff:198.18.0.1", kernel(Counter::PassScope)),
            ]
        };
        for &(destination, expected) in cases {
            self.expect(destination, to(self.tags, destination.parse().unwrap(), 24), expected);
        }
    }

    fn macs(&mut self) {
        for (name, mac) in [
            ("broadcast", [0xff; 6]),
            ("multicast", [1, 0, 0x5e, 0, 0, 1]),
            ("a neighbour's", [2, 0, 0, 0, 0, 2]),
            ("zero", [0; 6]),
        ] {
            let frame = self.changed(|frame, _| frame[..6].copy_from_slice(&mac));
            self.expect(name, frame, Verdict::Kernel(Counter::PassOtherMac));
        }
    }

    /// Cut at every length: unreadable until the destination is there, malformed from then on.
    fn truncated(&mut self) {
        let frame = self.changed(|_, _| {});
        let readable = ip_offset(self.tags) + ip_header_bytes(self.family);
        for length in 0..frame.len() {
            let expected = if length < readable {
                Verdict::Kernel(Counter::PassShort)
            } else {
                Verdict::Malformed(Counter::DropIpLong)
            };
            self.expect(&format!("cut to {length}"), frame[..length].to_vec(), expected);
        }
    }

    fn lengths(&mut self) {
        let mut padded = ours(self.tags, self.family, 1);
        padded.resize(padded.len().max(60) + 4, 0);
        self.expect("Ethernet padding", padded, Verdict::Tunnel);
        // All of what follows has 32 bytes of IP payload. IPv4's field counts the header.
        let (field, base) = if self.family == 4 { (2, 20u16) } else { (4, 0) };
        for (payload, expected) in [
            (0, Verdict::Tunnel),
            (32, Verdict::Tunnel),
            (33, Verdict::Malformed(Counter::DropIpLong)),
            (65_515, Verdict::Malformed(Counter::DropIpLong)),
        ] {
            let frame = self.changed(|frame, ip| {
                frame[ip + field..][..2].copy_from_slice(&(base + payload).to_be_bytes());
            });
            self.expect(&format!("IP payload {payload} of 32"), frame, expected);
        }
        if self.family == 4 {
            for total in 0..20u16 {
                let frame = self.changed(|frame, ip| {
                    frame[ip + 2..ip + 4].copy_from_slice(&total.to_be_bytes());
                });
                self.expect(&format!("length {total}"), frame, Verdict::Malformed(Counter::DropIpShort));
            }
            // Fifteen words of header, but only 52 bytes of packet.
            let frame = self.changed(|frame, ip| frame[ip] = 0x4f);
            self.expect(
                "a header that is longer than the packet",
                frame,
                Verdict::Malformed(Counter::DropIpShort),
            );
        }
    }

    fn what_does_not_matter(&mut self) {
        let protocol = if self.family == 4 { 9 } else { 6 };
        for number in [0u8, 1, 6, 43, 44, 50, 58, 59, 132, 255] {
            let frame = self.changed(|frame, ip| frame[ip + protocol] = number);
            self.expect(&format!("protocol {number}"), frame, Verdict::Tunnel);
        }
        let hop_limit = if self.family == 4 { 8 } else { 7 };
        for hops in [0, 1, 255] {
            let frame = self.changed(|frame, ip| frame[ip + hop_limit] = hops);
            self.expect(&format!("hop limit {hops}"), frame, Verdict::Tunnel);
        }
        if self.family == 4 {
            for fragment in [0x2000u16, 0x2001, 0x1fff, 0x4000] {
                let frame = self.changed(|frame, ip| {
                    frame[ip + 6..ip + 8].copy_from_slice(&fragment.to_be_bytes());
                });
                self.expect(&format!("fragment field {fragment:#x}"), frame, Verdict::Tunnel);
            }
            // Userspace verifies it: options make the header's length a variable.
            let frame = self.changed(|frame, ip| frame[ip + 10] ^= 1);
            self.expect("the header checksum", frame, Verdict::Tunnel);
            let mut options = self.changed(|_, _| {});
            let ip = ip_offset(self.tags);
            options.splice(ip + 20..ip + 20, [148, 4, 0, 0]);
            (options[ip], options[ip + 3]) = (0x46, 20 + 4 + 32);
            self.expect("router alert", options, Verdict::Tunnel);
        }
        // The other family's EtherType.
        let frame = self.changed(|frame, ip| {
            let other: u16 = if frame[ip] >> 4 == 4 { 0x86dd } else { 0x0800 };
            frame[ip - 2..ip].copy_from_slice(&other.to_be_bytes());
        });
        self.expect("the other IP's EtherType", frame, Verdict::Kernel(Counter::PassIpHeader));
    }
}
