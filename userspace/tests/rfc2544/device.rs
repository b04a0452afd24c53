//! A device under test of the test's own: it bridges the measurement's frames from one interface to another, spoils some
//! on purpose, and counts what it did in each trial. All by the frames' numbers and stamps: nothing depends on a clock.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};

use crate::packet;
use crate::rig::{Ns, Rig};

/// How soon its thread notices that it is to stop.
const STOP_LOOK: Duration = Duration::from_millis(50);
const ETHERTYPE_IPV4: u16 = 0x0800;
/// Ethernet, IPv4 and UDP in front of the stamp.
const HEADERS_BYTES: usize = 42;

/// What it did with the frames of one trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) taken: u64,
    pub(crate) lost: u64,
    pub(crate) copied: u64,
    pub(crate) spoilt: u64,
    pub(crate) swapped: u64,
}

/// The stamp of a frame: magic 4, trial 2, number 4, nanoseconds 8.
pub(crate) struct Stamp {
    pub(crate) number: u32,
    pub(crate) at_ns: u64,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Passes,
    IsLost,
    /// Goes out twice.
    IsCopied,
    /// One of its bits is turned.
    IsSpoilt,
    /// Goes out behind the next one.
    IsSwapped,
}

/// Runs until dropped.
pub(crate) struct Device {
    stop: Arc<AtomicBool>,
    done: Arc<Mutex<BTreeMap<u16, Done>>>,
    thread: Option<JoinHandle<()>>,
}

impl Device {
    /// From `from` to `to`, interfaces of the namespace; `judge` is asked for each frame.
    pub(crate) fn start(
        rig: &Rig,
        ns: Ns,
        (from, to): (&std::ffi::CStr, &std::ffi::CStr),
        judge: impl FnMut(&Stamp) -> Fate + Send + 'static,
    ) -> Self {
        let (input, output) = rig.within(ns, || (packet::bound(from, ETHERTYPE_IPV4), packet::socket(to)));
        set_socket_recv_buffer_size_force(&input, 32 << 20).unwrap();
        set_socket_timeout(&input, Timeout::Recv, Some(STOP_LOOK)).unwrap();
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<Mutex<BTreeMap<u16, Done>>>::default());
        let (of_thread, counts) = (stop.clone(), done.clone());
        let thread = std::thread::spawn(move || {
            Bridge { output, judge, counts, held: None }.run(input, &of_thread);
        });
        Self { stop, done, thread: Some(thread) }
    }

    /// Of all trials that had more frames than `learning` ones have.
    pub(crate) fn done(&self, learning: u64) -> Done {
        let all = self.done.lock().unwrap();
        all.values().filter(|done| done.taken > learning).fold(Done::default(), |sum, done| Done {
            taken: sum.taken + done.taken,
            lost: sum.lost + done.lost,
            copied: sum.copied + done.copied,
            spoilt: sum.spoilt + done.spoilt,
            swapped: sum.swapped + done.swapped,
        })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Bridge<J> {
    output: File,
    judge: J,
    counts: Arc<Mutex<BTreeMap<u16, Done>>>,
    /// A frame of this trial that waits for the next one.
    held: Option<(u16, Vec<u8>)>,
}

impl<J: FnMut(&Stamp) -> Fate> Bridge<J> {
    fn run(mut self, mut input: File, stop: &AtomicBool) {
        let mut buffer = vec![0; 2048];
        while !stop.load(Ordering::SeqCst) {
            // A timeout is the time to look whether to stop.
            let Ok(length) = input.read(&mut buffer) else { continue };
            let frame = &mut buffer[..length];
            // UDP alone: ARP has another EtherType, and nothing else travels here.
            if length >= HEADERS_BYTES + 18 && frame[23] == 17 {
                self.take(frame);
            }
        }
    }

    fn take(&mut self, frame: &mut [u8]) {
        let stamp = &frame[HEADERS_BYTES..];
        let trial = u16::from_be_bytes([stamp[4], stamp[5]]);
        let number = u32::from_be_bytes(stamp[6..10].try_into().unwrap());
        let at_ns = u64::from_be_bytes(stamp[10..18].try_into().unwrap());
        let fate = (self.judge)(&Stamp { number, at_ns });
        let counts = self.counts.clone();
        let mut counts = counts.lock().unwrap();
        counts.entry(trial).or_default().taken += 1;
        let held = self.held.take();
        match fate {
            Fate::Passes => self.send(frame),
            Fate::IsLost => counts.entry(trial).or_default().lost += 1,
            Fate::IsCopied => {
                self.send(frame);
                self.send(frame);
                counts.entry(trial).or_default().copied += 1;
            }
            Fate::IsSpoilt => {
                frame[HEADERS_BYTES + 9] ^= 1;
                self.send(frame);
                counts.entry(trial).or_default().spoilt += 1;
            }
            Fate::IsSwapped => self.held = Some((trial, frame.to_vec())),
        }
        if let Some((of_trial, frame)) = held {
            let done = counts.entry(of_trial).or_default();
            // Behind the last frame of its trial, or behind one that isn't counted, it wouldn't be out of order.
            if of_trial == trial && fate == Fate::Passes {
                self.send(&frame);
                done.swapped += 1;
            } else {
                done.lost += 1;
            }
        }
    }

    fn send(&mut self, frame: &[u8]) {
        // The queue of a veth may be full for a moment.
        while let Err(error) = self.output.write_all(frame) {
            assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "{error}");
            std::thread::yield_now();
        }
    }
}
