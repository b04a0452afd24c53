//! `checksum`: the sum of the Internet checksum by each way that beam has, and the verification of a datagram by it.

use super::{Done, Meter, Op};
use crate::callgrind::COUNTED_LEVEL;
use simd::{Level, validate};
use std::{hint::black_box, net::SocketAddr};
use wire::{
    Path,
    checksum::{Checksum, Sum},
    datagram,
    encap::{HEADER_BYTES_MAX, Link, Template},
};

const SIZES_BYTES: [usize; 6] = [20, 64, 256, 1200, 1452, 9000];
const SUMS: u64 = 64;

pub(super) fn ops() -> Vec<Op> {
    let mut ops = Vec::new();
    for size in SIZES_BYTES {
        ops.push(sum("wire".into(), size, |bytes| Sum::of(bytes).folded()));
        for &level in Level::available() {
            let op = sum(level.name().into(), size, move |bytes| validate::sum(level, bytes).folded());
            // The others are counted where the CPU has them, or not at all.
            ops.push(if level.name() == COUNTED_LEVEL { op } else { op.uncounted() });
        }
        ops.push(verified(size));
    }
    ops
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at as u8).wrapping_mul(37) ^ (at >> 8) as u8).collect()
}

/// RFC 1071, word by word.
fn reference(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (sum as u16).to_be_bytes()
}

fn sum(way: String, size: usize, folded: impl Fn(&[u8]) -> [u8; 2] + Copy + 'static) -> Op {
    let done = Done { units: SUMS, bytes: SUMS * size as u64 };
    Op::new(format!("checksum/{way}/{size}"), "sum", done, move |_| {
        let bytes = pattern(size);
        assert_eq!(folded(&bytes), reference(&bytes), "RFC 1071");
        move |meter: &mut dyn Meter| {
            meter.measure(&mut || {
                for _ in 0..SUMS {
                    black_box(folded(black_box(&bytes)));
                }
            });
            done
        }
    })
}

/// UDP's checksum of a datagram with so much payload, as the receive path verifies it.
fn verified(size: usize) -> Op {
    let done = Done { units: SUMS, bytes: SUMS * size as u64 };
    Op::new(format!("checksum/verify/{size}"), "datagram", done, move |_| {
        let (local, remote): (SocketAddr, SocketAddr) =
            (([198, 18, 0, 1], 443).into(), ([198, 18, 0, 2], 50_000).into());
        let link =
            Link { src_mac: [2, 0, 0, 0, 0, 1], dst_mac: [2, 0, 0, 0, 0, 2], vlans: Default::default() };
        let template = Template::new(&link, &Path { local, remote }, 64).expect("one family");
        let mut frame = vec![0; HEADER_BYTES_MAX];
        frame.extend(pattern(size));
        let header = template.header_len();
        frame.drain(header..HEADER_BYTES_MAX);
        template.write(&mut frame, size, 0).expect("room");
        let found = datagram::parse(&frame).expect("valid");
        assert_eq!(found.checksum(&frame), Checksum::Good);
        let mut damaged = frame.clone();
        damaged[header] ^= 1;
        assert_eq!(found.checksum(&damaged), Checksum::Bad);
        move |meter: &mut dyn Meter| {
            meter.measure(&mut || {
                for _ in 0..SUMS {
                    black_box(found.checksum(black_box(&frame)));
                }
            });
            done
        }
    })
}
