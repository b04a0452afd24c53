//! Generic netlink, as far as it is needed here: what a driver says about XDP (family `netdev`), and news about the
//! settings that ethtool changes (family `ethtool`). Used at set-up and by the mirror's control thread, never by a
//! worker.

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

/// Answers here are far below a page.
const BUFFER_BYTES: usize = 16 << 10;
const NETLINK_HEADER_BYTES: usize = 16;
/// Netlink header and `struct genlmsghdr`.
const HEADER_BYTES: usize = NETLINK_HEADER_BYTES + 4;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// Of an attribute's type: NLA_F_NESTED and NLA_F_NET_BYTEORDER aren't part of its number.
const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;

/// A family as the kernel numbered it at its start.
struct Family {
    id: u16,
    /// Multicast groups by name.
    groups: Vec<(Vec<u8>, u32)>,
}

/// A socket for questions with one answer.
struct Questions {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Questions {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, buffer: Vec::with_capacity(BUFFER_BYTES) })
    }

    /// The attributes of the answer.
    fn ask(&mut self, family: u16, command: u8, attribute: u16, value: &[u8]) -> io::Result<&[u8]> {
        self.socket.send(&question(family, command, attribute, value), 0)?;
        self.buffer.clear();
        self.socket.recv(&mut self.buffer, 0)?;
        answer(&self.buffer)
    }

    fn family(&mut self, name: &str) -> io::Result<Family> {
        // linux/genetlink.h: GENL_ID_CTRL, CTRL_CMD_GETFAMILY and the attributes of its answer.
        const CONTROL: u16 = 16;
        const GET_FAMILY: u8 = 3;
        const FAMILY_ID: u16 = 1;
        const FAMILY_NAME: u16 = 2;
        const GROUPS: u16 = 7;
        const GROUP_NAME: u16 = 1;
        const GROUP_ID: u16 = 2;
        let mut name = name.as_bytes().to_vec();
        name.push(0);
        let answer = self.ask(CONTROL, GET_FAMILY, FAMILY_NAME, &name)?;
        let mut family = Family { id: 0, groups: Vec::new() };
        for (number, value) in attributes(answer) {
            match number {
                FAMILY_ID => family.id = u16::from_ne_bytes(exactly(value)?),
                GROUPS => {
                    for (_, group) in attributes(value) {
                        let (mut name, mut id) = (Vec::new(), 0);
                        for (number, value) in attributes(group) {
                            match number {
                                GROUP_NAME => name = value.strip_suffix(&[0]).unwrap_or(value).to_vec(),
                                GROUP_ID => id = u32::from_ne_bytes(exactly(value)?),
                                _ => {}
                            }
                        }
                        family.groups.push((name, id));
                    }
                }
                _ => {}
            }
        }
        Ok(family)
    }
}

/// What a driver says it can do with XDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct XdpFeatures(u64);

impl XdpFeatures {
    /// Bits of `enum netdev_xdp_act` (linux/netdev.h), by their names there.
    const NAMES: [(u64, &str); 7] = [
        (1, "basic"),
        (1 << 1, "redirect"),
        (1 << 2, "ndo-xmit"),
        (1 << 3, "xsk-zerocopy"),
        (1 << 4, "hw-offload"),
        (1 << 5, "rx-sg"),
        (1 << 6, "ndo-xmit-sg"),
    ];

    /// For people; `none` where it claims nothing.
    pub(crate) fn names(self) -> String {
        let names: Vec<&str> =
            Self::NAMES.iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, name)| *name).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

/// Asks for them; `None` where the kernel doesn't tell (before 6.3).
pub(crate) fn xdp_features(interface: u32) -> Option<XdpFeatures> {
    // linux/netdev.h
    const DEV_GET: u8 = 1;
    const IFINDEX: u16 = 1;
    const XDP_FEATURES: u16 = 3;
    let mut questions = Questions::open().ok()?;
    let family = questions.family("netdev").ok()?;
    let answer = questions.ask(family.id, DEV_GET, IFINDEX, &interface.to_ne_bytes()).ok()?;
    let (_, value) = attributes(answer).find(|&(number, _)| number == XDP_FEATURES)?;
    exactly(value).ok().map(|bytes| XdpFeatures(u64::from_ne_bytes(bytes)))
}

/// Hears when anybody changes an interface's settings by ethtool: rtnetlink says nothing of a change of the channels.
pub(crate) struct SettingsEvents {
    socket: Socket,
    buffer: Vec<u8>,
}

impl SettingsEvents {
    /// In the network namespace of the calling thread. Fails where the kernel has no ethtool netlink.
    pub(crate) fn open() -> io::Result<Self> {
        let family = Questions::open()?.family("ethtool")?;
        let monitor = family.groups.iter().find(|(name, _)| name == b"monitor");
        let &(_, group) = monitor.ok_or_else(|| io::Error::other("ethtool netlink has no group monitor"))?;
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.add_membership(group)?;
        Ok(Self { socket, buffer: Vec::with_capacity(BUFFER_BYTES) })
    }

    /// Takes all events. True if there were any; which ones doesn't matter, for they are rare and what they are about
    /// is read anew.
    pub(crate) fn drain(&mut self) -> io::Result<bool> {
        let mut any = false;
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(_) => any = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(any),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Events were lost: so there were some.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => any = true,
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for SettingsEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }
}

/// A request with one attribute.
fn question(family: u16, command: u8, attribute: u16, value: &[u8]) -> Vec<u8> {
    const REQUEST: u16 = 1;
    const VERSION: u8 = 1;
    let attribute_bytes = ATTRIBUTE_HEADER_BYTES + value.len();
    let length = HEADER_BYTES + attribute_bytes.next_multiple_of(4);
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u32).to_ne_bytes());
    bytes.extend(family.to_ne_bytes());
    bytes.extend(REQUEST.to_ne_bytes());
    // Sequence number and port: one question at a time, and the kernel knows who asks.
    bytes.extend([0; 8]);
    bytes.extend([command, VERSION, 0, 0]);
    bytes.extend((attribute_bytes as u16).to_ne_bytes());
    bytes.extend(attribute.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length, 0);
    bytes
}

/// The attributes of a datagram's first message, or the error that it is.
fn answer(datagram: &[u8]) -> io::Result<&[u8]> {
    const ERROR: u16 = 2;
    let (length, kind) = match datagram {
        &[a, b, c, d, e, f, ..] => (u32::from_ne_bytes([a, b, c, d]) as usize, u16::from_ne_bytes([e, f])),
        _ => return Err(io::ErrorKind::UnexpectedEof.into()),
    };
    let message = datagram.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?;
    if kind == ERROR {
        let code = message.get(NETLINK_HEADER_BYTES..NETLINK_HEADER_BYTES + 4).unwrap_or_default();
        return Err(io::Error::from_raw_os_error(i32::from_ne_bytes(exactly(code)?).wrapping_abs()));
    }
    message.get(HEADER_BYTES..).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Numbers and values of attributes, until the bytes end or make no sense.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let &[a, b, c, d, ..] = bytes else { return None };
        let (length, number) = (usize::from(u16::from_ne_bytes([a, b])), u16::from_ne_bytes([c, d]));
        let value = bytes.get(ATTRIBUTE_HEADER_BYTES..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((number & ATTRIBUTE_TYPE_MASK, value))
    })
}

fn exactly<const N: usize>(value: &[u8]) -> io::Result<[u8; N]> {
    value.try_into().map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    //! Goal: what this kernel answers is understood, and what makes no sense ends the reading instead of a panic.
    use super::*;

    #[test]
    fn the_kernel_knows_ethtools_monitor_group() {
        let family = Questions::open().unwrap().family("ethtool").unwrap();
        assert!(family.id > 16);
        assert!(family.groups.iter().any(|(name, id)| name == b"monitor" && *id > 0), "{:?}", family.groups);
        assert!(!SettingsEvents::open().unwrap().drain().unwrap());
    }

    #[test]
    fn unknown_families_and_interfaces_are_refused() {
        let error = Questions::open().unwrap().family("beam-no-such").map(|family| family.id).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        assert_eq!(xdp_features(u32::MAX >> 1), None);
    }

    #[test]
    fn garbage_is_refused() {
        for length in 0..64 {
            for byte in [0, 1, 2, 7, 0xff] {
                let bytes = vec![byte; length];
                let _ = answer(&bytes).map(|bytes| attributes(bytes).count());
                assert!(attributes(&bytes).count() <= length / 4);
            }
        }
    }

    #[test]
    fn features_have_names() {
        assert_eq!(XdpFeatures(0).names(), "none");
        assert_eq!(XdpFeatures(0b1011).names(), "basic, redirect, xsk-zerocopy");
    }
}
