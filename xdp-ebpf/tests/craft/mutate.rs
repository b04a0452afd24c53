//! Random damage to a frame, weighted towards the fields that the verdict reads.

use super::{Random, fix_ipv4_checksum};

/// Damages a frame in zero to three places; mends the IPv4 header checksum half of the time, so that more than
/// checksum errors come out.
pub(crate) fn mutate(frame: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(4) {
        mutate_once(frame, random);
    }
    let ip = 14 + 4 * random.below(3);
    if random.below(2) == 0 && frame.len() >= ip + 20 && frame[ip] == 0x45 {
        fix_ipv4_checksum(frame, ip);
    }
}

fn mutate_once(frame: &mut Vec<u8>, random: &mut Random) {
    // Past these bytes there is only payload.
    let header_bytes = frame.len().min(14 + 8 + 40 + 8);
    if header_bytes < 14 {
        return;
    }
    match random.below(8) {
        0 => frame[random.below(header_bytes)] ^= 1 << random.below(8),
        1 => frame[random.below(header_bytes)] = random.next() as u8,
        2 => {
            frame[random.below(header_bytes)] =
                *random.pick(&[0, 1, 4, 6, 8, 17, 20, 44, 60, 0x45, 0x46, 0x60, 0xff])
        }
        // EtherTypes, where they may stand.
        3 => {
            write16(frame, 12 + 4 * random.below(3), *random.pick(&[0x0800, 0x86dd, 0x8100, 0x88a8, 0x0806]))
        }
        // Lengths, fragments and ports, at any tag depth: small, near or large.
        4 => {
            let field = 14 + 4 * random.below(3) + *random.pick(&[2, 4, 6, 20, 22, 24, 40, 42, 44]);
            let value = match random.below(4) {
                0 => random.below(64),
                1 => random.below(frame.len() + 8),
                2 => 443,
                _ => random.below(1 << 16),
            };
            write16(frame, field, value as u16);
        }
        5 => frame.truncate(random.below(frame.len() + 1).max(14)),
        6 => {
            let padding = random.below(64);
            frame.extend(std::iter::repeat_n(random.next() as u8, padding));
        }
        // A tag more or less.
        _ if random.below(2) == 0 => drop(frame.splice(12..12, [0x81, 0, 0, random.next() as u8])),
        _ if frame.len() >= 18 => drop(frame.drain(12..16)),
        _ => {}
    }
}

fn write16(frame: &mut [u8], offset: usize, value: u16) {
    if let Some(bytes) = frame.get_mut(offset..offset + 2) {
        bytes.copy_from_slice(&value.to_be_bytes());
    }
}
