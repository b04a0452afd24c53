//! Opening the socket: options, and what to tell the operator when the kernel refuses.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use nix::sys::socket::{setsockopt, sockopt::ReceiveTimestampns};
use quinn_udp::{UdpSockRef, UdpSocketState};
use rustix::{io::Errno, net::sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::address::from_socket;

/// How a [`crate::UdpPort`] is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Lets several workers bind the same address; the kernel spreads flows over them (SO_REUSEPORT).
    pub reuse_port: bool,
    /// `[::]` also receives IPv4.
    pub dual_stack: bool,
    /// Kernel receive buffer wanted, in bytes. Without CAP_NET_ADMIN the kernel gives at most `net.core.rmem_max`.
    pub receive_buffer_bytes: usize,
    /// Kernel send buffer wanted, in bytes. Without CAP_NET_ADMIN the kernel gives at most `net.core.wmem_max`.
    pub send_buffer_bytes: usize,
    /// Frames of 64 KiB that the worker may hold at once. Pages are only touched by datagrams that need them.
    pub frame_count: usize,
    /// Datagrams that `send` is sure to take while the socket takes none.
    pub tx_queue_datagrams: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reuse_port: false,
            dual_stack: true,
            receive_buffer_bytes: 4 << 20,
            send_buffer_bytes: 4 << 20,
            // 256 messages of up to 64 datagrams; 16 MiB of address space.
            frame_count: 256,
            // Four full GSO batches. At 1400 bytes 350 KiB, at worst 16 MiB.
            tx_queue_datagrams: 256,
        }
    }
}

/// Why the socket could not be opened, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another socket has the port.
    #[error(
        "UDP {address} is already in use.\n  who: ss -ulpn 'sport = :{}'\n  then stop that process, or choose another port with --listen",
        address.port()
    )]
    InUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// A port below `net.ipv4.ip_unprivileged_port_start` without the capability.
    #[error(
        "UDP port {} needs CAP_NET_BIND_SERVICE or a lower limit for unprivileged ports.\n  either: setcap cap_net_admin,cap_bpf,cap_net_raw,cap_ipc_lock,cap_net_bind_service+ep $(command -v beam)\n  or:     sysctl -w net.ipv4.ip_unprivileged_port_start={}\n  or choose a port of 1024 or more with --listen",
        address.port(), address.port()
    )]
    Permission {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The IP is on none of this host's interfaces.
    #[error(
        "{} is not an address of this host, so UDP {address} cannot be bound.\n  what it has: ip -brief address\n  or bind every address: --listen :{}",
        address.ip(), address.port()
    )]
    NotLocal {
        /// The address asked for.
        address: SocketAddr,
    },
    /// No IPv6 in this kernel.
    #[error(
        "this host has no IPv6, so UDP {address} cannot be bound.\n  bind IPv4 instead: --listen 0.0.0.0:{}",
        address.port()
    )]
    NoIpv6 {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Anything else, with the step that failed.
    #[error("UDP {address}: {step} failed: {source}")]
    Other {
        /// The address asked for.
        address: SocketAddr,
        /// The step that failed.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl BindError {
    fn classify(address: SocketAddr, step: &'static str, source: io::Error) -> Self {
        match Errno::from_io_error(&source) {
            Some(Errno::ADDRINUSE) => Self::InUse { address },
            Some(Errno::ACCESS | Errno::PERM) if step == "bind" => Self::Permission { address },
            Some(Errno::ADDRNOTAVAIL) => Self::NotLocal { address },
            Some(Errno::AFNOSUPPORT) if address.is_ipv6() => Self::NoIpv6 { address },
            _ => Self::Other { address, step, source },
        }
    }
}

/// The socket, bound, non-blocking, with GRO, packet info, ECN and "don't fragment" on.
pub(crate) fn open(
    address: SocketAddr,
    options: &Options,
) -> Result<(Socket, UdpSocketState, SocketAddr), BindError> {
    let address = from_socket(address);
    let failed = |step| move |source| BindError::classify(address, step, source);
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.cloexec(), Some(Protocol::UDP))
        .map_err(failed("socket"))?;
    if let IpAddr::V6(ip) = address.ip() {
        let only_v6 = !(options.dual_stack && ip.is_unspecified());
        socket.set_only_v6(only_v6).map_err(failed("IPV6_V6ONLY"))?;
    }
    socket.set_reuse_port(options.reuse_port).map_err(failed("SO_REUSEPORT"))?;
    size_buffers(&socket, options).map_err(failed("setting the buffer sizes"))?;
    socket.bind(&address.into()).map_err(failed("bind"))?;
    let state = send_state(&socket).map_err(failed("setting GRO, ECN and packet info"))?;
    let local = socket.local_addr().map_err(failed("getsockname"))?;
    let local = local.as_socket().map(from_socket).unwrap_or(address);
    Ok((socket, state, local))
}

/// quinn-udp's state, less the timestamps that it asks for: nobody here reads them, they make the kernel stamp every
/// packet of the host, and with them the control messages of a GRO batch overflow quinn-udp 0.6.3's 96 bytes (32
/// timestamp + 24 GRO + 32 or 40 packet info + 24 traffic class), so that the last of them, ECN, is lost.
pub(crate) fn send_state(socket: &Socket) -> io::Result<UdpSocketState> {
    let state = UdpSocketState::new(UdpSockRef::from(socket))?;
    setsockopt(socket, ReceiveTimestampns, &false)?;
    Ok(state)
}

/// Asks past the sysctl limits first (CAP_NET_ADMIN), then within them, and says aloud when it got less.
fn size_buffers(socket: &Socket, options: &Options) -> io::Result<()> {
    let (rx, tx) = (options.receive_buffer_bytes, options.send_buffer_bytes);
    sockopt::set_socket_recv_buffer_size_force(socket, rx)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(socket, rx))?;
    sockopt::set_socket_send_buffer_size_force(socket, tx)
        .or_else(|_| sockopt::set_socket_send_buffer_size(socket, tx))?;
    // The kernel doubles what it is asked for, to cover its own overhead, and reports the doubled value.
    tell_if_less("receive", "rmem_max", rx, sockopt::socket_recv_buffer_size(socket)? / 2);
    tell_if_less("send", "wmem_max", tx, sockopt::socket_send_buffer_size(socket)? / 2);
    Ok(())
}

fn tell_if_less(side: &str, knob: &str, wanted_bytes: usize, given_bytes: usize) {
    if given_bytes < wanted_bytes {
        tracing::warn!(
            "UDP {side} buffer: wanted {wanted_bytes} bytes, got {given_bytes}; raise it with: \
             sysctl -w net.core.{knob}={wanted_bytes}"
        );
    }
}

#[cfg(test)]
mod tests {
    //! Goal: each refusal of the kernel becomes the message that mends it. Method: the real errno, or a real bind.
    use super::*;

    fn text(address: &str, errno: Errno) -> String {
        BindError::classify(address.parse().unwrap(), "bind", errno.into()).to_string()
    }

    #[test]
    fn messages_name_the_value_and_the_next_command() {
        assert!(text("0.0.0.0:443", Errno::ADDRINUSE).contains("ss -ulpn 'sport = :443'"));
        assert!(text("0.0.0.0:443", Errno::ACCESS).contains("ip_unprivileged_port_start=443"));
        assert!(
            text("192.0.2.7:443", Errno::ADDRNOTAVAIL).contains("192.0.2.7 is not an address of this host")
        );
        assert!(text("[::]:443", Errno::AFNOSUPPORT).contains("--listen 0.0.0.0:443"));
        assert!(text("[::]:443", Errno::NOMEM).contains("bind failed"));
    }

    #[test]
    fn a_taken_port_and_a_foreign_address_are_told_apart() {
        let (_first, _, taken) = open("127.0.0.1:0".parse().unwrap(), &Options::default()).unwrap();
        let error = open(taken, &Options::default()).unwrap_err();
        assert!(matches!(error, BindError::InUse { address } if address == taken));
        let error = open("192.0.2.77:0".parse().unwrap(), &Options::default()).unwrap_err();
        assert!(matches!(error, BindError::NotLocal { .. }));
    }

    #[test]
    fn reuse_port_lets_two_workers_share() {
        let options = Options { reuse_port: true, ..Options::default() };
        let (_first, _, shared) = open("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let (_second, _, again) = open(shared, &options).unwrap();
        assert_eq!(shared, again);
    }
}
