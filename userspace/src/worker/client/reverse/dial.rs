//! From an announced connection to a flow: the local service is called first, and then the gateway asked for its end.

use super::{Client, On};
use crate::worker::{
    core::Core,
    flows::{Dialed, Pending, Phase},
    gateway::start_connect,
    mail::Command,
    poll::{FlowKey, Token},
};
use masque::{
    Capsule, MessageReader, RequestHead, ResponseTo,
    listen::{Close, accept_path},
    protocol,
};
use socket2::Socket;
use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tunnel::ConnId;
use upstream::resolver::ResolveError;

/// How long one address of the local service may take to answer.
const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// Its addresses that are tried: the gateway waits.
const ADDRESSES_TRIED_MAX: usize = 3;
/// Connections that are on their way to local services at once; more are declined.
const DIALS_MAX: usize = 1024;

/// What is on its way, by the connection that announced it and its id.
#[derive(Default)]
pub(super) struct Dials {
    /// `None`: the name of the local service is being resolved.
    table: HashMap<(ConnId, u64), Option<FlowKey>>,
}

impl Client {
    /// Calls the local service for a connection that the gateway has announced.
    pub(super) fn dial(&mut self, core: &mut Core, index: usize, on: On, id: u64) {
        core.reverse.totals.arrived += 1;
        if self.reverse.dials.table.len() >= DIALS_MAX {
            core.reverse.totals.overflowed += 1;
            return self.close_announced(core, index, on, id);
        }
        let to = &self.reverse.items[index].publication.to;
        if let Ok(ip) = to.host.parse::<IpAddr>() {
            let candidates = VecDeque::from([SocketAddr::new(ip, to.port)]);
            return self.dial_next(core, Dialed { index, on, id, candidates });
        }
        let mailbox = core.mailbox.clone();
        let done = Box::new(move |outcome| {
            mailbox.command(Command::ServiceResolved { index, on, id, outcome });
        });
        if self.config.resolver.resolve(&to.host, to.port, done).is_err() {
            return self.decline(core, index, on, id, "the resolver is busy");
        }
        self.reverse.dials.table.insert((on.0, id), None);
    }

    /// The local service's name was resolved, or not.
    pub(in crate::worker) fn service_resolved(
        &mut self,
        core: &mut Core,
        index: usize,
        on: On,
        id: u64,
        outcome: Result<Vec<SocketAddr>, ResolveError>,
    ) {
        if id == super::peers::SERVICE_ITSELF {
            return self.udp_service_found(index, on, outcome);
        }
        // It may have gone away meanwhile.
        if self.reverse.dials.table.remove(&(on.0, id)).is_none() {
            return;
        }
        match outcome {
            Ok(addresses) => {
                let candidates = addresses.into_iter().take(ADDRESSES_TRIED_MAX).collect();
                self.dial_next(core, Dialed { index, on, id, candidates });
            }
            Err(error) => self.decline(core, index, on, id, &error.to_string()),
        }
    }

    /// Starts the TCP handshake with the first candidate that takes a SYN.
    fn dial_next(&mut self, core: &mut Core, mut dialed: Dialed) {
        let mut why = "its name has no address".to_owned();
        while let Some(address) = dialed.candidates.pop_front() {
            match start_connect(address) {
                Ok(socket) => return self.watch_dial(core, socket, dialed),
                Err(error) => why = format!("{address}: {error}"),
            }
        }
        self.decline(core, dialed.index, dialed.on, dialed.id, &why);
    }

    fn watch_dial(&mut self, core: &mut Core, socket: Socket, dialed: Dialed) {
        let Dialed { index, on, id, .. } = dialed;
        let key = core.flows.insert(socket, Phase::Dialing(Box::new(dialed)), core.now);
        let Some(flow) = core.flows.get_mut(key) else { return };
        if let Err(error) = core.poll.watch_edges(&flow.socket, Token::Flow(key)) {
            core.flows.remove(key);
            return self.decline(core, index, on, id, &error.to_string());
        }
        core.flows.set_deadline(key, Some(core.now + DIAL_LIMIT));
        self.reverse.dials.table.insert((on.0, id), Some(key));
    }

    /// The handshake with the local service has ended, one way or the other.
    pub(in crate::worker::client) fn dial_done(&mut self, core: &mut Core, key: FlowKey) {
        let Some(flow) = core.flows.get_mut(key) else { return };
        if !flow.ready.writable && !flow.ready.hangup {
            return;
        }
        let outcome = match flow.socket.take_error() {
            Ok(None) => flow.socket.peer_addr().map(drop),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => self.ask_to_accept(core, key),
            Err(error) => self.dial_failed(core, key, &error.to_string()),
        }
    }

    /// One address of the local service didn't answer.
    pub(in crate::worker::client) fn dial_failed(&mut self, core: &mut Core, key: FlowKey, why: &str) {
        let Some(Phase::Dialing(dialed)) = core.flows.remove(key).map(|flow| flow.phase) else { return };
        self.reverse.dials.table.remove(&(dialed.on.0, dialed.id));
        if dialed.candidates.is_empty() {
            self.decline(core, dialed.index, dialed.on, dialed.id, why);
        } else {
            self.dial_next(core, *dialed);
        }
    }

    /// Asks the gateway for its end of the connection.
    fn ask_to_accept(&mut self, core: &mut Core, key: FlowKey) {
        let Some(flow) = core.flows.get_mut(key) else { return };
        let Phase::Dialing(dialed) = std::mem::replace(&mut flow.phase, Phase::Moving) else { return };
        let (conn, id) = (dialed.on.0, dialed.id);
        self.reverse.dials.table.remove(&(conn, id));
        let Some(stream) = core.engine.connection(conn).and_then(|mut quic| quic.open_bi()) else {
            core.flows.remove(key);
            return self.decline(core, dialed.index, dialed.on, id, "the gateway permits no more streams");
        };
        let fields: Vec<(&str, &str)> =
            self.bearer.iter().map(|bearer| ("proxy-authorization", bearer.as_str())).collect();
        let path = accept_path(id);
        let head = RequestHead::extended_connect(protocol::BEAM_ACCEPT, &self.authority, &path, &fields);
        let reader = Box::new(MessageReader::response(masque::Limits::default(), ResponseTo::Connect));
        let to = self.reverse.items[dialed.index].publication.to.clone();
        let pending = Pending { to, socks: false, bound: true, early: Vec::new() };
        core.totals.requests += 1;
        core.reverse.totals.opened += 1;
        self.asked(
            core,
            key,
            (conn, stream),
            Phase::Asked { reader, unsent: masque::encode_request(&head), pending },
        );
    }

    /// The local service doesn't take it.
    fn decline(&mut self, core: &mut Core, index: usize, on: On, id: u64, why: &str) {
        core.reverse.totals.declined += 1;
        tracing::warn!(
            "a connection to {} is declined: {why}",
            self.reverse.items[index].publication.words()
        );
        self.close_announced(core, index, on, id);
    }

    fn close_announced(&mut self, core: &mut Core, index: usize, on: On, id: u64) {
        if let Some(close) = Close::new(id) {
            self.tell_listener(core, index, on, &Capsule::Close(close));
        }
    }

    /// The announced connection is gone.
    pub(super) fn undial(&mut self, core: &mut Core, on: On, id: u64) {
        if let Some(Some(key)) = self.reverse.dials.table.remove(&(on.0, id)) {
            core.flows.remove(key);
        }
    }

    /// All that a lost connection had announced is gone.
    pub(super) fn undial_all(&mut self, core: &mut Core, conn: ConnId) {
        for (_, key) in self.reverse.dials.table.extract_if(|(of, _), _| *of == conn) {
            if let Some(key) = key {
                core.flows.remove(key);
            }
        }
    }
}
