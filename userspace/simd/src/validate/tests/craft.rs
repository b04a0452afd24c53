//! Frames made by hand, right and wrong in every field that a verdict reads, and random damage.

use super::naive;
use rand::{RngExt, rngs::StdRng};

/// EtherTypes of the tags in front of IP; three are one too many.
pub(super) const TAGS: [&[u16]; 6] =
    [&[], &[0x8100], &[0x88a8], &[0x88a8, 0x8100], &[0x8100, 0x8100], &[0x88a8, 0x8100, 0x8100]];
pub(super) const FAMILIES: [u8; 2] = [4, 6];

/// What to build; everything else about the frame is right.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) tags: &'a [u16],
    /// 4 or 6.
    pub(super) family: u8,
    pub(super) payload_bytes: usize,
}

impl Plan<'_> {
    fn ip(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    fn udp(&self) -> usize {
        self.ip() + if self.family == 4 { 20 } else { 40 }
    }

    /// The frame, both checksums right.
    pub(super) fn frame(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in self.tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0x20, 0x64]);
        }
        let udp_bytes = (8 + self.payload_bytes) as u16;
        if self.family == 4 {
            frame.extend([0x08, 0x00, 0x45, 0x02]);
            frame.extend((20 + udp_bytes).to_be_bytes());
            frame.extend([0x12, 0x34, 0x40, 0, 64, 17, 0, 0, 198, 18, 0, 2, 198, 18, 0, 1]);
        } else {
            frame.extend([0x86, 0xdd, 0x60, 0x20, 0xab, 0xcd]);
            frame.extend(udp_bytes.to_be_bytes());
            frame.extend([17, 64]);
            for end in [2, 1] {
                frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, end]);
            }
        }
        frame.extend([0xc3, 0x50, 0x01, 0xbb]);
        frame.extend(udp_bytes.to_be_bytes());
        frame.extend([0, 0]);
        frame.extend((0..self.payload_bytes).map(|index| (index * 7) as u8));
        mend_udp(&mut frame, self.ip(), self.family);
        mend_ipv4(&mut frame, self.ip(), self.family);
        frame
    }
}

fn put(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Makes the 20 bytes at `ip` add up, if the frame is IPv4 and has them: whatever they say of options and version, so
/// that these are judged for what they say and not for a wrong sum.
fn mend_ipv4(frame: &mut [u8], ip: usize, family: u8) {
    if family == 4 && frame.len() >= ip + 20 {
        put(frame, ip + 10, 0);
        let sum = naive(&frame[ip..ip + 20]);
        put(frame, ip + 10, !sum);
    }
}

/// The sum over the pseudo-header of the UDP datagram in the IP packet at `ip`, as the UDP length has it.
fn pseudo(frame: &[u8], ip: usize, family: u8) -> Vec<u8> {
    let (addresses, udp) = if family == 4 { (ip + 12, ip + 20) } else { (ip + 8, ip + 40) };
    [&frame[addresses..udp], &[0, 17], &frame[udp + 4..udp + 6]].concat()
}

/// Sets the UDP checksum, if the frame holds what it covers.
fn mend_udp(frame: &mut [u8], ip: usize, family: u8) {
    let udp = ip + if family == 4 { 20 } else { 40 };
    let Some(&[high, low]) = frame.get(udp + 4..udp + 6).and_then(<[u8]>::first_chunk) else { return };
    let end = udp + usize::from(u16::from_be_bytes([high, low]));
    if end < udp + 8 || end > frame.len() {
        return;
    }
    put(frame, udp + 6, 0);
    let covered = [&pseudo(frame, ip, family), &frame[udp..end]].concat();
    let field = match !naive(&covered) {
        0 => 0xffff,
        field => field,
    };
    put(frame, udp + 6, field);
}

/// Leaves the checksum field as a sender with checksum offload does: the pseudo-header's sum, not complemented.
fn make_partial(frame: &mut [u8], ip: usize, family: u8) {
    let udp = ip + if family == 4 { 20 } else { 40 };
    let sum = naive(&pseudo(frame, ip, family));
    put(frame, udp + 6, sum);
}

/// Every frame of the table.
pub(super) fn table() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for tags in TAGS {
        for family in FAMILIES {
            let plan = Plan { tags, family, payload_bytes: 23 };
            sizes(&mut frames, plan);
            lengths(&mut frames, plan);
            headers(&mut frames, plan);
            sources(&mut frames, plan);
            checksums(&mut frames, plan);
        }
    }
    frames
}

/// Payloads, cuts at every length, padding.
fn sizes(frames: &mut Vec<Vec<u8>>, plan: Plan<'_>) {
    for payload_bytes in [0, 1, 2, 3, 17, 18, 23, 24, 63, 64, 65, 1199, 1200, 1452] {
        frames.push(Plan { payload_bytes, ..plan }.frame());
    }
    let whole = plan.frame();
    for length in 0..whole.len() {
        frames.push(whole[..length].to_vec());
    }
    for padding in 1..40 {
        frames.push([whole.as_slice(), &vec![0xa5; padding]].concat());
    }
}

/// Every small IP and UDP length, and the largest, with the checksums mended.
fn lengths(frames: &mut Vec<Vec<u8>>, plan: Plan<'_>) {
    let ip_field = plan.ip() + if plan.family == 4 { 2 } else { 4 };
    for length in (0..80).chain([0x7fff, 0x8000, 0xfff0, 0xffff]) {
        for field in [ip_field, plan.udp() + 4] {
            let mut frame = plan.frame();
            put(&mut frame, field, length);
            mend_udp(&mut frame, plan.ip(), plan.family);
            mend_ipv4(&mut frame, plan.ip(), plan.family);
            frames.push(frame);
        }
    }
}

/// Every bit in front of the payload flipped, IPv4 checksum mended and not; every value of the bytes that discriminate.
fn headers(frames: &mut Vec<Vec<u8>>, plan: Plan<'_>) {
    let whole = plan.frame();
    for bit in 0..8 * (plan.udp() + 8) {
        let mut frame = whole.clone();
        frame[bit / 8] ^= 1 << (bit % 8);
        frames.push(frame.clone());
        mend_ipv4(&mut frame, plan.ip(), plan.family);
        frames.push(frame);
    }
    for at in [0, 1, 6, 7, 9] {
        for value in 0..=255 {
            let mut frame = whole.clone();
            frame[plan.ip() + at] = value;
            mend_ipv4(&mut frame, plan.ip(), plan.family);
            frames.push(frame);
        }
    }
    for ethertype in [0x0806, 0x88cc, 46, 0x9100, 0x0008, 0xdd86, 0x0800, 0x86dd, 0x8100] {
        let mut frame = whole.clone();
        put(&mut frame, plan.ip() - 2, ethertype);
        frames.push(frame);
    }
}

/// Senders that can't be, and their neighbours.
fn sources(frames: &mut Vec<Vec<u8>>, plan: Plan<'_>) {
    let mut push = |change: &dyn Fn(&mut [u8])| {
        let mut frame = plan.frame();
        change(&mut frame);
        mend_udp(&mut frame, plan.ip(), plan.family);
        mend_ipv4(&mut frame, plan.ip(), plan.family);
        frames.push(frame);
    };
    let udp = plan.udp();
    for port in [0, 1, 0x100, 0xffff] {
        push(&|frame| put(frame, udp, port));
        push(&|frame| put(frame, udp + 2, port));
    }
    if plan.family == 4 {
        (0..=255).for_each(|first| push(&|frame| frame[udp - 8] = first));
        return;
    }
    for first in 0..=255 {
        push(&|frame| frame[udp - 32] = first);
    }
    // ::, ::1, IPv4-mapped, and each with one bit more.
    for last in [[0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1], [0, 0, 0xff, 0xff, 198, 18, 0, 2]] {
        let address = [[0; 8], last].concat();
        push(&|frame| frame[udp - 32..udp - 16].copy_from_slice(&address));
        for bit in 0..128 {
            push(&|frame| {
                frame[udp - 32..udp - 16].copy_from_slice(&address);
                frame[udp - 32 + bit / 8] ^= 1 << (bit % 8);
            });
        }
    }
}

/// Right, none, partial, wrong by a bit, in the field and in the payload.
fn checksums(frames: &mut Vec<Vec<u8>>, plan: Plan<'_>) {
    for payload_bytes in [0, 1, 22, 23, 64, 1452] {
        let plan = Plan { payload_bytes, ..plan };
        let field = plan.udp() + 6;
        let whole = plan.frame();
        for value in [0, 0xffff, 1] {
            let mut frame = whole.clone();
            put(&mut frame, field, value);
            frames.push(frame);
        }
        let mut partial = whole.clone();
        make_partial(&mut partial, plan.ip(), plan.family);
        frames.push(partial);
        for bit in (8 * field..8 * whole.len()).step_by(if payload_bytes > 64 { 101 } else { 1 }) {
            let mut frame = whole.clone();
            frame[bit / 8] ^= 1 << (bit % 8);
            frames.push(frame);
        }
    }
}

/// A right frame, or one of the table, damaged in zero to three places; then perhaps mended, so that more than
/// checksum errors come out.
pub(super) fn random(table: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let tags =
        if random.random_range(0..4) == 0 { TAGS[random.random_range(0..TAGS.len())] } else { TAGS[0] };
    let family = FAMILIES[random.random_range(0..2)];
    let plan = Plan { tags, family, payload_bytes: random.random_range(0..160) };
    let mut frame = match random.random_range(0..4) {
        0 => table[random.random_range(0..table.len())].clone(),
        _ => plan.frame(),
    };
    for _ in 0..random.random_range(0..4) {
        damage(&mut frame, random);
    }
    let mend = random.random_range(0..8);
    if mend & 1 != 0 {
        mend_udp(&mut frame, plan.ip(), family);
    }
    if mend == 2 && frame.len() >= plan.udp() + 8 {
        make_partial(&mut frame, plan.ip(), family);
    }
    if mend & 4 == 0 {
        mend_ipv4(&mut frame, plan.ip(), plan.family);
    }
    frame
}

fn damage(frame: &mut Vec<u8>, random: &mut StdRng) {
    // Past these bytes there is only payload.
    let header_bytes = frame.len().min(14 + 12 + 40 + 8);
    if header_bytes < 14 {
        return;
    }
    match random.random_range(0..8) {
        0 => frame[random.random_range(0..header_bytes)] ^= 1 << random.random_range(0..8),
        1 => frame[random.random_range(0..header_bytes)] = random.random(),
        2 => {
            let bytes = [0, 1, 4, 6, 8, 17, 20, 44, 60, 0x45, 0x46, 0x60, 0x7f, 0xff];
            frame[random.random_range(0..header_bytes)] = bytes[random.random_range(0..bytes.len())];
        }
        3 => {
            let types = [0x0800, 0x86dd, 0x8100, 0x88a8, 0x0806];
            let at = 12 + 4 * random.random_range(0..4);
            write(frame, at, types[random.random_range(0..types.len())]);
        }
        // Lengths, fragments and ports, at any depth of tags: small, near or large.
        4 => {
            let fields = [2, 4, 6, 20, 22, 24, 40, 42, 44];
            let at = 14 + 4 * random.random_range(0..3) + fields[random.random_range(0..fields.len())];
            let value = match random.random_range(0..3) {
                0 => random.random_range(0..64),
                1 => random.random_range(0..frame.len() + 8) as u16,
                _ => random.random(),
            };
            write(frame, at, value);
        }
        5 => frame.truncate(random.random_range(14..=frame.len())),
        6 => {
            let padding = random.random_range(1..64);
            frame.extend(std::iter::repeat_n(random.random::<u8>(), padding));
        }
        _ => {
            let at = random.random_range(0..frame.len());
            frame[at] = random.random();
        }
    }
}

fn write(frame: &mut [u8], at: usize, value: u16) {
    if frame.len() >= at + 2 {
        put(frame, at, value);
    }
}
