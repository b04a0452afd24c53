//! Reverse forwarding (`-R`, see [`masque::listen`]): listeners here for services of the client's side.
//!
//! ```text
//!  beam-listen ─► may it? ─► the socket of its lost connection, or a new one ─► 200, Listening
//!                    └ 403                 └ 409 taken · 429 too many                │
//!  a connection ─► id, BEAM_ACCEPT ─► Arrival ─(beam-accept)─► flow                  │ the stream ends, or the connection:
//!  a datagram ───► id of its peer ──► HTTP datagram of the listen stream             ▼ all of it is closed
//! ```
//! [`claims`] knows the listeners of all workers, [`doors`] the sockets; [`arrivals`] are TCP, [`peers`] UDP.

mod arrivals;
pub(super) mod claims;
mod doors;
mod doubt;
mod peers;

use self::{arrivals::Arrival, claims::Owner, doors::Door, peers::Peers};
use super::{Gateway, Refusal, extended::Extended};
use crate::worker::{
    core::Core,
    datagrams::{DatagramStream, Framing, Next},
    flow::{Broken, Reader},
    ledger::FlowPermit,
    mail::Command,
    poll::Token,
    reverse::INSTANCE_FIELD,
    session::{Slot, abandon, quic_code},
    udp::On,
};
use ::upstream::users::ClientPolicy;
use masque::{
    CAPSULE_PROTOCOL, Capsule, CapsuleSet, Code, RequestReader,
    listen::{Close, LISTEN_PORT_FIELD, ListenTarget, Transport, listen_target},
};
use slab::Slab;
use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};
use tunnel::{ConnId, Dir};

/// Visitors of a client's listeners that it may answer at the same moment; more once half of them are there.
const VISITORS_AT_ONCE: u32 = 64;
/// Listeners of one connection.
const LISTENS_PER_CONNECTION_MAX: usize = 64;

/// The listeners of one worker.
#[derive(Default)]
pub(super) struct Listens {
    table: HashMap<On, Listening>,
    /// By the index in their epoll token.
    doors: Slab<(On, Door)>,
    /// Doors that found no descriptor for a connection, and until when they rest.
    resting: Vec<(Instant, u32)>,
    /// Connections that wait for their `beam-accept`.
    arrivals: HashMap<(ConnId, u64), Arrival>,
    /// By when, in order, for all wait equally long.
    arrivals_due: VecDeque<(Instant, ConnId, u64)>,
    /// By connection: the last id that was given, and how many of its arrivals wait.
    of_connection: HashMap<ConnId, Given>,
    /// When idle UDP peers are looked for next, while there are any.
    sweep: Option<Instant>,
    /// Connections that may be dead: until when they may be silent, and how much was heard of them.
    doubted: Vec<(Instant, ConnId, u64)>,
}

/// One `beam-listen` that was granted.
struct Listening {
    /// With the port that it really has.
    target: ListenTarget,
    /// Whose it is. It counts as one of the client's flows.
    client: Arc<str>,
    permit: FlowPermit,
    stream: DatagramStream,
    doors: Vec<u32>,
    peers: Peers,
}

/// What one connection's listeners have in common.
#[derive(Default)]
struct Given {
    last_id: u64,
    waiting_count: usize,
}

/// What was granted, and to whom.
struct Granted {
    target: ListenTarget,
    client: Arc<str>,
    permit: FlowPermit,
}

impl Listens {
    /// A new id on a connection: from 1 up, and none twice.
    fn next_id(&mut self, conn: ConnId) -> u64 {
        let given = self.of_connection.entry(conn).or_default();
        given.last_id += 1;
        given.last_id
    }

    fn count_on(&self, conn: ConnId) -> usize {
        self.table.keys().filter(|(of, _)| *of == conn).count()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let rest = self.resting.iter().map(|&(until, _)| until).min();
        let doubt = self.doubted.iter().map(|&(until, ..)| until).min();
        let due = self.arrivals_due.front().map(|&(at, ..)| at);
        [rest, doubt, due, self.sweep].into_iter().flatten().min()
    }
}

impl Gateway {
    /// Takes a request to listen on a port of this gateway.
    pub(super) fn listen(&mut self, core: &mut Core, request: Extended<'_>) -> Result<(), Refusal> {
        let target = listen_target(request.path).map_err(|error| {
            core.totals.refused_bad_request += 1;
            Refusal::new(error.status())
        })?;
        let client = request.asker.identity.name.clone();
        if !self.may_listen(&request.asker.policy, &target) {
            core.reverse.totals.listens_denied += 1;
            tracing::debug!("{client} may not listen on {target:?}");
            return Err(refusal(403, "http_request_denied", &format!("{} is not permitted", words(&target))));
        }
        if self.listens.count_on(request.conn) >= LISTENS_PER_CONNECTION_MAX {
            core.reverse.totals.listens_failed += 1;
            return Err(Refusal { status: 429, fields: vec![("retry-after", "1".to_owned())] });
        }
        let instance = request.request.fields.get(INSTANCE_FIELD);
        let instance = instance.and_then(|text| u64::from_str_radix(text, 16).ok());
        let on = (request.conn, request.stream);
        let owner = Owner { client, instance, worker: core.id, mailbox: core.mailbox.clone(), on };
        let (doors, target) = self.claim_listener(core, target, &owner)?;
        let (client, permit) = (owner.client, request.permit);
        self.start_listening(core, on, request.reader, doors, Granted { target, client, permit })
    }

    /// By the users file, or by `--allow-listen`.
    fn may_listen(&self, policy: &ClientPolicy, target: &ListenTarget) -> bool {
        let addresses = doors::addresses(target.bind);
        let permits = |policy: &ClientPolicy| {
            addresses.iter().all(|&ip| policy.may_listen(SocketAddr::new(ip, target.port)))
        };
        permits(policy) || permits(&self.config.listen)
    }

    /// The sockets of a listener: those of the client's lost connection, else new ones.
    fn claim_listener(
        &mut self,
        core: &mut Core,
        target: ListenTarget,
        owner: &Owner,
    ) -> Result<(Vec<Door>, ListenTarget), Refusal> {
        if let Some((doors, old)) = self.claims.take_over(&target, owner) {
            core.reverse.totals.listens_taken_over += 1;
            if old.worker == core.id {
                self.listener_moved(core, old.on);
            } else {
                old.mailbox.command(Command::ListenerMoved { conn: old.on.0, stream: old.on.1 });
            }
            return Ok((doors, target));
        }
        let failed = |core: &mut Core, status, error, details: &str| {
            core.reverse.totals.listens_failed += 1;
            refusal(status, error, details)
        };
        match doors::open(&target) {
            Ok((doors, port)) => {
                let target = ListenTarget { port, ..target };
                if self.claims.add(target, owner.clone(), doors.clone()) {
                    Ok((doors, target))
                } else {
                    Err(failed(core, 503, "connection_limit_reached", "too many listeners"))
                }
            }
            Err(error) if doors::is_taken(&error) => {
                core.reverse.totals.listens_port_taken += 1;
                self.claims.doubt(target.transport, target.port, owner);
                Err(refusal(409, "destination_unavailable", &format!("{} is taken", words(&target))))
            }
            Err(error) => {
                tracing::warn!("can't listen on {} for {}: {error}", words(&target), owner.client);
                Err(failed(core, 502, "proxy_internal_error", &format!("{}: {error}", words(&target))))
            }
        }
    }

    fn start_listening(
        &mut self,
        core: &mut Core,
        on: On,
        reader: RequestReader,
        doors: Vec<Door>,
        granted: Granted,
    ) -> Result<(), Refusal> {
        let Granted { target, client, permit } = granted;
        let (conn, stream) = on;
        let answer =
            masque::encode_response(200, &[CAPSULE_PROTOCOL, (LISTEN_PORT_FIELD, &target.port.to_string())]);
        let reader = Reader::Request(reader);
        let stream_of_it =
            DatagramStream::accepted(stream, reader, CapsuleSet::Listen, Framing::Frames, answer);
        let mut listening = Listening {
            target,
            client,
            permit,
            stream: stream_of_it,
            doors: Vec::new(),
            peers: Peers::default(),
        };
        for door in doors {
            let index = self.listens.doors.insert((on, door)) as u32;
            listening.doors.push(index);
            let watched =
                core.poll.watch_readable(&self.listens.doors[index as usize].1, Token::Listener(index));
            if let Err(error) = watched {
                tracing::warn!("can't watch {}: {error}", words(&target));
                self.listens.table.insert(on, listening);
                self.remove_listening(core, on);
                core.reverse.totals.listens_failed += 1;
                return Err(Refusal::new(503));
            }
        }
        tracing::info!("{} listens on {} for its own side", listening.client, words(&target));
        core.reverse.totals.listens_opened += 1;
        self.listens.table.insert(on, listening);
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.slots.insert(stream, Slot::Listen);
        }
        // The client answers each visitor by a request, and declines where it may make none: so they aren't permitted one
        // by one as they come.
        if let Some(mut quic) = core.engine.connection(conn) {
            quic.permit_at_once(Dir::Bi, VISITORS_AT_ONCE);
        }
        self.pump_listen(core, on);
        Ok(())
    }

    /// One step of a listen stream that has something to say, or room.
    pub(super) fn pump_listen(&mut self, core: &mut Core, on: On) {
        let end = loop {
            let Some(listening) = self.listens.table.get_mut(&on) else { return };
            let Some(mut quic) = core.engine.connection(on.0) else { return };
            match listening.stream.next(&mut quic, &mut core.arena, &mut core.datagrams) {
                Ok(Next::Capsule(Capsule::Datagram(datagram))) => {
                    self.datagram_from_client(core, on, datagram)
                }
                Ok(Next::Capsule(Capsule::Close(close))) => self.closed_by_client(core, on, close),
                // A client announces nobody.
                Ok(Next::Capsule(_)) => {}
                Ok(Next::Blocked) => {
                    listening.stream.flush(&mut quic, &mut core.datagrams);
                    return;
                }
                Ok(Next::End) => break None,
                Err(broken) => break Some(broken),
            }
        };
        self.end_listening(core, on, end.as_ref());
    }

    /// QUIC's datagram buffer of a connection has room again.
    pub(super) fn listens_unblocked(&mut self, core: &mut Core, conn: ConnId) {
        for (_, listening) in self.listens.table.iter_mut().filter(|((of, _), _)| *of == conn) {
            if listening.stream.is_waiting()
                && let Some(mut quic) = core.engine.connection(conn)
            {
                listening.stream.flush(&mut quic, &mut core.datagrams);
            }
        }
    }

    /// The client is not interested in one of those that we have announced.
    fn closed_by_client(&mut self, core: &mut Core, on: On, close: Close) {
        let Some(listening) = self.listens.table.get_mut(&on) else { return };
        match listening.target.transport {
            Transport::Tcp => self.arrival_declined(core, on, close.id()),
            Transport::Udp => {
                core.reverse.totals.peers_closed += u64::from(listening.peers.remove(close.id()))
            }
        }
    }

    /// Another connection of the client has taken the listener over.
    pub(in crate::worker) fn listener_moved(&mut self, core: &mut Core, on: On) {
        self.end_listening(core, on, None);
    }

    /// The client reads no more of a listen stream.
    pub(super) fn listener_stopped(&mut self, core: &mut Core, on: On) {
        self.end_listening(core, on, Some(&Broken::Stream));
    }

    /// Ends a listener and says so on its stream.
    fn end_listening(&mut self, core: &mut Core, on: On, broken: Option<&Broken>) {
        self.remove_listening(core, on);
        self.forget_stream(on.0, on.1);
        let Some(mut quic) = core.engine.connection(on.0) else { return };
        match broken {
            None => {
                quic.finish(on.1);
                quic.stop(on.1, quic_code(Code::H3_NO_ERROR));
            }
            Some(Broken::Protocol { code, connection: true }) => quic.close(quic_code(*code), b""),
            Some(Broken::Protocol { code, connection: false }) => abandon(&mut quic, on.1, *code),
            Some(_) => abandon(&mut quic, on.1, Code::H3_REQUEST_CANCELLED),
        }
    }

    /// Closes what belongs to a listener.
    fn remove_listening(&mut self, core: &mut Core, on: On) {
        let Some(listening) = self.listens.table.remove(&on) else { return };
        for index in listening.doors {
            if let Some((_, door)) = self.listens.doors.try_remove(index as usize) {
                // Closing it wouldn't do: the heir has the same socket.
                core.poll.forget(&door);
            }
            self.listens.resting.retain(|&(_, of)| of != index);
        }
        core.reverse.totals.peers_closed += listening.peers.len() as u64;
        self.abandon_arrivals(core, on);
        self.claims.release(&listening.target, core.id, on);
        tracing::info!("{} listens on {} no more", listening.client, words(&listening.target));
    }

    /// A connection has ended, and its listeners with it.
    pub(super) fn listens_ended(&mut self, core: &mut Core, conn: ConnId) {
        for on in self.listens_on(conn) {
            self.remove_listening(core, on);
        }
        self.listens.of_connection.remove(&conn);
        self.listens.doubted.retain(|&(_, of, _)| of != conn);
    }

    fn listens_on(&self, conn: ConnId) -> Vec<On> {
        self.listens.table.keys().filter(|(of, _)| *of == conn).copied().collect()
    }

    /// Ends the listeners that their clients may not have any more. How many.
    pub(super) fn revoke_listens(&mut self, core: &mut Core) -> u64 {
        let forbidden = |(_, listening): &(&On, &Listening)| {
            !self.may_listen(&self.config.client_policy(&listening.client), &listening.target)
        };
        let gone: Vec<On> = self.listens.table.iter().filter(forbidden).map(|(&on, _)| on).collect();
        gone.iter().for_each(|&on| self.end_listening(core, on, None));
        gone.len() as u64
    }

    /// What is published here: by which connection, for whom, and where.
    pub(in crate::worker) fn listeners(&self) -> impl Iterator<Item = (ConnId, &str, String)> {
        let table = self.listens.table.iter();
        table.map(|(&(conn, _), listening)| (conn, &*listening.client, words(&listening.target)))
    }

    /// The daemon goes away: nobody is let in any more.
    pub(super) fn drain_listens(&mut self, core: &mut Core) {
        for on in self.listens.table.keys().copied().collect::<Vec<_>>() {
            self.end_listening(core, on, None);
        }
    }

    pub(super) fn listen_timers(&mut self, core: &mut Core, now: Instant) {
        self.end_door_rests(core, now);
        self.expire_arrivals(core, now);
        self.sweep_peers(core, now);
        self.end_doubts(core, now);
    }

    /// A door of this worker is readable.
    pub(in crate::worker) fn knocked(&mut self, core: &mut Core, index: u32) {
        let Some((on, door)) = self.listens.doors.get(index as usize) else { return };
        let (on, door) = (*on, door.clone());
        match door {
            Door::Tcp(listener) => self.let_in(core, on, &listener, index),
            Door::Udp(socket) => self.datagrams_from_peers(core, on, &socket),
        }
    }

    /// QUIC DATAGRAM frames have come for listen streams.
    pub(super) fn listen_frames(&mut self, core: &mut Core) {
        for (conn, stream, datagram) in std::mem::take(&mut core.reverse.frames) {
            if let Some(listening) = self.listens.table.get_mut(&(conn, stream)) {
                listening.stream.heard_frame();
            }
            self.datagram_from_client(core, (conn, stream), datagram);
        }
    }
}

fn refusal(status: u16, error: &str, details: &str) -> Refusal {
    let value = format!("beam; error={error}; details=\"{}\"", details.replace(['"', '\\'], "'"));
    Refusal { status, fields: vec![("proxy-status", value)] }
}

/// A target for a person, such as `tcp *:8080`.
fn words(target: &ListenTarget) -> String {
    format!("{} {}:{}", target.transport, target.bind, target.port)
}
