//! The sockets of a listener.

use crate::privileges::broker;
use masque::listen::{Bind, ListenTarget, Transport};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};
use udp::DatagramSocket;

/// Connections that the kernel keeps while the worker is busy.
const BACKLOG: i32 = 128;
/// Ports tried where the gateway may pick: one that is free in IPv4 may be taken in IPv6.
const PICKS_MAX: usize = 16;

/// A socket that somebody may come to. A clone is the same socket.
#[derive(Clone)]
pub(super) enum Door {
    Tcp(Arc<Socket>),
    Udp(Arc<DatagramSocket>),
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
        }
    }
}

impl Door {
    fn open(transport: Transport, address: SocketAddr) -> io::Result<Self> {
        match Self::bind(transport, address) {
            // A port below 1024: workers have no right to one.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                broker::ask(move || Self::bind(transport, address)).unwrap_or(Err(error))
            }
            other => other,
        }
    }

    fn bind(transport: Transport, address: SocketAddr) -> io::Result<Self> {
        match transport {
            Transport::Tcp => listen(address).map(|socket| Self::Tcp(Arc::new(socket))),
            Transport::Udp => DatagramSocket::bound(address).map(|socket| Self::Udp(Arc::new(socket))),
        }
    }

    fn port(&self) -> io::Result<u16> {
        match self {
            Self::Tcp(socket) => {
                let local = socket.local_addr()?.as_socket();
                Ok(local.ok_or(io::ErrorKind::AddrNotAvailable)?.port())
            }
            Self::Udp(socket) => Ok(socket.local().port()),
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Else connections of the last listener that linger in TIME_WAIT would keep the port.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// The addresses that are bound, the one that must be first.
pub(super) fn addresses(bind: Bind) -> Vec<IpAddr> {
    match bind {
        Bind::Any => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        Bind::Loopback => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        Bind::Address(address) => vec![address],
    }
}

/// Opens all sockets of a target, on one port.
pub(super) fn open(target: &ListenTarget) -> io::Result<(Vec<Door>, u16)> {
    let mut picks = 0;
    loop {
        picks += 1;
        match open_once(target) {
            Err(error) if target.port == 0 && is_taken(&error) && picks < PICKS_MAX => {}
            result => return result,
        }
    }
}

fn open_once(target: &ListenTarget) -> io::Result<(Vec<Door>, u16)> {
    let mut doors = Vec::new();
    let mut port = target.port;
    for address in addresses(target.bind) {
        match Door::open(target.transport, SocketAddr::new(address, port)) {
            Ok(door) => {
                port = door.port()?;
                doors.push(door);
            }
            // A host without IPv6.
            Err(error) if !doors.is_empty() && lacks_family(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok((doors, port))
}

pub(super) fn is_taken(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::ADDRINUSE)
}

fn lacks_family(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

#[cfg(test)]
mod tests {
    //! Goal: one port for all addresses of a target; a taken one is told as such.
    use super::*;

    #[test]
    fn both_families_share_a_port_and_a_taken_one_is_told() {
        for transport in [Transport::Tcp, Transport::Udp] {
            let any_port = ListenTarget { transport, bind: Bind::Loopback, port: 0 };
            let (doors, port) = open(&any_port).unwrap();
            assert!(port != 0 && doors.iter().all(|door| door.port().unwrap() == port));
            let error = open(&ListenTarget { port, ..any_port }).err().unwrap();
            assert!(is_taken(&error), "{error}");
        }
    }
}
