//! TCP connections that came to a listener: announced to its client, and given to the stream that it opens for them.

use super::{Gateway, Listens, Refusal, words};
use crate::worker::{
    core::{Core, End},
    flow::{Reader, Splice},
    flows::Phase,
    gateway::extended::Extended,
    poll::Token,
    session::Slot,
    udp::On,
};
use masque::{
    Capsule,
    listen::{Accept, Close, accept_target},
};
use socket2::Socket;
use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tunnel::ConnId;

/// How long a connection waits for its `beam-accept`: longer than a client tries its local service.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(20);
/// Connections of one client's connection that wait at once; more are reset.
const ARRIVALS_PER_CONNECTION_MAX: usize = 256;
/// Connections accepted from one listener in one go.
const ACCEPT_MAX: usize = 64;
/// How long a door rests when there is no descriptor for another connection.
const DOOR_REST: Duration = Duration::from_millis(100);

/// A connection that waits for its `beam-accept`.
pub(super) struct Arrival {
    socket: Socket,
    /// The listener that it came to.
    on: On,
    /// Who it is and where it came, for people; nothing that a policy could take for a destination.
    words: Box<str>,
}

impl Listens {
    fn put_arrival(&mut self, id: u64, arrival: Arrival) {
        let conn = arrival.on.0;
        self.of_connection.entry(conn).or_default().waiting_count += 1;
        self.arrivals.insert((conn, id), arrival);
    }

    fn take_arrival(&mut self, key: &(ConnId, u64)) -> Option<Arrival> {
        let arrival = self.arrivals.remove(key)?;
        if let Some(given) = self.of_connection.get_mut(&key.0) {
            given.waiting_count -= 1;
        }
        Some(arrival)
    }
}

impl Gateway {
    /// Accepts what waits at a listener, and announces each connection.
    pub(super) fn let_in(&mut self, core: &mut Core, on: On, listener: &Socket, door: u32) {
        for _ in 0..ACCEPT_MAX {
            match listener.accept() {
                Ok((socket, peer)) => self.arrived(core, on, socket, peer.as_socket()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // No descriptor, most likely. The listener stays readable: without a rest this would spin.
                    tracing::warn!("can't accept a connection for -R: {error}; see `ulimit -n`");
                    core.reverse.totals.overflowed += 1;
                    core.poll.forget(listener);
                    self.listens.resting.push((core.now + DOOR_REST, door));
                    return;
                }
            }
        }
    }

    fn arrived(&mut self, core: &mut Core, on: On, socket: Socket, peer: Option<SocketAddr>) {
        core.reverse.totals.arrived += 1;
        // Until it is a flow, its end is a reset: nobody has taken what it says.
        let _ = socket.set_linger(Some(Duration::ZERO));
        let id = self.listens.next_id(on.0);
        let waiting = self.listens.of_connection.get(&on.0).map_or(0, |given| given.waiting_count);
        let accept = peer.and_then(|peer| Accept::new(id, peer));
        let ready = socket.set_nonblocking(true).and_then(|()| socket.set_tcp_nodelay(true)).is_ok();
        let announced = waiting < ARRIVALS_PER_CONNECTION_MAX
            && ready
            && accept.is_some_and(|accept| self.announce(core, on, &Capsule::Accept(accept)));
        if !announced {
            core.reverse.totals.overflowed += 1;
            return;
        }
        let to = self.listens.table.get(&on).map_or_else(String::new, |listening| words(&listening.target));
        let peer = peer.map_or_else(String::new, |peer| peer.to_string());
        let words = format!("{to} (-R, from {peer})").into();
        self.listens.put_arrival(id, Arrival { socket, on, words });
        self.listens.arrivals_due.push_back((core.now + ARRIVAL_LIMIT, on.0, id));
    }

    /// Puts a capsule on a listen stream. False if the client is too far behind.
    pub(super) fn announce(&mut self, core: &mut Core, on: On, capsule: &Capsule) -> bool {
        let Some(listening) = self.listens.table.get_mut(&on) else { return false };
        let Some(mut quic) = core.engine.connection(on.0) else { return false };
        listening.stream.send_control(&mut quic, capsule)
    }

    /// Takes a client's stream for a connection that a listener has accepted.
    pub(in crate::worker::gateway) fn accept(
        &mut self,
        core: &mut Core,
        request: Extended<'_>,
    ) -> Result<(), Refusal> {
        let id = accept_target(request.path).map_err(|error| {
            core.totals.refused_bad_request += 1;
            Refusal::new(error.status())
        })?;
        let key = (request.conn, id);
        let listening =
            self.listens.arrivals.get(&key).and_then(|arrival| self.listens.table.get(&arrival.on));
        let theirs = listening.is_some_and(|listening| listening.client == request.asker.identity.name);
        let Some(arrival) = theirs.then(|| self.listens.take_arrival(&key)).flatten() else {
            core.totals.refused_not_found += 1;
            return Err(Refusal::new(404));
        };
        let (conn, stream) = (request.conn, request.stream);
        let answer = masque::encode_response(200, &[]);
        let splice = Splice::new(stream, Reader::Request(request.reader), answer);
        let key = core.flows.insert(arrival.socket, Phase::Open(Box::new(splice)), core.now);
        let Some(flow) = core.flows.get_mut(key) else { return Err(Refusal::new(503)) };
        (flow.on, flow.permit, flow.to) = (Some((conn, stream)), Some(request.permit), arrival.words);
        core.flow_opened(conn);
        core.reverse.totals.opened += 1;
        let Some(flow) = core.flows.get_mut(key) else { return Err(Refusal::new(503)) };
        if core.poll.watch_edges(&flow.socket, Token::Flow(key)).is_err() {
            core.end_flow(key, End::Reset);
            core.totals.refused_limit += 1;
            return Err(Refusal::new(503));
        }
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.slots.insert(stream, Slot::Flow(key));
        }
        core.flows.queue(key);
        Ok(())
    }

    /// The client's local service does not take it.
    pub(super) fn arrival_declined(&mut self, core: &mut Core, on: On, id: u64) {
        let key = (on.0, id);
        if self.listens.arrivals.get(&key).is_some_and(|arrival| arrival.on == on) {
            self.listens.take_arrival(&key);
            core.reverse.totals.declined += 1;
        }
    }

    /// A listener is gone, and with it those that wait.
    pub(super) fn abandon_arrivals(&mut self, core: &mut Core, on: On) {
        let waiting = self.listens.arrivals.iter().filter(|(_, arrival)| arrival.on == on);
        for key in waiting.map(|(&key, _)| key).collect::<Vec<_>>() {
            self.listens.take_arrival(&key);
            core.reverse.totals.abandoned += 1;
        }
    }

    /// Resets those that nobody came for.
    pub(super) fn expire_arrivals(&mut self, core: &mut Core, now: Instant) {
        while let Some(&(at, conn, id)) = self.listens.arrivals_due.front()
            && (at <= now || !self.is_waiting(conn, id))
        {
            self.listens.arrivals_due.pop_front();
            if let Some(arrival) = self.listens.take_arrival(&(conn, id)) {
                core.reverse.totals.expired += 1;
                if let Some(close) = Close::new(id) {
                    self.announce(core, arrival.on, &Capsule::Close(close));
                }
            }
        }
    }

    fn is_waiting(&self, conn: ConnId, id: u64) -> bool {
        self.listens.arrivals.contains_key(&(conn, id))
    }

    /// Listens again where a rest is over.
    pub(super) fn end_door_rests(&mut self, core: &mut Core, now: Instant) {
        let (over, still): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.listens.resting).into_iter().partition(|&(until, _)| until <= now);
        self.listens.resting = still;
        for (_, index) in over {
            if let Some((_, door)) = self.listens.doors.get(index as usize)
                && core.poll.watch_readable(door, Token::Listener(index)).is_err()
            {
                self.listens.resting.push((now + DOOR_REST, index));
            }
        }
    }
}
