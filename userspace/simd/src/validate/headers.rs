//! Header words of 8 or 16 frames at once.
//!
//! An untagged frame's bytes 10 to 42 are eight aligned words: a row. Eight rows turned by 90 degrees are columns:
//!
//! ```text
//!   byte  10          14            18       22              26      30           34      38
//!   IPv4  ..|type     45 tos length id|frag  ttl 17 checksum source  destination  ports   length|checksum
//!   IPv6  ..|type     6 class label length 17 hops  source ........................ destin....
//!   byte  42..54      54      58
//!   IPv6  ....ation   ports   length|checksum           (words 6 and 7 of a second row, bytes 30 to 62)
//! ```
//!
//! What a plain frame must be is written as words that must be zero; all of them are ORed and compared once.

use super::{Found, Verdict, lanes::Lanes, scalar, total};
use std::ops::Deref;
use wire::{
    checksum::{Checksum, Sum},
    headers::{
        ETHERNET_BYTES, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_BYTES, IPV6_BYTES, IpVersion, PROTOCOL_UDP,
        UDP_BYTES,
    },
};

/// 32-bit lanes of the widest vector.
const LANES_MAX: usize = 16;
/// Where a row begins, and where the second row of an IPv6 frame does.
const ROW_OFFSET: usize = 10;
const IPV6_ROW_OFFSET: usize = ETHERNET_BYTES + IPV6_BYTES + UDP_BYTES - 32;
/// Stands in for the row of a frame that has none: its EtherType is neither IP's.
const NO_ROW: &[u8; 32] = &[0; 32];
/// Any longer frame is long enough for any IP length.
const FRAME_BYTES_CAP: usize = 1 << 20;
/// Fewer frames than these are parsed one by one sooner.
const GROUP_COUNT_MIN: usize = 2;
const SIGN: u32 = 1 << 31;

/// What was found in the lanes of one group; bit and word numbers are frame numbers in the group.
struct Group {
    ipv4: u64,
    ipv6: u64,
    martian: u64,
    /// The UDP length, and the ECN bits above it.
    info: [u32; LANES_MAX],
}

impl Group {
    const NONE: Self = Self { ipv4: 0, ipv6: 0, martian: 0, info: [0; LANES_MAX] };
}

/// Judges `frames` and appends the verdicts.
///
/// Asking for the next group's cache lines ahead was tried: it gains nothing, neither on frames in cache nor on
/// frames from memory, which the CPU's own prefetchers follow.
#[inline(always)]
pub(super) fn classify<L, F>(lanes: L, frames: &[F], verify: bool, verdicts: &mut Vec<Verdict>)
where
    L: Lanes,
    F: Deref<Target = [u8]>,
{
    for frames in frames.chunks(L::LANES) {
        let group = if frames.len() < GROUP_COUNT_MIN { Group::NONE } else { read(lanes, frames) };
        for (index, frame) in frames.iter().enumerate() {
            verdicts.push(verdict(lanes, &group, index, frame, verify));
        }
    }
}

/// Which of `frames`, one group, the lanes call plain.
#[cfg(test)]
pub(super) fn plain<L: Lanes>(lanes: L, frames: &[&[u8]]) -> u64 {
    let group = read(lanes, frames);
    group.ipv4 | group.ipv6
}

#[inline(always)]
fn verdict<L: Lanes>(lanes: L, group: &Group, index: usize, frame: &[u8], verify: bool) -> Verdict {
    let is_ipv6 = group.ipv6 >> index & 1 != 0;
    let mut found = if is_ipv6 || group.ipv4 >> index & 1 != 0 {
        let info = group.info[index];
        Found {
            version: if is_ipv6 { IpVersion::V6 } else { IpVersion::V4 },
            ip_offset: ETHERNET_BYTES as u8,
            // Plain: the UDP length is eight or more.
            payload_bytes: (info as u16).wrapping_sub(UDP_BYTES as u16),
            ecn_bits: (info >> 16) as u8,
            is_martian: group.martian >> index & 1 != 0,
            checksum: None,
        }
    } else {
        match scalar::parse(frame) {
            Ok(found) => found,
            Err(reject) => return Verdict::Reject(reject),
        }
    };
    if verify {
        found.checksum = Some(checksum(lanes, &found, frame));
    }
    Verdict::Datagram(found)
}

/// As [`wire::checksum::verify_udp`], with the vector sum. The addresses stand in front of the UDP header, so one sum
/// covers them too.
#[inline(always)]
fn checksum<L: Lanes>(lanes: L, found: &Found, frame: &[u8]) -> Checksum {
    let (udp_offset, end) = (found.udp_offset(), found.payload().end);
    let address_bytes = match found.version {
        IpVersion::V4 => 8,
        IpVersion::V6 => 32,
    };
    // Both were found to be in the frame.
    let Some(covered) = frame.get(udp_offset - address_bytes..end) else { return Checksum::Bad };
    let Some(&[_, _, _, _, length0, length1, field0, field1]) =
        covered.get(address_bytes..).and_then(<[u8]>::first_chunk)
    else {
        return Checksum::Bad;
    };
    if [field0, field1] == [0, 0] {
        return if found.version == IpVersion::V4 { Checksum::Absent } else { Checksum::Bad };
    }
    let rest = Sum::from_words(u32::from_ne_bytes([0, PROTOCOL_UDP, length0, length1]).into());
    if (total::sum(lanes, covered) + rest).folded() == [0xff, 0xff] {
        Checksum::Good
    } else if (Sum::of(&covered[..address_bytes]) + rest).folded() == [field0, field1] {
        Checksum::PartialPseudo
    } else {
        Checksum::Bad
    }
}

/// The 32 bytes of each frame from `offset`.
#[inline(always)]
fn rows<F: Deref<Target = [u8]>>(frames: &[F], offset: usize) -> [&[u8; 32]; LANES_MAX] {
    let mut rows = [NO_ROW; LANES_MAX];
    for (row, frame) in rows.iter_mut().zip(frames) {
        *row = frame.get(offset..).and_then(|rest| rest.first_chunk()).unwrap_or(NO_ROW);
    }
    rows
}

/// Reads the headers of one group: at most [`Lanes::LANES`] frames.
#[inline(always)]
fn read<L, F>(lanes: L, frames: &[F]) -> Group
where
    L: Lanes,
    F: Deref<Target = [u8]>,
{
    let mut frame_bytes = [0; LANES_MAX];
    for (bytes, frame) in frame_bytes.iter_mut().zip(frames) {
        *bytes = frame.len().min(FRAME_BYTES_CAP) as u32;
    }
    let columns = turn(lanes, &rows(frames, ROW_OFFSET)[..L::LANES]);
    let frame_bytes = lanes.load_words(&frame_bytes);
    let mut group = Group::NONE;
    let ethertype = lanes.last_be16(columns[0]);
    let is_ipv4 = equal(lanes, ethertype, ETHERTYPE_IPV4.into());
    let is_ipv6 = equal(lanes, ethertype, ETHERTYPE_IPV6.into());
    let mut info = lanes.splat(0);
    if is_ipv4 != 0 {
        let found = ipv4(lanes, &columns, frame_bytes);
        group.ipv4 = is_ipv4 & found.plain;
        group.martian = is_ipv4 & found.martian;
        info = found.info;
    }
    if is_ipv6 == 0 {
        lanes.store(info, &mut group.info);
        return group;
    }
    let [.., ports, udp] = turn(lanes, &rows(frames, IPV6_ROW_OFFSET)[..L::LANES]);
    let found = ipv6(lanes, &columns, ports, udp, frame_bytes);
    group.ipv6 = is_ipv6 & found.plain;
    group.martian |= is_ipv6 & found.martian;
    let mut words = [[0; LANES_MAX]; 2];
    lanes.store(info, &mut words[0]);
    lanes.store(found.info, &mut words[1]);
    for (index, word) in group.info.iter_mut().enumerate() {
        *word = words[(group.ipv6 >> index & 1) as usize][index];
    }
    group
}

/// What one IP version's reading of the columns comes to; bits of lanes that are of the other version mean nothing.
struct Reading<V> {
    plain: u64,
    martian: u64,
    info: V,
}

#[inline(always)]
fn ipv4<L: Lanes>(lanes: L, columns: &[L::Vector; 8], frame_bytes: L::Vector) -> Reading<L::Vector> {
    let [_, first, fragment, protocol, source, _, ports, udp] = *columns;
    let ip_bytes = lanes.last_be16(first);
    let udp_bytes = lanes.first_be16(udp);
    let room = lanes.sub(frame_bytes, lanes.splat(ETHERNET_BYTES as u32));
    let payload = lanes.sub(ip_bytes, lanes.splat(IPV4_BYTES as u32));
    let wrong = [
        // Version and header length.
        differs(lanes, first, 0xff, 0x45),
        // More-fragments or any offset.
        differs(lanes, fragment, u32::from_le_bytes([0, 0, 0x3f, 0xff]), 0),
        differs(lanes, protocol, 0xff00, u32::from(PROTOCOL_UDP) << 8),
        bad_lengths(lanes, room, ip_bytes, payload, udp_bytes),
        lanes.xor(header_sum(lanes, columns), lanes.splat(0xffff)),
    ];
    let first_byte = lanes.and(source, lanes.splat(0xff));
    let martian = lanes.zero_lanes(first_byte)
        | equal(lanes, first_byte, 127)
        | equal(lanes, lanes.and(first_byte, lanes.splat(0xe0)), 0xe0)
        | lanes.zero_lanes(lanes.and(ports, lanes.splat(0xffff)));
    let ecn = lanes.and(lanes.shift_right::<8>(first), lanes.splat(3));
    Reading {
        plain: lanes.zero_lanes(any(lanes, wrong)),
        martian,
        info: lanes.or(udp_bytes, lanes.shift_left::<16>(ecn)),
    }
}

#[inline(always)]
fn ipv6<L: Lanes>(
    lanes: L,
    columns: &[L::Vector; 8],
    ports: L::Vector,
    udp: L::Vector,
    frame_bytes: L::Vector,
) -> Reading<L::Vector> {
    let [_, first, second, source0, source1, source2, source3, _] = *columns;
    let payload = lanes.first_be16(second);
    let udp_bytes = lanes.first_be16(udp);
    let room = lanes.sub(frame_bytes, lanes.splat((ETHERNET_BYTES + IPV6_BYTES) as u32));
    let wrong = [
        differs(lanes, first, 0xf0, 0x60),
        differs(lanes, second, 0xff_0000, u32::from(PROTOCOL_UDP) << 16),
        bad_lengths(lanes, room, payload, payload, udp_bytes),
    ];
    // ::, ::1 and ::ffff:0:0/96 begin with eight zero bytes.
    let begins_zero = lanes.zero_lanes(lanes.or(source0, source1));
    let is_small = lanes.zero_lanes(source2)
        & (lanes.zero_lanes(source3) | equal(lanes, source3, u32::from_le_bytes([0, 0, 0, 1])));
    let is_mapped = equal(lanes, source2, u32::from_le_bytes([0, 0, 0xff, 0xff]));
    let is_multicast = equal(lanes, lanes.and(source0, lanes.splat(0xff)), 0xff);
    let no_port = lanes.zero_lanes(lanes.and(ports, lanes.splat(0xffff)));
    // The class straddles the first two bytes: its ECN bits are bits 4 and 5 of the second.
    let ecn = lanes.and(lanes.shift_right::<12>(first), lanes.splat(3));
    Reading {
        plain: lanes.zero_lanes(any(lanes, wrong)),
        martian: begins_zero & (is_small | is_mapped) | is_multicast | no_port,
        info: lanes.or(udp_bytes, lanes.shift_left::<16>(ecn)),
    }
}

/// Nonzero where the bits of `mask` aren't those of `wanted`.
#[inline(always)]
fn differs<L: Lanes>(lanes: L, word: L::Vector, mask: u32, wanted: u32) -> L::Vector {
    lanes.and(lanes.xor(word, lanes.splat(wanted)), lanes.splat(mask))
}

/// Nonzero where `ip_bytes` (as IP counts them) is more than there is `room` for, the UDP length more than the IP
/// payload, or the UDP length below eight. Every number is far below 2^31, so a sign is a "less than".
#[inline(always)]
fn bad_lengths<L: Lanes>(
    lanes: L,
    room: L::Vector,
    ip_bytes: L::Vector,
    payload: L::Vector,
    udp_bytes: L::Vector,
) -> L::Vector {
    let ip_long = lanes.sub(room, ip_bytes);
    let udp_long = lanes.sub(payload, udp_bytes);
    let udp_short = lanes.sub(udp_bytes, lanes.splat(UDP_BYTES as u32));
    lanes.and(lanes.or(lanes.or(ip_long, udp_long), udp_short), lanes.splat(SIGN))
}

/// The folded ones' complement sum of each IPv4 header (RFC 1071): 0xffff where its checksum is right. In the host's
/// byte order, which is as good as any.
#[inline(always)]
fn header_sum<L: Lanes>(lanes: L, columns: &[L::Vector; 8]) -> L::Vector {
    let low = lanes.splat(0xffff);
    let mut sum = lanes.splat(0);
    for &column in &columns[1..6] {
        sum = lanes.add(sum, lanes.and(column, low));
        sum = lanes.add(sum, lanes.shift_right::<16>(column));
    }
    // Ten words: the first fold leaves at most 0xffff + 9, the second no carry.
    sum = lanes.add(lanes.and(sum, low), lanes.shift_right::<16>(sum));
    lanes.add(lanes.and(sum, low), lanes.shift_right::<16>(sum))
}

#[inline(always)]
fn any<L: Lanes, const N: usize>(lanes: L, words: [L::Vector; N]) -> L::Vector {
    let mut sum = words[0];
    for &word in &words[1..] {
        sum = lanes.or(sum, word);
    }
    sum
}

#[inline(always)]
fn equal<L: Lanes>(lanes: L, a: L::Vector, word: u32) -> u64 {
    lanes.zero_lanes(lanes.xor(a, lanes.splat(word)))
}

/// Turns 8 (16) rows of eight words into eight columns of 8 (16) words.
#[inline(always)]
fn turn<L: Lanes>(lanes: L, rows: &[&[u8; 32]]) -> [L::Vector; 8] {
    let row = [
        lanes.load_row(rows, 0),
        lanes.load_row(rows, 1),
        lanes.load_row(rows, 2),
        lanes.load_row(rows, 3),
        lanes.load_row(rows, 4),
        lanes.load_row(rows, 5),
        lanes.load_row(rows, 6),
        lanes.load_row(rows, 7),
    ];
    let top = turn_four(lanes, [row[0], row[1], row[2], row[3]]);
    let bottom = turn_four(lanes, [row[4], row[5], row[6], row[7]]);
    [
        lanes.unpack_low128(top[0], bottom[0]),
        lanes.unpack_low128(top[1], bottom[1]),
        lanes.unpack_low128(top[2], bottom[2]),
        lanes.unpack_low128(top[3], bottom[3]),
        lanes.unpack_high128(top[0], bottom[0]),
        lanes.unpack_high128(top[1], bottom[1]),
        lanes.unpack_high128(top[2], bottom[2]),
        lanes.unpack_high128(top[3], bottom[3]),
    ]
}

/// Column `i` of four rows in the low half of vector `i`, column `i + 4` in the high half.
#[inline(always)]
fn turn_four<L: Lanes>(lanes: L, row: [L::Vector; 4]) -> [L::Vector; 4] {
    let (low01, high01) = (lanes.unpack_low32(row[0], row[1]), lanes.unpack_high32(row[0], row[1]));
    let (low23, high23) = (lanes.unpack_low32(row[2], row[3]), lanes.unpack_high32(row[2], row[3]));
    [
        lanes.unpack_low64(low01, low23),
        lanes.unpack_high64(low01, low23),
        lanes.unpack_low64(high01, high23),
        lanes.unpack_high64(high01, high23),
    ]
}
