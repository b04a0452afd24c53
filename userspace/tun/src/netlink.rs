//! A route netlink socket that asks for something to be done and waits for the kernel's yes or no, or for a link. Used at
//! start, when a session begins, ends or changes its MTU, and when somebody reads counters: each call is some tens of
//! microseconds.

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{RouteNetlinkMessage, link::LinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;

/// An acknowledgement quotes the request.
const BUFFER_BYTES: usize = 8 << 10;

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

    pub(crate) fn act(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.ask(request, NLM_F_ACK | flags).map(drop)
    }

    /// The link with this index, as the kernel describes it.
    pub(crate) fn link(&mut self, index: u32) -> io::Result<LinkMessage> {
        let mut wanted = LinkMessage::default();
        wanted.header.index = index;
        match self.ask(RouteNetlinkMessage::GetLink(wanted), 0)? {
            Some(RouteNetlinkMessage::NewLink(link)) => Ok(link),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn ask(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<Option<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        loop {
            if let Some(answer) = self.answer()? {
                return answer;
            }
        }
    }

    /// The answer, if it is the one that is waited for.
    fn answer(&mut self) -> io::Result<Option<io::Result<Option<RouteNetlinkMessage>>>> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer, 0) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(error) => return Err(error),
        }
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&self.buffer)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        if message.header.sequence_number != self.sequence {
            return Ok(None);
        }
        Ok(match message.payload {
            NetlinkPayload::Error(error) => Some(match error.code {
                None => Ok(None),
                Some(code) => Err(io::Error::from_raw_os_error(code.get().wrapping_abs())),
            }),
            NetlinkPayload::InnerMessage(message) => Some(Ok(Some(message))),
            _ => None,
        })
    }
}
