//! From a flow that waits to one that is open: the request and the gateway's answer.

use super::Client;
use crate::worker::{
    client::flows::refusal,
    core::Core,
    datagrams::{DatagramStream, Framing},
    flow::{Broken, Reader},
    poll::FlowKey,
    session::{Slot, write_some},
    udp::{Asked, Gone, Phase},
};
use masque::{
    CAPSULE_PROTOCOL, CONNECT_UDP, CapsuleSet, Code, Host, Item, MessageReader, RequestHead, Response,
    ResponseReader, ResponseTo, Settings, status, udp_path,
};
use tunnel::{ConnMut, Read, StreamId};

impl Client {
    /// Opens streams for flows that wait, as far as the gateway's credit goes.
    pub(in crate::worker::client) fn ask_udp_waiting(&mut self, core: &mut Core) {
        while let Some(&key) = self.udp.waiting.front() {
            let waits = |flow: &mut super::UdpFlow| matches!(flow.phase, Phase::Waiting);
            if !core.udp.get_mut(key).is_some_and(waits) {
                self.udp.waiting.pop_front();
                continue;
            }
            self.rouse(core);
            let Some((conn, stream)) = self.pool.open_extended_early(core) else {
                return self.say_missing();
            };
            self.udp.waiting.pop_front();
            self.ask_udp(core, key, conn, stream);
        }
    }

    /// Flows that asked on this connection, and have no answer, wait again, with the datagrams that are held for it.
    pub(in crate::worker::client) fn ask_udp_again(&mut self, core: &mut Core, conn: tunnel::ConnId) {
        for key in core.udp.keys_on(conn) {
            let Some(flow) = core.udp.get_mut(key) else { continue };
            if matches!(flow.phase, Phase::Asked(_)) {
                flow.phase = Phase::Waiting;
                if let Some((conn, stream)) = flow.on.take() {
                    self.pool.release(conn, stream);
                }
                self.udp.waiting.push_front(key);
            }
        }
    }

    /// A gateway that has spoken and offers no extended CONNECT can't carry UDP.
    fn say_missing(&mut self) {
        if self.pool.lacks_extended() && !std::mem::replace(&mut self.udp.missing_said, true) {
            tracing::warn!("the gateway offers no extended CONNECT (RFC 9220): UDP can't be carried");
        }
    }

    fn ask_udp(&mut self, core: &mut Core, key: FlowKey, conn: tunnel::ConnId, stream: StreamId) {
        let to = core.udp.get_mut(key).and_then(|flow| self.destination(flow));
        let (Some(to), Some(flow)) = (to, core.udp.get_mut(key)) else { return };
        let host = to.host.parse().map_or_else(|_| Host::Name(to.host.clone()), Host::Address);
        let mut fields = vec![CAPSULE_PROTOCOL];
        fields.extend(self.bearer.iter().map(|bearer| ("proxy-authorization", bearer.as_str())));
        let path = udp_path(&host, to.port);
        let head = RequestHead::extended_connect(CONNECT_UDP, &self.authority, &path, &fields);
        let reader = MessageReader::response(masque::Limits::default(), ResponseTo::Connect);
        flow.on = Some((conn, stream));
        flow.phase = Phase::Asked(Box::new(Asked { reader, unsent: masque::encode_request(&head) }));
        core.totals.requests += 1;
        self.pool.assign(conn, stream, Slot::Udp(key));
        self.hear_udp_answer(core, key);
    }

    /// One step of a UDP flow whose stream has something to say, or whose local end has.
    pub(in crate::worker) fn advance_udp(&mut self, core: &mut Core, key: FlowKey) {
        match core.udp.get_mut(key).map(|flow| &flow.phase) {
            Some(Phase::Asked(_)) => self.hear_udp_answer(core, key),
            Some(Phase::Open(_)) => {
                if let Some(gone) = core.pump_udp(key) {
                    self.end_udp(core, key, &gone);
                }
            }
            Some(Phase::Waiting) | None => {}
        }
    }

    /// Writes what is left of the request and reads the response's header section.
    fn hear_udp_answer(&mut self, core: &mut Core, key: FlowKey) {
        let Some(flow) = core.udp.get_mut(key) else { return };
        let (Phase::Asked(asked), Some((conn, stream))) = (&mut flow.phase, flow.on) else { return };
        let Some(mut quic) = core.engine.connection(conn) else { return };
        // A stream that takes nothing more may still carry the answer.
        write_some(&mut quic, stream, &mut asked.unsent);
        match read_answer(&mut asked.reader, &mut quic, stream) {
            Ok(None) => {}
            Ok(Some(response)) => self.udp_answered(core, key, &response),
            Err(gone) => {
                tracing::warn!("the gateway gave no answer to a request for UDP: {gone:?}");
                self.end_udp(core, key, &gone);
            }
        }
    }

    fn udp_answered(&mut self, core: &mut Core, key: FlowKey, response: &Response) {
        let Some(flow) = core.udp.get_mut(key) else { return };
        let Some((conn, stream)) = flow.on else { return };
        if !status::is_success(response.status) {
            let to = self.destination(flow).map_or_else(String::new, |to| to.authority());
            let proxy_status = response.fields.get("proxy-status").unwrap_or_default();
            tracing::warn!("{}", refusal(&to, response.status, proxy_status));
            return self.end_udp(core, key, &Gone::Refused);
        }
        let Some(session) = self.pool.session_on(conn) else { return };
        let takes_frames = session.peer_settings().is_some_and(Settings::h3_datagram);
        let framing = if takes_frames { Framing::Frames } else { Framing::Capsules };
        let early = session.datagrams.take_early(stream);
        let Some(flow) = core.udp.get_mut(key) else { return };
        if let Phase::Asked(asked) = std::mem::replace(&mut flow.phase, Phase::Waiting) {
            let reader = Reader::Response(asked.reader);
            let tunnel = DatagramStream::opened(stream, reader, CapsuleSet::Udp, framing);
            flow.phase = Phase::Open(Box::new(tunnel));
            early.into_iter().for_each(|payload| core.receive_udp_frame(key, payload));
            self.advance_udp(core, key);
        }
    }
}

/// The final response's header section, once it is there.
pub(in crate::worker::client) fn read_answer(
    reader: &mut ResponseReader,
    quic: &mut ConnMut<'_>,
    stream: StreamId,
) -> Result<Option<Response>, Gone> {
    loop {
        match reader.next() {
            // Interim responses (RFC 9114 section 4.1) are skipped.
            Ok(Some(Item::Headers(response))) if status::is_interim(response.status) => {}
            Ok(Some(Item::Headers(response))) => return Ok(Some(response)),
            Ok(Some(_)) => {}
            Ok(None) => match quic.read(stream, usize::MAX) {
                Read::Chunk(bytes) => reader.push(bytes),
                Read::Fin => reader.finish(),
                Read::Blocked => return Ok(None),
                Read::Reset(code) => return Err(Gone::Broken(Broken::Reset(code))),
                Read::Gone => return Err(Gone::Lost),
            },
            Err(error) => {
                let connection = error.scope() == masque::Scope::Connection;
                let code: Code = error.code();
                return Err(Gone::Broken(Broken::Protocol { code, connection }));
            }
        }
    }
}
