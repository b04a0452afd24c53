//! System calls that no crate here wraps. Each is one `unsafe` block with its reason.

use crate::ethtool::{channels, rx_ring_count};
use std::{
    io,
    mem::size_of,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// Reads an integer-sized socket option.
fn get_option(socket: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<u32> {
    let mut value = 0u32;
    let mut length = size_of::<u32>() as libc::socklen_t;
    let (value_ptr, length_ptr) = ((&raw mut value).cast(), &raw mut length);
    // SAFETY: both pointers are to locals that outlive the call, and `length` says how large `value` is.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, value_ptr, length_ptr) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Sets an integer-sized socket option.
fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: u32) -> io::Result<()> {
    let length = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the pointer is to a local of that length, which outlives the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the kernel says that the socket runs without copies (XDP_OPTIONS).
pub(crate) fn is_zero_copy(socket: BorrowedFd<'_>) -> io::Result<bool> {
    const XDP_OPTIONS: i32 = 8;
    const XDP_OPTIONS_ZEROCOPY: u32 = 1;
    get_option(socket, libc::SOL_XDP, XDP_OPTIONS).map(|flags| flags & XDP_OPTIONS_ZEROCOPY != 0)
}

/// Lets copy mode queue so many bytes of packets inside the kernel.
pub(crate) fn set_send_buffer(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX >> 2).min(u32::MAX >> 2);
    set_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes)
}

/// Lets this socket's own calls drive the NIC.
pub(crate) fn set_busy_poll(socket: BorrowedFd<'_>, usec: u32, budget: u32) -> io::Result<()> {
    const SO_PREFER_BUSY_POLL: i32 = 69;
    const SO_BUSY_POLL_BUDGET: i32 = 70;
    set_option(socket, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, 1)?;
    set_option(socket, libc::SOL_SOCKET, libc::SO_BUSY_POLL, usec)?;
    set_option(socket, libc::SOL_SOCKET, SO_BUSY_POLL_BUDGET, budget)
}

/// The head of struct ethtool_drvinfo, and room for the rest.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// Queues that the NIC receives on now; `None` when its driver can't say.
///
/// ETHTOOL_GCHANNELS where the driver has it (virtio_net, igb, vmxnet3, veth), else ETHTOOL_GRXRINGS; e1000e has neither.
/// Not rtnetlink's IFLA_NUM_RX_QUEUES, which is what was allocated, not what is in use. Not sysfs either: it shows the
/// network namespace that it was mounted in, and of an igb that is down all 8 queues where one is in use (seen on 7.2).
#[must_use]
pub fn rx_queue_count(interface: &str) -> Option<u32> {
    if let Ok(channels) = channels(interface)
        && channels.combined + channels.rx > 0
    {
        return Some(channels.combined + channels.rx);
    }
    rx_ring_count(interface).ok().filter(|&count| count > 0)
}

/// Whether the NIC's channels are for both directions, so that `ethtool -L` wants them as `combined`.
pub(crate) fn has_combined_channels(interface: &str) -> bool {
    channels(interface).is_ok_and(|channels| channels.combined_max > 0)
}

/// Name of the interface's driver; `None` when it has none to tell.
pub(crate) fn driver(interface: &str) -> Option<String> {
    const ETHTOOL_GDRVINFO: u32 = 3;
    let mut info = DriverInfo { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
    ethtool(interface, &mut info).ok()?;
    let name = info.driver.split(|&byte| byte == 0).next()?;
    std::str::from_utf8(name).ok().filter(|name| !name.is_empty()).map(str::to_owned)
}

/// An ethtool command. `T` is the structure of linux/ethtool.h that the command number at its head goes with, or, where
/// that has no fixed size, integers enough for what the kernel writes.
///
/// What the kernel returns; zero of most commands.
pub(crate) fn ethtool<T: ?Sized>(interface: &str, data: &mut T) -> io::Result<i32> {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    let mut request = interface_request(interface)?;
    request.ifr_ifru.ifru_data = (&raw mut *data).cast();
    interface_ioctl(SIOCETHTOOL, &mut request)
}

/// A request about the interface, with nothing but its name.
pub(crate) fn interface_request(interface: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all-zero bytes are a valid ifreq: integers, and pointers that may be null.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.is_empty() || interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// An ioctl about an interface, in the network namespace of the calling thread. `number` is one of those that take an
/// ifreq (netdevice(7)); where that holds a pointer, it is to what the command fills, and alive.
pub(crate) fn interface_ioctl(number: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<i32> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: the request is the structure that the number goes with, and outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), number as _, &raw mut *request) };
    if result >= 0 { Ok(result) } else { Err(io::Error::last_os_error()) }
}

/// Whether something (NTP, PTP) keeps this host's clock: adjtimex(2) tells no STA_UNSYNC. Changes nothing, and anyone may
/// ask.
///
/// # Errors
/// A sandbox forbids the question.
pub fn clock_is_synchronised() -> io::Result<bool> {
    // SAFETY: all-zero bytes are a valid timex: integers.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a local that outlives the call; `modes` is zero, so the kernel only writes to it.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    if state < 0 { Err(io::Error::last_os_error()) } else { Ok(timex.status & libc::STA_UNSYNC == 0) }
}

/// Detaches a bpf_link from its hook, whoever holds it open.
pub(crate) fn detach_bpf_link(link_id: u32) -> io::Result<()> {
    const BPF_LINK_DETACH: libc::c_int = 34;
    let link = open_bpf_link(link_id)?;
    bpf(BPF_LINK_DETACH, link.as_raw_fd() as u32).map(drop)
}

fn open_bpf_link(link_id: u32) -> io::Result<OwnedFd> {
    const BPF_LINK_GET_FD_BY_ID: libc::c_int = 30;
    let fd = bpf(BPF_LINK_GET_FD_BY_ID, link_id)?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel opened the descriptor for this call's result alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Index of the interface that an XDP bpf_link holds its program on; 0 of one that was detached and is still open
/// somewhere.
pub(crate) fn xdp_link_interface(link_id: u32) -> io::Result<u32> {
    /// The head of struct bpf_link_info, with the union's part for XDP.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        program_id: u32,
        padding: u32,
        interface: u32,
        rest: u32,
    }
    /// The attribute of BPF_OBJ_GET_INFO_BY_FD.
    #[repr(C)]
    struct Question {
        fd: u32,
        info_bytes: u32,
        info: u64,
    }
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
    let link = open_bpf_link(link_id)?;
    let mut info = Info::default();
    let question = Question {
        fd: link.as_raw_fd() as u32,
        info_bytes: size_of::<Info>() as u32,
        info: (&raw mut info) as u64,
    };
    let (pointer, length) = (&raw const question, size_of::<Question>());
    // SAFETY: the attribute is a local of the length given, and names a local of the length that it says, which the kernel
    // fills at most; both outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, pointer, length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(info.interface) }
}

/// A bpf(2) command whose only argument is the attribute's first 32-bit field.
fn bpf(command: libc::c_int, argument: u32) -> io::Result<libc::c_long> {
    let attribute = [argument, 0, 0, 0];
    let (pointer, length) = (attribute.as_ptr(), size_of_val(&attribute));
    // SAFETY: the attribute is a local of the length given; these commands only read it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
