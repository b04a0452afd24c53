//! `cid_lookup`: from a datagram to its worker (one AES block) and to the keys of its connection (one table), as for each
//! packet of a burst, among 1, 1,000 and 100,000 connections in no order.

use super::{Op, random};
use std::hint::black_box;
use std::rc::Rc;
use tunnel::{WorkerId, bench::Directory};

const COUNTS: [u32; 3] = [1, 1_000, 100_000];
const LOOKUPS: u64 = 1024;
/// Bytes of a datagram, of which the first few are read.
const DATAGRAM_BYTES: usize = 64;
const WORKER: WorkerId = WorkerId(3);

pub(super) fn ops() -> Vec<Op> {
    let mut ops = Vec::new();
    for count in COUNTS {
        let decode =
            lookup("decode", count, |directory, datagram, _| directory.worker(datagram) == Some(WORKER));
        let find =
            lookup("find", count, |directory, datagram, index| directory.find(datagram) == Some(index));
        ops.extend([decode, find].map(|op| if count > COUNTS[1] { op.uncounted() } else { op }));
    }
    ops.push(stranger());
    ops
}

/// Looks each datagram up, and asserts that it is found.
fn lookup(name: &str, count: u32, find: fn(&Directory, &[u8], u32) -> bool) -> Op {
    Op::simple(format!("cid_lookup/{name}/{count}"), "datagram", LOOKUPS, move || {
        let directory = Directory::new(WORKER, count);
        let mut state = 5;
        let pick = (0..LOOKUPS).map(|_| (random(&mut state) % u64::from(count)) as u32);
        let datagrams: Vec<_> =
            pick.map(|index| (directory.datagram(index, DATAGRAM_BYTES), index)).collect();
        let directory = Rc::new(directory);
        move || {
            for (datagram, index) in &datagrams {
                assert!(find(&directory, black_box(datagram), *index));
            }
        }
    })
}

/// A flood of short headers with CIDs that nobody made.
fn stranger() -> Op {
    Op::simple("cid_lookup/stranger/1000".into(), "datagram", LOOKUPS, || {
        let directory = Directory::new(WORKER, 1_000);
        let mut state = 6;
        let datagrams: Vec<Vec<u8>> = (0..LOOKUPS)
            .map(|_| {
                let mut datagram = directory.datagram(0, DATAGRAM_BYTES);
                // Behind the CID's first octet, which is always the same.
                datagram[2..].fill_with(|| random(&mut state) as u8);
                datagram
            })
            .collect();
        move || {
            for datagram in &datagrams {
                assert_eq!((directory.worker(black_box(datagram)), directory.find(datagram)), (None, None));
            }
        }
    })
}
