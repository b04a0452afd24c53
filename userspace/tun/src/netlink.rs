//! A route netlink socket that asks for something to be done and waits for the kernel's yes or no. Used at start and when
//! a session begins, ends or changes its MTU: each call is some tens of microseconds.

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
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
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
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
    fn answer(&mut self) -> io::Result<Option<io::Result<()>>> {
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
                None => Ok(()),
                Some(code) => Err(io::Error::from_raw_os_error(code.get().wrapping_abs())),
            }),
            _ => None,
        })
    }
}
