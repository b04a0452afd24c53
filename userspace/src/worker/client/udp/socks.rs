//! SOCKS5 UDP ASSOCIATE (RFC 1928 section 7): a relay socket that lives as long as the TCP connection that asked for it.

use super::{Client, Relay, Use};
use crate::{
    socks::Reply,
    worker::{
        core::{Core, End},
        flows::Phase,
        poll::FlowKey,
        udp::Gone,
    },
};
use std::{
    io::{self, Read as _, Write as _},
    net::SocketAddr,
};
use udp::DatagramSocket;

impl Client {
    /// Opens a relay for a SOCKS client, and tells it where.
    pub(in crate::worker::client) fn associate(&mut self, core: &mut Core, key: FlowKey, port: Option<u16>) {
        match self.open_relay(core, key, port) {
            Ok(bytes) => {
                let Some(flow) = core.flows.get_mut(key) else { return };
                if !matches!((&flow.socket).write(&bytes), Ok(written) if written == bytes.len()) {
                    return self.end_association(core, key);
                }
                core.flows.set_deadline(key, None);
                self.watch_association(core, key);
            }
            Err(error) => {
                tracing::warn!("no UDP socket for a SOCKS client: {error}; see `ulimit -n`");
                core.totals.socks_refused += 1;
                if let Some(flow) = core.flows.get_mut(key) {
                    let _ = (&flow.socket).write(&Reply::GeneralFailure.bytes());
                }
                // An orderly end, so that the reply is not overtaken by a reset.
                self.forget(core, key, End::Orderly, "");
            }
        }
    }

    /// On the address that the client has reached us by; the bytes of the reply.
    fn open_relay(&mut self, core: &mut Core, key: FlowKey, port: Option<u16>) -> io::Result<Vec<u8>> {
        let Some(flow) = core.flows.get_mut(key) else { return Err(io::ErrorKind::NotConnected.into()) };
        let ip = |address: socket2::SockAddr| address.as_socket().map(|address| address.ip().to_canonical());
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        let local = ip(flow.socket.local_addr()?).ok_or_else(gone)?;
        let owner = ip(flow.socket.peer_addr()?).ok_or_else(gone)?;
        let socket = DatagramSocket::bound(SocketAddr::new(local, 0))?;
        let reply = Reply::associated(socket.local());
        let relay = Relay { owner, port };
        let index = self.watch_local(core, socket, Use::Relay(relay))?;
        if let Some(flow) = core.flows.get_mut(key) {
            flow.phase = Phase::Associated { relay: index };
        }
        Ok(reply)
    }

    /// The TCP connection of an association has something to say: its end, or bytes that mean nothing.
    pub(in crate::worker::client) fn watch_association(&mut self, core: &mut Core, key: FlowKey) {
        let Some(flow) = core.flows.get_mut(key) else { return };
        loop {
            match (&flow.socket).read(&mut [0; 1024]) {
                Ok(length) if length > 0 => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                _ => return self.end_association(core, key),
            }
        }
    }

    /// "A UDP association terminates when the TCP connection that the UDP ASSOCIATE request arrived on terminates."
    fn end_association(&mut self, core: &mut Core, key: FlowKey) {
        if let Some(flow) = core.flows.get_mut(key)
            && let Phase::Associated { relay } = flow.phase
        {
            self.close_relay(core, relay);
        }
        core.totals.flows_finished += 1;
        self.forget(core, key, End::Orderly, "");
    }

    fn close_relay(&mut self, core: &mut Core, relay: u32) {
        let of_it = |source: &super::Source| source.socket == relay;
        let flows = self.udp.flows.iter().filter(|(source, _)| of_it(source));
        let keys: Vec<FlowKey> = flows.flat_map(|(_, flows)| flows.values().copied()).collect();
        for key in keys {
            self.end_udp(core, key, &Gone::Finished);
        }
        self.udp.resting.retain(|(source, _), _| !of_it(source));
        self.udp.uses.remove(&relay);
        core.udp.locals.try_remove(relay as usize);
    }
}
