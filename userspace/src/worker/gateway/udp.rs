//! CONNECT-UDP (RFC 9298): from the request to an open flow, and its end.
//!
//! The destination passes the same policy as one of CONNECT: each address that a name resolves to is checked, so that an
//! answer that points at loopback or a private range opens nothing.

use super::{Gateway, Refusal, Wanted, extended::Extended, upstream::Attempt};
use crate::worker::{
    core::Core,
    datagrams::{DatagramStream, Framing},
    flow::Reader,
    poll::{FlowKey, Token},
    session::{Slot, Transport},
    udp::{Gone, Outside, Phase},
};
use ::udp::DatagramSocket;
use ::upstream::failure::ConnectFailure;
use masque::{CAPSULE_PROTOCOL, CapsuleSet, udp_target};
use std::{collections::VecDeque, net::SocketAddr};

/// UDP flows on one worker; each holds a descriptor. Beyond it the one that was silent the longest makes room.
const UDP_FLOWS_MAX: usize = 16_384;

impl Gateway {
    /// Takes a request for a UDP flow.
    pub(super) fn connect_udp(&mut self, core: &mut Core, request: Extended<'_>) -> Result<(), Refusal> {
        let target = udp_target(request.path).map_err(|error| {
            core.totals.refused_bad_request += 1;
            tracing::debug!("{} asked for {}: {error}", request.asker, request.path);
            Refusal::new(error.status())
        })?;
        let Extended { conn, stream, reader, asker, permit, .. } = request;
        let (host, port, transport) = (target.host, target.port, Transport::Udp);
        self.reach(core, Wanted { conn, stream, reader, host, port, asker, permit, transport })
    }

    /// Opens a flow to the first candidate that the host has a route to, and answers 200.
    pub(super) fn open_udp(
        &mut self,
        core: &mut Core,
        attempt: Attempt,
        candidates: VecDeque<SocketAddr>,
    ) -> Result<(), ConnectFailure> {
        let mut failure = ConnectFailure::Unreachable;
        for remote in candidates {
            match DatagramSocket::connected(remote) {
                Ok(socket) => return self.watch_udp(core, attempt, Outside::Upstream { socket, remote }),
                Err(error) => failure = ConnectFailure::classify(&error),
            }
        }
        core.totals.refused_upstream += 1;
        Err(failure)
    }

    fn watch_udp(
        &mut self,
        core: &mut Core,
        attempt: Attempt,
        outside: Outside,
    ) -> Result<(), ConnectFailure> {
        let Attempt { on: (conn, stream), reader, permit, to, since: _ } = attempt;
        let Some(session) = self.sessions.get_mut(&conn) else { return Ok(()) };
        let takes_frames = session.peer_settings().is_some_and(masque::Settings::h3_datagram);
        let framing = if takes_frames { Framing::Frames } else { Framing::Capsules };
        let answer = masque::encode_response(200, &[CAPSULE_PROTOCOL]);
        let reader = Reader::Request(*reader);
        let tunnel = DatagramStream::accepted(stream, reader, CapsuleSet::Udp, framing, answer);
        let key = core.udp.insert(outside, Phase::Open(Box::new(tunnel)), core.now);
        core.udp.totals.opened += 1;
        let early = session.datagrams.take_early(stream);
        session.slots.insert(stream, Slot::Udp(key));
        if let Some(flow) = core.udp.get_mut(key) {
            (flow.on, flow.owner, flow.to) = (Some((conn, stream)), permit.owner(), to);
            flow.permit = Some(permit);
            if let Outside::Upstream { socket, .. } = &flow.outside
                && let Err(error) = core.poll.watch_edges(socket, Token::Udp(key))
            {
                core.udp.remove(key);
                session.slots.remove(&stream);
                return Err(ConnectFailure::classify(&error));
            }
        }
        for payload in early {
            core.receive_udp_frame(key, payload);
        }
        core.udp.queue(key);
        while core.udp.len() > UDP_FLOWS_MAX
            && let Some(oldest) = core.udp.longest_idle()
        {
            self.end_udp(core, oldest, &Gone::Evicted);
        }
        Ok(())
    }

    /// One step of a UDP flow whose socket or stream has something to say.
    pub(in crate::worker) fn advance_udp(&mut self, core: &mut Core, key: FlowKey) {
        if let Some(gone) = core.pump_udp(key) {
            self.end_udp(core, key, &gone);
        }
    }

    pub(super) fn end_udp(&mut self, core: &mut Core, key: FlowKey, gone: &Gone) {
        if let Some(flow) = core.end_udp(key, gone)
            && let Some((conn, stream)) = flow.on
        {
            self.forget_stream(conn, stream);
        }
    }
}
