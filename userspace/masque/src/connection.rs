//! What HTTP/3 keeps for a whole connection: settings, GOAWAY, and the unidirectional streams.
//!
//! The driver opens one stream and writes [`Connection::opening`] on it as soon as QUIC lets it, tells about each stream
//! that the peer opens, and pushes what arrives. Request streams do not pass through here; each has a
//! [`crate::MessageReader`] of its own.

use crate::{
    Code, ConnectionError, Limits, Settings, frame,
    peer_qpack::check_encoder_stream,
    settings,
    uni::{self, Reader},
    varint,
};
use bytes::{Bytes, BytesMut};

/// Untyped streams that may be open at once. QUIC's own stream limit is the driver's and usually lower.
const UNTYPED_STREAMS_MAX: usize = 64;
/// The largest id that a client's bidirectional stream can have.
const REQUEST_STREAM_ID_MAX: u64 = varint::VARINT_MAX - 3;

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Accepts requests.
    Server,
    /// Sends them.
    Client,
}

/// What we announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// MAX_FIELD_SECTION_SIZE, and the bound of every [`crate::MessageReader`] of this connection.
    ///
    /// 16384: a tunnel's request is an authority and a token, and the largest tokens seen in practice (a Kerberos ticket
    /// or a JWT with its groups) come to 12 KB. Lower refuses them. Higher is memory that a stranger pins before anyone
    /// checked the token: this times the request streams that QUIC allows at once (16 KiB times 100 is 1.6 MB).
    pub max_field_section_bytes: usize,
    /// H3_DATAGRAM = 1. Only with QUIC datagrams in our transport parameters.
    pub h3_datagram: bool,
    /// ENABLE_CONNECT_PROTOCOL = 1; a client never sends it.
    pub extended_connect: bool,
    /// Any number: picks the reserved setting that we send so that peers keep ignoring what they do not know.
    pub grease: u64,
    /// Settings of extensions, such as the one that offers `beam-listen`; identifiers that this crate knows are left out.
    pub extra_settings: Vec<(u64, u64)>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_field_section_bytes: 16_384,
            h3_datagram: false,
            extended_connect: true,
            grease: 0,
            extra_settings: Vec::new(),
        }
    }
}

/// What the peer's unidirectional streams meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer's settings are known now; see also [`Connection::peer_settings`].
    Settings(Settings),
    /// The peer winds down. To a client: requests on streams with this id or above were not processed and may be sent
    /// elsewhere. To a server it is a push id and says only that the client goes.
    GoAway {
        /// Never larger than in an earlier event.
        id: u64,
    },
    /// A stream of a type that nobody here knows: send STOP_SENDING. Its data is ignored from now on.
    StopSending {
        /// The stream.
        stream_id: u64,
        /// The code to send.
        code: Code,
    },
}

/// HTTP/3 state of one connection.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    config: Config,
    peer_settings: Option<Settings>,
    /// Client: what the server announced when it gave the ticket that early data goes by.
    remembered: Option<Settings>,
    /// The peer's streams that matter: at most 3 critical ones and [`UNTYPED_STREAMS_MAX`] others.
    streams: Vec<(u64, Reader)>,
    goaway_sent: Option<u64>,
}

impl Connection {
    /// The side that accepts requests.
    #[must_use]
    pub fn server(config: Config) -> Self {
        Self::new(Role::Server, config)
    }

    /// The side that sends requests.
    #[must_use]
    pub fn client(config: Config) -> Self {
        Self::new(Role::Client, config)
    }

    fn new(role: Role, config: Config) -> Self {
        Self { role, config, peer_settings: None, remembered: None, streams: Vec::new(), goaway_sent: None }
    }

    /// What to write first on our control stream, the only one that we open. It stays open as long as the connection does.
    ///
    /// QPACK's two streams stay closed, for an endpoint "MAY avoid creating" them when its tables have capacity 0 (RFC 9204
    /// section 4.2): they would cost either end some 800 bytes a connection, and carry nothing.
    #[must_use]
    pub fn opening(&self) -> Bytes {
        let mut control = BytesMut::new();
        varint::write(&mut control, uni::CONTROL);
        settings::write_frame(&mut control, &self.own_settings());
        control.freeze()
    }

    fn own_settings(&self) -> Vec<(u64, u64)> {
        let config = &self.config;
        let mut pairs = vec![
            (settings::QPACK_MAX_TABLE_CAPACITY, 0),
            (settings::QPACK_BLOCKED_STREAMS, 0),
            (settings::MAX_FIELD_SECTION_SIZE, config.max_field_section_bytes as u64),
            (settings::reserved_identifier(config.grease), config.grease & 0xff),
        ];
        if self.role == Role::Server && config.extended_connect {
            pairs.push((settings::ENABLE_CONNECT_PROTOCOL, 1));
        }
        if config.h3_datagram {
            pairs.push((settings::H3_DATAGRAM, 1));
        }
        for &(identifier, value) in &config.extra_settings {
            // A second value for one identifier would make the peer close the connection.
            let is_ours =
                identifier <= settings::ENABLE_CONNECT_PROTOCOL || identifier == settings::H3_DATAGRAM;
            if !is_ours && !pairs.iter().any(|pair| pair.0 == identifier) {
                pairs.push((identifier, value));
            }
        }
        pairs
    }

    /// The bounds for the readers of this connection's request streams.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            field_section_bytes_max: self.config.max_field_section_bytes,
            extended_connect: self.config.extended_connect,
        }
    }

    /// Client, for early data: goes by these settings of an earlier connection until those of this one arrive, which
    /// must not be less (RFC 9114 section 7.2.4.2).
    #[must_use]
    pub fn remembering(mut self, settings: Option<Settings>) -> Self {
        self.remembered = settings;
        self
    }

    /// The peer's settings, or the remembered ones until they arrive; `None` where there are none, and every default
    /// holds.
    #[must_use]
    pub fn peer_settings(&self) -> Option<&Settings> {
        self.peer_settings.as_ref().or(self.remembered.as_ref())
    }

    /// The peer opened a unidirectional stream.
    ///
    /// # Errors
    /// H3_EXCESSIVE_LOAD when too many streams are open that never said what they are.
    pub fn uni_opened(&mut self, stream_id: u64) -> Result<(), ConnectionError> {
        let untyped_count = self.streams.iter().filter(|(_, reader)| !reader.is_critical()).count();
        if untyped_count >= UNTYPED_STREAMS_MAX {
            let what = "more than 64 unidirectional streams without a type";
            return Err(ConnectionError::new(Code::H3_EXCESSIVE_LOAD, what, stream_id));
        }
        if self.position(stream_id).is_none() {
            // Most peers open one of them, others three.
            self.streams.reserve_exact(1);
            self.streams.push((stream_id, Reader::Untyped(varint::Partial::default())));
        }
        Ok(())
    }

    /// Bytes of a stream that was announced with [`Self::uni_opened`]; `fin` when they are the last. Those of a stream
    /// that was told to stop are ignored.
    ///
    /// # Errors
    /// The connection must be closed.
    pub fn uni_data(
        &mut self,
        stream_id: u64,
        bytes: Bytes,
        fin: bool,
    ) -> Result<Vec<Event>, ConnectionError> {
        let mut events = Vec::new();
        let Some(mut at) = self.position(stream_id) else { return Ok(events) };
        let mut rest = &bytes[..];
        if let Reader::Untyped(partial) = &mut self.streams[at].1 {
            let mut kind = None;
            while let (None, Some((&byte, after))) = (kind, rest.split_first()) {
                kind = partial.push(byte);
                rest = after;
            }
            if let Some(kind) = kind {
                match self.typed(stream_id, kind)? {
                    Some(reader) => self.streams[at].1 = reader,
                    None => {
                        self.streams.swap_remove(at);
                        // A stream that ended by itself needs no STOP_SENDING.
                        if !fin {
                            events
                                .push(Event::StopSending { stream_id, code: Code::H3_STREAM_CREATION_ERROR });
                        }
                        return Ok(events);
                    }
                }
                at = self.position(stream_id).unwrap_or(at);
            }
        }
        self.feed(at, rest, &mut events)?;
        if fin {
            self.closed(stream_id)?;
        }
        Ok(events)
    }

    /// The peer reset a stream.
    ///
    /// # Errors
    /// H3_CLOSED_CRITICAL_STREAM when the connection cannot do without it.
    pub fn uni_reset(&mut self, stream_id: u64) -> Result<(), ConnectionError> {
        self.closed(stream_id)
    }

    /// The peer asked us to stop sending on our control stream: always an error.
    #[must_use]
    pub fn own_stopped() -> ConnectionError {
        let what = "STOP_SENDING for a stream that must stay open";
        ConnectionError::new(Code::H3_CLOSED_CRITICAL_STREAM, what, uni::CONTROL)
    }

    /// The GOAWAY frame to write on the control stream. A server says which request streams it will not serve: those
    /// with `first_refused_id` or above (`u64::MAX` at first, so that nothing new comes, then the true one). A client
    /// passes 0. An id above an earlier one is lowered to it, since the peer may have retried already.
    #[must_use]
    pub fn goaway(&mut self, first_refused_id: u64) -> Bytes {
        let largest = match self.role {
            Role::Server => REQUEST_STREAM_ID_MAX,
            Role::Client => varint::VARINT_MAX,
        };
        let mut id = first_refused_id.min(self.goaway_sent.unwrap_or(largest));
        if self.role == Role::Server {
            // Only client-initiated bidirectional ids are valid; the next one up refuses no stream that was accepted.
            id = id.next_multiple_of(4);
        }
        self.goaway_sent = Some(id);
        let mut out = BytesMut::with_capacity(2 + varint::VARINT_BYTES_MAX);
        varint::write(&mut out, frame::GOAWAY);
        varint::write(&mut out, varint::size_bytes(id) as u64);
        varint::write(&mut out, id);
        out.freeze()
    }

    /// Bytes of the peer that are held because their frame is not whole; bounded by the largest SETTINGS, 1024.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        let held = |reader: &Reader| match reader {
            Reader::Control(control) => control.held_bytes(),
            Reader::Untyped(partial) => partial.held_bytes(),
            Reader::QpackEncoder | Reader::QpackDecoder(_) => 0,
        };
        self.streams.iter().map(|(_, reader)| held(reader)).sum()
    }

    fn position(&self, stream_id: u64) -> Option<usize> {
        self.streams.iter().position(|(id, _)| *id == stream_id)
    }

    /// The reader for a type that has just arrived; `None` for a type that nobody knows.
    fn typed(&self, stream_id: u64, kind: u64) -> Result<Option<Reader>, ConnectionError> {
        let reader = match kind {
            uni::CONTROL => Reader::Control(Box::default()),
            uni::QPACK_ENCODER => Reader::QpackEncoder,
            uni::QPACK_DECODER => Reader::QpackDecoder(Default::default()),
            uni::PUSH => return Err(self.push_refused(stream_id)),
            _ => return Ok(None),
        };
        let is_second = self
            .streams
            .iter()
            .any(|(_, other)| std::mem::discriminant(other) == std::mem::discriminant(&reader));
        if is_second {
            let what = "a second control, QPACK encoder or QPACK decoder stream";
            return Err(ConnectionError::new(Code::H3_STREAM_CREATION_ERROR, what, kind));
        }
        Ok(Some(reader))
    }

    fn push_refused(&self, stream_id: u64) -> ConnectionError {
        match self.role {
            Role::Server => {
                ConnectionError::new(Code::H3_STREAM_CREATION_ERROR, "a push stream from a client", stream_id)
            }
            Role::Client => ConnectionError::new(
                Code::H3_ID_ERROR,
                "a push stream, though MAX_PUSH_ID was never sent",
                stream_id,
            ),
        }
    }

    fn feed(&mut self, at: usize, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), ConnectionError> {
        match &mut self.streams[at].1 {
            Reader::Untyped(_) => Ok(()),
            Reader::Control(control) => {
                control.feed(self.role, bytes, events)?;
                let settings = events.iter().find_map(|event| match event {
                    Event::Settings(settings) => Some(settings.clone()),
                    _ => None,
                });
                if let Some(settings) = settings {
                    if self.remembered.as_ref().is_some_and(|before| !settings.honours(before)) {
                        let what = "settings that are less than those that early data was sent under";
                        return Err(ConnectionError::new(Code::H3_SETTINGS_ERROR, what, 0));
                    }
                    self.peer_settings = Some(settings);
                }
                Ok(())
            }
            Reader::QpackEncoder => check_encoder_stream(bytes),
            Reader::QpackDecoder(decoder) => decoder.feed(bytes),
        }
    }

    /// "A receiver MUST tolerate unidirectional streams being closed or reset prior to the reception of the
    /// unidirectional stream header" (RFC 9114 section 6.2).
    fn closed(&mut self, stream_id: u64) -> Result<(), ConnectionError> {
        let Some(at) = self.position(stream_id) else { return Ok(()) };
        let (_, reader) = self.streams.swap_remove(at);
        if reader.is_critical() {
            let what = "the control stream or a QPACK stream was closed";
            return Err(ConnectionError::new(Code::H3_CLOSED_CRITICAL_STREAM, what, stream_id));
        }
        Ok(())
    }
}
