//! One queue's UMEM and socket: created, bound as high on the ladder as it goes, read back.

use crate::{
    Config, OpenError, Step, ZeroCopy,
    attach::{Hook, chain},
    genl,
    preflight::{self, Nic},
    quirks::{self, Asked},
    rings::{Parts, Rings},
    sys,
};
use port::{Frame, Region};
use std::{
    error::Error,
    io,
    num::NonZeroU32,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
    str::FromStr,
    thread,
    time::{Duration, Instant},
};
use xsk_rs::{
    FrameDesc, Socket, Umem,
    config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig},
};

/// How long a busy queue or a link that resets is waited for. Attaching XDP can take a real NIC's link down for
/// seconds, and a socket that closed just now holds its queue for some milliseconds more.
const BIND_PATIENCE: Duration = Duration::from_secs(3);
const BIND_RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// Packets that one busy-poll call may take from the NIC; the kernel's default is 8, its documentation uses 64.
const BUSY_POLL_BUDGET: u32 = 64;
/// What the kernel charges a socket for one packet in flight in copy mode, at most: skb, shared info, data.
const SKB_BYTES_MAX: usize = 8192;

/// A bound queue.
pub(crate) struct Bound {
    pub(crate) rings: Rings,
    pub(crate) frames: Vec<Frame>,
    pub(crate) zero_copy: bool,
    pub(crate) steps: Vec<Step>,
}

/// Binds `queue`.
pub(crate) fn bind(
    config: &Config,
    nic: &Nic,
    queue: u32,
    queue_count: usize,
    hook: Hook,
) -> Result<Bound, OpenError> {
    let needed_bytes = config.umem_bytes as u64 * queue_count as u64;
    let mut steps = Vec::new();
    let (umem, descriptors) = umem(config, needed_bytes, &mut steps)?;
    let queues = socket(config, nic, &umem, queue, hook, &mut steps)?;
    let (rings, frames) = assemble(config, umem, descriptors, queues)?;
    let zero_copy =
        sys::is_zero_copy(rings.as_fd()).map_err(|source| system(config, "reading XDP_OPTIONS", source))?;
    if let Some(usec) = config.busy_poll_usec {
        sys::set_busy_poll(rings.as_fd(), usec, BUSY_POLL_BUDGET)
            .map_err(|source| system(config, "turning busy polling on", source))?;
    }
    enlarge_send_buffer(config, &rings);
    Ok(Bound { rings, frames, zero_copy, steps })
}

/// Binds `queue` in copy mode, for a socket that only sends: the driver isn't asked for anything, so nothing that it does
/// changes, and no XDP program is needed.
pub(crate) fn bind_to_send(config: &Config, queue: u32) -> Result<(Rings, Vec<Frame>), OpenError> {
    let (umem, descriptors) = umem(config, config.umem_bytes as u64, &mut Vec::new())?;
    let queues = patiently(config, &umem, queue, BindFlags::XDP_COPY);
    let queues = queues.map_err(|error| refused(config, queue, error))?;
    let (rings, frames) = assemble(config, umem, descriptors, queues)?;
    enlarge_send_buffer(config, &rings);
    Ok((rings, frames))
}

fn assemble(
    config: &Config,
    umem: Umem,
    descriptors: Vec<FrameDesc>,
    (tx, rx, rings): Queues,
) -> Result<(Rings, Vec<Frame>), OpenError> {
    let Some((fill, completion)) = rings else {
        let source = io::Error::other("libxdp returned no fill and completion ring");
        return Err(system(config, "creating the XDP socket", source));
    };
    let frames = frames(config, &umem, &descriptors);
    let chunk_bytes = config.frame_bytes as usize;
    let tx_size = config.ring_size;
    let rings = Rings::new(Parts { fill, rx, tx, completion, umem, descriptors, chunk_bytes, tx_size });
    Ok((rings, frames))
}

/// Too small a send buffer only makes a flush take more calls.
fn enlarge_send_buffer(config: &Config, rings: &Rings) {
    let _ = sys::set_send_buffer(rings.as_fd(), config.ring_size as usize * SKB_BYTES_MAX);
}

fn umem(
    config: &Config,
    needed_bytes: u64,
    steps: &mut Vec<Step>,
) -> Result<(Umem, Vec<FrameDesc>), OpenError> {
    let ring = queue_size(config, config.ring_size)?;
    let fill_ring = queue_size(config, config.ring_size * 2)?;
    let frame_size = FrameSize::new(config.frame_bytes).map_err(|error| other(config, &error))?;
    let umem_config = UmemConfig::builder()
        .frame_size(frame_size)
        .fill_queue_size(fill_ring)
        .comp_queue_size(ring)
        .build()
        .map_err(|error| other(config, &error))?;
    let count = u32::try_from(config.frame_count()).ok().and_then(NonZeroU32::new);
    let count = count.ok_or_else(|| other(config, &io::Error::other("no frame fits into the UMEM")))?;
    preflight::raise_memlock(needed_bytes);
    if config.huge_pages {
        match Umem::new(umem_config, count, true) {
            Ok(made) => return Ok(made),
            Err(error) => steps.push(Step { tried: "huge pages", why: chain(&error) }),
        }
    }
    Umem::new(umem_config, count, false).map_err(|error| {
        let source = io_error(&error);
        match source.raw_os_error() {
            Some(libc::ENOBUFS | libc::ENOMEM) => preflight::memlock_error(needed_bytes, source),
            Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT) => OpenError::NoXdpSockets { source },
            _ => system(config, "creating the UMEM", source),
        }
    })
}

type Queues = (xsk_rs::TxQueue, xsk_rs::RxQueue, Option<(xsk_rs::FillQueue, xsk_rs::CompQueue)>);

/// Zero-copy if wanted and there, else copy.
fn socket(
    config: &Config,
    nic: &Nic,
    umem: &Umem,
    queue: u32,
    hook: Hook,
    steps: &mut Vec<Step>,
) -> Result<Queues, OpenError> {
    if hook == Hook::Native && config.zero_copy != ZeroCopy::Off {
        let is_new = queue >= nic.queue_count;
        let mut why = match is_new.then(|| quirks::new_queues_copy(nic.driver.as_deref())).flatten() {
            Some(why) => why.to_owned(),
            None => match patiently(config, umem, queue, BindFlags::XDP_ZEROCOPY) {
                Ok(queues) => return Ok(queues),
                // A queue that is held stays held in copy mode.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    return Err(refused(config, queue, error));
                }
                Err(error) => zero_copy_refusal(nic, &error),
            },
        };
        if config.zero_copy == ZeroCopy::On {
            if let Some(features) = genl::netdev::xdp_features(nic.index) {
                why = format!("{why}; the driver says that it has: {features}");
            }
            return Err(OpenError::NoZeroCopy { interface: config.interface.clone(), queue, why });
        }
        steps.push(Step { tried: "zero-copy", why });
    }
    patiently(config, umem, queue, BindFlags::XDP_COPY).map_err(|error| refused(config, queue, error))
}

fn zero_copy_refusal(nic: &Nic, error: &io::Error) -> String {
    let why = match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "the driver has no zero-copy (EOPNOTSUPP)".to_owned(),
        _ => format!("the driver refused it: {error}"),
    };
    match quirks::advice(nic.driver.as_deref(), Asked::ZeroCopy, error.raw_os_error()) {
        Some(advice) => format!("{why}; {advice}"),
        None => why,
    }
}

/// Binds; waits, within bounds, for a queue that is held or a link that resets.
fn patiently(config: &Config, umem: &Umem, queue: u32, copy: BindFlags) -> io::Result<Queues> {
    let began = Instant::now();
    loop {
        match once(config, umem, queue, copy) {
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENETDOWN | libc::EAGAIN))
                    && began.elapsed() < BIND_PATIENCE =>
            {
                thread::sleep(BIND_RETRY_INTERVAL);
            }
            result => return result,
        }
    }
}

fn once(config: &Config, umem: &Umem, queue: u32, copy: BindFlags) -> io::Result<Queues> {
    let ring = QueueSize::new(config.ring_size).map_err(io::Error::other)?;
    let socket_config = SocketConfig::builder()
        .rx_queue_size(ring)
        .tx_queue_size(ring)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(copy | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    let interface = Interface::from_str(&config.interface).map_err(io::Error::other)?;
    // SAFETY: the UMEM is used for this one socket, and INHIBIT_PROG_LOAD is set in any case.
    unsafe { Socket::new(socket_config, umem, &interface, queue) }.map_err(|error| io_error(&error))
}

fn refused(config: &Config, queue: u32, error: io::Error) -> OpenError {
    match error.raw_os_error() {
        Some(libc::EBUSY) => OpenError::QueueBusy {
            interface: config.interface.clone(),
            queue,
            waited_ms: BIND_PATIENCE.as_millis() as u64,
        },
        _ => system(config, "binding the XDP socket", error),
    }
}

/// A socket that is bound to see whether it can be.
pub(crate) struct TrialSocket {
    queues: Queues,
    // After the socket, which uses it.
    _umem: Umem,
}

impl TrialSocket {
    /// Once, without waiting for a queue that is held.
    pub(crate) fn bind(config: &Config, queue: u32, zero_copy: bool) -> Result<io::Result<Self>, OpenError> {
        let (umem, _) = umem(config, config.umem_bytes as u64, &mut Vec::new())?;
        let flags = if zero_copy { BindFlags::XDP_ZEROCOPY } else { BindFlags::XDP_COPY };
        Ok(once(config, &umem, queue, flags).map(|queues| Self { queues, _umem: umem }))
    }

    pub(crate) fn is_zero_copy(&self) -> io::Result<bool> {
        let (_, rx, _) = &self.queues;
        // SAFETY: the socket is open for as long as its queues live, and they live in `self`.
        sys::is_zero_copy(unsafe { BorrowedFd::borrow_raw(rx.fd().as_raw_fd()) })
    }
}

/// The owned frames of all chunks.
fn frames(config: &Config, umem: &Umem, descriptors: &[FrameDesc]) -> Vec<Frame> {
    let Some(first) = descriptors.first() else { return Vec::new() };
    // SAFETY: the descriptor is of this UMEM; the slice is empty and dropped at once.
    let data = unsafe { umem.data(first) };
    // The slice's own provenance ends with it. The mapping came from mmap inside xsk-rs, which no Rust allocation
    // overlaps, so a pointer made from its address may reach all of it.
    let base = data.contents().as_ptr().expose_provenance() - first.addr();
    let base = NonNull::new(ptr::with_exposed_provenance_mut::<u8>(base));
    let Some(base) = base else { return Vec::new() };
    let (chunk_bytes, owner) = (config.frame_bytes as usize, Box::new(umem.clone()));
    // SAFETY: the mapping begins at `base` (the first chunk's address less its offset), holds one chunk for each
    // descriptor, and lives until the clone of the UMEM is dropped. xsk-rs gives bytes out only by the descriptors,
    // which `Rings` keeps to itself.
    unsafe { Region::from_raw(base, chunk_bytes, descriptors.len(), owner) }
}

fn queue_size(config: &Config, size: u32) -> Result<QueueSize, OpenError> {
    QueueSize::new(size).map_err(|error| other(config, &error))
}

/// The operating system's part of an xsk-rs error.
fn io_error(error: &(dyn Error + 'static)) -> io::Error {
    let inner = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match inner.and_then(io::Error::raw_os_error) {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(chain(error)),
    }
}

fn other(config: &Config, error: &(dyn Error + 'static)) -> OpenError {
    system(config, "configuring the XDP socket", io::Error::other(chain(error)))
}

fn system(config: &Config, doing: &'static str, source: io::Error) -> OpenError {
    OpenError::System { doing, interface: config.interface.clone(), source }
}
