//! Two kinds of route netlink socket: [`Requests`] asks and waits for the answer, [`Events`] listens and never blocks.
//! Used by preflight (at start) and by the mirror's control thread; never by a worker.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

/// The kernel fills at most 32 KiB per dump datagram; one event is far smaller.
const BUFFER_BYTES: usize = 64 << 10;
/// Room for a burst of events while the control thread is busy with a dump.
const EVENT_QUEUE_BYTES: usize = 4 << 20;
/// A dump that changed under us is asked for again so many times, then taken as it is.
const DUMP_RETRY_COUNT: usize = 5;

/// rtnetlink multicast groups (linux/rtnetlink.h): links, neighbours, addresses, routes, rules.
const GROUPS: [u32; 8] = [1, 3, 5, 7, 8, 9, 11, 19];

/// A socket for questions. One at a time.
pub(crate) struct Requests {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Requests {
    /// In the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(BUFFER_BYTES) })
    }

    /// Asks for a whole table. A dump that the kernel marks as inconsistent is taken again.
    pub(crate) fn dump(&mut self, question: &RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut answer = Vec::new();
        for _ in 0..DUMP_RETRY_COUNT {
            answer.clear();
            if self.dump_once(question, &mut answer)? {
                break;
            }
        }
        Ok(answer)
    }

    /// Asks a question that has one answer.
    pub(crate) fn get(&mut self, question: RouteNetlinkMessage) -> io::Result<RouteNetlinkMessage> {
        self.ask(question, NLM_F_REQUEST)?;
        loop {
            self.receive()?;
            for message in messages(&self.buffer) {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => return Ok(inner),
                    NetlinkPayload::Error(error) => {
                        let errno = error.code.map_or(0, |code| code.get().wrapping_abs());
                        return Err(io::Error::from_raw_os_error(errno));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Asks for something to be done and waits for the kernel's yes or no.
    pub(crate) fn act(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.ask(request, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        let sequence = self.sequence;
        loop {
            self.receive()?;
            for message in messages(&self.buffer) {
                if message.header.sequence_number != sequence {
                    continue;
                }
                if let NetlinkPayload::Error(error) = message.payload {
                    return match error.code {
                        None => Ok(()),
                        Some(code) => Err(io::Error::from_raw_os_error(code.get().wrapping_abs())),
                    };
                }
            }
        }
    }

    /// False: the table changed meanwhile.
    fn dump_once(
        &mut self,
        question: &RouteNetlinkMessage,
        answer: &mut Vec<RouteNetlinkMessage>,
    ) -> io::Result<bool> {
        const NLM_F_DUMP_INTR: u16 = 16;
        self.ask(question.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut consistent = true;
        loop {
            self.receive()?;
            for message in messages(&self.buffer) {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                consistent &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(consistent),
                    NetlinkPayload::Error(error) => {
                        let errno = error.code.map_or(0, |code| code.get().wrapping_abs());
                        return Err(io::Error::from_raw_os_error(errno));
                    }
                    NetlinkPayload::InnerMessage(inner) => answer.push(inner),
                    _ => {}
                }
            }
        }
    }

    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    fn receive(&mut self) -> io::Result<()> {
        self.buffer.clear();
        retry(|| self.socket.recv(&mut self.buffer, 0)).map(drop)
    }
}

/// What [`Events::drain`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// No event waits.
    All,
    /// The kernel had to drop events: everything must be asked for anew.
    Overrun,
}

/// A socket that hears about every change.
pub(crate) struct Events {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Events {
    /// In the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        // A smaller queue only makes overruns, which are handled, more frequent.
        let _ = socket.set_rx_buf_sz(EVENT_QUEUE_BYTES);
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        Ok(Self { socket, buffer: Vec::with_capacity(BUFFER_BYTES) })
    }

    /// Hands every waiting event to `each`.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(RouteNetlinkMessage)) -> io::Result<Drained> {
        loop {
            self.buffer.clear();
            match retry(|| self.socket.recv(&mut self.buffer, libc::MSG_DONTWAIT)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Drained::All),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Drained::Overrun),
                Err(error) => return Err(error),
            }
            for message in messages(&self.buffer) {
                if let NetlinkPayload::InnerMessage(inner) = message.payload {
                    each(inner);
                }
            }
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }
}

fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The messages of one datagram. One that the parser doesn't know is skipped: its length says where the next begins.
fn messages(datagram: &[u8]) -> impl Iterator<Item = NetlinkMessage<RouteNetlinkMessage>> + '_ {
    const HEADER_BYTES: usize = 16;
    let mut rest = datagram;
    std::iter::from_fn(move || {
        while rest.len() >= HEADER_BYTES {
            let &[a, b, c, d, ..] = rest else { return None };
            let length = u32::from_ne_bytes([a, b, c, d]) as usize;
            if length < HEADER_BYTES || length > rest.len() {
                return None;
            }
            let (message, _) = rest.split_at(length);
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            match NetlinkMessage::deserialize(message) {
                Ok(message) => return Some(message),
                Err(error) => tracing::debug!(%error, "netlink message skipped"),
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    //! Goal: damaged datagrams end the iteration instead of a panic; the loopback interface is in every link dump.
    use super::*;
    use netlink_packet_route::link::{LinkAttribute, LinkMessage};

    #[test]
    fn garbage_is_skipped() {
        assert_eq!(messages(&[0; 15]).count(), 0);
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(messages(&[0xff; 64]).count(), 0);
        let mut unknown = vec![0; 16];
        unknown[0] = 16;
        unknown[4] = 0xf0;
        assert_eq!(messages(&unknown).count(), 0);
    }

    #[test]
    fn links_are_dumped() {
        let mut requests = Requests::open().unwrap();
        let links = requests.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default())).unwrap();
        let lo = LinkAttribute::IfName("lo".into());
        let found = links.iter().any(
            |message| matches!(message, RouteNetlinkMessage::NewLink(link) if link.attributes.contains(&lo)),
        );
        assert!(found);
    }

    #[test]
    fn refusals_carry_their_errno() {
        let mut link = LinkMessage::default();
        link.header.index = u32::MAX >> 1;
        let error =
            Requests::open().unwrap().act(RouteNetlinkMessage::SetLink(link), 0).unwrap_err().raw_os_error();
        assert!(matches!(error, Some(libc::ENODEV | libc::EPERM)), "{error:?}");
    }
}
