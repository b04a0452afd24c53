//! `rings`: what carries frames, packets and records from one thread to another, and the rings of a port.
//!
//! On one thread, a burst in and a burst out, which is what an uncontended ring costs each end together; and across two
//! or three threads, which is what a core pays for the other's cache lines. The port is the simulator's queue of a network
//! card, in memory: the rings of an AF_XDP socket have the kernel at their other end, and `scripts/pktgen` measures those.

use super::{Done, Meter, Op};
use crossbeam::queue::{ArrayQueue, SegQueue};
use port::{Ecn, Frame, Region};
use rtrb::RingBuffer;
use sim::link::Datagram;
use sim::nic::{Nic, Rings, Slot};
use simd::{Guard, Packet};
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;
use std::{array, thread};
use tunnel::{Level, Transmit};
use wire::Path;

const BURST: usize = 64;
/// As a worker's letter box for frames, and a capture's ring for records.
const RING_FRAMES: usize = 4096;
/// A capture's record of a packet, its first bytes included.
const RECORD_BYTES: usize = 96;
const ACROSS: u64 = 65_536;
const MTU: usize = 1452;

pub(super) fn ops() -> Vec<Op> {
    vec![
        array_queue(),
        seg_queue(),
        rtrb_items(),
        rtrb_records(),
        across("rtrb_spsc", 1, || {
            let (mut producer, mut consumer) = RingBuffer::new(RING_FRAMES);
            (
                vec![Box::new(move |item| producer.push(item).is_ok()) as Push],
                Box::new(move || consumer.pop().ok()) as Pop,
            )
        }),
        across("array_queue_spsc", 1, || shared_queue(1)),
        across("array_queue_mpsc", 2, || shared_queue(2)),
        port_receive(),
        port_send(),
    ]
}

fn frames() -> Vec<Frame> {
    Region::anonymous(2048, BURST).expect("address space")
}

/// A frame's hand-over to the worker that owns its connection.
fn array_queue() -> Op {
    Op::simple("rings/array_queue_frames".into(), "frame", BURST as u64, || {
        let (queue, mut frames) = (ArrayQueue::new(RING_FRAMES), frames());
        move || {
            for frame in frames.drain(..) {
                assert!(queue.push(black_box(frame)).is_ok());
            }
            frames.extend(std::iter::from_fn(|| queue.pop()));
            assert_eq!(frames.len(), BURST);
        }
    })
}

/// A frame's way home, where it finds no room in the bounded queue.
fn seg_queue() -> Op {
    Op::simple("rings/seg_queue_frames".into(), "frame", BURST as u64, || {
        let (queue, mut frames) = (SegQueue::new(), frames());
        move || {
            frames.drain(..).for_each(|frame| queue.push(black_box(frame)));
            frames.extend(std::iter::from_fn(|| queue.pop()));
            assert_eq!(frames.len(), BURST);
        }
    })
}

fn rtrb_items() -> Op {
    Op::simple("rings/rtrb_frames".into(), "frame", BURST as u64, || {
        let ((mut producer, mut consumer), mut frames) = (RingBuffer::new(RING_FRAMES), frames());
        move || {
            for frame in frames.drain(..) {
                assert!(producer.push(black_box(frame)).is_ok());
            }
            frames.extend(std::iter::from_fn(|| consumer.pop().ok()));
            assert_eq!(frames.len(), BURST);
        }
    })
}

/// As a capture has it: bytes, a record at once.
fn rtrb_records() -> Op {
    Op::simple("rings/rtrb_records".into(), "record", BURST as u64, || {
        let (mut producer, mut consumer) = RingBuffer::<u8>::new(RING_FRAMES * RECORD_BYTES);
        let record: [u8; RECORD_BYTES] = array::from_fn(|at| at as u8);
        move || {
            for _ in 0..BURST {
                let chunk = producer.write_chunk_uninit(RECORD_BYTES).expect("room");
                assert_eq!(chunk.fill_from_iter(black_box(record)), RECORD_BYTES);
            }
            for _ in 0..BURST {
                let chunk = consumer.read_chunk(RECORD_BYTES).expect("a record");
                let (first, second) = chunk.as_slices();
                assert_eq!((first.len() + second.len(), first[0]), (RECORD_BYTES, 0));
                chunk.commit_all();
            }
        }
    })
}

type Push = Box<dyn FnMut(u64) -> bool + Send>;
type Pop = Box<dyn FnMut() -> Option<u64> + Send>;

fn shared_queue(producers: usize) -> (Vec<Push>, Pop) {
    let queue = std::sync::Arc::new(ArrayQueue::new(RING_FRAMES));
    let producer = |_| {
        let queue = queue.clone();
        Box::new(move |item| queue.push(item).is_ok()) as Push
    };
    let pushes = (0..producers).map(producer).collect();
    (pushes, Box::new(move || queue.pop()))
}

/// Numbers from one or more threads to this one, each thread's in their order.
fn across(name: &str, producers: u64, ring: fn() -> (Vec<Push>, Pop)) -> Op {
    let done = Done { units: ACROSS, bytes: 0 };
    let op = Op::new(format!("rings/{name}_across_threads"), "item", done, move |_| {
        move |meter: &mut dyn Meter| {
            let (pushes, mut pop) = ring();
            let mut sum = 0;
            thread::scope(|scope| {
                for (first, mut push) in (0..).zip(pushes) {
                    scope.spawn(move || {
                        for item in (first..ACROSS).step_by(producers as usize) {
                            while !push(item) {
                                thread::yield_now();
                            }
                        }
                    });
                }
                meter.measure(&mut || {
                    for _ in 0..ACROSS {
                        sum += loop {
                            match pop() {
                                Some(item) => break item,
                                None => thread::yield_now(),
                            }
                        };
                    }
                });
            });
            assert_eq!(sum, (0..ACROSS).sum::<u64>(), "each comes once");
            done
        }
    });
    op.uncounted()
}

fn path() -> Path {
    let (local, remote): (SocketAddr, SocketAddr) =
        (([198, 18, 0, 1], 443).into(), ([198, 18, 0, 2], 50_000).into());
    Path { local, remote }
}

/// A burst from the RX ring, back to the pool, and new frames on the fill ring.
fn port_receive() -> Op {
    let done = Done { units: BURST as u64, bytes: 0 };
    Op::new("rings/port_rx_fill".into(), "frame", done, move |_| {
        let Path { local, remote } = path();
        let datagram = Datagram { from: remote, to: local, ecn: Some(Ecn::Ect0), bytes: vec![7; MTU] };
        let mut nic = Nic::new(Rings::default());
        let at_home = nic.at_home();
        let mut burst = Vec::with_capacity(BURST);
        move |meter: &mut dyn Meter| {
            for _ in 0..BURST {
                nic.arrive(local, &datagram);
            }
            meter.measure(&mut || {
                nic.receive(&mut burst, BURST);
                assert_eq!(burst.len(), BURST);
                burst.drain(..).for_each(|received| nic.recycle(received.frame));
            });
            assert_eq!(nic.at_home(), at_home, "every frame came back");
            done
        }
    })
}

/// Frames reserved, filled (the copy of a datagram that is sealed already) and put on the TX ring.
fn port_send() -> Op {
    let done = Done { units: BURST as u64, bytes: (BURST * MTU) as u64 };
    Op::new("rings/port_tx".into(), "frame", done, move |_| {
        let mut nic = Nic::new(Rings::default());
        let mut guard = Guard::new(Level::RING);
        let bytes = vec![7; BURST * MTU];
        let packets: Vec<&[u8]> = bytes.chunks(MTU).collect();
        let ranges: Vec<_> = (0..packets.len()).map(|n| n * MTU..(n + 1) * MTU).collect();
        let transmit = Transmit { path: path(), ecn: None, size_bytes: bytes.len(), segment_bytes: MTU };
        move |meter: &mut dyn Meter| {
            let packets: Vec<Packet<'_>> =
                ranges.iter().map(|range| Packet::Protected { bytes: &bytes[range.clone()] }).collect();
            meter.measure(&mut || {
                let mut slots: Vec<Slot> = Vec::with_capacity(BURST);
                assert!(nic.reserve(&transmit, &mut slots));
                let Ok(mut sealed) = guard.protect(slots, &packets) else { panic!("they tile") };
                nic.submit(Duration::ZERO, &transmit, &mut sealed);
            });
            assert_eq!(nic.tx_datagrams(), BURST);
            while let Some(sent) = nic.departed(Duration::ZERO) {
                assert_eq!(sent.bytes.len(), MTU);
            }
            done
        }
    })
}
