//! HTTP/3 on one connection, the part that gateway and client share: the streams and what each of them is.

use super::{
    datagrams::Demux,
    gateway::Asker,
    ledger::{FlowPermit, Membership},
    poll::FlowKey,
    sleepers::Awake,
};
use bytes::Bytes;
use masque::{BEAM_SLEEP, Code, ConnectionError, Event as H3Event, RequestReader, TunnelId};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};
use tunnel::{ConnMut, Read, StreamId, VarInt, Write};
use upstream::users::{Identity, KeyHash, TokenHash};

/// What a stream of a connection is at the moment.
pub(super) enum Slot {
    /// A unidirectional stream of the peer.
    Uni,
    /// Gateway: a request whose header section isn't complete.
    Head(Box<RequestReader>),
    /// Gateway: the destination's name is being resolved.
    Resolving(Box<Resolving>),
    /// Gateway: an answer that ends the stream, waiting for send window. Boxed, since it is rare.
    Answering(Box<Answering>),
    /// A flow, in whatever phase.
    Flow(FlowKey),
    /// A UDP flow, in whatever phase.
    Udp(FlowKey),
    /// Gateway: a listener's stream (`-R`).
    Listen,
    /// Client: the same, of the `-R` with this index.
    Reverse(u32),
    /// An IP session.
    Ip(FlowKey),
    /// Client: a request for an IP session, without its answer.
    IpAsked,
    /// Client: a request of `beam ping`.
    Probe,
}

/// A request between its header section and the connection to its destination.
pub(super) struct Resolving {
    pub(super) reader: RequestReader,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) asker: Asker,
    pub(super) permit: FlowPermit,
    pub(super) transport: Transport,
    /// When the request came.
    pub(super) since: Instant,
    pub(super) _pending: Pending,
}

/// An answer, as far as it isn't written.
pub(super) struct Answering {
    pub(super) rest: Bytes,
    pub(super) _pending: Pending,
}

/// Requests of a worker that are neither refused nor flows yet. Each counts itself for as long as it lives: whoever asks,
/// once a second, need not look through a hundred thousand connections.
#[derive(Debug)]
pub(super) struct Pending(Arc<AtomicUsize>);

impl Pending {
    /// One more of `count`.
    pub(super) fn among(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count.clone())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What the flow to the destination will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// A peer that grants us no control stream, or no window on it, can't be spoken to (RFC 9114 section 6.2).
const OUR_STREAM_REFUSED: ConnectionError =
    ConnectionError::new(Code::H3_GENERAL_PROTOCOL_ERROR, "no credit for our control stream", 0);

/// Bytes read from a control stream at once.
const UNI_READ_BYTES: usize = 4096;

/// One HTTP/3 connection.
pub(super) struct Session {
    h3: masque::Connection,
    control: Option<StreamId>,
    pub(super) slots: HashMap<StreamId, Slot>,
    pub(super) datagrams: Demux,
    /// From the client certificate, if it showed one.
    pub(super) identity: Option<Identity>,
    /// Gateway: the client that it belongs to, since its first good request.
    pub(super) membership: Option<Membership>,
    /// Gateway: of the token that showed it.
    pub(super) token: Option<TokenHash>,
    /// Gateway: when it came.
    pub(super) since: Option<Instant>,
    /// By which a gateway verified its certificate.
    pub(super) authorities: Arc<[u8]>,
    /// Gateway: the key of the users file that it came with.
    pub(super) key: Option<KeyHash>,
    /// Gateway: names that are being resolved for it, those of requests that were given up included.
    pub(super) lookups: u32,
    /// Unidirectional streams among the slots.
    uni_count: u32,
    /// Gateway: which tunnel it is, if that may sleep.
    pub(super) tunnel_id: Option<TunnelId>,
    /// Gateway: its record, since it is known whose it is.
    pub(super) awake: Option<Box<Awake>>,
}

// What a tunnel costs a worker beside the engine's `CONNECTION_BYTES` (which has the HTTP/3 part in it): its session, its
// place among the sessions (some 40 bytes), 212 bytes for the peer's control stream among the slots. Its client's account
// and entry in the ledger are there once, however many tunnels it has.
#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<Session>() <= 424);
    assert!(size_of::<Slot>() <= 40);
};

impl Session {
    /// Opens our control stream.
    pub(super) fn open(h3: masque::Connection, conn: &mut ConnMut<'_>) -> Result<Self, ConnectionError> {
        let mut session = Self {
            h3,
            control: None,
            slots: HashMap::new(),
            datagrams: Demux::default(),
            identity: None,
            membership: None,
            token: None,
            since: None,
            authorities: Arc::default(),
            key: None,
            lookups: 0,
            uni_count: 0,
            tunnel_id: None,
            awake: None,
        };
        let control = conn.open_uni().ok_or(OUR_STREAM_REFUSED)?;
        session.control = Some(control);
        write_whole(conn, control, session.h3.opening())?;
        Ok(session)
    }

    /// Takes in a unidirectional stream that the peer opened.
    pub(super) fn add_uni(&mut self, stream: StreamId) -> Result<(), ConnectionError> {
        self.slots.insert(stream, Slot::Uni);
        self.uni_count += 1;
        self.h3.uni_opened(u64::from(stream))
    }

    /// What the peer announced; `None` until its SETTINGS have come.
    pub(super) fn peer_settings(&self) -> Option<&masque::Settings> {
        self.h3.peer_settings()
    }

    /// Gateway: the client has shown who it is.
    pub(super) fn is_proven(&self) -> bool {
        self.membership.is_some() || self.identity.is_some()
    }

    fn uni_over(&mut self, stream: StreamId) {
        self.uni_count -= u32::from(matches!(self.slots.remove(&stream), Some(Slot::Uni)));
    }

    /// Requests that are open, whatever became of them.
    pub(super) fn request_count(&self) -> usize {
        self.slots.len().saturating_sub(self.uni_count as usize)
    }

    /// The bounds for readers of request streams.
    pub(super) fn limits(&self) -> masque::Limits {
        self.h3.limits()
    }

    /// Reads one of the peer's unidirectional streams as far as it goes.
    pub(super) fn read_uni(
        &mut self,
        conn: &mut ConnMut<'_>,
        stream: StreamId,
    ) -> Result<Vec<H3Event>, ConnectionError> {
        let mut events = Vec::new();
        let id = u64::from(stream);
        loop {
            match conn.read(stream, UNI_READ_BYTES) {
                Read::Chunk(bytes) => {
                    for event in self.h3.uni_data(id, bytes, false)? {
                        if let H3Event::StopSending { code, .. } = event {
                            self.uni_over(stream);
                            conn.stop(stream, quic_code(code));
                            return Ok(events);
                        }
                        check_datagrams(conn, &event)?;
                        events.push(event);
                    }
                }
                Read::Fin => {
                    self.uni_over(stream);
                    events.extend(self.h3.uni_data(id, Bytes::new(), true)?);
                    return Ok(events);
                }
                Read::Reset(_) => {
                    self.uni_over(stream);
                    self.h3.uni_reset(id)?;
                    return Ok(events);
                }
                Read::Blocked | Read::Gone => return Ok(events),
            }
        }
    }

    /// Tells the peer that requests on streams from this id on will not be served.
    pub(super) fn send_goaway(&mut self, conn: &mut ConnMut<'_>, first_refused_id: u64) {
        if let Some(control) = self.control {
            // The window of a control stream is never near its end; if it were, closing would say the same.
            let _ = write_whole(conn, control, self.h3.goaway(first_refused_id));
        }
    }
}

/// What either end announces. Both have QUIC datagrams among their transport parameters (`tunnel::transport`).
pub(crate) fn h3_config() -> masque::Config {
    masque::Config { h3_datagram: true, ..masque::Config::default() }
}

/// What a client announces: its tunnel's id, if it may sleep.
pub(super) fn client_h3_config(id: Option<TunnelId>) -> masque::Config {
    let extra_settings = id.iter().map(|id| (BEAM_SLEEP, id.get())).collect();
    masque::Config { extra_settings, ..h3_config() }
}

/// What a gateway announces: `-R`, too.
pub(crate) fn gateway_h3_config() -> masque::Config {
    masque::Config { extra_settings: vec![(masque::listen::BEAM_LISTEN, 1)], ..h3_config() }
}

/// SETTINGS that promise HTTP datagrams without QUIC datagrams in the peer's transport parameters end the connection (RFC
/// 9297 section 2.1.1).
fn check_datagrams(conn: &mut ConnMut<'_>, event: &H3Event) -> Result<(), ConnectionError> {
    let wants = matches!(event, H3Event::Settings(settings) if settings.h3_datagram());
    if wants && conn.datagram_max_bytes().is_none() {
        let what = "H3_DATAGRAM without QUIC datagrams in the transport parameters";
        return Err(ConnectionError::new(Code::H3_SETTINGS_ERROR, what, 1));
    }
    Ok(())
}

fn write_whole(conn: &mut ConnMut<'_>, stream: StreamId, mut bytes: Bytes) -> Result<(), ConnectionError> {
    while !bytes.is_empty() {
        match conn.write_chunks(stream, std::slice::from_mut(&mut bytes)) {
            Write::Written { .. } => {}
            Write::Blocked | Write::Stopped(_) | Write::Gone => return Err(OUR_STREAM_REFUSED),
        }
    }
    Ok(())
}

/// An HTTP/3 code as QUIC carries it.
pub(super) fn quic_code(code: Code) -> VarInt {
    VarInt::from_u64(code.0).unwrap_or(VarInt::MAX)
}

/// Gives a stream up in both directions.
pub(super) fn abandon(conn: &mut ConnMut<'_>, stream: StreamId, code: Code) {
    conn.reset(stream, quic_code(code));
    conn.stop(stream, quic_code(code));
}

/// Closes the connection for an HTTP/3 error.
pub(super) fn close(conn: &mut ConnMut<'_>, error: &ConnectionError) {
    conn.close(quic_code(error.code), error.to_string().as_bytes());
}

/// Closes the connection for what a stream of it brought.
pub(super) fn close_for(conn: &mut ConnMut<'_>, code: Code) {
    conn.close(quic_code(code), b"");
}

/// Writes as much as the window takes; what is left stays in `bytes`. False if the stream takes nothing any more.
pub(super) fn write_some(conn: &mut ConnMut<'_>, stream: StreamId, bytes: &mut Bytes) -> bool {
    while !bytes.is_empty() {
        match conn.write_chunks(stream, std::slice::from_mut(bytes)) {
            Write::Written { .. } => {}
            Write::Blocked => return true,
            Write::Stopped(_) | Write::Gone => return false,
        }
    }
    true
}
