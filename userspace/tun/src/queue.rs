//! One queue of a TUN device: what one worker reads and writes.

use crate::network::queue_full;
use bytes::Bytes;
use ip::{Coalescer, InnerPort, InnerSink, Vnet, vnet::VNET_BYTES};
use rustix::io::Errno;
use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Instant,
};

/// A vnet header and the longest IP packet.
const READ_BYTES_MAX: usize = VNET_BYTES + 65_535;
/// Packets taken in one call of [`Queue::receive`]: up to 4 MiB, so that the other work of a worker gets its turn.
const READS_MAX: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Queue {
    fd: OwnedFd,
    name: String,
    buffer: Box<[u8]>,
    coalescer: Coalescer,
    counters: Counters,
    /// The device, at the one of its queues that tells what the kernel counts of it.
    device: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    reads: u64,
    read_bytes: u64,
    read_malformed: u64,
    writes: u64,
    write_bytes: u64,
    write_packets: u64,
    write_dropped: u64,
}

impl Queue {
    pub(crate) fn new(fd: OwnedFd, name: &str, takes_udp: bool) -> Self {
        Self {
            fd,
            name: name.to_owned(),
            buffer: vec![0; READ_BYTES_MAX].into_boxed_slice(),
            coalescer: Coalescer::new(takes_udp),
            counters: Counters::default(),
            device: None,
        }
    }

    /// Has this queue tell what is counted of the whole device.
    pub(crate) fn speak_for(&mut self, device: u32) {
        self.device = Some(device);
    }

    /// One packet for the sink; false if none waits.
    fn read(&mut self, sink: &mut dyn InnerSink) -> io::Result<bool> {
        let length = match rustix::io::read(&self.fd, &mut self.buffer[..]) {
            Ok(length) => length,
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::INTR) => return Ok(true),
            Err(errno) => return Err(gone(&self.name, errno)),
        };
        self.counters.reads += 1;
        self.counters.read_bytes += length as u64;
        let packet = self.buffer.get(..length).and_then(|read| read.split_first_chunk::<VNET_BYTES>());
        match packet.and_then(|(vnet, packet)| Some((Vnet::read(vnet)?, packet))) {
            Some((vnet, packet)) => sink.packet(vnet, packet),
            None => self.counters.read_malformed += 1,
        }
        Ok(true)
    }
}

/// Why a device can't be read. EBADFD: it was deleted.
fn gone(name: &str, errno: Errno) -> io::Error {
    let error = io::Error::from(errno);
    let text = format!(
        "the TUN device {name} is gone ({error}): somebody deleted it. Start beam again, which makes it"
    );
    io::Error::new(error.kind(), text)
}

impl InnerPort for Queue {
    fn receive(&mut self, _now: Instant, sink: &mut dyn InnerSink) -> io::Result<bool> {
        for _ in 0..READS_MAX {
            if !sink.wants_more() {
                return Ok(false);
            }
            if !self.read(sink)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn send(&mut self, packet: Bytes) {
        let Self { fd, coalescer, counters, .. } = self;
        coalescer.push(packet, &mut |vnet, first, rest| write(fd.as_fd(), counters, vnet, first, rest));
    }

    fn flush(&mut self, _now: Instant) -> io::Result<()> {
        let Self { fd, coalescer, counters, .. } = self;
        coalescer.flush(&mut |vnet, first, rest| write(fd.as_fd(), counters, vnet, first, rest));
        Ok(())
    }

    fn poll_fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.fd.as_fd()]
    }

    fn is_behind_router(&self) -> bool {
        true
    }

    fn counters(&self, each: &mut dyn FnMut(&'static str, u64)) {
        let Counters { reads, read_bytes, writes, write_bytes, write_packets, .. } = self.counters;
        each("tun_reads", reads);
        each("tun_read_bytes", read_bytes);
        each("tun_writes", writes);
        each("tun_write_bytes", write_bytes);
        each("tun_write_packets", write_packets);
    }

    fn drops(&self, each: &mut dyn FnMut(&'static str, u64)) {
        each("tun_read_malformed", self.counters.read_malformed);
        each("tun_write_dropped", self.counters.write_dropped);
        if let Some(device) = self.device {
            each("tun_queue_full", queue_full(device));
        }
    }
}

/// Parts of one write: the vnet header, the headers, the payloads.
const PARTS_MAX: usize = 2 + ip::coalesce::SEGMENTS_MAX;

/// Gives the kernel one packet or super-packet. What it doesn't take is dropped: it queues what it can itself.
fn write(fd: BorrowedFd<'_>, counters: &mut Counters, vnet: Vnet, first: &[u8], rest: &[Bytes]) {
    let header = vnet.write();
    let mut parts = [IoSlice::new(&[]); PARTS_MAX];
    let filled = [&header[..], first].into_iter().chain(rest.iter().map(|part| &part[..]));
    let mut count = 0;
    for (part, bytes) in parts.iter_mut().zip(filled) {
        *part = IoSlice::new(bytes);
        count += 1;
    }
    loop {
        match rustix::io::writev(fd, parts.get(..count).unwrap_or_default()) {
            Ok(length) => {
                counters.writes += 1;
                counters.write_packets += rest.len() as u64;
                counters.write_bytes += length as u64;
                return;
            }
            Err(Errno::INTR) => {}
            Err(errno) => {
                tracing::debug!(%errno, "the TUN device didn't take a packet");
                counters.write_dropped += rest.len() as u64;
                return;
            }
        }
    }
}
