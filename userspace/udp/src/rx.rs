//! The receiving half: recvmmsg into free frames.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    sync::Arc,
};

use port::{Drop, Ecn, Frame, Received, Region};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use rustix::io::Errno;
use socket2::Socket;
use wire::Path;

use crate::{Stats, address::from_socket, tx::Count};

/// The largest UDP message, GRO batch or not, is 65,527 bytes: a chunk holds any.
pub(crate) const FRAME_BYTES: usize = 64 << 10;

/// Free frames, last in first out, so that a lightly loaded worker keeps touching the same few pages.
pub(crate) struct Receiver {
    region: Arc<Region>,
    free: Vec<Frame>,
}

/// What one message turned out to be.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Deliver(Path),
    Discard(Drop),
}

impl Receiver {
    pub(crate) fn new(frame_count: usize) -> io::Result<Self> {
        let free = Region::anonymous(FRAME_BYTES, frame_count.max(1))?;
        Ok(Self { region: free[0].region().clone(), free })
    }

    pub(crate) fn free_frames(&self) -> usize {
        self.free.len()
    }

    pub(crate) fn recycle(&mut self, mut frame: Frame, stats: &mut Stats) {
        if !Arc::ptr_eq(frame.region(), &self.region) {
            debug_assert!(false, "a frame of another port came back to this one");
            stats.rx_foreign_frames += 1;
            return;
        }
        frame.set_window(0..FRAME_BYTES);
        self.free.push(frame);
    }

    /// One recvmmsg. Returns how many messages it asked for and how many it got.
    pub(crate) fn receive_once(
        &mut self,
        io: (&Socket, &UdpSocketState),
        bound: SocketAddr,
        burst: &mut Vec<Received>,
        max: usize,
        count: &mut Count<'_>,
    ) -> io::Result<Batch> {
        let asked = max.min(BATCH_SIZE).min(self.free.len());
        if asked == 0 {
            count.stats.rx_no_frame += 1;
            return Ok(Batch { more: false, delivered: 0 });
        }
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        for (slice, frame) in slices.iter_mut().zip(self.free.iter_mut().rev()).take(asked) {
            *slice = IoSliceMut::new(frame);
        }
        count.counters.syscalls += 1;
        let got = match io.1.recv(UdpSockRef::from(io.0), &mut slices[..asked], &mut metas[..asked]) {
            Ok(got) => got,
            Err(error) => return no_message(&error, count.stats).ok_or(error),
        };
        let mut delivered = 0;
        for meta in &metas[..got] {
            delivered += usize::from(self.take(meta, bound, burst, count));
        }
        Ok(Batch { more: got == asked, delivered })
    }

    /// Moves the frame of one message from the free list to the burst, or leaves it free and counts why.
    /// True if it was delivered.
    fn take(
        &mut self,
        meta: &RecvMeta,
        bound: SocketAddr,
        burst: &mut Vec<Received>,
        count: &mut Count<'_>,
    ) -> bool {
        let Count { counters, stats } = count;
        // The n-th message lies in the n-th frame from the top; a discarded one must not shift the next.
        let Some(mut frame) = self.free.pop() else { return false };
        let segment_bytes = meta.stride.max(1);
        let datagrams = meta.len.div_ceil(segment_bytes).max(1) as u64;
        counters.rx_datagrams += datagrams;
        stats.rx_gro_batches += u64::from(datagrams > 1);
        match judge(meta, bound) {
            Verdict::Deliver(path) => {
                frame.set_window(0..meta.len);
                counters.rx_delivered += datagrams;
                counters.rx_bytes += meta.len as u64;
                burst.push(Received {
                    path,
                    ecn: meta.ecn.and_then(|ecn| Ecn::from_bits(ecn as u8)),
                    frame,
                    segment_bytes,
                });
                true
            }
            Verdict::Discard(reason) => {
                counters.drops.add(reason, datagrams);
                self.free.insert(0, frame);
                false
            }
        }
    }
}

/// What one recvmmsg brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// It was full, so the socket may hold more.
    pub(crate) more: bool,
    /// Entries appended to the burst.
    pub(crate) delivered: usize,
}

/// Ours to deliver? No QUIC packet is empty; nobody can be answered at port 0; no connection has a group address.
fn judge(meta: &RecvMeta, bound: SocketAddr) -> Verdict {
    let remote = from_socket(meta.addr);
    if meta.len == 0 || remote.port() == 0 {
        return Verdict::Discard(Drop::RxMalformed);
    }
    if meta.len > FRAME_BYTES {
        return Verdict::Discard(Drop::RxTruncated);
    }
    let sent_to = meta.dst_ip.unwrap_or(bound.ip());
    let local = from_socket(SocketAddr::new(sent_to, bound.port()));
    let broadcast = matches!(local.ip(), std::net::IpAddr::V4(ip) if ip.is_broadcast());
    if local.ip().is_unspecified() || local.ip().is_multicast() || broadcast {
        return Verdict::Discard(Drop::RxNotOurs);
    }
    Verdict::Deliver(Path { local, remote })
}

/// Sorts the errors of recvmmsg: nothing there, transient, or a socket that is broken for good.
/// `None` is the last.
fn no_message(error: &io::Error, stats: &mut Stats) -> Option<Batch> {
    match Errno::from_io_error(error) {
        Some(Errno::BADF | Errno::NOTSOCK | Errno::FAULT) => return None,
        Some(Errno::AGAIN) => {}
        _ => stats.rx_errors += 1,
    }
    Some(Batch { more: false, delivered: 0 })
}

#[cfg(test)]
mod tests {
    //! Goal: what is delivered can be answered, and no error but a dead socket is fatal.
    use super::*;

    fn meta(from: &str, to: Option<&str>, len: usize) -> RecvMeta {
        let mut meta = RecvMeta::default();
        meta.addr = from.parse().unwrap();
        meta.dst_ip = to.map(|ip| ip.parse().unwrap());
        meta.len = len;
        meta.stride = len;
        meta
    }

    #[test]
    fn a_path_names_the_address_that_the_peer_sent_to() {
        let bound = "[::]:443".parse().unwrap();
        let verdict = judge(&meta("[::ffff:192.0.2.9]:5", Some("::ffff:192.0.2.1"), 9), bound);
        let path = Path { local: "192.0.2.1:443".parse().unwrap(), remote: "192.0.2.9:5".parse().unwrap() };
        assert_eq!(verdict, Verdict::Deliver(path));
        let verdict = judge(&meta("192.0.2.9:5", None, 9), "192.0.2.1:443".parse().unwrap());
        assert_eq!(verdict, Verdict::Deliver(path));
    }

    #[test]
    fn what_cannot_be_answered_is_counted() {
        let bound = "0.0.0.0:443".parse().unwrap();
        for (from, to, len, reason) in [
            ("192.0.2.9:5", Some("192.0.2.1"), 0, Drop::RxMalformed),
            ("192.0.2.9:0", Some("192.0.2.1"), 9, Drop::RxMalformed),
            ("192.0.2.9:5", None, 9, Drop::RxNotOurs),
            ("192.0.2.9:5", Some("255.255.255.255"), 9, Drop::RxNotOurs),
            ("192.0.2.9:5", Some("224.0.0.1"), 9, Drop::RxNotOurs),
            ("192.0.2.9:5", Some("192.0.2.1"), FRAME_BYTES + 1, Drop::RxTruncated),
        ] {
            assert_eq!(judge(&meta(from, to, len), bound), Verdict::Discard(reason), "{from} {to:?} {len}");
        }
    }

    #[test]
    fn only_a_dead_socket_is_fatal() {
        let mut stats = Stats::default();
        assert!(no_message(&Errno::BADF.into(), &mut stats).is_none());
        assert!(no_message(&Errno::AGAIN.into(), &mut stats).is_some());
        assert_eq!(stats.rx_errors, 0);
        assert!(no_message(&Errno::CONNREFUSED.into(), &mut stats).is_some());
        assert!(no_message(&Errno::NOMEM.into(), &mut stats).is_some());
        assert_eq!(stats.rx_errors, 2);
    }
}
