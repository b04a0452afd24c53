//! The client's side of `-R`: publishes services of this side on the gateway, again after every reconnect, and takes what
//! comes there to them.
//!
//! ```text
//!  Idle ─(a tunnel that offers it)─► Asked ─(2xx)─► Open ─(the stream or its connection ends)─► Idle …
//!    ▲                                 └─(refused)─► pause ─┐
//!    └──────────────────────────────────────────────────────┘
//! ```
//! [`dial`] takes connections to the local service, [`peers`] datagrams.

mod dial;
mod peers;
mod publication;

pub(crate) use self::publication::Publication;
use self::{dial::Dials, peers::Peers};
use super::{Client, udp::read_answer};
use crate::worker::{
    Ended,
    core::Core,
    datagrams::{DatagramStream, Framing, Next},
    flow::{Broken, Reader},
    reverse::INSTANCE_FIELD,
    session::{Slot, abandon, close_for, quic_code, write_some},
    udp::On,
};
use bytes::Bytes;
use masque::{
    CAPSULE_PROTOCOL, Capsule, CapsuleSet, Code, MessageReader, RequestHead, Response, ResponseReader,
    ResponseTo, Settings,
    listen::{Transport, listen_path, listen_port},
    protocol, status,
};
use std::time::{Duration, Instant};
use tunnel::ConnId;

/// The pause after a refusal; it doubles up to [`PAUSE_MAX`]. What refused may have changed by then.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// All of `-R`.
pub(super) struct Reverse {
    items: Vec<Item>,
    /// Tells the gateway that it was us who had the listener before.
    instance: u64,
    missing_said: bool,
    dials: Dials,
    peers: Peers,
}

struct Item {
    publication: Publication,
    state: State,
    /// Refusals in a row.
    refusals: u32,
}

enum State {
    /// Until then, or else until a tunnel is up.
    Idle {
        until: Option<Instant>,
    },
    Asked {
        on: On,
        reader: Box<ResponseReader>,
        unsent: Bytes,
    },
    Open {
        on: On,
        stream: Box<DatagramStream>,
    },
    /// The client goes away.
    Over,
}

impl State {
    fn on(&self) -> Option<On> {
        match self {
            Self::Asked { on, .. } | Self::Open { on, .. } => Some(*on),
            Self::Idle { .. } | Self::Over => None,
        }
    }
}

impl Reverse {
    pub(super) fn new(publications: Vec<Publication>) -> Self {
        let item = |publication| Item { publication, state: State::Idle { until: None }, refusals: 0 };
        Self {
            items: publications.into_iter().map(item).collect(),
            instance: rand::random(),
            missing_said: false,
            dials: Dials::default(),
            peers: Peers::default(),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let pauses = self.items.iter().filter_map(|item| match item.state {
            State::Idle { until } => until,
            _ => None,
        });
        pauses.chain(self.peers.next_deadline()).min()
    }

    /// Those on one connection.
    fn on_connection(&self, conn: ConnId) -> Vec<usize> {
        let on_it = |item: &Item| item.state.on().is_some_and(|(of, _)| of == conn);
        (0..self.items.len()).filter(|&index| on_it(&self.items[index])).collect()
    }
}

impl Client {
    /// Asks for the listeners that are not there, as far as there is a tunnel that offers them.
    pub(super) fn publish(&mut self, core: &mut Core) {
        for index in 0..self.reverse.items.len() {
            if !matches!(self.reverse.items[index].state, State::Idle { until: None }) {
                continue;
            }
            let Some(on) = self.pool.open_where(core, Settings::beam_listen) else {
                return self.say_listen_missing();
            };
            self.ask_to_listen(core, index, on);
        }
    }

    fn say_listen_missing(&mut self) {
        if self.pool.lacks(Settings::beam_listen) && !std::mem::replace(&mut self.reverse.missing_said, true)
        {
            tracing::warn!(
                "the gateway offers no listeners: it is no beam, or an old one; -R is not published"
            );
        }
    }

    fn ask_to_listen(&mut self, core: &mut Core, index: usize, on: On) {
        let item = &mut self.reverse.items[index];
        let instance = format!("{:x}", self.reverse.instance);
        let mut fields = vec![CAPSULE_PROTOCOL, (INSTANCE_FIELD, instance.as_str())];
        fields.extend(self.bearer.iter().map(|bearer| ("proxy-authorization", bearer.as_str())));
        let path = listen_path(&item.publication.target);
        let head = RequestHead::extended_connect(protocol::BEAM_LISTEN, &self.authority, &path, &fields);
        let reader = Box::new(MessageReader::response(masque::Limits::default(), ResponseTo::Connect));
        item.state = State::Asked { on, reader, unsent: masque::encode_request(&head) };
        core.totals.requests += 1;
        self.pool.assign(on.0, on.1, Slot::Reverse(index as u32));
        self.advance_reverse(core, index as u32);
    }

    /// One step of a listen stream that has something to say, or room.
    pub(super) fn advance_reverse(&mut self, core: &mut Core, index: u32) {
        match self.reverse.items.get(index as usize).map(|item| &item.state) {
            Some(State::Asked { .. }) => self.hear_listen_answer(core, index as usize),
            Some(State::Open { .. }) => self.pump_reverse(core, index as usize),
            _ => {}
        }
    }

    fn hear_listen_answer(&mut self, core: &mut Core, index: usize) {
        let State::Asked { on, reader, unsent } = &mut self.reverse.items[index].state else { return };
        let Some(mut quic) = core.engine.connection(on.0) else { return };
        write_some(&mut quic, on.1, unsent);
        match read_answer(reader, &mut quic, on.1) {
            Ok(None) => {}
            Ok(Some(response)) if status::is_success(response.status) => {
                self.listening(core, index, &response);
            }
            Ok(Some(response)) => self.listen_refused(core, index, &response),
            Err(gone) => {
                let said = format!("the gateway gave no answer: {gone:?}");
                self.listen_failed(core, index, &said);
            }
        }
    }

    fn listening(&mut self, core: &mut Core, index: usize, response: &Response) {
        let item = &mut self.reverse.items[index];
        let State::Asked { on, reader, .. } = std::mem::replace(&mut item.state, State::Over) else { return };
        let reader = Reader::Response(*reader);
        let stream = DatagramStream::opened(on.1, reader, CapsuleSet::Listen, Framing::Frames);
        item.state = State::Open { on, stream: Box::new(stream) };
        item.refusals = 0;
        // The port that the gateway has picked is asked for by name when the tunnel was lost.
        item.publication.target.port = listen_port(&response.fields).unwrap_or(item.publication.target.port);
        core.reverse.totals.listens_opened += 1;
        tracing::info!(
            "{} is published: it leads to {}",
            item.publication.words(),
            item.publication.to.authority()
        );
        self.find_udp_service(core, index);
        self.pump_reverse(core, index);
    }

    fn listen_refused(&mut self, core: &mut Core, index: usize, response: &Response) {
        let advice = match response.status {
            401 | 407 => ": no valid identity; give --token-file FILE or --cert/--key that the gateway knows",
            403 => {
                ": give the client `listen=PORTS` in the gateway's users file, or the gateway --allow-listen"
            }
            409 => ": choose another port, or see on the gateway who has it: ss -lnp",
            _ => "",
        };
        let details = response.fields.get("proxy-status").unwrap_or_default();
        let said = format!("the gateway refused: {} ({details}){advice}", response.status);
        self.listen_failed(core, index, &said);
    }

    /// Not published: tries again later, but for `--once`.
    fn listen_failed(&mut self, core: &mut Core, index: usize, why: &str) {
        core.reverse.totals.listens_denied += 1;
        let said = format!("{}: {why}", self.reverse.items[index].publication.words());
        if self.config.once && self.ended.is_none() {
            self.ended = Some(Ended::TunnelLost(said));
        } else {
            tracing::warn!("{said}");
        }
        self.unlisten(core, index, None);
        let item = &mut self.reverse.items[index];
        let pause = PAUSE_FIRST.saturating_mul(1 << item.refusals.min(16)).min(PAUSE_MAX);
        item.refusals += 1;
        item.state = State::Idle { until: Some(core.now + pause) };
    }

    fn pump_reverse(&mut self, core: &mut Core, index: usize) {
        let end = loop {
            let State::Open { on, stream } = &mut self.reverse.items[index].state else { return };
            let on = *on;
            let Some(mut quic) = core.engine.connection(on.0) else { return };
            match stream.next(&mut quic, &mut core.arena, &mut core.datagrams) {
                Ok(Next::Capsule(Capsule::Accept(accept))) => self.announced(core, index, on, accept.id()),
                Ok(Next::Capsule(Capsule::Close(close))) => self.gone_again(core, index, on, close.id()),
                Ok(Next::Capsule(Capsule::Datagram(datagram))) => {
                    self.datagram_for_service(core, index, datagram);
                }
                Ok(Next::Capsule(_)) => {}
                Ok(Next::Blocked) => {
                    stream.flush(&mut quic, &mut core.datagrams);
                    return;
                }
                Ok(Next::End) => break None,
                Err(broken) => break Some(broken),
            }
        };
        tracing::warn!("{} ended; publishing it again", self.reverse.items[index].publication.words());
        self.unlisten(core, index, end.as_ref());
        self.reverse.items[index].state = State::Idle { until: Some(core.now + PAUSE_FIRST) };
    }

    /// The gateway has announced somebody.
    fn announced(&mut self, core: &mut Core, index: usize, on: On, id: u64) {
        match self.reverse.items[index].publication.target.transport {
            Transport::Tcp => self.dial(core, index, on, id),
            // Its first datagram may have made it already.
            Transport::Udp => drop(self.peer(core, index, id)),
        }
    }

    /// Whom the gateway announced is gone.
    fn gone_again(&mut self, core: &mut Core, index: usize, on: On, id: u64) {
        match self.reverse.items[index].publication.target.transport {
            Transport::Tcp => self.undial(core, on, id),
            Transport::Udp => self.peer_gone(core, index, id),
        }
    }

    /// Puts a capsule on a listen stream, if it is still that of `on`.
    fn tell_listener(&mut self, core: &mut Core, index: usize, on: On, capsule: &Capsule) {
        if let Some(State::Open { on: of, stream }) =
            self.reverse.items.get_mut(index).map(|item| &mut item.state)
            && *of == on
            && let Some(mut quic) = core.engine.connection(on.0)
        {
            // A gateway that reads nothing forgets the connection by itself, later.
            let _ = stream.send_control(&mut quic, capsule);
        }
    }

    /// Gives a listen stream up, and what came by it.
    fn unlisten(&mut self, core: &mut Core, index: usize, broken: Option<&Broken>) {
        self.forget_peers(core, index);
        let item = &mut self.reverse.items[index];
        let Some((conn, stream)) = std::mem::replace(&mut item.state, State::Over).on() else { return };
        self.pool.release(conn, stream);
        let Some(mut quic) = core.engine.connection(conn) else { return };
        match broken {
            None => {
                quic.finish(stream);
                quic.stop(stream, quic_code(Code::H3_NO_ERROR));
            }
            Some(Broken::Protocol { code, connection: true }) => close_for(&mut quic, *code),
            Some(Broken::Protocol { code, connection: false }) => abandon(&mut quic, stream, *code),
            Some(_) => abandon(&mut quic, stream, Code::H3_REQUEST_CANCELLED),
        }
    }

    /// A connection has ended: what it had is published on another, now or when there is one.
    pub(super) fn reverse_connection_ended(&mut self, core: &mut Core, conn: ConnId) {
        self.undial_all(core, conn);
        for index in self.reverse.on_connection(conn) {
            self.forget_peers(core, index);
            self.reverse.items[index].state = State::Idle { until: None };
        }
    }

    /// QUIC DATAGRAM frames have come for listen streams.
    pub(super) fn reverse_frames(&mut self, core: &mut Core) {
        for (conn, stream, datagram) in std::mem::take(&mut core.reverse.frames) {
            let session = self.pool.session_on(conn);
            if let Some(&Slot::Reverse(index)) = session.and_then(|session| session.slots.get(&stream)) {
                self.datagram_for_service(core, index as usize, datagram);
            }
        }
    }

    /// QUIC's datagram buffer of a connection has room again.
    pub(super) fn reverse_unblocked(&mut self, core: &mut Core, conn: ConnId) {
        for index in self.reverse.on_connection(conn) {
            if let State::Open { stream, .. } = &mut self.reverse.items[index].state
                && stream.is_waiting()
                && let Some(mut quic) = core.engine.connection(conn)
            {
                stream.flush(&mut quic, &mut core.datagrams);
            }
        }
    }

    pub(super) fn reverse_timers(&mut self, core: &mut Core, now: Instant) {
        let mut due = false;
        for item in &mut self.reverse.items {
            if let State::Idle { until } = &mut item.state
                && until.is_some_and(|at| at <= now)
            {
                (*until, due) = (None, true);
            }
        }
        if due {
            self.publish(core);
        }
        self.sweep_peers(core, now);
    }

    /// Nothing is published any more.
    pub(super) fn drain_reverse(&mut self, core: &mut Core) {
        for index in 0..self.reverse.items.len() {
            self.unlisten(core, index, None);
        }
    }
}
