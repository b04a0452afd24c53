//! Goal: no vector load or store leaves its slice, not even a masked one that a sanitizer can't see. Method: each slice
//! of each job lies against a page that can't be touched, first at its end and then at its start; a step too far is a
//! segmentation fault, which fails the test run.

use crate::levels;
use crate::oracle::{Key, bytes};
use beam_simd::{Cipher, Level, OpenJob, SealJob, TAG_BYTES, open_batch, seal_batch};
use rand::{SeedableRng, rngs::StdRng};
use std::{io, ptr, slice};

const SEED: u64 = 11;
const PAGE_BYTES: usize = 4096;
/// Usable bytes between two fences.
const ROOM_BYTES: usize = 2 * PAGE_BYTES;

/// Which fence a slice touches.
#[derive(Clone, Copy, Debug)]
enum Against {
    Front,
    Back,
}

/// `ROOM_BYTES` of memory with an untouchable page before and behind. Invariant: `start` is the first usable byte, for
/// as long as the value lives.
struct Fenced {
    start: ptr::NonNull<u8>,
}

impl Fenced {
    fn new() -> Self {
        let len = ROOM_BYTES + 2 * PAGE_BYTES;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh anonymous mapping, at an address of the kernel's choice, touches no memory of ours.
        let mapped = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(mapped, libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        let start = mapped.cast::<u8>().wrapping_add(PAGE_BYTES);
        // SAFETY: these pages are the middle of the mapping just made, which nobody else knows.
        let status = unsafe { libc::mprotect(start.cast(), ROOM_BYTES, libc::PROT_READ | libc::PROT_WRITE) };
        assert_eq!(status, 0, "mprotect: {}", io::Error::last_os_error());
        Self { start: ptr::NonNull::new(start).expect("not the null page") }
    }

    fn bytes_mut(&mut self, len: usize, against: Against) -> &mut [u8] {
        // SAFETY: the invariant of `start`; anonymous memory is initialised, and borrowed as long as `self` is.
        let all = unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), ROOM_BYTES) };
        match against {
            Against::Front => &mut all[..len],
            Against::Back => &mut all[ROOM_BYTES - len..],
        }
    }

    fn holding(&mut self, bytes: &[u8], against: Against) -> &[u8] {
        let room = self.bytes_mut(bytes.len(), against);
        room.copy_from_slice(bytes);
        room
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        let mapped = self.start.as_ptr().wrapping_sub(PAGE_BYTES);
        // SAFETY: the mapping that `new` made, unmapped once; no borrow of it outlives `self`.
        let status = unsafe { libc::munmap(mapped.cast(), ROOM_BYTES + 2 * PAGE_BYTES) };
        debug_assert_eq!(status, 0);
    }
}

/// The three slices of a lane.
struct Rooms {
    header: Fenced,
    source: Fenced,
    destination: Fenced,
}

fn check(
    level: Level,
    key: &Key,
    rooms: &mut [Rooms],
    lengths: &[usize],
    against: Against,
    plaintext: &[u8],
) {
    let header_len = |lane: usize| 20 + lane % 7;
    let told = |lane: usize| {
        let cipher = key.packet.cipher().name();
        format!("{cipher} at {level}, {} bytes, lane {lane} of {}, {against:?}", lengths[lane], lengths.len())
    };
    let mut jobs: Vec<SealJob<'_>> = Vec::new();
    for (lane, (rooms, &length)) in rooms.iter_mut().zip(lengths).enumerate() {
        jobs.push(SealJob {
            key: &key.packet,
            packet_number: lane as u64,
            header: rooms.header.holding(&plaintext[..header_len(lane)], against),
            plaintext: rooms.source.holding(&plaintext[..length], against),
            dst: rooms.destination.bytes_mut(length + TAG_BYTES, against),
        });
    }
    seal_batch(level, &mut jobs);
    let mut sealed = Vec::new();
    for (lane, job) in jobs.iter().enumerate() {
        sealed.push(key.seal(job.packet_number, job.header, job.plaintext));
        assert!(*job.dst == sealed[lane], "seal: {}", told(lane));
    }
    let mut jobs: Vec<OpenJob<'_>> = Vec::new();
    for (lane, (rooms, sealed)) in rooms.iter_mut().zip(&sealed).enumerate() {
        jobs.push(OpenJob {
            key: &key.packet,
            packet_number: lane as u64,
            header: rooms.header.holding(&plaintext[..header_len(lane)], against),
            ciphertext: rooms.source.holding(sealed, against),
            dst: rooms.destination.bytes_mut(lengths[lane], against),
            authentic: false,
        });
    }
    open_batch(level, &mut jobs);
    for (lane, job) in jobs.iter().enumerate() {
        assert!(job.authentic && *job.dst == plaintext[..lengths[lane]], "open: {}", told(lane));
    }
}

#[test]
fn nothing_is_touched_beyond_a_slice() {
    println!("seed {SEED}");
    let mut rng = StdRng::seed_from_u64(SEED);
    let plaintext = bytes(&mut rng, 2048);
    let lengths: Vec<usize> = (0..=600).chain(1000..=1300).collect();
    let mut rooms: Vec<Rooms> = (0..17)
        .map(|_| Rooms { header: Fenced::new(), source: Fenced::new(), destination: Fenced::new() })
        .collect();
    for cipher in Cipher::ALL {
        let key = Key::random(cipher, &mut rng);
        for level in levels() {
            for against in [Against::Front, Against::Back] {
                // Alone, in short groups, and as a full group of sixteen with one over.
                for batch_len in [1, 3, 17] {
                    for batch in lengths.chunks(batch_len) {
                        check(level, &key, &mut rooms, batch, against, &plaintext);
                    }
                }
            }
        }
    }
}
