//! Generic netlink, as far as it is needed here: questions, dumps and attributes. Who asks what:
//!
//! * [`netdev`]: what a driver says about XDP, its queues and the interrupts that serve them (family `netdev`);
//! * [`ethtool`]: news about the settings that ethtool changes (family `ethtool`).
//!
//! Used at set-up, by the mirror's control thread and by `beam doctor`, never by a worker.

pub(crate) mod ethtool;
pub(crate) mod netdev;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use std::io;

/// The kernel fills at most 32 KiB per dump datagram; a driver's features with their names take about 10.
pub(crate) const BUFFER_BYTES: usize = 64 << 10;
/// Datagrams of one dump: far more than the queues of any NIC need.
const DUMP_DATAGRAMS_MAX: usize = 256;
const NETLINK_HEADER_BYTES: usize = 16;
/// Netlink header and `struct genlmsghdr`.
const HEADER_BYTES: usize = NETLINK_HEADER_BYTES + 4;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// Of an attribute's type: NLA_F_NESTED and NLA_F_NET_BYTEORDER aren't part of its number.
const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;

// linux/netlink.h
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// A family as the kernel numbered it at its start.
pub(crate) struct Family {
    pub(crate) id: u16,
    /// Multicast groups by name.
    pub(crate) groups: Vec<(Vec<u8>, u32)>,
}

/// A socket for questions, one at a time.
pub(crate) struct Questions {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Questions {
    /// In the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, buffer: Vec::with_capacity(BUFFER_BYTES) })
    }

    /// The attributes of the one answer.
    pub(crate) fn ask(
        &mut self,
        family: u16,
        command: u8,
        attribute: u16,
        value: &[u8],
    ) -> io::Result<&[u8]> {
        self.socket.send(&question(family, command, NLM_F_REQUEST, attribute, value), 0)?;
        self.buffer.clear();
        self.socket.recv(&mut self.buffer, 0)?;
        messages(&self.buffer).next().unwrap_or(Err(io::ErrorKind::UnexpectedEof.into())).and_then(
            |message| match message {
                Message::Attributes(bytes) => Ok(bytes),
                Message::Done => Err(io::ErrorKind::UnexpectedEof.into()),
            },
        )
    }

    /// Hands the attributes of each answer to `each`.
    pub(crate) fn dump(
        &mut self,
        family: u16,
        command: u8,
        attribute: u16,
        value: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.socket.send(&question(family, command, NLM_F_REQUEST | NLM_F_DUMP, attribute, value), 0)?;
        for _ in 0..DUMP_DATAGRAMS_MAX {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0)?;
            for message in messages(&self.buffer) {
                match message? {
                    Message::Attributes(bytes) => each(bytes),
                    Message::Done => return Ok(()),
                }
            }
        }
        Err(io::Error::other("the dump doesn't end"))
    }

    pub(crate) fn family(&mut self, name: &str) -> io::Result<Family> {
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

/// A request with one attribute.
fn question(family: u16, command: u8, flags: u16, attribute: u16, value: &[u8]) -> Vec<u8> {
    const VERSION: u8 = 1;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + ATTRIBUTE_HEADER_BYTES + value.len() + 4);
    bytes.extend([0; 4]);
    bytes.extend(family.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence number and port: one question at a time, and the kernel knows who asks.
    bytes.extend([0; 8]);
    bytes.extend([command, VERSION, 0, 0]);
    bytes.extend(encoded(attribute, value));
    let length = bytes.len() as u32;
    bytes.splice(..4, length.to_ne_bytes());
    bytes
}

/// One attribute, padded.
pub(crate) fn encoded(attribute: u16, value: &[u8]) -> Vec<u8> {
    let length = ATTRIBUTE_HEADER_BYTES + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(attribute.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// What a message says.
#[derive(Debug, PartialEq, Eq)]
enum Message<'a> {
    /// An answer's attributes.
    Attributes(&'a [u8]),
    /// The dump is over.
    Done,
}

/// The messages of one datagram. One that makes no sense ends it.
fn messages(datagram: &[u8]) -> impl Iterator<Item = io::Result<Message<'_>>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let &[a, b, c, d, e, f, ..] = rest else { return None };
        let (length, kind) = (u32::from_ne_bytes([a, b, c, d]) as usize, u16::from_ne_bytes([e, f]));
        let message = rest.get(..length).filter(|message| message.len() >= NETLINK_HEADER_BYTES);
        let Some(message) = message else {
            rest = &[];
            return Some(Err(io::ErrorKind::UnexpectedEof.into()));
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(match kind {
            NLMSG_ERROR => Err(refusal(message)),
            NLMSG_DONE => Ok(Message::Done),
            _ => message
                .get(HEADER_BYTES..)
                .map(Message::Attributes)
                .ok_or_else(|| io::ErrorKind::UnexpectedEof.into()),
        })
    })
}

fn refusal(message: &[u8]) -> io::Error {
    let code = message.get(NETLINK_HEADER_BYTES..NETLINK_HEADER_BYTES + 4).unwrap_or_default();
    match exactly(code) {
        Ok(code) => io::Error::from_raw_os_error(i32::from_ne_bytes(code).wrapping_abs()),
        Err(error) => error,
    }
}

/// Numbers and values of attributes, until the bytes end or make no sense.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let &[a, b, c, d, ..] = bytes else { return None };
        let (length, number) = (usize::from(u16::from_ne_bytes([a, b])), u16::from_ne_bytes([c, d]));
        let value = bytes.get(ATTRIBUTE_HEADER_BYTES..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((number & ATTRIBUTE_TYPE_MASK, value))
    })
}

pub(crate) fn exactly<const N: usize>(value: &[u8]) -> io::Result<[u8; N]> {
    value.try_into().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// A 32-bit attribute; `None` where it has another size.
pub(crate) fn number(value: &[u8]) -> Option<u32> {
    exactly(value).ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    //! Goal: what this kernel answers is understood, and what makes no sense ends the reading instead of a panic.
    use super::*;

    #[test]
    fn unknown_families_are_refused() {
        let error = Questions::open().unwrap().family("beam-no-such").map(|family| family.id).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn garbage_is_refused() {
        for length in 0..64 {
            for byte in [0, 1, 2, 7, 0xff] {
                let bytes = vec![byte; length];
                for message in messages(&bytes) {
                    if let Ok(Message::Attributes(bytes)) = message {
                        assert!(attributes(bytes).count() <= length / 4);
                    }
                }
                assert!(attributes(&bytes).count() <= length / 4);
            }
        }
    }

    #[test]
    fn questions_and_answers_have_the_same_form() {
        let bytes = question(0x21, 10, NLM_F_REQUEST | NLM_F_DUMP, 2, b"abcde");
        let read: Vec<_> = messages(&bytes).map(Result::unwrap).collect();
        let [Message::Attributes(inside)] = read.as_slice() else { panic!("{read:?}") };
        assert_eq!(attributes(inside).collect::<Vec<_>>(), [(2, b"abcde".as_slice())]);
        let mut done = bytes.clone();
        done[4] = 3;
        done[5] = 0;
        assert_eq!(messages(&[bytes, done].concat()).last().unwrap().unwrap(), Message::Done);
    }
}
